"""The command line: parses, builds the settings, calls one coroutine. No logic.

A command is a module here whose `add` adds its parser and says what runs it; `COMMANDS` lists them. What can
go wrong before it runs is one line on stderr: 2 for a wrong setting or command line, 1 for a world that does
not allow it (address taken, storage not writable).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from trioreg import __version__
from trioreg.cli import auth, backup, du, gc, info, purge, restore, retain, scrub, serve, settings, verify
from trioreg.cli.command import Parser, explain, fail, only_cause
from trioreg.config import ConfigError

# In the order of --help.
COMMANDS = (serve, settings, auth, backup, restore, info, gc, retain, purge, scrub, verify, du)


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    start: serve.Start = serve.start,
) -> int:
    """Run the command and return its exit code; `start` runs the server until it has stopped."""
    try:
        arguments = _parser().parse_args(argv)
    except ConfigError as error:
        return fail(2, str(error))
    try:
        arguments.environ = os.environ if environ is None else environ
        arguments.start = start
        return int(arguments.run(arguments))
    except ConfigError as error:
        return fail(2, str(error))
    except (KeyboardInterrupt, OSError, BaseExceptionGroup) as error:
        cause = only_cause(error)
        if isinstance(cause, KeyboardInterrupt):
            return 130
        if not isinstance(cause, OSError):
            raise
        logging.getLogger("trioreg.cli").debug("stopped by the system", exc_info=cause)
        return fail(1, explain(cause, arguments.bind))


def _parser() -> Parser:
    parser = Parser(
        prog="trioreg",
        description="An OCI registry that keeps every promise it makes about memory.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"trioreg {__version__}")
    parser.set_defaults(bind="")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return parser

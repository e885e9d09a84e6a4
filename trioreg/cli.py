"""The command line: parses, builds the settings, calls one coroutine. No logic.

What can go wrong before the server runs is one line on stderr: 2 for a wrong setting or command
line, 1 for a world that does not allow it (address taken, storage not writable).
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from trioreg import __version__
from trioreg.config import SETTINGS, Config, ConfigError, describe, find, load

Start = Callable[[Config], int]


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    start: Start | None = None,
) -> int:
    """Run the command and return its exit code; `start` runs the server until it has stopped."""
    environ = os.environ if environ is None else environ
    try:
        arguments = _parser().parse_args(argv)
        if arguments.command == "info":
            _print_info()
            return 0
        if arguments.command == "config":
            _print_config(arguments, environ)
            return 0
        config = load(arguments.options, environ, arguments.config)
    except ConfigError as error:
        return _fail(2, str(error))
    try:
        return (start or _start)(config)
    except (KeyboardInterrupt, OSError, BaseExceptionGroup) as error:
        cause = _only(error)
        if isinstance(cause, KeyboardInterrupt):
            return 130
        if not isinstance(cause, OSError):
            raise
        logging.getLogger("trioreg.cli").debug("stopped by the system", exc_info=cause)
        return _fail(1, _explain(cause, config))


def _start(config: Config) -> int:
    # Here, so that --version and a wrong setting answer without loading the server.
    from trioreg.server.run import run

    return run(config)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


class _Set(argparse.Action):
    """Collects every option in `options`, by dotted name; the last one wins."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        name, text = self.const or (None, None)
        if name is None:
            name, equals, text = str(values).partition("=")
            if not equals:
                raise argparse.ArgumentError(self, "write NAME=VALUE, as memory.block=512KiB")
        elif text is None:
            text = str(values)
        namespace.options = {**namespace.options, name: text}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="trioreg",
        description="An OCI registry that keeps every promise it makes about memory.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"trioreg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_command(commands, "serve", "run the registry")
    show = _add_command(commands, "config", "show the effective settings and where each comes from")
    commands.add_parser("info", help="show what runs here: versions, and the digest engine that was chosen")
    show.add_argument("--markdown", action="store_true", help="print the table of docs/configuration.md")
    return parser


def _add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, allow_abbrev=False
    )
    command.set_defaults(options={})
    command.add_argument("--config", type=Path, metavar="FILE", help="settings as TOML")
    for setting in SETTINGS:
        if setting.option is not None:
            command.add_argument(
                setting.option,
                action=_Set,
                const=(setting.name, setting.flag),
                nargs=0 if setting.flag else None,
                metavar=None if setting.flag else setting.kind.metavar,
                help=f"{setting.name} = {setting.flag}" if setting.flag else setting.help,
            )
    command.add_argument(
        "--set", action=_Set, metavar="NAME=VALUE", help="any setting by its name; repeatable"
    )
    return command


def _print_info() -> None:
    from trioreg.server.info import describe as describe_engine

    rows = describe_engine()
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        sys.stdout.write(f"{name:<{width}}  {text}\n")


def _print_config(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    if arguments.markdown:
        sys.stdout.write(settings_as_markdown())
        return
    found = find(arguments.options, environ, arguments.config)
    rows = [
        (setting.name, setting.kind.show(value) or '""', source)
        for setting, (value, source) in zip(SETTINGS, found.values(), strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def settings_as_markdown() -> str:
    """The table of settings as docs/configuration.md shows it."""
    lines = ["| setting | variable | option | kind | default | what it does |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in describe():
        names = [_code(row.name), _code(row.variable), _code(row.option)]
        lines.append("| " + " | ".join([*names, row.kind, _code(row.default), row.help]) + " |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else "–"


def _only(error: BaseException) -> BaseException:
    """The one error in a group, however deep: a nursery wraps even a single one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _explain(error: OSError, config: Config) -> str:
    why = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {why}"
    if isinstance(error, socket.gaierror) or error.errno in _LISTEN_ERRORS:
        return f"cannot listen on {config.http_bind}: {why}"
    return why


_LISTEN_ERRORS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES)


def _fail(code: int, line: str) -> int:
    sys.stderr.write(f"trioreg: {' '.join(line.splitlines())}\n")
    return code

"""What commands share: options for every setting, and one line for everything that goes wrong."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from trioreg.config import SETTINGS, Config, ConfigError, load

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
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


def add_command(commands: Commands, name: str, text: str, run: Run, *, settings: bool = True) -> Parser:
    """A parser for the command; `run` gets what it parsed. With `settings`, settings are options."""
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(run=run)
    if settings:
        _add_settings(command)
    return command


def settings_of(arguments: argparse.Namespace) -> Config:
    """The effective settings of a command that was added with `settings`. Raises ConfigError."""
    return load(arguments.options, arguments.environ, arguments.config)


def _add_settings(command: Parser) -> None:
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


def only_cause(error: BaseException) -> BaseException:
    """The one error in a group, however deep: a nursery wraps even a single one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def explain(error: OSError, bind: str) -> str:
    """One line for what the system refused; `bind` is where a server would listen."""
    why = error.strerror or str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {why}"
    if isinstance(error, socket.gaierror) or error.errno in _LISTEN_ERRORS:
        return f"cannot listen on {bind}: {why}"
    return why


_LISTEN_ERRORS = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES)


def fail(code: int, line: str) -> int:
    """Print the line; the exit code."""
    sys.stderr.write(f"trioreg: {' '.join(line.splitlines())}\n")
    return code

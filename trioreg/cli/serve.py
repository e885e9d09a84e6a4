"""`trioreg serve`: run the registry until a signal ends it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from trioreg.cli.command import Commands, add_command, settings_of
from trioreg.config import Config, Source

Start: TypeAlias = Callable[[Config, Source], int]


def add(commands: Commands) -> None:
    add_command(commands, "serve", "run the registry", _run)


def _run(arguments: argparse.Namespace) -> int:
    config = settings_of(arguments)
    arguments.bind = config.http_bind
    start: Start = arguments.start
    return start(config, Source(arguments.options, arguments.environ, arguments.config))


def start(config: Config, source: Source) -> int:
    # Here, so that --version and a wrong setting answer without loading the server.
    from trioreg.server.run import run

    return run(config, source)

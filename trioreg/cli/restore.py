"""`trioreg restore`: make a registry's root from a backup."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trioreg.cli.backup import add_options, copy
from trioreg.cli.command import Commands, add_command, settings_of

if TYPE_CHECKING:
    from trioreg.storage.filesystem.copying import Report


def add(commands: Commands) -> None:
    text = "fill the storage, which must be empty, from a backup"
    command = add_command(commands, "restore", text, _run)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the backup")
    add_options(command)


def _run(arguments: argparse.Namespace) -> int:
    from trioreg.storage.filesystem.backup import restore

    config = settings_of(arguments)

    def record(report: Report) -> None:
        from trioreg.server.recording import record_now

        record_now(config, f"restore from {arguments.folder}", report)

    return copy(restore, arguments.folder, config.storage_path, arguments, record)

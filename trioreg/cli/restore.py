"""`trioreg restore`: make a registry's root from a backup."""

from __future__ import annotations

import argparse
from pathlib import Path

from trioreg.cli.backup import add_options, copy
from trioreg.cli.command import Commands, add_command, settings_of


def add(commands: Commands) -> None:
    text = "fill the storage, which must be empty, from a backup"
    command = add_command(commands, "restore", text, _run)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the backup")
    add_options(command)


def _run(arguments: argparse.Namespace) -> int:
    from trioreg.storage.filesystem.backup import restore

    return copy(restore, arguments.folder, settings_of(arguments).storage_path, arguments)

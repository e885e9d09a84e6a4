"""What the commands of upkeep share: the storage of the settings, a report as text or JSON, an exit code.

They work on a storage whether or not servers use it at the same time.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from trioreg.cli.command import Commands, Parser, add_command, fail, settings_of
from trioreg.cli.progress import ProgressLine
from trioreg.config import Config, ConfigError

if TYPE_CHECKING:  # A command line that is wrong answers without loading what it would run.
    import msgspec

    from trioreg.server.recording import Told
    from trioreg.storage.collecting import CollectableStorage

Do: TypeAlias = (
    "Callable[[CollectableStorage, Config, argparse.Namespace, ProgressLine, Told],"
    " Awaitable[msgspec.Struct]]"
)
# Lines of text for a report, and the exit code it stands for.
Tell: TypeAlias = "Callable[[msgspec.Struct], tuple[list[str], int]]"


def add_upkeep(
    commands: Commands, name: str, text: str, do: Do, tell: Tell | None = None, *, changes: bool = False
) -> Parser:
    """A command that does `do` on the storage of its settings and writes the report that it returns.

    What one that `changes` things did is for the audit log too.
    """
    what = name if changes else ""
    command = add_command(commands, name, text, lambda arguments: _run(arguments, do, tell or as_rows, what))
    command.add_argument("--json", action="store_true", help="write the report as one JSON object")
    return command


def as_rows(report: msgspec.Struct) -> tuple[list[str], int]:
    """A line for each field of a report; a list has a line for each entry."""
    import msgspec

    lines: list[str] = []
    for name, value in msgspec.to_builtins(report).items():
        label = name.replace("_", " ")
        if isinstance(value, list):
            lines += [f"{label:<20} {entry}" for entry in value]
        else:
            lines.append(f"{label:<20} {_shown(value)}")
    return lines, 0


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _run(arguments: argparse.Namespace, do: Do, tell: Tell, what: str) -> int:
    import msgspec
    import trio

    from trioreg.server.recording import NOBODY, told_by_command
    from trioreg.storage.base import StorageError

    config = settings_of(arguments)
    progress = ProgressLine()
    store = _open(config)

    async def work() -> msgspec.Struct:
        try:
            if not what or getattr(arguments, "dry_run", False):
                return await do(store, config, arguments, progress, NOBODY)
            async with told_by_command(config) as told:
                report = await do(store, config, arguments, progress, told)
                await told.did("upkeep", what, report)
                return report
        finally:
            progress.close()

    try:
        report = trio.run(work)
    except StorageError as error:
        return fail(1, str(error))
    lines, code = tell(report)
    if arguments.json:
        lines = [msgspec.json.encode(report).decode()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return code


def _open(config: Config) -> CollectableStorage:
    if config.storage_driver != "filesystem":
        raise ConfigError(f"a storage of the kind {config.storage_driver} is in its server alone")
    if not config.storage_path.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(config.storage_path))
    from trioreg.storage.filesystem import Disk
    from trioreg.storage.filesystem.collecting import CollectableFiles

    return CollectableFiles(config.storage_path, Disk(durable=config.storage_durability == "full"))

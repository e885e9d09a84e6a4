"""`trioreg backup`: copy the registry, running or not, into a folder that one can restore or serve."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trioreg.cli.command import Commands, Parser, add_command, fail, settings_of
from trioreg.cli.progress import ProgressLine

if TYPE_CHECKING:
    from trioreg.storage.filesystem.copying import Report


def add(commands: Commands) -> None:
    text = "copy the registry, running or not, to a folder; run again, it copies what is new"
    command = add_command(commands, "backup", text, _run)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the backup; made if absent")
    add_options(command)


def add_options(command: Parser) -> None:
    command.add_argument("--verify", action="store_true", help="read again the blobs that are there already")
    command.add_argument(
        "--link", action="store_true", help="hard links in place of copies, where that works"
    )
    command.add_argument("--json", action="store_true", help="print the report as JSON")


def _run(arguments: argparse.Namespace) -> int:
    from trioreg.storage.filesystem.backup import backup

    return copy(backup, settings_of(arguments).storage_path, arguments.folder, arguments)


def copy(
    call: Callable[..., Report],
    source: Path,
    target: Path,
    arguments: argparse.Namespace,
    record: Callable[[Report], None] = lambda report: None,
) -> int:
    """Run a backup or restore, record it and print its report; 1 when it was refused, or bytes are lost."""
    from trioreg.storage.filesystem.backup import Refused

    progress = ProgressLine()
    try:
        options: dict[str, Any] = {"verify": arguments.verify, "link": arguments.link}
        report = call(source, target, tell=progress.show, **options)
        record(report)
    except Refused as refused:
        return fail(1, str(refused))
    finally:
        progress.close()
    if arguments.json:
        sys.stdout.write(json.dumps(asdict(report)) + "\n")
    else:
        sys.stdout.write(_text(report))
    return 1 if report.lost else 0


def _text(report: Report) -> str:
    there = f"{report.repositories} repositories, {report.tags} tags, {report.manifests} manifests"
    copied = f"copied {report.copied_blobs} blobs, {report.copied_bytes} bytes"
    links = f"{report.changed_links} links changed, {report.removed_repositories} repositories removed"
    lines = [f"{there}, {report.blobs} blobs, {report.bytes} bytes", f"{copied}; {links}", *report.named]
    if report.lost:
        lines.append(f"{report.lost} blobs have no good bytes and are not in the copy")
    return "\n".join(lines) + "\n"

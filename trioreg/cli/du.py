"""`trioreg du`: what takes how much, and how many links blobs have."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from trioreg.cli.command import Commands
from trioreg.cli.progress import ProgressLine
from trioreg.cli.upkeep import add_upkeep
from trioreg.config import Config

if TYPE_CHECKING:
    import msgspec

    from trioreg.server.recording import Told
    from trioreg.storage.collecting import CollectableStorage


def add(commands: Commands) -> None:
    text = "show what takes how much: blobs, repositories, and what sharing saves"
    command = add_upkeep(commands, "du", text, _do, _tell)
    blobs = "the N largest blobs and the N that are shared most, with the number of links to each (0)"
    command.add_argument("--blobs", type=int, default=0, metavar="N", help=blobs)
    command.add_argument("--repositories", type=int, default=20, metavar="N", help="the N largest (20)")


async def _do(
    store: CollectableStorage,
    config: Config,
    arguments: argparse.Namespace,
    progress: ProgressLine,
    _told: Told,
) -> msgspec.Struct:
    from trioreg.registry.inspect import count_usage

    return await count_usage(
        store,
        repositories=max(0, arguments.repositories),
        blobs=max(0, arguments.blobs),
        watch=lambda report: progress.show(f"{report.blobs:,} blobs, {report.links:,} links"),
    )


def _tell(report: Any) -> tuple[list[str], int]:
    ratio = report.linked_bytes / report.bytes if report.bytes else 1.0
    lines = [
        f"{report.bytes:>20,} bytes in {report.blobs:,} blobs",
        f"{report.linked_bytes:>20,} bytes as repositories see them, {ratio:.2f} times as much",
        f"{report.unlinked_bytes:>20,} bytes in {report.unlinked:,} blobs that no repository links",
    ]
    for each in report.by_links:
        links = f"{each.least:,}" if each.least == each.most else f"{each.least:,} to {each.most:,}"
        lines.append(f"{each.bytes:>20,} bytes in {each.blobs:,} blobs that {links} links lead to")
    lines += [f"{each.bytes:>20,} bytes, {each.links:,} links: {each.name}" for each in report.repositories]
    for title, blobs in (("largest", report.largest), ("most shared", report.most_linked)):
        lines += [f"{each.size:>20,} bytes, {each.links:,} links: {each.digest} ({title})" for each in blobs]
    return lines, 0

"""`trioreg scrub`: read every blob, and take out of service what is rotten."""

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
    text = "read every blob at scrub.rate, and take out of service what is not what its digest says"
    add_upkeep(commands, "scrub", text, _do, _tell, changes=True)


async def _do(
    store: CollectableStorage,
    config: Config,
    arguments: argparse.Namespace,
    progress: ProgressLine,
    _told: Told,
) -> msgspec.Struct:
    from trioreg.registry.scrub import Scrubbed, Scrubber

    def watch(report: Scrubbed) -> None:
        text = f"{report.blobs:,} blobs, {report.bytes:,} bytes, {len(report.rotten)} rotten"
        if report.unreadable_blobs:
            text += f", {report.unreadable_blobs:,} unreadable"
        progress.show(text, report.done)

    return await Scrubber(store, rate=config.scrub_rate, watch=watch).run()


def _tell(report: Any) -> tuple[list[str], int]:
    lines = []
    for each in report.rotten:
        lines.append(f"rotten: {each.digest} ({each.size:,} bytes)")
        lines += [f"  needed by {name}" for name in each.images]
    for each in report.unreadable:
        lines.append(f"unreadable: {each.digest} ({each.size:,} bytes): {each.reason}")
        lines += [f"  needed by {name}" for name in each.images]
    sums = f"{report.blobs:,} blobs, {report.bytes:,} bytes: {len(report.rotten):,} rotten"
    lines.append(f"{sums}, {report.unreadable_blobs:,} unreadable")
    return lines, 1 if report.rotten or report.unreadable_blobs else 0

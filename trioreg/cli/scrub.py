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

    from trioreg.storage.collecting import CollectableStorage


def add(commands: Commands) -> None:
    text = "read every blob at scrub.rate, and take out of service what is not what its digest says"
    add_upkeep(commands, "scrub", text, _do, _tell)


async def _do(
    store: CollectableStorage, config: Config, arguments: argparse.Namespace, progress: ProgressLine
) -> msgspec.Struct:
    from trioreg.registry.scrub import Scrubbed, Scrubber

    def watch(report: Scrubbed) -> None:
        text = f"{report.blobs:,} blobs, {report.bytes:,} bytes, {len(report.rotten)} rotten"
        progress.show(text, report.done)

    return await Scrubber(store, rate=config.scrub_rate, watch=watch).run()


def _tell(report: Any) -> tuple[list[str], int]:
    lines = []
    for each in report.rotten:
        lines += [
            f"rotten: {each.digest} ({each.size:,} bytes)",
            *[f"  needed by {name}" for name in each.images],
        ]
    lines.append(f"{report.blobs:,} blobs, {report.bytes:,} bytes: {len(report.rotten):,} rotten")
    return lines, 1 if report.rotten else 0

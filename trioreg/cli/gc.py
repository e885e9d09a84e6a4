"""`trioreg gc`: collect what nobody needs, while servers run or not."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from trioreg.cli.command import Commands
from trioreg.cli.progress import ProgressLine
from trioreg.cli.upkeep import add_upkeep
from trioreg.config import Config

if TYPE_CHECKING:
    import msgspec

    from trioreg.server.recording import Told
    from trioreg.storage.collecting import CollectableStorage


def add(commands: Commands) -> None:
    text = "collect garbage: links and blobs that no manifest needs"
    command = add_upkeep(commands, "gc", text, _do, changes=True)
    command.add_argument("--dry-run", action="store_true", help="change nothing, report what would go")


async def _do(
    store: CollectableStorage,
    config: Config,
    arguments: argparse.Namespace,
    progress: ProgressLine,
    told: Told,
) -> msgspec.Struct:
    from trioreg.registry.collected import Report
    from trioreg.registry.garbage import Collector
    from trioreg.registry.grace import agreed_grace

    def watch(report: Report) -> None:
        text = f"{report.repositories:,} repositories, {report.links:,} links, {report.blobs:,} blobs"
        progress.show(f"{text}, {report.blobs_removed:,} removed", report.done or None)

    collector = Collector(
        store,
        grace=await agreed_grace(store, config.gc_grace, time.time()),
        untagged=config.gc_untagged,
        dry_run=arguments.dry_run,
        watch=watch,
        removed=told.removed,
    )
    return await collector.run()

"""`trioreg verify`: does every link, tag and manifest lead somewhere."""

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
    text = "check that links lead to blobs, tags to manifests, manifests to what they need"
    add_upkeep(commands, "verify", text, _do, _tell)


async def _do(
    store: CollectableStorage,
    config: Config,
    arguments: argparse.Namespace,
    progress: ProgressLine,
    _told: Told,
) -> msgspec.Struct:
    from trioreg.registry.inspect import Verified, Verifier

    def watch(report: Verified) -> None:
        progress.show(f"{report.repositories:,} repositories, {report.links:,} links, {report.broken} broken")

    return await Verifier(store, watch).run()


def _tell(report: Any) -> tuple[list[str], int]:
    looked = f"{report.repositories:,} repositories, {report.links:,} links to blobs"
    lines = [f"{looked}, {report.manifests:,} manifests, {report.tags:,} tags: {report.broken:,} broken"]
    return [*report.problems, *lines], 1 if report.broken else 0

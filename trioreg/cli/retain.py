"""`trioreg retain`: remove tags that the rules of retention do not keep."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from trioreg.cli.command import Commands
from trioreg.cli.progress import ProgressLine
from trioreg.cli.upkeep import add_upkeep
from trioreg.config import Config, ConfigError

if TYPE_CHECKING:
    import msgspec

    from trioreg.server.recording import Told
    from trioreg.storage.collecting import CollectableStorage


def add(commands: Commands) -> None:
    command = add_upkeep(
        commands, "retain", "remove tags that retention.rules do not keep", _do, changes=True
    )
    command.add_argument("--dry-run", action="store_true", help="change nothing, report what would go")


async def _do(
    store: CollectableStorage,
    config: Config,
    arguments: argparse.Namespace,
    progress: ProgressLine,
    told: Told,
) -> msgspec.Struct:
    from trioreg.registry.retention import Retention

    if not config.retention_rules:
        raise ConfigError("retention.rules is empty: no tag is removed")
    return await Retention(
        store,
        config.retention_rules,
        keep=(*config.retention_keep, *config.tags_immutable),
        dry_run=arguments.dry_run,
        watch=lambda report: progress.show(f"{report.tags:,} tags, {report.removed:,} removed"),
        removed=told.removed,
    ).run()

"""`trioreg purge`: end upload sessions that nobody has used for long."""

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
    text = "end upload sessions that nobody has used for upload.expire_after seconds"
    command = add_upkeep(commands, "purge", text, _do, changes=True)
    command.add_argument("--dry-run", action="store_true", help="change nothing, report what would go")


async def _do(
    store: CollectableStorage,
    config: Config,
    arguments: argparse.Namespace,
    progress: ProgressLine,
    _told: Told,
) -> msgspec.Struct:
    from trioreg.registry.purge import purge

    if not config.upload_expire_after:
        raise ConfigError("upload.expire_after is 0: no session expires")
    return await purge(
        store,
        expire_after=config.upload_expire_after,
        dry_run=arguments.dry_run,
        watch=lambda report: progress.show(f"{report.sessions:,} sessions, {report.purged:,} ended"),
    )

"""Purge: end upload sessions that nobody has used for long, and drop what killed processes left half written.

Rule: a session is ended under its lease, and only when nothing of it has changed since; so never one that a
client is sending to, nor one that it has resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from trioreg.storage.collecting import CollectableStorage

# A file that is about to be renamed lives for as long as a sync takes.
_TEMPORARY_SECONDS = 24 * 3600.0


class PurgeReport(msgspec.Struct):
    """`bytes` are those of the sessions that were, or in a dry run would be, ended; `busy`: left alone."""

    dry_run: bool
    expire_after: float
    sessions: int = 0
    purged: int = 0
    bytes: int = 0
    busy: int = 0
    temporaries: int = 0


async def purge(
    store: CollectableStorage,
    *,
    expire_after: float,
    dry_run: bool = False,
    now: Callable[[], float] = time.time,
    watch: Callable[[PurgeReport], None] = lambda report: None,
) -> PurgeReport:
    """End sessions unused for `expire_after` seconds. Raises UpkeepBusy, StorageError; may be cancelled."""
    report = PurgeReport(dry_run, expire_after)
    since = now() - expire_after
    with store.alone("purge"):
        async with aclosing(store.scan_sessions()) as pieces:
            async for sessions in pieces:
                for session in sessions:
                    report.sessions += 1
                    if session.used >= since:
                        continue
                    if dry_run or await store.drop_session(session.id, since):
                        report.purged += 1
                        report.bytes += session.bytes
                    else:
                        report.busy += 1
                    watch(report)
        if not dry_run:
            report.temporaries = await store.drop_temporaries(now() - _TEMPORARY_SECONDS)
    return report

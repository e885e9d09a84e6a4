"""What a server does to its storage on schedule: collects garbage and purges dead uploads, scrubs.

Rules: one process does a piece of work at a time, whichever comes first (`alone`); when it was last done is
written in the storage, so neither a restart nor a second worker does it again, and what a killed process
left is gone on with at once. It works on a storage of its own, so that a walk over everything pushes nothing
out of the caches. A failure is a line in the log and never ends the server.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import trio

from trioreg.config import Config
from trioreg.logs import Log
from trioreg.metrics.table import SCRUBBED
from trioreg.registry import Storage
from trioreg.registry.collected import Last
from trioreg.registry.grace import agreed_grace, announce
from trioreg.registry.pulls import ask_for_pulls, keep_noted_since
from trioreg.server.recording import NOBODY, Told
from trioreg.storage.collecting import CollectableStorage, UpkeepBusy

_log = Log(__name__)

# So soon a changed setting is heard; a look costs one `stat`.
_LOOK_SECONDS = 60.0

# Between two purges: sessions expire after days.
_PURGE_SECONDS = 3600.0

# What of a report says that something is not as it was.
_CHANGES = (
    "removed",
    "manifests_removed",
    "links_removed",
    "blobs_removed",
    "purged",
    "temporaries",
    "rotten",
)


@dataclass(frozen=True, slots=True)
class Work:
    """`interval`: seconds between two runs, 0 for none."""

    name: str
    interval: Callable[[Config], float]
    do: Callable[[CollectableStorage, Config, Told], Awaitable[msgspec.Struct]]


def upkeep_storage(config: Config, storage: Storage) -> CollectableStorage:
    """The storage that is served, apart from what serves it."""
    from trioreg.storage.memory import MemoryStorage

    if isinstance(storage, MemoryStorage):
        return storage
    from trioreg.storage.filesystem import Disk
    from trioreg.storage.filesystem.collecting import CollectableFiles

    return CollectableFiles(config.storage_path, Disk(durable=config.storage_durability == "full"))


async def keep_up(store: CollectableStorage, config: Callable[[], Config], told: Told = NOBODY) -> None:
    """Do what is due until cancelled; `config` gives the settings in force, `told` is told of removals."""
    try:
        await announce(store, config().gc_grace, time.time())
    except Exception as failure:  # noqa: BLE001 (the server serves without upkeep)
        _log.error("no upkeep", cause=failure)
        return
    async with trio.open_nursery() as works:
        works.start_soon(_say_since, store, config)
        for work in WORKS:
            works.start_soon(_repeat, work, store, config, told.by(f"upkeep/{work.name}"))


async def _repeat(work: Work, store: CollectableStorage, config: Callable[[], Config], told: Told) -> None:
    last = Last(store, work.name)
    while True:
        try:
            if await last.is_due(work.interval(config()), time.time()):
                report = await work.do(store, config(), told)
                await last.done(time.time())
                await _tell(told, work.name, report)
                _log.info(f"{work.name} is done", **msgspec.to_builtins(report))
        except UpkeepBusy:
            pass  # Whoever does it writes down when it was done.
        except Exception as failure:  # noqa: BLE001 (a failure here must not end the server)
            _log.error(f"{work.name} failed", cause=failure)
        await trio.sleep(_LOOK_SECONDS)


async def _say_since(store: CollectableStorage, config: Callable[[], Config]) -> None:
    """Keep written down from when on pulls are noted, as long as the rules of retention ask for it."""
    while True:
        try:
            await keep_noted_since(store, ask_for_pulls(config().retention_rules), time.time())
        except Exception as failure:  # noqa: BLE001 (without it no tag is removed for want of pulls)
            _log.error("it is not written down since when pulls are noted", cause=failure)
        await trio.sleep(_LOOK_SECONDS)


async def _tell(told: Told, what: str, report: msgspec.Struct) -> None:
    """One that changed nothing is no line in an audit log: there is one every hour."""
    if any(getattr(report, name, None) for name in _CHANGES):
        await told.did("upkeep", what, report)


async def _collect(store: CollectableStorage, config: Config, told: Told) -> msgspec.Struct:
    from trioreg.registry.garbage import Collector

    if config.retention_rules:
        await _retain(store, config, told.by("upkeep/retention"))
    grace = await agreed_grace(store, config.gc_grace, time.time())
    return await Collector(store, grace=grace, untagged=config.gc_untagged, removed=told.removed).run()


async def _retain(store: CollectableStorage, config: Config, told: Told) -> None:
    from trioreg.registry.retention import Retention

    keep = (*config.retention_keep, *config.tags_immutable)
    report = await Retention(store, config.retention_rules, keep=keep, removed=told.removed).run()
    report.names.clear()  # Each has a line in the log already.
    _log.info("retention is done", **msgspec.to_builtins(report))
    await _tell(told, "retain", report)


async def _purge(store: CollectableStorage, config: Config, _told: Told) -> msgspec.Struct:
    from trioreg.registry.purge import purge

    return await purge(store, expire_after=config.upload_expire_after)


async def _scrub(store: CollectableStorage, config: Config, _told: Told) -> msgspec.Struct:
    from trioreg.registry.scrub import Scrubber

    report = await Scrubber(store, rate=config.scrub_rate).run()
    for rotten in report.rotten:
        _log.error("a blob is rotten", digest=rotten.digest, needed_by=", ".join(rotten.images))
    for each in report.unreadable:
        needed_by = ", ".join(each.images)
        _log.error("a blob cannot be read", digest=each.digest, reason=each.reason, needed_by=needed_by)
    report.unreadable.clear()  # Each has its line.
    SCRUBBED.add(report.blobs, SCRUBBED.at("read"))
    SCRUBBED.add(len(report.rotten), SCRUBBED.at("rotten"))
    SCRUBBED.add(report.unreadable_blobs, SCRUBBED.at("unreadable"))
    return report


WORKS = (
    Work("gc", lambda config: config.gc_interval, _collect),
    Work("scrub", lambda config: config.scrub_interval, _scrub),
    Work("purge", lambda config: _PURGE_SECONDS if config.upload_expire_after else 0.0, _purge),
)

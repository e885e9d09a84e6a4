"""Gauges: values that are looked up and not counted, put into the metrics when somebody asks.

With several workers each also does so once a second, because any of them answers for all.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from trioreg import logs
from trioreg.api.remembered import Remembered
from trioreg.metrics import table
from trioreg.metrics.cells import NANOSECONDS
from trioreg.pipeline.pump import Pump
from trioreg.registry import Registry, Storage
from trioreg.server.connections import Connections
from trioreg.storage.filesystem import FilesystemStorage
from trioreg.storage.lru import CacheStatistics

_PAGE = os.sysconf("SC_PAGESIZE")

# How often the event loop is asked how late it is.
_LAG_SECONDS = 0.1
_LAG_ROUNDS = 10

# Rates of transfers, and gauges that other workers show, are as old as that.
_PUBLISH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """Where the values come from. `disk`: a path on the storage's disk, None without one.

    `limits` looks up its own (`server.limits`); `remembered` are the replies of the API.
    """

    registry: Registry
    storage: Storage
    access: logs.AccessLog
    connections: Connections
    disk: Path | None
    limits: Callable[[], None] = lambda: None
    remembered: Remembered | None = None

    @property
    def pump(self) -> Pump:
        return self.registry.pump

    def collect(self) -> None:
        """Look everything up; about 50 µs."""
        self._budget()
        self._uploads()
        self._engine()
        self._caches()
        self._process()
        self.limits()
        for place, count in enumerate(self.connections.counts()):
            table.CONNECTIONS.set(count, place)
        table.DROPPED_LINES.follow(self.access.dropped)
        if self.disk is not None:
            disk = os.statvfs(self.disk)
            table.FREE_BYTES.set(disk.f_bavail * disk.f_frsize)

    async def run(self) -> None:
        """Publish and measure until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish)
            nursery.start_soon(_measure_lag)

    async def _publish(self) -> None:
        while True:
            self.collect()
            self.pump.transfers.mark()
            await trio.sleep(_PUBLISH_SECONDS)

    def _budget(self) -> None:
        look = self.pump.budget.statistics()
        table.BUDGET_BLOCKS.set(look.total)
        table.BUDGET_HELD.set(look.held)
        table.BUDGET_WARM.set(look.warm)
        table.BUDGET_WAITING.set(look.waiting)
        table.BLOCK_BYTES.set(look.block_size)

    def _uploads(self) -> None:
        digesting, writing = self.pump.look()
        held = self.pump.budget.statistics().held
        waits = dict.fromkeys(table.WAITS, 0)
        for transfer in self.pump.transfers:
            waits[transfer.waits_for] += 1
        for place, wait in enumerate(table.WAITS):
            table.UPLOADS.set(waits[wait], place)
        for place, count in enumerate((max(0, held - digesting - writing), digesting, writing)):
            table.STAGE_BLOCKS.set(count, place)

    def _engine(self) -> None:
        look = self.pump.engine.statistics()
        table.ENGINE_BYTES.follow(look["bytes"])
        table.ENGINE_BATCHES.follow(look["sizes"], look["jobs"])
        table.ENGINE_SHA_BLOCKS.follow(look["lane_blocks"], table.ENGINE_SHA_BLOCKS.at("lanes"))
        table.ENGINE_SHA_BLOCKS.follow(look["single_blocks"], table.ENGINE_SHA_BLOCKS.at("single"))
        table.ENGINE_LANE_PLACES.follow(look["lane_places"])

    def caches(self) -> dict[str, CacheStatistics]:
        """By the label of `table.CACHES`."""
        looks = {"contents": self.registry.contents.statistics()}
        if self.remembered is not None:
            looks["replies"] = self.remembered.statistics()
        if isinstance(self.storage, FilesystemStorage):
            looks |= self.storage.cache_statistics()
        return looks

    def _caches(self) -> None:
        for name, look in self.caches().items():
            place = table.CACHES.index(name)
            table.CACHE_HITS.follow(look.hits, place)
            table.CACHE_MISSES.follow(look.misses, place)
            table.CACHE_BYTES.set(look.bytes, place)
            table.CACHE_ENTRIES.set(look.entries, place)

    def _process(self) -> None:
        with open("/proc/self/statm", "rb") as file:
            table.RESIDENT_BYTES.set(int(file.read().split()[1]) * _PAGE)
        table.CPU_SECONDS.follow(time.process_time_ns())
        table.OPEN_FDS.set(len(os.listdir("/proc/self/fd")) - 1)
        table.WORKERS.set(1)
        for place, generation in enumerate(gc.get_stats()):
            table.GARBAGE.follow(generation["collections"], place)


async def _measure_lag() -> None:
    while True:
        highest = 0.0
        for _ in range(_LAG_ROUNDS):
            due = trio.current_time() + _LAG_SECONDS
            await trio.sleep_until(due)
            late = max(0.0, trio.current_time() - due)
            highest = max(highest, late)
            table.LOOP_LAG.observe(late)
        table.LOOP_LAG_HIGHEST.set(int(highest * NANOSECONDS))

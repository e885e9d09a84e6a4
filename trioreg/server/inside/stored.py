"""The census of the storage, taken now and then by one worker and put into the metrics."""

from __future__ import annotations

import time
from pathlib import Path

import trio

from trioreg import logs
from trioreg.metrics import cells, table
from trioreg.storage.base import StorageError
from trioreg.storage.filesystem.census import take_census

# A server that has just started has better things to do.
_FIRST_SECONDS = 5.0

_log = logs.Log(__name__)


async def keep_counting(root: Path, interval: float) -> None:
    """Every `interval` seconds, in the first worker; until cancelled."""
    if not interval or cells.slot_number()[0] != 0:
        return
    await trio.sleep(_FIRST_SECONDS)
    while True:
        try:
            await count(root)
        except StorageError as error:
            _log.warning("the storage could not be counted", cause=str(error))
        await trio.sleep(interval)


async def count(root: Path) -> None:
    """Take a census and show it. Raises StorageError."""
    census = await take_census(root)
    for place, blobs in enumerate(census.blobs):
        table.STORED_BLOBS.set(blobs, place)
    table.STORED_BYTES.set(census.stored)
    table.LINKED_BYTES.set(census.linked)
    ratio = census.linked / census.stored if census.stored else 1.0
    table.DEDUP_RATIO.set(round(ratio * table.DEDUP_RATIO.unit))
    table.COUNTED_AT.set(time.time_ns())

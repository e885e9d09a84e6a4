"""When manifests were last pulled, noted for retention: once a day each, and apart from the answer.

A note is a small file of the repository, named by the manifest's digest, with seconds since 1970. Rules: who
pulls waits for a place in a queue and never for the disk; what was noted within a day is not noted again, so
a note may be a day older than the last pull. That notes are complete is known only from `noted_since` on: it
is written when noting begins, and removed when no rule asks for it any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

import trio

from trioreg.logs import Log
from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName
from trioreg.storage import layout
from trioreg.storage.base import ObjectStore, StorageError
from trioreg.storage.lru import ByteLru

_log = Log(__name__)

DAY = 86_400.0

_SINCE = layout.upkeep("pulls")

# Some 2,000 manifests of today; another one costs its next pull a look at its note, in the background.
_KNOWN_BYTES = 2**20

# Notes that wait are about 300 bytes each. Eight writers share the syncs that a disk does at once.
_QUEUE = 1024
_WRITERS = 8

# A thousand notes, eight at a time, at 20 ms a sync take 2.5.
_FINISH_SECONDS = 5.0


def ask_for_pulls(rules: Iterable[tuple[str, str, int, int, int]]) -> bool:
    """Whether a rule of retention (`retention.Rule`) needs to know when a tag was pulled."""
    return any(pulled for *_, pulled in rules)


class Pulls:
    """Notes pulls while `run` runs. `now`: seconds since 1970."""

    def __init__(self, objects: ObjectStore, now: Callable[[], float] = time.time):
        self._objects = objects
        self._now = now
        self._known: ByteLru[float] = ByteLru(_KNOWN_BYTES)
        self._send, self._receive = trio.open_memory_channel[tuple[RepositoryName, Digest]](_QUEUE)
        self._finished = trio.Event()

    async def note(self, name: RepositoryName, digest: Digest) -> None:
        """A manifest is being pulled. Cancelled, or killed before it is written, it was not noted."""
        key, now = (name, digest), self._now()
        known = self._known.get(key)
        if known is not None and 0 <= now - known < DAY:
            return
        await self._send.send(key)
        self._known.put(key, now, len(name))

    async def run(self) -> None:
        """Write notes until `finish`. One that cannot be written is tried again by the next pull."""
        async with trio.open_nursery() as writers:
            for _ in range(_WRITERS):
                writers.start_soon(self._write_all)
        self._finished.set()

    async def finish(self) -> None:
        """No pulls come any more: wait some seconds at most until what is noted is written."""
        self._send.close()
        with trio.move_on_after(_FINISH_SECONDS):
            await self._finished.wait()

    async def _write_all(self) -> None:
        async for name, digest in self._receive:
            try:
                await self._write(name, digest)
            except StorageError as failure:
                self._known.discard((name, digest))
                _log.warning("a pull is not noted", cause=failure, name=name, digest=str(digest))

    async def _write(self, name: RepositoryName, digest: Digest) -> None:
        key, now = layout.pulled(name, digest), self._now()
        noted = parse_note(await self._objects.get(key))
        if noted is None or not 0 <= now - noted < DAY:
            await self._objects.put(key, str(int(now)).encode())


async def last_pull(objects: ObjectStore, name: RepositoryName, digest: Digest) -> float:
    """A day behind the note, for it may be so much too old; -inf without one, inf where it is torn."""
    value = await objects.get(layout.pulled(name, digest))
    if value is None:
        return -math.inf
    noted = parse_note(value)
    return math.inf if noted is None else noted + DAY


async def noted_since(objects: ObjectStore) -> float:
    """From when on every pull is noted (seconds since 1970); inf if that cannot be said."""
    since = parse_note(await objects.get(_SINCE))
    return math.inf if since is None else since


async def keep_noted_since(objects: ObjectStore, noting: bool, now: float) -> None:
    """Write down, where a server starts or its settings have changed, whether it notes pulls from now on."""
    value = await objects.get(_SINCE)
    if not noting and value is not None:
        await objects.delete(_SINCE)
    elif noting and parse_note(value) is None:
        await objects.put(_SINCE, str(int(now)).encode())


def parse_note(value: bytes | None) -> float | None:
    """Seconds since 1970; None where there is nothing, or what a power loss has torn."""
    try:
        return None if value is None else float(int(value))
    except (ValueError, OverflowError):
        return None

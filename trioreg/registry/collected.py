"""What a collection says of itself, and where it was when it was killed.

Rule: a position is only where to go on; a run without one begins at the beginning and comes to the same end.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal, TypeAlias

import msgspec

from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName, Tag
from trioreg.storage import layout
from trioreg.storage.base import ObjectStore

# Is told what was removed, when it is: a tag with its digest, or without a tag a manifest.
Removed: TypeAlias = Callable[[RepositoryName, Tag | None, Digest], Awaitable[None]]

_UNREADABLE = 100
_SAVE_SECONDS = 5.0


async def tell_nobody(_name: RepositoryName, _tag: Tag | None, _digest: Digest) -> None:
    pass


class Report(msgspec.Struct):
    """`bytes` and `blobs` are what was there, `…_removed` what went; in a dry run, what would go.

    `taken_back`: things that somebody began to rely on while we looked. `unreadable`: manifests, at most 100,
    for whose sake whole repositories were left as they are. `at_least`: more would go than could be counted.
    """

    dry_run: bool
    grace: float
    started: float
    seconds: float = 0.0
    resumed_after: str = ""
    repositories: int = 0
    manifests_read: int = 0
    manifests_removed: int = 0
    links: int = 0
    links_removed: int = 0
    blobs: int = 0
    blobs_removed: int = 0
    bytes: int = 0
    bytes_removed: int = 0
    taken_back: int = 0
    left_behind: int = 0
    at_least: bool = False
    unreadable: list[str] = []
    # Of the blobs, the part that was looked at: 0 to 1.
    done: float = 0.0

    def cannot_read(self, why: str) -> None:
        if len(self.unreadable) < _UNREADABLE:
            self.unreadable.append(why)

    def at_blobs(self, after: str) -> None:
        """`after` is a folder of blobs, as ``sha256/7f``; nearly all are below ``sha256``."""
        self.done = (int(after.rpartition("/")[2], 16) + 1) / 256 if after else 0.0


class Last:
    """When a piece of work was last done. One that was never done is first due an interval from now."""

    def __init__(self, objects: ObjectStore, work: str):
        self._objects = objects
        self._key = layout.upkeep(f"{work}-done")
        self._interrupted = layout.upkeep(work)

    async def is_due(self, interval: float, now: float) -> bool:
        """Whether `interval` seconds (0: never) have passed, or a run was killed."""
        if not interval:
            return False
        if await self._objects.get(self._interrupted) is not None:
            return True
        data = await self._objects.get(self._key)
        if data is None:
            await self.done(now)
            return False
        try:
            return now - float(data) >= interval
        except ValueError:
            return True

    async def done(self, now: float) -> None:
        await self._objects.put(self._key, str(now).encode())


class Place(msgspec.Struct, frozen=True):
    phase: Literal["links", "blobs"]
    after: str


class Position:
    """Saved at most every few seconds, so that it costs nothing."""

    START: ClassVar[Place] = Place("links", "")

    def __init__(self, objects: ObjectStore, work: str):
        self._objects = objects
        self._key = layout.upkeep(work)
        self._saved = time.monotonic()

    async def load(self) -> Place:
        data = await self._objects.get(self._key)
        try:
            return self.START if data is None else msgspec.json.decode(data, type=Place)
        except msgspec.MsgspecError:
            return self.START

    async def save(self, phase: Literal["links", "blobs"], after: str) -> None:
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            await self._objects.put(self._key, msgspec.json.encode(Place(phase, after)))
            self._saved = time.monotonic()

    async def forget(self) -> None:
        await self._objects.delete(self._key)

"""Scrub: read every blob at a set rate and take out of service what is not what its digest says.

Rules: what seems rotten or cannot be read is read a second time before that is believed. A rotten blob is
moved to ``rotten/`` for good, so it is answered with 404 instead of wrong bytes, and the next push of the
same bytes puts it back in its place; links stay. One that the disk does not give is named and left where it
is: a cable or a server of files may come back, and then all that it holds would be out of service. One buffer
is in memory, whatever the size of a blob. A killed run is gone on with behind the folder of blobs it came to.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
import trio

from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName
from trioreg.registry.collected import Position
from trioreg.registry.marking import Marker, Unreadable
from trioreg.storage.base import BlobNotFound, StorageError
from trioreg.storage.collecting import BlobInfo, CollectableStorage
from trioreg.storage.links import Links

_BUFFER = 1024 * 1024
_NAMED = 100
_MOST_UNREADABLE = 1000


class Rotten(msgspec.Struct):
    """`images`: the repositories, with tags where there are any, that need the blob; at most 100."""

    digest: str
    size: int
    images: list[str]


class NotRead(msgspec.Struct):
    """`reason`: what the disk said. `images` as of a rotten one, but only of the first 100."""

    digest: str
    size: int
    reason: str
    images: list[str]


class Scrubbed(msgspec.Struct):
    """`bytes` that were read; `rotten` blobs were taken out of service.

    `unreadable_blobs` counts those that the disk did not give; `unreadable` names the first 1000.
    """

    rate: int
    resumed_after: str = ""
    blobs: int = 0
    bytes: int = 0
    rotten: list[Rotten] = []
    unreadable_blobs: int = 0
    unreadable: list[NotRead] = []
    done: float = 0.0


class Scrubber:
    """`rate`: bytes read a second, at most; 0 is as fast as it goes."""

    def __init__(
        self,
        store: CollectableStorage,
        *,
        rate: int,
        watch: Callable[[Scrubbed], None] = lambda report: None,
    ):
        self._store = store
        self._links = Links(store)
        self._marker = Marker(store)
        self._watch = watch
        self.report = Scrubbed(rate)

    async def run(self) -> Scrubbed:
        """Raises UpkeepBusy, StorageError; cancelled, it leaves a position to go on from."""
        report = self.report
        with self._store.alone("scrub"):
            position = Position(self._store, "scrub")
            report.resumed_after = (await position.load()).after
            async with aclosing(self._store.scan_blobs(report.resumed_after)) as pieces:
                async for after, infos in pieces:
                    await position.save("blobs", after)
                    report.done = (int(after.rpartition("/")[2], 16) + 1) / 256 if after else 0.0
                    for info in infos:
                        await self._scrub(info)
            await position.forget()
        return report

    async def _scrub(self, info: BlobInfo) -> None:
        self.report.blobs += 1
        failure: StorageError | None = None
        for _ in range(2):
            try:
                if await self._is_whole(info.digest):
                    return
            except BlobNotFound:
                return  # collected meanwhile
            except StorageError as error:
                failure = error
        if failure is not None:
            await self._not_read(info, str(failure))
        # At once: a push may repair it while we look who needs it, and that takes minutes.
        elif await self._store.retire_blob(info.digest):
            images = await self._images(info.digest)
            self.report.rotten.append(Rotten(str(info.digest), info.size, images))

    async def _not_read(self, info: BlobInfo, reason: str) -> None:
        report = self.report
        report.unreadable_blobs += 1
        if len(report.unreadable) < _MOST_UNREADABLE:
            # Each costs a walk over all manifests: on a disk that is dying nobody wants thousands.
            images = await self._images(info.digest) if len(report.unreadable) < _NAMED else []
            report.unreadable.append(NotRead(str(info.digest), info.size, reason, images))

    async def _is_whole(self, digest: Digest) -> bool:
        state = hashlib.new(digest.algorithm)
        blob = await self._store.open_blob(digest)
        try:
            offset = 0
            while data := await blob.read(offset, _BUFFER):
                began = trio.current_time()
                await trio.to_thread.run_sync(state.update, data)
                offset += len(data)
                self.report.bytes += len(data)
                self._watch(self.report)
                if self.report.rate:
                    await trio.sleep_until(began + len(data) / self.report.rate)
        finally:
            blob.close()
        return state.hexdigest() == digest.hex

    async def _images(self, digest: Digest) -> list[str]:
        """Who needs a blob, as a person would name it."""
        found: list[str] = []
        async with aclosing(self._links.repositories()) as repositories:
            async for name in repositories:
                needing = {each async for each in self._needing(name, digest)}
                if not needing:
                    continue
                tags = [f"{name}:{tag}" async for tag, to in self._links.tags(name) if to in needing]
                found += tags or [f"{name}@{each}" for each in needing]
                if len(found) >= _NAMED:
                    break
        return found[:_NAMED]

    async def _needing(self, name: RepositoryName, digest: Digest) -> AsyncGenerator[Digest, None]:
        """Manifests of a repository that are, or name, the blob."""
        async with aclosing(self._links.manifests(name)) as pieces:
            async for digests in pieces:
                for each in digests:
                    if each == digest:
                        yield each
                        continue
                    try:
                        manifest = await self._marker.manifest(name, each)
                    except Unreadable:
                        continue
                    if manifest is not None and digest in [need.digest for need in manifest.blobs]:
                        yield each

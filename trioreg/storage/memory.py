"""Storage in memory: the verified fake. It passes the same suite as every driver, and forgets all at exit.

For tests and demonstrations: blobs live in the process, so its memory is not bounded by the budget.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from itertools import count

import trio

from trioreg.oci.digest import Algorithm, Digest
from trioreg.oci.names import RepositoryName, UploadId, new_upload_id
from trioreg.storage.base import BlobNotFound, Checkpoint, Entry, UploadBusy, UploadInfo, UploadNotFound
from trioreg.storage.collecting import BlobInfo, SessionInfo, UpkeepBusy


class MemoryBlob:
    def __init__(self, data: bytes):
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    async def read(self, start: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._data[start : start + length]

    def close(self) -> None:
        pass


class _Session:
    def __init__(self, info: UploadInfo):
        self.info = info
        self.data = bytearray()
        self.written = Checkpoint(0, None)
        # A Lock would tell its own holder of a bug, where a lease is busy for everybody.
        self.lock = trio.Semaphore(1, max_value=1)


class MemoryUpload:
    def __init__(self, storage: MemoryStorage, session: _Session):
        self._storage = storage
        self._session = session
        del session.data[session.written.offset :]
        self._resumed = session.written

    @property
    def info(self) -> UploadInfo:
        return replace(self._session.info, offset=len(self._session.data))

    @property
    def resumed(self) -> Checkpoint:
        return self._resumed

    async def write(self, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._session.data += data

    async def read(self, start: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        return bytes(self._session.data[start : start + length])

    async def checkpoint(self, at: Checkpoint, *, sync: bool) -> None:
        assert at.offset <= len(self._session.data), "a record may not run ahead of the bytes"
        self._session.written = at

    async def commit(self, digest: Digest) -> None:
        await self._storage.put_blob(digest, bytes(self._session.data))
        await self.cancel()

    async def cancel(self) -> None:
        self._storage.sessions.pop(self._session.info.id, None)


class MemoryStorage:
    """`BlobStore` and `ObjectStore`."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.sessions: dict[UploadId, _Session] = {}
        self.times: dict[Digest | str, float] = {}
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._aside: dict[str, tuple[bytes, int]] = {}
        self._blobs_aside: dict[Digest, bytes] = {}
        self._working: set[str] = set()
        self._stamps = count()
        self._locks: dict[str, trio.Lock] = {}

    async def size(self, digest: Digest) -> int | None:
        return len(self.blobs[digest]) if await self.take_blob_back(digest) else None

    async def touch(self, digest: Digest) -> int | None:
        size = await self.size(digest)
        if size is not None:
            self.times[digest] = time.time()
        return size

    async def open_blob(self, digest: Digest) -> MemoryBlob:
        if not await self.take_blob_back(digest):
            raise BlobNotFound(str(digest))
        return MemoryBlob(self.blobs[digest])

    async def put_blob(self, digest: Digest, data: bytes) -> None:
        self.blobs.setdefault(digest, data)
        self.times[digest] = time.time()

    async def delete_blob(self, digest: Digest) -> None:
        self.blobs.pop(digest, None)

    async def list_blobs(self) -> AsyncIterator[Digest]:
        for digest in list(self.blobs):
            yield digest

    async def create_upload(
        self, repository: RepositoryName, algorithm: Algorithm, owner: str | None = None
    ) -> UploadInfo:
        info = UploadInfo(new_upload_id(), repository, algorithm, 0, time.time(), owner)
        self.sessions[info.id] = _Session(info)
        return info

    async def upload_info(self, upload: UploadId) -> UploadInfo:
        info, offset = self._session(upload).info, self._session(upload).written.offset
        return replace(info, offset=offset)

    @asynccontextmanager
    async def lease_upload(self, upload: UploadId, wait: float) -> AsyncIterator[MemoryUpload]:
        session = self._session(upload)
        try:
            session.lock.acquire_nowait()
        except trio.WouldBlock:
            with trio.move_on_after(wait) as waiting:
                await session.lock.acquire()
            if waiting.cancelled_caught:
                raise UploadBusy(upload) from None
        try:
            yield MemoryUpload(self, self._session(upload))
        finally:
            session.lock.release()

    async def list_uploads(self) -> AsyncIterator[UploadInfo]:
        for upload in list(self.sessions):
            with suppress(UploadNotFound):
                yield await self.upload_info(upload)

    def _session(self, upload: UploadId) -> _Session:
        try:
            return self.sessions[upload]
        except KeyError:
            raise UploadNotFound(upload) from None

    async def get(self, key: str) -> bytes | None:
        entry = self._objects.get(key)
        return entry[0] if entry else None

    async def stamp(self, key: str) -> Hashable | None:
        entry = self._objects.get(key)
        return entry[1] if entry else None

    async def settled_stamps(self, keys: Sequence[str]) -> Hashable | None:
        stamps = tuple(self._objects[key][1] for key in keys if key in self._objects)
        return stamps if len(stamps) == len(keys) else None

    async def put(self, key: str, value: bytes) -> None:
        self._objects[key] = (value, next(self._stamps))
        self.times[key] = time.time()

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        if key in self._objects:
            return False
        await self.put(key, value)
        return True

    async def put_in_order(self, *groups: Sequence[Entry]) -> None:
        for group in groups:
            for entry in group:
                if entry.absent:
                    await self.put_if_absent(entry.key, entry.value)
                else:
                    await self.put(entry.key, entry.value)

    async def delete(self, key: str) -> bool:
        return self._objects.pop(key, None) is not None

    @asynccontextmanager
    async def exclusive(self, kind: str, key: str) -> AsyncIterator[None]:
        async with self._locks.setdefault(kind, trio.Lock()):
            yield

    async def children(self, prefix: str) -> Sequence[str]:
        below = f"{prefix}/"
        keys = [key for key in (*self._objects, *self._aside) if key.startswith(below)]
        return sorted({key[len(below) :].partition("/")[0] for key in keys})

    # What upkeep needs (`storage.collecting`).

    async def take_back(self, key: str) -> bool:
        if key in self._aside:
            self._objects.setdefault(key, self._aside.pop(key))
        return key in self._objects

    async def used(self, key: str) -> float | None:
        return self.times[key] if key in self._objects or key in self._aside else None

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
        yield await self.children(prefix)

    async def set_aside(self, key: str) -> bool:
        if key in self._objects:
            self._aside[key] = self._objects.pop(key)
        return key in self._aside

    async def drop(self, key: str) -> bool:
        return self._aside.pop(key, None) is not None

    @contextmanager
    def alone(self, work: str) -> Iterator[None]:
        if work in self._working:
            raise UpkeepBusy(f"{work} is running already on this storage")
        self._working.add(work)
        try:
            yield
        finally:
            self._working.discard(work)

    async def blob_info(self, digest: Digest) -> BlobInfo | None:
        data = self.blobs.get(digest, self._blobs_aside.get(digest))
        return None if data is None else BlobInfo(digest, len(data), self.times[digest])

    async def scan_blobs(self, after: str = "") -> AsyncGenerator[tuple[str, Sequence[BlobInfo]], None]:
        yield after, [BlobInfo(each, len(data), self.times[each]) for each, data in self.blobs.items()]

    async def set_blob_aside(self, digest: Digest) -> bool:
        if digest in self.blobs:
            self._blobs_aside[digest] = self.blobs.pop(digest)
        return digest in self._blobs_aside

    async def take_blob_back(self, digest: Digest) -> bool:
        if digest in self._blobs_aside:
            self.blobs.setdefault(digest, self._blobs_aside.pop(digest))
        return digest in self.blobs

    async def drop_blob(self, digest: Digest) -> bool:
        return self._blobs_aside.pop(digest, None) is not None

    async def scan_sessions(self) -> AsyncGenerator[Sequence[SessionInfo], None]:
        yield [SessionInfo(each, len(held.data), held.info.started) for each, held in self.sessions.items()]

    async def drop_session(self, upload: UploadId, unused_since: float) -> bool:
        held = self.sessions.get(upload)
        if held is None or held.lock.value == 0 or held.info.started >= unused_since:
            return False
        del self.sessions[upload]
        return True

    async def drop_temporaries(self, unused_since: float) -> int:
        return 0

    async def retire_blob(self, digest: Digest) -> bool:
        return self.blobs.pop(digest, None) is not None

    async def blobs_aside(self) -> AsyncGenerator[Sequence[Digest], None]:
        yield list(self._blobs_aside)

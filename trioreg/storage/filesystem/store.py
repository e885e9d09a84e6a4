"""`BlobStore` and `ObjectStore` in one directory tree (drawn in `storage.layout`).

Rule: a `stat`, an `open` and a read of a small file may run on the Trio thread (about 20 µs from the page
cache); whatever writes, syncs, lists or unlinks runs in a worker thread, which owns what it was given
until it ends.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from trioreg.oci.digest import ALGORITHMS, Algorithm, Digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, UploadId, new_upload_id, parse_upload_id
from trioreg.storage import layout, record
from trioreg.storage.base import BlobNotFound, Entry, Upload, UploadBusy, UploadInfo, UploadNotFound
from trioreg.storage.filesystem import aside, uploads
from trioreg.storage.filesystem.changes import finish
from trioreg.storage.filesystem.disk import Disk, storage_errors
from trioreg.storage.filesystem.objects import FilesystemObjects
from trioreg.storage.filesystem.script import Put, Script
from trioreg.storage.filesystem.uploads import FilesystemUpload

# A waiter for a lease looks again so often. The lock is between processes, so nobody can wake us; and a
# thread that blocked in flock could not be cancelled.
_LEASE_POLL_SECONDS = 0.05


class FilesystemBlob:
    """`BlobReader` of an open file."""

    def __init__(self, disk: Disk, descriptor: int, size: int):
        self._disk = disk
        self._descriptor = descriptor
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    async def read(self, start: int, length: int) -> bytes:
        with storage_errors("reading a blob"):
            return await trio.to_thread.run_sync(self._disk.pread, self._descriptor, length, start)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class SendableBlob(FilesystemBlob):
    """Also `HasDescriptor`: the kernel may send it by itself."""

    def fileno(self) -> int:
        return self._descriptor


class FilesystemStorage(FilesystemObjects):
    """Both Protocols below `root`, which is made if absent (OSError if that cannot be).

    `touch_after`: seconds of age from which a blob that someone relies on has its time refreshed; half
    the grace period of garbage collection. `boot`: names this boot of the machine (`record.boot_id`).
    `clock`: seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        disk: Disk | None = None,
        *,
        cache_bytes: int = 4 * 2**20,
        touch_after: float = 3600.0,
        boot: str | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._root = root.absolute()
        self._disk = disk or Disk()
        self._touch_after = touch_after
        self._boot = boot or record.boot_id()
        self._clock = clock
        self._disk.make_root(self._root)
        for directory in (layout.BLOBS, layout.REPOSITORIES, layout.UPLOADS, layout.LOCKS):
            finish(self._disk, self._disk.make_directory(self._root / directory))
        self._disk.removals.share(self._root, self._root / layout.LOCKS / "removals")
        super().__init__(self._root, self._disk, cache_bytes=cache_bytes)

    # Blobs.

    async def size(self, digest: Digest) -> int | None:
        status = self._stat(digest)
        if status is None and await self._blob_back(digest):
            status = self._stat(digest)
        return status.st_size if status else None

    async def touch(self, digest: Digest) -> int | None:
        status = self._stat(digest)
        if status is not None and self._clock() - status.st_mtime <= self._touch_after:
            return status.st_size
        while status is not None or await self._blob_back(digest):
            with storage_errors("touching a blob"), suppress(FileNotFoundError):
                await trio.to_thread.run_sync(self._disk.touch, self._path(digest))
            # Collection may have set it aside before our touch or behind it, or dropped it.
            status = self._stat(digest)
            if status is not None:
                return status.st_size
        return None

    async def open_blob(self, digest: Digest) -> FilesystemBlob:
        descriptor = self._open(digest)
        if descriptor is None and await self._blob_back(digest):
            descriptor = self._open(digest)
        if descriptor is None:
            raise BlobNotFound(str(digest))
        kind = SendableBlob if self._disk.plain_reads else FilesystemBlob
        return kind(self._disk, descriptor, os.fstat(descriptor).st_size)

    def _open(self, digest: Digest) -> int | None:
        with storage_errors("opening a blob"):
            try:
                return os.open(self._below + layout.blob(digest), os.O_RDONLY)
            except FileNotFoundError:
                return None

    async def _blob_back(self, digest: Digest) -> bool:
        """Whether the blob is in its place; one that collection has set aside is put back first."""
        with storage_errors("looking for a blob"), suppress(FileNotFoundError):
            self._disk.stat(self._below + layout.blob_aside(digest))
            await self._change("taking a blob back", aside.take_blob_back, self._disk, self._root, digest)
        # Also when nothing is aside: another may have taken it back between our looks.
        return self._stat(digest) is not None

    async def put_blob(self, digest: Digest, data: bytes) -> None:
        await self.put_blob_and(digest, data)

    async def put_blob_and(self, digest: Digest, data: bytes, *groups: Sequence[Entry]) -> None:
        # One that is there was perhaps written by somebody who was killed before its name was durable.
        there = await self.touch(digest) == len(data)
        blob = Put(self._below + layout.blob(digest), None if there else data)

        def write(script: Script) -> None:
            first, *others = self._to_puts(groups) or [[]]
            script.put([blob, *first], *others)

        await self._run("writing a blob", write)

    async def commit_and(self, upload: Upload, digest: Digest, entry: Entry) -> None:
        if isinstance(upload, FilesystemUpload):
            with storage_errors("publishing a blob"):
                await upload.publish(digest, lambda: [self._to_put(entry)])
        else:
            await upload.commit(digest)
            await self.put_in_order([entry])

    async def delete_blob(self, digest: Digest) -> None:
        await self._publish("deleting a blob", self._disk.remove_file(self._path(digest)))

    async def list_blobs(self) -> AsyncIterator[Digest]:
        for algorithm in ALGORITHMS:
            for prefix in await self._names(f"{layout.BLOBS}/{algorithm}"):
                for encoded in await self._names(f"{layout.BLOBS}/{algorithm}/{prefix}"):
                    yield Digest(algorithm, encoded)

    def free_bytes(self) -> int:
        with storage_errors("asking for free space"):
            return self._disk.free_bytes(self._root)

    # Upload sessions.

    async def create_upload(
        self, repository: RepositoryName, algorithm: Algorithm, owner: str | None = None
    ) -> UploadInfo:
        upload = new_upload_id()
        saved = record.new_record(repository, algorithm, self._clock(), self._boot, owner)
        directory = self._below + layout.upload(upload)
        await self._run("beginning an upload", lambda script: uploads.create(script, directory, saved))
        return saved.info(upload, 0)

    async def upload_info(self, upload: UploadId) -> UploadInfo:
        """The offset is the record's: while a writer is at work, that of its last checkpoint."""
        directory = self._session(upload)
        with storage_errors("reading the state of an upload"):
            saved = uploads.read_record(self._disk, directory)
            try:
                size = os.stat(directory / uploads.DATA).st_size
            except FileNotFoundError:
                raise UploadNotFound(upload) from None
        return saved.info(upload, saved.resume_point(self._boot, size).offset)

    @asynccontextmanager
    async def lease_upload(self, upload: UploadId, wait: float) -> AsyncIterator[FilesystemUpload]:
        directory = self._session(upload)
        held = await self._lock(directory, wait)
        try:
            with storage_errors("opening an upload"):
                saved = uploads.read_record(self._disk, directory)
                data = uploads.open_data(directory)
            try:
                with storage_errors("opening an upload"):
                    size = os.fstat(data).st_size
                    opening = partial(
                        FilesystemUpload,
                        self._root,
                        directory,
                        self._disk,
                        saved,
                        self._boot,
                        data,
                        self._changes,
                        self._publishing,
                        self._scripts,
                    )
                    if saved.written.offset == saved.resume_point(self._boot, size).offset == size:
                        session = opening()
                    else:
                        # Bytes are cut off or a record is put right: that writes.
                        session = await trio.to_thread.run_sync(opening)
                try:
                    yield session
                finally:
                    session.close()
            finally:
                if uploads.is_quick_to_close(data):
                    os.close(data)
                else:
                    with trio.CancelScope(shield=True):
                        await trio.to_thread.run_sync(uploads.close_slowly, self._disk, data)
        finally:
            os.close(held)

    async def list_uploads(self) -> AsyncIterator[UploadInfo]:
        for name in await self._names(layout.UPLOADS):
            with suppress(UploadNotFound, RegistryError):
                yield await self.upload_info(parse_upload_id(name))

    async def _lock(self, directory: Path, wait: float) -> int:
        deadline = trio.current_time() + wait
        while True:
            with storage_errors("leasing an upload"):
                try:
                    return uploads.lock(directory)
                except BlockingIOError:
                    if trio.current_time() >= deadline:
                        raise UploadBusy(directory.name) from None
            await trio.sleep(_LEASE_POLL_SECONDS)

    async def _names(self, key: str) -> list[str]:
        with storage_errors("listing the storage"):
            return await trio.to_thread.run_sync(_listing, self._root / key)

    def _stat(self, digest: Digest) -> os.stat_result | None:
        with storage_errors("looking for a blob"):
            try:
                return self._disk.stat(self._below + layout.blob(digest))
            except FileNotFoundError:
                return None

    def _path(self, digest: Digest) -> Path:
        return self._root / layout.blob(digest)

    def _session(self, upload: UploadId) -> Path:
        return self._root / layout.upload(upload)


def _listing(path: Path) -> list[str]:
    try:
        return [name for name in os.listdir(path) if not name.startswith(".")]
    except FileNotFoundError:
        return []

"""The same directory for those who collect, scrub and count: `CollectableStorage`.

A storage of its own, beside the one that serves, in the server's process or in another: it keeps nothing
in memory, so a walk over everything pushes nothing out of the server's caches.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import trio

from trioreg.oci.digest import ALGORITHMS, Algorithm, Digest, parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.storage import layout
from trioreg.storage.collecting import PIECE, BlobInfo, UpkeepBusy
from trioreg.storage.filesystem import aside
from trioreg.storage.filesystem.disk import Disk, storage_errors
from trioreg.storage.filesystem.store import FilesystemStorage


class CollectableFiles(FilesystemStorage):
    def __init__(self, root: Path, disk: Disk | None = None, *, boot: str | None = None):
        super().__init__(root, disk, cache_bytes=0, boot=boot)

    # Blobs.

    async def blob_info(self, digest: Digest) -> BlobInfo | None:
        for key in (layout.blob(digest), layout.blob_aside(digest), layout.blob(digest)):
            with storage_errors("looking for a blob"), suppress(FileNotFoundError):
                status = self._disk.stat(self._below + key)
                return BlobInfo(digest, status.st_size, status.st_mtime)
        return None

    async def scan_blobs(self, after: str = "") -> AsyncIterator[tuple[str, Sequence[BlobInfo]]]:
        for algorithm in ALGORITHMS:
            for prefix in sorted(await self._names(f"{layout.BLOBS}/{algorithm}")):
                at = f"{algorithm}/{prefix}"
                if at <= after:
                    continue
                async for names in self.scan(f"{layout.BLOBS}/{at}"):
                    infos = await trio.to_thread.run_sync(self._look, algorithm, prefix, names)
                    yield after, infos
                after = at

    async def set_blob_aside(self, digest: Digest) -> bool:
        return await self._change(
            "setting a blob aside", aside.set_blob_aside, self._disk, self._root, digest
        )

    async def take_blob_back(self, digest: Digest) -> bool:
        return await self._blob_back(digest)

    async def drop_blob(self, digest: Digest) -> bool:
        return await self._drop(layout.blob_aside(digest))

    async def blobs_aside(self) -> AsyncIterator[Sequence[Digest]]:
        for algorithm in ALGORITHMS:
            async for names in self.scan(f"{layout.QUARANTINE}/{algorithm}"):
                yield [digest for name in names if (digest := _digest(algorithm, name))]

    def _look(self, algorithm: Algorithm, prefix: str, names: Sequence[str]) -> list[BlobInfo]:
        below = f"{self._below}{layout.BLOBS}/{algorithm}/{prefix}/"
        found = []
        for name in names:
            digest = _digest(algorithm, name)
            if digest is not None and name.startswith(prefix):
                with storage_errors("looking at blobs"), suppress(FileNotFoundError):
                    status = self._disk.stat(below + name)
                    found.append(BlobInfo(digest, status.st_size, status.st_mtime))
        return found

    # Small objects.

    async def used(self, key: str) -> float | None:
        for each in (key, layout.aside(key), key):
            with storage_errors("looking for an object"), suppress(FileNotFoundError, NotADirectoryError):
                return self._disk.stat(self._below + each).st_mtime
        return None

    async def scan(self, prefix: str) -> AsyncIterator[Sequence[str]]:
        with storage_errors("listing the storage"):
            try:
                entries = await trio.to_thread.run_sync(os.scandir, self._below + prefix)
            except (FileNotFoundError, NotADirectoryError):
                return
            with entries:
                while names := await trio.to_thread.run_sync(_piece, entries):
                    yield [name for name in names if not name.startswith(".")]

    async def set_aside(self, key: str) -> bool:
        return await self._change("setting a link aside", aside.set_aside, self._disk, self._root, key)

    async def drop(self, key: str) -> bool:
        found = await self._drop(layout.aside(key))
        await self._change("tidying", self._tidy, key)
        return found

    async def _drop(self, key: str) -> bool:
        return await self._change("deleting what is set aside", aside.drop, self._disk, self._root / key)

    @contextmanager
    def alone(self, work: str) -> Iterator[None]:
        with storage_errors("locking"):
            held = os.open(f"{self._below}{layout.LOCKS}/{work}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UpkeepBusy(f"{work} is running already on this storage") from None
            yield
        finally:
            os.close(held)


def _piece(entries: Iterator[os.DirEntry[str]]) -> list[str]:
    return [entry.name for entry in islice(entries, PIECE)]


def _digest(algorithm: Algorithm, name: str) -> Digest | None:
    """What a file in a folder of digests is called; None for a file that is not ours."""
    try:
        return parse_digest(f"{algorithm}:{name}")
    except RegistryError:
        return None

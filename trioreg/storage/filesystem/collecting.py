"""The same directory for those who collect, scrub and count: `CollectableStorage`.

A storage of its own, beside the one that serves, in the server's process or in another: it keeps nothing
in memory, so a walk over everything pushes nothing out of the server's caches.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from itertools import islice
from pathlib import Path

import trio

from trioreg.oci.digest import ALGORITHMS, Algorithm, Digest, parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import UploadId, parse_upload_id
from trioreg.storage import layout
from trioreg.storage.base import UploadNotFound
from trioreg.storage.collecting import PIECE, BlobInfo, SessionInfo, UpkeepBusy
from trioreg.storage.filesystem import aside, uploads
from trioreg.storage.filesystem.disk import Disk, storage_errors
from trioreg.storage.filesystem.script import TEMPORARY_PREFIX
from trioreg.storage.filesystem.store import FilesystemStorage

# A thread looks through so many in some milliseconds; so soon a cancellation is heard.
_FOLDERS = 256


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

    async def scan_blobs(self, after: str = "") -> AsyncGenerator[tuple[str, Sequence[BlobInfo]], None]:
        for algorithm in ALGORITHMS:
            for prefix in sorted(await self._names(f"{layout.BLOBS}/{algorithm}")):
                at = f"{algorithm}/{prefix}"
                if at <= after:
                    continue
                async with aclosing(self.scan(f"{layout.BLOBS}/{at}")) as pieces:
                    async for names in pieces:
                        yield after, await trio.to_thread.run_sync(self._look, algorithm, prefix, names)
                after = at

    async def set_blob_aside(self, digest: Digest) -> bool:
        return await self._change(
            "setting a blob aside", aside.set_blob_aside, self._disk, self._root, digest
        )

    async def take_blob_back(self, digest: Digest) -> bool:
        return await self._blob_back(digest)

    async def drop_blob(self, digest: Digest) -> bool:
        return await self._drop(layout.blob_aside(digest), layout.blob(digest))

    async def retire_blob(self, digest: Digest) -> bool:
        return await self._change("retiring a blob", aside.retire_blob, self._disk, self._root, digest)

    async def blobs_aside(self) -> AsyncGenerator[Sequence[Digest], None]:
        for algorithm in ALGORITHMS:
            async with aclosing(self.scan(f"{layout.QUARANTINE}/{algorithm}")) as pieces:
                async for names in pieces:
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

    # Upload sessions, and what was left half written.

    async def scan_sessions(self) -> AsyncGenerator[Sequence[SessionInfo], None]:
        async with aclosing(self.scan(layout.UPLOADS)) as pieces:
            async for names in pieces:
                yield await trio.to_thread.run_sync(self._sessions, names)

    async def drop_session(self, upload: UploadId, unused_since: float) -> bool:
        return await self._change("dropping an upload", self._drop_session, upload, unused_since)

    async def drop_temporaries(self, unused_since: float) -> int:
        directories = os.walk(self._root)
        count = 0
        while found := await trio.to_thread.run_sync(_next_temporaries, directories):
            for path in found[1:]:
                with storage_errors("deleting a temporary file"), suppress(FileNotFoundError):
                    if self._disk.stat(path).st_mtime < unused_since:
                        await trio.to_thread.run_sync(self._disk.unlink, Path(path))
                        count += 1
        return count

    def _sessions(self, names: Sequence[str]) -> list[SessionInfo]:
        found = []
        for name in names:
            with storage_errors("looking at an upload"), suppress(FileNotFoundError, RegistryError):
                found.append(self._session_info(parse_upload_id(name)))
        return found

    def _session_info(self, upload: UploadId) -> SessionInfo:
        directory = f"{self._below}{layout.upload(upload)}"
        used, size = self._disk.stat(directory).st_mtime, 0
        for name in (uploads.DATA, uploads.STATE):
            with suppress(FileNotFoundError):
                status = self._disk.stat(f"{directory}/{name}")
                used = max(used, status.st_mtime)
                size = status.st_size if name == uploads.DATA else size
        return SessionInfo(upload, size, used)

    def _drop_session(self, upload: UploadId, unused_since: float) -> bool:
        directory = self._session(upload)
        try:
            held = uploads.lock(directory)
        except (BlockingIOError, UploadNotFound):
            return False
        try:
            if self._session_info(upload).used >= unused_since:
                return False
            for name in os.listdir(directory):
                self._disk.unlink(directory / name)
            self._disk.rmdir(directory)
            return True
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
            # Whoever begins a session holds no lease yet; it looks old only where clocks are years apart.
            return False
        finally:
            os.close(held)

    # Small objects.

    async def used(self, key: str) -> float | None:
        for each in (key, layout.aside(key), key):
            with storage_errors("looking for an object"), suppress(FileNotFoundError, NotADirectoryError):
                return self._disk.stat(self._below + each).st_mtime
        return None

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
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
        found = await self._drop(layout.aside(key), key)
        await self._change("tidying", self._tidy, key)
        return found

    async def _drop(self, key: str, place: str) -> bool:
        paths = self._root / key, self._root / place
        return await self._change("deleting what is set aside", aside.drop, self._disk, *paths)

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


def _next_temporaries(directories: Iterator[tuple[str, list[str], list[str]]]) -> list[str]:
    """The temporary files in the next folders, behind one word that says there were folders."""
    found = [""]
    for above, _, names in islice(directories, _FOLDERS):
        found += [f"{above}/{name}" for name in names if name.startswith(TEMPORARY_PREFIX)]
        found[0] = above
    return found if found[0] else []


def _piece(entries: Iterator[os.DirEntry[str]]) -> list[str]:
    return [entry.name for entry in islice(entries, PIECE)]


def _digest(algorithm: Algorithm, name: str) -> Digest | None:
    """What a file in a folder of digests is called; None for a file that is not ours."""
    try:
        return parse_digest(f"{algorithm}:{name}")
    except RegistryError:
        return None

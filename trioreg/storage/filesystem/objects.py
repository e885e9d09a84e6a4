"""Small objects as files: the key is the path.

Rule: files are the truth and memory is a cache of them. A value or a directory listing is remembered
with the stamp its file had (inode, mtime) and used while one `stat` still finds that stamp. A stamp
younger than a clock tick of the filesystem may hide a second change, so it is not trusted yet.
"""

from __future__ import annotations

import errno
import os
import time
import zlib
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias, TypeVar, TypeVarTuple

import trio

from trioreg.storage import layout
from trioreg.storage.base import Entry, storage_failure
from trioreg.storage.filesystem import aside
from trioreg.storage.filesystem.changes import Changes, Steps
from trioreg.storage.filesystem.disk import Disk, storage_errors
from trioreg.storage.filesystem.script import Put, Script
from trioreg.storage.filesystem.threads import Scripts
from trioreg.storage.lru import ByteLru, CacheStatistics

# Timestamps of Linux filesystems advance with the kernel's tick, 1 to 10 ms (before multigrain
# timestamps in 6.13); network filesystems are coarser.
_SETTLED_NS = 100_000_000

# Each waits in a thread for most of its time; the disk serves syncs together.
_CHANGES_AT_ONCE = 64

# Locks of one kind: few enough to keep, enough that changes of different things rarely meet.
_LOCKS = 64
_LOCK_POLL_SECONDS = 0.005

_Stamp: TypeAlias = tuple[int, int, int]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FilesystemObjects:
    """`ObjectStore` below a root directory."""

    def __init__(self, root: Path, disk: Disk, *, cache_bytes: int):
        self._root = root
        self._below = f"{root}/"  # Joining text costs a tenth of joining paths.
        self._disk = disk
        self._remembers = cache_bytes > 0
        self._values: ByteLru[tuple[Hashable, bytes]] = ByteLru(cache_bytes // 2)
        # 10,000 tags are 700 kB, and to list them takes 10 ms: with the default of 4 MiB they are to fit.
        self._listings: ByteLru[tuple[Hashable, Sequence[str]]] = ByteLru(cache_bytes // 2, cache_bytes // 4)
        self._locks: dict[str, trio.Lock] = {}
        # Apart from reads: a hundred commits that wait for the disk must not keep a list waiting.
        self._changes = trio.CapacityLimiter(_CHANGES_AT_ONCE)
        self._publishing = Changes(disk)
        self._scripts = Scripts(disk, self._publishing)

    def cache_statistics(self) -> dict[str, CacheStatistics]:
        return {"values": self._values.statistics(), "listings": self._listings.statistics()}

    async def get(self, key: str) -> bytes | None:
        path = self._below + key
        stamp = self._stamp(path)
        if stamp is None:
            return None
        known = self._values.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        with storage_errors("reading an object"):
            try:
                value = self._disk.read_file(path)
            except FileNotFoundError:
                return None
        if self._remembers and _settled(stamp) and self._stamp(path) == stamp:
            self._values.put(key, (stamp, value), len(value))
        return value

    async def stamp(self, key: str) -> Hashable | None:
        return self._stamp(self._below + key)

    async def settled_stamps(self, keys: Sequence[str]) -> Hashable | None:
        stamps = [self._stamp(self._below + key) for key in keys]
        before = time.time_ns() - _SETTLED_NS
        for stamp in stamps:
            if stamp is None or stamp[1] >= before:
                return None
        return tuple(stamps)

    async def take_back(self, key: str) -> bool:
        path = self._below + key
        # Also when there is one in the place, written anew meanwhile: a deletion must not leave the other.
        if self._stamp(self._below + layout.aside(key)) is not None:
            await self._change("taking back an object", aside.take_back, self._disk, self._root, key)
        # Also when nothing is aside: another may have taken it back between our looks.
        return self._stamp(path) is not None

    async def put(self, key: str, value: bytes) -> None:
        put = Put(self._below + key, value)
        await self._run("writing an object", lambda script: script.put([put]))

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        made = False

        def write(script: Script) -> None:
            nonlocal made
            put = self._to_put(Entry(key, value, absent=True))
            made = put.data is not None
            script.put([put])

        script = await self._run("writing an object", write)
        return made and not script.existed

    async def put_in_order(self, *groups: Sequence[Entry]) -> None:
        await self._run("writing objects", lambda script: script.put(*self._to_puts(groups)))

    def _to_puts(self, groups: Sequence[Sequence[Entry]]) -> list[list[Put]]:
        return [[self._to_put(entry) for entry in group] for group in groups]

    def _to_put(self, entry: Entry) -> Put:
        path = self._below + entry.key
        if not entry.absent or self._stamp(path) is None:
            return Put(path, entry.value, entry.absent)
        # Whoever wrote it may have been killed before its name was durable.
        return Put(path, None)

    async def delete(self, key: str) -> bool:
        return await self._publish("deleting an object", self._delete(key))

    async def children(self, prefix: str) -> Sequence[str]:
        path = self._below + prefix
        stamp = self._stamp(path)
        if stamp is None:
            return ()
        known = self._listings.get(prefix)
        if known is not None and known[0] == stamp:
            return known[1]
        with storage_errors("listing objects"):
            names = await trio.to_thread.run_sync(_list, path)
        if self._remembers and _settled(stamp) and self._stamp(path) == stamp:
            # A short string takes 49 bytes and its length; the list 8 more.
            self._listings.put(prefix, (stamp, names), sum(57 + len(name) for name in names))
        return names

    async def _change(self, doing: str, call: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run a blocking call in a thread. Cancelled before it begins, or not at all."""
        with storage_errors(doing):
            return await trio.to_thread.run_sync(call, *arguments, limiter=self._changes)

    async def _run(self, doing: str, write: Callable[[Script], None]) -> Script:
        """Run the script that `write` writes down. Cancelled before it begins, or not at all."""
        with storage_errors(doing):
            return await self._scripts.run(write)

    async def _publish(self, doing: str, steps: Steps[T]) -> T:
        """Run a change together with others. Cancelled before it begins, or not at all."""
        with storage_errors(doing):
            return await self._publishing.run(steps)

    @asynccontextmanager
    async def exclusive(self, kind: str, key: str) -> AsyncIterator[None]:
        bucket = f"{kind}-{zlib.crc32(key.encode()) % _LOCKS:02x}"
        async with self._locks.setdefault(bucket, trio.Lock()):
            held = await self._lock_file(f"{self._below}{layout.LOCKS}/{bucket}")
            try:
                yield
            finally:
                os.close(held)

    async def _lock_file(self, path: str) -> int:
        """A lock against other processes, which cannot wake us: look again every few milliseconds."""
        with storage_errors("locking"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                while True:
                    try:
                        self._disk.try_lock(descriptor)
                        return descriptor
                    except BlockingIOError:
                        await trio.sleep(_LOCK_POLL_SECONDS)
            except BaseException:
                os.close(descriptor)
                raise

    def _delete(self, key: str) -> Steps[bool]:
        found = yield from self._disk.remove_file(self._root / key)
        self._tidy(key)
        return found

    def _stamp(self, path: str) -> _Stamp | None:
        try:
            status = self._disk.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise storage_failure("looking for an object", error.errno or errno.EIO) from error
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def _tidy(self, key: str) -> None:
        """Remove directories that became empty, up to the one that holds a repository's entries.

        That is the first of the key with a leading underscore; a tag may have one as well.
        """
        parts = key.split("/")
        floor = next((index for index, part in enumerate(parts) if part.startswith("_")), len(parts))
        with suppress(OSError):
            for depth in range(len(parts) - 1, floor + 1, -1):
                self._disk.remove_directory(self._root.joinpath(*parts[:depth]))


def _settled(stamp: _Stamp) -> bool:
    """Whether a stamp is old enough to be trusted: another change would have another time."""
    return time.time_ns() - stamp[1] > _SETTLED_NS


def _list(path: str) -> Sequence[str]:
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return sorted(name for name in names if not name.startswith("."))

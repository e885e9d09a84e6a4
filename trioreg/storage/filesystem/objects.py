"""Small objects as files: the key is the path.

Rule: files are the truth and memory is a cache of them. A value or a directory listing is remembered
with the stamp its file had (inode, mtime) and used while one `stat` still finds that stamp. A stamp
younger than a clock tick of the filesystem may hide a second change, so it is not trusted yet.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar, TypeVarTuple

import trio

from trioreg.storage.base import storage_failure
from trioreg.storage.filesystem.disk import TEMPORARY_PREFIX, Disk, storage_errors
from trioreg.storage.lru import ByteLru

# Timestamps of Linux filesystems advance with the kernel's tick, 1 to 10 ms (before multigrain
# timestamps in 6.13); network filesystems are coarser.
_SETTLED_NS = 100_000_000

_Stamp: TypeAlias = tuple[int, int, int]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class FilesystemObjects:
    """`ObjectStore` below a root directory."""

    def __init__(self, root: Path, disk: Disk, *, cache_bytes: int):
        self._root = root
        self._below = f"{root}/"  # Joining text costs a tenth of joining paths.
        self._disk = disk
        self._values: ByteLru[tuple[Hashable, bytes]] = ByteLru(cache_bytes // 2)
        self._listings: ByteLru[tuple[Hashable, Sequence[str]]] = ByteLru(cache_bytes // 2)

    async def get(self, key: str) -> bytes | None:
        path = self._below + key
        stamp = _stamp(path)
        if stamp is None:
            return None
        known = self._values.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        with storage_errors("reading an object"):
            try:
                value = _read(path)
            except FileNotFoundError:
                return None
        if _settled(stamp) and _stamp(path) == stamp:
            self._values.put(key, (stamp, value), len(value))
        return value

    async def stamp(self, key: str) -> Hashable | None:
        return _stamp(self._below + key)

    async def put(self, key: str, value: bytes) -> None:
        await self._change("writing an object", self._disk.replace_file, self._root / key, value)

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        return await self._change("writing an object", self._disk.create_file, self._root / key, value)

    async def delete(self, key: str) -> bool:
        return await self._change("deleting an object", self._delete, self._root / key)

    async def delete_if_equal(self, key: str, value: bytes) -> bool:
        return await self._change("deleting an object", self._delete_if_equal, self._root / key, value)

    async def children(self, prefix: str) -> Sequence[str]:
        path = self._below + prefix
        stamp = _stamp(path)
        if stamp is None:
            return ()
        known = self._listings.get(prefix)
        if known is not None and known[0] == stamp:
            return known[1]
        names = await self._change("listing objects", _list, path)
        if _settled(stamp) and _stamp(path) == stamp:
            # A short string takes 49 bytes and its length; the list 8 more.
            self._listings.put(prefix, (stamp, names), sum(57 + len(name) for name in names))
        return names

    async def _change(self, doing: str, call: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run a blocking call in a thread. Cancelled before it begins, or not at all."""
        with storage_errors(doing):
            return await trio.to_thread.run_sync(call, *arguments)

    def _delete(self, path: Path) -> bool:
        found = self._disk.remove_file(path)
        self._tidy(path.parent)
        return found

    def _delete_if_equal(self, path: Path, value: bytes) -> bool:
        """Take the value away under another name, look at it, and put back what is not meant.

        Looking before keeps every other value where it is: only one that is set between the look and the
        rename is ever moved.
        """
        try:
            if path.read_bytes() != value:
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False
        aside = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        try:
            self._disk.rename(path, aside)
        except FileNotFoundError:
            return False
        meant = aside.read_bytes() == value
        if not meant:
            # If yet another value was set meanwhile, that one is newer and stays.
            with suppress(FileExistsError):
                self._disk.link(aside, path)
        self._disk.unlink(aside)
        self._disk.sync_directory(path.parent)
        if meant:
            self._tidy(path.parent)
        return meant

    def _tidy(self, directory: Path) -> None:
        """Remove directories that became empty, up to the one that holds a repository's entries."""
        with suppress(OSError):
            while not directory.name.startswith("_") and directory != self._root:
                self._disk.rmdir(directory)
                directory = directory.parent


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_failure("looking for an object", error.errno or errno.EIO) from error
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def _settled(stamp: _Stamp) -> bool:
    """Whether a stamp is old enough to be trusted: another change would have another time."""
    return time.time_ns() - stamp[1] > _SETTLED_NS


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _list(path: str) -> Sequence[str]:
    try:
        names = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return sorted(name for name in names if not name.startswith("."))

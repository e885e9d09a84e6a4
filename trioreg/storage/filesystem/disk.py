"""The system calls that change the disk, and the two ways we change a name durably.

Everything that can fail or be torn goes through one `Disk`, so that tests can make any step fail, crash
or wait, and a benchmark can make the disk slow. All of it blocks: call it in a thread.

Rule: a name changes by write temporary, sync, rename, sync directory; every directory that gained an
entry is synced. What needs a sync is written as `Steps`, so that changes are synced together (`changes`).
With `durable=False` the order stays and the syncs are left out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from trioreg.metrics import SYNC_SECONDS
from trioreg.storage.base import storage_failure
from trioreg.storage.filesystem.changes import Steps, Sync
from trioreg.storage.filesystem.removals import Removals
from trioreg.storage.filesystem.script import Put, run_steps

# Directories known to be durable in their parents: 2 × 256 of blobs, and the busiest repositories'.
_SEEN_DIRECTORIES = 2048

_READ_BYTES = 64 * 1024


@contextlib.contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn `OSError` into the family of `StorageError`, once, at the seam."""
    try:
        yield
    except OSError as error:
        raise storage_failure(doing, error.errno or errno.EIO) from error


@contextlib.contextmanager
def _timed(kind: str) -> Iterator[None]:
    """Count a sync and its seconds; in whichever thread."""
    began = time.monotonic()
    try:
        yield
    finally:
        SYNC_SECONDS.observe_in_thread(time.monotonic() - began, SYNC_SECONDS.at(kind))


class Disk:
    """The calls themselves. Replace one in a subclass to inject a fault."""

    def __init__(self, *, durable: bool = True, direct: bool = True):
        self.durable = durable
        self._direct = direct
        self._seen: dict[str, bytes] = {}  # with the mark that it had before it was settled
        self._roots: set[str] = set()
        self.removals = Removals()

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def open_direct(self, path: Path) -> int | None:
        """The file past the page cache; None if that is not wanted, or this filesystem has no such way."""
        if not self._direct:
            return None
        try:
            return os.open(path, os.O_WRONLY | os.O_DIRECT)
        except OSError:
            return None

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        return os.pread(descriptor, length, offset)

    def read_file(self, path: str | Path) -> bytes:
        """A small file, whole. Three calls, where a file object makes eight."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            data = piece = os.read(descriptor, _READ_BYTES)
            while len(piece) == _READ_BYTES:
                piece = os.read(descriptor, _READ_BYTES)
                data += piece
            return data
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def sync_data(self, descriptor: int) -> None:
        if self.durable:
            with _timed("data"):
                os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        if not self.durable:
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return  # Whoever removed the directory, and what we put there, synced the one above.
        try:
            with _timed("directory"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)

    def touch(self, path: Path) -> None:
        os.utime(path)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def try_lock(self, descriptor: int) -> None:
        """BlockingIOError when another process or descriptor holds the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def free_bytes(self, path: Path) -> int:
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    @property
    def plain(self) -> bool:
        """Whether every call is the system's own, so that scripts may run without Python (`threads`)."""
        return type(self) is Disk

    @property
    def plain_writes(self) -> bool:
        """Whether `pwrite` is the system's own, so that an engine may call that itself."""
        return type(self).pwrite is Disk.pwrite

    @property
    def plain_reads(self) -> bool:
        """Whether a blob's bytes may leave by `sendfile`, past `pread`."""
        return True

    # Compositions of the calls above.

    def write_all(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write the whole of `data`, however the kernel divides it."""
        while data:
            count = self.pwrite(descriptor, data, offset)
            data = data[count:]
            offset += count

    def make_root(self, path: Path) -> None:
        """Make the directory below which everything of ours lives, durable as far as we may look above it."""
        try:
            self.mkdir(path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            self.make_root(path.parent)
            self.mkdir(path)
        with contextlib.suppress(PermissionError):
            self.sync_directory(path.parent)
        self._roots.add(str(path))

    def make_directory(self, path: Path) -> Steps[None]:
        """Make a directory and its missing parents, each durable in the one above it."""
        yield from self.settle_directories(self.open_directory(path))

    def open_directory(self, path: Path) -> list[Path]:
        """Make a directory and its missing parents; those that are still to be settled, deepest first.

        One that is there already may not be durable yet: whoever made it may be about to sync it, or was
        killed before. So the first time that we meet a directory we settle it ourselves, up to the root.
        Settling late, after what goes in was renamed, is one commit of the journal and not one a level.
        """
        try:
            self.mkdir(path)
        except FileExistsError:
            if self._is_settled(str(path)):
                return []
        except FileNotFoundError:
            unsettled = self.open_directory(path.parent)
            with contextlib.suppress(FileExistsError):
                self.mkdir(path)
            return [path, *unsettled]
        return [path] if self._is_settled(str(path.parent)) else [path, *self.open_directory(path.parent)]

    def settle_directories(self, unsettled: list[Path], changed: Path | None = None) -> Steps[None]:
        """Make directories durable in the ones above them; and the entries of one that was `changed`.

        What is in that one keeps it there from now on. Before, it may have been removed and made anew, after
        we had looked at it: so we look again.
        """
        above = self.unsettled(str(changed)) if changed else {}
        marks = {**{str(path): self.removals.mark(path) for path in unsettled}, **above}
        directories = [os.path.dirname(path) for path in marks]
        yield Sync(directories=(*([changed] if changed else []), *map(Path, directories)))
        self.settled(marks)

    def unsettled(self, directory: str) -> dict[str, bytes]:
        """It and those above it that may not be durable, the deepest first; with their marks."""
        found: dict[str, bytes] = {}
        while True:
            mark = self.removals.mark(directory)
            known = self._seen.pop(directory, None)
            if known == mark:
                self._seen[directory] = mark  # the ones that are used most go last
                return found
            if directory in self._roots or directory == os.path.dirname(directory):
                return found
            found[directory] = mark
            directory = os.path.dirname(directory)

    def settled(self, marks: Mapping[str, bytes]) -> None:
        """Directories are durable in those above them, as long as their marks are these."""
        self._seen.update((path, mark) for path, mark in marks.items() if mark)
        while len(self._seen) > _SEEN_DIRECTORIES:
            with contextlib.suppress(KeyError, RuntimeError):
                del self._seen[next(iter(self._seen))]

    def _is_settled(self, path: str) -> bool:
        known = self._seen.get(path)
        if known is not None:
            return known == self.removals.mark(path)
        return path in self._roots or path == os.path.dirname(path)

    def remove_directory(self, path: Path) -> None:
        """Remove one that may be made again. OSError if it is not empty."""
        with os.scandir(path) as entries:
            if any(entries):  # so that nobody has to look at it anew
                raise OSError(errno.ENOTEMPTY, "not empty", str(path))
        self.removals.announce(path)
        self.rmdir(path)

    def forget(self, directory: str) -> None:
        """It is gone, and perhaps some of those above it."""
        while directory not in self._roots and directory != os.path.dirname(directory):
            self._seen.pop(directory, None)
            directory = os.path.dirname(directory)

    def replace_file(self, path: Path, data: bytes) -> Steps[None]:
        """Set a file's content: a reader, or a crash, sees the old bytes or the new."""
        yield from run_steps(self, lambda script: script.put([Put(str(path), data)]))

    def remove_file(self, path: Path) -> Steps[bool]:
        """Whether there was such a file."""
        try:
            self.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        yield Sync(directories=(path.parent,))
        return True


class SlowDisk(Disk):
    """A disk that takes its time: an experiment's seam, set by ``debug.write_delay``."""

    def __init__(self, seconds_per_mebibyte: float, *, durable: bool = True):
        super().__init__(durable=durable)
        self._seconds_per_byte = seconds_per_mebibyte / 2**20

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        time.sleep(len(data) * self._seconds_per_byte)
        return super().pwrite(descriptor, data, offset)

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
import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from trioreg.metrics import SYNC_SECONDS
from trioreg.storage.base import storage_failure
from trioreg.storage.filesystem.changes import Steps, Sync
from trioreg.storage.filesystem.removals import Removals

# In a container the process number is the same after each start, and in each container on one storage.
_LIFE = os.urandom(4).hex()
_temporary_names = itertools.count()

# Who takes away our temporary files, or the directory, again and again is no accident.
_TRIES = 10

# Directories known to be durable in their parents: 2 × 256 of blobs, and the busiest repositories'.
_SEEN_DIRECTORIES = 2048

_READ_BYTES = 64 * 1024

# Never in a name of ours: the grammars of repository, tag and digest allow no leading dot.
TEMPORARY_PREFIX = ".tmp-"


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
        self._seen: dict[Path, bytes] = {}  # with the mark that it had before it was settled
        self._roots: set[Path] = set()
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
        self._roots.add(path)

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
            if self._is_durable(path):
                return []
        except FileNotFoundError:
            unsettled = self.open_directory(path.parent)
            with contextlib.suppress(FileExistsError):
                self.mkdir(path)
            return [path, *unsettled]
        return [path] if self._is_durable(path.parent) else [path, *self.open_directory(path.parent)]

    def settle_directories(self, unsettled: list[Path], changed: Path | None = None) -> Steps[None]:
        """Make directories durable in the ones above them; and the entries of one that was `changed`.

        What is in that one keeps it there from now on. Before, it may have been removed and made anew, after
        we had looked at it: so we look again.
        """
        above = self._unsettled(changed) if changed else []
        marks = {path: self.removals.mark(path) for path in (*unsettled, *above)}
        yield Sync(directories=(*([changed] if changed else []), *(path.parent for path in marks)))
        self._seen.update((path, mark) for path, mark in marks.items() if mark)
        while len(self._seen) > _SEEN_DIRECTORIES:
            with contextlib.suppress(KeyError, RuntimeError):
                del self._seen[next(iter(self._seen))]

    def _unsettled(self, path: Path) -> list[Path]:
        """It and those above it that may not be durable; the deepest first."""
        found = []
        while not self._is_durable(path):
            found.append(path)
            path = path.parent
        return found

    def _is_durable(self, path: Path) -> bool:
        known = self._seen.get(path)
        if known is not None:
            return known == self.removals.mark(path)
        return path in self._roots or path == path.parent

    def remove_directory(self, path: Path) -> None:
        """Remove one that may be made again. OSError if it is not empty."""
        with os.scandir(path) as entries:
            if any(entries):  # so that nobody has to look at it anew
                raise OSError(errno.ENOTEMPTY, "not empty", str(path))
        self.removals.announce(path)
        self.rmdir(path)

    def _open_temporary(self, directory: Path) -> tuple[Path, int, list[Path]]:
        """A new file in `directory`, which is made, and made again if tidied away under our hands."""
        for _ in range(_TRIES):
            temporary = directory / f"{TEMPORARY_PREFIX}{os.getpid()}-{_LIFE}-{next(_temporary_names)}"
            with contextlib.suppress(FileNotFoundError):
                unsettled = self.open_directory(directory)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                return temporary, descriptor, unsettled
        raise FileNotFoundError(errno.ENOENT, "the directory keeps vanishing", str(directory))

    def replace_file(self, path: Path, data: bytes) -> Steps[None]:
        """Set a file's content: a reader, or a crash, sees the old bytes or the new."""
        yield from self._publish(path, data, self.rename)

    def create_file(self, path: Path, data: bytes) -> Steps[bool]:
        """Like `replace_file` but only if there is no such file; whether it was made.

        One that is there is durable too when this returns, whether or not its writer came to that.
        """
        if path.exists():
            yield from self.secure_name(path)
            return False
        made = True

        def link(temporary: Path, path: Path) -> None:
            nonlocal made
            try:
                self.link(temporary, path)
            except FileExistsError:
                made = False
            with contextlib.suppress(FileNotFoundError):
                self.unlink(temporary)

        yield from self._publish(path, data, link)
        return made

    def _publish(self, path: Path, data: bytes, move: Callable[[Path, Path], None]) -> Steps[None]:
        """Write a temporary file beside `path`, sync it, `move` it there, sync the name.

        One that is gone is written anew: a purge took it for a dead process's, whose clock is another year's.
        """
        for again in reversed(range(_TRIES)):
            temporary, descriptor, unsettled = self._open_temporary(path.parent)
            try:
                try:
                    self.write_all(descriptor, memoryview(data), 0)
                    yield Sync(files=(descriptor,))
                finally:
                    os.close(descriptor)
                move(temporary, path)
                break
            except FileNotFoundError:
                if not again:
                    raise
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    self.unlink(temporary)
                raise
        yield from self.settle_directories(unsettled, changed=path.parent)

    def secure_name(self, path: Path) -> Steps[None]:
        """Make the name of a file durable that somebody else wrote, perhaps without coming to that."""
        yield from self.settle_directories(self.open_directory(path.parent), changed=path.parent)

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

"""A queue of lines on the disk: what one process has to tell one endpoint.

::

    <spool>/0000000001.jsonl …   lines, in segments of about 1 MiB
    <spool>/cursor               segment and offset (bytes) up to which they were delivered

Rules: whoever has the spool holds a `flock` on its directory, which is never replaced; so the spools of a
process that died are found by their locks being free. Lines are only appended; the cursor moves after a
delivery, unsynced: what is delivered twice carries the same id. A torn last line was never promised.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trioreg.events.batches import append

_SEGMENT = 2**20
_READ = 64 * 1024  # holds any line whole
_CURSOR = "cursor"


class Spool:
    """An open spool; everything here blocks. Made by `create` and `adopt`."""

    def __init__(self, directory: Path, lock: int, *, durable: bool):
        self.directory = directory
        self._lock = lock
        self._durable = durable
        segments = _segments(directory)
        self._last = segments[-1] if segments else 0
        self._output = -1
        self._segment, self._offset = _read_cursor(directory)
        if segments and self._segment < segments[0]:
            self._segment, self._offset = segments[0], 0
        self._mark = -1
        self._ahead: list[bytes] = []
        # Counted apart, because one thread writes while another reads.
        self._written, self._consumed = self._undelivered(segments), 0

    @property
    def size(self) -> int:
        """Bytes that are not delivered yet."""
        return self._written - self._consumed

    def _undelivered(self, segments: list[int]) -> int:
        there = [number for number in segments if number >= self._segment]
        size = sum(self._path(number).stat().st_size for number in there)
        return size - (self._offset if self._segment in there else 0)

    def write(self, data: bytes) -> int:
        """Append lines; bytes that were written. OSError when there was no room for any."""
        if self._output < 0 or os.fstat(self._output).st_size >= _SEGMENT:
            self._begin_segment()
        count = append(self._output, data, durable=self._durable)
        self._written += count
        return count

    def _begin_segment(self) -> None:
        number = self._last + 1
        opened = os.open(self._path(number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if self._output >= 0:
            os.close(self._output)
        self._output, self._last = opened, number
        if self._durable:
            os.fsync(self._lock)

    def next(self) -> bytes | None:
        """The first line that was not delivered, without its newline; None if there is none."""
        while not self._ahead:
            if self._segment > self._last:
                return None
            # Looked at before the read: who comes later may write a whole segment in between.
            full = self._segment < self._last
            self._ahead = self._read()
            if not self._ahead:
                if not full:
                    return None
                self._drop_segment()
        return self._ahead[0]

    def _read(self) -> list[bytes]:
        try:
            with self._path(self._segment).open("rb") as file:
                file.seek(self._offset)
                data = file.read(_READ)
        except FileNotFoundError:
            return []
        return data[: data.rfind(b"\n") + 1].splitlines()

    def _drop_segment(self) -> None:
        with suppress(FileNotFoundError):
            self._path(self._segment).unlink()
        self._segment, self._offset = self._segment + 1, 0
        self._save_cursor()

    def done(self) -> None:
        """The line that `next` gave was delivered, or given up."""
        length = len(self._ahead.pop(0)) + 1
        self._offset += length
        self._consumed += length
        self._save_cursor()

    def _save_cursor(self) -> None:
        if self._mark < 0:
            self._mark = os.open(self.directory / _CURSOR, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.pwrite(self._mark, b"%010d %020d\n" % (self._segment, self._offset), 0)

    def close(self) -> None:
        """Give it up; one that is empty is removed."""
        if self.next() is None:
            for name in os.listdir(self.directory):
                (self.directory / name).unlink()
            self.directory.rmdir()
        for descriptor in (self._output, self._mark, self._lock):
            if descriptor >= 0:
                os.close(descriptor)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:010d}.jsonl"


def create(parent: Path, *, durable: bool) -> Spool:
    """A new spool below `parent`, which is made. Raises OSError."""
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        directory = parent / f"queue-{secrets.token_hex(8)}"
        directory.mkdir(mode=0o700)
        # One that looks for orphans may be quicker than we, and have removed it as empty.
        spool = _take(directory, durable=durable)
        if spool is not None:
            return spool


def adopt(parent: Path, *, durable: bool) -> Iterator[Spool]:
    """Spools that nobody holds any more: their process ended before they were empty."""
    for directory in sorted(parent.glob("queue-*")):
        spool = _take(directory, durable=durable)
        if spool is not None:
            yield spool


def _take(directory: Path, *, durable: bool) -> Spool | None:
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(directory), os.fstat(lock)):
            return Spool(directory, lock, durable=durable)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _segments(directory: Path) -> list[int]:
    return sorted(int(path.stem) for path in directory.glob("*.jsonl") if path.stem.isdigit())


def _read_cursor(directory: Path) -> tuple[int, int]:
    """Where to go on; the beginning if that was never written, or was torn by a loss of power."""
    try:
        segment, offset = (directory / _CURSOR).read_bytes().split()
        return int(segment), int(offset)
    except (FileNotFoundError, ValueError):
        return 1, 0

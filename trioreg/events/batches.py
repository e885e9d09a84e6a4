"""Lines for a file, written together: whoever waits for one shares the write and the sync with the others.

Rules: lines keep their order. There is no timer: a lone line is written at once, and what comes while the
disk is busy makes the next batch. At most `LIMIT` bytes wait; what comes beyond is refused, and counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from trioreg.logs import Log

_log = Log(__name__)

# Lines of some thousand requests that wait for a disk which is stuck.
LIMIT = 2**20

# Takes bytes and says how many it wrote; OSError when it wrote none. Blocks: called in a thread.
Write = Callable[[bytes], int]


class Batches:
    """In front of a file. Counted: lines written, lines that could not even wait, writes that failed."""

    def __init__(self, write: Write, name: str):
        self.lines = 0
        self.lost = 0
        self.failures = 0
        self._write = write
        self._name = name
        self._waiting = bytearray()
        self._added = 0
        self._written = 0
        self._writing = trio.Lock()
        self._failing = False

    @property
    def waiting(self) -> int:
        """Bytes in memory."""
        return len(self._waiting)

    def add(self, line: bytes) -> bool:
        """Let a line, which ends with a newline, wait to be written; False if there is no room."""
        if len(self._waiting) + len(line) > LIMIT:
            self.lost += 1
            return False
        self._waiting += line
        self._added += len(line)
        return True

    async def flush(self) -> bool:
        """Wait until all that was added before is written; False when the disk would not.

        Then it waits in memory, and the next flush tries again. Cancelled before it begins or not at all.
        """
        mine = self._added
        async with self._writing:
            if self._written >= mine:
                return True
            data = bytes(self._waiting)
            try:
                count = await trio.to_thread.run_sync(self._write, data)
            except OSError as error:
                self._failed(error)
                return False
            del self._waiting[:count]
            self._written += count
            self.lines += data.count(b"\n", 0, count)
            if count == len(data):
                self._failing = False
            return self._written >= mine

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if not self._failing:
            _log.error("events cannot be written", file=self._name, reason=error.strerror or str(error))
        self._failing = True


def append(descriptor: int, data: bytes, *, durable: bool) -> int:
    """Append to a file, and sync it; bytes written. OSError when there was no room for any."""
    count = 0
    try:
        while count < len(data):
            count += os.write(descriptor, data[count:])
    except OSError:
        if not count:
            raise
    if durable:
        os.fdatasync(descriptor)
    return count

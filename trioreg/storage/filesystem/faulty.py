"""A disk that fails where a file says: an experiment's seam, set by ``debug.disk_faults``.

The file holds one line, ``CALL NUMBER ERROR``: ``rename 2 EIO`` lets the second rename fail that comes after
the file was written; ``any 7 ENOSPC`` the seventh call of whatever kind. Each line strikes once; a new file
counts from its own beginning. Without a file nothing fails. `CALLS` are the names.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from trioreg.logs import Log
from trioreg.storage.filesystem.disk import Disk

_log = Log(__name__)

CALLS = (
    "read_file", "pread", "stat", "pwrite", "truncate", "sync_data", "sync_directory", "rename", "link",
    "unlink", "mkdir", "rmdir", "touch",
)  # fmt: skip


class _Fault(NamedTuple):
    call: str
    number: int
    error: int


class FaultyDisk(Disk):
    """Calls may come from any thread."""

    def __init__(self, faults: Path, *, durable: bool = True):
        super().__init__(durable=durable, direct=False)
        self._faults = faults
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._armed: _Fault | None = None
        self._counts: Counter[str] = Counter()

    @property
    def plain_reads(self) -> bool:
        return False

    def step(self, call: str) -> None:
        """Raises the OSError that the file asks for, when this is the call."""
        with self._lock:
            self._look()
            self._counts.update((call, "any"))
            fault = self._armed
            if fault is None or fault.call not in (call, "any") or self._counts[fault.call] != fault.number:
                return
            self._armed = None
        _log.info("a fault of the disk, as asked for", call=call, error=errno.errorcode[fault.error])
        raise OSError(fault.error, os.strerror(fault.error))

    def _look(self) -> None:
        """Read the file when it is another one than before."""
        try:
            status = os.stat(self._faults)
        except FileNotFoundError:
            self._stamp = self._armed = None
            return
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._stamp:
            self._stamp = stamp
            self._counts.clear()
            self._armed = _parse(self._faults.read_text())


def _parse(text: str) -> _Fault | None:
    """None, and a line in the log, for a line that is none of ours."""
    try:
        call, number, name = text.split()
        if call not in (*CALLS, "any"):
            raise ValueError(call)
        return _Fault(call, int(number), int(getattr(errno, name)))
    except (ValueError, AttributeError):
        _log.error("debug.disk_faults holds no fault", line=text[:80])
        return None


def _failing(name: str) -> Any:
    real = getattr(Disk, name)

    @wraps(real)
    def call(self: FaultyDisk, *arguments: Any) -> Any:
        self.step(name)
        return real(self, *arguments)

    return call


for _name in CALLS:
    setattr(FaultyDisk, _name, _failing(_name))

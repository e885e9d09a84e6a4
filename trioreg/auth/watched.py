"""A file that is read again when it has changed.

Rule: a new version that cannot be read or understood changes nothing but the log: the one before stays.
Files are small and local, so they are read where we are; `MOST_BYTES` bounds that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from trioreg.logs import Log

_log = Log(__name__)

T = TypeVar("T")

# 20,000 users of htpasswd are 1.5 MB, read in about 10 ms.
MOST_BYTES = 4 * 2**20

# A file that changes twice within a tick of the clock of its filesystem may look the same: as long as it is
# so young, it is read each time (as git does with its index).
_YOUNG_SECONDS = 2.0

_Stamp = tuple[int, int, int]


class Watched(Generic[T]):
    """`parse` raises ValueError with a line for the person who wrote the file."""

    def __init__(self, path: Path, parse: Callable[[bytes], T]):
        """Raises OSError or ValueError when the first version is no good."""
        self._path = path
        self._parse = parse
        self._stamp = stamp_of(path)
        self._data = read_bounded(path)
        self.current = parse(self._data)

    def refresh(self) -> bool:
        """Look at the file; whether `current` is another one now."""
        try:
            stamp = stamp_of(self._path)
            if stamp == self._stamp and not is_young(stamp):
                return False
            data = read_bounded(self._path)
            self._stamp = stamp
            if data == self._data:
                return False
            self._data = data
            self.current = self._parse(data)
        except (OSError, ValueError) as error:
            self._complain(error)
            return False
        _log.info("read again", file=str(self._path))
        return True

    def _complain(self, error: Exception) -> None:
        """Once for each version; a file that is gone is asked for again, and complained of once."""
        said = str(error)
        if said != getattr(self, "_said", None):
            _log.error("not usable, the version before stays in force", file=str(self._path), reason=said)
        self._said = said


def stamp_of(path: Path) -> _Stamp:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


def is_young(stamp: _Stamp) -> bool:
    return time.time() - stamp[0] / 1e9 < _YOUNG_SECONDS


def read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES} bytes")
    return data

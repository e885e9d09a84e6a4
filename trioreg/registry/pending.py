"""Bytes of upload sessions that no repository links yet, so that quotas can be held against them early.

Rule: an estimate to save clients their time; a quota itself is held when the link is made. Known is what came
through this process: what a body announced, or has brought so far, and for a while what a session keeps
whose client left. Sessions that nobody goes on with must not fill a quota until a purge finds them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from trioreg.oci.names import RepositoryName, UploadId

# Between two requests of a push are seconds at most; who was cut off may begin anew, and needs the room.
KEPT_SECONDS = 60.0

# Some 300 bytes each; beyond it the oldest are forgotten.
_MOST = 4096


class _Entry(NamedTuple):
    name: RepositoryName
    size: int
    until: float


class Pending:
    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._entries: dict[UploadId, _Entry] = {}
        self._sums: Counter[RepositoryName] = Counter()

    def receiving(self, name: RepositoryName, upload: UploadId, size: int) -> None:
        """A session has, or is about to have, `size` bytes in all; its body is on the way."""
        self._put(upload, _Entry(name, size, math.inf))

    def resting(self, upload: UploadId, size: int) -> None:
        """No body is on the way any more, and `size` bytes are there."""
        known = self._entries.get(upload)
        if known is not None:
            self._put(upload, _Entry(known.name, size, self._clock() + KEPT_SECONDS))

    def ended(self, upload: UploadId) -> None:
        """The session is a blob now, or is gone."""
        known = self._entries.pop(upload, None)
        if known is not None:
            self._count(known.name, -known.size)

    def of(self, scope: str, besides: UploadId | None = None) -> int:
        """Bytes in a repository, or in a namespace with its slash, without those of one session."""
        self._forget()
        other = self._entries.get(besides) if besides is not None else None
        total = sum(size for name, size in self._sums.items() if _within(name, scope))
        return total - (other.size if other is not None and _within(other.name, scope) else 0)

    def _put(self, upload: UploadId, entry: _Entry) -> None:
        self.ended(upload)
        self._entries[upload] = entry
        self._count(entry.name, entry.size)
        if len(self._entries) > _MOST:
            self.ended(next(iter(self._entries)))

    def _count(self, name: RepositoryName, size: int) -> None:
        self._sums[name] += size
        if not self._sums[name]:
            del self._sums[name]

    def _forget(self) -> None:
        """What has rested too long."""
        now = self._clock()
        for upload in [upload for upload, entry in self._entries.items() if entry.until <= now]:
            self.ended(upload)


def _within(name: RepositoryName, scope: str) -> bool:
    return name.startswith(scope) if scope.endswith("/") else name == scope

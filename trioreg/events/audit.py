"""The audit log: a line of JSON for each thing that was done or refused.

Rule: the file is only appended to, and another process may do so too (O_APPEND). It is opened anew when it
was moved away, so that logrotate needs no signal. Before an answer is sent its line is in the file, and with
`durable` on the disk.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trioreg.events.batches import Batches, append
from trioreg.events.event import Event
from trioreg.metrics.table import AUDIT_FAILURES, AUDIT_LINES

_WRITTEN, _LOST = AUDIT_LINES.at("written"), AUDIT_LINES.at("lost")


class AuditLog:
    """`pulls`: whether they are written too. Raises OSError when the file cannot be opened."""

    def __init__(self, path: Path, *, pulls: bool, durable: bool):
        self._path = path
        self._pulls = pulls
        self._durable = durable
        self._descriptor = _open(path)
        self._batches = Batches(self._write, str(path))
        self._counted = (0, 0, 0)

    def offer(self, event: Event) -> bool:
        """Take an event, if it is one for us."""
        if event.action == "pull" and not self._pulls:
            return False
        return self._batches.add(line_of(event))

    async def flush(self) -> None:
        if self._batches.waiting:
            await self._batches.flush()
        self._count()

    def _count(self) -> None:
        """Bring the metrics up to date. They go on when the settings change, and we do not."""
        before = self._counted
        self._counted = now = (self._batches.lines, self._batches.lost, self._batches.failures)
        AUDIT_LINES.add(now[0] - before[0], _WRITTEN)
        AUDIT_LINES.add(now[1] - before[1], _LOST)
        AUDIT_FAILURES.add(now[2] - before[2])

    @property
    def waiting(self) -> int:
        """Bytes that are not in the file yet."""
        return self._batches.waiting

    @property
    def lost(self) -> int:
        return self._batches.lost

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, data: bytes) -> int:
        try:
            there = os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            there = False
        if not there:
            opened = _open(self._path)
            os.close(self._descriptor)
            self._descriptor = opened
        return append(self._descriptor, data, durable=self._durable)


def line_of(event: Event) -> bytes:
    """The event as JSON, its time as RFC 3339, and a newline."""
    values = msgspec.to_builtins(event)
    values["time"] = timestamp(event.time)
    return msgspec.json.encode(values) + b"\n"


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

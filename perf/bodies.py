"""Bodies of any size, each unique, none of them held in memory.

A body is one shared cycle of random bytes, repeated, and an end of its own: the cycle lies once in
a memory file and leaves by `sendfile`, the end (at most 32 KiB + 64 bytes) is made from the body's
name when it is needed. The rule: two names never give the same bytes, one name always does.

The unique part stands at the end on purpose. The SHA-256 state of everything before it is the same
for all bodies of a size, so it is computed once (`Digests.prepare`, before the clock starts) and
copied; a hundred digests of 1 GB cost the client one. A server gains nothing by it: it has to hash
every byte of every body, and no block of the end is shared.
"""

import hashlib
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

CYCLE = 4 << 20
FRAME = 32 << 10  # Go's io.Copy buffer, hence the size of docker's chunks
UNIQUE = 64


@dataclass(frozen=True)
class Body:
    """`size` bytes that follow from `name`: `bulk` bytes of the cycle, then the end."""

    name: str
    size: int

    @property
    def bulk(self) -> int:
        """Bytes before the end: whole frames, so that the chunked form is a cycle too."""
        return max(self.size - UNIQUE, 0) // FRAME * FRAME

    def end(self) -> bytes:
        return hashlib.shake_256(self.name.encode()).digest(self.size - self.bulk)


class Wire:
    """A body as it goes over the socket, plain or in chunked transfer coding."""

    def __init__(self, descriptor: int, cycle: int, bulk: int, end: bytes) -> None:
        self._descriptor = descriptor
        self._cycle = cycle
        self._bulk = bulk
        self._end = end
        self.length = bulk + len(end)

    def send(self, to: int, position: int, limit: int) -> int:
        """Send at most `limit` bytes from `position` to a non-blocking socket; how many went.

        BlockingIOError when its buffer is full, OSError when the peer is gone.
        """
        if position >= self._bulk:
            start = position - self._bulk
            return os.write(to, self._end[start : start + limit])
        offset = position % self._cycle
        count = min(limit, self._cycle - offset, self._bulk - position)
        return os.sendfile(to, self._descriptor, offset, count)


class Source:
    """The shared cycle, plain and framed, in two memory files. A context manager."""

    def __init__(self) -> None:
        self._plain = random.Random("trioreg").randbytes(CYCLE)
        self._view = memoryview(self._plain)
        framed = b"".join(frame(self._view[at : at + FRAME]) for at in range(0, CYCLE, FRAME))
        self._framed_cycle = len(framed)
        self._plain_file = memory_file(self._plain)
        self._framed_file = memory_file(framed)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._plain_file)
        os.close(self._framed_file)

    def wire(self, body: Body, *, chunked: bool) -> Wire:
        """The form to send; the chunked one carries its last chunk."""
        end = body.end()
        if not chunked:
            return Wire(self._plain_file, CYCLE, body.bulk, end)
        framed_bulk = body.bulk // FRAME * (self._framed_cycle * FRAME // CYCLE)
        framed_end = (frame(end) if end else b"") + b"0\r\n\r\n"
        return Wire(self._framed_file, self._framed_cycle, framed_bulk, framed_end)

    def matches(self, body: Body, position: int, received: bytearray) -> bool:
        """Whether `received` is what stands in `body` at `position`."""
        compared = 0
        while compared < len(received):
            at = position + compared
            if at >= body.bulk:
                start = at - body.bulk
                return received[compared:] == body.end()[start : start + len(received) - compared]
            offset = at % CYCLE
            count = min(len(received) - compared, CYCLE - offset, body.bulk - at)
            # bytearray == memoryview is one memcmp; bytes == memoryview goes item by item
            if received[compared : compared + count] != self._view[offset : offset + count]:
                return False
            compared += count
        return True

    def go_on(self, state: "hashlib._Hash", done: int, bulk: int) -> None:
        """Bring a SHA-256 state from `done` to `bulk` bytes of the repeated cycle."""
        while done < bulk:
            offset = done % CYCLE
            count = min(CYCLE - offset, bulk - done)
            state.update(self._view[offset : offset + count])
            done += count


class Digests:
    """`sha256:…` of any body, at the price of its end once `prepare` has met its size."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._states: dict[int, Any] = {}

    def prepare(self, sizes: Iterable[int]) -> None:
        """All in one pass over as many bytes as the largest has: the states lie on one way."""
        for bulk in sorted({Body("", size).bulk for size in sizes}):
            self._state(bulk)

    def of(self, body: Body) -> str:
        state = self._state(body.bulk).copy()
        state.update(body.end())
        return f"sha256:{state.hexdigest()}"

    def _state(self, bulk: int) -> Any:
        if bulk not in self._states:
            done = max((known for known in self._states if known < bulk), default=0)
            state = self._states[done].copy() if done else hashlib.sha256()
            self._source.go_on(state, done, bulk)
            self._states[bulk] = state
        return self._states[bulk]


def frame(data: bytes | memoryview) -> bytes:
    """One chunk of chunked transfer coding (RFC 9112, section 7.1)."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


def memory_file(content: bytes) -> int:
    """A descriptor that `sendfile` can send from, of a file that is only memory."""
    descriptor = os.memfd_create("trioreg-perf", os.MFD_CLOEXEC)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor

"""How many connections there may be, which one goes when it is full, and what heads in pieces may hold.

Rules: a connection that is between two requests is worth less than one that comes, so when there is no room
the one that has been idle longest is closed, as a client must expect (RFC 9112, 9.5); only when none is idle
the newcomer is told 503. One address takes less than `GREED` times what is left free (`pipeline.admission`).
A head that comes in pieces is held with those of others in a bounded sum; the oldest of them goes first.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from trioreg.oci.errors import ErrorCode, envelope
from trioreg.pipeline.admission import Places

# Looking for idle connections is a look at all of them, so some are closed at a time: 1 in 64, at most 64.
_CLOSED_AT_ONCE = 64

# A head that comes whole is not counted, and nearly all do. Thousands of slow ones fit, of a usual size.
UNFINISHED_BYTES = 4 * 2**20

# The buffer's object and our note of it.
_HEAD_OVERHEAD = 512

_UNREAD_BYTES = 64 * 1024

# Hypercorn takes more memory for a connection: 1,000 slow uploads took 111 MB there and 60 MB on the lane
# (perf memory --case slow-uploads, with and without --set http.front=quart).
_FRONT_PART = 8

CloseIdle = Callable[[int, str | None], int]
"""Close so many idle connections, longest idle first, of one client or of all; how many there were."""


def _refusal() -> bytes:
    content = envelope(ErrorCode.UNAVAILABLE, {"reason": "too many connections"})
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


_REFUSAL = _refusal()


class Crowd:
    """The connections of one process: `most` of them, an eighth of these at Hypercorn."""

    def __init__(self, most: int, close_idle: CloseIdle):
        self._places = Places(most)
        self._front = Places(max(1, most // _FRONT_PART))
        self._close_idle = close_idle
        self._leaving = 0
        self.refused = 0

    @property
    def most(self) -> int:
        return self._places.total

    @most.setter
    def most(self, most: int) -> None:
        self._places.total, self._front.total = most, max(1, most // _FRONT_PART)

    def enter(self, client: str) -> bool:
        """Whether `client` may have a connection more; it has it then, until `leave`."""
        places = self._places
        if not places.may(client) and not self._make_room(client):
            self.refused += 1
            return False
        places.take(client)
        return True

    def leave(self, client: str) -> None:
        self._places.give(client)
        self._leaving = 0

    def enter_front(self, client: str) -> bool:
        """The same for one of its connections that Hypercorn is to serve, until `leave_front`."""
        if not self._front.may(client):
            self.refused += 1
            return False
        self._front.take(client)
        return True

    def leave_front(self, client: str) -> None:
        self._front.give(client)

    def _make_room(self, client: str) -> bool:
        """Close idle connections: the client's own if it has too many, anybody's if there is no room."""
        places = self._places
        if places.taken >= places.total:
            if self._leaving <= 0:
                at_once = max(1, min(_CLOSED_AT_ONCE, places.total // _CLOSED_AT_ONCE))
                self._leaving = self._close_idle(at_once, None)
            # Those that were closed are gone within a turn of the loop.
            self._leaving -= 1
            return self._leaving >= 0
        return self._close_idle(1, client) > 0


def turn_away(stream: trio.SocketStream, *, tls: bool) -> None:
    """Say 503, without waiting, and close; a TLS client cannot be told."""
    with socket.socket(fileno=stream.socket.detach()) as sock, suppress(OSError):
        sock.setblocking(False)
        if tls:
            return
        sock.send(_REFUSAL)
        # What is unread at close would throw our answer away.
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_UNREAD_BYTES)


class Abortable(Protocol):
    def abort(self) -> None: ...


class UnfinishedHeads:
    """What has come of heads that are not complete, of all connections; `most` bytes."""

    def __init__(self, most: int = UNFINISHED_BYTES):
        self._most = most
        self._sizes: dict[Abortable, int] = {}
        self._held = 0

    def hold(self, wire: Abortable, size: int) -> None:
        """`wire` has `size` bytes of a head now. When that is too much for all, the oldest is aborted."""
        size += _HEAD_OVERHEAD
        self._held += size - self._sizes.get(wire, 0)
        self._sizes[wire] = size
        while self._held > self._most:
            oldest = next(iter(self._sizes))
            self.release(oldest)
            oldest.abort()

    def release(self, wire: Abortable) -> None:
        """The head is complete, or the connection has ended."""
        self._held -= self._sizes.pop(wire, 0)

    @property
    def held(self) -> int:
        return self._held

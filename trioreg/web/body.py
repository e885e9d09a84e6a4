"""A request body over ASGI, pulled and not pushed.

Rule: `receive` is called by one task at a time and only when bytes are wanted, so that a slow disk reaches
the client's TCP window. Quart's own body is never fed: its queue has no bound. Once the body has ended, or
nobody wants the rest, `released` is set and the connection's watcher takes over `receive`, for a server
with a full queue cannot even say that the client left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from trioreg.pipeline.body import ClientDisconnected, ClientStalled


class AsgiBody:
    """`pipeline.body.Body` over an ASGI `receive`. `stall`: seconds without a byte that end it."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], length: int | None, stall: float):
        self._receive = receive
        self._length = length
        self._stall = stall
        self._pending = memoryview(b"")
        self._ended = False
        self.received = 0
        self.gone = False
        self.answered = False
        self.released = trio.Event()

    @property
    def length(self) -> int | None:
        return self._length

    async def ready(self) -> bool:
        while not self._pending:
            if self._ended:
                return False
            with trio.move_on_after(self._stall) as patience:
                event = await self._receive()
            if patience.cancelled_caught:
                raise ClientStalled
            self._take(event)
        return True

    def fill(self, view: memoryview) -> int:
        count = min(len(view), len(self._pending))
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    async def discard(self, limit: int, seconds: float) -> bool:
        """Read on without keeping, at most `limit` bytes in `seconds`; whether the body has ended."""
        try:
            with trio.move_on_after(seconds):
                while limit > 0 and await self.ready():
                    limit -= len(self._pending)
                    self._pending = memoryview(b"")
        except ClientDisconnected:
            return False
        return self._ended

    def release(self) -> None:
        """Nobody will ask for more."""
        self.released.set()

    def _take(self, event: object) -> None:
        assert isinstance(event, dict)
        if event["type"] != "http.request":
            self._ended = self.gone = True
            self.release()
            raise ClientDisconnected
        self._pending = memoryview(event.get("body", b""))
        self.received += len(self._pending)
        if not event.get("more_body", False):
            self._ended = True
            self.release()

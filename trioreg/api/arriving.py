"""Bodies that are held in memory until they are whole: small manifests and forms.

Rule: what has come of all those that are not whole yet is bounded. When it is too much, the oldest is told
to come again; one that arrives as fast as clients send them is never the oldest, so a flood of bodies that
dribble ends its own. Those that are whole and being stored are bounded too: meanwhile no more is read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import trio

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.body import ClientStalled

# 128 manifests of 64 KiB, or thousands of usual size, that are on their way or wait for the gate.
MOST_BYTES = 8 * 2**20

Hold = Callable[[int], None]
"""Says how many bytes of the body there are now."""

Room = Callable[[], Awaitable[None]]


class Arriving:
    """Those of one process; `most` bytes."""

    def __init__(self, most: int = MOST_BYTES):
        self._most = most
        self._sizes: dict[trio.CancelScope, int] = {}
        self.held = 0
        self.whole = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @contextmanager
    def one(self, seconds: float) -> Iterator[Hold]:
        """While a body arrives. Raises ClientStalled after `seconds`, TOOMANYREQUESTS if it had to go."""
        with trio.move_on_after(seconds) as scope:
            self._sizes[scope] = 0
            try:
                yield partial(self._hold, scope)
            finally:
                gone = scope not in self._sizes
                self._release(scope)
        if scope.cancelled_caught:
            if gone:
                detail = {"reason": "too many slow bodies at once"}
                raise RegistryError(ErrorCode.TOOMANYREQUESTS, detail, headers={"Retry-After": "1"})
            raise ClientStalled

    async def room(self) -> None:
        """Wait until there may be more; to be asked before each read."""
        while self.whole >= self._most:
            await self._waiting.park()
            if self.whole < self._most:
                self._waiting.unpark()  # who was woken wakes the next, as long as there is room

    @contextmanager
    def stored(self, size: int) -> Iterator[None]:
        """While so many bytes that are whole are worked on."""
        self.whole += size
        try:
            yield
        finally:
            self.whole -= size
            self._waiting.unpark()

    def _hold(self, scope: trio.CancelScope, size: int) -> None:
        if scope not in self._sizes:
            return
        self.held += size - self._sizes[scope]
        self._sizes[scope] = size
        while self.held > self._most:
            oldest = next(iter(self._sizes))
            self._release(oldest)
            oldest.cancel()

    def _release(self, scope: trio.CancelScope) -> None:
        self.held -= self._sizes.pop(scope, 0)

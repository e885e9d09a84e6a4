"""A request body read straight from the wire: `pipeline.body.Body` of the direct lane.

Rule: bytes with a length go from the kernel into the block, one copy; only what came together with the
head is copied again. ``100 Continue`` is said when a body is first wanted, not before.
"""

from __future__ import annotations

import trio

from trioreg.pipeline.body import BodyMalformed, ClientDisconnected
from trioreg.pipeline.budget import Share
from trioreg.server.chunked import BadChunk, ChunkDecoder
from trioreg.server.wire import Wire

# A client that sends so much at a time is woken for less often: at half a block, and not at every 64 KiB that
# a fast loopback or network card delivers.
_QUICK = 32 * 1024
_AT_ONCE = 128 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOTHING = memoryview(b"")


class NoBody:
    """The body of nearly every GET and HEAD: it has no state, so one serves all."""

    length = left = received = 0
    unwanted = False

    async def ready(self) -> bool:
        return False

    def fill(self, view: memoryview) -> int:
        return 0


NO_BODY = NoBody()


class LengthBody:
    """A body of `length` bytes, of which `early` came with the head."""

    def __init__(self, wire: Wire, length: int, early: bytes, *, expects_continue: bool):
        self._wire = wire
        self._length = length
        self._left = length
        self._early = memoryview(early)
        self._says_continue = expects_continue and not early
        self._eager = False
        self._quick = False
        self.received = 0

    @property
    def length(self) -> int:
        return self._length

    @property
    def left(self) -> int:
        """Bytes that are still to come from the client."""
        return self._left

    @property
    def unwanted(self) -> bool:
        """Whether the client waits for a word that we never said; it may send the body or not."""
        return self._says_continue and self._left > 0

    async def ready(self) -> bool:
        if not self._left:
            return False
        if self._early or self._eager:
            return True
        if self._says_continue:
            self._says_continue = False
            await self._wire.send(_CONTINUE)
        await self._wire.readable(bytes_at_once=min(self._left, _AT_ONCE) if self._quick else 1)
        return True

    def fill(self, view: memoryview) -> int:
        """May give 0: then nothing had arrived, and `ready` waits again."""
        view = view[: self._left]
        if self._early:
            count = min(len(view), len(self._early))
            view[:count] = self._early[:count]
            # An empty view would keep all of what came with the head.
            self._early = self._early[count:] if count < len(self._early) else _NOTHING
        else:
            got = self._wire.receive_into(view)
            if got == 0:
                raise ClientDisconnected
            count = got or 0
            # A full read means that more is waiting: do not ask the kernel first.
            self._eager = count == len(view)
            self._quick = count >= _QUICK
        self._left -= count
        self.received += count
        return count

    def rest(self) -> bytes:
        """Bytes that came with the head and belong to the next request."""
        return bytes(self._early) if not self._left else b""


class ChunkedBody:
    """A body in the chunked transfer coding."""

    def __init__(self, wire: Wire, early: bytes, share: Share, *, expects_continue: bool):
        self._wire = wire
        self._share = share
        self._decoder = ChunkDecoder()
        self._early = early
        self._says_continue = expects_continue and not early
        self.received = 0

    @property
    def length(self) -> None:
        return None

    @property
    def left(self) -> int | None:
        return 0 if self._decoder.ended else None

    @property
    def unwanted(self) -> bool:
        return self._says_continue

    async def ready(self) -> bool:
        decoder = self._decoder
        if decoder.available:
            await trio.lowlevel.checkpoint()
        if self._early:
            early, self._early = self._early, b""
            self._feed(early)
        while not decoder.available:
            try:
                decoder.check()
            except BadChunk as error:
                raise BodyMalformed(str(error)) from None
            if decoder.ended:
                return False
            if self._says_continue:
                self._says_continue = False
                await self._wire.send(_CONTINUE)
            await self._wire.readable()
            data = self._wire.receive(self._share.piece())
            if data == b"":
                raise ClientDisconnected
            if data:
                self._feed(data)
        return True

    def fill(self, view: memoryview) -> int:
        count = self._decoder.take(view)
        self.received += count
        return count

    def rest(self) -> bytes:
        return self._decoder.rest() if self._decoder.ended else b""

    def _feed(self, data: bytes) -> None:
        try:
            self._decoder.feed(data)
        except BadChunk as error:
            raise BodyMalformed(str(error)) from None

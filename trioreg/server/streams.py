"""The stream under a connection: stall limit on sends, size of reads, and a close that is heard.

Hypercorn shields its sends and gives them no limit, reads a fixed 64 KiB, and closes a connection whose
peer is still sending, which makes the kernel throw our answer away with a reset. All three are put right
below it, where a TLS stream profits as well.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import trio

# A reset overtakes the answer if bytes of the peer are unread at close; what it still sends is read and
# dropped for so long, and so much of it (64 MiB/s would be a gigabyte in 16 s).
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 2**20
_LINGER_READ = 64 * 1024


class GuardedStream(trio.abc.HalfCloseableStream):
    """A TCP stream whose peer must take a byte at least every `stall` seconds while we send.

    `piece` says how many bytes a read may bring now; the size that the reader asks for is ignored.
    """

    def __init__(self, stream: trio.SocketStream, stall: float, piece: Callable[[], int]):
        self._stream = stream
        self._stall = stall
        self._piece = piece
        self._sent_eof = False
        self.socket = stream.socket

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises BrokenResourceError when the peer took nothing for the stall limit."""
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                with trio.move_on_after(self._stall) as patience:
                    # SO_SNDBUF takes a piece at a time, so each turn of the loop is a byte moved.
                    with view[sent : sent + self._piece()] as part:
                        sent += await self._send_some(part)
                if patience.cancelled_caught:
                    self.abort()
                    raise trio.BrokenResourceError("the peer stalled")

    async def _send_some(self, part: memoryview) -> int:
        try:
            return await self.socket.send(part)
        except (OSError, ValueError) as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(self._piece())

    async def send_eof(self) -> None:
        self._sent_eof = True
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close; if we ended our side first, let the peer read the end before it is cut off."""
        try:
            if self._sent_eof:
                with trio.move_on_after(LINGER_SECONDS):
                    await self._linger()
        finally:
            await self._stream.aclose()

    async def _linger(self) -> None:
        left = LINGER_BYTES
        try:
            while left > 0:
                data = await self._stream.receive_some(_LINGER_READ)
                if not data:
                    return
                left -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return

    def abort(self) -> None:
        """Wake whoever waits in this stream, shielded or not. No byte passes any more."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.socket.close()


class PushbackStream(trio.abc.HalfCloseableStream):
    """A stream that gives back some bytes first, which somebody else has read from it already."""

    def __init__(self, stream: trio.abc.Stream, unread: bytes):
        self._stream = stream
        self._unread = unread

    def __getattr__(self, name: str) -> Any:
        """What else the stream can do: Hypercorn tells a TLS stream by its handshake."""
        return getattr(self._stream, name)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._unread:
            await trio.lowlevel.checkpoint()
            unread, self._unread = self._unread, b""
            return unread
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

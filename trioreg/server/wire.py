"""A connection as the direct lane wants it: wait, then read or write without waiting.

`PlainWire` is a TCP socket: reads go straight into a block, blobs leave by `sendfile`. `TlsWire` is a TLS
stream: it reads and sends. Rule: whoever waits for the peer writes into `expires` until when, and a
connection whose time has come is aborted by one watchdog for all (`server.connections`); so no wait needs
a timer of its own, and only the peer's time is counted, not ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Protocol

import trio

from trioreg.pipeline.body import ClientDisconnected
from trioreg.server.streams import GuardedStream
from trioreg.storage.base import BlobReader, HasDescriptor

# One turn of sendfile at most, so that others have theirs: 1 MiB takes about 0.2 ms.
_SEND_WINDOW = 2**20

# What a cold blob is read ahead by: enough to keep a disk busy while a window leaves.
_AHEAD = 8 * 2**20

NEVER = float("inf")
_NOTHING = memoryview(b"")


class Wire(Protocol):
    """What the lane needs. Everything raises ClientDisconnected when the peer is gone."""

    expires: float
    certificate: str | None  # whom the certificate of the client names, if it showed one

    async def readable(self, until: float | None = None, *, bytes_at_once: int = 1) -> None:
        """Wait until `receive` or `receive_into` has something. Cancelling loses nothing.

        `until`: monotonic time at which the peer is given up; None is the stall limit from now.
        `bytes_at_once`: so many are worth waiting for, a moment, if the peer is quick.
        """

    def receive(self, limit: int) -> bytes | None:
        """What has arrived, b"" at the end, None if nothing has."""

    def receive_into(self, view: memoryview) -> int | None:
        """Like `receive`, into a buffer."""

    async def send(self, data: bytes) -> None: ...

    async def send_blob(self, blob: BlobReader, start: int, end: int, piece: Callable[[], int]) -> None:
        """`piece`: bytes that may be in our memory at a time, where the blob has to pass through it."""

    def be_content(self) -> bool:
        """Time has passed: wait no longer for `bytes_at_once`; whether we did."""

    async def finish(self) -> None:
        """Say that we send no more, and let the peer read it before the connection is cut."""

    def abort(self) -> None: ...


class PlainWire:
    """A connected, non-blocking TCP socket, which it owns. `stall`: seconds without a byte."""

    certificate: str | None = None

    def __init__(self, sock: socket.socket, stall: float):
        self.sock = sock
        self._stall = stall
        self.expires = NEVER
        self._at_once = 1

    async def readable(self, until: float | None = None, *, bytes_at_once: int = 1) -> None:
        if bytes_at_once != self._at_once:
            self._wake_at(bytes_at_once)
        self.expires = time.monotonic() + self._stall if until is None else until
        try:
            await trio.lowlevel.wait_readable(self.sock)
        except (OSError, ValueError, trio.ClosedResourceError):
            raise ClientDisconnected from None
        finally:
            self.expires = NEVER

    def receive(self, limit: int) -> bytes | None:
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            return None
        except OSError:
            raise ClientDisconnected from None
        return data

    def receive_into(self, view: memoryview) -> int | None:
        try:
            count = self.sock.recv_into(view)
        except BlockingIOError:
            return None
        except OSError:
            raise ClientDisconnected from None
        return count

    async def send(self, data: bytes) -> None:
        sent = 0
        while True:
            try:
                sent += self.sock.send(memoryview(data)[sent:] if sent else data)
            except BlockingIOError:
                await self._writable()
            except OSError:
                raise ClientDisconnected from None
            if sent == len(data):
                return

    async def send_blob(self, blob: BlobReader, start: int, end: int, piece: Callable[[], int]) -> None:
        if not isinstance(blob, HasDescriptor):
            await _read_and_send(self, blob, start, end, piece)
            return
        source, target = blob.fileno(), self.sock.fileno()
        while start < end:
            window = min(_SEND_WINDOW, end - start)
            try:
                if _is_cached(source, start, window):
                    count = os.sendfile(target, source, start, window)
                else:
                    # A disk that has to look for the bytes must not stop the loop (T10).
                    count = await trio.to_thread.run_sync(_send_cold, target, source, start, end)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError:
                raise ClientDisconnected from None
            if not count:
                raise EOFError("a blob is shorter than it was")
            start += count
            if start < end:
                await self._writable()

    def be_content(self) -> bool:
        if self._at_once == 1 or self.expires == NEVER:
            return False
        self._wake_at(1)
        return True

    def _wake_at(self, count: int) -> None:
        """Let the kernel wake us at so many bytes (socket(7), SO_RCVLOWAT; the end wakes us always)."""
        self._at_once = count
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    async def finish(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def abort(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    async def _writable(self) -> None:
        self.expires = time.monotonic() + self._stall
        try:
            await trio.lowlevel.wait_writable(self.sock)
        except (OSError, ValueError, trio.ClosedResourceError):
            raise ClientDisconnected from None
        finally:
            self.expires = NEVER


class TlsWire:
    """A TLS stream over a `GuardedStream`, which has the stall limit of sends."""

    def __init__(
        self, stream: trio.abc.Stream, below: GuardedStream, stall: float, certificate: str | None = None
    ):
        self.certificate = certificate
        self._stream = stream
        self._below = below
        self._stall = stall
        self._pending = _NOTHING
        self._ended = False
        self.expires = NEVER

    async def readable(self, until: float | None = None, *, bytes_at_once: int = 1) -> None:
        if self._pending or self._ended:
            await trio.lowlevel.checkpoint()
            return
        self.expires = time.monotonic() + self._stall if until is None else until
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ClientDisconnected from None
        finally:
            self.expires = NEVER
        self._pending = memoryview(data)
        self._ended = not data

    def receive(self, limit: int) -> bytes | None:
        if not self._pending:
            return b"" if self._ended else None
        data, self._pending = bytes(self._pending[:limit]), self._pending[limit:]
        return data

    def receive_into(self, view: memoryview) -> int | None:
        if not self._pending:
            return 0 if self._ended else None
        count = min(len(view), len(self._pending))
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        return count

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                await self._stream.send_all(view[:_SEND_WINDOW])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise ClientDisconnected from None
            view = view[_SEND_WINDOW:]

    async def send_blob(self, blob: BlobReader, start: int, end: int, piece: Callable[[], int]) -> None:
        await _read_and_send(self, blob, start, end, piece)

    def be_content(self) -> bool:
        return False

    async def finish(self) -> None:
        try:
            await self._stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def abort(self) -> None:
        self._below.abort()


async def _read_and_send(
    wire: Wire, blob: BlobReader, start: int, end: int, piece: Callable[[], int]
) -> None:
    while start < end:
        data = await blob.read(start, min(piece(), end - start))
        if not data:
            raise EOFError("a blob is shorter than it was")
        await wire.send(data)
        start += len(data)


def _is_cached(descriptor: int, start: int, length: int) -> bool:
    """Whether the first and the last byte of a window are in the page cache (preadv2(2), RWF_NOWAIT)."""
    try:
        for offset in (start, start + length - 1):
            os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        # A filesystem that cannot tell: then every window goes through a thread.
        return error.errno not in (errno.EOPNOTSUPP, errno.EINVAL)
    return True


def _send_cold(target: int, source: int, start: int, end: int) -> int:
    """Send a window that the disk has yet to bring, and have it bring what follows meanwhile.

    As `os.sendfile`: BlockingIOError where the socket takes nothing.
    """
    os.posix_fadvise(source, start, min(_AHEAD, end - start), os.POSIX_FADV_WILLNEED)
    return os.sendfile(target, source, start, min(_SEND_WINDOW, end - start))

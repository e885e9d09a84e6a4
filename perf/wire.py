"""As much HTTP/1.1 as a load client needs, on a plain non-blocking socket under Trio.

Owns one connection: heads out, bodies out at a pace, heads and bodies in. The rule: nothing is
buffered beyond one response head, and a body that is answered before it has all been sent is not
sent further. Not a general client: bodies of unknown length are not read, the connection is closed.
"""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio

from perf.bodies import Wire
from perf.plan import Pace

HEAD_LIMIT = 32 << 10
SEND_LIMIT = 1 << 20
READ_SIZE = 256 << 10
SMALL_BODY = 8 << 20


class Refused(Exception):
    """The server did something else than it should; the message says what, in a line.

    `status` is that of an answer nobody expected, 0 where there was none.
    """

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """Status, headers with lower-case names, and the body where it was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def length(self) -> int | None:
        value = self.headers.get("content-length")
        return int(value) if value is not None and value.isdecimal() else None

    @property
    def location(self) -> str:
        """Path and query of the Location, which may be absolute. Refused without one."""
        where = self.headers.get("location", "")
        if not where:
            raise Refused(f"status {self.status} without Location")
        parts = urlsplit(where)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def must_be(self, *statuses: int) -> "Reply":
        """Itself. Refused when the status is none of these."""
        if self.status not in statuses:
            words = self.body[:200].decode(errors="replace").strip()
            raise Refused(f"status {self.status} where {statuses} was due: {words}", self.status)
        return self


class Connection:
    """One connection; `usable` says whether another request may follow."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self._sock = sock
        self._host = host
        self._unread = b""
        self.usable = True

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """OSError when nobody listens."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect_ex((host, port))
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
        except BaseException:
            sock.close()
            raise
        return cls(sock, f"{host}:{port}")

    def close(self) -> None:
        self.usable = False
        self._sock.close()

    def reset(self) -> None:
        """Close with RST, as a machine that vanished and came back."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Reply:
        """A request with a small body or none, and its reply with a small body or none."""
        lengths = {} if method in ("GET", "HEAD") else {"Content-Length": str(len(body))}
        await self.send_head(method, path, {**lengths, **(headers or {})}, body)
        return await self.read_reply(method)

    async def send_head(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "User-Agent: trioreg-perf"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        view = memoryview("\r\n".join([*lines, "", ""]).encode() + body)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)

    async def send_body(
        self,
        wire: Wire,
        *,
        pace: Pace | None,
        lifted: trio.Event,
        start: int = 0,
        stop_at: int | None = None,
        moved: Callable[[int], None] = lambda count: None,
    ) -> int:
        """Send `wire` from `start`, at `pace` until `lifted`, up to byte `stop_at`; where it stopped.

        `moved` is told of the bytes as they go. Ends early, without an error, when the server answers or
        hangs up: its reply tells why.
        """
        stop = wire.length if stop_at is None else min(stop_at, wire.length)
        sent, left = start, pace.burst if pace is not None else 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_answered, nursery.cancel_scope)
            while sent < stop:
                slow = pace is not None and not lifted.is_set()
                limit = min(left, SEND_LIMIT) if slow else SEND_LIMIT
                try:
                    count = wire.send(self._sock.fileno(), sent, min(limit, stop - sent))
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
                    continue
                except OSError:
                    break
                sent += count
                moved(count)
                left -= count
                if pace is not None and slow and left <= 0:
                    left = pace.burst
                    with trio.move_on_after(pace.pause):
                        await lifted.wait()
                else:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        if sent < wire.length:
            self.usable = False
        return sent

    async def read_reply(self, method: str) -> Reply:
        """A reply whose body, if any, is small. Refused when the connection ends instead."""
        reply = await self.read_head()
        if method == "HEAD" or reply.status in (204, 304):
            return reply
        length = reply.length
        if length is None or length > SMALL_BODY:
            self.usable = False
            return reply
        body = bytearray()
        while len(body) < length:
            body += await self.read_some(length - len(body))
        return Reply(reply.status, reply.headers, bytes(body))

    async def read_head(self) -> Reply:
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            if len(self._unread) > HEAD_LIMIT:
                raise Refused(f"a response head of more than {HEAD_LIMIT} bytes")
            self._unread += await self._receive(READ_SIZE)
        lines = self._unread[:end].decode("latin-1").split("\r\n")
        self._unread = self._unread[end + 4 :]
        version, status = lines[0].split(" ", 2)[:2]
        pairs = [line.partition(":")[::2] for line in lines[1:]]
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        if version != "HTTP/1.1" or headers.get("connection", "").lower() == "close":
            self.usable = False
        if int(status) == 100:
            return await self.read_head()
        return Reply(int(status), headers)

    async def read_some(self, limit: int) -> bytes:
        """Between 1 and `limit` bytes of a body. Refused when the connection ends instead."""
        if self._unread:
            piece, self._unread = self._unread[:limit], self._unread[limit:]
            return piece
        return await self._receive(min(limit, READ_SIZE))

    async def _receive(self, limit: int) -> bytes:
        while True:
            try:
                data = self._sock.recv(limit)
                break
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                self.usable = False
                raise Refused(f"the connection broke: {error.strerror}") from None
        if not data:
            self.usable = False
            raise Refused("the server hung up instead of answering")
        return data

    async def _cancel_when_answered(self, scope: trio.CancelScope) -> None:
        await trio.lowlevel.wait_readable(self._sock)
        scope.cancel()

"""The speed benchmark's HTTP/1.1: many connections in one thread, with as little Python as will do.

A client is a generator that yields what it waits for; `drive` turns all of them on one epoll. Bodies
leave by `sendfile`, large replies are read into one shared megabyte and dropped. The rule: a client
that meets anything but the answer it expects raises Refused, and that ends the whole drive: a
measurement with a failure in it is not a measurement.
"""

import heapq
import re
import select
import socket
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from perf.bodies import Wire
from perf.wire import Refused

T = TypeVar("T")
Wait = tuple[socket.socket | None, float]  # a socket and an epoll mask, or PAUSE and seconds
Steps = Generator[Wait, int, T]  # is sent the events that came

PAUSE = None
IN, OUT = select.EPOLLIN, select.EPOLLOUT
READ_SIZE = 64 << 10
SEND_LIMIT = 1 << 20
HEADER = r"(?im)^%s:[ \t]*([^\r\n]*?)[ \t]*\r?$"
DROPPED = bytearray(1 << 20)  # stays in the processor's cache: nobody reads it


@dataclass(frozen=True)
class Reply:
    """A status, the head's text and the whole body, out of its chunks if it came in some."""

    status: int
    head: str
    body: bytes = b""

    def header(self, name: str) -> str:
        """The value, "" without one."""
        found = re.search(HEADER % re.escape(name), self.head)
        return found[1] if found else ""

    @property
    def location(self) -> str:
        """Path and query of the Location, which may be absolute."""
        parts = urlsplit(self.header("location"))
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


def drive(clients: Iterable[Steps[None]], seconds: float) -> None:
    """Run all clients to their ends. Refused when one raises it or `seconds` do not suffice."""
    running = list(clients)
    with Wheel() as wheel:
        try:
            wheel.turn(running, seconds)
        except OSError as error:
            raise Refused(f"the connection broke: {error.strerror}") from None
        finally:
            for client in running:
                client.close()


class Wheel:
    """One epoll, who waits on it, and who pauses."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[socket.socket, int]] = {}
        self._waiting: dict[int, Steps[None]] = {}
        self._paused: list[tuple[float, int, Steps[None]]] = []

    def __enter__(self) -> "Wheel":
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()

    def turn(self, clients: Iterable[Steps[None]], seconds: float) -> None:
        """Until all clients are through."""
        deadline = time.monotonic() + seconds
        for client in clients:
            self._advance(client, None)
        while self._waiting or self._paused:
            now = time.monotonic()
            if now > deadline:
                raise Refused(f"not through after {seconds:.0f} s")
            until = min(deadline, self._paused[0][0]) if self._paused else deadline
            for descriptor, events in self._epoll.poll(max(until - now, 0.0)):
                if descriptor in self._waiting:
                    self._advance(self._waiting.pop(descriptor), events)
                else:  # its client is through or pauses
                    self._epoll.unregister(descriptor)
                    del self._watched[descriptor]
            while self._paused and self._paused[0][0] <= time.monotonic():
                self._advance(heapq.heappop(self._paused)[2], 0)

    def _advance(self, client: Steps[None], events: int | None) -> None:
        try:
            sock, what = next(client) if events is None else client.send(events)
        except StopIteration:
            return
        if sock is None:
            heapq.heappush(self._paused, (time.monotonic() + what, id(client), client))
            return
        descriptor, mask = sock.fileno(), int(what)
        watched, known = self._watched.get(descriptor, (None, 0))
        if watched is not sock:  # the kernel has forgotten the one of this number that was closed
            self._epoll.register(descriptor, mask)
        elif known != mask:
            self._epoll.modify(descriptor, mask)
        self._watched[descriptor] = sock, mask
        self._waiting[descriptor] = client


class Line:
    """One connection, kept alive, opened when needed; `fields` go into each head. A context manager."""

    def __init__(self, port: int, fields: bytes = b"") -> None:
        self._port = port
        self._fields = fields
        self._socket: socket.socket | None = None
        self._unread = b""

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._unread = b""

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setblocking(False)
        return self._socket

    def ask(self, request: bytes, *expected: int) -> Steps[Reply]:
        """Send a request that is small as a whole, read its reply. Refused at another status.

        A connection the server has closed meanwhile is opened once more, as every client does.
        """
        kept = self._socket is not None
        try:
            yield from self._send(request)
            head = yield from self._head()
        except (Refused, OSError):
            if not kept:
                raise
            self._hang_up()
            yield from self._send(request)
            head = yield from self._head()
        return must_be((yield from self._rest(request, head)), *expected)

    def upload(
        self, request: bytes, wire: Wire, *expected: int, start: int = 0, stop: int | None = None
    ) -> Steps[Reply]:
        """Send a head and bytes `start` to `stop` of `wire`, read the reply."""
        yield from self._send(request)
        sock = self._connected()
        at, end = start, wire.length if stop is None else stop
        while at < end:
            events = yield sock, IN | OUT
            if events & ~OUT:
                break  # answered, or hung up, before the end: the reply says why
            try:
                at += wire.send(sock.fileno(), at, min(SEND_LIMIT, end - at))
            except BlockingIOError:
                continue
        reply = must_be((yield from self._rest(request, (yield from self._head()))), *expected)
        if at < end:
            raise Refused(f"status {reply.status} after {at - start} of {end - start} bytes")
        return reply

    def download(self, request: bytes, size: int, tail: bytes) -> Steps[None]:
        """GET `size` bytes and drop them, but the `tail`, which must be the one expected."""
        yield from self._send(request)
        head = yield from self._head()
        must_be(head, 200)
        if head.header("content-length") != str(size):
            raise Refused(f"Content-Length {head.header('content-length')!r} where {size} was due")
        sock = self._connected()
        got, self._unread = self._unread, b""
        left = size - len(tail) - len(got)
        while left > 0:
            yield sock, IN
            try:
                count = sock.recv_into(DROPPED, min(left, len(DROPPED)))
            except BlockingIOError:
                continue
            if not count:
                raise Refused(f"hung up with {left} of {size} bytes to come")
            left -= count
        last = got[len(got) + left :] if left < 0 else b""
        while len(last) < len(tail):
            last += yield from self._receive(len(tail) - len(last))
        if last != tail:
            raise Refused("the blob ends with other bytes than were pushed")

    def _send(self, data: bytes) -> Steps[None]:
        sock = self._connected()
        if self._fields:
            first = data.index(b"\n") + 1
            data = data[:first] + self._fields + data[first:]
        sent = 0
        while sent < len(data):
            try:
                sent += sock.send(data[sent:] if sent else data)
            except BlockingIOError:
                yield sock, OUT

    def _receive(self, limit: int = READ_SIZE) -> Steps[bytes]:
        sock = self._connected()
        while True:
            yield sock, IN
            try:
                data = sock.recv(limit)
            except BlockingIOError:
                continue
            if not data:
                raise Refused("the server hung up instead of answering")
            return data

    def _head(self) -> Steps[Reply]:
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            self._unread += yield from self._receive()
        head, self._unread = self._unread[:end], self._unread[end + 4 :]
        return Reply(int(head[9:12]), head.decode("latin-1"))

    def _rest(self, request: bytes, head: Reply) -> Steps[Reply]:
        """The body of a reply that is kept whole; the connection is given up when it has to be."""
        lower = head.head.lower()
        body = b""
        if request.startswith(b"HEAD ") or head.status in (204, 304):
            pass
        elif "\r\ntransfer-encoding:" in lower:
            while (found := out_of_chunks(self._unread)) is None:
                self._unread += yield from self._receive()
            body, self._unread = found, b""
        else:
            length = int(head.header("content-length") or 0)
            parts = [self._unread]
            missing = length - len(self._unread)
            while missing > 0:
                parts.append((yield from self._receive()))
                missing -= len(parts[-1])
            body, self._unread = b"".join(parts), b""
        if "\r\nconnection: close" in lower or lower.startswith("http/1.0"):
            self._hang_up()
        return Reply(head.status, head.head, body) if body else head


def must_be(reply: Reply, *expected: int) -> Reply:
    """Itself. Refused when the status is none of these."""
    if expected and reply.status not in expected:
        words = reply.body[:200].decode(errors="replace").strip()
        raise Refused(f"status {reply.status} where {expected} was due: {words}")
    return reply


def out_of_chunks(data: bytes) -> bytes | None:
    """The body of a chunked coding (RFC 9112, section 7.1) without trailers, None while incomplete."""
    parts: list[bytes] = []
    at = 0
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end].partition(b";")[0], 16)
        if len(data) < end + 2 + size + 2:
            return None
        if not size:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def request(
    method: str, path: str, headers: Iterable[str] = (), body: bytes = b"", *, length: int | None = None
) -> bytes:
    """A request's bytes. `length` announces a body that follows separately, -1 in chunked coding."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: trioreg-perf", *headers]
    if length == -1:
        lines.append("Transfer-Encoding: chunked")
    elif method not in ("GET", "HEAD"):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body

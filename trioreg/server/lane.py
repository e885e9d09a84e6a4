"""The direct lane: OCI operations over HTTP/1.1, from the socket to `api.answer` and back.

The framework costs about a millisecond a request and three copies a byte; the lane costs neither. It
serves one thing only. A request that is no OCI operation, or not HTTP/1.1, hands its connection with all
unread bytes to Hypercorn, for good.

Rules: requests of a connection are answered in their order, one at a time, in one task: a small request
takes no nursery, no other task and no thread. A body that we answer without having read is read on for at
most `DISCARD_BYTES`, else the connection is closed, in a way that lets the client read our answer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from heapq import nsmallest
from itertools import count
from typing import TypeAlias

import trio

from trioreg import logs, metrics
from trioreg.api import Exchange, Service, Stream, answer
from trioreg.api.answer import error_reply
from trioreg.api.clients import address_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.operations import is_ours
from trioreg.pipeline.body import ClientDisconnected
from trioreg.pipeline.budget import Share
from trioreg.server.crowd import UnfinishedHeads
from trioreg.server.head import HEAD_END, BadHead, Fields, Head, parse_head
from trioreg.server.lane_body import NO_BODY, ChunkedBody, LengthBody, NoBody
from trioreg.server.sending import send_reply
from trioreg.server.wire import Wire

# As on the Quart front (web.connection).
DISCARD_BYTES = 2**20
DISCARD_SECONDS = 1.0
LINGER_SECONDS = 2.0
_LINGER_BYTES = 16 * 2**20

# What a client of HTTP/2 begins with, if it knows that we speak it (RFC 9113, 3.4).
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\n"

# A head rarely takes more than 1 KiB; what else a read brings is the beginning of the body.
_HEAD_READ = 16 * 1024

_REMEMBERED_FIELDS = 2048

# A client that never lets us wait must let others run.
_BREATHE_EVERY = 32

# What nobody wants is read into this, by all connections: one buffer for each would be 64 KiB for a second.
_NOWHERE = memoryview(bytearray(64 * 1024))


_Body: TypeAlias = NoBody | LengthBody | ChunkedBody


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """`idle_timeout` in seconds between requests, and for a head to arrive whole.

    `http2`: whether a client that begins with HTTP/2 is handed on or refused. `api`: without it only pages
    are served.
    """

    max_head_bytes: int
    idle_timeout: float
    http2: bool = False
    api: bool = True


class Lane:
    """Serves connections; shared by all. `stopping` makes each close after the request it is in."""

    def __init__(
        self, service: Service, share: Share, log: logs.AccessLog, settings: LaneSettings, name: str
    ):
        self.service = service
        self.share = share
        self.log = log
        self.settings = settings
        self.stopping = False
        self._connections: set[_Connection] = set()
        self.heads = UnfinishedHeads()
        self._name = name
        self._numbers = count(1)

    def stop(self) -> None:
        """Each connection ends after the request that it is in; those that are in none end now."""
        self.stopping = True
        for connection in self._connections:
            if connection.idle:
                connection.wire.abort()

    def close_idle(self, count: int, client: str | None) -> int:
        """Close at most `count` connections that are between requests, longest idle first; how many.

        `client`: only those of that address (`api.clients`).
        """
        idle = (
            each
            for each in self._connections
            if each.idle and (client is None or address_of(each.client) == client)
        )
        closed = nsmallest(count, idle, key=lambda each: each.wire.expires)
        for each in closed:
            each.idle = False
            each.wire.abort()
        return len(closed)

    def next_request_id(self) -> str:
        return f"{self._name}-{next(self._numbers):x}"

    async def serve(self, wire: Wire, client: str, elsewhere: Callable[[bytes], Awaitable[None]]) -> None:
        """Serve a connection to its end. `elsewhere` takes it, with the bytes read, if it is not ours."""
        connection = _Connection(self, wire, client)
        self._connections.add(connection)
        try:
            unread = await connection.run()
        except ClientDisconnected:
            return
        finally:
            self._connections.discard(connection)
            self.heads.release(wire)
        if unread is not None:
            await elsewhere(unread)


class _Connection:
    def __init__(self, lane: Lane, wire: Wire, client: str):
        self._lane = lane
        self.wire = wire
        self.client = client
        self._unread = b""
        self.idle = False  # true only while it waits for the first byte of a request

    async def run(self) -> bytes | None:
        """Requests one after the other; unread bytes if the connection is to be served elsewhere."""
        fields: Fields | None = None
        for number in count(1):
            try:
                data = await self._read_head()
                if data is None:
                    return None
                if data == _HTTP2 and self._lane.settings.http2:
                    return data + self._unread
                head = parse_head(data, fields)
                # Kept as long as the connection, for clients repeat it; a large one is not worth that.
                fields = head.fields if len(head.fields.raw) <= _REMEMBERED_FIELDS else None
            except BadHead as bad:
                await self._refuse(bad)
                return None
            if head.version != (1, 1) or not self._serves(head.path):
                return data + self._unread
            if not await self._exchange(head):
                await self._close()
                return None
            if number % _BREATHE_EVERY == 0:
                await trio.lowlevel.checkpoint()
        return None

    def _serves(self, path: str) -> bool:
        lane = self._lane
        return (is_ours(path) and lane.settings.api) or path in lane.service.pages

    async def _read_head(self) -> bytes | None:
        """The next head; None when the connection ended or is to end between two requests."""
        limit = self._lane.settings.max_head_bytes
        # A head has its time as a whole, however it dribbles in.
        until = time.monotonic() + self._lane.settings.idle_timeout
        data = self._unread
        held = False
        skipped = 0
        while True:
            if data and data[0] in b"\r\n":
                # Between requests a client may send an empty line (RFC 9112, 2.2), but not for ever.
                skipped += len(data)
                data = data.lstrip(b"\r\n")
                skipped -= len(data)
            end = data.find(HEAD_END) if data else -1
            if 0 <= end <= limit:
                self._unread = data[end + 4 :]
                if held:
                    self._lane.heads.release(self.wire)
                return data[: end + 4]
            if end >= 0 or len(data) + skipped > limit:
                raise BadHead(431, "the head is larger than the limit")
            if data[:1] == b"\x16" or b"\n\n" in data:
                raise BadHead(400, "not an HTTP request")
            if not data:
                if self._lane.stopping:
                    return None
            else:
                held = True
                self._lane.heads.hold(self.wire, len(data))
            more = self.wire.receive(_HEAD_READ)
            if more is None:
                self.idle = not data
                more = await self._receive(until)
                self.idle = False
            if not more:
                return None
            data += more
            self._unread = data

    async def _receive(self, until: float) -> bytes:
        while True:
            await self.wire.readable(until)
            data = self.wire.receive(_HEAD_READ)
            if data is not None:
                return data

    async def _exchange(self, head: Head) -> bool:
        """Answer one request; whether the connection goes on."""
        started = time.monotonic()
        lane, wire, fields = self._lane, self.wire, head.fields
        service, request_id = lane.service, lane.next_request_id()
        logs.request_id.set(request_id)
        body = self._body(fields)
        exchange = Exchange(head.method, head.path, head.query, fields.headers, body, request_id, self.client)
        exchange.certificate = wire.certificate
        status, sent = 499, 0
        try:
            if body is NO_BODY:
                reply = await answer(service, exchange)
            else:
                with lane.share.taken():
                    reply = await answer(service, exchange)
            try:
                goes_on = (
                    fields.keep_alive and not lane.stopping and (body.left == 0 or await self._discard(body))
                )
                goes_on = goes_on and not isinstance(reply.content, Stream)
                status = reply.status
                head_only = exchange.method == "HEAD"
                sent = await send_reply(
                    wire, lane.share, reply, request_id, goes_on=goes_on, head_only=head_only
                )
            finally:
                reply.close()
        finally:
            seconds = time.monotonic() - started
            metrics.count_request(exchange.operation, status, seconds, body.received, sent)
            if service.tracing is not None:
                service.tracing.end(exchange, status, body.received, sent)
            lane.log.record(
                exchange.method,
                exchange.path,
                status,
                received=body.received,
                sent=sent,
                seconds=seconds,
                client=self.client,
                request=request_id,
            )
        if not isinstance(body, NoBody):
            self._unread = body.rest()
        return goes_on

    def _body(self, fields: Fields) -> _Body:
        """The body that follows a head; what was read of it is its own until it gives back the rest."""
        if fields.length == 0:
            return NO_BODY
        wire, unread, self._unread = self.wire, self._unread, b""
        if fields.length is None:
            return ChunkedBody(wire, unread, self._lane.share, expects_continue=fields.expects_continue)
        return LengthBody(wire, fields.length, unread, expects_continue=fields.expects_continue)

    async def _discard(self, body: _Body) -> bool:
        """Read on through a body that nobody wanted; whether its end was found."""
        if body.unwanted or (body.left or 0) > DISCARD_BYTES:
            return False
        limit = body.received + DISCARD_BYTES
        try:
            with trio.move_on_after(DISCARD_SECONDS):
                while body.received < limit and await body.ready():
                    body.fill(_NOWHERE)
        except ClientDisconnected:
            return False  # It may have shut its sending side only, or broken its chunks: answer it still.
        return body.left == 0

    async def _refuse(self, bad: BadHead) -> None:
        code = ErrorCode.HEAD_TOO_LARGE if bad.status == 431 else ErrorCode.UNSUPPORTED
        if bad.status == 501:
            code = ErrorCode.CODING_UNSUPPORTED
        reply = error_reply(RegistryError(code, {"reason": bad.reason}))
        lane = self._lane
        await send_reply(self.wire, lane.share, reply, lane.next_request_id(), goes_on=False, head_only=False)
        await self._close()

    async def _close(self) -> None:
        """End our side and read what the client still sends, lest a reset overtake our answer."""
        await self.wire.finish()
        left = _LINGER_BYTES
        with trio.move_on_after(LINGER_SECONDS):
            while left > 0:
                data = self.wire.receive(_HEAD_READ)
                if data is None:
                    await self.wire.readable()
                    continue
                if not data:
                    return
                left -= len(data)

"""One request over ASGI: Quart dispatches it, we move its bytes.

Replaces Quart's own connection class, which drains the body into an unbounded queue, cuts off responses
after a minute, and goes on reading a file for a client that left.

Rules: somebody always receives (the body's reader, then the watcher), else the server's queue of one
fills and the connection hangs. When the client leaves, the handler is cancelled. An answer that comes
before the end of the body reads a little more of it and closes otherwise.
"""

from __future__ import annotations

import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import trio
from quart import Response
from quart_trio.asgi import TrioASGIHTTPConnection

from trioreg import logs
from trioreg.api import BlobSlice, Exchange, Reply, Service, Stream
from trioreg.api.counting import count_request
from trioreg.oci.operations import is_ours
from trioreg.web.body import AsgiBody

if TYPE_CHECKING:
    from trioreg.web.app import WebApp

BODY = "trioreg.body"
REQUEST_ID = "trioreg.request_id"
EXCHANGE = "trioreg.exchange"
RAW_PATH = "trioreg.raw_path"
# In the state of the connection (`server.hypercorn` puts it there): whom the client's certificate names.
CERTIFICATE = "trioreg.certificate"

# The path that Quart sees of every operation and page.
OPERATIONS = "/v2/"

# An answer may come before the body has ended: what is on its way is read so far, so that the connection
# can go on, or the client can at least read our answer before it is closed.
_DISCARD_BYTES = 2**20
_DISCARD_SECONDS = 1.0


class ReplyResponse(Response):
    """Carries a `Reply` through Quart untouched."""

    def __init__(self, reply: Reply | None):
        super().__init__(None, reply.status if reply else 499)
        self.reply = reply


class NoWebsocket:
    """Refuses a WebSocket, which nothing here speaks. Quart's own refusal needs asyncio, and is a 500."""

    def __init__(self, _app: object, _scope: object):
        pass

    async def __call__(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})  # Before an accept: 403, says the ASGI specification.


class Connection(TrioASGIHTTPConnection):
    """An ASGI request; made by Quart with ``(app, scope)``."""

    app: WebApp

    async def __call__(self, receive: Any, send: Any) -> None:
        request_id = secrets.token_hex(8)
        logs.request_id.set(request_id)
        body = AsgiBody(receive, _content_length(self.scope), self.app.stall_timeout)
        log = _AccessLog(self.app.service, self.scope, body)
        scope = cast(dict[str, Any], self.scope)
        path = _raw_path(scope)
        scope |= {BODY: body, REQUEST_ID: request_id, RAW_PATH: path}
        if is_ours(path) or path in self.app.service.pages:
            scope["path"] = OPERATIONS
        request = self._create_request_from_scope(send)
        try:
            with self.app.share.taken():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_watch, receive, body, nursery.cancel_scope)
                    response = await self.app.handle_request(request)
                    await self._respond(response, body, send, log, request_id)
                    nursery.cancel_scope.cancel()
        finally:
            log.write(self.app.access, request_id)

    async def _respond(
        self, response: Any, body: AsgiBody, send: Any, log: _AccessLog, request_id: str
    ) -> None:
        reply = getattr(response, "reply", None)
        if isinstance(response, ReplyResponse) and reply is None:
            return  # The client is gone.
        try:
            whole = await body.discard(_DISCARD_BYTES, _DISCARD_SECONDS)
            body.release()
            added = {"X-Request-Id": request_id}
            if not whole and self.scope["http_version"] == "1.1":
                added["Connection"] = "close"
            log.status = response.status_code
            if reply is None:
                response.headers.update(added)
                await self._send_response(send, response)
            else:
                await self._send_reply(reply, added, body, send, log)
        finally:
            if reply is not None:
                reply.close()

    async def _send_reply(
        self, reply: Reply, added: dict[str, str], body: AsgiBody, send: Any, log: _AccessLog
    ) -> None:
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in {**reply.headers, **added}.items()
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if isinstance(reply.content, BlobSlice):
            await self._send_slice(reply.content, send, log)
        elif isinstance(reply.content, Stream):
            async with aclosing(reply.content.pieces) as pieces:
                async for piece in pieces:
                    log.sent += len(piece)
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        elif reply.content:
            log.sent = len(reply.content)
            await send({"type": "http.response.body", "body": reply.content, "more_body": True})
        # From here on the server closes or recycles the connection inside `send`: a cancellation by the
        # disconnect that this itself causes would leave the connection open for ever.
        body.answered = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_slice(self, part: BlobSlice, send: Any, log: _AccessLog) -> None:
        position = part.start
        while position < part.end:
            length = min(self.app.share.piece(), part.end - position)
            data = await part.reader.read(position, length)
            if not data:
                raise EOFError("a blob is shorter than it was")
            await send({"type": "http.response.body", "body": data, "more_body": True})
            position += len(data)
            log.sent += len(data)


class _AccessLog:
    """What is told of a request when it is over."""

    def __init__(self, service: Service, scope: Any, body: AsgiBody):
        self._service = service
        self._scope = scope
        self._method, self._path = scope["method"], _raw_path(scope)
        self._client = (scope.get("client") or ("",))[0]
        self._body = body
        self._started = time.monotonic()
        self.status = 499  # The client left before it got an answer (nginx's number).
        self.sent = 0

    def write(self, access: logs.AccessLog, request_id: str) -> None:
        seconds = time.monotonic() - self._started
        exchange: Exchange | None = self._scope.get(EXCHANGE)
        count_request(self._service, exchange, self.status, seconds, self._body.received, self.sent)
        access.record(
            self._method,
            self._path,
            self.status,
            received=self._body.received,
            sent=self.sent,
            seconds=seconds,
            client=self._client,
            request=request_id,
        )


async def _watch(receive: Any, body: AsgiBody, scope: trio.CancelScope) -> None:
    """Once the body is done with, take what still comes, and end the request when the client leaves."""
    await body.released.wait()
    while not body.gone:
        event = await receive()
        if event["type"] == "http.disconnect":
            break
    if not body.answered:
        scope.cancel()


def _raw_path(scope: dict[str, Any]) -> str:
    """The path as it stood in the request; not every server hands it on."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(scope["path"])


def _content_length(scope: Any) -> int | None:
    """Hypercorn has checked it (h11 refuses what is no number, or two that differ)."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    has_coding = any(name == b"transfer-encoding" for name, _ in scope["headers"])
    return None if has_coding or scope["http_version"] not in ("1.0", "1.1") else 0

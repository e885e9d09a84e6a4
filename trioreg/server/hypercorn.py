"""The Quart front: a connection handed to Hypercorn's HTTP/1.1 and HTTP/2.

Uses `TCPServer`, which Hypercorn does not promise to keep: so its version is pinned, and
`tests/server/` holds what we rely on. We give it our own stream and our own accept loop.
"""

from __future__ import annotations

import logging

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState

from trioreg.web.connection import CERTIFICATE

# The handler always receives (web.connection), so one message in the queue is enough; each is a read's
# worth of memory for each upload. With 0 a disconnect could not be queued for a handler that sends.
_QUEUED_MESSAGES = 1

_HANDSHAKE_SECONDS = 10

# Requests at once on one HTTP/2 connection, each with a task and its part of the bytes of the front. Clients
# of registries send three to ten; Hypercorn would take a hundred.
_STREAMS = 32


class HypercornFront:
    """Serves connections until `stop` is called, which lets each finish the request it is in."""

    def __init__(self, app: ASGIFramework, *, max_head_bytes: int, idle_timeout: float, http2: bool):
        self._app = ASGIWrapper(app)
        self._context = WorkerContext(None)
        self._connection = _Connection if http2 else _Http1Connection
        self._config = config = HypercornConfig()
        config.max_app_queue_size = _QUEUED_MESSAGES
        config.h11_max_incomplete_size = max_head_bytes
        config.h2_max_header_list_size = max_head_bytes
        config.h2_max_concurrent_streams = _STREAMS
        config.keep_alive_timeout = idle_timeout
        config.keep_alive_max_requests = 2**31
        config.ssl_handshake_timeout = _HANDSHAKE_SECONDS
        config.include_server_header = False
        config.errorlog = logging.getLogger("trioreg.hypercorn")
        config.alpn_protocols = ["h2", "http/1.1"] if http2 else ["http/1.1"]

    def limit(self, max_head_bytes: int, idle_timeout: float) -> None:
        """Change the limits (bytes, seconds); new connections have them."""
        self._config.h11_max_incomplete_size = max_head_bytes
        self._config.h2_max_header_list_size = max_head_bytes
        self._config.keep_alive_timeout = idle_timeout

    async def serve(self, stream: trio.abc.Stream, certificate: str | None = None) -> None:
        """Speak HTTP on a plain or TLS stream until either side closes it."""
        state = ConnectionState({CERTIFICATE: certificate})
        await self._connection(self._app, self._config, self._context, state, stream)  # type: ignore[arg-type]

    async def stop(self) -> None:
        """Idle connections close now, others after the request that they are in."""
        await self._context.terminated.set()


class _Connection(TCPServer):
    """Ends when its peer does; Hypercorn's own waits on for the idle timeout, with all it holds.

    When a send fails its reader may be waiting for the end of an answer that can no longer be sent, behind
    which the client had pipelined something: it would wait for ever, with descriptor and memory.
    """

    _reading: trio.CancelScope | None = None
    _ended = False

    async def _read_data(self) -> None:
        with trio.CancelScope() as self._reading:
            await super()._read_data()
        if self._reading.cancelled_caught:
            await self.protocol.handle(Closed())
        self._ended = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            async with self.send_lock:
                try:
                    with trio.CancelScope(shield=True):  # the stream itself limits it
                        await self.stream.send_all(event.data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._stop_reading()
                    await self.protocol.handle(Closed())
            return
        if isinstance(event, Closed):
            self._stop_reading()
        # An answer that ends now would begin the wait for another request, which nobody can read.
        if not (isinstance(event, Updated) and self._ended):
            await super().protocol_send(event)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


class _Http1Connection(_Connection):
    """Takes neither ``Upgrade: h2c`` nor a connection that begins with HTTP/2; both are switched off."""

    async def _read_data(self) -> None:
        setattr(self.protocol.protocol, "_check_protocol", _take_as_it_is)  # noqa: B010 (not ours to type)
        await super()._read_data()


async def _take_as_it_is(_request: object) -> None:
    """An upgrade may be ignored (RFC 9110, 7.8)."""

"""Connections from accept to end: which front serves one, who watches it, how all of them end.

Rules: a connection's bug ends that connection and no other. One watchdog looks at all connections of the
direct lane; a peer that overstays is cut off. On shutdown idle connections end at once, others with the
request they are in; after the grace period they are cancelled (an upload then saves its offset), and a
send that is stuck in a shield is woken by aborting its socket.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

import trio

from trioreg import logs
from trioreg.api.clients import address_of
from trioreg.pipeline.budget import Share
from trioreg.server.crowd import Crowd, turn_away
from trioreg.server.lane import Lane
from trioreg.server.streams import GuardedStream, PushbackStream
from trioreg.server.tls import client_name
from trioreg.server.wire import PlainWire, TlsWire, Wire

_log = logs.Log(__name__)

# After cancelling, uploads save their state and blocks drain (pump.DRAIN_SECONDS bounds that).
_ABORT_SECONDS = 1.0

# How late a stalled peer may be found out.
_WATCH_SECONDS = 1.0

_HANDSHAKE_SECONDS = 10.0


class Front(Protocol):
    """Serves whole connections over a Trio stream."""

    async def serve(self, stream: trio.abc.Stream, certificate: str | None = None) -> None:
        """`certificate`: whom the certificate of the client names, if it showed one."""

    async def stop(self) -> None: ...


class Connections:
    """Plain and TLS connections go to the `lane`, what it does not serve (or all, without it) to `front`.

    `tls` gives the context for a handshake that begins now. `stall_timeout` and `grace`, in seconds, may
    change while it runs; the first holds for new connections.
    """

    def __init__(
        self,
        front: Front,
        lane: Lane | None,
        share: Share,
        *,
        stall_timeout: float,
        tls: Callable[[], ssl.SSLContext] | None,
        most: int = 16_384,
    ):
        self._front = front
        self._lane = lane
        self._share = share
        self.stall_timeout = stall_timeout
        self._tls = tls
        self.grace = 0.0
        self.ending = trio.Event()
        self._wires: set[Wire] = set()
        self._streams: set[GuardedStream] = set()
        self.crowd = Crowd(most, lane.close_idle if lane is not None else _nobody_idle)

    def counts(self) -> tuple[int, int]:
        """Connections on the direct lane, and on Hypercorn; a TLS one is counted as its lane's."""
        lane = len(self._wires)
        tls = sum(isinstance(wire, TlsWire) for wire in self._wires)
        return lane, len(self._streams) - tls

    async def serve(
        self, listeners: list[trio.SocketListener], signals: AsyncIterator[int], grace: float
    ) -> None:
        """Accept until the first signal; then see the connections to their end, for `grace` seconds."""
        self.grace = grace
        async with trio.open_nursery() as ending:
            ending.start_soon(self._watch)
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(
                        partial(
                            trio.serve_listeners, self._connection, listeners, handler_nursery=connections
                        )
                    )
                    await anext(signals)
                    self.ending.set()
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    await listener.aclose()
                _log.info("stopping", connections=len(self._wires) + len(self._streams))
                if self._lane is not None:
                    self._lane.stop()
                await self._front.stop()
                ending.start_soon(self._cut_short, signals, connections.cancel_scope)
            ending.cancel_scope.cancel()

    async def _cut_short(self, signals: AsyncIterator[int], connections: trio.CancelScope) -> None:
        """After the grace period, or a second signal, end what still runs."""
        with trio.move_on_after(self.grace):
            await anext(signals)
        connections.cancel()
        await trio.sleep(_ABORT_SECONDS)
        for wire in self._wires:
            wire.abort()
        for stream in self._streams:
            stream.abort()

    async def _watch(self) -> None:
        while True:
            await trio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for wire in list(self._wires):
                # Who was waited for with more patience may have sent something: that is looked at first.
                if not wire.be_content() and wire.expires < now:
                    wire.abort()

    async def _connection(self, stream: trio.SocketStream) -> None:
        client = address_of(_peer(stream))
        if not self.crowd.enter(client):
            turn_away(stream, tls=self._tls is not None)
            return
        try:
            if self._tls is not None:
                await self._tls_connection(stream)
            elif self._lane is not None:
                await self._plain_connection(self._lane, stream)
            else:
                await self._elsewhere(stream, self._guard(stream))
        except* Exception as bugs:  # noqa: BLE001 (the boundary of a connection)
            _log.error("a connection failed", cause=bugs)
        finally:
            self.crowd.leave(client)

    async def _plain_connection(self, lane: Lane, stream: trio.SocketStream) -> None:
        client = _peer(stream)
        # The lane works on the socket itself; Trio only waits for it.
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        wire = PlainWire(sock, self.stall_timeout)
        taken_over = False

        async def elsewhere(unread: bytes) -> None:
            nonlocal taken_over
            taken_over = True
            self._wires.discard(wire)
            again = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            guarded = self._guard(again)
            await self._elsewhere(again, guarded, PushbackStream(guarded, unread))

        self._wires.add(wire)
        try:
            await lane.serve(wire, client, elsewhere)
        finally:
            self._wires.discard(wire)
            if not taken_over:
                sock.close()

    async def _tls_connection(self, stream: trio.SocketStream) -> None:
        assert self._tls is not None
        guarded = self._guard(stream)
        tls = trio.SSLStream(guarded, self._tls(), server_side=True, https_compatible=True)
        self._streams.add(guarded)
        try:
            with trio.fail_after(_HANDSHAKE_SECONDS):
                await tls.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError):
            self._streams.discard(guarded)
            await trio.aclose_forcefully(stream)
            return
        name = client_name(tls.getpeercert())
        if self._lane is None or tls.selected_alpn_protocol() == "h2":
            await self._elsewhere(stream, guarded, tls, name)
            return
        wire = TlsWire(tls, guarded, self.stall_timeout, name)

        async def elsewhere(unread: bytes) -> None:
            self._wires.discard(wire)
            await self._elsewhere(stream, guarded, PushbackStream(tls, unread), name)

        self._wires.add(wire)
        try:
            await self._lane.serve(wire, _peer(stream), elsewhere)
        finally:
            self._wires.discard(wire)
            self._streams.discard(guarded)
            await trio.aclose_forcefully(stream)

    async def _elsewhere(
        self,
        stream: trio.SocketStream,
        guarded: GuardedStream,
        served: trio.abc.Stream | None = None,
        certificate: str | None = None,
    ) -> None:
        client = address_of(_peer(stream))
        if not self.crowd.enter_front(client):
            turn_away(stream, tls=self._tls is not None)
            return
        self._streams.add(guarded)
        try:
            await self._front.serve(served or guarded, certificate)
        finally:
            self.crowd.leave_front(client)
            self._streams.discard(guarded)
            await trio.aclose_forcefully(stream)

    def _guard(self, stream: trio.SocketStream) -> GuardedStream:
        return GuardedStream(stream, self.stall_timeout, self._share.piece)


def _nobody_idle(_count: int, _client: str | None) -> int:
    """Without a lane nobody knows who is between two requests."""
    return 0


def _peer(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return ""

"""A server inside the test's own Trio loop, on a real socket, to look inside while it runs.

The connections, both fronts, the API and the registry are the real ones; the storage is the test's.
"""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio
from blackbox import Registry, path_of

from trioreg import logs
from trioreg.api import Service
from trioreg.api.remembered import Remembered
from trioreg.auth.authorizer import AllowAll, Authorizer
from trioreg.pipeline.budget import Budget, ByteGate, Share
from trioreg.pipeline.engine import best_engine
from trioreg.pipeline.pump import Pump
from trioreg.registry import Storage, build_registry
from trioreg.server.connections import Connections
from trioreg.server.hypercorn import HypercornFront
from trioreg.server.inside import Gauges, build_pages
from trioreg.server.lane import Lane, LaneSettings
from trioreg.server.limits import show_limits
from trioreg.server.listeners import bound_port, open_listeners
from trioreg.storage.catalog import Catalog
from trioreg.web import create_app

KIB = 1024
MIB = 1024 * KIB
FRONTS = ("direct", "quart")


@dataclass
class InProcess:
    """A running server."""

    port: int
    service: Service
    budget: Budget
    share: Share
    catalog: Catalog
    signals: trio.MemorySendChannel[int]
    connections: Connections

    @property
    def registry(self) -> Registry:
        """For calls from a thread: ``trio.to_thread.run_sync(server.registry.request, ...)``."""
        return Registry(f"http://127.0.0.1:{self.port}")

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            yield Client(stream)

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        async with self.connect() as client:
            return await client.request(method, target, body, headers)

    async def start_upload(self, name: str = "some/name") -> str:
        answer = await self.request("POST", f"/v2/{name}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.headers["location"]


@asynccontextmanager
async def serving(
    storage: Storage,
    front: str = "direct",
    *,
    blocks: int = 16,
    block: int = 64 * KIB,
    front_bytes: int = 32 * MIB,
    stall: float = 60.0,
    idle: float = 60.0,
    grace: float = 0.0,
    receive_buffer: int | None = None,
    tls: ssl.SSLContext | None = None,
    authorizer: Authorizer | None = None,
    most: int = 16_384,
) -> AsyncIterator[InProcess]:
    """Serve until the block ends, which stops the server as two signals would."""
    share = Share(front_bytes)
    budget = Budget(blocks * block, block)
    engine = best_engine()
    registry = build_registry(
        storage,
        storage,
        Pump(budget, engine, 64 * MIB),
        lease_wait=1.0,
        cache_bytes=MIB,
        manifest_max=4 * MIB,
        manifest_gate=ByteGate(8 * MIB),
    )
    service = Service(
        registry, authorizer or AllowAll(), manifest_seconds=2 * stall, remembered=Remembered(MIB)
    )
    access = logs.AccessLog(enabled=False)
    app = create_app(service, share, access, stall_timeout=stall, max_head_bytes=32 * KIB)
    hypercorn = HypercornFront(app, max_head_bytes=32 * KIB, idle_timeout=idle, http2=True)
    lane = Lane(service, share, access, LaneSettings(32 * KIB, idle, http2=True), name="test")
    connections = Connections(
        hypercorn,
        lane if front == "direct" else None,
        share,
        stall_timeout=stall,
        tls=(lambda: tls) if tls else None,
        most=most,
    )
    service.pages = build_pages(
        service,
        Gauges(
            registry,
            storage,
            access,
            connections,
            None,
            partial(show_limits, service, connections),
            service.remembered,
        ),
        metrics=True,
        debug=True,
        ui=True,
    )
    listeners = await open_listeners("127.0.0.1", 0, 128)
    if receive_buffer is not None:
        # Accepted sockets inherit it.
        listeners[0].socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    send, receive = trio.open_memory_channel[int](2)
    async with trio.open_nursery() as background:
        background.start_soon(engine.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connections.serve, listeners, receive, grace)
            yield InProcess(
                bound_port(listeners[0]), service, budget, share, Catalog(storage), send, connections
            )
            send.send_nowait(signal.SIGTERM)
            send.send_nowait(signal.SIGTERM)
        background.cancel_scope.cancel()
    send.close()
    receive.close()


@dataclass
class Answer:
    """`headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


class Closed(Exception):
    """The server closed the connection where an answer was expected."""


class Client:
    """One connection, byte by byte."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.sent = 0
        self._read = bytearray()

    async def send(self, data: bytes) -> None:
        """Send in pieces; `sent` counts what the kernel took."""
        view = memoryview(data)
        for start in range(0, len(view), 16 * KIB):
            part = view[start : start + 16 * KIB]
            await self.stream.send_all(part)
            self.sent += len(part)

    async def send_head(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> None:
        fields = {"Host": "registry.example.com", **(headers or {})}
        lines = [f"{method} {path_of(target)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        await self.stream.send_all("\r\n".join([*lines, "", ""]).encode())

    async def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        await self.send_head(method, target, {"Content-Length": str(len(body)), **(headers or {})})
        await self.send(body)
        return await self.answer(method)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        while b"\r\n\r\n" not in self._read:
            await self._more()
        head, _, rest = bytes(self._read).partition(b"\r\n\r\n")
        self._read = bytearray(rest)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def answer(self, method: str = "GET") -> Answer:
        status, headers = await self.head()
        size = int(headers.get("content-length", 0))
        if method == "HEAD" or status in (204, 304):
            size = 0
        while len(self._read) < size:
            await self._more()
        body = bytes(self._read[:size])
        del self._read[:size]
        return Answer(status, headers, body)

    async def answer_or_end(self) -> Answer | None:
        """The next answer; None when the server closes without a byte of it."""
        try:
            return await self.answer()
        except Closed as closed:
            if closed.args != (b"",):
                raise
            return None

    async def ended(self) -> bool:
        """Read on; whether the server closes without another byte."""
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return True
        return not data and not self._read

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise Closed(bytes(self._read))
        self._read += data

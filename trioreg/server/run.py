"""A server from settings: put together, listen, accept, shut down.

Shutdown on SIGTERM or SIGINT: stop accepting, let idle connections close and running requests finish for
the grace period, then cancel what is left. A cancelled upload saves its offset; a send that is stuck in
a shield is woken by aborting its socket. A second signal skips the grace.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import signal
from collections.abc import AsyncIterator
from functools import partial

import trio

from trioreg import logs
from trioreg.api import Service
from trioreg.config import Address, Config
from trioreg.pipeline.budget import Budget, ByteGate, Share
from trioreg.pipeline.engine import DigestEngine
from trioreg.pipeline.pump import Pump
from trioreg.registry import Storage, build_registry
from trioreg.server.hypercorn import HypercornFront
from trioreg.server.listeners import bound_port, open_listeners, tls_context
from trioreg.server.streams import GuardedStream
from trioreg.web import create_app

_log = logs.Log(__name__)

# Manifests that are being pushed take their part of the budget: two of the largest at once.
_MANIFESTS_AT_ONCE = 2

# Blocks that nobody took for so long give their pages back.
_TRIM_SECONDS = 5.0

# After cancelling, uploads save their state and blocks drain (pump.DRAIN_SECONDS bounds that).
_ABORT_SECONDS = 1.0

_MALLOC_ARENA_MAX = -8  # mallopt(3): M_ARENA_MAX


async def serve(config: Config, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
    """Run a registry until a signal ends it. `task_status` reports the port once it accepts.

    Raises OSError when it cannot listen, StorageError when the storage cannot be opened.
    """
    logs.configure(config.log_level, config.log_format)
    _settle_process()
    share = Share(config.memory_front)
    manifests = _MANIFESTS_AT_ONCE * config.manifest_max_bytes
    budget = Budget(config.memory_budget - manifests, config.memory_block)
    service = _service(config, budget, ByteGate(manifests))
    app = create_app(
        service,
        share,
        stall_timeout=config.http_stall_timeout,
        max_head_bytes=config.http_max_head_bytes,
        access_log=config.log_access,
    )
    front = HypercornFront(
        app,
        max_head_bytes=config.http_max_head_bytes,
        idle_timeout=config.http_idle_timeout,
        http2=config.http_http2,
    )
    # What exists now stays; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await _Server(config, front, share, budget).run(task_status)


def _settle_process() -> None:
    """As many descriptors as we may have, and few malloc arenas: each keeps its own free memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None:
        mallopt(_MALLOC_ARENA_MAX, 2)


def _service(config: Config, budget: Budget, manifest_gate: ByteGate) -> Service:
    storage = _open_storage(config)
    registry = build_registry(
        storage,
        storage,
        Pump(budget, DigestEngine(), config.upload_checkpoint_bytes),
        lease_wait=config.upload_lease_wait,
        cache_bytes=config.memory_cache // 2,
        manifest_max=config.manifest_max_bytes,
        manifest_gate=manifest_gate,
    )
    return Service(
        registry,
        chunk_min_length=config.upload_chunk_min_length,
        manifest_seconds=2 * config.http_stall_timeout,
    )


def _open_storage(config: Config) -> Storage:
    if config.storage_driver == "memory":
        from trioreg.storage.memory import MemoryStorage

        return MemoryStorage()
    from trioreg.storage.filesystem import Disk, FilesystemStorage, SlowDisk

    durable = config.storage_durability == "full"
    delay = config.debug_write_delay
    disk = SlowDisk(delay, durable=durable) if delay else Disk(durable=durable)
    return FilesystemStorage(config.storage_path, disk, cache_bytes=config.memory_cache // 2)


class _Server:
    """The accept loop and the life of its connections."""

    def __init__(self, config: Config, front: HypercornFront, share: Share, budget: Budget):
        self._config = config
        self._front = front
        self._share = share
        self._budget = budget
        self._streams: set[GuardedStream] = set()
        self._tls = None
        if config.http_tls_certificate and config.http_tls_key:
            self._tls = tls_context(config.http_tls_certificate, config.http_tls_key, http2=config.http_http2)

    async def run(self, task_status: trio.TaskStatus[int]) -> None:
        address = self._config.http_bind
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            listeners = await open_listeners(address.host, address.port, self._config.http_backlog)
            port = bound_port(listeners[0])
            self._announce(port)
            task_status.started(port)
            async with trio.open_nursery() as background:
                background.start_soon(self._trim)
                await self._serve(listeners, signals)
                background.cancel_scope.cancel()
        _log.info("stopped")

    def _announce(self, port: int) -> None:
        scheme = "https" if self._tls else "http"
        url = f"{scheme}://{Address(self._config.http_bind.host, port)}"
        print(f"trioreg listening on {url}", flush=True)  # noqa: T201 (a script reads the port here)
        _log.info("listening", url=url, storage=str(self._config.storage_path))

    async def _serve(self, listeners: list[trio.SocketListener], signals: AsyncIterator[int]) -> None:
        async with trio.open_nursery() as ending:
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(
                        partial(
                            trio.serve_listeners,
                            self._connection,
                            listeners,
                            handler_nursery=connections,
                        )
                    )
                    await anext(signals)
                    accepting.cancel_scope.cancel()
                for listener in listeners:
                    await listener.aclose()
                _log.info("stopping", connections=len(self._streams))
                await self._front.stop()
                ending.start_soon(self._cut_short, signals, connections.cancel_scope)
            ending.cancel_scope.cancel()

    async def _cut_short(self, signals: AsyncIterator[int], connections: trio.CancelScope) -> None:
        """After the grace period, or a second signal, end what still runs."""
        with trio.move_on_after(self._config.http_shutdown_grace):
            await anext(signals)
        connections.cancel()
        await trio.sleep(_ABORT_SECONDS)
        for stream in self._streams:
            stream.abort()

    async def _connection(self, stream: trio.SocketStream) -> None:
        guarded = GuardedStream(stream, self._config.http_stall_timeout, self._share.piece)
        served: trio.abc.Stream = guarded
        if self._tls is not None:
            served = trio.SSLStream(guarded, self._tls, server_side=True, https_compatible=True)
        self._streams.add(guarded)
        try:
            await self._front.serve(served)
        except* Exception as bugs:  # noqa: BLE001 (the boundary of a connection)
            # One connection's bug must not end the others'.
            _log.error("a connection failed", cause=bugs)
        finally:
            self._streams.discard(guarded)

    async def _trim(self) -> None:
        while True:
            await trio.sleep(_TRIM_SECONDS)
            self._budget.trim()

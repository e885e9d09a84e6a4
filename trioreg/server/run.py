"""A server from settings: put together, listen, run until a signal ends it."""

from __future__ import annotations

import ctypes
import gc
import resource
import secrets
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from trioreg import logs
from trioreg.api import Service
from trioreg.api.remembered import Remembered
from trioreg.config import Address, Config, Source
from trioreg.pipeline.budget import Budget, ByteGate, Share
from trioreg.pipeline.engine import best_engine
from trioreg.pipeline.pump import Pump
from trioreg.registry import Storage, build_registry
from trioreg.server.access import add_token_page, build_authorizer, change_access, speaks_tls
from trioreg.server.connections import Connections
from trioreg.server.inside import Gauges, build_pages, keep_counting, metrics_alone
from trioreg.server.inside.separate import serve_pages
from trioreg.server.lane import Lane, LaneSettings
from trioreg.server.limits import apply_limits, most_connections, show_limits
from trioreg.server.listeners import bound_port, open_listeners
from trioreg.server.notices import Notices
from trioreg.server.otel import check_tracing, load_tracing
from trioreg.server.recording import Told
from trioreg.server.reload import Live
from trioreg.server.upkeep import keep_up, upkeep_storage

if TYPE_CHECKING:
    from trioreg.server.hypercorn import HypercornFront
    from trioreg.web.app import WebApp

_log = logs.Log(__name__)

# Manifests that are being pushed take their part of the budget: two of the largest at once.
_MANIFESTS_AT_ONCE = 2

# Blocks that nobody took for so long give their pages back.
_TRIM_SECONDS = 5.0

# Places for uploads that were kept too long are free that much later at most.
_EXPIRE_SECONDS = 1.0

# The access log is that much behind at most.
_LOG_SECONDS = 0.25

_MALLOC_ARENA_MAX = -8  # mallopt(3): M_ARENA_MAX


def run(config: Config, source: Source | None = None) -> int:
    """Serve until a signal ends it: here, or in several workers. The exit code; OSError as `serve`.

    `source`: where to read the settings again, on SIGHUP and when the file has changed.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it is listened to
    check_tracing(config)
    if config.http_workers == 1:
        trio.run(partial(serve, config, live=Live(config, source)))
        return 0
    from trioreg.server.workers import RELOAD, STOP, run_workers, share_of

    def work(share: Config, sockets: list[socket.socket]) -> None:
        logs.configure(config.log_level, config.log_format)
        live = Live(config, source, share=share_of, on=RELOAD)
        live.reload()  # One that takes the place of another begins with the settings of its time.
        trio.run(partial(serve, share, live=live, sockets=sockets, stop_signals=(STOP,)))

    return run_workers(config, work, partial(_announce, config))


async def serve(
    config: Config,
    *,
    live: Live | None = None,
    sockets: list[socket.socket] | None = None,
    stop_signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a registry until a signal ends it. `task_status` reports the port once it accepts.

    `sockets` are listened on already; without them it listens itself. With `live`, which has the settings
    in force, they can be reloaded. Raises OSError when it cannot listen, or cannot use the storage.
    """
    live = live or Live(config)
    config = live.config
    logs.configure(config.log_level, config.log_format)
    _settle_process()
    share = Share(config.memory_front)
    manifests = _MANIFESTS_AT_ONCE * config.manifest_max_bytes
    budget = Budget(config.memory_budget - manifests, config.memory_block)
    engine = best_engine()
    storage = _open_storage(config)
    pump = Pump(budget, engine, config.upload_checkpoint_bytes)
    service = _service(config, storage, pump, ByteGate(manifests))
    access = logs.AccessLog(enabled=config.log_access)
    front = _QuartFront(config, service, share, access)
    lane = _lane(config, service, share, access) if config.http_front == "direct" else None
    connections = Connections(
        front,
        lane,
        share,
        stall_timeout=config.http_stall_timeout,
        tls=_tls(config),
        most=most_connections(config),
    )
    apply_limits(service, config)
    live.on_change(partial(apply_limits, service))
    notices = Notices(service, config)
    live.on_change(notices.change)
    live.on_change(partial(_change, service, access, front, lane, connections))
    disk = config.storage_path if config.storage_driver == "filesystem" else None
    gauges = Gauges(
        service.registry,
        storage,
        access,
        connections,
        disk,
        partial(show_limits, service, connections),
        service.remembered,
    )
    service.tracing = tracing = load_tracing(config, pump.transfers)
    service.pages = build_pages(
        service, gauges, metrics=config.metrics_bind is None, debug=config.debug_enabled, ui=config.ui_enabled
    )
    if config.auth_tokens:
        add_token_page(service)
    if config.http_front == "quart":
        await front.load()
    # What exists now stays; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    async with trio.open_nursery() as background:
        background.start_soon(engine.run)
        background.start_soon(gauges.run)
        if disk is not None:
            background.start_soon(keep_counting, disk, config.metrics_census_interval)
        if config.metrics_bind is not None:
            pages = metrics_alone(gauges)
            await background.start(serve_pages, config.metrics_bind, service, pages, share)
        background.start_soon(_every, _TRIM_SECONDS, budget.trim)
        background.start_soon(_every, _EXPIRE_SECONDS, service.admission.expire)
        background.start_soon(_write_log, access)
        background.start_soon(service.registry.pulls.run)
        await background.start(notices.run)
        told = Told("upkeep", lambda: service.events)
        background.start_soon(keep_up, upkeep_storage(config, storage), lambda: live.config, told)
        await background.start(live.watch)
        await _listen(config, connections, sockets, stop_signals, task_status)
        await service.registry.pulls.finish()
        background.cancel_scope.cancel()
    access.write(access.take())
    if tracing is not None:
        await tracing.close()


def _change(
    service: Service,
    access: logs.AccessLog,
    front: _QuartFront,
    lane: Lane | None,
    connections: Connections,
    config: Config,
) -> None:
    """Put the settings in force that can change while it runs."""
    logs.configure(config.log_level, config.log_format)
    access.enabled = config.log_access
    service.chunk_min_length = config.upload_chunk_min_length
    service.manifest_seconds = 2 * config.http_stall_timeout
    service.registry.uploads.lease_wait = config.upload_lease_wait
    change_access(service, config)
    front.change(config)
    if lane is not None:
        lane.settings = _lane_settings(config)
    connections.stall_timeout = config.http_stall_timeout
    connections.crowd.most = most_connections(config)
    connections.grace = config.http_shutdown_grace


class _QuartFront:
    """Quart and Hypercorn, loaded when the first connection needs them: they take 15 MB."""

    def __init__(self, config: Config, service: Service, share: Share, access: logs.AccessLog):
        self._config = config
        self._arguments = (service, share, access)
        self._loading = trio.Lock()
        self._app: WebApp | None = None
        self._front: HypercornFront | None = None

    async def load(self) -> HypercornFront:
        async with self._loading:
            front = self._front
            if front is None:
                loaded = await trio.to_thread.run_sync(_quart_front, self._config, *self._arguments)
                self._app, self._front = loaded
                self.change(self._config)
                return loaded[1]
            return front

    def change(self, config: Config) -> None:
        """Take the limits from now on; those of a front that is being loaded are set when it is."""
        self._config = config
        if self._front is not None and self._app is not None:
            self._front.limit(config.http_max_head_bytes, config.http_idle_timeout)
            self._app.stall_timeout = config.http_stall_timeout
            self._app.max_head_bytes = config.http_max_head_bytes

    async def serve(self, stream: trio.abc.Stream, certificate: str | None = None) -> None:
        await (await self.load()).serve(stream, certificate)

    async def stop(self) -> None:
        if self._front is not None:
            await self._front.stop()


def _quart_front(
    config: Config, service: Service, share: Share, access: logs.AccessLog
) -> tuple[WebApp, HypercornFront]:
    from trioreg.server.hypercorn import HypercornFront
    from trioreg.web import create_app

    app = create_app(
        service,
        share,
        access,
        stall_timeout=config.http_stall_timeout,
        max_head_bytes=config.http_max_head_bytes,
    )
    front = HypercornFront(
        app,
        max_head_bytes=config.http_max_head_bytes,
        idle_timeout=config.http_idle_timeout,
        http2=config.http_http2,
    )
    return app, front


def _lane(config: Config, service: Service, share: Share, access: logs.AccessLog) -> Lane:
    return Lane(service, share, access, _lane_settings(config), name=secrets.token_hex(4))


def _lane_settings(config: Config) -> LaneSettings:
    return LaneSettings(config.http_max_head_bytes, config.http_idle_timeout, config.http_http2)


def _tls(config: Config) -> Callable[[], ssl.SSLContext] | None:
    """Where connections get their TLS from. Not loaded without it."""
    if not speaks_tls(config):
        return None
    from trioreg.server.tls import certificates

    return certificates(config).context


def _settle_process() -> None:
    """As many descriptors as we may have, and few malloc arenas: each keeps its own free memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if mallopt is not None:
        mallopt(_MALLOC_ARENA_MAX, 2)


def _service(config: Config, storage: Storage, pump: Pump, manifest_gate: ByteGate) -> Service:
    registry = build_registry(
        storage,
        storage,
        pump,
        lease_wait=config.upload_lease_wait,
        cache_bytes=config.memory_cache * 3 // 8,
        manifest_max=config.manifest_max_bytes,
        manifest_gate=manifest_gate,
    )
    return Service(
        registry,
        build_authorizer(config),
        chunk_min_length=config.upload_chunk_min_length,
        manifest_seconds=2 * config.http_stall_timeout,
        remembered=Remembered(config.memory_cache // 8),
    )


def _open_storage(config: Config) -> Storage:
    if config.storage_driver == "memory":
        from trioreg.storage.memory import MemoryStorage

        return MemoryStorage()
    from trioreg.storage.filesystem import Disk, FilesystemStorage, SlowDisk

    durable = config.storage_durability == "full"
    delay = config.debug_write_delay
    disk = SlowDisk(delay, durable=durable) if delay else Disk(durable=durable, direct=config.storage_direct)
    if config.debug_disk_faults is not None:
        from trioreg.storage.filesystem.faulty import FaultyDisk

        disk = FaultyDisk(config.debug_disk_faults, durable=durable)
    caches, touch = config.memory_cache // 2, config.gc_grace / 2
    return FilesystemStorage(config.storage_path, disk, cache_bytes=caches, touch_after=touch)


async def _listen(
    config: Config,
    connections: Connections,
    sockets: list[socket.socket] | None,
    stop_signals: Sequence[signal.Signals],
    started: trio.TaskStatus[int],
) -> None:
    address = config.http_bind
    with trio.open_signal_receiver(*stop_signals) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals)
        if sockets is None:
            listeners = await open_listeners(address.host, address.port, config.http_backlog)
            _announce(config, bound_port(listeners[0]))
        else:
            listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets]
        _log.info("listening", port=bound_port(listeners[0]), storage=str(config.storage_path))
        started.started(bound_port(listeners[0]))
        await connections.serve(listeners, signals, config.http_shutdown_grace)
    _log.info("stopped")


def _announce(config: Config, port: int) -> None:
    scheme = "https" if speaks_tls(config) else "http"
    url = f"{scheme}://{Address(config.http_bind.host, port)}"
    print(f"trioreg listening on {url}", flush=True)  # noqa: T201 (a script reads the port here)


async def _write_log(access: logs.AccessLog) -> None:
    while True:
        await trio.sleep(_LOG_SECONDS)
        waiting = access.take()
        if waiting:
            # Left alone when we are cancelled: a reader that is stuck must not keep us from ending.
            await trio.to_thread.run_sync(access.write, waiting, abandon_on_cancel=True)


async def _every(seconds: float, call: Callable[[], None]) -> None:
    while True:
        await trio.sleep(seconds)
        call()

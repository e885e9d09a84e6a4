"""The audit log and the webhooks that the settings ask for, from start to end.

Rules: with none configured nothing is imported, and `service.events` is None. A change of the settings puts
the new ones in place before the old ones are let go; what those had not delivered is taken over from the
disk. What cannot be opened at the start ends it, and after a change leaves the old ones in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from trioreg import logs
from trioreg.api import Service
from trioreg.config import SETTINGS, Config

if TYPE_CHECKING:
    from trioreg.events.endpoint import Endpoint
    from trioreg.events.event import Event

_log = logs.Log(__name__)

# A request does not wait longer for a disk that is stuck; its event goes on waiting in memory.
_RECORD_SECONDS = 10.0

# Pulls are so much behind at most, and what could not be written is tried again.
_FLUSH_SECONDS = 0.25

_SETTINGS = (
    "audit_path",
    "audit_pulls",
    "webhook_url",
    "webhook_events",
    "webhook_secret_file",
    "webhook_timeout",
    "webhook_attempts",
    "webhook_queue_bytes",
)


class _Sink(Protocol):
    """An audit log or an endpoint. `waiting`: bytes in memory."""

    @property
    def waiting(self) -> int: ...

    def offer(self, event: Event) -> bool: ...

    async def flush(self) -> None: ...

    def close(self) -> None: ...


class Notices:
    """What tells others. `service.events` is set here and nowhere else."""

    def __init__(self, service: Service, config: Config):
        self._service = service
        self._config = config
        self._changed = trio.Event()
        self._sinks = _Sinks([], [])

    def change(self, config: Config) -> None:
        """Take other settings; `run` puts them in place. That they changed is itself worth a line."""
        self._sinks.note_settings(self._config, config)
        if any(getattr(config, name) != getattr(self._config, name) for name in _SETTINGS):
            self._changed.set()
        self._config = config

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver until cancelled. Raises OSError if it cannot begin."""
        try:
            await self._renew()
            task_status.started()
            while True:
                async with trio.open_nursery() as nursery:
                    for endpoint in self._sinks.endpoints:
                        nursery.start_soon(endpoint.run)
                    if self._service.events is not None:
                        nursery.start_soon(self._flush)
                    await self._changed.wait()
                    nursery.cancel_scope.cancel()
                try:
                    await self._renew()
                except OSError as error:
                    _log.error("audit log and webhooks stay as they were", reason=str(error))
        finally:
            self._service.events = None
            with trio.move_on_after(_RECORD_SECONDS, shield=True):
                await end_sinks(self._sinks)

    async def _renew(self) -> None:
        self._changed = trio.Event()
        old = self._sinks
        self._sinks = await trio.to_thread.run_sync(open_sinks, self._config)
        self._service.events = self._sinks if self._sinks.all else None
        with trio.move_on_after(_RECORD_SECONDS, shield=True):
            await end_sinks(old)

    async def _flush(self) -> None:
        while True:
            await trio.sleep(_FLUSH_SECONDS)
            await self._sinks.flush()


class _Sinks:
    """`Recorder` for all there are."""

    def __init__(self, audits: Sequence[_Sink], endpoints: Sequence[Endpoint]):
        self.endpoints = endpoints
        self.all: list[_Sink] = [*audits, *endpoints]

    def note_settings(self, before: Config, now: Config) -> None:
        """Which settings changed, for who audits; on the disk a moment later."""
        if not self.all:
            return
        from trioreg.events.event import Event

        differs = [
            each for each in SETTINGS if getattr(before, each.attribute) != getattr(now, each.attribute)
        ]
        changes = [f"{each.name}={each.kind.show(getattr(now, each.attribute))}" for each in differs]
        for sink in self.all:
            sink.offer(Event(action="settings", detail=", ".join(changes)))

    async def record(self, event: Event) -> None:
        taken = [sink for sink in self.all if sink.offer(event)]
        if event.action == "pull":
            return
        with trio.move_on_after(_RECORD_SECONDS, shield=True):
            for sink in taken:
                await sink.flush()

    async def flush(self) -> None:
        for sink in self.all:
            if sink.waiting:
                await sink.flush()


async def end_sinks(sinks: _Sinks) -> None:
    """Write what waits, and let go of the files; a queue that is not empty is for another process."""
    await sinks.flush()
    for sink in sinks.all:
        await trio.to_thread.run_sync(sink.close)


def open_sinks(config: Config) -> _Sinks:
    """What the settings ask for. Raises OSError; blocks."""
    durable = config.storage_durability == "full"
    audits: list[_Sink] = []
    endpoints: list[Endpoint] = []
    if config.audit_path is not None:
        from trioreg.events.audit import AuditLog

        audits.append(AuditLog(config.audit_path, pulls=config.audit_pulls, durable=durable))
    if config.webhook_url:
        from trioreg.events.cloudevent import read_secret
        from trioreg.events.endpoint import Endpoint, EndpointSettings

        secret = None
        if config.webhook_secret_file is not None:
            try:
                secret = read_secret(config.webhook_secret_file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise OSError(f"webhook.secret_file: {config.webhook_secret_file}: {error}") from None
        settings = EndpointSettings(
            frozenset(config.webhook_events),
            secret,
            timeout=config.webhook_timeout,
            attempts=config.webhook_attempts,
            queue_bytes=config.webhook_queue_bytes,
            durable=durable,
        )
        root = config.webhook_path or config.storage_path / "webhooks"
        endpoints += [Endpoint(url, root, settings) for url in dict.fromkeys(config.webhook_url)]
    return _Sinks(audits, endpoints)

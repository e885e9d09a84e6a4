"""Metrics on an address of their own (`metrics.bind`), where nothing else is served.

With several workers each listens there, on a socket of its own (SO_REUSEPORT), and answers for all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import trio

from trioreg import logs
from trioreg.api import Service
from trioreg.api.service import Page
from trioreg.config import Address
from trioreg.pipeline.budget import Share
from trioreg.server.connections import Connections
from trioreg.server.lane import Lane, LaneSettings
from trioreg.server.listeners import bound_port
from trioreg.server.workers import listen

_HEAD_BYTES = 8 * 1024
_IDLE_SECONDS = 75.0
_STALL_SECONDS = 10.0
_BACKLOG = 16

_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_log = logs.Log(__name__)


async def serve_pages(
    address: Address,
    service: Service,
    pages: Mapping[str, Page],
    share: Share,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve these pages until cancelled. `task_status` reports the port. Raises OSError."""
    listeners = [
        trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in listen(address, _BACKLOG)
    ]
    settings = LaneSettings(_HEAD_BYTES, _IDLE_SECONDS, api=False)
    quiet = logs.AccessLog(enabled=False)
    lane = Lane(replace(service, pages=pages, tracing=None), share, quiet, settings, name="metrics")
    connections = Connections(_Nothing(), lane, share, stall_timeout=_STALL_SECONDS, tls=None)
    port = bound_port(listeners[0])
    _log.info("metrics have their own address", port=port)
    task_status.started(port)
    await connections.serve(listeners, _never(), grace=0.0)


class _Nothing:
    """`server.connections.Front` of what is not served here."""

    async def serve(self, stream: trio.abc.Stream, certificate: str | None = None) -> None:
        try:
            await stream.send_all(_NOT_FOUND)
        except trio.BrokenResourceError:
            return

    async def stop(self) -> None:
        return


async def _never() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield 0

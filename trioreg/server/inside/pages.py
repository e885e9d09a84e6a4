"""Which pages there are, who may see them, and how they answer.

Rules: ``/metrics`` names no repository and nobody, so without access control whoever reaches it may read it.
Everything else shows names, or changes something, and exists only where a setting says so: it is for the
machine itself, and for administrators.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from trioreg.api import Exchange, Reply, Service
from trioreg.api.exchange import typed_reply
from trioreg.api.insiders import insiders_only, is_open
from trioreg.api.service import Page
from trioreg.metrics import cells, text
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.pump import Pump
from trioreg.server.inside import memory, tasks
from trioreg.server.inside.gauges import Gauges
from trioreg.server.inside.live import FILES, Live
from trioreg.server.inside.live import file as live_file

_FRESH = {"Cache-Control": "no-store"}


Shown = Callable[[Exchange], Awaitable[Any]]
Methods = Mapping[str, Shown]


def build_pages(service: Service, gauges: Gauges, *, metrics: bool, debug: bool, ui: bool) -> dict[str, Page]:
    """By path. `metrics`: with those; `debug`, `ui`: with those that show names."""
    pages: dict[str, Page] = {}
    if metrics:
        pages["/metrics"] = partial(_guarded_metrics, service, gauges)
    if debug:
        pages |= {path: partial(_debug, service, methods) for path, methods in _shown(gauges).items()}
    if ui:
        live = Live(gauges, gauges.connections.ending)
        pages |= {path: partial(_page, service, partial(live_file, path)) for path in FILES}
        pages["/ui/events"] = partial(_page, service, live.listen)
    return pages


def _shown(gauges: Gauges) -> dict[str, Methods]:
    """The debug pages: method and what says it."""

    async def uploads(_: Exchange) -> Any:
        return _uploads(gauges.pump)

    async def look_at_memory(_: Exchange) -> Any:
        return await memory.look(gauges)

    async def trim(_: Exchange) -> Any:
        return await memory.trim(gauges)

    async def look_at_tasks(_: Exchange) -> Any:
        return tasks.look()

    return {
        "/debug/uploads": {"GET": uploads},
        "/debug/memory": {"GET": look_at_memory},
        "/debug/tasks": {"GET": look_at_tasks},
        "/debug/trim": {"POST": trim},
        "/debug/tracemalloc": {"GET": _allocations},
        "/debug/tracemalloc/start": {"POST": _start_tracing},
        "/debug/tracemalloc/mark": {"POST": _mark},
        "/debug/tracemalloc/stop": {"POST": _stop_tracing},
    }


def metrics_alone(gauges: Gauges) -> dict[str, Page]:
    """The metrics for an address of their own: whoever may reach that may read them."""
    return {"/metrics": partial(_metrics, gauges)}


async def _guarded_metrics(service: Service, gauges: Gauges, exchange: Exchange) -> Reply:
    if not is_open(service):
        await insiders_only(service, exchange)
    return await _metrics(gauges, exchange)


async def _metrics(gauges: Gauges, exchange: Exchange) -> Reply:
    if exchange.method not in ("GET", "HEAD"):
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers={"Allow": "GET, HEAD"})
    gauges.collect()
    return _answer(exchange, text.CONTENT_TYPE, text.exposition().encode())


async def _debug(service: Service, methods: Methods, exchange: Exchange) -> Reply:
    """What a function says, as JSON."""
    await insiders_only(service, exchange)
    method = "GET" if exchange.method == "HEAD" else exchange.method
    if method not in methods:
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers={"Allow": ", ".join(methods)})
    return _answer(exchange, "application/json", msgspec.json.encode(await methods[method](exchange)))


def _uploads(pump: Pump) -> dict[str, Any]:
    pump.look()
    worker, workers = cells.slot_number()
    return {
        "worker": worker,
        "workers": workers,
        "budget": asdict(pump.budget.statistics()),
        "uploads": [asdict(transfer.look()) for transfer in pump.transfers],
    }


async def _page(service: Service, show: Callable[[], Reply], exchange: Exchange) -> Reply:
    """A part of the live page."""
    await insiders_only(service, exchange)
    if exchange.method != "GET":
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers={"Allow": "GET"})
    return show()


async def _start_tracing(exchange: Exchange) -> Any:
    frames = _query(exchange).get("frames", "1")
    return memory.start_tracing(int(frames) if frames.isdecimal() and len(frames) < 3 else 1)


async def _stop_tracing(_: Exchange) -> Any:
    return memory.stop_tracing()


async def _mark(exchange: Exchange) -> Any:
    return await memory.mark(_query(exchange).get("name", "")[:64])


async def _allocations(exchange: Exchange) -> Any:
    query = _query(exchange)
    by = query.get("by", "lineno")
    if by not in ("lineno", "filename", "traceback"):
        raise RegistryError(ErrorCode.UNSUPPORTED, {"reason": "by is lineno, filename or traceback"})
    found = await memory.allocations(query.get("since"), by)
    if found is None:
        raise RegistryError(ErrorCode.UNSUPPORTED, {"reason": "there is no such mark"})
    return found


def _query(exchange: Exchange) -> dict[str, str]:
    return dict(parse_qsl(exchange.query))


def _answer(exchange: Exchange, media_type: str, content: bytes) -> Reply:
    reply = typed_reply(200, media_type, content, _FRESH)
    if exchange.method == "HEAD":
        reply.content = b""
    return reply

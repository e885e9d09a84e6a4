"""Which pages there are, who may see them, and how they answer.

Rules: ``/metrics`` names no repository and nobody, so without access control whoever reaches it may read it.
Everything else shows names, or changes something, and exists only where a setting says so: it is for the
machine itself, and for administrators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import msgspec

from trioreg.api import Exchange, Reply, Service
from trioreg.api.exchange import typed_reply
from trioreg.api.insiders import insiders_only, is_open
from trioreg.api.service import Page
from trioreg.metrics import cells, text
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.pump import Pump
from trioreg.server.inside.gauges import Gauges

_FRESH = {"Cache-Control": "no-store"}


def build_pages(service: Service, gauges: Gauges, *, debug: bool) -> dict[str, Page]:
    """By path. `debug`: with those that show names."""
    pages: dict[str, Page] = {"/metrics": partial(_metrics, service, gauges)}
    if debug:
        shown = {"/debug/uploads": {"GET": partial(_uploads, gauges.pump)}}
        pages |= {path: partial(_debug, service, methods) for path, methods in shown.items()}
    return pages


async def _metrics(service: Service, gauges: Gauges, exchange: Exchange) -> Reply:
    if not is_open(service):
        await insiders_only(service, exchange)
    if exchange.method not in ("GET", "HEAD"):
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers={"Allow": "GET, HEAD"})
    gauges.collect()
    return _answer(exchange, text.CONTENT_TYPE, text.exposition().encode())


async def _debug(service: Service, methods: Mapping[str, Callable[[], Any]], exchange: Exchange) -> Reply:
    """What a function says, as JSON."""
    await insiders_only(service, exchange)
    method = "GET" if exchange.method == "HEAD" else exchange.method
    if method not in methods:
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers={"Allow": ", ".join(methods)})
    return _answer(exchange, "application/json", msgspec.json.encode(methods[method]()))


def _uploads(pump: Pump) -> dict[str, Any]:
    pump.look()
    worker, workers = cells.slot_number()
    return {
        "worker": worker,
        "workers": workers,
        "budget": asdict(pump.budget.statistics()),
        "uploads": [asdict(transfer.look()) for transfer in pump.transfers],
    }


def _answer(exchange: Exchange, media_type: str, content: bytes) -> Reply:
    reply = typed_reply(200, media_type, content, _FRESH)
    if exchange.method == "HEAD":
        reply.content = b""
    return reply

"""The live page: its files, and the stream of events that it draws.

An event is a look at everything, made at most twice a second and only while somebody listens; all listeners
get the same one. Rules: at most `LISTENERS` at once and `ROWS` uploads in an event, so a crowd of either
costs a bounded amount; there is no queue: who reads slowly misses events. A stream ends after a minute and
the browser asks anew: who is gone, or reads nothing, does not keep its place. All end with the server.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from functools import cache
from itertools import islice
from typing import Any

import msgspec
import trio

from trioreg.api import Reply, Stream
from trioreg.metrics import cells, table
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.server.inside.gauges import Gauges

LISTENERS = 8
ROWS = 100
EVENT_SECONDS = 0.5
STREAM_SECONDS = 60.0
_RETRY = b"retry: 200\n\n"  # milliseconds after which a browser asks again

# The page loads nothing from elsewhere, and nobody may frame it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "frame-ancestors 'none'"
)

FILES = {
    "/ui/live": ("live.html", "text/html; charset=utf-8"),
    "/ui/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/ui/live.css": ("live.css", "text/css; charset=utf-8"),
}


def file(path: str) -> Reply:
    """One of `FILES`."""
    name, media_type = FILES[path]
    content = _content(name)
    headers = {
        "Content-Type": media_type,
        "Content-Length": str(len(content)),
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
    }
    return Reply(200, headers, content)


@cache
def _content(name: str) -> bytes:
    from importlib.resources import files

    return files("trioreg.server.inside").joinpath("static", name).read_bytes()


class Live:
    """The events, shared by all who listen. `ending`: set when the server stops."""

    def __init__(self, gauges: Gauges, ending: trio.Event):
        self._gauges = gauges
        self._ending = ending
        self._listeners = 0
        self._made = 0.0
        self._event = b""
        self._digested = 0
        self._sent = 0

    def listen(self) -> Reply:
        """A stream of events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

        Raises TOOMANYREQUESTS while `LISTENERS` others listen.
        """
        if self._listeners >= LISTENERS:
            raise RegistryError(ErrorCode.TOOMANYREQUESTS, {"reason": "too many look at the live page"})
        self._listeners += 1
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        return Reply(200, headers, Stream(self._events(), self._leave))

    def _leave(self) -> None:
        self._listeners -= 1

    async def _events(self) -> AsyncGenerator[bytes, None]:
        yield _RETRY
        until = trio.current_time() + STREAM_SECONDS
        while not self._ending.is_set():
            yield self._newest()
            if trio.current_time() >= until:
                return
            with trio.move_on_after(EVENT_SECONDS):
                await self._ending.wait()

    def _newest(self) -> bytes:
        now = time.monotonic()
        if now - self._made >= 0.8 * EVENT_SECONDS:
            self._gauges.collect()
            look = self._look(now - self._made)
            self._made = now
            self._event = b"data: " + msgspec.json.encode(look) + b"\n\n"
        return self._event

    def _look(self, seconds: float) -> dict[str, Any]:
        digested, sent = table.ENGINE_BYTES.total(0), table.SENT.total(0)
        first = not self._digested and not self._sent
        came, went = digested - self._digested, sent - self._sent
        self._digested, self._sent = digested, sent
        worker, workers = cells.slot_number()
        transfers = self._gauges.pump.transfers
        return {
            "time": time.time(),
            "worker": worker,
            "workers": workers,
            "resident": table.RESIDENT_BYTES.total(0),
            "received_per_second": 0 if first else round(came / seconds),
            "sent_per_second": 0 if first else round(went / seconds),
            "lag": table.LOOP_LAG_HIGHEST.total(0) / table.LOOP_LAG_HIGHEST.unit,
            "connections": sum(table.CONNECTIONS.total(place) for place in range(2)),
            "budget": {
                "block_size": table.BLOCK_BYTES.total(0),
                "total": table.BUDGET_BLOCKS.total(0),
                "held": table.BUDGET_HELD.total(0),
                "waiting": table.BUDGET_WAITING.total(0),
            },
            "stages": {stage: table.STAGE_BLOCKS.total(place) for place, stage in enumerate(table.STAGES)},
            "waits": {wait: table.UPLOADS.total(place) for place, wait in enumerate(table.WAITS)},
            "uploads_here": len(transfers),
            "uploads": [transfer.look() for transfer in islice(transfers, ROWS)],
        }

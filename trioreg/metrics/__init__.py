"""What the server counts of itself. A leaf: imports nothing else of ours.

`table` names every metric, `cells` holds the integers behind them, `text` writes them for Prometheus. To
count is an addition in the Trio thread; gauges are looked up when somebody asks (`server.gauges`).
"""

from __future__ import annotations

from bisect import bisect_left

from trioreg.metrics import cells, table
from trioreg.metrics.table import SPENT_SECONDS, SYNC_SECONDS

__all__ = ["SPENT_SECONDS", "SYNC_SECONDS", "count_request"]

_CODE = {code: place for place, code in enumerate(table.CODES)}
_CODES = len(table.CODES) + 1
_BOUNDS = table.REQUEST_SECONDS.bounds
_WIDTH = table.REQUEST_SECONDS.width
_REQUESTS = table.REQUESTS.first
_SECONDS = table.REQUEST_SECONDS.first
_RECEIVED = table.RECEIVED.first
_SENT = table.SENT.first


def count_request(operation: int, status: int, seconds: float, received: int, sent: int) -> None:
    """Count a request that is over: `operation` is an index of `table.OPERATIONS`; bytes of content."""
    here = cells.current
    here[_REQUESTS + operation * _CODES + _CODE.get(status, _CODES - 1)] += 1
    first = _SECONDS + operation * _WIDTH
    here[first + bisect_left(_BOUNDS, seconds)] += 1
    here[first + _WIDTH - 1] += int(seconds * cells.NANOSECONDS)
    if received:
        here[_RECEIVED] += received
    if sent:
        here[_SENT] += sent

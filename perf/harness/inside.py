"""What our server shows of itself, read from GET /metrics while it runs.

The rule: to look inside is a request like any other, so it is made five times a second at most, on one
connection of its own, and a server that does not answer (killed, restarting, without the page) costs a sample
its inside view and nothing else. The metrics are those of docs/observability.md, sums over all workers.
"""

import http.client
import re
from typing import Any

TIMEOUT = 2.0
LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')
PREFIX = "trioreg_"

Family = dict[str, float]  # value by the first label's value, "" without labels


def parse(text: str) -> dict[str, Family]:
    """Prometheus text format, as far as a look inside needs it: families by name, buckets left out."""
    found: dict[str, Family] = {}
    for name, labels, value in LINE.findall(text):
        if not name.endswith("_bucket"):
            label = LABEL.search(labels)
            found.setdefault(name, {})[label[2] if label else ""] = float(value)
    return found


class InsideView:
    """Looks through one connection, which it opens again after a failure."""

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._lag = (0.0, 0.0)

    def look(self) -> dict[str, Any] | None:
        """The part `inside` of a sample; None when the server did not answer."""
        text = self.fetch("/metrics")
        return None if text is None else self.read(parse(text.decode()))

    def fetch(self, path: str) -> bytes | None:
        """The body of a 200, None for anything else.

        A connection that the server has closed meanwhile is opened once more.
        """
        kept = self._connection.sock is not None
        try:
            self._connection.request("GET", path)
            reply = self._connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return self.fetch(path) if kept else None
        return body if reply.status == 200 else None

    def close(self) -> None:
        self._connection.close()

    def read(self, families: dict[str, Family]) -> dict[str, Any]:
        """`loop_lag` is the mean since the look before, in seconds."""

        def one(name: str) -> int:
            return int(sum(families.get(PREFIX + name, {}).values()))

        lag = families.get(f"{PREFIX}loop_lag_seconds_sum", {}).get("", 0.0)
        count = families.get(f"{PREFIX}loop_lag_seconds_count", {}).get("", 0.0)
        lag_before, count_before = self._lag
        self._lag = lag, count
        uploads = families.get(f"{PREFIX}uploads", {})
        stages = families.get(f"{PREFIX}pipeline_blocks", {})
        collections = families.get("python_gc_collections_total", {})
        view = {
            "blocks_total": one("budget_blocks"),
            "blocks_held": one("budget_held_blocks"),
            "blocks_waiting": one("budget_waiting"),
            "uploads": {name: int(value) for name, value in uploads.items() if value},
            "stages": {name: int(value) for name, value in stages.items()},
            "cache_bytes": one("cache_bytes"),
            "gc": [int(collections.get(str(generation), 0)) for generation in range(3)],
        }
        if count > count_before:
            view["loop_lag"] = (lag - lag_before) / (count - count_before)
        return view

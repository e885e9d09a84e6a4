"""What the server shows of itself: metrics, the debug pages, the live page.

Served by both fronts as pages beside the API (`api.service.Service.pages`), without Quart: looking at an idle
server must not add the 15 MB that Quart takes.
"""

from __future__ import annotations

from trioreg.server.inside.gauges import Gauges
from trioreg.server.inside.pages import build_pages, metrics_alone
from trioreg.server.inside.stored import keep_counting

__all__ = ["Gauges", "build_pages", "keep_counting", "metrics_alone"]

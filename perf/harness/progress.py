"""What one sees while a run goes on: a bar on a terminal, else a line every ten seconds."""

import sys
import time

from perf.harness.messages import Beat
from perf.harness.scenario import Scenario
from perf.plan import MB

WIDTH = 24  # of the bar, in characters
TERMINAL_SECONDS, LINE_SECONDS = 0.1, 10.0


class Progress:
    """The bar of one load. Operations where their number is known, seconds where it is not."""

    def __init__(self, scenario: Scenario) -> None:
        self._name = scenario.name
        self._operations = sum(group.clients * group.each for group in scenario.group if not group.seconds)
        self._seconds = max((group.seconds for group in scenario.group), default=0.0)
        self._terminal = sys.stderr.isatty()
        self._next = 0.0 if self._terminal else time.monotonic() + LINE_SECONDS

    def show(self, totals: Beat, rss: int, seconds: float) -> None:
        """When it is time for it."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (TERMINAL_SECONDS if self._terminal else LINE_SECONDS)
        start, end = ("\r\x1b[K", "") if self._terminal else ("", "\n")
        print(start + self.line(totals, rss, seconds), end=end, file=sys.stderr, flush=True)

    def line(self, totals: Beat, rss: int, seconds: float) -> str:
        ended = totals.done + totals.failed
        filled = round(self.part(totals, seconds) * WIDTH)
        moved = (totals.sent + totals.received) / MB
        return (
            f"{self._name} [{'#' * filled}{'.' * (WIDTH - filled)}] {ended} done, "
            f"{totals.in_flight} in flight, {totals.failed} failed, {moved:,.0f} MB, "
            f"{seconds:.0f} s, server {rss / MB:.0f} MB"
        )

    def part(self, totals: Beat, seconds: float) -> float:
        """How much of it is done, from 0 to 1."""
        ended = totals.done + totals.failed
        return min(seconds / self._seconds if self._seconds else ended / max(self._operations, 1), 1.0)

    def end(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

"""The sampler: a thread that lays server, cgroup and clients on one axis of time, at a fixed rate.

The rule: it never catches up with a burst when it was late, it writes each sample at once and keeps only
extremes, and it counts the CPU seconds it takes itself.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from perf.harness.cgroup import Cgroup
from perf.harness.folder import RunFolder
from perf.harness.messages import Beat
from perf.harness.outside import Outside

INSIDE_SECONDS = 0.2  # between two looks inside: each is a request to the server
Inside = Callable[[], dict[str, Any] | None]


class Watch:
    """Samples until it is stopped. A context manager; with `hz` 0 it only looks when it is asked to."""

    def __init__(
        self,
        folder: RunFolder,
        outside: Outside,
        *,
        hz: float,
        cgroup: Cgroup | None,
        inside: Inside | None,
    ) -> None:
        self._folder = folder
        self.outside = outside
        self._hz = hz
        self._cgroup = cgroup
        self._inside = inside
        self.clients: Callable[[], Beat] = Beat
        self.cpu_seconds = 0.0
        self.latest: dict[str, Any] = {}
        self.forget()
        self._lock = threading.Lock()  # looks come from the thread and from who asks
        self._stop = threading.Event()
        self._newest_inside: dict[str, Any] | None = None
        self._threads = [threading.Thread(target=self._run, name="sampler", daemon=True)] if hz else []
        if hz and inside is not None:
            self._threads.append(threading.Thread(target=self._run_inside, name="inside", daemon=True))

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Once more is once too often and does no harm."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def forget(self) -> None:
        """Peaks count from here."""
        self.peak_rss = 0
        self.peak_at = 0.0
        self.longest_lag = 0.0

    def look(self) -> dict[str, Any]:
        """One sample, written down."""
        with self._lock:
            sample: dict[str, Any] = {"t": round(self._folder.now(), 4), **self.outside.look()}
            high_water = sample.pop("high_water")
            if max(sample["rss"], high_water) > self.peak_rss:
                self.peak_rss, self.peak_at = max(sample["rss"], high_water), sample["t"]
            if self._cgroup is not None:
                sample["cgroup"] = self._cgroup.usage()
            totals = self.clients()
            sample |= {"in_flight": totals.in_flight, "sent": totals.sent, "received": totals.received}
            newest, self._newest_inside = self._newest_inside, None
            if newest is not None:
                sample["inside"] = newest
                self.longest_lag = max(self.longest_lag, newest.get("loop_lag", 0.0))
            self._folder.sample(sample)
            self.latest = sample
            return sample

    def rest(self, seconds: float) -> int:
        """Wait, then the median RSS (bytes) of the second half of the wait."""
        begin = time.monotonic()
        seen: list[int] = []
        while time.monotonic() < begin + seconds:
            time.sleep(min(0.05, seconds))
            if time.monotonic() > begin + seconds / 2:
                seen.append(int(self.latest["rss"] if self._hz and self.latest else self.look()["rss"]))
        return sorted(seen)[len(seen) // 2] if seen else int(self.look()["rss"])

    def _run(self) -> None:
        period, begin, turn = 1 / self._hz, time.monotonic(), 0
        while True:
            self.look()
            turn += 1
            late = time.monotonic() - begin - turn * period
            if late > period:
                begin += late
            if self._stop.wait(max(-late, 0.0)):
                break
        self.cpu_seconds += time.thread_time()

    def _run_inside(self) -> None:
        assert self._inside is not None
        while not self._stop.wait(INSIDE_SECONDS):
            self._newest_inside = self._inside()
        self.cpu_seconds += time.thread_time()

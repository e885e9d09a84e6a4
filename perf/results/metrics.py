"""The figures by which runs are told apart: one number a run each, in base units.

The rule: a figure that a run cannot give (no samples, no operation of that kind) is None, never 0.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from perf.results.estimates import median_slope, percentile
from perf.results.folder import Run
from trioreg.config import SETTINGS

MB = 1_000_000
DEFAULTS = {row.name: row.default for row in SETTINGS}
TRENDED = 200  # points of a trend: 19,900 pairs, 5 ms
RARE = 100  # operations below which the 99th percentile is but the slowest one


@dataclass(frozen=True)
class Metric:
    """`value` of a run is shown divided by `scale` in `unit`. A change of it is a share of `against`, which
    is the value itself unless that may be 0.
    """

    name: str
    unit: str
    scale: float
    value: Callable[[Run], float | None]
    less_is_better: bool = True
    against: Callable[[Run], float | None] | None = None

    def share_of(self, run: Run) -> float | None:
        return (self.against or self.value)(run)

    def shown(self, value: float) -> str:
        """Three digits or all before the point, without the unit."""
        scaled = value / self.scale
        return f"{scaled:,.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"


def peak_rss(run: Run) -> float:
    """Bytes."""
    return float(run.about.outcome.peak_rss)


def peak_cgroup(run: Run) -> float | None:
    """Bytes by the kernel's count, page cache included; None outside of a cgroup."""
    return run.about.outcome.peak_cgroup


def growth(run: Run) -> float | None:
    """Bytes by which RSS grew in the second half of the load: slope (Theil and Sen) × seconds."""
    begin, end = run.load
    middle = (begin + end) / 2
    late = [(sample.t, float(sample.rss)) for sample in run.samples if middle <= sample.t <= end]
    if len(late) < 10:
        return None
    step = -(-len(late) // TRENDED)
    return median_slope(late[::step]) * (end - middle)


def cpu_per_gb(run: Run) -> float | None:
    """CPU seconds of the server for 10⁹ bytes moved."""
    return run.about.outcome.server_cpu_seconds / (run.moved / 1e9) if run.moved else None


def throughput(run: Run) -> float | None:
    """Bytes a second, both directions, from the start of the load to the end of its last operation."""
    begin, end = run.load
    return run.moved / (end - begin) if run.moved and end > begin else None


def latencies(run: Run, kind: str) -> list[float]:
    """Seconds of every operation of that kind that succeeded."""
    return [event.seconds for event in run.operations if event.kind == kind and event.ok]


def latency(share: float, kind: str, run: Run) -> float | None:
    """Seconds; None without operations, or too few of them for the percentile."""
    seconds = latencies(run, kind)
    enough = len(seconds) >= (RARE if share > 0.9 else 1)
    return percentile(seconds, share) if enough else None


def kinds_of(runs: Sequence[Run]) -> list[str]:
    """Kinds of operations that were made, the most frequent first."""
    kinds = [event.kind for run in runs for event in run.operations if event.ok]
    return sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))


def metrics_of(runs: Sequence[Run]) -> list[Metric]:
    """All that at least one of the runs can give."""
    every = [
        Metric("peak RSS", "MB", MB, peak_rss),
        Metric("peak of the memory cgroup", "MB", MB, peak_cgroup),
        Metric("RSS growth, 2nd half of load", "MB", MB, growth, against=peak_rss),
        Metric("server CPU", "s/GB", 1, cpu_per_gb),
        Metric("throughput", "MB/s", MB, throughput, less_is_better=False),
    ]
    for kind in kinds_of(runs):
        every += [
            Metric(f"{kind} latency, median", "s", 1, partial(latency, 0.5, kind)),
            Metric(f"{kind} latency, p99", "s", 1, partial(latency, 0.99, kind)),
        ]
    return [metric for metric in every if any(metric.value(run) is not None for run in runs)]


def values_of(metric: Metric, runs: Sequence[Run]) -> list[float]:
    """Of the runs that have it."""
    return [value for run in runs if (value := metric.value(run)) is not None]


def summary(metric: Metric, runs: Sequence[Run]) -> str:
    """Median, and with several repeats the extremes; `–` without a value."""
    values = values_of(metric, runs)
    if not values:
        return "–"
    middle = metric.shown(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({metric.shown(min(values))}–{metric.shown(max(values))})"


def setting(run: Run, name: str) -> str:
    """As it was set, or trioreg's default; "" for what a peer was not told."""
    default = DEFAULTS.get(name, "") if run.about.server.name == "trioreg" else ""
    return str(run.about.server.settings.get(name, default))


def typical(runs: Sequence[Run]) -> Run:
    """The repeat whose peak RSS is the middle one (the lower of two): drawn where one must stand for all."""
    return sorted(runs, key=peak_rss)[(len(runs) - 1) // 2]

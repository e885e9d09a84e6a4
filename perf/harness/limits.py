"""What came out of a run, and the limits of its scenario held against it.

The rule: a limit without a figure is not kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perf.cases import slope
from perf.harness.scenario import Limits


@dataclass
class Outcome:
    """Bytes, CPU seconds and counts of one run; `inside_lag` is None when nobody looked inside."""

    operations: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    idle_rss: int = 0
    peak_rss: int = 0
    after_rss: int = 0
    rounds: list[int] = field(default_factory=list)  # RSS after each
    peak_cgroup: int | None = None
    cgroup_kills: int | None = None
    loop_lag: float | None = None
    load_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)  # reasons of failures, the first few, with counts
    broken: str = ""  # why the run itself ended early

    def as_json(self, limits: Limits) -> dict[str, Any]:
        return {**vars(self), "limits": judge(limits, self)}


def round_growth(after: list[int]) -> float | None:
    """Bytes a round once the first, which fills caches, is through; None with fewer than three rounds."""
    return max(slope(after[1:]), 0.0) if len(after) > 2 else None


FIGURES: dict[str, Callable[[Outcome], float | None]] = {
    "failed": lambda outcome: outcome.failed,
    "idle_rss": lambda outcome: outcome.idle_rss or None,
    "peak_rss": lambda outcome: outcome.peak_rss or None,
    "growth": lambda outcome: max(outcome.peak_rss - outcome.idle_rss, 0),
    "after_growth": lambda outcome: max(outcome.after_rss - outcome.idle_rss, 0),
    "round_growth": lambda outcome: round_growth(outcome.rounds),
    "peak_cgroup": lambda outcome: outcome.peak_cgroup,
    "loop_lag": lambda outcome: outcome.loop_lag,
    "seconds": lambda outcome: outcome.load_seconds,
}


def judge(limits: Limits, outcome: Outcome) -> list[dict[str, Any]]:
    """Each limit that is set, with the figure and whether it was kept; kills and a broken run come last."""
    found = []
    for name, figure in FIGURES.items():
        limit = getattr(limits, name)
        if limit is not None:
            value = figure(outcome)
            passed = value is not None and value <= limit
            found.append({"name": name, "limit": limit, "value": value, "passed": passed})
    if outcome.cgroup_kills is not None:
        kills = outcome.cgroup_kills
        found.append({"name": "cgroup_kills", "limit": 0, "value": kills, "passed": not kills})
    if outcome.broken:
        found.append({"name": "broken", "limit": 0, "value": 1, "passed": False})
    return found


def kept(judged: list[dict[str, Any]]) -> bool:
    return all(limit["passed"] for limit in judged)

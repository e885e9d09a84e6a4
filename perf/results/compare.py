"""What changed between two sets of repeats, and whether it can be told from chance.

The rule: nothing fails unless three things hold together: the medians differ by more than the
threshold, for the worse, and Mann and Whitney's test, corrected for the number of figures looked at
(Holm), says that chance gives such a difference less than once in twenty. Where there are too few
repeats for any difference to pass that test, the answer is that, and never "the same".
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from perf.results.estimates import holm, interval_of_change, mann_whitney, repeats_needed, smallest_p
from perf.results.folder import Run
from perf.results.metrics import Metric, metrics_of, summary, values_of
from perf.standings import markdown_table

LEVEL = 0.05
TOO_FEW = "too few to tell"


@dataclass(frozen=True)
class Difference:
    """One figure of both sides; changes are shares of A's (0.1 is 10 % more). `p` is corrected."""

    metric: Metric
    before: Sequence[float]
    after: Sequence[float]
    change: float
    low: float
    high: float
    p: float
    enough: bool
    threshold: float

    @property
    def significant(self) -> bool:
        return self.enough and self.p <= LEVEL

    @property
    def worse(self) -> bool:
        return self.change > 0 if self.metric.less_is_better else self.change < 0

    @property
    def failed(self) -> bool:
        return self.significant and self.worse and abs(self.change) > self.threshold

    @property
    def verdict(self) -> str:
        if not self.enough:
            return TOO_FEW
        if not self.significant:
            return "no difference shown"
        if self.failed:
            return "WORSE"
        return "worse, within the threshold" if self.worse else "better"


def differences(before: Sequence[Run], after: Sequence[Run], threshold: float) -> list[Difference]:
    """Every figure that both sides have, in the order of `metrics_of`."""
    pairs = []
    for metric in metrics_of(before):
        left, right = values_of(metric, before), values_of(metric, after)
        shares = [share for run in before if (share := metric.share_of(run)) is not None]
        whole = abs(statistics.median(shares)) if shares else 0.0
        if left and right and whole:
            pairs.append((metric, left, right, whole))
    corrected = holm([mann_whitney(left, right) for _, left, right, _ in pairs])
    found = []
    for (metric, left, right, whole), p in zip(pairs, corrected, strict=True):
        low, high = interval_of_change(left, right)
        change = (statistics.median(right) - statistics.median(left)) / whole
        enough = smallest_p(len(left), len(right)) * len(pairs) <= LEVEL
        found.append(Difference(metric, left, right, change, low / whole, high / whole, p, enough, threshold))
    return found


def table(found: Sequence[Difference], before: Sequence[Run], after: Sequence[Run]) -> str:
    """A row a figure: both medians with extremes, the change with its interval, p and the verdict."""
    rows = [
        [
            f"{difference.metric.name}, {difference.metric.unit}",
            summary(difference.metric, before),
            summary(difference.metric, after),
            f"{difference.change:+.1%}",
            f"{difference.low:+.1%} to {difference.high:+.1%}" if len(difference.before) > 1 else "–",
            f"{difference.p:.3f}",
            difference.verdict,
        ]
        for difference in found
    ]
    counts = f"A ({len(before)})", f"B ({len(after)})"
    return markdown_table(["", *counts, "change", "95 % interval", "p", "verdict"], rows)


def remarks(found: Sequence[Difference], before: Sequence[Run], after: Sequence[Run]) -> list[str]:
    """What the table cannot say: too few repeats, failures, and what else differs between the sides."""
    said = []
    if any(not difference.enough for difference in found):
        needed = repeats_needed(LEVEL / len(found))
        said.append(
            f"{len(before)} and {len(after)} repeats are {TOO_FEW}: {len(found)} figures at"
            f" {LEVEL:.0%} together need {needed} of each"
        )
    for name, runs in (("A", before), ("B", after)):
        failures = sum(run.about.outcome.failed for run in runs)
        if failures:
            said.append(f"{name}: {failures} operations failed; a figure of such a run means little")
    return said + disagreements(before[0], after[0])


def disagreements(before: Run, after: Run) -> list[str]:
    """Where the descriptions differ; a comparison across machines or scenarios compares those."""
    sides = [flattened(described(run)) for run in (before, after)]
    said = []
    for name in sorted(sides[0].keys() | sides[1].keys()):
        left, right = (side.get(name, "nothing") for side in sides)
        if left != right:
            said.append(f"{name}: {left} → {right}")
    return said


def described(run: Run) -> dict[str, object]:
    """What a repeat has in common with the others of its folder."""
    about = run.about
    return {
        "scenario": {name: value for name, value in about.scenario.items() if name != "server"},
        "server": {"name": about.server.name, "settings": about.server.settings},
        "machine": {name: value for name, value in about.machine.items() if name != "commit"},
        "versions": about.versions,
        "commit": about.commit,
    }


def flattened(value: object, name: str = "") -> dict[str, str]:
    """Tables within tables, and lists of them by their `name` or place, as dotted names with text.

    What is not set (null, an empty table) is left out.
    """
    if isinstance(value, list) and value and all(isinstance(below, dict) for below in value):
        value = {below.get("name", at): below for at, below in enumerate(value, 1)}
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if not isinstance(value, dict):
        return {} if value is None or value == "" else {name: str(value)}
    rows: dict[str, str] = {}
    for key, below in value.items():
        rows |= flattened(below, f"{name}.{key}" if name else str(key))
    return rows

"""Does memory grow? A line through RSS over time, how sure its slope is, and a verdict.

Least squares through the medians of equal stretches of time, after a warm-up in which caches fill. The
interval is a moving-block bootstrap of the residuals (Künsch 1989), because RSS goes in steps: neighbours in
time are alike, and samples counted as independent would make any slope look certain.

The rule: the verdict compares the whole interval with a tolerance that was named before; an interval that
holds the tolerance decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from random import Random
from statistics import fmean, median
from typing import Literal

CONFIDENCE = 0.95
RESAMPLES = 2000
MOST_BINS = 400  # more do not narrow the interval and make the bootstrap slow
FEWEST_BINS = 20

Point = tuple[float, float]  # seconds, bytes
Verdict = Literal["leak", "no leak", "undecided"]


@dataclass(frozen=True)
class Fit:
    """`slope` with its interval `low` to `high`, bytes a second, from `bins` medians."""

    slope: float
    low: float
    high: float
    bins: int

    def verdict(self, tolerance: float) -> Verdict:
        """Against a tolerance in bytes a second."""
        if self.low > tolerance:
            return "leak"
        return "no leak" if self.high < tolerance else "undecided"


class TooShort(Exception):
    """There are too few samples to fit a line to."""


def fit(points: Sequence[Point], seed: int = 1) -> Fit:
    """The line through `points`, in the order of time. TooShort with too few of them."""
    binned = bins(points)
    if len(binned) < FEWEST_BINS:
        raise TooShort(f"{len(binned)} stretches of time are too few for a slope, {FEWEST_BINS} are needed")
    times = [time for time, _ in binned]
    values = [value for _, value in binned]
    slope, start = line(times, values)
    fitted = [start + slope * time for time in times]
    residuals = [value - guess for value, guess in zip(values, fitted, strict=True)]
    chance = Random(seed)

    def again() -> float:
        noise = blocks(residuals, chance)
        return line(times, [guess + error for guess, error in zip(fitted, noise, strict=True)])[0]

    slopes = sorted(again() for _ in range(RESAMPLES))
    cut = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Fit(slope, slopes[cut], slopes[-cut - 1], len(binned))


def bins(points: Sequence[Point]) -> list[Point]:
    """Medians over stretches of at least a second, at most MOST_BINS; empty stretches are left out."""
    if not points:
        return []
    first, last = points[0][0], points[-1][0]
    width = max((last - first) / MOST_BINS, 1.0)
    found: dict[int, list[float]] = {}
    for time, value in points:
        found.setdefault(int((time - first) / width), []).append(value)
    return [(first + (number + 0.5) * width, median(values)) for number, values in sorted(found.items())]


def line(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope and value at time 0 by least squares."""
    middle, height = fmean(times), fmean(values)
    spread = sum((time - middle) ** 2 for time in times)
    together = sum((time - middle) * (value - height) for time, value in zip(times, values, strict=True))
    slope = together / spread
    return slope, height - slope * middle


def blocks(residuals: Sequence[float], chance: Random) -> list[float]:
    """As many residuals again, drawn in blocks of neighbours: three times the root of their number."""
    count = len(residuals)
    length = min(3 * isqrt(count), count)
    drawn: list[float] = []
    while len(drawn) < count:
        start = chance.randrange(count - length + 1)
        drawn += residuals[start : start + length]
    return drawn[:count]

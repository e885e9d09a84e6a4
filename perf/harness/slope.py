"""Does memory grow? A line through RSS over time, how sure its slope is, and a verdict.

Least squares through the medians of equal stretches of time, after a warm-up in which caches fill. The
interval is a moving-block bootstrap of the residuals (Künsch 1989), because RSS goes in steps: neighbours in
time are alike, and samples counted as independent would make any slope look certain.

The rule: the verdict compares the whole interval with a tolerance that was named before; an interval that
holds the tolerance decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, sqrt
from operator import mul
from random import Random
from statistics import NormalDist, fmean, median
from typing import Literal

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
RESAMPLES = 1000
BINS_AT_MOST = 400  # more do not narrow the interval and make the bootstrap slow
BINS_AT_LEAST = 20

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
    if len(binned) < BINS_AT_LEAST:
        raise TooShort(f"{len(binned)} stretches of time are too few for a slope, {BINS_AT_LEAST} are needed")
    times = [time for time, _ in binned]
    values = [value for _, value in binned]
    slope, start = line(times, values)
    errors = [value - start - slope * time for time, value in binned]
    weights = lever(times)
    chance = Random(seed)
    moved = sorted(sum(map(mul, weights, blocks(errors, chance))) for _ in range(RESAMPLES))
    cut = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Fit(slope, slope - moved[-cut - 1], slope - moved[cut], len(binned))


def bins(points: Sequence[Point]) -> list[Point]:
    """Medians over stretches of at least a second, at most BINS_AT_MOST; empty stretches are left out."""
    if not points:
        return []
    first, last = points[0][0], points[-1][0]
    width = max((last - first) / BINS_AT_MOST, 1.0)
    found: dict[int, list[float]] = {}
    for time, value in points:
        found.setdefault(int((time - first) / width), []).append(value)
    return [(first + (number + 0.5) * width, median(values)) for number, values in sorted(found.items())]


def line(times: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope and value at time 0 by least squares."""
    slope = sum(map(mul, lever(times), values))
    return slope, fmean(values) - slope * fmean(times)


def lever(times: Sequence[float]) -> list[float]:
    """By what a value counts for the slope, at each time."""
    middle = fmean(times)
    spread = sum((time - middle) ** 2 for time in times)
    return [(time - middle) / spread for time in times]


def blocks(errors: Sequence[float], chance: Random) -> list[float]:
    """As many errors again, drawn in blocks of neighbours: twice the root of their number.

    A few long blocks vary less than what they stand for, and tell less of how much: the first factor makes up
    for the one, Student's t in place of the normal distribution for the other.
    """
    count = len(errors)
    length = min(2 * isqrt(count), count // 4)
    factor = sqrt(count / (count - length)) * student(count / length - 2) / Z
    drawn: list[float] = []
    while len(drawn) < count:
        start = chance.randrange(count - length + 1)
        drawn += errors[start : start + length]
    return [factor * error for error in drawn[:count]]


def student(freedom: float) -> float:
    """The quantile of Student's t that Z is of the normal distribution (Cornish and Fisher's expansion)."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)

"""Statistics of few repeats: percentiles, trends, and whether two sets of figures differ.

Pure functions of numbers. The rule: no assumption of a normal distribution, and every answer that
depends on chance has a fixed seed, so that the same folders give the same words.
"""

import itertools
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000  # of the bootstrap: the ends of a 95 % interval move by about 1 % of its width
EXACT = 20_000  # orders that are counted one by one: ten repeats against ten would be 184,756
SEED = 20_240_501


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie, linear between neighbours (type 7 of
    Hyndman and Fan, 1996). ValueError without values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def median_slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's slope: the median over all pairs, which one burst cannot bend. 0 for fewer
    than two different x.
    """
    slopes = [
        (right[1] - left[1]) / (right[0] - left[0])
        for left, right in itertools.combinations(points, 2)
        if right[0] != left[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


def mann_whitney(left: Sequence[float], right: Sequence[float]) -> float:
    """Two-sided p of Mann and Whitney's U, ties as half.

    Exact (every order of the labels counted) up to EXACT orders, beyond by the normal
    approximation with the correction for ties. ValueError if a side is empty.
    """
    if not left or not right:
        raise ValueError("a side without values")
    pooled = [*left, *right]
    ranks = midranks(pooled)
    size, total = len(left), len(pooled)
    middle = size * (total + 1) / 2  # of the sum of left's ranks
    seen = abs(sum(ranks[:size]) - middle)
    if math.comb(total, size) <= EXACT:
        orders = list(itertools.combinations(ranks, size))
        return sum(abs(sum(order) - middle) >= seen - 1e-9 for order in orders) / len(orders)
    counts = [pooled.count(value) for value in set(pooled)]
    ties = sum(count**3 - count for count in counts) / (total * (total - 1))
    spread = math.sqrt(size * (total - size) / 12 * (total + 1 - ties))
    return math.erfc(max(seen - 0.5, 0.0) / spread / math.sqrt(2)) if spread else 1.0


def midranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal ones share the middle of their ranks."""
    ordered = sorted(values)
    first = {value: place for place, value in reversed(list(enumerate(ordered, 1)))}
    last = {value: place for place, value in enumerate(ordered, 1)}
    return [(first[value] + last[value]) / 2 for value in values]


def smallest_p(left: int, right: int) -> float:
    """What the exact test can give at best with so many repeats on either side."""
    return min(2 / math.comb(left + right, left), 1.0) if left and right else 1.0


def repeats_needed(level: float) -> int:
    """The least number of repeats on each side with which the test can reach `level`."""
    return next(count for count in itertools.count(1) if smallest_p(count, count) <= level)


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for having looked at all of them (Holm, 1979), in their order."""
    corrected = [0.0] * len(values)
    highest = 0.0
    for rank, at in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
        highest = max(highest, min(1.0, values[at] * (len(values) - rank)))
        corrected[at] = highest
    return corrected


def interval_of_change(left: Sequence[float], right: Sequence[float]) -> tuple[float, float]:
    """95 % interval of median(right) − median(left), by resampling both sides (percentile bootstrap)."""
    chance = random.Random(SEED)
    changes = [
        statistics.median(chance.choices(right, k=len(right)))
        - statistics.median(chance.choices(left, k=len(left)))
        for _ in range(RESAMPLES)
    ]
    return percentile(changes, 0.025), percentile(changes, 0.975)


@dataclass(frozen=True)
class Line:
    """y = base + slope · x by least squares, with standard errors (None with two points)."""

    base: float
    slope: float
    base_error: float | None
    slope_error: float | None

    def at(self, x: float) -> float:
        return self.base + self.slope * x


def least_squares(points: Sequence[tuple[float, float]]) -> Line:
    """ValueError with fewer than two different x."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if len(set(xs)) < 2:
        raise ValueError("a line needs points at two different places")
    slope, base = statistics.linear_regression(xs, ys)
    if len(points) < 3:
        return Line(base, slope, None, None)
    mean = statistics.fmean(xs)
    across = sum((x - mean) ** 2 for x in xs)
    variance = sum((y - base - slope * x) ** 2 for x, y in points) / (len(points) - 2)
    return Line(
        base,
        slope,
        math.sqrt(variance * (1 / len(points) + mean**2 / across)),
        math.sqrt(variance / across),
    )

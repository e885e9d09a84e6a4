"""Statistics against answers that are known: worked by hand, from tables, or by counting."""

import itertools
import math
import random

import pytest

from perf.results.chart import thinned
from perf.results.estimates import (
    holm,
    interval_of_change,
    least_squares,
    mann_whitney,
    median_slope,
    midranks,
    percentile,
    repeats_needed,
    smallest_p,
)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1, 2, 3, 4], 0.5, 2.5),
        ([4, 3, 2, 1], 0.25, 1.75),
        ([7], 0.99, 7),
        ([0, 10], 0.9, 9),
        (list(range(101)), 0.99, 99),
        ([1, 2], 0, 1),
        ([1, 2], 1, 2),
    ],
)
def test_percentiles_lie_between_neighbours(values: list[float], share: float, expected: float) -> None:
    """As R's default and numpy's (type 7)."""
    assert percentile(values, share) == pytest.approx(expected)


def test_no_percentile_of_nothing() -> None:
    """An empty list is an error, not 0."""
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 2 / 252),
        ([1, 3, 5], [2, 4, 6], 14 / 20),  # U = 3: 7 of 20 orders have a U of at most 3
        ([1, 1], [1, 1], 1.0),
        ([1], [2], 1.0),
    ],
)
def test_mann_whitney_counts_orders(left: list[float], right: list[float], expected: float) -> None:
    """Two-sided and exact, as in the tables of the test; the sides may change places."""
    assert mann_whitney(left, right) == pytest.approx(expected)
    assert mann_whitney(right, left) == pytest.approx(expected)


def test_the_approximation_agrees_with_counting() -> None:
    """12 against 12 is beyond exact counting; 20,000 random orders give the same within 0.01."""
    chance = random.Random(5)
    left = [chance.gauss(0, 1) for _ in range(12)]
    right = [chance.gauss(0.8, 1) for _ in range(12)]
    ranks = midranks([*left, *right])
    seen = abs(sum(ranks[:12]) - 150)
    hits = sum(abs(sum(chance.sample(ranks, 12)) - 150) >= seen for _ in range(20_000))
    assert mann_whitney(left, right) == pytest.approx(hits / 20_000, abs=0.01)


def test_equal_values_of_a_large_sample_tell_nothing() -> None:
    """No spread at all: p is 1, not a division by zero."""
    assert mann_whitney([3] * 12, [3] * 12) == 1.0


def test_equal_values_share_a_rank() -> None:
    """The middle of those they take."""
    assert midranks([10, 20, 20, 5]) == [2, 3.5, 3.5, 1]


def test_how_many_repeats_a_level_needs() -> None:
    """Three of each can never give 0.05; four can, five give 0.01."""
    assert smallest_p(3, 3) == pytest.approx(0.1)
    assert [repeats_needed(level) for level in (0.1, 0.05, 0.01, 0.005)] == [3, 4, 5, 6]


def test_holm_corrects_in_steps() -> None:
    """The worked example of Holm's method: 0.01, 0.04, 0.03, 0.005."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_slope_ignores_a_burst() -> None:
    """One in ten far away leaves the median of the slopes where it was."""
    line = [(float(at), 3.0 * at) for at in range(20)]
    line[7] = (7.0, 1000.0)
    line[15] = (15.0, -1000.0)
    assert median_slope(line) == pytest.approx(3.0)
    assert median_slope([(1.0, 5.0)]) == 0.0


def test_least_squares_of_a_known_line() -> None:
    """Anscombe's first set: y = 3.00 + 0.500 x, standard errors 1.125 and 0.118."""
    xs = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    ys = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    line = least_squares(list(zip(map(float, xs), ys, strict=True)))
    assert line.base == pytest.approx(3.0, abs=0.001)
    assert line.slope == pytest.approx(0.5, abs=0.001)
    assert line.base_error == pytest.approx(1.1247, abs=0.0001)
    assert line.slope_error == pytest.approx(0.1179, abs=0.0001)
    assert line.at(10) == pytest.approx(8.0, abs=0.01)


def test_two_points_give_a_line_without_errors() -> None:
    """Nothing is left to judge by; and one place gives no line."""
    assert least_squares([(0, 1), (2, 5)]).slope == 2
    assert least_squares([(0, 1), (2, 5)]).slope_error is None
    with pytest.raises(ValueError, match="two different"):
        least_squares([(1, 1), (1, 2)])


def test_the_interval_holds_the_change() -> None:
    """It is the same each time, holds the difference of the medians and shrinks with the spread."""
    left, right = [10.0, 10.1, 9.9, 10.2, 9.8], [12.0, 12.1, 11.9, 12.3, 11.8]
    low, high = interval_of_change(left, right)
    assert low < 2.0 < high
    assert (low, high) == interval_of_change(left, right)
    wide = interval_of_change([value + 10 * (value - 10) for value in left], right)
    assert wide[1] - wide[0] > high - low


def test_thinning_keeps_peaks_and_ends() -> None:
    """The highest and the lowest of 10,000 points are among the few hundred that are drawn."""
    points = [(at / 10, math.sin(at)) for at in range(10_000)]
    points[1234] = (123.4, 99.0)
    points[4321] = (432.1, -99.0)
    kept = thinned(points, 100)
    assert len(kept) <= 200
    assert {99.0, -99.0} <= {y for _, y in kept}
    assert all(left[0] < right[0] for left, right in itertools.pairwise(kept))
    assert thinned(points[:50], 100) == points[:50]

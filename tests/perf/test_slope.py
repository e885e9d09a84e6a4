"""A leak is found, its absence too, and where neither is certain nobody pretends."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from perf.harness.reading import ScenarioError, load_scenario
from perf.harness.slope import BINS_AT_MOST, Fit, Point, TooShort, bins, fit, line
from perf.harness.soak import answer, lasting, points

MB = 1e6


def memory(seconds: int, slope: float, noise: float, seed: int = 1) -> list[Point]:
    """RSS five times a second: a line, and noise in steps of eight seconds, as an allocator's."""
    chance = Random(seed)
    step, found = 0.0, []
    for tick in range(seconds * 5):
        if tick % 40 == 0:
            step = chance.gauss(0, noise)
        found.append((tick / 5, 60 * MB + slope * tick / 5 + step + chance.gauss(0, noise / 10)))
    return found


def test_a_line_is_found() -> None:
    """Slope and start of points that lie on one."""
    assert line([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx((2, 5))


def test_bins_are_medians() -> None:
    """One outlier moves nothing, and a long soak has no more bins than a short one."""
    found = bins(
        [(second + part / 10, 1000.0 if part == 3 else 7.0) for second in range(30) for part in range(10)]
    )
    assert {value for _, value in found} == {7.0}
    assert len(found) == 30
    assert len(bins(memory(3000, 0, 1))) <= BINS_AT_MOST + 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("slope", "verdict"), [(0.0, "no leak"), (20e3, "leak")])
def test_verdicts(slope: float, verdict: str, seed: int) -> None:
    """Against 10 kB a second: none is none, twice as much is a leak, in spite of a megabyte of noise."""
    assert fit(memory(300, slope, 0.5 * MB, seed)).verdict(10e3) == verdict


def test_what_cannot_be_told_is_undecided() -> None:
    """Noise that could hide the tolerance leaves the question open, and too few points raise."""
    assert fit(memory(60, 5e3, 5 * MB)).verdict(5e3) == "undecided"
    with pytest.raises(TooShort):
        fit(memory(10, 0, 1))
    with pytest.raises(TooShort):
        fit([])


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of forty planted slopes at most six are missed at 95 %: noise in steps does not make it too sure."""
    missed = 0
    for seed in range(40):
        found = fit(memory(120, 3e3, 0.5 * MB, seed))
        missed += not found.low <= 3e3 <= found.high
    assert missed <= 6


def test_the_tolerance_is_per_operation() -> None:
    """100 bytes an operation at 50 operations a second are 300 kB a minute."""
    soak = answer(Fit(1000.0, 900.0, 1100.0, 50), rate=50.0, tolerance=100.0, warm_up=5.0)
    assert (soak.verdict, soak.tolerance, soak.slope) == ("no leak", 300e3, 60e3)
    assert soak.per_thousand == pytest.approx(20e3)
    assert soak.line().startswith("no leak: RSS moves by +60.0 kB a minute (95%: +54.0 to +66.0)")


def test_what_counts_lies_between_warm_up_and_the_end(tmp_path: Path) -> None:
    """Samples before and after the load say nothing about a leak."""
    events = [{"t": 1.0, "event": "load"}, {"t": 5.0, "event": "drained"}, {"t": 9.0, "event": "after"}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    samples = [{"t": float(second), "rss": 10 * second} for second in range(10)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    assert points(tmp_path, 2.0) == [(3.0, 30), (4.0, 40), (5.0, 50)]


def test_a_soak_needs_groups_that_go_by_time() -> None:
    """The ready one lasts as long as one says; a scenario with a number of operations does not."""
    assert {group.seconds for group in lasting(load_scenario("soak"), 90.0).group} == {90.0}
    with pytest.raises(ScenarioError, match="seconds"):
        lasting(load_scenario("laptop"), 90.0)

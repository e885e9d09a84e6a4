"""Scenarios: what is written is what runs, and what cannot be meant is refused with its place."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from perf.harness.draws import POOL, arrival_times, popular, size_pool, weighted
from perf.harness.reading import SCENARIOS, ScenarioError, load_scenario, override, to_scenario
from perf.harness.scenario import Arrivals, Bytes, Rate, Scenario, Sizes
from perf.plan import KIB, MB, MIB, Pace

PUSH: dict[str, Any] = {"name": "p", "shape": "docker", "sizes": {"fixed": "1MB"}}
WHOLE: dict[str, Any] = {"name": "s", "title": "t", "group": [PUSH]}
READY = sorted(path.stem for path in SCENARIOS.glob("*.toml"))


def scenario(**changes: Any) -> Scenario:
    return to_scenario({**WHOLE, **changes}, Path())


def group(**changes: Any) -> Scenario:
    return scenario(group=[{**PUSH, **changes}])


@pytest.mark.parametrize("name", READY)
def test_ready_scenarios_can_be_read(name: str) -> None:
    """Each has a title, its file's name, and a limit beyond that no push fails."""
    ready = load_scenario(name)
    assert ready.name == name
    assert len(ready.title) > 10
    assert ready.limits.failed == 0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"speed": 1}, "unknown field `speed`"),
    ({"group": []}, "at least one"),
    ({"group": [PUSH, PUSH]}, "names of their own"),
    ({"group": [{**PUSH, "shape": "ftp"}]}, "Invalid enum value 'ftp' - at `$.group[0].shape`"),
    ({"group": [{**PUSH, "clients": "3"}]}, "Expected `int`, got `str` - at `$.group[0].clients`"),
    ({"group": [{**PUSH, "clients": 0}]}, "at least 1"),
    ({"group": [{**PUSH, "sizes": {"fixed": "1 parsec"}}]}, "is not a size - at `$.group[0].sizes.fixed`"),
    ({"group": [{**PUSH, "sizes": {}}]}, "sizes are one of"),
    ({"group": [{**PUSH, "sizes": {"fixed": 1, "median": 2, "sigma": 1}}]}, "sizes are one of"),
    ({"group": [{**PUSH, "sizes": {"median": 2}}]}, "median and sigma"),
    ({"group": [{**PUSH, "sizes": {"smallest": 9, "largest": 2}}]}, "smallest is larger"),
    ({"group": [{**PUSH, "sizes": {"recorded": []}}]}, "the recorded list is empty"),
    ({"group": [{"name": "p", "shape": "docker"}]}, "pushes and has no sizes"),
    ({"group": [{"name": "p", "shape": "pull"}]}, "need a catalog"),
    ({"group": [{**PUSH, "rate": {"every": 1}}]}, "every and seconds"),
    ({"group": [{**PUSH, "rate": {"every": 1, "seconds": 1, "bytes_per_second": 1}}]}, "a rate is"),
    ({"group": [{**PUSH, "arrivals": {"ramp": 0}}]}, "above 0"),
    ({"group": [{**PUSH, "arrivals": {}}]}, "poisson or ramp"),
    ({"group": [{**PUSH, "cut": {"at": 1, "share": 1.5}}]}, "share"),
    ({"group": [{**PUSH, "mix": {"docker": 1.0}}]}, "shape mix"),
    ({"group": [{**PUSH, "shape": "mix", "mix": {"ftp": 1.0}}]}, "no shape"),
    ({"server": {"memory": {"bugdet": "1MiB"}}}, "no setting memory.bugdet"),
    ({"disk": {"latency": 1.0, "factor": 2.0}}, "not both"),
    ({"fault": [{"at": 1, "kind": "fill_disk"}]}, "need disk.size"),
    ({"fault": [{"at": 1, "kind": "meteor"}]}, "Invalid enum value 'meteor'"),
    ({"limits": {"peek_rss": "1MB"}}, "unknown field `peek_rss`"),
]


@pytest.mark.parametrize(("changes", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], why: str) -> None:
    """Unknown keys, wrong types and contradictions, each with its place or its names."""
    with pytest.raises(ValueError, match=r".") as refused:
        scenario(**changes)
    assert why in str(refused.value)


def test_errors_name_the_file(tmp_path: Path) -> None:
    """A file that is absent, broken or wrong is said by its name, and what is ready is listed."""
    with pytest.raises(ScenarioError, match=r"ready ones are .*laptop"):
        load_scenario("nonsense")
    file = tmp_path / "mine.toml"
    lacking = '[[group]]\nname = "a"\nshape = "docker"\nsizes = { recorded = "nowhere.txt" }\n'
    for text in ("title =", 'title = "x"\n[[group]]\nname = "a"\n', f'title = "x"\n{lacking}'):
        file.write_text(text)
        with pytest.raises(ScenarioError, match=r"mine\.toml: "):
            load_scenario(str(file))


@pytest.mark.parametrize(
    ("rate", "pace"),
    [
        ({"bytes_per_second": "64KiB"}, Pace(16 * KIB, 0.25)),
        ({"bytes_per_second": "10MB"}, Pace(500_000, 0.05)),
        ({"bytes_per_second": 1}, Pace(1, 1.0)),
        ({"every": "1MiB", "seconds": 2.0}, Pace(MIB, 2.0)),
        ({"every": 7, "seconds": 0.05}, Pace(7, 0.05)),
    ],
)
def test_rates_are_paces(rate: dict[str, Any], pace: Pace) -> None:
    """Throttled, stalling and dribbling are all so many bytes, then a pause."""
    found = group(rate=rate).group[0].rate
    assert found is not None
    assert found.pace == pace


def test_sizes_follow_their_distribution() -> None:
    """Fixed, uniform, recorded and lognormal; the last is clamped and has the median asked for."""
    assert size_pool(Sizes(fixed=Bytes(5)), 100, "x") == [5]
    uniform = size_pool(Sizes(smallest=Bytes(10), largest=Bytes(20)), 100, "x")
    assert min(uniform) >= 10 and max(uniform) <= 20 and len(set(uniform)) > 5
    recorded = size_pool(Sizes(recorded=[Bytes(1), Bytes(7)]), 100, "x")
    assert set(recorded) == {1, 7}
    sizes = Sizes(median=Bytes(MB), sigma=1.0, smallest=Bytes(KIB), largest=Bytes(9 * MB))
    drawn = sorted(size_pool(sizes, 10**6, "x"))
    assert len(drawn) == POOL
    assert 0.8 * MB < drawn[POOL // 2] < 1.2 * MB
    assert drawn[0] >= KIB and drawn[-1] <= 9 * MB


def test_recorded_sizes_come_from_a_file_beside_the_scenario(tmp_path: Path) -> None:
    """One size on each line, with or without a unit."""
    (tmp_path / "sizes.txt").write_text("100\n2KiB\n")
    read = to_scenario({**WHOLE, "group": [{**PUSH, "sizes": {"recorded": "sizes.txt"}}]}, tmp_path)
    sizes = read.group[0].sizes
    assert sizes is not None
    assert sizes.recorded == [100, 2048]


def test_chance_follows_the_seed() -> None:
    """The same seed draws the same, another one something else."""
    sizes = Sizes(smallest=Bytes(1), largest=Bytes(MB))
    assert size_pool(sizes, 50, "a") == size_pool(sizes, 50, "a") != size_pool(sizes, 50, "b")
    poisson = Arrivals(poisson=10.0)
    assert arrival_times(poisson, 9, "a") == arrival_times(poisson, 9, "a")


def test_arrivals() -> None:
    """All at once, evenly over a ramp, or with gaps whose mean is one over the rate."""
    assert arrival_times(None, 3, "x") == [0.0, 0.0, 0.0]
    assert arrival_times(Arrivals(ramp=3.0), 3, "x") == [0.0, 1.0, 2.0]
    times = arrival_times(Arrivals(poisson=10.0), 2000, "x")
    assert times == sorted(times)
    assert 180 < times[-1] < 220


def test_popularity_follows_zipf() -> None:
    """With exponent 1 the first is asked for twice as often as the second; with 0 all alike."""
    counts = Counter(islice(popular(50, 1.0, random.Random(1)), 40_000))
    assert 1.8 < counts[0] / counts[1] < 2.2
    even = Counter(islice(popular(4, 0.0, random.Random(1)), 40_000))
    assert max(even.values()) / min(even.values()) < 1.1
    mixed = Counter(islice(weighted({"pull": 9.0, "docker": 1.0}, random.Random(1)), 10_000))
    assert 8 < mixed["pull"] / mixed["docker"] < 10


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("seed=7", lambda it: it.seed == 7),
        ("limits.peak_rss=64MB", lambda it: it.limits.peak_rss == 64 * MB),
        ("group.docker.clients=3", lambda it: it.group[0].clients == 3),
        ('group.docker.sizes={fixed="1KiB"}', lambda it: it.group[0].sizes.fixed == KIB),
        ("server.memory.budget=16MiB", lambda it: it.server == {"memory.budget": "16MiB"}),
        ("disk.latency=0.5", lambda it: it.disk.latency == 0.5),
    ],
)
def test_the_command_line_changes_a_value(change: str, value: Any) -> None:
    """By its place in the file; groups by their name."""
    assert value(load_scenario("laptop", [override(change)]))


@pytest.mark.parametrize("change", ["group.nobody.clients=3", "title.x=3", "group=3", "limits.peek=3"])
def test_a_change_of_nothing_is_refused(change: str) -> None:
    with pytest.raises(ScenarioError):
        load_scenario("laptop", [override(change)])


@pytest.mark.parametrize("text", ["", "seed", "=3"])
def test_a_change_is_a_name_and_a_value(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=VALUE"):
        override(text)


def test_a_rate_moves_something() -> None:
    with pytest.raises(ValueError, match="one byte"):
        Rate(bytes_per_second=Bytes(0))

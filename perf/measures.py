"""What a speed case and a measure are, and at which sizes they are taken: plain values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perf.attempt import Attempt
from perf.plan import MB


@dataclass(frozen=True)
class Scale:
    """Sizes in bytes, counts, and seconds that requests are asked for."""

    one: int = 1000 * MB
    many: int = 100 * MB
    medium: int = 32 * MB
    images: int = 400
    image_pulls: int = 1600
    tags: int = 10_000
    referrers: int = 1000
    idle: int = 1000
    seconds: float = 5.0


QUICK = Scale(200 * MB, 10 * MB, 4 * MB, 80, 320, 1000, 200, 200, 1.0)


@dataclass(frozen=True)
class Unit:
    """How a value is shown (divided by `scale`), what CPU is counted per, which way is better."""

    label: str
    scale: float = 1.0
    per: str = "1,000 requests"
    less_is_better: bool = False


SPEED = Unit("MB/s", 1e6, "GB")
REQUESTS = Unit("requests/s")
IMAGES = Unit("images/s")
EACH = Unit("KB per connection", 1e3, "1,000 connections", less_is_better=True)


@dataclass(frozen=True)
class Measure:
    """One table. `target` is the ratio to the best peer that is aimed for, 0 without one."""

    name: str
    title: Callable[[Scale], str]
    unit: Unit
    target: float = 0.0


@dataclass(frozen=True)
class Case:
    """`work` gives a figure for each of `measures`; `disk` is how many bytes it writes.

    What takes long to prepare is a `seed`: once for each contender, whose runs get a copy each.
    """

    name: str
    measures: Sequence[Measure]
    work: Callable[[Attempt, Scale], None]
    disk: Callable[[Scale], int] = lambda scale: 500 * MB
    pushes: bool = False
    seed: Callable[[Attempt, Scale], None] | None = None

"""What a chart shows, as plain values; `draw` makes the picture.

The rule: an axis has a title and a unit, or it cannot be made. Nothing is told by colour alone: every line
has a dash pattern and a marker of its own and is labelled where it ends, bars have hatches and a
heat map's cells their numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """ValueError without a title or a unit; a count has the counted thing as its unit."""

    title: str
    unit: str

    def __post_init__(self) -> None:
        if not self.title or not self.unit:
            raise ValueError(f"an axis without title or unit: {self}")

    def __str__(self) -> str:
        return f"{self.title}, {self.unit}"


SECONDS = Axis("time since the start of the run", "s")


@dataclass(frozen=True)
class Series:
    """A line; with `low` and `high`, points with a bar between those two."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Mark:
    """A moment with a name: a vertical line."""

    x: float
    text: str


@dataclass(frozen=True)
class Level:
    """A value with a name: a horizontal line."""

    y: float
    text: str


@dataclass(frozen=True)
class Lines:
    """`ticks` name places of the x axis that are not numbers; `log` is of the y axis."""

    name: str
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    levels: Sequence[Level] = ()
    ticks: Sequence[tuple[float, str]] = ()
    log: bool = False


@dataclass(frozen=True)
class HeatMap:
    """`cells[row][column]`; `edges` are one more than the columns."""

    name: str
    title: str
    x: Axis
    y: Axis
    value: Axis
    rows: Sequence[str]
    edges: Sequence[float]
    cells: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Bars:
    """Groups of horizontal bars: `rows` down the side, in each a bar for every group."""

    name: str
    title: str
    x: Axis
    y: Axis
    rows: Sequence[str]
    groups: Sequence[tuple[str, Sequence[float]]]


Chart = Lines | HeatMap | Bars


def thinned(points: Sequence[tuple[float, float]], buckets: int = 240) -> list[tuple[float, float]]:
    """At most two points a bucket of x, its lowest and its highest, in order: no peak is lost."""
    if len(points) <= 2 * buckets:
        return list(points)
    begin, end = points[0][0], points[-1][0]
    width = (end - begin) / buckets or 1.0
    kept: dict[int, tuple[int, int]] = {}
    for at, (x, y) in enumerate(points):
        bucket = min(int((x - begin) / width), buckets - 1)
        low, high = kept.get(bucket, (at, at))
        kept[bucket] = (at if y < points[low][1] else low, at if y > points[high][1] else high)
    return [points[at] for at in sorted({at for pair in kept.values() for at in pair})]

"""The memory formula against runs: base and k by least squares, beside what was predicted.

docs/memory.md bounds the peak by base + budget + front + cache + k × connections. A run seldom fills
the budget and the front, so what is fitted is

    peak RSS − blocks in use at most  =  base + k × connections

and the bound is held against the peak itself. Without our own server's count of blocks (a peer, or
metrics that were off) nothing is taken off, and base and k then hold the buffers too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from perf.results.estimates import Line, least_squares
from perf.results.folder import BadRun, Run
from perf.results.metrics import MB, setting
from perf.standings import markdown_table
from trioreg.config import SIZE

KB = 1000


@dataclass(frozen=True)
class Point:
    """One run: bytes, and connections as the most operations in flight."""

    run: Run
    connections: int
    peak: int
    blocks: int

    @property
    def rest(self) -> int:
        return self.peak - self.blocks

    @property
    def over(self) -> bool:
        """Whether the peak passed the bound that was computed before the run."""
        predicted = self.run.about.predicted
        return predicted is not None and self.peak > predicted.total


@dataclass(frozen=True)
class Fit:
    """The runs of one server and the line through them."""

    server: str
    points: Sequence[Point]
    line: Line


def block_size(run: Run) -> int:
    """Bytes, as it was set or by default."""
    return int(SIZE.parse(setting(run, "memory.block")))


def point(run: Run) -> Point:
    """BadRun for a run without samples: nobody counted its connections."""
    if not run.samples:
        raise BadRun(f"{run.folder}: has no samples; the formula needs them for the connections")
    held = max((sample.inside.blocks_held or 0 for sample in run.samples if sample.inside), default=0)
    blocks = held * block_size(run) if held else 0
    return Point(run, run.connections, run.about.outcome.peak_rss, blocks)


def fits(runs: Sequence[Run]) -> list[Fit]:
    """One for each server, by name. BadRun when a server was run at one number of connections only."""
    found = []
    for name in sorted({run.about.server.name for run in runs}):
        points = [point(run) for run in runs if run.about.server.name == name]
        points.sort(key=lambda point: (point.connections, point.peak))
        try:
            line = least_squares([(point.connections, point.rest) for point in points])
        except ValueError as error:
            raise BadRun(
                f"{name}: every run had {points[0].connections} connections;"
                " base and k can be told apart only by runs with different numbers of clients"
            ) from error
        found.append(Fit(name, points, line))
    return found


def described(fit: Fit) -> str:
    """The fitted terms beside the predicted ones, then every run with its residual and its bound."""
    predicted = [point.run.about.predicted for point in fit.points if point.run.about.predicted]
    base = "–" if not predicted else f"{max(each.base for each in predicted) / MB:.1f}"
    each = "–" if not predicted else f"{max(each.per_connection for each in predicted) / KB:.1f}"
    line = fit.line
    terms = markdown_table(
        ["term", "fitted", "standard error", "predicted"],
        [
            ["base, MB", f"{line.base / MB:.1f}", error(line.base_error, MB), base],
            ["k, kB per connection", f"{line.slope / KB:.1f}", error(line.slope_error, KB), each],
        ],
    )
    runs = markdown_table(
        ["scenario, MB", "connections", "peak RSS", "blocks", "fitted", "residual", "bound", "of it"],
        [row(fit, point) for point in fit.points],
    )
    return f"{fit.server}: {len(fit.points)} runs\n\n{terms}\n\n{runs}"


def error(value: float | None, scale: float) -> str:
    """`–` where two points leave nothing to judge by."""
    return "–" if value is None else f"± {value / scale:.1f}"


def row(fit: Fit, point: Point) -> list[str]:
    """MB; the residual is what the line leaves unexplained."""
    fitted = fit.line.at(point.connections) + point.blocks
    predicted = point.run.about.predicted
    bound = "–" if predicted is None else f"{predicted.total / MB:.1f}"
    share = "–" if predicted is None else f"{point.peak / predicted.total:.0%}{' OVER' * point.over}"
    return [
        f"{point.run.scenario} {point.run.about.repeat}",
        str(point.connections),
        f"{point.peak / MB:.1f}",
        f"{point.blocks / MB:.1f}",
        f"{fitted / MB:.1f}",
        f"{(point.peak - fitted) / MB:+.1f}",
        bound,
        share,
    ]

"""Which charts a report has, and what each takes from the runs.

The rule: a chart that a run cannot fill (a peer says nothing of its inside, sampling was off) is left out
whole; no line is drawn through values that were not measured.
"""

import statistics
from collections.abc import Callable, Sequence

from perf.results.chart import SECONDS, Axis, Bars, Chart, HeatMap, Level, Lines, Mark, Series, thinned
from perf.results.estimates import percentile
from perf.results.folder import Inside, Run, Sample
from perf.results.metrics import MB, kinds_of, latencies, setting, typical

MEMORY = Axis("memory", "MB")
KINDS = (  # of memory, as they are named in a sample
    ("RSS", "rss"),
    ("PSS", "pss"),
    ("anonymous", "anonymous"),
    ("file", "file"),
    ("shared memory", "shmem"),
    ("memory cgroup", "cgroup"),
)
PERCENTILES = ((50, "50"), (75, "75"), (90, "90"), (95, "95"), (99, "99"), (100, "100"))
WINDOWS = 120  # of a line of rates, each of at least half a second
COLUMNS = 24  # of the heat map: as many numbers as can be read side by side
SHOWN = 12  # rows of tracemalloc

Pick = Callable[[Sample], float | None]


def charts_of(run: Run, prefix: str) -> list[Chart]:
    """Everything about one run, in the order of the page."""
    made = [
        memory(run, prefix),
        blocks(run, prefix),
        stages(run, prefix),
        throughput(run, prefix),
        processor(run, prefix),
        percentiles(run, prefix),
        loop_lag(run, prefix),
        *(layers(run, prefix, what) for what in ("layer", "stage")),
    ]
    return [chart for chart in made if chart is not None]


def series(run: Run, label: str, pick: Pick, scale: float = 1.0) -> Series | None:
    """A value over time from the samples that have it; None where none has."""
    points = [(sample.t, value / scale) for sample in run.samples if (value := pick(sample)) is not None]
    kept = thinned(points)
    return Series(label, [x for x, _ in kept], [y for _, y in kept]) if kept else None


def there(*found: Series | None) -> list[Series]:
    """Those that were measured."""
    return [each for each in found if each is not None]


def inside(pick: Callable[[Inside], float | None]) -> Pick:
    """The same of what the server says of itself."""
    return lambda sample: pick(sample.inside) if sample.inside else None


def marks(run: Run) -> list[Mark]:
    return [Mark(marker.t, marker.event) for marker in run.markers if marker.event != "start"]


def memory(run: Run, prefix: str) -> Chart | None:
    found = there(*(series(run, label, lambda s, name=name: getattr(s, name), MB) for label, name in KINDS))  # type: ignore[misc]  # mypy cannot type a lambda's default
    levels = [Level(run.about.predicted.total / MB, "predicted bound")] if run.about.predicted else []
    name = f"{prefix}-memory"
    return (
        Lines(name, "Memory over time, by kind", SECONDS, MEMORY, found, marks(run), levels)
        if found
        else None
    )


def blocks(run: Run, prefix: str) -> Chart | None:
    found = there(
        series(run, "in use", inside(lambda seen: seen.blocks_held)),
        series(run, "all there are", inside(lambda seen: seen.blocks_total)),
        series(run, "waited for", inside(lambda seen: seen.blocks_waiting)),
    )
    title = "The budget: blocks in use and waited for"
    y = Axis("blocks of the budget", "blocks")
    return Lines(f"{prefix}-blocks", title, SECONDS, y, found, marks(run)) if found else None


def stages(run: Run, prefix: str) -> Chart | None:
    """Means over equal stretches of time; the whole time, idle too."""
    seen = [(sample.t, sample.inside.stages) for sample in run.samples if sample.inside]
    names = list(dict.fromkeys(name for _, depths in seen for name in depths))
    if not names:
        return None
    begin, end = seen[0][0], seen[-1][0]
    width = (end - begin) / COLUMNS or 1.0
    columns: list[list[dict[str, int]]] = [[] for _ in range(COLUMNS)]
    for at, depths in seen:
        columns[min(int((at - begin) / width), COLUMNS - 1)].append(depths)
    cells = [
        [statistics.fmean(depths.get(name, 0) for depths in column) if column else 0.0 for column in columns]
        for name in names
    ]
    edges = [begin + width * at for at in range(COLUMNS + 1)]
    title = "Where blocks are: depth of each stage, mean over each stretch"
    value = Axis("depth of the stage", "blocks")
    return HeatMap(f"{prefix}-stages", title, SECONDS, Axis("stage", "by name"), value, names, edges, cells)


def rates(run: Run, label: str, pick: Callable[[Sample], float], scale: float) -> Series | None:
    """Differences of a cumulative count over windows, at the middle of each, a second's worth."""
    if len(run.samples) < 2:
        return None
    begin, end = run.samples[0].t, run.samples[-1].t
    width = max((end - begin) / WINDOWS, 0.5)
    places, values, last = [], [], run.samples[0]
    for sample in run.samples[1:]:
        if sample.t - last.t >= width or (sample is run.samples[-1] and sample.t > last.t):
            places.append((sample.t + last.t) / 2)
            values.append((pick(sample) - pick(last)) / (sample.t - last.t) / scale)
            last = sample
    return Series(label, places, values) if places else None


def throughput(run: Run, prefix: str) -> Chart | None:
    found = there(
        rates(run, "to the server", lambda sample: sample.sent, MB),
        rates(run, "to the clients", lambda sample: sample.received, MB),
    )
    y = Axis("throughput", "MB/s")
    return (
        Lines(f"{prefix}-throughput", "Throughput over time", SECONDS, y, found, marks(run))
        if found
        else None
    )


def processor(run: Run, prefix: str) -> Chart | None:
    found = there(
        rates(run, "user", lambda sample: sample.cpu_user, 1.0),
        rates(run, "system", lambda sample: sample.cpu_system, 1.0),
    )
    y = Axis("processor time of the server", "cores")
    return (
        Lines(f"{prefix}-cpu", "Processor time over time", SECONDS, y, found, marks(run)) if found else None
    )


def percentiles(run: Run, prefix: str) -> Chart | None:
    """Of the operations that succeeded, by kind; the 100th is the slowest."""
    found = []
    for kind in kinds_of([run])[:6]:
        seconds = latencies(run, kind)
        values = [percentile(seconds, share / 100) for share, _ in PERCENTILES]
        found.append(Series(f"{kind} ({len(seconds)})", list(map(float, range(len(values)))), values))
    ys = [y for each in found for y in each.y if y > 0]
    ticks = [(float(at), text) for at, (_, text) in enumerate(PERCENTILES)]
    x, y = Axis("percentile of the operations", "%"), Axis("latency", "s")
    log = bool(ys) and max(ys) > 50 * min(ys)
    name, title = f"{prefix}-latency", "Latency of whole operations, by percentile"
    return Lines(name, title, x, y, found, ticks=ticks, log=log) if found else None


def loop_lag(run: Run, prefix: str) -> Chart | None:
    found = there(series(run, "loop lag", inside(lambda seen: seen.loop_lag), 1e-3))
    y = Axis("lag of the event loop", "ms")
    return (
        Lines(f"{prefix}-lag", "Event-loop lag over time", SECONDS, y, found, marks(run)) if found else None
    )


def layers(run: Run, prefix: str, what: str) -> Chart | None:
    """Tracemalloc's bytes at each marker, the largest rows first."""
    tables: list[tuple[str, dict[str, int]]] = []
    for snapshot in run.snapshots:
        rows = snapshot.by_layer if what == "layer" else snapshot.by_stage
        tables.append((snapshot.marker, {name: size for name, size, _ in rows}))
    names = {name for _, table in tables for name in table}
    largest = sorted(names, key=lambda name: (-max(table.get(name, 0) for _, table in tables), name))[:SHOWN]
    groups = [(marker, [table.get(name, 0) / MB for name in largest]) for marker, table in tables]
    x, y = Axis("allocated by Python code, tracemalloc", "MB"), Axis(what, "by name")
    title = f"Python's allocations by {what}, at each marker"
    return Bars(f"{prefix}-by-{what}", title, x, y, largest, groups) if largest else None


# Across runs.


def against_concurrency(groups: Sequence[tuple[str, Sequence[Run]]], prefix: str) -> Chart | None:
    """Peak RSS by the most operations in flight: a series for each scenario, server and budget, medians
    with extremes; a bound for each server and budget.
    """
    by_kind: dict[str, dict[int, list[Run]]] = {}
    bounds: dict[str, dict[float, float]] = {}
    for _, runs in groups:
        for run in runs:
            if run.samples:
                at = typical(runs).connections
                by_kind.setdefault(f"{run.scenario}, {server_label(run)}", {}).setdefault(at, []).append(run)
                if run.about.predicted:
                    bounds.setdefault(server_label(run), {})[at] = run.about.predicted.total / MB
    found = []
    for label, places in by_kind.items():
        columns = sorted(places.items())
        peaks = [[run.about.outcome.peak_rss / MB for run in runs] for _, runs in columns]
        found.append(
            Series(
                label,
                [float(at) for at, _ in columns],
                [statistics.median(each) for each in peaks],
                [min(each) for each in peaks],
                [max(each) for each in peaks],
            )
        )
    for server, known in bounds.items():
        found.append(Series(f"bound of {server}", sorted(known), [known[at] for at in sorted(known)]))
    x, y = Axis("most in flight at once", "operations"), Axis("peak RSS", "MB")
    title = "Peak memory against concurrency: median of the repeats, bar from least to most"
    return Lines(f"{prefix}-concurrency", title, x, y, found) if found else None


def server_label(run: Run) -> str:
    """A server with another budget is another line."""
    budget = setting(run, "memory.budget")
    return f"{run.about.server.name}, {budget}" if budget else run.about.server.name


def side_by_side(groups: Sequence[tuple[str, Sequence[Run]]], prefix: str) -> Chart | None:
    """RSS over time of the typical run of each group, from the start of its load; six at most."""
    found, most = [], 6
    for label, runs in groups[:most]:
        run = typical(runs)
        begin = run.load[0]
        points = thinned([(s.t - begin, s.rss / MB) for s in run.samples if s.t >= begin])
        found.append(Series(label, [x for x, _ in points], [y for _, y in points]))
    found = [line for line in found if line.x]
    x = Axis("time since the start of the load", "s")
    each = f"the first {most} of {len(groups)}" if len(groups) > most else "each"
    title = f"RSS of {each} over time (the repeat with the middle peak)"
    return Lines(f"{prefix}-side-by-side", title, x, MEMORY, found) if len(found) > 1 else None

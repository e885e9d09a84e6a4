"""The report: one HTML file that needs nothing else, and its charts as PNG and SVG beside it.

The rule: nothing is loaded from anywhere, the text of a run is escaped, and what was measured stands
beside where: machine, versions, scenario, settings, limits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from perf.results.chart import Chart
from perf.results.charts import against_concurrency, charts_of, side_by_side
from perf.results.compare import flattened
from perf.results.draw import STYLE, draw
from perf.results.folder import Run
from perf.results.metrics import MB, metrics_of, summary, typical

LOOK = """
body{margin:0 auto;max-width:68rem;padding:1rem 1.5rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
:root{color-scheme:light dark}
h1{font-size:1.6rem}h2{margin-top:3rem;border-bottom:1px solid var(--rule)}
figure{margin:1.5rem 0}svg{width:100%;height:auto;font-family:system-ui,sans-serif}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left}thead+tbody td:first-child{min-width:14rem}
td.text{text-align:left;overflow-wrap:anywhere}
summary{cursor:pointer}:focus-visible{outline:2px solid var(--c0)}
@media print{details{display:block}}
"""

LEGEND = (
    "<p>MB are 10<sup>6</sup> bytes. Of several repeats tables show the median and in brackets the"
    " least and the most; charts over time show the one with the middle peak of RSS.</p>"
)

FILES = 20  # of tracemalloc's rows

Group = tuple[str, Sequence[Run]]


@dataclass(frozen=True)
class Report:
    """Where its files are."""

    html: Path
    pictures: Sequence[Path]


def write(groups: Sequence[Group], out: Path) -> Report:
    """`report.html` and the pictures of every chart into `out`, which is made. OSError if it cannot be."""
    out.mkdir(parents=True, exist_ok=True)
    pictures: list[Path] = []

    def figures(charts: Iterable[Chart | None]) -> str:
        parts = []
        for chart in charts:
            if chart is not None:
                picture = draw(chart)
                pictures.extend([out / f"{chart.name}.png", out / f"{chart.name}.svg"])
                pictures[-2].write_bytes(picture.png)
                pictures[-1].write_text(picture.file, encoding="utf-8")
                parts.append(f"<figure>{picture.svg}</figure>")
        return "\n".join(parts)

    across = figures([against_concurrency(groups, "all"), side_by_side(groups, "all")])
    sections = [
        section(label, runs, figures(charts_of(typical(runs), f"run{at}")))
        for at, (label, runs) in enumerate(groups, 1)
    ]
    html = out / "report.html"
    html.write_text(page(groups, across, sections), encoding="utf-8")
    return Report(html, pictures)


def page(groups: Sequence[Group], across: str, sections: Sequence[str]) -> str:
    """The document around the sections."""
    title = "Memory and speed: " + "; ".join(dict.fromkeys(runs[0].scenario for _, runs in groups))
    return "\n".join([
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}{LOOK}</style>\n</head>\n<body>",
        f"<h1>{escape(title)}</h1>",
        LEGEND,
        overview(groups),
        across,
        *sections,
        "</body>\n</html>\n",
    ])  # fmt: skip


def overview(groups: Sequence[Group]) -> str:
    """A row a figure, a column a group."""
    runs = [run for _, each in groups for run in each]
    rows = [
        [f"{metric.name}, {metric.unit}", *(summary(metric, each) for _, each in groups)]
        for metric in metrics_of(runs)
    ]
    rows.append(["operations that failed", *(str(failures(each)) for _, each in groups)])
    rows.append(["repeats", *(str(len(each)) for _, each in groups)])
    return table(["", *(label for label, _ in groups)], rows)


def failures(runs: Sequence[Run]) -> int:
    return sum(run.about.outcome.failed for run in runs)


def section(label: str, runs: Sequence[Run], figures: str) -> str:
    """One group: its limits, its charts, and all that is known of how it was run."""
    run = typical(runs)
    parts = [f"<h2>{escape(label)}</h2>", limits(runs), figures]
    if not run.samples:
        parts.append("<p>This run was not sampled, so there is nothing to draw over time.</p>")
    parts += [details(title, rows) for title, rows in described(run) if rows]
    parts.append(allocations(run))
    return "\n".join(part for part in parts if part)


def limits(runs: Sequence[Run]) -> str:
    """Every limit of every repeat."""
    rows = [
        [limit.name, str(run.about.repeat), number(limit.limit), number(limit.value),
         "passed" if limit.passed else "FAILED"]
        for run in runs
        for limit in run.about.outcome.limits
    ]  # fmt: skip
    return table(["limit", "repeat", "at most", "was", "verdict"], rows) if rows else ""


def number(value: float | None) -> str:
    """Bytes and counts whole, others with four digits; `–` for what was not measured."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def described(run: Run) -> list[tuple[str, list[list[str]]]]:
    """Titles with rows of name and value."""
    about = run.about
    memory = about.predicted
    terms = [] if memory is None else [
        ["base, MB", f"{memory.base / MB:.1f}"],
        ["budget, MB", f"{memory.budget / MB:.1f}"],
        ["fronts, MB", f"{memory.front / MB:.1f}"],
        ["cache, MB", f"{memory.cache / MB:.1f}"],
        ["for each connection, MB", f"{memory.per_connection / MB:.3f}"],
        ["connections", str(memory.connections)],
        ["bound, MB", f"{memory.total / MB:.1f}"],
        ["peak RSS, MB", f"{about.outcome.peak_rss / MB:.1f}"],
    ]  # fmt: skip
    cost = [] if about.sampler is None else [
        ["samples a second, asked for", f"{about.sampler.hz:g}"],
        ["samples taken", str(len(run.samples))],
        ["CPU seconds of the sampler", f"{about.sampler.cpu_seconds:.2f}"],
        ["CPU seconds of the server", f"{about.outcome.server_cpu_seconds:.2f}"],
        ["seconds of the run", f"{about.seconds:.1f}"],
    ]  # fmt: skip
    return [
        ("Memory as it was predicted", terms),
        ("Scenario", listed(about.scenario)),
        ("Settings of the server", listed(about.server.settings)),
        ("Machine", listed(about.machine)),
        ("Versions", [*listed(about.versions), ["commit", about.commit], ["seed", str(about.seed)]]),
        ("What the measuring cost", cost),
    ]


def allocations(run: Run) -> str:
    """Files by what they held at the markers, those first that changed most; "" without tracemalloc."""
    found = [
        (snapshot.marker, {name: size for name, size, _ in snapshot.by_file}) for snapshot in run.snapshots
    ]
    names = {name for _, sizes in found for name in sizes}
    if not names:
        return ""

    def spread(name: str) -> int:
        held = [sizes.get(name, 0) for _, sizes in found]
        return max(held) - min(held)

    rows = [
        [name, *(f"{sizes.get(name, 0) / MB:.3f}" for _, sizes in found)]
        for name in sorted(names, key=lambda name: (-spread(name), name))[:FILES]
    ]
    headings = ["file", *(f"{marker}, MB" for marker, _ in found)]
    summary_ = f"<summary>The {len(rows)} files whose allocations changed most (tracemalloc)</summary>"
    return f"<details>{summary_}{table(headings, rows)}</details>"


def listed(values: dict[str, object]) -> list[list[str]]:
    return [[name, text] for name, text in flattened(values).items()]


def details(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Closed until it is asked for."""
    cells = "".join(
        f'<tr><td>{escape(name)}</td><td class="text">{escape(value)}</td></tr>' for name, value in rows
    )
    return f"<details><summary>{escape(title)}</summary><table>{cells}</table></details>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

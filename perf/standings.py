"""What a speed run found: medians, spreads, ratios, as Markdown tables and as JSON.

The rule: nothing is left out. Every run that gave no figure is a remark under its table, and beside
each value stands what it cost the server and the client, so that one sees who was the bottleneck.
"""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from perf.attempt import Figure
from perf.contenders import Contender
from perf.measures import Measure, Scale
from perf.plan import MB

HEADINGS = ("", "median", "min–max", "× best peer", "CPU s per {per}", "peak RSS MB", "client CPU s", "of s")
DISTURBED = 0.25  # cores
LEGEND = """\
Every figure is from a fresh server on fresh storage, over loopback; the contenders take turns, run
after run, with the same client and the same bytes, and the median of {runs} is shown. MB are 10^6
bytes. *× best peer* is how many times better than the best registry that is not ours (larger is
better in every table). *CPU s* is user and system time of the server's processes, for each gigabyte
or thousand requests; *peak RSS* their high-water mark; *client CPU s* what the client took of the
same seconds (*of s*): near them, the client is the limit. Server and client share {cores} cores. Ours
syncs every blob to disk before it answers where nothing else is said; peers do as they do by default.
Pulls read from the page cache. Tags and referrers are pushed once to each server, and every run gets
a copy of that storage. wrk asks the GETs where a table says so, our own loop all the rest.
"""


@dataclass
class Entry:
    """One contender in one table."""

    name: str
    ours: bool
    figures: list[Figure] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(figure.value for figure in self.figures)

    @property
    def typical(self) -> Figure:
        """Medians of all that goes with the value, each by itself; the highest RSS."""

        def middle(pick: Callable[[Figure], float]) -> float:
            return statistics.median(pick(figure) for figure in self.figures)

        return Figure(
            self.median,
            middle(lambda figure: figure.amount),
            middle(lambda figure: figure.seconds),
            middle(lambda figure: figure.server_cpu),
            middle(lambda figure: figure.client_cpu),
            max(figure.peak_rss for figure in self.figures),
        )


@dataclass
class Standing:
    """One measure with everyone who took part; `remarks` say what the figures cannot."""

    measure: Measure
    entries: list[Entry]
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, measure: Measure, contenders: Sequence[Contender]) -> "Standing":
        return cls(measure, [Entry(contender.name, contender.ours) for contender in contenders])

    def entry(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    @property
    def best_peer(self) -> float | None:
        """The best median of those that are not ours."""
        medians = [entry.median for entry in self.entries if entry.figures and not entry.ours]
        if not medians:
            return None
        return min(medians) if self.measure.unit.less_is_better else max(medians)

    def ratio(self, entry: Entry) -> float | None:
        """How many times better than the best peer; None without one or without a figure."""
        best = self.best_peer
        if best is None or not entry.figures or best <= 0 or entry.median <= 0:
            return None
        return best / entry.median if self.measure.unit.less_is_better else entry.median / best


def rounded(value: float) -> str:
    """Three digits or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def row(standing: Standing, entry: Entry) -> list[str]:
    """The cells of one contender, in the order of HEADINGS."""
    if not entry.figures:
        return [entry.name, *["–"] * (len(HEADINGS) - 1)]
    unit, typical = standing.measure.unit, entry.typical
    values = [figure.value / unit.scale for figure in entry.figures]
    ratio = standing.ratio(entry)
    return [
        entry.name,
        rounded(typical.value / unit.scale),
        f"{rounded(min(values))}–{rounded(max(values))}",
        "–" if ratio is None else f"{ratio:.2f}",
        rounded(typical.server_cpu / typical.amount),
        f"{typical.peak_rss / MB:.0f}",
        f"{typical.client_cpu:.2f}",
        f"{typical.seconds:.2f}",
    ]


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Padded, so that it is read as easily in a terminal; numbers to the right."""
    widths = [max(len(line[at]) for line in [headings, *rows]) for at in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if not at else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def section(standing: Standing, scale: Scale) -> str:
    """Title, table and remarks of one measure."""
    unit = standing.measure.unit
    headings = [heading.format(per=unit.per) for heading in HEADINGS]
    aim = f", aim: {standing.measure.target:g} × the best peer" if standing.measure.target else ""
    better = " (less is better)" if unit.less_is_better else ""
    parts = [
        f"### {standing.measure.title(scale)}: {unit.label}{better}{aim}",
        markdown_table(headings, [row(standing, entry) for entry in standing.entries]),
    ]
    remarks = [*counted(standing.remarks), *disturbances(standing)]
    if remarks:
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    return "\n\n".join(parts)


def counted(remarks: Sequence[str]) -> list[str]:
    """Each once, with how often it was made."""
    return [
        f"{remark} ({remarks.count(remark)} times)" if remarks.count(remark) > 1 else remark
        for remark in dict.fromkeys(remarks)
    ]


def disturbances(standing: Standing) -> list[str]:
    """Who was measured while others (neighbours, or the kernel's writers) took much of the processor."""
    found = []
    for entry in standing.entries:
        shares = [figure.other_cpu / figure.seconds for figure in entry.figures if figure.seconds]
        if shares and max(shares) > DISTURBED:
            spread = f"{min(shares):.1f} to {max(shares):.1f}" if len(shares) > 1 else f"{shares[0]:.1f}"
            found.append(f"{entry.name}: beside it, neither server nor client, {spread} cores were busy")
    return found


def targets(standings: Sequence[Standing], scale: Scale) -> str:
    """Every aim with what the first of ours reached, "" when there is none to judge."""
    rows = []
    for standing in standings:
        first = next((entry for entry in standing.entries if entry.ours), None)
        ratio = standing.ratio(first) if first else None
        if standing.measure.target and ratio is not None:
            met = "yes" if ratio >= standing.measure.target else "no"
            title = standing.measure.title(scale)
            rows.append([title, f"{standing.measure.target:g}", f"{ratio:.2f}", met])
    return markdown_table(["against the best peer", "aim", "reached", "met"], rows) if rows else ""


def json_line(standing: Standing, scale: Scale) -> str:
    """Bytes, seconds and counts of every run, with medians and ratios, in base units."""
    servers = {
        entry.name: {
            "ours": entry.ours,
            "median": entry.median if entry.figures else None,
            "ratio_to_best_peer": standing.ratio(entry),
            "runs": [asdict(figure) for figure in entry.figures],
        }
        for entry in standing.entries
    }
    measure = standing.measure
    return json.dumps(
        {
            "measure": measure.name,
            "title": measure.title(scale),
            "unit": measure.unit.label,
            "value_divided_by": measure.unit.scale,
            "cpu_per": measure.unit.per,
            "aim": measure.target or None,
            "servers": servers,
            "remarks": counted(standing.remarks),
        },
        ensure_ascii=False,
    )


def document(head: Sequence[str], sections: Sequence[str], aims: str, *, runs: int, cores: int) -> str:
    """The whole run as a page: where, how, who, the aims, every table."""
    legend = LEGEND.format(runs=f"{runs} runs" if runs > 1 else "1 run", cores=cores)
    parts = ["\n".join(f"- {line}" for line in head), legend.rstrip(), *([aims] if aims else []), *sections]
    return "\n\n".join(parts) + "\n"

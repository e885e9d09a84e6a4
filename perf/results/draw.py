"""Charts as SVG and PNG, by matplotlib.

The rule: matplotlib is imported here only, when the first chart is drawn, since it takes a second and is
needed by nothing else. The SVG goes into a page: its colours are CSS variables, so that it follows the
page's light or dark mode, its text stays text, and nothing in it has a name that another chart's
could meet.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING

from perf.results.chart import Bars, Chart, HeatMap, Lines, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = ("c0", "c1", "c2", "c3", "c4", "c5")
# Okabe and Ito's colours, told apart by most colour-blind eyes; lighter ones on dark paper.
LIGHT = {"paper": "#ffffff", "ink": "#1b1f24", "rule": "#c9ced6"}
LIGHT |= {
    "c0": "#0072b2",
    "c1": "#c04a00",
    "c2": "#00795a",
    "c3": "#a8457f",
    "c4": "#8a6d00",
    "c5": "#4a4a4a",
}
DARK = {"paper": "#15181c", "ink": "#e6e8eb", "rule": "#3c434b"}
DARK |= dict(zip(SERIES, ("#56b4e9", "#ff9147", "#3fcf9f", "#f09ac6", "#e6c229", "#b5b5b5"), strict=True))
COLOURS = len(SERIES)
DASHES: Sequence[tuple[float, ...]] = ((), (6, 2), (1.5, 1.5), (6, 2, 1.5, 2), (3, 1), (9, 3))
MARKERS = "os^Dvx"
HATCHES = ("", "///", "\\\\\\", "xxx", "---", "|||")  # circles and dots would take 200 kB each
STEPS = 12  # of shade in a heat map; from 50 on matplotlib would paint the scale as an image
SIZE = (8.6, 3.7)  # inches
BAR = 0.15  # inches
DPI = 120  # of the PNG: 1032 × 444
CLOSE = 0.065  # of the height: labels of one line nearer than this would overlap
WIDE = 24  # letters of a label that fit beside the axes


@dataclass(frozen=True)
class Picture:
    """`svg` is an element for a page, `file` one that stands alone, `png` in the light colours."""

    name: str
    svg: str
    file: str
    png: bytes


def variables(colours: dict[str, str]) -> str:
    """As CSS declarations."""
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


STYLE = (
    f":root{{{variables(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    "svg *{stroke-linejoin:round;stroke-linecap:butt}"
)


def draw(chart: Chart) -> Picture:
    """The chart twice: once in colours that stand for variables, once in those of light paper."""
    svg = element(chart)
    file = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    file = file.replace(">", f"><style>{STYLE}svg{{background:var(--paper)}}</style>", 1)
    return Picture(chart.name, svg, file, as_png(chart, LIGHT))


def element(chart: Chart) -> str:
    """SVG for a page, in its colours."""
    stand_ins = {name: f"#0{at:x}f0e0" for at, name in enumerate(LIGHT)}
    return as_element(as_svg(chart, stand_ins), chart, stand_ins)


def as_svg(chart: Chart, colours: dict[str, str]) -> str:
    """What matplotlib writes. The salt makes names the same each time and other for each chart."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": chart.name, "path.simplify": False}):
        out = io.StringIO()
        nobody = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure(chart, colours).savefig(out, format="svg", metadata=nobody)
        return out.getvalue()


def as_png(chart: Chart, colours: dict[str, str]) -> bytes:
    out = io.BytesIO()
    figure(chart, colours).savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def as_element(svg: str, chart: Chart, colours: dict[str, str]) -> str:
    """Without prologue, style and namespaces, which a page gives; titled; in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    # line2d_7, matplotlib.axis_1: every chart has them, and nothing refers to them
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg, count=2)
    for name, colour in colours.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped(chart.title)}" ', 1).strip()


def escaped(text: str) -> str:
    """For an attribute."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def figure(chart: Chart, colours: dict[str, str]) -> "Figure":
    """Axes with titles and units, and what the kind of chart puts between them."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": "sans-serif", "font.size": 9, "hatch.linewidth": 0.6}):
        width, height = size_of(chart)
        made = Figure(figsize=(width, height), facecolor=colours["paper"])
        left = 0.09 if isinstance(chart, Lines) else 0.14 if isinstance(chart, HeatMap) else 0.24
        axes = made.add_axes((left, 0.52 / height, 0.81 - left, 1 - 0.96 / height))
        axes.set_facecolor(colours["paper"])
        axes.set_title(chart.title, loc="left", color=colours["ink"], fontsize=10, pad=16)
        axes.set_xlabel(str(chart.x), color=colours["ink"])
        axes.set_ylabel(str(chart.y), color=colours["ink"])
        axes.yaxis.set_label_coords((0.022 - left) / (0.81 - left), 0.5)
        axes.tick_params(colors=colours["ink"], labelcolor=colours["ink"])
        for side, spine in axes.spines.items():
            spine.set_color(colours["rule"])
            spine.set_visible(side in ("left", "bottom"))
        if isinstance(chart, Lines):
            lines(axes, chart, colours)
        elif isinstance(chart, HeatMap):
            heat_map(made, axes, chart, colours)
        else:
            bars(axes, chart, colours)
        return made


def size_of(chart: Chart) -> tuple[float, float]:
    """Inches; higher where bars would be too thin for the number behind them."""
    bars_there = len(chart.rows) * len(chart.groups) if isinstance(chart, Bars) else 0
    return SIZE[0], max(SIZE[1], 1.2 + BAR * bars_there)


def lines(axes: "Axes", chart: Lines, colours: dict[str, str]) -> None:
    """Lines or points, the moments and levels across them, and a label at the end of each."""
    axes.grid(visible=True, color=colours["rule"], linewidth=0.4)
    if chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    for at, series in enumerate(chart.series):
        line(axes, series, at, colours)
    if chart.ticks:
        axes.set_xticks([place for place, _ in chart.ticks], [text for _, text in chart.ticks])
    if not chart.log:
        highest = max((level.y for level in chart.levels), default=0.0)
        axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1], highest * 1.05) or 1)
    axes.set_xlim(*room(chart))
    ends = [(series.y[-1], series.x[-1], series.label, colours[f"c{at % COLOURS}"])
            for at, series in enumerate(chart.series) if series.x]  # fmt: skip
    for level in chart.levels:
        axes.axhline(level.y, color=colours["ink"], linewidth=0.9, dashes=(2, 3))
        ends.append((level.y, axes.get_xlim()[1], level.text, colours["ink"]))
    label_ends(axes, ends)
    moments(axes, chart, colours)


def room(chart: Lines) -> tuple[float, float]:
    """From 0 where time or a count begins there, a little beyond the last point."""
    places = [x for series in chart.series for x in series.x] + [place for place, _ in chart.ticks]
    places += [mark.x for mark in chart.marks]
    last = max(places, default=1.0)
    return 0 if not chart.ticks else min(places) - 0.2, last * 1.02 or 1.0


def line(axes: "Axes", series: Series, at: int, colours: dict[str, str]) -> None:
    """A dozen markers on a long line; every point marked and a bar through it where extremes are known."""
    colour, marker = colours[f"c{at % COLOURS}"], MARKERS[at % len(MARKERS)]
    if series.low:
        axes.vlines(series.x, series.low, series.high, colors=colour, linewidth=1.2)
    step = max(len(series.x) // 12, 1)
    [drawn] = axes.plot(
        series.x, series.y, color=colour, linewidth=1.3, marker=marker, markersize=4,
        markevery=(at % step, step) if not series.low else None,
    )  # fmt: skip
    if DASHES[at % len(DASHES)]:
        drawn.set_dashes(DASHES[at % len(DASHES)])


def label_ends(axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """Labels to the right of the axes, moved apart where they would overlap, each with a thin line
    to the end it names.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    ends.sort(key=lambda end: end[0])
    texts = [fill(text, WIDE) for _, _, text, _ in ends]
    apart = [CLOSE * (1 + below.count("\n") / 2 + above.count("\n") / 2) for below, above in pairwise(texts)]
    places: list[float] = []
    for (y, x, _, _), gap in zip(ends, [0.0, *apart], strict=False):
        place = float(to_share.transform((x, y))[1])
        places.append(max(place, places[-1] + gap) if places else max(place, 0.0))
    if places and places[-1] > 1.02:  # push them back down from the top
        places[-1] = 1.02
        for at in range(len(places) - 2, -1, -1):
            places[at] = min(places[at], places[at + 1] - apart[at])
    for place, text, (y, x, _, colour) in zip(places, texts, ends, strict=True):
        axes.annotate(
            text, xy=(x, y), xytext=(1.025, place), textcoords="axes fraction", color=colour,
            fontsize=8, verticalalignment="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5},
        )  # fmt: skip


def moments(axes: "Axes", chart: Lines, colours: dict[str, str]) -> None:
    """Vertical lines with their names above the axes, those too near together under one."""
    low, high = axes.get_xlim()
    texts: list[tuple[float, str]] = []
    for mark in sorted(chart.marks, key=lambda mark: mark.x):
        axes.axvline(mark.x, color=colours["ink"], linewidth=0.7, dashes=(1, 2))
        if texts and mark.x - texts[-1][0] < (high - low) * 0.012 * (len(texts[-1][1]) + 1):
            texts[-1] = (texts[-1][0], f"{texts[-1][1]}, {mark.text}")
        else:
            texts.append((mark.x, mark.text))
    for x, text in texts:
        axes.annotate(
            text, xy=(x, 1.01), xycoords=("data", "axes fraction"), color=colours["ink"], fontsize=7.5
        )


def heat_map(made: "Figure", axes: "Axes", chart: HeatMap, colours: dict[str, str]) -> None:
    """Cells from light to dark with their numbers in them, and the scale beside."""
    import matplotlib as mpl

    highest = max((value for row in chart.cells for value in row), default=0.0)
    mesh = axes.pcolormesh(
        list(chart.edges), list(range(len(chart.rows) + 1)), [list(row) for row in chart.cells],
        cmap=mpl.colormaps["Blues"].resampled(STEPS), vmin=0, vmax=highest or 1,
    )  # fmt: skip
    axes.set_yticks([at + 0.5 for at in range(len(chart.rows))], list(chart.rows))
    axes.invert_yaxis()
    for at, row in enumerate(chart.cells):
        for column, value in enumerate(row):
            middle = (chart.edges[column] + chart.edges[column + 1]) / 2
            dark = value > highest * 0.6
            axes.text(
                middle, at + 0.5, f"{value:.0f}", fontsize=6.5, color="#ffffff" if dark else "#000000",
                horizontalalignment="center", verticalalignment="center",
            )  # fmt: skip
    scale = made.colorbar(mesh, cax=made.add_axes((0.84, 0.14, 0.02, 0.74)))
    scale.set_label(str(chart.value), color=colours["ink"])
    scale.ax.tick_params(colors=colours["ink"], labelcolor=colours["ink"])


def bars(axes: "Axes", chart: Bars, colours: dict[str, str]) -> None:
    """Hatched bars with their value behind them, and the groups' names in a legend of hatches."""
    height = 0.8 / max(len(chart.groups), 1)
    for at, (label, values) in enumerate(chart.groups):
        places = [row + (at + 0.5) * height - 0.4 for row in range(len(chart.rows))]
        drawn = axes.barh(
            places, list(values), height, label=label, facecolor=colours["paper"],
            edgecolor=colours[f"c{at % COLOURS}"], hatch=HATCHES[at % len(HATCHES)],
        )  # fmt: skip
        axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize=7, color=colours["ink"])
    axes.set_yticks(range(len(chart.rows)), list(chart.rows))
    axes.invert_yaxis()
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(colours["ink"])

"""What is made of run folders: read with clear errors, drawn, compared, fitted."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from runs import MB, write_repeats, write_run

from perf.__main__ import main
from perf.results.chart import Axis, Bars, Chart, HeatMap, Lines, Series
from perf.results.charts import against_concurrency, charts_of, side_by_side
from perf.results.commands import labelled, share
from perf.results.compare import differences, flattened
from perf.results.draw import DASHES, MARKERS, SERIES, draw, element, escaped
from perf.results.folder import BadRun, read_group, read_run
from perf.results.formula import fits
from perf.results.metrics import cpu_per_gb, growth, latency, throughput, typical

UNITS = {"s", "ms", "%", "MB", "MB/s", "cores", "blocks", "operations", "by name"}
VOID = {"meta", "br", "hr", "img", "input", "link"}

# Reading.


def test_a_folder_is_read_whole(tmp_path: Path) -> None:
    """Samples, operations, markers and snapshots, each in order of time."""
    run = read_run(write_run(tmp_path / "one"))
    assert (run.scenario, run.connections, len(run.samples), len(run.operations)) == ("uploads", 20, 200, 200)
    assert [marker.event for marker in run.markers][:3] == ["start", "idle", "load"]
    assert [snapshot.marker for snapshot in run.snapshots] == ["idle", "peak", "after"]
    assert run.load == pytest.approx((2.0, 16.0))


def test_repeats_are_read_by_number(tmp_path: Path) -> None:
    """10 comes after 9; other folders beside them are not runs."""
    write_repeats(tmp_path, 10)
    (tmp_path / "notes").mkdir()
    assert [run.about.repeat for run in read_group(tmp_path)] == list(range(1, 11))


def breakages() -> list[tuple[str, str, str]]:
    """File, what is in it, what the error says."""
    return [
        ("run.json", "", "run.json: "),
        ("run.json", '{"format": 1}', "missing required field `scenario`"),
        ("run.json", "[1]", "Expected `object`"),
        ("samples.jsonl", '{"t": 0, "rss": 1}\n{"t": 1, "rss": "x"}\n', r"line 2: Expected `int`.*\$\.rss"),
        ("samples.jsonl", '{"t": 0, "rss": 1}\n{"t": 1, "r', "line 2: "),
        ("events.jsonl", '{"event": "load"}\n', "line 1: .*missing required field `t`"),
        ("snapshots/idle.json", "{}", "idle.json: .*missing required field"),
    ]


@pytest.mark.parametrize(("name", "text", "said"), breakages())
def test_a_folder_that_is_not_whole_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    """Every command says which file, which line and which field, and exits 2; no traceback."""
    (write_run(tmp_path / "one") / name).write_text(text)
    for command in (["report"], ["formula"], ["compare", str(tmp_path / "one")]):
        assert main([*command, str(tmp_path / "one")]) == 2
        assert re.search(said, capsys.readouterr().err)


def test_a_missing_file_and_another_format_are_named(tmp_path: Path) -> None:
    """Nothing there, a file gone, a format of the future."""
    with pytest.raises(BadRun, match=r"neither run\.json nor"):
        read_group(tmp_path)
    folder = write_run(tmp_path / "one")
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(BadRun, match="format 2; only 1 is known"):
        read_run(folder)
    (folder / "run.json").write_text(json.dumps(about | {"scenario": {}}))
    with pytest.raises(BadRun, match="scenario has no name"):
        read_run(folder)
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "events.jsonl").unlink()
    with pytest.raises(BadRun, match=r"events.jsonl: No such file"):
        read_run(folder)


# Figures.


def test_figures_of_a_known_run(tmp_path: Path) -> None:
    """2 GB in 14 s for 2 CPU seconds; memory that stands still; few operations have no 99th percentile."""
    run = read_run(write_run(tmp_path / "one", noise=0))
    assert throughput(run) == pytest.approx(2e9 / 14)
    assert cpu_per_gb(run) == pytest.approx(1.0)
    assert growth(run) == 0
    assert latency(0.99, "push", run) is not None
    assert latency(0.5, "pull", run) is None
    few = read_run(write_run(tmp_path / "few", clients=5))
    assert latency(0.99, "push", few) is None
    assert latency(0.5, "push", few) is not None


def test_growth_is_what_the_second_half_of_the_load_adds(tmp_path: Path) -> None:
    """1 MB a second over the 7 s of it."""
    folder = write_run(tmp_path / "one")
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    rows = [json.dumps(line | {"rss": 40 * MB + int(line["t"] * MB)}) for line in lines]
    (folder / "samples.jsonl").write_text("\n".join(rows))
    assert growth(read_run(folder)) == pytest.approx(7 * MB, rel=0.001)


def test_the_typical_repeat_has_the_middle_peak(tmp_path: Path) -> None:
    """Neither the first nor the worst stands for all."""
    for repeat, peak in enumerate((90, 70, 80), 1):
        write_run(tmp_path / str(repeat), repeat=repeat, peak=peak * MB, noise=0)
    assert typical(read_group(tmp_path)).about.outcome.peak_rss == 80 * MB


# Charts.


def test_every_chart_is_made_of_a_whole_run(tmp_path: Path) -> None:
    """One of each; of a peer those that look from outside; without samples those of the operations."""
    whole = charts_of(read_run(write_run(tmp_path / "ours")), "x")
    names = ["memory", "blocks", "stages", "throughput", "cpu", "latency", "lag", "by-layer"]
    assert [chart.name for chart in whole] == [f"x-{name}" for name in names]
    peer = charts_of(read_run(write_run(tmp_path / "peer", inside=False)), "x")
    assert {"x-memory", "x-throughput"} <= {chart.name for chart in peer}
    assert not {"x-blocks", "x-stages", "x-lag"} & {chart.name for chart in peer}
    folder = write_run(tmp_path / "unsampled")
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(about | {"sampler": None}))
    (folder / "samples.jsonl").unlink()
    assert [chart.name for chart in charts_of(read_run(folder), "x")] == ["x-latency", "x-by-layer"]


def every_chart(folder: Path) -> list[Chart]:
    groups = [(str(n), [read_run(write_run(folder / str(n), clients=n))]) for n in (10, 20)]
    made = [against_concurrency(groups, "all"), side_by_side(groups, "all")]
    return [chart for chart in made if chart] + charts_of(groups[0][1][0], "x")


def test_every_plot_has_axis_titles_with_units(tmp_path: Path) -> None:
    """In the values and, as text that can be read and searched, in the SVG."""
    for chart in every_chart(tmp_path):
        text = "".join(ET.fromstring(element(chart)).itertext())
        for axis in (chart.x, chart.y):
            assert axis.unit in UNITS
            assert str(axis) in text
        assert chart.title in text
    with pytest.raises(ValueError, match="without title or unit"):
        Axis("memory", "")


def test_plots_can_be_read_without_colour() -> None:
    """Each line has a dash pattern and a marker that no other has, and its name at its end; a bar its
    hatch; a cell its number.
    """
    assert len(set(DASHES)) == len(set(MARKERS)) == len(SERIES)
    x, y = Axis("time", "s"), Axis("memory", "MB")
    lines = [Series(f"line {at}", [0.0, 1.0], [at, at + 1.0]) for at in range(len(SERIES))]
    svg = element(Lines("lines", "Lines", x, y, lines))
    assert all(f">line {at}</text>" in svg for at in range(len(SERIES)))
    assert len(set(re.findall(r"stroke-dasharray: ([\d., ]+)", svg))) >= len(SERIES) - 1
    cells = element(
        HeatMap("heat", "Heat", x, y, Axis("depth", "blocks"), ["a", "b"], [0, 1, 2], [[3, 17], [5, 0]])
    )
    assert all(f">{number}</text>" in cells for number in (3, 17, 5, 0))
    bars = element(Bars("bars", "Bars", y, x, ["a"], [("idle", [1.0]), ("peak", [3.25])]))
    assert ">3.25</text>" in bars
    assert bars.count("<pattern") == 1  # the first group is plain, the second hatched


def test_the_same_values_make_the_same_picture(tmp_path: Path) -> None:
    """Pictures that are committed change when the figures do, and then only."""
    chart = charts_of(read_run(write_run(tmp_path / "one")), "x")[0]
    assert draw(chart) == draw(chart)
    assert draw(chart).png.startswith(b"\x89PNG")


def test_a_title_cannot_break_out_of_its_attribute() -> None:
    """Titles are ours today; the SVG does not rely on that."""
    assert escaped('a"b<c&') == "a&quot;b&lt;c&amp;"


# The page.


class Wellformed(HTMLParser):
    """Every tag that opens closes, inside the one it opened in; names are unique."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.names += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Well-formed, no address in it, every reference leads inside, no script; text of a run is escaped;
    dark mode by variables; each chart beside it as PNG and as SVG.
    """
    write_repeats(tmp_path / "ours", 2)
    write_run(tmp_path / "peer", server="peer", inside=False)
    out = tmp_path / "out"
    assert main(["report", str(tmp_path / "ours"), str(tmp_path / "peer"), "--out", str(out)]) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    page = (out / "report.html").read_text()
    parsed = Wellformed()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    assert len(parsed.names) == len(set(parsed.names))
    assert parsed.links
    assert all(link[0] == "#" and link[1:] in parsed.names for link in parsed.links)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(parsed.names)
    assert not re.search(r"://|<script|@import|url\((?!#)|//[a-z]", page)
    assert "a processor &amp; more" in page
    assert "prefers-color-scheme:dark" in page
    assert "<td>trioreg/pipeline/pump.py</td><td>1.000</td><td>3.000</td><td>1.000</td>" in page
    assert "var(--c1)" in page
    pictures = {file.name for file in out.iterdir()} - {"report.html"}
    assert len(pictures) == 2 * page.count("<figure>")
    for file in out.glob("*.svg"):
        assert ET.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_groups_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    """Scenario and server; the setting that differs; at last the folder."""
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", budget="16MiB")
    peer = write_run(tmp_path / "peer", server="peer")
    found = [(path, read_group(path)) for path in (one, two, peer)]
    labels = [label for label, _ in labelled(found)]
    ours = [f"uploads, trioreg, memory.budget={budget}" for budget in ("48MiB", "16MiB")]
    assert labels == [*ours, "uploads, peer"]
    folder = write_run(tmp_path / "default")
    about = json.loads((folder / "run.json").read_text())
    about["server"]["settings"] = {}
    (folder / "run.json").write_text(json.dumps(about))
    unset = labelled([(folder, read_group(folder)), (two, read_group(two))])
    assert [label for label, _ in unset] == ours
    same = [label for label, _ in labelled([(one, read_group(one)), (one, read_group(one))])]
    assert all("one" in label for label in same)


def test_tables_become_dotted_names() -> None:
    """Lists of tables by name or place; what is not set is left out."""
    groups = [{"name": "slow", "clients": 2, "rate": None}, {"clients": 3, "sizes": [1, 2]}]
    assert flattened({"group": groups, "seed": 0, "mix": {}}) == {
        "group.slow.name": "slow",
        "group.slow.clients": "2",
        "group.2.clients": "3",
        "group.2.sizes": "1, 2",
        "seed": "0",
    }


# Comparison.


def compare(folder: Path, **after: float) -> dict[str, str]:
    """Verdicts on five repeats of either side."""
    before = read_group(write_repeats(folder / "a", 5, seed=1))
    changed = read_group(write_repeats(folder / "b", 5, seed=2, **after))
    return {each.metric.name: each.verdict for each in differences(before, changed, 0.05)}


def test_a_planted_tenth_is_found(tmp_path: Path) -> None:
    """10 % more memory amid 1 % of noise is worse; 10 % less is better; 3 % more is within the threshold."""
    assert compare(tmp_path / "more", peak=88 * MB)["peak RSS"] == "WORSE"
    assert compare(tmp_path / "less", peak=72 * MB)["peak RSS"] == "better"
    assert compare(tmp_path / "little", peak=82.4 * MB)["peak RSS"] == "worse, within the threshold"


def test_slower_is_found_in_latency_and_cpu(tmp_path: Path) -> None:
    """A tenth slower in each of them, and memory is not blamed for it."""
    found = compare(tmp_path, slowness=1.1)
    assert found["push latency, median"] == found["server CPU"] == "WORSE"
    assert found["peak RSS"] == "no difference shown"


def test_noise_is_not_cried_over(tmp_path: Path) -> None:
    """Twenty comparisons of ten repeats of the same thing: none fails, however they are dealt."""
    runs = read_group(write_repeats(tmp_path, 12, noise=0.1))
    for shift in range(12):
        turned = runs[shift:] + runs[:shift]
        found = differences(turned[::2], turned[1::2], 0.05)
        assert len(found) == 6
        assert not any(difference.failed for difference in found)


def test_few_repeats_are_too_few_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three of each cannot be judged: said so, and with a threshold asked for that is no success."""
    for name, peak in (("a", 80), ("b", 160)):
        write_repeats(tmp_path / name, 3, seed=peak, peak=peak * MB)
    sides = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["compare", *sides]) == 0
    said = capsys.readouterr().out
    assert "too few to tell" in said
    assert "need 5 of each" in said
    assert main(["compare", *sides, "--threshold", "5%"]) == 2


def test_the_exit_code_tells_worse_from_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 past the threshold, 0 the other way round, 0 with a threshold that allows it."""
    write_repeats(tmp_path / "a", 5, seed=1)
    write_repeats(tmp_path / "b", 5, seed=2, peak=88 * MB, clients=21)
    sides = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["compare", *sides]) == 1
    said = capsys.readouterr().out
    assert re.search(r"peak RSS, MB .* WORSE", said)
    assert "scenario.clients: 20 → 21" in said
    assert main(["compare", *sides[::-1], "--threshold", "60%"]) == 0
    assert main(["compare", *sides, "--threshold", "15%"]) == 0


def test_failed_operations_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A faster server that fails pushes is not praised without a word."""
    folder = write_run(tmp_path / "a")
    about = json.loads((folder / "run.json").read_text())
    about["outcome"]["failed"] = 3
    (folder / "run.json").write_text(json.dumps(about))
    main(["compare", str(folder), str(folder)])
    assert "A: 3 operations failed" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0)])
def test_thresholds(text: str, value: float) -> None:
    """Percent or a share."""
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["-1%", "much", "nan", "inf"])
def test_thresholds_that_are_none(text: str) -> None:
    """Refused by argparse, which exits 2."""
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "a", "b", f"--threshold={text}"])
    assert exit_.value.code == 2


# The formula.


def test_the_formula_finds_base_and_k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs made with a base of 40 MB, 100 blocks of 256 KiB and 50 kB a connection give these back."""
    blocks = 100 * 262_144
    folders = []
    for clients in (10, 50, 100):
        peak = 40 * MB + blocks + 50_000 * clients
        folder = write_run(tmp_path / str(clients), clients=clients, peak=peak, noise=0)
        about = json.loads((folder / "run.json").read_text())
        about["server"]["settings"]["memory.block"] = "256KiB"
        (folder / "run.json").write_text(json.dumps(about))
        folders.append(folder)
    [fit] = fits([read_run(folder) for folder in folders])
    assert fit.line.base == pytest.approx(40 * MB)
    assert fit.line.slope == pytest.approx(50_000)
    assert main(["formula", *map(str, folders)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"base, MB +\| +40\.0 .* 32\.0 \|", said)
    assert re.search(r"k, kB per connection \| +50\.0 .* 63\.0 \|", said)
    assert said.count("+0.0 |") + said.count("-0.0 |") == 3


def test_a_peak_above_its_bound_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bound is a promise: the run that broke it is marked, and the exit code is 1."""
    write_run(tmp_path / "one", clients=10, noise=0)
    write_run(tmp_path / "two", clients=50, peak=130 * MB, noise=0)
    assert main(["formula", str(tmp_path / "one"), str(tmp_path / "two")]) == 1
    assert re.search(r"110% OVER", capsys.readouterr().out)


def test_one_number_of_connections_fits_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clearly said, and 2."""
    write_repeats(tmp_path, 3)
    assert main(["formula", str(tmp_path)]) == 2
    assert "every run had 20 connections" in capsys.readouterr().err

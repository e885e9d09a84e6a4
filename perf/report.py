"""What is printed: one JSON line a case, and a table of all of them."""

import json
from dataclasses import asdict

from perf.plan import MB
from perf.run import Outcome

HEADINGS = (
    "case",
    "verdict",
    "held",
    "limit",
    "aim",
    "base",
    "peak",
    "anon",
    "file",
    "threads",
    "fds",
    "open",
    "MB/s",
    "cpu-s/GB",
    "done",
    "failed",
)
LEGEND = (
    "MB are 10^6 bytes. held: the figure the limit is about; base and peak: RSS of the process tree"
    " before and at most (samples and VmHWM); anon, file: highest proportional shares; open: most"
    " uploads open at once; cpu-s/GB: of the server."
)


def json_line(outcome: Outcome) -> str:
    """Bytes, seconds and counts; the verdict and the two ratios are added."""
    values = asdict(outcome)
    del values["peak"]["at"], values["peak"]["cpu"]
    values["verdict"] = outcome.verdict
    values["bytes_per_second"] = outcome.rate
    values["server_cpu_seconds_per_gb"] = outcome.server_cpu_per_gb
    return json.dumps(values)


def table(outcomes: list[Outcome]) -> str:
    """Aligned columns, then notes and failures by case, then what the columns mean."""
    rows = [list(HEADINGS), *(row(outcome) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(HEADINGS))]
    lines = []
    for line in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    for outcome in outcomes:
        lines += [f"{outcome.name}: {text}" for text in remarks(outcome)]
    return "\n".join([*lines, LEGEND])


def row(outcome: Outcome) -> list[str]:
    """The cells of one case, in the order of HEADINGS."""
    peak = outcome.peak
    return [
        outcome.name,
        outcome.verdict,
        f"{megabytes(outcome.held)} {outcome.what}" if outcome.held is not None else "-",
        megabytes(outcome.limit),
        megabytes(outcome.aim),
        megabytes(outcome.base or None),
        megabytes(peak.rss or None),
        megabytes(peak.anonymous or None),
        megabytes(peak.file or None),
        str(peak.threads or "-"),
        str(peak.descriptors or "-"),
        str(outcome.open_peak or "-"),
        "-" if outcome.rate is None else f"{outcome.rate / MB:.0f}",
        "-" if outcome.server_cpu_per_gb is None else f"{outcome.server_cpu_per_gb:.2f}",
        str(outcome.done),
        str(outcome.failed),
    ]


def remarks(outcome: Outcome) -> list[str]:
    """What the cells cannot say, a line each."""
    found = [f"skipped, {outcome.skipped}"] if outcome.skipped else []
    found += outcome.notes
    if outcome.asked_to_wait:
        found.append(f"{outcome.asked_to_wait} times a client was told 429 at POST and came back")
    if outcome.aim is not None and outcome.held is not None and outcome.held > outcome.aim:
        found.append(f"misses its aim of {megabytes(outcome.aim)} MB")
    return found + [f"FAILED: {failure}" for failure in outcome.failures]


def megabytes(value: int | None) -> str:
    """10^6 bytes, one decimal; `-` for None."""
    return "-" if value is None else f"{value / MB:.1f}"

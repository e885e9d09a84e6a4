"""`python -m perf soak`: everything at once for minutes, and whether memory grew meanwhile.

The rule: the tolerance is named in bytes an operation before the run, because a leak is per something
that was done; the slope over time is held against it at the rate that was really reached.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from perf.harness.command import add_how, options_of, scenario_of, summary
from perf.harness.folder import FolderTaken
from perf.harness.life import run_scenario
from perf.harness.limits import kept
from perf.harness.reading import ScenarioError
from perf.harness.scenario import Scenario
from perf.harness.slope import CONFIDENCE, Fit, Point, TooShort, Verdict, fit
from perf.server import raise_descriptor_limit

WARM_UP = 0.25  # of the load: caches fill, the heap finds its size
TOLERANCE = 100.0  # bytes an operation: less than any object that could be kept by mistake a few times
CODES: dict[Verdict, int] = {"no leak": 0, "leak": 1, "undecided": 3}
MINUTE = 60


@dataclass(frozen=True)
class Soak:
    """The answer, as soak.json holds it: slopes and tolerance in bytes a minute."""

    verdict: Verdict
    slope: float
    low: float
    high: float
    confidence: float
    tolerance: float
    per_thousand: float  # bytes, by the slope, for a thousand operations
    operations_a_minute: float
    bins: int
    warm_up: float  # seconds left out

    def line(self) -> str:
        return (
            f"{self.verdict}: RSS moves by {self.slope / 1e3:+,.1f} kB a minute "
            f"({self.confidence:.0%}: {self.low / 1e3:+,.1f} to {self.high / 1e3:+,.1f}), "
            f"{self.per_thousand / 1e3:+,.2f} kB per 1,000 operations; "
            f"tolerance {self.tolerance / 1e3:,.1f} kB a minute"
        )


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--minutes", type=float, default=5.0, help="of load; 5")
    command.add_argument("--scenario", default="soak", help="whose groups have seconds; soak")
    command.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"bytes an operation that are no leak; {TOLERANCE:.0f}",
    )
    command.add_argument("--out", type=Path, default=Path("runs/soak"), metavar="DIR", help="for results")
    add_how(command)


def soak_command(options: argparse.Namespace) -> int:
    """`soak`: 0 no leak, 1 a leak or a limit that was passed, 2 it cannot be run, 3 undecided."""
    raise_descriptor_limit()
    try:
        scenario = lasting(scenario_of(options.scenario, options), options.minutes * MINUTE)
        result = run_scenario(scenario, options_of(options), options.out / "1")
    except (ScenarioError, FolderTaken) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"# {options.out / '1'}")
    print("\n".join(summary(result)))
    if not kept(result["outcome"]["limits"]):
        return 1
    try:
        answer = judge(options.out / "1", result, options.tolerance)
    except TooShort as error:
        print(f"undecided: {error}")
        return CODES["undecided"]
    (options.out / "1" / "soak.json").write_text(json.dumps(asdict(answer), indent=1) + "\n")
    print(answer.line())
    return CODES[answer.verdict]


def lasting(scenario: Scenario, seconds: float) -> Scenario:
    """The same for so many seconds. ScenarioError when its groups do not go by time."""
    if not all(group.seconds for group in scenario.group):
        raise ScenarioError(f"{scenario.name}: a soak needs groups with seconds")
    groups = [msgspec.structs.replace(group, seconds=seconds) for group in scenario.group]
    return msgspec.structs.replace(scenario, group=groups, seconds=seconds + scenario.seconds)


def judge(folder: Path, result: dict[str, Any], tolerance: float) -> Soak:
    """From the folder of a run; `tolerance` in bytes an operation. TooShort with too few samples."""
    seconds = result["outcome"]["load_seconds"]
    warm_up = seconds * WARM_UP
    found = fit(points(folder, warm_up))
    rate = result["outcome"]["operations"] / seconds
    return answer(found, rate, tolerance, warm_up)


def answer(found: Fit, rate: float, tolerance: float, warm_up: float) -> Soak:
    """`rate` in operations a second, `tolerance` in bytes an operation."""
    return Soak(
        verdict=found.verdict(tolerance * rate),
        slope=found.slope * MINUTE,
        low=found.low * MINUTE,
        high=found.high * MINUTE,
        confidence=CONFIDENCE,
        tolerance=tolerance * rate * MINUTE,
        per_thousand=found.slope / rate * 1000,
        operations_a_minute=rate * MINUTE,
        bins=found.bins,
        warm_up=warm_up,
    )


def points(folder: Path, warm_up: float) -> list[Point]:
    """RSS over time from `warm_up` seconds after the load began until all were through."""
    moments = {}
    for text in (folder / "events.jsonl").read_text().splitlines():
        event = json.loads(text)
        if event["event"] in ("load", "drained"):
            moments[event["event"]] = event["t"]
    begin, end = moments["load"] + warm_up, moments["drained"]
    with (folder / "samples.jsonl").open() as samples:
        rows = (json.loads(text) for text in samples)
        return [(row["t"], row["rss"]) for row in rows if begin <= row["t"] <= end]

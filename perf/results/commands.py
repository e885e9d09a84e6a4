"""`report`, `compare` and `formula`: parsers, and functions from options to exit codes.

Codes: 0; 1 when something is worse than it may be; 2 for a folder or an option that cannot be used.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perf.results import compare, formula
from perf.results.compare import flattened
from perf.results.folder import BadRun, Run, read_group
from perf.results.metrics import DEFAULTS, setting
from perf.results.page import Group, write

if TYPE_CHECKING:  # the class is private, and generic to type checkers only
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

RUN = "a run's folder, or one with repeats (1, 2, …) in it"
THRESHOLD = 0.05  # share of A's figure


def add_commands(commands: "Commands") -> None:
    """Each with its options."""
    report = commands.add_parser("report", help="make an HTML page and pictures of runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    where = "where to (default perf-report)"
    report.add_argument("--out", type=Path, default=Path("perf-report"), metavar="DIR", help=where)
    report.set_defaults(run=told(run_report))
    pair = commands.add_parser("compare", help="say what changed between two sets of repeats")
    pair.add_argument("before", type=Path, metavar="A", help=RUN)
    pair.add_argument("after", type=Path, metavar="B", help=RUN)
    judged = "fail past it (default 5%%); when it is given, too few repeats to tell are an error"
    pair.add_argument("--threshold", type=share, metavar="SHARE", help=judged)
    pair.set_defaults(run=told(run_compare))
    fit = commands.add_parser("formula", help="fit base and k of the memory formula to runs")
    fit.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=RUN)
    fit.set_defaults(run=told(run_formula))


def told(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The same, with what cannot be read or written said in a line, and 2."""

    def run(options: argparse.Namespace) -> int:
        try:
            return command(options)
        except (BadRun, OSError) as error:
            print(f"{options.command}: {error}", file=sys.stderr)
            return 2

    return run


def share(text: str) -> float:
    """`5%` or `0.05`. ValueError for what is neither or negative."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a share")
    return value


def run_report(options: argparse.Namespace) -> int:
    """`report`: read all, then write, then say where."""
    made = write(labelled([(path, read_group(path)) for path in options.runs]), options.out)
    print(f"{made.html.resolve()}, and {len(made.pictures)} pictures beside it")
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """`compare`: 1 if a figure is worse than the threshold allows and chance is unlikely to be the cause."""
    before, after = read_group(options.before), read_group(options.after)
    asked = options.threshold is not None
    found = compare.differences(before, after, options.threshold if asked else THRESHOLD)
    if not found:
        raise BadRun(f"{options.before} and {options.after} have no figure in common")
    print(compare.table(found, before, after))
    print(*compare.remarks(found, before, after), sep="\n")
    if any(difference.failed for difference in found):
        return 1
    return 2 if asked and not all(difference.enough for difference in found) else 0


def run_formula(options: argparse.Namespace) -> int:
    """`formula`: 1 if a run peaked above the bound that was predicted for it."""
    runs = [run for path in options.runs for run in read_group(path)]
    fits = formula.fits(runs)
    print("\n\n".join(formula.described(fit) for fit in fits))
    return int(any(point.over for fit in fits for point in fit.points))


def labelled(found: Sequence[tuple[Path, Sequence[Run]]]) -> list[Group]:
    """Groups by scenario and server; where two are alike, by the settings in which they differ or,
    failing that, by their folder.
    """
    names = [f"{runs[0].scenario}, {runs[0].about.server.name}" for _, runs in found]
    labels = []
    for name, (path, runs) in zip(names, found, strict=True):
        like = [others[0] for other, (_, others) in zip(names, found, strict=True) if other == name]
        differing = settings_apart(runs[0], like)
        labels.append(name if len(like) == 1 else f"{name}, {differing or path.name}")
    if len(set(labels)) < len(labels):
        labels = [f"{name}, {path}" for name, (path, _) in zip(names, found, strict=True)]
    return [(label, runs) for label, (_, runs) in zip(labels, found, strict=True)]


def settings_apart(run: Run, others: Sequence[Run]) -> str:
    """`clients=10`, `memory.budget=16MiB`: what differs in the scenario, by the last word of its name, or
    in the settings; "" if that is nothing or more than a label can hold.
    """
    sides = [told_apart(each) for each in others]
    names = dict.fromkeys(name for side in sides for name in side)
    differing = [name for name in names if len({side.get(name, DEFAULTS.get(name)) for side in sides}) > 1]
    mine = told_apart(run)
    words = [f"{name}={mine.get(name) or setting(run, name)}" for name in differing]
    return ", ".join(words) if len(words) <= 3 else ""


def told_apart(run: Run) -> dict[str, str]:
    """The scenario's values and the server's settings under their own names."""
    scenario = flattened({key: value for key, value in run.about.scenario.items() if key != "server"})
    short = [name.rpartition(".")[2] for name in scenario]
    names = [last if short.count(last) == 1 else name for name, last in zip(scenario, short, strict=True)]
    return dict(zip(names, scenario.values(), strict=True)) | flattened(run.about.server.settings)

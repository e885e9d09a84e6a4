"""`python -m perf speed`: every contender in every case, in turn, and what is printed of it.

The rule: a case ends with its table whatever failed in it, and one contender's failure never costs
another its figure. Exit code 1 when one of ours failed, 2 for a wrong option; being slow is no
failure.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from perf.attempt import Attempt, Tools, attempt
from perf.bodies import Digests, Source
from perf.contenders import Contender, installed_peers, ours, peer, twice, variant
from perf.machine import this_machine
from perf.measures import QUICK, Case, Scale
from perf.run import CaseFailed, Settings
from perf.server import ServerFailed, raise_descriptor_limit
from perf.speed import CASES
from perf.standings import Standing, document, json_line, section, targets
from perf.wire import Refused

Progress = Callable[[str], None]


def name_and_value(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of runs")
    return int(text)


def add_options(speed: argparse.ArgumentParser) -> None:
    """The options of `speed`."""
    speed.add_argument("--list", action="store_true", help="name the cases and stop")
    speed.add_argument("--case", action="append", default=[], metavar="NAME", help="only this one")
    speed.add_argument("--runs", type=at_least_one, metavar="N", help="of each case and server (default 3)")
    speed.add_argument("--quick", action="store_true", help="small sizes, one run: does it work?")
    speed.add_argument(
        "--peer",
        action="append",
        default=[],
        type=peer,
        metavar="NAME=COMMAND",
        help="another registry, with {port} and {storage} in its command",
    )
    speed.add_argument(
        "--no-found-peers", action="store_true", help="without the docker-registry that is on PATH"
    )
    speed.add_argument("--set", action="append", default=[], type=name_and_value, metavar="SETTING=VALUE")
    speed.add_argument(
        "--ours",
        action="append",
        default=[],
        type=variant,
        metavar="NAME:SETTING=VALUE,…",
        help="ours once more, with other settings",
    )
    speed.add_argument("--storage-dir", type=Path, help="where the servers write meanwhile")
    speed.add_argument("--json", type=Path, metavar="FILE", help="append a line for each table")
    speed.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables, as a page")


def run_speed(options: argparse.Namespace, progress: Progress) -> int:
    """`speed`: run the chosen cases, print each table as it is complete, then the aims."""
    if options.list:
        for case in CASES:
            print(f"{case.name:14} {'; '.join(measure.title(Scale()) for measure in case.measures)}")
        return 0
    known = [case.name for case in CASES]
    if unknown := [name for name in options.case if name not in known]:
        print(f"no case named {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="trioreg-perf-") as folder:
        found = [] if options.no_found_peers else installed_peers(Path(folder))
        contenders = [*ours(options.set, options.ours), *found, *options.peer]
        if names := twice(contenders):
            print(f"more than one server is named {', '.join(names)}", file=sys.stderr)
            return 2
        return Contest(options, contenders, progress).run()


class Contest:
    """One call: who, which cases, how often, at what scale."""

    def __init__(
        self, options: argparse.Namespace, contenders: Sequence[Contender], progress: Progress
    ) -> None:
        self._options = options
        self._contenders = contenders
        self._progress = progress
        self._scale = QUICK if options.quick else Scale()
        self._runs = options.runs or (1 if options.quick else 3)
        self._failed = False

    def run(self) -> int:
        """The exit code."""
        options, scale = self._options, self._scale
        raise_descriptor_limit()
        if options.storage_dir is not None:
            options.storage_dir.mkdir(parents=True, exist_ok=True)
        machine = this_machine(options.storage_dir or Path(tempfile.gettempdir()))
        head = [
            *machine.lines(),
            f"load average {os.getloadavg()[0]:.1f} before the start",
            f"each {self._runs} times, in turn{', small sizes (--quick)' if options.quick else ''}",
            *(contender.line() for contender in self._contenders),
        ]
        print("\n".join(f"# {line}" for line in head))
        print(f"# server and client share {machine.cores} cores", end="\n\n", flush=True)
        self._write_json(json.dumps({"machine": asdict(machine), "scale": asdict(scale), "head": head}))
        standings: list[Standing] = []
        sections: list[str] = []
        with Source() as source:
            tools = Tools(source, Digests(source), Settings(storage_dir=options.storage_dir))
            for case in CASES:
                if options.case and case.name not in options.case:
                    continue
                for standing in self._compare(case, tools):
                    standings.append(standing)
                    sections.append(section(standing, scale))
                    print(sections[-1], end="\n\n", flush=True)
                    self._write_json(json_line(standing, scale))
        aims = targets(standings, scale)
        print(aims)
        if options.markdown is not None:
            page = document(head, sections, aims, runs=self._runs, cores=machine.cores)
            options.markdown.write_text(page)
        return int(self._failed)

    def _compare(self, case: Case, tools: Tools) -> list[Standing]:
        """All runs of a case, A B C A B C; a table for each of its measures."""
        taking_part = [one for one in self._contenders if case.pushes or not one.pushes_only]
        standings = {measure.name: Standing.of(measure, taking_part) for measure in case.measures}
        with tempfile.TemporaryDirectory(
            prefix="trioreg-perf-seed-", dir=tools.settings.storage_dir
        ) as folder:
            seeds = {one.name: Path(folder) / str(number) for number, one in enumerate(taking_part)}
            if case.seed is not None:
                for contender in taking_part:
                    self._progress(f"{case.name}: {contender.name} is prepared")
                    self._attempt(case, case.seed, contender, standings, tools, keep=seeds[contender.name])
            for turn in range(self._runs):
                for contender in taking_part:
                    self._progress(f"{case.name}: {contender.name}, run {turn + 1} of {self._runs}")
                    seed = seeds[contender.name] if case.seed is not None else None
                    if seed is None or seed.exists():  # else it could not be prepared
                        self._attempt(case, case.work, contender, standings, tools, seed=seed)
        self._progress("")
        return list(standings.values())

    def _attempt(
        self,
        case: Case,
        work: Callable[[Attempt, Scale], None],
        contender: Contender,
        standings: dict[str, Standing],
        tools: Tools,
        *,
        seed: Path | None = None,
        keep: Path | None = None,
    ) -> None:
        """One attempt's figures, or the reason why there are none, into the standings."""
        scale = self._scale
        try:
            disk = case.disk(scale)
            done = attempt(contender, lambda run: work(run, scale), disk, tools, seed=seed, keep=keep)
        except (CaseFailed, ServerFailed, Refused, OSError) as error:
            remarks = [("", f"no figure: {error}")]
            self._failed = self._failed or contender.ours
        else:
            remarks = done.remarks
            for name, figure in done.figures.items():
                standings[name].entry(contender.name).figures.append(figure)
        for name, standing in standings.items():
            standing.remarks += [
                f"{contender.name}: {text}" for about, text in remarks if about in ("", name)
            ]

    def _write_json(self, line: str) -> None:
        if self._options.json is not None:
            with self._options.json.open("a") as out:
                print(line, file=out)

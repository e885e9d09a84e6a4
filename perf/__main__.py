"""`python -m perf COMMAND`: the command line of the benchmarks; no logic of its own.

A command is a parser and a function from its options to an exit code: 0, or 1 when a limit was
passed or anything failed, or 2 for a wrong option.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from perf import access, screenshot
from perf.cases import CASES, Case, Scale
from perf.contenders import variable
from perf.contest import add_options, run_speed
from perf.harness.command import add_options as add_run_options
from perf.harness.command import run_command
from perf.harness.soak import add_options as add_soak_options
from perf.harness.soak import soak_command
from perf.machine import this_machine
from perf.plan import MB, size
from perf.report import json_line, table
from perf.results.commands import add_commands
from perf.run import Outcome, Settings
from perf.server import raise_descriptor_limit

SCALED = Scale(clients=40, size=64 * MB)


def setting(text: str) -> tuple[str, str]:
    """`memory.budget=32MiB` as the environment variable trioreg reads it from."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return variable(name), value


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = argparse.ArgumentParser(prog="python -m perf", description="Benchmarks of trioreg.")
    commands = top.add_subparsers(dest="command", required=True)
    memory = commands.add_parser("memory", help="hold the server to its memory limits")
    memory.add_argument("--list", action="store_true", help="name the cases and stop")
    memory.add_argument("--case", action="append", default=[], metavar="NAME", help="only this one")
    memory.add_argument("--large", action="store_true", help="the large cases too")
    scale = memory.add_mutually_exclusive_group()
    scale.add_argument("--size", type=size, metavar="BYTES", help="of an upload (default 256MB)")
    scale.add_argument("--full", action="store_true", help="uploads of 1 GB")
    scale.add_argument("--scaled", action="store_true", help="40 uploads of 64 MB, for CI")
    memory.add_argument("--clients", type=int, help="uploads at once (default 100)")
    memory.add_argument("--server", default="", metavar="COMMAND", help="a peer, without limits")
    memory.add_argument("--set", action="append", default=[], type=setting, metavar="NAME=VALUE")
    memory.add_argument("--storage-dir", type=Path, help="where the server writes meanwhile")
    memory.add_argument("--json", type=Path, metavar="FILE", help="append a line for each case")
    memory.set_defaults(run=run_memory)
    speed = commands.add_parser("speed", help="compare its speed with that of other registries")
    add_options(speed)
    speed.set_defaults(run=lambda options: run_speed(options, show_progress))
    costs = commands.add_parser("access", help="what access control costs, beside the same without it")
    access.add_options(costs)
    costs.set_defaults(run=access.run_access)
    run = commands.add_parser("run", help="run a scenario and keep what was seen in a folder")
    add_run_options(run)
    run.set_defaults(run=run_command)
    soak = commands.add_parser("soak", help="mix everything for minutes and look for a leak")
    add_soak_options(soak)
    soak.set_defaults(run=soak_command)
    add_commands(commands)
    picture = commands.add_parser("screenshot", help="take a picture of the live page amid many uploads")
    screenshot.add_options(picture)
    picture.set_defaults(run=screenshot.take)
    return top


def run_memory(options: argparse.Namespace) -> int:
    """`memory`: run the chosen cases, print each as it ends, then the table."""
    names = [case.name for case in CASES]
    if options.list:
        for case in CASES:
            print(f"{case.name:16} {case.limit / MB:4.0f} MB  {case.title}{' *' * case.large}")
        print("* only with --large or by name")
        return 0
    unknown = [name for name in options.case if name not in names]
    if unknown:
        print(f"no case named {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    descriptors = raise_descriptor_limit()
    machine = this_machine(options.storage_dir or Path(tempfile.gettempdir()))
    for line in machine.lines():
        print(f"# {line}, at most {descriptors} descriptors" if "storage" in line else f"# {line}")
    write_json(options.json, json.dumps({"machine": asdict(machine), "server": options.server}))
    settings = Settings(options.server, dict(options.set), options.storage_dir, show_progress)
    scale = scale_of(options)
    outcomes: list[Outcome] = []
    for case in chosen(options):
        show_progress(f"{case.name}: {case.title}")
        outcomes.append(case.run(scale, settings))
        show_progress("")
        line = json_line(outcomes[-1])
        print(line, flush=True)
        write_json(options.json, line)
    print(table(outcomes))
    return exit_code(outcomes)


def exit_code(outcomes: list[Outcome]) -> int:
    """0 when every case is ok or skipped, else 1. A peer has no limits, but must not fail."""
    return int(any(outcome.verdict in ("FAILED", "OVER") for outcome in outcomes))


def scale_of(options: argparse.Namespace) -> Scale:
    """The preset the options name, with what they override."""
    scale = SCALED if options.scaled else Scale()
    upload = 1000 * MB if options.full else options.size or scale.size
    return Scale(options.clients or scale.clients, upload)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Cases by name (large ones too), or all that are not large unless asked for."""
    if options.case:
        return [case for case in CASES if case.name in options.case]
    return [case for case in CASES if options.large or not case.large]


def show_progress(line: str) -> None:
    """One line that is overwritten, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def write_json(file: Path | None, line: str) -> None:
    """Append a line, when a file was asked for."""
    if file is not None:
        with file.open("a") as out:
            print(line, file=out)


def end_in_order(*_: object) -> None:
    """SIGTERM unwinds like an exit, so that servers are stopped and folders removed."""
    sys.exit(143)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command; 130 when interrupted."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, end_in_order)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())

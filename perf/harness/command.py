"""`python -m perf run`: the options of a run, and what is said about it."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from perf.contenders import DEBIAN_PEER, installed_peers, peer
from perf.harness.folder import FolderTaken
from perf.harness.host import Peer
from perf.harness.life import Options, run_scenario
from perf.harness.limits import kept
from perf.harness.reading import ScenarioError, load_scenario, override
from perf.harness.scenario import Bytes, Scenario
from perf.plan import MB, size
from perf.server import raise_descriptor_limit

HZ = 20.0


def hertz(text: str) -> float:
    """Samples a second: above 0, at most 50."""
    value = float(text)
    if not 0 < value <= 50:
        raise ValueError(text)
    return value


def add_options(command: argparse.ArgumentParser) -> None:
    """Of `run`; those of how to run hold for `soak` too."""
    command.add_argument("scenario", help="a TOML file, or a ready one by name")
    command.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR", help="folder of results")
    command.add_argument("--repeat", type=int, default=1, metavar="N", help="runs, each into DIR/1, DIR/2 …")
    add_how(command)


def add_how(command: argparse.ArgumentParser) -> None:
    """How a scenario is run, whatever it is."""
    who = command.add_mutually_exclusive_group()
    who.add_argument("--peer", metavar="NAME=CMD", help=f"another registry; {DEBIAN_PEER} alone if installed")
    who.add_argument("--server", metavar="CMD", help="the same without a name")
    command.add_argument("--set", action="append", default=[], type=override, metavar="NAME=VALUE")
    command.add_argument("--cgroup", type=size, metavar="SIZE", help="a memory cgroup of that size, as root")
    command.add_argument("--hz", type=hertz, default=HZ, help="samples a second, up to 50")
    command.add_argument("--no-sampling", action="store_true", help="no samples, to see what they cost")
    command.add_argument("--tracemalloc", action="store_true", help="what Python holds at idle, peak, after")
    command.add_argument("--memray", action="store_true", help="run the server under memray")
    command.add_argument("--storage-dir", type=Path, help="where the server writes meanwhile")


def options_of(options: argparse.Namespace) -> Options:
    """ScenarioError for a peer that is not there, or cannot do what is asked."""
    other = peer_of(options)
    if other.command and (options.tracemalloc or options.memray):
        raise ScenarioError("--tracemalloc and --memray look into trioreg, not into a peer")
    return Options(
        peer=other,
        hz=0.0 if options.no_sampling else options.hz,
        tracemalloc=options.tracemalloc,
        memray=options.memray,
        storage=options.storage_dir,
    )


def peer_of(options: argparse.Namespace) -> Peer:
    if options.server:
        return Peer("peer", options.server)
    if not options.peer:
        return Peer()
    if options.peer == DEBIAN_PEER:
        # Its configuration must live as long as this process; the folder goes with it.
        folder = TemporaryDirectory(prefix="trioreg-perf-")
        KEPT.append(folder)
        found = installed_peers(Path(folder.name))
        if not found:
            raise ScenarioError(f"{DEBIAN_PEER} is not installed")
        return Peer(found[0].name, found[0].command)
    try:
        contender = peer(options.peer)
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    return Peer(contender.name, contender.command)


KEPT: list[TemporaryDirectory[str]] = []


def scenario_of(name: str, options: argparse.Namespace) -> Scenario:
    """With what the options override. ScenarioError when it cannot be run."""
    scenario = load_scenario(name, options.set)
    if options.cgroup is not None:
        scenario = msgspec.structs.replace(scenario, cgroup=Bytes(options.cgroup))
    return scenario


def run_command(options: argparse.Namespace) -> int:
    """`run`: 0 when every run kept its limits, 1 when one did not, 2 for what cannot be run."""
    raise_descriptor_limit()
    try:
        how = options_of(options)
        scenario = scenario_of(options.scenario, options)
        results = [
            run_scenario(scenario, replace(how), options.out / str(number), number)
            for number in range(1, options.repeat + 1)
        ]
    except (ScenarioError, FolderTaken) as error:
        print(error, file=sys.stderr)
        return 2
    for number, result in enumerate(results, 1):
        print(f"# {options.out / str(number)}")
        print("\n".join(summary(result)))
    return int(not all(kept(result["outcome"]["limits"]) for result in results))


def summary(result: dict[str, Any]) -> list[str]:
    """A run in a few lines."""
    outcome = result["outcome"]
    moved = outcome["bytes_in"] + outcome["bytes_out"]
    seconds = outcome["load_seconds"] or 1.0
    who = f"{result['scenario']['name']} on {result['server']['name']}"
    did = f"{outcome['operations']} operations, {outcome['failed']} failed"
    rss = ", ".join(f"{outcome[f'{when}_rss'] / MB:.1f} MB {when}" for when in ("idle", "peak", "after"))
    cpu = f"server {outcome['server_cpu_seconds']:.1f} s, clients {result['clients']['cpu_seconds']:.1f} s"
    lines = [
        f"{who}: {did}, {moved / MB:,.0f} MB in {seconds:.1f} s ({moved / MB / seconds:,.0f} MB/s)",
        f"RSS {rss}; CPU {cpu}",
    ]
    if result["sampler"]:
        lines[-1] += f", sampler {result['sampler']['cpu_seconds']:.1f} s"
    if outcome["peak_cgroup"] is not None:
        lines.append(f"cgroup peak {outcome['peak_cgroup'] / MB:.1f} MB, {outcome['cgroup_kills']} kills")
    for limit in outcome["limits"]:
        word = "ok" if limit["passed"] else "FAILED"
        lines.append(f"{word:6} {limit['name']}: {limit['value']} of {limit['limit']}")
    lines += [f"{count} × {why}" for why, count in outcome["problems"].items()]
    if outcome["broken"]:
        lines.append(f"broken: {outcome['broken']}")
    return lines

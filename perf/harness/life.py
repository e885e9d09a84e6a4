"""One run from the start of its server to its folder.

The order: server, idle, catalog, load (with its faults), drained, after, stop. The rule: whatever breaks is
written down as why the run failed; the folder is complete in any case, and nothing that was started stays.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from perf.harness.cgroup import Cgroup, NoCgroup, memory_cgroup
from perf.harness.faults import Faults
from perf.harness.fleet import Fleet
from perf.harness.folder import RunFolder
from perf.harness.host import (
    NOTHING,
    OURS,
    Host,
    Peer,
    bytes_needed,
    disk_of,
    free_bytes,
    predicted,
    settings_of,
    words_of,
)
from perf.harness.inside import InsideView
from perf.harness.limits import Outcome
from perf.harness.messages import Ended, Operation
from perf.harness.outside import Outside
from perf.harness.progress import Progress
from perf.harness.scenario import Scenario, to_json
from perf.harness.snapshots import TRACING, Snapshots
from perf.harness.watch import Watch
from perf.machine import this_machine
from perf.run import DISK_SPARE, CaseFailed
from perf.sampling import descendants
from perf.server import ServerFailed

REASONS_KEPT = 20
HALF = 0.5  # of a load: where its peak is looked at when its clients are never all in flight at once
BEATS = 20.0  # a second: how often clients say their totals


@dataclass(frozen=True)
class Options:
    """How a scenario is run; what it does stands in the scenario. `hz` 0 takes no samples."""

    peer: Peer = OURS
    hz: float = 20.0
    tracemalloc: bool = False
    memray: bool = False
    storage: Path | None = None


@dataclass
class Run:
    """What stands around a load while it runs."""

    scenario: Scenario
    options: Options
    folder: RunFolder
    host: Host
    watch: Watch
    snapshots: Snapshots
    outcome: Outcome

    def idle(self) -> None:
        """Let it rest, and count peaks from here."""
        self.outcome.idle_rss = self.watch.rest(self.scenario.idle_seconds)
        self.folder.event("idle", rss=self.outcome.idle_rss)
        self.snapshots.take("idle")

    def load(self, fleet: Fleet) -> None:
        """Until every client is through."""
        forget_peaks(self.host)
        self.watch.forget()
        self.watch.clients = lambda: fleet.totals
        before = self.watch.look()
        begin = time.monotonic()
        self.folder.event("load", clients=self.scenario.clients)
        fleet.go()
        faults = Faults(self.scenario.fault, self.host, self.watch, self.folder)
        progress = Progress(self.scenario)
        while fleet.running:
            for operation in fleet.operations(0.05):
                self._count(operation)
            faults.let_come(time.monotonic() - begin)
            if not faults.down and not self.host.server.alive:
                raise CaseFailed(f"the server died; {self.host.server.last_words()}")
            totals, seconds = fleet.totals, time.monotonic() - begin
            if totals.in_flight >= self.scenario.clients or progress.part(totals, seconds) > HALF:
                self.snapshots.take_once("peak")
            progress.show(totals, self.watch.latest.get("rss", 0), seconds)
        progress.end()
        after = self.watch.look()
        self.folder.event("drained")
        outcome = self.outcome
        outcome.load_seconds = round(outcome.load_seconds + time.monotonic() - begin, 3)
        outcome.bytes_in += fleet.totals.sent
        outcome.bytes_out += fleet.totals.received
        outcome.server_cpu_seconds = round(outcome.server_cpu_seconds + cpu(after) - cpu(before), 3)

    def _count(self, operation: Operation) -> None:
        outcome = self.outcome
        outcome.operations += 1
        outcome.failed += not operation.ok
        details = msgspec.to_builtins(operation)
        del details["type"], details["at"]
        self.folder.event("operation", operation.at, **details)
        if operation.why and (operation.why in outcome.problems or len(outcome.problems) < REASONS_KEPT):
            outcome.problems[operation.why] = outcome.problems.get(operation.why, 0) + 1

    def rest(self) -> None:
        """What stays once everybody has gone."""
        outcome, watch = self.outcome, self.watch
        note_peak(watch, outcome)
        self.folder.event("peak", self.folder.began + watch.peak_at, rss=watch.peak_rss)
        outcome.after_rss = watch.rest(self.scenario.after_seconds)
        outcome.rounds.append(outcome.after_rss)
        self.folder.event("after", rss=outcome.after_rss)


def note_peak(watch: Watch, outcome: Outcome) -> None:
    """What was seen since the last load began, also of a run that broke."""
    outcome.peak_rss = max(outcome.peak_rss, watch.peak_rss)
    outcome.loop_lag = max(outcome.loop_lag or 0.0, watch.longest_lag) or None


def ask_kernel(cgroup: Cgroup, outcome: Outcome) -> None:
    """What it knows of the cgroup, once the server is gone, however it went."""
    outcome.peak_cgroup, outcome.cgroup_kills = cgroup.peak() or None, cgroup.kills()


def cpu(sample: dict[str, Any]) -> float:
    return float(sample["cpu_user"] + sample["cpu_system"])


def forget_peaks(host: Host) -> None:
    """Set the kernel's high-water marks of the server to the present."""
    for pid in descendants(host.server.pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def run_scenario(scenario: Scenario, options: Options, path: Path, repeat: int = 1) -> dict[str, Any]:
    """Run it once and write its folder; what run.json holds. Never raises for what a run can meet."""
    outcome = Outcome()
    written: dict[str, Any] = {}
    with (
        RunFolder(path) as folder,
        tempfile.TemporaryDirectory(prefix="trioreg-perf-", dir=options.storage) as home,
    ):
        folder.event("start", scenario=scenario.name, repeat=repeat)
        try:
            with open_run(scenario, options, folder, Path(home), outcome) as run:
                written = about(run)
                measure(run, f"{scenario.name}/{scenario.seed}/{repeat}", written)
        except (CaseFailed, ServerFailed, NoCgroup, OSError) as error:
            outcome.broken = str(error) or repr(error)
            folder.event("failed", why=outcome.broken)
        folder.event("end")
        machine = this_machine(Path(home))
        result = {
            "scenario": msgspec.json.decode(to_json(scenario)),
            "server": {"name": options.peer.name, "command": [], "settings": scenario.server},
            "machine": asdict(machine),
            "versions": {"python": machine.python, **machine.packages},
            "commit": machine.commit,
            "seed": scenario.seed,
            "repeat": repeat,
            "sampler": None,
            "clients": {"cpu_seconds": 0.0},
            "predicted": None,
            **written,
            "outcome": outcome.as_json(scenario.limits),
        }
        folder.finish(result)
    return result


@contextlib.contextmanager
def open_run(
    scenario: Scenario, options: Options, folder: RunFolder, home: Path, outcome: Outcome
) -> Iterator[Run]:
    """Everything a run needs, started; stopped in the opposite order."""
    if scenario.disk is None and free_bytes(home) < bytes_needed(scenario) + DISK_SPARE:
        raise CaseFailed(
            f"the disk has {free_bytes(home) / 1e9:.1f} GB free, this scenario writes up to "
            f"{bytes_needed(scenario) / 1e9:.1f} GB and leaves {DISK_SPARE / 1e9:.1f} GB alone"
        )
    ours = not options.peer.command
    with contextlib.ExitStack() as stack:
        cgroup = stack.enter_context(memory_cgroup(scenario.cgroup)) if scenario.cgroup is not None else None
        if cgroup is not None:
            stack.callback(ask_kernel, cgroup, outcome)
        stack.enter_context(disk_of(home, scenario.disk))
        settings = settings_of(scenario, home / "storage") if ours else {}
        if options.tracemalloc:
            settings["debug.enabled"] = "true"
        memray = folder.path / "memray.bin" if options.memray else None
        tracing = TRACING if options.tracemalloc else NOTHING
        host = stack.enter_context(
            Host(home, options.peer, settings, cgroup=cgroup, memray=memray, environment=tracing)
        )
        view = InsideView(host.server.port) if ours else None
        watch = Watch(
            folder,
            Outside(host.server.pid),
            hz=options.hz,
            cgroup=cgroup,
            inside=view.look if view is not None else None,
        )
        if view is not None:
            stack.callback(view.close)
        stack.enter_context(watch)
        stack.callback(note_peak, watch, outcome)
        snapshots = Snapshots(folder, host.server.port, wanted=ours and options.tracemalloc)
        stack.callback(snapshots.close)
        yield Run(scenario, options, folder, host, watch, snapshots, outcome)


def measure(run: Run, name: str, written: dict[str, Any]) -> None:
    """The events of a run, in their order."""
    scenario, hz = run.scenario, run.options.hz
    run.idle()
    ended: list[Ended] = []
    for number in range(scenario.rounds):
        with Fleet(scenario, run.host.server.port, f"{name}/{number}", BEATS) as fleet:
            fleet.prepare()
            run.load(fleet)
        ended += fleet.ended
        run.rest()
    written["clients"] = {
        "cpu_seconds": round(sum(each.cpu_seconds for each in ended), 3),
        "peak_rss": max(each.peak_rss for each in ended),
    }
    run.snapshots.take("after")
    run.watch.stop()
    if hz:
        written["sampler"] = {"hz": hz, "cpu_seconds": round(run.watch.cpu_seconds, 3)}


def about(run: Run) -> dict[str, Any]:
    """What the server was started with, and what docs/memory.md predicts for it."""
    host, ours = run.host, not run.options.peer.command
    return {
        "server": {
            "name": run.options.peer.name,
            "command": words_of(host.server.command),
            "settings": host.settings,
        },
        "predicted": predicted(host.settings, run.scenario.clients) if ours else None,
    }

"""One case: a fresh server, the sampler beside it, clients against it, and what came out.

Owns the life of a case: room on the disk, start, drive, stop, clean up. The rule: whatever fails
becomes a line in `Outcome.failures`, so that one bad case never hides the next, and nothing waits
without a limit.
"""

import contextlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perf.plan import MB, Ended, Group, Plan, Progress, Tally, decode_message, encode
from perf.sampling import Sample, Sampler
from perf.server import Server, ServerFailed

CLIENT_GRACE = 30.0  # seconds for a client to prepare its digests and to say its last word
DISK_SPARE = 1_000 * MB


class CaseFailed(Exception):
    """The case cannot give a figure; the message says why, in a line."""


@dataclass(frozen=True)
class Settings:
    """What holds for all cases of one call. `server` is a peer's command, "" for ours."""

    server: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    storage_dir: Path | None = None
    progress: Callable[[str], None] = lambda line: None


@dataclass
class Outcome:
    """A case's result. `held` is the figure its limit is about, in bytes, None without one."""

    name: str
    what: str = ""
    held: int | None = None
    limit: int | None = None
    aim: int | None = None
    base: int = 0
    peak: Sample = field(default_factory=Sample)
    moved: int = 0
    done: int = 0
    failed: int = 0
    asked_to_wait: int = 0
    open_peak: int = 0
    drive_seconds: float = 0.0
    server_cpu: float = 0.0
    client_cpu: float = 0.0
    client_rss: int = 0
    sample_rate: float = 0.0
    seconds: float = 0.0
    skipped: str = ""
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Body bytes per second while clients ran; None when there were too few to say."""
        return self.moved / self.drive_seconds if self.moved > MB and self.drive_seconds else None

    @property
    def server_cpu_per_gb(self) -> float | None:
        return self.server_cpu / (self.moved / 1e9) if self.moved > MB else None

    @property
    def over_limit(self) -> bool:
        return self.limit is not None and self.held is not None and self.held > self.limit

    @property
    def verdict(self) -> str:
        if self.skipped:
            return "skipped"
        if self.failures or (self.limit is not None and self.held is None):
            return "FAILED"
        return "OVER" if self.over_limit else "ok"


class Run:
    """What a case function works with: a server that runs, and clients to set on it."""

    def __init__(self, server: Server, sampler: Sampler, outcome: Outcome, settings: Settings) -> None:
        self.server = server
        self.sampler = sampler
        self.outcome = outcome
        self._settings = settings

    def measure_from_here(self) -> None:
        """What came before was preparation: base, peak, bytes and CPU start anew."""
        outcome = self.outcome
        outcome.base = self.sampler.rest(1.0)
        outcome.moved = outcome.open_peak = 0
        outcome.drive_seconds = outcome.server_cpu = outcome.client_cpu = 0.0
        self.sampler.forget()

    def drive(self, *groups: Group, seconds: float) -> Ended:
        """Run the groups in a client process, at most `seconds`, and add up what they did.

        Operations that failed are in the outcome. CaseFailed when the client or the server died.
        """
        plan = Plan("127.0.0.1", self.server.port, list(groups), seconds)
        cpu_before = self.sampler.now().cpu
        ended = self._run_client(plan)
        cpu_after = self.sampler.now().cpu
        if not self.server.alive:
            raise CaseFailed(f"the server died; {self.server.last_words()}")
        outcome = self.outcome
        outcome.server_cpu += cpu_after - cpu_before
        outcome.client_cpu += ended.cpu_seconds
        outcome.client_rss = max(outcome.client_rss, ended.peak_rss)
        outcome.drive_seconds += max(tally.seconds for tally in ended.groups)
        for tally in ended.groups:
            self._add(tally)
        outcome.open_peak = max(outcome.open_peak, sum(tally.open_peak for tally in ended.groups))
        return ended

    def _add(self, tally: Tally) -> None:
        outcome = self.outcome
        outcome.moved += tally.bytes
        outcome.done += tally.done
        outcome.failed += tally.failed
        outcome.asked_to_wait += tally.asked_to_wait
        if tally.failed:
            why = "; ".join(tally.problems)
            outcome.failures.append(f"{tally.name}: {tally.failed} operations failed: {why}")

    def _run_client(self, plan: Plan) -> Ended:
        """CaseFailed when no last word comes in time."""
        deadline = time.monotonic() + plan.seconds + CLIENT_GRACE + preparing(plan)
        process = subprocess.Popen(
            [sys.executable, "-m", "perf.client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        lines: queue.Queue[bytes] = queue.Queue()
        reader = threading.Thread(target=pass_lines, args=(process, lines), daemon=True)
        try:
            assert process.stdin is not None
            process.stdin.write(encode(plan))
            process.stdin.close()
            reader.start()
            while True:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0.1))
                if not line:
                    raise CaseFailed(f"the client ended with exit code {process.wait()}")
                message = decode_message(line)
                if message.ended is not None:
                    return message.ended
                if message.progress is not None:
                    self._settings.progress(self._progress_line(plan, message.progress))
        except queue.Empty:
            raise CaseFailed("the client did not end in time") from None
        finally:
            process.kill()
            process.wait()
            if reader.ident is not None:
                reader.join()
            assert process.stdout is not None
            process.stdout.close()

    def _progress_line(self, plan: Plan, progress: Progress) -> str:
        operations = sum(group.clients * group.each for group in plan.groups)
        rss = self.sampler.latest.rss
        return (
            f"{self.outcome.name}: {progress.done} of {operations}, {progress.failed} failed, "
            f"{progress.bytes / MB:,.0f} MB, server {rss / MB:.0f} MB"
        )


def preparing(plan: Plan) -> float:
    """Seconds a slow machine may need to hash every size once (0.1 GB/s)."""
    return sum({group.size for group in plan.groups}) / (100 * MB)


def pass_lines(process: subprocess.Popen[bytes], lines: queue.Queue[bytes]) -> None:
    """Every line of its standard output, then an empty one."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(b"")


def run_case(
    outcome: Outcome,
    work: Callable[[Run], None],
    settings: Settings,
    *,
    disk: int,
    environment: Mapping[str, str],
) -> Outcome:
    """Run `work` against a fresh server in a folder of its own that is gone afterwards."""
    begin = time.monotonic()
    try:
        with case_folder(settings, disk) as home:
            both = {**environment, **settings.environment}
            with (
                Server(home, settings.server, both) as server,
                Sampler(server.pid) as sampler,
            ):
                run = Run(server, sampler, outcome, settings)
                run.measure_from_here()
                try:
                    work(run)
                finally:
                    outcome.peak = sampler.peak()
                    outcome.sample_rate = sampler.rate
    except (CaseFailed, ServerFailed, OSError) as error:
        outcome.failures.append(str(error))
    outcome.seconds = time.monotonic() - begin
    return outcome


@contextlib.contextmanager
def case_folder(settings: Settings, disk: int) -> Iterator[Path]:
    """An empty folder on a disk with room for `disk` bytes. CaseFailed without that room."""
    parent = settings.storage_dir or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < disk + DISK_SPARE:
        raise CaseFailed(
            f"{parent} has {free / 1e9:.1f} GB free, this case writes {disk / 1e9:.1f} GB"
            f" and leaves {DISK_SPARE / 1e9:.1f} GB alone: choose --storage-dir or --size"
        )
    with tempfile.TemporaryDirectory(prefix="trioreg-perf-", dir=parent) as home:
        yield Path(home)

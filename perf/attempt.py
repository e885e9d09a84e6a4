"""One measurement: a fresh server on fresh storage, clients against it, and what it cost whom.

Owns the life of an attempt and the figures it gives. The rule: the clock and both CPU meters run
over the same stretch, bodies and digests are ready before it begins, and the disk is quiet: what an
earlier server left to be written was removed and the rest synced.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from perf.bodies import Digests, Source
from perf.contenders import Contender
from perf.lean import Steps, drive
from perf.plan import MB
from perf.run import Settings, case_folder
from perf.sampling import TICKS, Sample, descendants, look_at
from perf.server import Server
from perf.wire import Refused
from perf.wrk import ask_again_and_again

SLOWEST = 20 * MB  # bytes a second; a server below is given up
PATIENCE = 120.0  # seconds on top
CONNECTIONS = 8  # that requests per second are asked over
REST = 0.3  # seconds after preparing, before the clock: the server's own aftermath is not timed


@dataclass(frozen=True)
class Figure:
    """What one attempt gave. `amount` is in the unit CPU is divided by: GB or thousands of requests.

    `other_cpu` is what neither server nor client took: neighbours, and the kernel's own threads.
    """

    value: float
    amount: float
    seconds: float = 0.0
    server_cpu: float = 0.0
    client_cpu: float = 0.0
    peak_rss: int = 0
    other_cpu: float = 0.0


class Stretch:
    """Seconds and CPU seconds of one measured stretch."""

    seconds = 0.0
    server_cpu = 0.0
    client_cpu = 0.0
    peak_rss = 0
    other_cpu = 0.0

    def figure(self, value: float, amount: float) -> Figure:
        return Figure(value, amount, **vars(self))


class Attempt:
    """What a case works with. `figures` are by the name of the measure, `remarks` in words, each with
    the measure it is about or "" for all of them.
    """

    def __init__(self, server: Server, source: Source, digests: Digests) -> None:
        self.port = server.port
        self.source = source
        self.digests = digests
        self.figures: dict[str, Figure] = {}
        self.remarks: list[tuple[str, str]] = []
        self._pid = server.pid

    def remark(self, text: str, measure: str = "") -> None:
        self.remarks.append((measure, text))

    def drive(self, clients: Iterable[Steps[None]], size: int = 0, patience: float = PATIENCE) -> None:
        """Clients that move `size` bytes or next to nothing. Refused when anything goes wrong."""
        drive(clients, patience + size / SLOWEST)

    def sample(self) -> Sample:
        return look_at(descendants(self._pid), closely=False)

    @contextlib.contextmanager
    def stretch(self) -> Iterator[Stretch]:
        """The measured part; peak RSS starts anew. Complete once the block is left."""
        time.sleep(REST)
        for pid in descendants(self._pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        found = Stretch()
        server, client, everyone = self.sample().cpu, own_cpu(), busy(Path("/proc/stat").read_text())
        begin = time.perf_counter()
        yield found
        found.seconds = time.perf_counter() - begin
        found.client_cpu = own_cpu() - client
        after = self.sample()
        found.server_cpu = after.cpu - server
        found.peak_rss = after.high_water
        taken = busy(Path("/proc/stat").read_text()) - everyone
        found.other_cpu = max(taken - found.server_cpu - found.client_cpu, 0.0)

    def move(self, measure: str, clients: Iterable[Steps[None]], size: int) -> None:
        """A figure in bytes a second."""
        with self.stretch() as found:
            self.drive(clients, size)
        self.figures[measure] = found.figure(size / found.seconds, size / 1e9)

    def complete(self, measure: str, clients: Iterable[Steps[None]], count: int, *, each: int) -> None:
        """A figure in images (or whatever is made of `each` requests) a second."""
        with self.stretch() as found:
            self.drive(clients)
        self.figures[measure] = found.figure(count / found.seconds, count * each / 1000)

    def hammer(self, measure: str, method: str, path: str, accept: str, *, seconds: float) -> None:
        """A figure in requests a second."""
        with self.stretch() as found:
            count, took = ask_again_and_again(
                method, self.port, path, accept, connections=CONNECTIONS, seconds=seconds
            )
        self.figures[measure] = found.figure(count / took, count / 1000)


def own_cpu() -> float:
    """User and system seconds of this process and of children it has waited for (wrk)."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def busy(stat: str) -> float:
    """CPU seconds of all cores in /proc/stat: user, nice, system, interrupts and stolen, not waiting."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, stat.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / TICKS


@dataclass(frozen=True)
class Tools:
    """What is the same for all attempts of a run."""

    source: Source
    digests: Digests
    settings: Settings


def attempt(
    contender: Contender,
    work: Callable[[Attempt], None],
    disk: int,
    tools: Tools,
    *,
    seed: Path | None = None,
    keep: Path | None = None,
) -> Attempt:
    """Run `work` against a fresh server in a folder of its own that is gone afterwards.

    The storage is empty, or a copy of `seed`; it becomes `keep` when that is given. ServerFailed,
    CaseFailed, Refused or OSError when there is no figure.
    """
    with case_folder(tools.settings, disk) as home:
        if seed is not None:
            shutil.copytree(seed, home / "storage")
        os.sync()
        with Server(home, contender.command, contender.environment) as server:
            run = Attempt(server, tools.source, tools.digests)
            try:
                work(run)
            except Refused as error:
                if not server.alive:
                    raise Refused(f"{error}; the server died; {server.last_words()}") from None
                raise
        if keep is not None:
            shutil.move(home / "storage", keep)
    return run

"""The table of memory cases, each with the limit it must hold (issue: "Memory it must keep").

A case is a name, a limit and a function that drives a fresh server and returns the figure the limit
is about. The rule: a case is decided by bytes and by answers, never by time; every wait has a
generous end that fails it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from perf.crowd import idle_connections
from perf.plan import KIB, MB, MIB, Group, Kind, Pace
from perf.run import Outcome, Run, Settings, run_case

MINUTE = 60.0
SLOWEST = 20 * MB  # bytes a second; a server below is taken for one that hangs
HUGE = 10_000 * MB
SLOW_DISK = 0.5  # seconds per MiB and writer: 80 MiB/s with the 40 threads of Trio side by side
BATCHES = 9
WARM_UP = 1  # batches in which caches fill, up to their bounds
BATCH_CLIENTS = 20
BATCH_EACH = 50  # operations: a thousand a batch; a multiple of ten, see operations.mixed
FAST = 10
DRIBBLERS = 64
DRIBBLE = Pace(burst=7, pause=0.05)
SLOW = Pace(burst=16 * KIB, pause=0.25)  # 64 KiB/s
PULLED_BLOBS = 4


@dataclass(frozen=True)
class Scale:
    """How large "many uploads" is: `size` bytes each, `clients` at once."""

    clients: int = 100
    size: int = 256 * MB

    @property
    def small(self) -> int:
        """A size for what is slow on purpose: still more than the sockets on the way hold."""
        return min(self.size, 16 * MB)


@dataclass(frozen=True)
class Case:
    """`limit` and `aim` in bytes; `disk` how many bytes it writes at a scale."""

    name: str
    title: str
    limit: int
    work: Callable[[Run, Scale], int]
    what: str = "peak RSS"
    aim: int | None = None
    disk: Callable[[Scale], int] = lambda scale: 100 * MB
    large: bool = False
    ours_only: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, scale: Scale, settings: Settings) -> Outcome:
        """The outcome; with a peer no limit is set."""
        outcome = Outcome(self.name, self.what)
        if settings.server and self.ours_only:
            outcome.skipped = "needs a setting of trioreg"
            return outcome
        if not settings.server:
            outcome.limit, outcome.aim = self.limit, self.aim

        def work(run: Run) -> None:
            outcome.held = self.work(run, scale)

        return run_case(outcome, work, settings, disk=self.disk(scale), environment=self.environment)


def idle(run: Run, scale: Scale) -> int:
    """The larger of RSS after the start and after fifty small requests."""
    run.drive(Group("small", Kind.SMALL, each=50), seconds=MINUTE)
    after = run.sampler.rest(1.0)
    run.outcome.notes.append(f"{after / MB:.1f} MB after 50 small requests")
    return max(run.outcome.base, after)


def one_upload(run: Run, scale: Scale) -> int:
    """How far its peak stands above a server that has met the same requests, but small ones."""
    run.drive(
        Group("warm, monolithic", Kind.PUSH, each=5, size=100 * KIB),
        Group("warm, docker", Kind.PUSH, each=5, size=100 * KIB, chunked=True),
        seconds=MINUTE,
    )
    run.measure_from_here()
    seconds = generous(scale.size)
    run.drive(Group("monolithic", Kind.PUSH, size=scale.size), seconds=seconds)
    run.drive(Group("docker", Kind.PUSH, size=scale.size, chunked=True), seconds=seconds)
    return max(run.sampler.peak().rss - run.outcome.base, 0)


def one_huge_upload(run: Run, scale: Scale) -> int:
    """The way docker pushes a layer, ten thousand megabytes long."""
    docker = Group("docker", Kind.PUSH, size=HUGE, chunked=True)
    run.drive(docker, seconds=generous(HUGE))
    return run.sampler.peak().rss


def many_uploads(run: Run, scale: Scale) -> int:
    """All at once, one half in single PUTs, the other as docker does."""
    seconds = generous(scale.clients * scale.size)
    push_both_ways(run, scale.clients, scale.size, seconds=seconds)
    return run.sampler.peak().rss


def uploads_to_slow_disk(run: Run, scale: Scale) -> int:
    """Clients push as fast as they can; the disk is what they wait for."""
    one_after_the_other = scale.clients * scale.small / MIB * SLOW_DISK
    push_both_ways(run, scale.clients, scale.small, seconds=5 * MINUTE + one_after_the_other)
    return run.sampler.peak().rss


def thousand_slow_uploads(run: Run, scale: Scale) -> int:
    """Each at 64 KiB/s, so that all of them are open together."""
    push_both_ways(run, 1000, 2 * MB, seconds=10 * MINUTE, pace=SLOW)
    if run.outcome.open_peak < 1000 and not run.outcome.asked_to_wait:
        run.outcome.notes.append(f"only {run.outcome.open_peak} were open at once")
    return run.sampler.peak().rss


def push_both_ways(run: Run, clients: int, size: int, *, seconds: float, pace: Pace | None = None) -> None:
    """One half in single PUTs, the other as docker does."""
    half = clients // 2
    run.drive(
        Group("monolithic", Kind.PUSH, clients=clients - half, size=size, pace=pace),
        Group("docker", Kind.PUSH, clients=half, size=size, pace=pace, chunked=True),
        seconds=seconds,
    )


def generous(size: int) -> float:
    """Seconds after which pushing or pulling so many bytes has failed."""
    return 5 * MINUTE + size / SLOWEST


def dribblers(run: Run, scale: Scale) -> int:
    """Fast clients alone, then beside 64 that send seven bytes at a time.

    What decides: every fast upload ends well while all 64 are still open, and the 64 end well too
    once they are let go. The speeds are printed side by side, a ratio below 0.5 as a warning.
    """
    seconds = generous(FAST * scale.size)
    fast = Group("alone", Kind.PUSH, clients=FAST, size=scale.size, chunked=True)
    alone = run.drive(fast, seconds=seconds)["alone"]
    dribbling = Group(
        "dribbling",
        Kind.PUSH,
        clients=DRIBBLERS // 2,
        size=100 * KIB,
        pace=DRIBBLE,
        until="beside",
    )
    docker = replace(dribbling, name="dribbling as docker", chunked=True)
    beside = replace(fast, name="beside", after=[dribbling.name, docker.name])
    both = run.drive(dribbling, docker, beside, seconds=seconds)
    still_open = both[dribbling.name].open_at_lift + both[docker.name].open_at_lift
    if still_open != DRIBBLERS:
        run.outcome.failures.append(
            f"{still_open} of {DRIBBLERS} dribbling uploads were open when the fast ones ended"
        )
    ratio = both["beside"].rate / alone.rate if alone.rate else 0.0
    run.outcome.notes.append(
        f"{'WARNING: ' if ratio < 0.5 else ''}fast clients {alone.rate / MB:.0f} MB/s alone, "
        f"{both['beside'].rate / MB:.0f} MB/s beside {DRIBBLERS} dribbling: ratio {ratio:.2f}"
    )
    return run.sampler.peak().rss


def churn(run: Run, scale: Scale) -> int:
    """Growth of RSS per thousand mixed operations once the first thousand are through."""
    after: list[int] = []
    for batch in range(BATCHES):
        group = Group(
            f"batch {batch + 1}",
            Kind.MIXED,
            clients=BATCH_CLIENTS,
            each=BATCH_EACH,
        )
        run.drive(group, seconds=5 * MINUTE)
        after.append(run.sampler.rest(2.0))
    listed = ", ".join(f"{rss / MB:.1f}" for rss in after)
    run.outcome.notes.append(f"RSS after each 1000 operations: {listed} MB")
    return max(round(slope(after[WARM_UP:])), 0)


def slope(values: list[int]) -> float:
    """Rise per step, from the median of the first half to that of the second; an even number of values.

    RSS swings by some megabytes with what is not given back yet; a leak lifts the middle.
    """
    half = len(values) // 2
    return (median(values[half:]) - median(values[:half])) / half


def pulls(clients: int) -> Callable[[Run, Scale], int]:
    """The case with so many clients, all of them reading as fast as they can."""

    def work(run: Run, scale: Scale) -> int:
        """Blobs are pushed first; the figure covers only the pulls."""
        pushed = Group("push", Kind.PUSH, each=PULLED_BLOBS, size=scale.size, names="pulled")
        run.drive(pushed, seconds=generous(PULLED_BLOBS * scale.size))
        run.measure_from_here()
        group = Group(
            "pull",
            Kind.PULL,
            clients=clients,
            size=scale.size,
            names="pulled",
            distinct=PULLED_BLOBS,
        )
        run.drive(group, seconds=generous(clients * scale.size))
        return run.sampler.peak().rss

    return work


CASES = [
    Case(
        name="idle",
        title="RSS after the start and after 50 small requests",
        limit=50 * MB,
        aim=45 * MB,
        what="RSS",
        work=idle,
    ),
    Case(
        name="one-upload",
        title="one upload, monolithic and as docker does: growth",
        limit=50 * MB,
        aim=10 * MB,
        what="growth",
        work=one_upload,
        disk=lambda scale: 2 * scale.size,
    ),
    Case(
        name="one-huge-upload",
        title="one blob of 10 GB",
        limit=100 * MB,
        aim=70 * MB,
        work=one_huge_upload,
        disk=lambda scale: HUGE,
        large=True,
    ),
    Case(
        name="uploads",
        title="many uploads at once",
        limit=500 * MB,
        aim=120 * MB,
        work=many_uploads,
        disk=lambda scale: scale.clients * scale.size,
    ),
    Case(
        name="slow-disk",
        title="many uploads at once, as fast as they can, to a slow disk",
        limit=500 * MB,
        aim=120 * MB,
        work=uploads_to_slow_disk,
        disk=lambda scale: scale.clients * scale.small,
        ours_only=True,
        environment={"TRIOREG_DEBUG_WRITE_DELAY": str(SLOW_DISK)},
    ),
    Case(
        name="dribblers",
        title="10 fast uploads beside 64 that dribble",
        limit=500 * MB,
        aim=120 * MB,
        work=dribblers,
        disk=lambda scale: 2 * FAST * scale.size,
    ),
    Case(
        name="slow-uploads",
        title="1000 slow uploads at once",
        limit=250 * MB,
        work=thousand_slow_uploads,
        disk=lambda scale: 2_000 * MB,
        large=True,
    ),
    Case(
        name="idle-connections",
        title="10,000 connections that wait after two requests",
        limit=250 * MB,
        aim=150 * MB,
        work=lambda run, scale: idle_connections(run),
        large=True,
    ),
    Case(
        name="churn",
        title="9000 mixed operations, aborted ones among them: growth per 1000 after the first",
        limit=3 * MB,
        what="growth",
        work=churn,
        disk=lambda scale: 2_000 * MB,
    ),
    *(
        Case(
            name=f"pulls-{clients}",
            title=f"{clients} pulls at once",
            limit=200 * MB,
            work=pulls(clients),
            disk=lambda scale: PULLED_BLOBS * scale.size,
        )
        for clients in (40, 100)
    ),
]

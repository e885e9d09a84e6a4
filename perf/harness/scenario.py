"""A scenario: everything that decides what a run does, as values read from TOML.

The rule: a scenario is right or refused. A key that is unknown, a value of another type, or two that
contradict each other raise ValueError (from a file: ScenarioError with the place, see `reading`). Sizes are
text ("32MB", "256KiB") or plain bytes; times are seconds. docs/harness.md explains each key to people.
"""

from typing import Any, Literal

import msgspec

from perf.plan import KIB, Pace, size
from trioreg.config import SETTINGS

TICK, SLOW_TICK = 0.05, 0.25  # seconds between the portions of a throttled body; of one that is slow anyway
SLOW = 16 * KIB  # bytes: portions below it are not worth more wake-ups, of a thousand clients
SHAPES = Literal["docker", "containerd", "podman", "chunked", "image", "pull", "manifest", "head", "mix"]
NEED_CATALOG = {"pull", "manifest", "head"}


class Bytes(int):
    """A size: in a file a text with a unit, or a number."""


class Sizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of bodies: `fixed`; lognormal (`median`, `sigma`); uniform (`smallest` to `largest`); or `recorded`.

    `smallest` and `largest` clamp a lognormal one. `recorded` names a file with a size on each line,
    relative to the scenario; drawn with replacement.
    """

    fixed: Bytes | None = None
    median: Bytes | None = None
    sigma: float | None = None
    smallest: Bytes | None = None
    largest: Bytes | None = None
    recorded: list[Bytes] | None = None

    def __post_init__(self) -> None:
        uniform = self.median is None and self.largest is not None
        kinds = [self.fixed is not None, self.median is not None, uniform, self.recorded is not None]
        if sum(kinds) != 1:
            raise ValueError("sizes are one of: fixed, median with sigma, smallest with largest, recorded")
        if (self.median is None) != (self.sigma is None):
            raise ValueError("median and sigma go together")
        if uniform and self.smallest is None:
            raise ValueError("largest without smallest")
        if self.largest is not None and (self.smallest or 0) > self.largest:
            raise ValueError("smallest is larger than largest")
        if self.recorded is not None and not self.recorded:
            raise ValueError("the recorded list is empty")


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a body moves: `bytes_per_second`; or `every` so many bytes a pause of `seconds`.

    A large `every` is a client that stalls, a small one a client that dribbles.
    """

    bytes_per_second: Bytes | None = None
    every: Bytes | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.bytes_per_second is None) == (self.every is None):
            raise ValueError("a rate is bytes_per_second, or every with seconds")
        if (self.every is None) != (self.seconds is None):
            raise ValueError("every and seconds go together")
        if (self.bytes_per_second or self.every or 0) < 1 or (self.seconds or 0) < 0:
            raise ValueError("a rate moves at least one byte at a time")

    @property
    def pace(self) -> Pace:
        if self.every is not None and self.seconds is not None:
            return Pace(self.every, self.seconds)
        speed = self.bytes_per_second or 1
        burst = max(int(max(speed * TICK, min(speed * SLOW_TICK, SLOW))), 1)
        return Pace(burst, burst / speed)


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When clients come: `poisson` clients a second, or evenly over `ramp` seconds; else all at once."""

    poisson: float | None = None
    ramp: float | None = None

    def __post_init__(self) -> None:
        if (self.poisson is None) == (self.ramp is None):
            raise ValueError("arrivals are poisson or ramp")
        if (self.poisson or self.ramp or 0) <= 0:
            raise ValueError("arrivals need a number above 0")


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A client that leaves at byte `at` of a body, in a `share` of its pushes; `resume` comes back once."""

    at: Bytes
    how: Literal["close", "reset"] = "close"
    resume: bool = False
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError("share is above 0 and at most 1")


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Clients that do the same: `each` operations one after the other, or as many as fit in `seconds`.

    A push that breaks is taken up again up to `retries` times where the server says it stands. Statuses in
    `may_fail` end an operation without counting as a failure. `zipf` is the exponent of how popular what is
    pulled is (0: all alike). `mix` gives the shapes of single operations their weights.
    """

    name: str
    shape: SHAPES
    clients: int = 1
    each: int = 1
    seconds: float = 0.0
    sizes: Sizes | None = None
    piece: Bytes = Bytes(4 << 20)
    rate: Rate | None = None
    arrivals: Arrivals | None = None
    cut: Cut | None = None
    retries: int = 0
    may_fail: list[int] = []
    zipf: float = 0.0
    mix: dict[str, float] = {}

    def __post_init__(self) -> None:
        known = set(SHAPES.__args__) - {"mix"}  # type: ignore[attr-defined] # a Literal has its values there
        if set(self.mix) - known:
            raise ValueError(f"mix has {', '.join(sorted(set(self.mix) - known))}, which is no shape")
        if (self.shape == "mix") != bool(self.mix):
            raise ValueError("shape mix and the table mix go together")
        if self.sizes is None and self.shapes - NEED_CATALOG:
            raise ValueError(f"group {self.name} pushes and has no sizes")
        if self.clients < 1 or self.each < 1 or self.piece < 1:
            raise ValueError("clients, each and piece are at least 1")

    @property
    def shapes(self) -> set[str]:
        return set(self.mix) or {self.shape}


class Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Blobs that are pushed before the load begins, each with a manifest and a tag of its own."""

    count: int
    sizes: Sizes


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong `at` seconds after the load began.

    kill_server: SIGKILL, and a new start on the same port and storage `after` seconds later. kill_worker:
    SIGKILL to one of several workers. fill_disk: all of the disk but `leave` bytes is taken; free_disk gives
    it back (both need `disk.size`).
    """

    at: float
    kind: Literal["kill_server", "kill_worker", "fill_disk", "free_disk"]
    after: float = 0.0
    leave: Bytes = Bytes(0)


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A storage that is slow by `latency` seconds a MiB, or by a `factor` of what this disk was measured at.

    `size` gives the server a filesystem of its own of so many bytes (tmpfs; needs root).
    """

    latency: float | None = None
    factor: float | None = None
    size: Bytes | None = None

    def __post_init__(self) -> None:
        if self.latency is not None and self.factor is not None:
            raise ValueError("a disk is slow by latency or by factor, not both")
        if self.factor is not None and self.factor < 1:
            raise ValueError("factor is at least 1")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What makes the run fail when it is passed; sizes in bytes of RSS unless the name says otherwise."""

    failed: int = 0
    idle_rss: Bytes | None = None
    peak_rss: Bytes | None = None
    growth: Bytes | None = None  # of the peak above idle
    after_growth: Bytes | None = None  # of what stays, above idle
    round_growth: Bytes | None = None  # a round, from the medians of the two halves after the first
    peak_cgroup: Bytes | None = None
    loop_lag: float | None = None  # seconds, the longest seen
    seconds: float | None = None  # of the load


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One experiment. `seconds` is when what still runs has failed; `processes` share the clients."""

    name: str
    title: str
    group: list[Group]
    catalog: Catalog | None = None
    fault: list[Fault] = []
    server: dict[str, str] = {}
    disk: Disk | None = None
    limits: Limits = Limits()
    cgroup: Bytes | None = None
    seed: int = 1
    processes: int = 1
    rounds: int = 1  # the load again and again, with a rest between
    seconds: float = 300.0
    idle_seconds: float = 1.0
    after_seconds: float = 11.0  # the server looks every 5 for blocks that nobody took since the last look

    def __post_init__(self) -> None:
        names = [group.name for group in self.group]
        if not names or len(set(names)) < len(names):
            raise ValueError("groups need names of their own, and there is at least one")
        if self.catalog is None and any(group.shapes & NEED_CATALOG for group in self.group):
            raise ValueError("pull, manifest and head need a catalog")
        disk_faults = any(fault.kind in ("fill_disk", "free_disk") for fault in self.fault)
        if disk_faults and (self.disk is None or self.disk.size is None):
            raise ValueError("fill_disk and free_disk need disk.size")
        if self.processes < 1 or self.rounds < 1:
            raise ValueError("processes and rounds are at least 1")
        if self.limits.round_growth is not None and (self.rounds < 3 or self.rounds % 2 == 0):
            raise ValueError("round_growth needs an odd number of rounds, three at least")
        known = {setting.name for setting in SETTINGS}
        unknown = sorted(set(self.server) - known)
        if unknown:
            raise ValueError(f"trioreg has no setting {', '.join(unknown)}")

    @property
    def clients(self) -> int:
        return sum(group.clients for group in self.group)


def from_text(kind: type, value: object) -> Any:
    """The hook of msgspec for what it does not know itself: sizes."""
    if kind is not Bytes:
        raise NotImplementedError(kind)
    return Bytes(value if type(value) is int else size(str(value)))


def to_json(value: object) -> bytes:
    """Of a scenario or a part of one: sizes as numbers."""
    return msgspec.json.encode(value, enc_hook=int)

"""A run's folder as values: `run.json`, `samples.jsonl`, `events.jsonl`, `snapshots/*.json`.

The rule: a folder is read whole and checked while it is read, so that nothing behind this module meets a
missing or mistyped field. All sizes are bytes, all times seconds. What the writer adds beyond
these fields is ignored, lest a newer run cannot be read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

FORMAT = 1

T = TypeVar("T")


class BadRun(Exception):
    """A folder that is not a run, or not a whole one; the text says which file and why."""


class Server(msgspec.Struct, frozen=True):
    name: str
    command: list[str] = []
    settings: dict[str, Any] = {}


class Limit(msgspec.Struct, frozen=True):
    name: str
    limit: float
    value: float | None
    passed: bool


class Result(msgspec.Struct, frozen=True):
    """`outcome` of run.json: bytes, counts, CPU seconds."""

    operations: int
    failed: int
    bytes_in: int
    bytes_out: int
    peak_rss: int
    idle_rss: int
    after_rss: int
    server_cpu_seconds: float
    limits: list[Limit] = []
    peak_cgroup: int | None = None


class Predicted(msgspec.Struct, frozen=True):
    """The formula's terms, worked out before the run; bytes and a count."""

    base: int
    budget: int
    front: int
    per_connection: int
    connections: int
    total: int
    cache: int = 0


class Sampling(msgspec.Struct, frozen=True):
    hz: float
    cpu_seconds: float


class Description(msgspec.Struct, frozen=True):
    """run.json."""

    format: int
    scenario: dict[str, Any]
    server: Server
    outcome: Result
    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    clients: dict[str, Any] = {}
    commit: str = ""
    seed: int = 0
    repeat: int = 1
    started: float = 0.0
    seconds: float = 0.0
    sampler: Sampling | None = None
    predicted: Predicted | None = None


class Inside(msgspec.Struct, frozen=True):
    """What our own server says of itself; a peer says nothing."""

    blocks_total: int | None = None
    blocks_held: int | None = None
    blocks_waiting: int | None = None
    uploads: dict[str, int] = {}
    stages: dict[str, int] = {}
    loop_lag: float | None = None
    cache_bytes: int | None = None
    gc: list[int] = []


class Sample(msgspec.Struct, frozen=True):
    """One look at the server's processes together, and at the clients' counters."""

    t: float
    rss: int
    cpu_user: float = 0.0
    cpu_system: float = 0.0
    in_flight: int = 0
    sent: int = 0
    received: int = 0
    pss: int | None = None
    anonymous: int | None = None
    file: int | None = None
    shmem: int | None = None
    cgroup: int | None = None
    threads: int | None = None
    descriptors: int | None = None
    sockets: int | None = None
    inside: Inside | None = None


class Event(msgspec.Struct, frozen=True):
    """A marker, or with event "operation" one that a client finished: `t` is its end."""

    t: float
    event: str
    kind: str = ""
    bytes: int = 0
    seconds: float = 0.0
    ok: bool = True
    why: str = ""


class Snapshot(msgspec.Struct, frozen=True):
    """tracemalloc at a marker: rows of name, bytes, blocks."""

    at: float
    marker: str
    by_file: list[tuple[str, int, int]] = []
    by_layer: list[tuple[str, int, int]] = []
    by_stage: list[tuple[str, int, int]] = []


@dataclass(frozen=True)
class Run:
    """One folder. `operations` are the finished ones, `markers` the other events, both in order of time."""

    folder: Path
    about: Description
    samples: Sequence[Sample]
    operations: Sequence[Event]
    markers: Sequence[Event]
    snapshots: Sequence[Snapshot]

    @property
    def scenario(self) -> str:
        return str(self.about.scenario["name"])

    @cached_property
    def connections(self) -> int:
        """The most operations that were seen in flight at once; 0 without samples."""
        return max((sample.in_flight for sample in self.samples), default=0)

    @property
    def moved(self) -> int:
        """Bytes, in both directions."""
        return self.about.outcome.bytes_in + self.about.outcome.bytes_out

    @cached_property
    def load(self) -> tuple[float, float]:
        """When the clients began, and when the last operation or, without any, the run ended."""
        begin = next((marker.t for marker in self.markers if marker.event == "load"), 0.0)
        end = self.operations[-1].t if self.operations else self.about.seconds
        return begin, max(end, begin)


def read_group(path: Path) -> list[Run]:
    """The run in `path`, or the repeats of one scenario in `path/1`, `path/2`, …, by number.

    BadRun when there is neither, or one of them is not whole.
    """
    if (path / "run.json").exists():
        return [read_run(path)]
    found = [folder for folder in path.glob("[0-9]*") if folder.name.isdecimal() and folder.is_dir()]
    if not found:
        raise BadRun(f"{path}: neither run.json nor folders of repeats (1, 2, …) in it")
    return [read_run(folder) for folder in sorted(found, key=lambda folder: int(folder.name))]


def read_run(folder: Path) -> Run:
    """A whole run. BadRun names the file, the line and the field that is wrong."""
    about = decoded(folder / "run.json", Description)
    if about.format != FORMAT:
        raise BadRun(f"{folder / 'run.json'}: format {about.format}; only {FORMAT} is known")
    if not isinstance(about.scenario.get("name"), str):
        raise BadRun(f"{folder / 'run.json'}: scenario has no name")
    events = lines_of(folder / "events.jsonl", Event, lambda event: event.t)
    # A run without sampling says so in run.json and has no samples to read.
    sampled = about.sampler is not None or (folder / "samples.jsonl").exists()
    samples = lines_of(folder / "samples.jsonl", Sample, lambda sample: sample.t) if sampled else []
    snapshots = [decoded(file, Snapshot) for file in (folder / "snapshots").glob("*.json")]
    return Run(
        folder,
        about,
        samples,
        [event for event in events if event.event == "operation"],
        [event for event in events if event.event != "operation"],
        sorted(snapshots, key=lambda snapshot: snapshot.at),
    )


def decoded(file: Path, kind: type[T]) -> T:
    """A JSON file as `kind`. BadRun for one that is missing, cut short or says something else."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        raise BadRun(f"{file}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise BadRun(f"{file}: {error}") from error


def lines_of(file: Path, kind: type[T], when: Callable[[T], float]) -> list[T]:
    """A file of JSON lines, by time. BadRun as `decoded`, with the number of the line."""
    decoder = msgspec.json.Decoder(kind)
    found: list[T] = []
    try:
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            try:
                if line.strip():
                    found.append(decoder.decode(line))
            except msgspec.DecodeError as error:
                raise BadRun(f"{file}, line {number}: {error}") from error
    except OSError as error:
        raise BadRun(f"{file}: {error.strerror}") from error
    return sorted(found, key=when)

"""What a client process is told to do, and what it says it did: plain values, sent as JSON.

Owns the two values that cross the border between a case and its clients. The rule: everything a
client does follows from its `Plan` alone, so a plan that is written down can be run again.
"""

import string
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

MB = 1_000_000
KIB = 1 << 10
MIB = 1 << 20
UNITS = {"": 1, "KB": 10**3, "MB": MB, "GB": 10**9, "KIB": KIB, "MIB": MIB, "GIB": 1 << 30}


def size(text: str) -> int:
    """`256MB`, `1GiB` or plain bytes. ValueError for anything else."""
    number = text.rstrip(string.ascii_letters)
    unit = text.removeprefix(number).upper()
    if not number.isdecimal() or unit not in UNITS:
        raise ValueError(f"{text!r} is not a size")
    return int(number) * UNITS[unit]


class Kind(StrEnum):
    """What each operation of a group is."""

    PUSH = "push"  # POST, then PUT or PATCH + PUT, then a HEAD that must know the blob
    PULL = "pull"  # GET of a blob pushed before, compared byte by byte
    SMALL = "small"  # a request that carries next to nothing
    MIXED = "mixed"  # pushes, pulls, both aborted, HEAD, bad digests, manifests, in turn


@dataclass(frozen=True)
class Pace:
    """At most `burst` bytes, then `pause` seconds of nothing."""

    burst: int
    pause: float


@dataclass(frozen=True)
class Group:
    """`clients` connections that do the same, `each` operations one after the other.

    Operation n of the group is about the body named `names`/n, modulo `distinct` when that is not
    0. `after` holds the group back until every client of the named groups has begun a body;
    `until` lifts the pace of this one when the named group has ended.
    """

    name: str
    kind: Kind
    clients: int = 1
    each: int = 1
    size: int = 0
    names: str = ""
    distinct: int = 0
    chunked: bool = False
    pace: Pace | None = None
    after: list[str] = field(default_factory=list)
    until: str = ""


@dataclass(frozen=True)
class Plan:
    """Groups that start together against one server, given up after `seconds`."""

    host: str
    port: int
    groups: list[Group]
    seconds: float


@dataclass
class Tally:
    """What became of one group; `seconds` is wall time.

    `bytes` are those of bodies in both directions, chunk framing included.
    """

    name: str
    done: int = 0
    failed: int = 0
    asked_to_wait: int = 0  # answers 429, each followed by another try
    bytes: int = 0
    seconds: float = 0.0
    open_peak: int = 0  # most uploads open at one moment
    open_at_lift: int = 0  # uploads still open when `until` lifted the pace
    problems: list[str] = field(default_factory=list)  # the first few, in words

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.bytes / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Progress:
    """Totals so far, for a bar."""

    bytes: int
    done: int
    failed: int


@dataclass(frozen=True)
class Ended:
    """The last word of a client process, with what it cost itself (CPU seconds, bytes of RSS)."""

    groups: list[Tally]
    prepare_seconds: float
    cpu_seconds: float
    peak_rss: int

    def __getitem__(self, name: str) -> Tally:
        return next(group for group in self.groups if group.name == name)


@dataclass(frozen=True)
class Message:
    """One line from a client process: one of the two."""

    progress: Progress | None = None
    ended: Ended | None = None


def encode(value: Plan | Message) -> bytes:
    """One line of JSON, newline included."""
    return msgspec.json.encode(value) + b"\n"


def decode_plan(line: bytes) -> Plan:
    """msgspec.ValidationError when it is not a plan."""
    return msgspec.json.decode(line, type=Plan)


def decode_message(line: bytes) -> Message:
    """msgspec.ValidationError when it is not a message."""
    return msgspec.json.decode(line, type=Message)

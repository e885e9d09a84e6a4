"""What a client process is told (one `Job`, one line of JSON) and what it says (one `Said` a line).

The rule: moments are of time.monotonic(), which all processes of a machine share, so that what clients
did and what the sampler saw can be laid on one axis.
"""

import msgspec

from perf.harness.scenario import Scenario, from_text, to_json


class Job(msgspec.Struct, frozen=True):
    """Process `process` of `scenario.processes`; `name` keeps the bodies of repeats and runs apart."""

    scenario: Scenario
    port: int
    name: str
    process: int
    beats: float  # a second: how often totals are said


class Filled(msgspec.Struct, frozen=True, tag=True):
    """The catalog is there. Said by process 0 only."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Digests are prepared; the load begins with the next line on standard input."""


class Beat(msgspec.Struct, frozen=True, tag=True):
    """Totals so far; bytes are those of bodies, framing included."""

    in_flight: int = 0
    sent: int = 0
    received: int = 0
    done: int = 0
    failed: int = 0


class Operation(msgspec.Struct, frozen=True, tag=True):
    """One that ended `at`. `ok` is false when it counts as failed; `why` also says what was forgiven."""

    at: float
    kind: str
    bytes: int
    seconds: float
    ok: bool
    why: str = ""
    group: str = ""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """The last line: totals, CPU seconds and peak RSS (bytes) of the client itself."""

    totals: Beat
    cpu_seconds: float
    peak_rss: int


Said = Filled | Ready | Beat | Operation | Ended


def encode(value: Job | Said) -> bytes:
    """One line, newline included."""
    return to_json(value) + b"\n"


def decode_job(line: bytes) -> Job:
    """msgspec.ValidationError when it is not one."""
    return msgspec.json.decode(line, type=Job, dec_hook=from_text)


SAID = msgspec.json.Decoder(Said)


def decode_said(line: bytes) -> Said:
    """msgspec.ValidationError when it is not one."""
    said: Said = SAID.decode(line)
    return said

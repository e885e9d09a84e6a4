"""The transfers that run now, to be looked at: what each waits for, how far it came, what it holds.

Rule: a transfer writes plain attributes as it goes, and adds up the seconds of each stage, nothing else; all
that takes time is done by who looks. Trio thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

from trioreg.metrics import SPENT_SECONDS
from trioreg.metrics.cells import NANOSECONDS
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.pipeline.budget import Block, Budget

Waits = Literal["lease", "client", "block", "digest", "disk", "verify", "publish", "link"]

# What the time of a transfer goes into; of stages that run side by side each has its own.
# `engine`: blocks are in the native engine, which digests and writes.
SPENT = ("lease", "client", "block", "digest", "write", "engine", "sync", "verify", "publish", "link")


class Line:
    """One thing that has a state at a time, and the seconds spent in each so far."""

    __slots__ = ("seconds", "since", "state")

    def __init__(self, state: str):
        self.state = state
        self.since = time.monotonic()
        self.seconds: dict[str, float] = {}

    def to(self, state: str) -> None:
        now = time.monotonic()
        self.seconds[self.state] = self.seconds.get(self.state, 0.0) + now - self.since
        self.state, self.since = state, now


class Transfer:
    """One request that writes into an upload session.

    `phase`: waiting for the lease, moving the body, verifying the digest, publishing, linking, or over. While
    the body moves, each stage says where it is: `receive` waits for the client, a block or the digest, or has
    ended; `digest` and `write` are idle or busy, or wait for the disk and its sync. Bytes are of this request
    alone; `start` is the session's offset at which it began. `began` is monotonic (seconds). `by_engine`: the
    native engine digests and writes it, so where its blocks are is asked of the engine (`Pump.look`), and
    `engine` is busy while it has any.
    """

    __slots__ = (
        "_marked",
        "began",
        "blocks",
        "by_engine",
        "digest",
        "engine",
        "phase",
        "rate",
        "receive",
        "received",
        "repository",
        "start",
        "upload",
        "write",
        "written",
    )

    def __init__(self, repository: str, upload: str):
        self.repository = repository
        self.upload = upload
        self.began = time.monotonic()
        self.phase = Line("lease")
        self.receive = Line("client")
        self.digest = Line("idle")
        self.write = Line("idle")
        self.engine = Line("idle")
        self.start = 0
        self.received = 0
        self.written = 0
        self.blocks = 0
        self.by_engine = False
        self.rate = 0.0
        self._marked = 0

    def begin_body(self, offset: int) -> None:
        """The session is ours, and the body comes behind `offset`."""
        self.start = offset
        self.phase.to("body")
        self.receive = Line("client")

    def end(self) -> None:
        """Nothing waits any more."""
        for line in (self.phase, self.receive, self.digest, self.write, self.engine):
            line.to("over")

    @property
    def waits_for(self) -> Waits:
        """The one thing that would bring it forward."""
        if self.phase.state != "body":
            return cast(Waits, self.phase.state)
        if self.receive.state in ("client", "block"):
            return cast(Waits, self.receive.state)
        disk = self.write.state != "idle" and self.digest.state != "busy"
        return "disk" if disk else "digest"

    def spent(self) -> dict[str, float]:
        """Seconds by what of `SPENT` they went into, where there were any."""
        lines = {
            "client": (self.receive, "client"),
            "block": (self.receive, "block"),
            "digest": (self.digest, "busy"),
            "write": (self.write, "busy"),
            "engine": (self.engine, "busy"),
            "sync": (self.write, "sync"),
        }
        found = {name: line.seconds.get(state, 0.0) for name, (line, state) in lines.items()}
        if self.by_engine:
            found |= {"digest": 0.0, "write": 0.0}  # their lines are only what somebody saw last
        found |= {phase: seconds for phase, seconds in self.phase.seconds.items() if phase in SPENT}
        return {name: seconds for name, seconds in found.items() if seconds > 0}

    def mark(self, seconds: float) -> None:
        """`seconds` have passed since the last mark: what came in them is the rate (bytes a second)."""
        self.rate = (self.received - self._marked) / seconds
        self._marked = self.received

    def look(self) -> TransferView:
        return TransferView(
            upload=self.upload,
            repository=self.repository,
            phase=self.phase.state,
            waits_for=self.waits_for,
            receive=self.receive.state,
            digest=self.digest.state,
            write=self.write.state,
            offset=self.start + self.written,
            received_bytes=self.received,
            written_bytes=self.written,
            blocks=self.blocks,
            bytes_per_second=round(self.rate),
            age_seconds=round(time.monotonic() - self.began, 3),
        )


@dataclass(frozen=True, slots=True)
class TransferView:
    """A transfer at one moment, as ``/debug/uploads`` shows it."""

    upload: str
    repository: str
    phase: str
    waits_for: Waits
    receive: str
    digest: str
    write: str
    offset: int
    received_bytes: int
    written_bytes: int
    blocks: int
    bytes_per_second: int
    age_seconds: float


class Transfers:
    """All of them, in the order they began. `over` is told of each that ends, in its own task."""

    def __init__(self) -> None:
        self.over: Callable[[Transfer], None] | None = None
        self._running: dict[Transfer, None] = {}
        self._marked = time.monotonic()

    @contextmanager
    def running(self, repository: RepositoryName, upload: UploadId) -> Iterator[Transfer]:
        """Be in the table for so long."""
        transfer = Transfer(repository, upload)
        self._running[transfer] = None
        try:
            yield transfer
        finally:
            del self._running[transfer]
            transfer.end()
            for name, seconds in transfer.spent().items():
                SPENT_SECONDS.add(int(seconds * NANOSECONDS), SPENT.index(name))
            if self.over is not None:
                self.over(transfer)

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self._running)

    def __len__(self) -> int:
        return len(self._running)

    def mark(self) -> None:
        """Work out rates since the last call; once a second or so."""
        now = time.monotonic()
        seconds, self._marked = max(now - self._marked, 1e-3), now
        for transfer in self._running:
            transfer.mark(seconds)


class Holding:
    """The blocks of one transfer: takes them from the budget and counts them."""

    __slots__ = ("_budget", "_transfer")

    def __init__(self, budget: Budget, transfer: Transfer):
        self._budget = budget
        self._transfer = transfer

    async def acquire(self) -> Block:
        block = await self._budget.acquire()
        self._transfer.blocks += 1
        return block

    def release(self, block: Block) -> None:
        self._transfer.blocks -= 1
        self._budget.release(block)

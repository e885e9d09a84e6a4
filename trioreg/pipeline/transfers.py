"""The transfers that run now, to be looked at: what each waits for, how far it came, what it holds.

Rule: a transfer writes plain attributes as it goes and nothing else; all that takes time is done by who
looks. Trio thread only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from trioreg.oci.names import RepositoryName, UploadId
from trioreg.pipeline.budget import Block, Budget

Waits = Literal["lease", "client", "block", "digest", "disk", "verify", "publish"]


class Transfer:
    """One request that writes into an upload session.

    `phase`: waiting for the lease, moving the body, comparing the digest, or publishing. While the body
    moves, each stage says where it is: `receive` waits for the client, a block or the digest, or has ended;
    `digest` and `write` are idle or busy, or wait for the disk and its sync. Bytes are of this request alone;
    `start` is the session's offset at which it began. `began` is monotonic (seconds). `by_engine`: the native
    engine digests and writes it, so where its blocks are is asked of the engine (`Pump.look`).
    """

    __slots__ = (
        "_marked",
        "began",
        "blocks",
        "by_engine",
        "digest",
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
        self.phase: Literal["lease", "body", "verify", "publish"] = "lease"
        self.receive: Literal["client", "block", "digest", "ended"] = "client"
        self.digest: Literal["idle", "busy", "disk"] = "idle"
        self.write: Literal["idle", "busy", "sync"] = "idle"
        self.start = 0
        self.received = 0
        self.written = 0
        self.blocks = 0
        self.by_engine = False
        self.rate = 0.0
        self._marked = 0

    @property
    def waits_for(self) -> Waits:
        """The one thing that would bring it forward."""
        if self.phase != "body":
            return self.phase
        if self.receive in ("client", "block"):
            return self.receive
        disk = self.write != "idle" and self.digest != "busy"
        return "disk" if disk else "digest"

    def mark(self, seconds: float) -> None:
        """`seconds` have passed since the last mark: what came in them is the rate (bytes a second)."""
        self.rate = (self.received - self._marked) / seconds
        self._marked = self.received

    def look(self) -> TransferView:
        return TransferView(
            upload=self.upload,
            repository=self.repository,
            phase=self.phase,
            waits_for=self.waits_for,
            receive=self.receive,
            digest=self.digest,
            write=self.write,
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
    """All of them, in the order they began."""

    def __init__(self) -> None:
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

"""The threads that digest, and where they can, write: shared by all uploads.

Two engines with one face. `NativeEngine` is the compiled one: blocks of different uploads are hashed side
by side in vector lanes and written in the same call, without the GIL; the end of a batch wakes Trio
once. `ThreadEngine` serves everywhere else.

Rule (T9): a state and the bytes that a job reads belong to the job until it ends, whatever is cancelled;
so who cancelled waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypedDict

import trio

from trioreg.pipeline.budget import Block
from trioreg.pipeline.digests import DigestState, native_engine
from trioreg.storage.base import storage_failure

# Hashing 16 KiB takes about 40 µs at 0.4 GB/s, a hop to a thread and back about 120 µs.
INLINE_BYTES = 16 * 1024


class Job:
    """A block on its way through the native engine."""

    __slots__ = ("_ended", "_errno", "_notify", "owner", "saved")

    def __init__(self, notify: Callable[[], None] | None = None, owner: object = None) -> None:
        self.owner = owner
        self._ended = trio.Event()
        self._errno = 0
        self._notify = notify
        self.saved: bytes | None = None

    def end(self, errno: int, saved: bytes | None) -> None:
        self._errno, self.saved = errno, saved
        self._ended.set()
        if self._notify is not None:
            self._notify()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def ended(self) -> None:
        """Wait for the job to let go of its block. Cannot be cancelled: the threads cannot either."""
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    def check(self) -> None:
        """Raises StorageFull or StorageError if the write failed."""
        if self._errno:
            raise storage_failure("writing an upload", self._errno)


class EngineStatistics(TypedDict):
    """Counted since the engine began. `sizes`: batches of 1, 2, at most 4, 8 … 64 jobs; `single_blocks` and
    `lane_blocks`: blocks of SHA-256 hashed one stream at a time, and side by side in `lane_places`.
    """

    jobs: int
    bytes: int
    sizes: Sequence[int]
    single_blocks: int
    lane_blocks: int
    lane_places: int


class Place(NamedTuple):
    """Where a block goes: `offset` of an open file; the next `reserve` bytes are allocated before.

    `direct` is the same file past the page cache, for the whole pages of the block; -1 for none.
    """

    descriptor: int
    offset: int
    direct: int = -1
    reserve: int = 0


class Engine(Protocol):
    async def run(self) -> None:
        """Serve until cancelled; to be started before the first job."""

    def statistics(self) -> EngineStatistics: ...

    async def update(self, state: DigestState, data: memoryview) -> None:
        """Add `data` to `state`. Cancelled before it begins, or not at all."""

    def update_now(self, state: DigestState, data: memoryview) -> None:
        """The same here and now: at most `INLINE_BYTES`."""


class ThreadEngine:
    """At most `threads` updates run at once; default one a processor."""

    def __init__(self, threads: int | None = None):
        self._limiter = trio.CapacityLimiter(threads or os.cpu_count() or 1)
        self._jobs = 0
        self._bytes = 0

    async def run(self) -> None:
        await trio.sleep_forever()

    def statistics(self) -> EngineStatistics:
        return {
            "jobs": self._jobs,
            "bytes": self._bytes,
            "sizes": (self._jobs, 0, 0, 0, 0, 0, 0),
            "single_blocks": self._bytes // 64,
            "lane_blocks": 0,
            "lane_places": 0,
        }

    async def update(self, state: DigestState, data: memoryview) -> None:
        self._jobs += 1
        self._bytes += len(data)
        if len(data) <= INLINE_BYTES:
            await trio.lowlevel.checkpoint()
            state.update(data)
        else:
            await trio.to_thread.run_sync(state.update, data, limiter=self._limiter)

    def update_now(self, state: DigestState, data: memoryview) -> None:
        self._jobs += 1
        self._bytes += len(data)
        state.update(data)


class NativeEngine:
    """The compiled engine. States must be its own (`digests.new_state` makes no others then)."""

    def __init__(self, native: Any, threads: int):
        self._engine = native.Engine(threads)
        self._bytes_now = 0

    async def run(self) -> None:
        """Hand out what ended, a batch for a wake-up."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._engine.fileno())
                self._collect()
        finally:
            self._engine.close()
            self._collect()

    def submit(
        self,
        state: DigestState,
        block: Block,
        place: Place,
        notify: Callable[[], None],
        owner: object = None,
    ) -> Job:
        """Hash a block into `state`, after earlier jobs of that state, and write it.

        `notify` is called when the job has ended; `owner` is told by `outstanding`.
        """
        job = Job(notify, owner)
        self._engine.submit(
            state,
            block.view,
            block.start,
            block.end,
            place.descriptor,
            place.offset,
            job,
            True,
            place.direct,
            place.reserve,
        )
        return job

    async def update(self, state: DigestState, data: memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        job = Job()
        self._engine.submit(state, data, 0, len(data), -1, 0, job)
        await job.ended()

    def update_now(self, state: DigestState, data: memoryview) -> None:
        self._bytes_now += len(data)
        state.update(data)

    def statistics(self) -> EngineStatistics:
        found: EngineStatistics = self._engine.statistics()
        found["bytes"] += self._bytes_now
        found["single_blocks"] += self._bytes_now // 64
        return found

    def outstanding(self) -> list[tuple[object, bool]]:
        """For each block in the engine: whose it is, and whether it is hashed (and being written) already."""
        return [(job.owner, hashed) for job, hashed in self._engine.outstanding()]

    def _collect(self) -> None:
        for job, errno, saved in self._engine.completed():
            job.end(errno, saved)


# Most of the threads wait for the disk, which takes direct writes faster the more there are: with 3, 5 and 8
# threads on 2 processors 40 uploads went at 822, 808 and 877 MB/s, and at 760, 919 and 995 without syncs.
_MOST_THREADS = 64


def best_engine() -> Engine:
    """The native engine where it was built, with enough threads for the processors and the disk."""
    native = native_engine()
    if native is None:
        return ThreadEngine()
    return NativeEngine(native, min(_MOST_THREADS, 2 * (os.cpu_count() or 1) + 4))

"""The threads that digest: a bound on how many hash at once, shared by all uploads.

Rule: a state and the bytes it reads belong to the job until the job ends, whatever is cancelled; so a
cancelled digest still waits for its thread.
"""

from __future__ import annotations

import os

import trio

from trioreg.pipeline.digests import DigestState

# Hashing 16 KiB takes about 40 µs at 0.4 GB/s, a hop to a thread and back about 120 µs.
INLINE_BYTES = 16 * 1024


class DigestEngine:
    """At most `threads` updates run at once; default one a processor."""

    def __init__(self, threads: int | None = None):
        self._limiter = trio.CapacityLimiter(threads or os.cpu_count() or 1)

    async def update(self, state: DigestState, data: memoryview) -> None:
        """Add `data` to `state`. Cancelled before it begins, or not at all."""
        if len(data) <= INLINE_BYTES:
            await trio.lowlevel.checkpoint()
            state.update(data)
        else:
            await trio.to_thread.run_sync(state.update, data, limiter=self._limiter)

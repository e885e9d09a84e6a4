"""Bodies and uploads that do what a test says: pause, fail or be watched at a given byte.

They implement the Protocols that the pipeline is written against; nothing of the pipeline is replaced.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from trioreg.oci.digest import Digest
from trioreg.storage.base import Checkpoint, Upload, UploadInfo, WritesByDescriptor

Nothing: Callable[[str], None] = lambda what: None


class ScriptedBody:
    """`pipeline.body.Body` that goes through a script.

    Bytes arrive as one piece; an event is waited for; an exception is raised. `given`: bytes that were
    filled. `watch` is told each call.
    """

    def __init__(
        self,
        *script: bytes | trio.Event | Exception,
        length: int | None = None,
        watch: Callable[[str], None] = Nothing,
    ) -> None:
        self._script = list(script)
        self._length = length
        self._watch = watch
        self._pending = memoryview(b"")
        self.given = 0

    @property
    def length(self) -> int | None:
        return self._length

    async def ready(self) -> bool:
        self._watch("ready")
        while not self._pending:
            await trio.lowlevel.checkpoint()
            if not self._script:
                return False
            step = self._script[0]
            if isinstance(step, trio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                self._pending = memoryview(step)
            del self._script[0]
        return True

    def fill(self, view: memoryview) -> int:
        count = min(len(view), len(self._pending))
        assert count, "asked to fill without room, or without having been ready"
        view[:count] = self._pending[:count]
        self._pending = self._pending[count:]
        self.given += count
        self._watch("fill")
        return count


class WatchedUpload:
    """An `Upload` around another one: it tells each call, and can pause or fail at a byte.

    The write that would pass byte `pause_at` waits for `go_on` first; the one that would pass `fail_at`
    raises `failure` and writes nothing, as the contract says; `commit_failure` is raised by `commit`. A
    checkpoint past the bytes that were written is an AssertionError.
    """

    def __init__(
        self,
        real: Upload,
        *,
        pause_at: int | None = None,
        go_on: trio.Event | None = None,
        fail_at: int | None = None,
        failure: Exception | None = None,
        watch: Callable[[str], None] = Nothing,
    ) -> None:
        self._real = real
        self._pause_at = pause_at
        self._fail_at = fail_at
        self._failure = failure
        self._watch = watch
        self.go_on = trio.Event() if go_on is None else go_on
        self.written = real.info.offset
        self.reads = 0
        self.commit_failure: Exception | None = None
        self.checkpoints: list[tuple[Checkpoint, bool]] = []

    @property
    def info(self) -> UploadInfo:
        return self._real.info

    @property
    def resumed(self) -> Checkpoint:
        return self._real.resumed

    async def write(self, data: memoryview) -> None:
        self._watch("write")
        end = self.written + len(data)
        if self._pause_at is not None and end > self._pause_at:
            await self.go_on.wait()
        if self._fail_at is not None and end > self._fail_at:
            assert self._failure is not None
            raise self._failure
        await self._real.write(data)
        self.written = end
        self._watch("written")

    async def read(self, start: int, length: int) -> bytes:
        data = await self._real.read(start, length)
        self.reads += len(data)
        return data

    async def checkpoint(self, at: Checkpoint, *, sync: bool) -> None:
        assert at.offset <= self.written, "a record runs ahead of the bytes"
        self._watch("checkpoint")
        await self._real.checkpoint(at, sync=sync)
        self.checkpoints.append((at, sync))

    async def commit(self, digest: Digest) -> None:
        self._watch("commit")
        if self.commit_failure is not None:
            raise self.commit_failure
        await self._real.commit(digest)

    async def cancel(self) -> None:
        await self._real.cancel()


class WatchedFile(WatchedUpload):
    """The same around an upload that an engine may write by itself."""

    def write_descriptor(self) -> int | None:
        assert isinstance(self._real, WritesByDescriptor)
        return self._real.write_descriptor()

    def direct_descriptor(self) -> int | None:
        assert isinstance(self._real, WritesByDescriptor)
        return self._real.direct_descriptor()

    def wrote(self, count: int) -> None:
        assert isinstance(self._real, WritesByDescriptor)
        self._real.wrote(count)
        self.written += count
        self._watch("written")

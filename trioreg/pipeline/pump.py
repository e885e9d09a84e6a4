"""One body into one upload: the stages receive, digest and write, in one nursery.

::

    body ─ready, fill─▶ _Intake (one block) ─▶ digest ─▶ [channel of 0] ─▶ write ─▶ upload
                            ▲ block from the budget                    └─ block back to the budget

With the native engine and a local file the two stages are one task, which hands blocks to the engine (it
hashes them in order and writes each right after) and settles what comes back.

Rules:

- At most three blocks a transfer: one being filled, one in the digest, one being written; with the native
  engine 4 MiB in there while most of the budget is free. Both joints hold no block of their own: any number
  above 0 would only be memory in a queue.
- A receiver that waits for its client holds no block that a stage could use: the digest stage takes the
  part-filled block as soon as it is idle. While it is busy the receiver goes on filling.
- The state that is recorded never runs ahead of the bytes: each block carries a copy of the digest state
  taken right behind it, and that copy becomes `Flow.reached` once the block is written.
- When the client vanishes or we are cancelled, only `receive` ends; the blocks that arrived are still
  digested and written, shielded, within `DRAIN_SECONDS`, else that is a failure of the storage. When a
  stage fails, everything ends.
- One cause leaves `pump`, never a group.
- A body of at most `INLINE_BYTES` that has arrived whole takes one block for a moment and no stages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

import trio

from trioreg.oci.digest import Algorithm
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.body import Body
from trioreg.pipeline.budget import Block, Budget
from trioreg.pipeline.digests import DigestState, load_state
from trioreg.pipeline.engine import INLINE_BYTES, Engine, Job, NativeEngine, Place
from trioreg.pipeline.transfers import Holding, Transfer, Transfers
from trioreg.storage.base import Checkpoint, StorageError, Upload, WritesByDescriptor, WritesSoon

# Three blocks at 1 MB/s, and some: a disk slower than that is broken.
DRAIN_SECONDS = 30.0


class Reached:
    """How far the bytes are in the store, with the digest state over exactly these."""

    __slots__ = ("_algorithm", "_state", "offset")

    def __init__(self, offset: int, state: DigestState, algorithm: Algorithm):
        self.offset = offset
        self._state: DigestState | bytes = state
        self._algorithm: Algorithm = algorithm

    @property
    def state(self) -> DigestState:
        if isinstance(self._state, bytes):
            loaded = load_state(self._algorithm, self._state)
            assert loaded is not None
            self._state = loaded
        return self._state

    def move(self, count: int, state: DigestState | bytes | None) -> None:
        assert state is not None
        self.offset += count
        self._state = state

    def checkpoint(self) -> Checkpoint:
        if not self.offset:
            return Checkpoint(0, None)
        saved = self._state if isinstance(self._state, bytes) else self._state.save()
        return Checkpoint(self.offset, saved)


# Uploads from this size on go past the page cache: 0.13 cpu-s/GB instead of 0.3 to 1.7, and nobody else's
# pages are driven out. A small one waits for the disk once, when it is synced.
_DIRECT_BYTES = 2**19

# Blocks of many uploads are written in turn: without this a file of 100 MB would lie in 400 pieces. Not more
# at a time, for a client may announce what it never sends.
_RESERVE_BYTES = 16 * 2**20

# Blocks of one upload inside the native engine: one is written while the next is hashed. While most of the
# budget is free there may be more, so that a lone upload does not stop for every wake-up of a thread.
_JOBS = 2
_SPARE_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Pump:
    """What all transfers share. `sync_every`: bytes between durable checkpoints inside an upload."""

    budget: Budget
    engine: Engine
    sync_every: int
    transfers: Transfers = field(default_factory=Transfers)

    async def run(
        self,
        body: Body,
        upload: Upload,
        reached: Reached,
        expected: int | None,
        transfer: Transfer | None = None,
    ) -> None:
        """Append the body to the upload and move `reached` along with what is written.

        `expected`: bytes that the body must have, if that was announced. Raises SIZE_INVALID when it has
        others, ClientDisconnected, StorageError; after each, and after cancellation, `reached` is true.
        `transfer` is told how it goes.
        """
        shown = transfer or Transfer(upload.info.repository, upload.info.id)
        flow = _Flow(self, body, upload, reached, expected, shown)
        try:
            if body.length == expected is not None and expected <= INLINE_BYTES and await flow.at_once():
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flow.digest_and_write)
                await flow.receive()
        except BaseExceptionGroup as group:
            raise _one_cause(group) from None
        finally:
            flow.give_back()

    def look(self) -> tuple[int, int]:
        """Bring the stages of all transfers up to date; blocks that are digested, and written, just now."""
        if isinstance(self.engine, NativeEngine):
            inside = [(owner, hashed) for owner, hashed in self.engine.outstanding() if owner is not None]
        else:
            inside = []
        digested = {owner for owner, hashed in inside if not hashed}
        written = {owner for owner, hashed in inside if hashed}
        digesting, writing = sum(not hashed for _, hashed in inside), sum(hashed for _, hashed in inside)
        for transfer in self.transfers:
            if not transfer.by_engine:
                digesting += transfer.digest.state == "busy"
                writing += transfer.write.state == "busy" or transfer.digest.state == "disk"
            elif transfer.write.state != "sync":
                transfer.digest.state = "busy" if transfer in digested else "idle"
                transfer.write.state = "busy" if transfer in written else "idle"
        return digesting, writing


class _Flow:
    """One run of the pump."""

    def __init__(
        self,
        pump: Pump,
        body: Body,
        upload: Upload,
        reached: Reached,
        expected: int | None,
        transfer: Transfer,
    ):
        self._pump = pump
        self._transfer = transfer
        self._blocks = Holding(pump.budget, transfer)
        self._body = body
        self._upload = upload
        self._reached = reached
        self._expected = expected
        self._intake = _Intake(self._blocks, transfer)
        self._drain = trio.CancelScope(shield=True)
        self._received = 0

    async def at_once(self) -> bool:
        """Append a small body whose length is certain; False if only a part of it has come: then the stages
        go on from there, for no block may wait for a client.
        """
        expected = self._expected
        if not expected:
            return True
        if not await self._body.ready():
            raise self._wrong_size(0)
        block = await self._intake.block_to_fill()
        block.place(self._reached.offset)
        self._count(self._body.fill(block.view[block.end :][:expected]))
        if self._received < expected or self._intake.take_nowait(idle=True) is None:
            return False
        try:
            state = self._reached.state.copy()
            self._pump.engine.update_now(state, block.carried)
            if isinstance(self._upload, WritesSoon):
                self._upload.write_soon(bytes(block.carried))
            else:
                await self._upload.write(block.carried)
        finally:
            self._blocks.release(block)
        await self._advance(expected, state)
        return True

    def _count(self, count: int) -> None:
        """So many bytes came into the block of the intake."""
        self._received += count
        self._transfer.received = self._received
        if self._expected is not None and self._received > self._expected:
            raise self._wrong_size(self._received)
        self._intake.filled(count)

    async def receive(self) -> None:
        """The first stage. Runs in the caller's own cancel scope: it alone ends when we are cancelled."""
        begin, transfer = self._reached.offset, self._transfer
        try:
            while await self._body.ready():
                block = await self._intake.block_to_fill()
                if transfer.receive.state != "client":
                    transfer.receive.to("client")
                if not block.size:
                    block.place(begin + self._received)
                self._count(self._body.fill(block.view[block.end :]))
            if self._expected is not None and self._received != self._expected:
                raise self._wrong_size(self._received)
        except BaseException:
            self._drain.deadline = trio.current_time() + DRAIN_SECONDS
            raise
        finally:
            transfer.receive.to("ended")
            self._intake.close()

    async def digest_and_write(self) -> None:
        """The other two stages; they outlive the first by the blocks that it received."""
        with self._drain:
            await self._stages()
        if self._drain.cancelled_caught:
            raise StorageError("the disk did not take the last blocks in time")

    async def _stages(self) -> None:
        engine, upload = self._pump.engine, self._upload
        if isinstance(engine, NativeEngine) and isinstance(upload, WritesByDescriptor):
            descriptor = upload.write_descriptor()
            if descriptor is not None:
                await self._process(engine, upload, descriptor)
                return
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[tuple[Block, DigestState]](0)
            nursery.start_soon(self._digest, send)
            nursery.start_soon(self._write, receive)

    def give_back(self) -> None:
        """Return the block that the receiver filled and nobody took."""
        self._intake.abandon()

    async def _digest(self, send: trio.MemorySendChannel[tuple[Block, DigestState]]) -> None:
        state, transfer = self._reached.state.copy(), self._transfer
        with send:
            while (block := await self._intake.take()) is not None:
                try:
                    transfer.digest.to("busy")
                    await self._pump.engine.update(state, block.carried)
                    transfer.digest.to("disk")
                    await send.send((block, state.copy()))
                    transfer.digest.to("idle")
                except BaseException:
                    self._blocks.release(block)
                    raise

    async def _write(self, receive: trio.MemoryReceiveChannel[tuple[Block, DigestState]]) -> None:
        with receive:
            async for block, state in receive:
                try:
                    self._transfer.write.to("busy")
                    await self._upload.write(block.carried)
                    count = block.size
                finally:
                    self._blocks.release(block)
                await self._advance(count, state)
                self._transfer.write.to("idle")

    async def _process(self, engine: NativeEngine, upload: WritesByDescriptor, descriptor: int) -> None:
        """Digest and write in one: the engine hashes a block after the one before, and then writes it."""
        state, offset = self._reached.state.copy(), self._reached.offset
        self._transfer.by_engine = True
        target = _Target(upload, descriptor, None if self._expected is None else offset + self._expected)
        jobs: deque[tuple[Block, Job]] = deque()
        budget = self._pump.budget
        spare = max(_JOBS, _SPARE_BYTES // budget.block_size)
        try:
            while True:
                while jobs and jobs[0][1].has_ended:
                    await self._settle(*jobs.popleft(), upload, jobs)
                most = _JOBS if budget.is_scarce else spare
                block = self._intake.take_nowait(idle=not jobs) if len(jobs) < most else None
                if block is not None:
                    try:
                        job = engine.submit(
                            state,
                            block,
                            target.place(offset, block.size),
                            self._intake.notify,
                            self._transfer,
                        )
                    except BaseException:
                        self._blocks.release(block)
                        raise
                    if not jobs:
                        self._transfer.engine.to("busy")
                    jobs.append((block, job))
                    offset += block.size
                elif not jobs and self._intake.finished:
                    return
                else:
                    await self._intake.change()
        finally:
            for block, job in jobs:
                await job.ended()
                self._blocks.release(block)

    async def _settle(
        self, block: Block, job: Job, upload: WritesByDescriptor, others: Collection[tuple[Block, Job]]
    ) -> None:
        count = block.size
        self._blocks.release(block)
        if not others:
            self._transfer.engine.to("idle")
        job.check()
        upload.wrote(count)
        if self._is_due(count):
            # A sync that fails cuts the file: a write that still runs would make it long again.
            for _, other in others:
                await other.ended()
        await self._advance(count, job.saved)

    async def _advance(self, count: int, state: DigestState | bytes | None) -> None:
        """`count` more bytes are written and `state`, perhaps saved, is over all of them."""
        due = self._is_due(count)
        self._reached.move(count, state)
        self._transfer.written += count
        if due:
            self._transfer.write.to("sync")
            await self._upload.checkpoint(self._reached.checkpoint(), sync=True)
            self._transfer.write.to("idle")

    def _is_due(self, count: int) -> bool:
        """Whether `count` more bytes pass a multiple of `sync_every`."""
        before, every = self._reached.offset, self._pump.sync_every
        return before // every != (before + count) // every

    def _wrong_size(self, received: int) -> RegistryError:
        return RegistryError(ErrorCode.SIZE_INVALID, {"expected": self._expected, "received": received})


class _Target:
    """Where in the file of an upload blocks go, and how. `end`: where the body will end, if that is known."""

    def __init__(self, upload: WritesByDescriptor, descriptor: int, end: int | None):
        self._upload = upload
        self._descriptor = descriptor
        self._end = end
        self._reserved = 0

    def place(self, offset: int, size: int) -> Place:
        if max(self._end or 0, offset + size) < _DIRECT_BYTES:
            return Place(self._descriptor, offset)
        direct = self._upload.direct_descriptor()
        if direct is None:
            return Place(self._descriptor, offset)
        reserve = 0
        if self._end is not None and self._reserved < offset + size < self._end:
            reserve = min(_RESERVE_BYTES, self._end - offset)
            self._reserved = offset + reserve
        return Place(self._descriptor, offset, direct, reserve)


class _Intake:
    """The joint between receive and digest: one block, which the receiver fills until it is taken."""

    def __init__(self, blocks: Holding, transfer: Transfer):
        self._blocks = blocks
        self._transfer = transfer
        self._block: Block | None = None
        self._closed = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def block_to_fill(self) -> Block:
        """The block in the joint while it has room, else a new one from the budget."""
        while self._block is not None and self._block.full:
            self._transfer.receive.to("digest")
            await self.change()
        if self._block is None:
            self._transfer.receive.to("block")
            block = await self._blocks.acquire()
            self._block = block
        return self._block

    def filled(self, count: int) -> None:
        assert self._block is not None
        self._block.end += count
        if self._block.size:
            self.notify()
        else:
            # Nothing had arrived after all, and the receiver will wait: not with a block.
            self.abandon()

    async def take(self) -> Block | None:
        """Whatever has been filled, as soon as there is anything; None at the end."""
        while True:
            block = self.take_nowait(idle=True)
            if block is not None or self.finished:
                return block
            await self.change()

    def take_nowait(self, *, idle: bool) -> Block | None:
        """What has been filled. Who still has work (not `idle`) gets full blocks, or the last."""
        block = self._block
        if block is None or not block.size or not (idle or block.full or self._closed):
            return None
        self._block = None
        self.notify()
        return block

    @property
    def finished(self) -> bool:
        """Everything that was filled has been taken, and no more will come."""
        return self._closed and (self._block is None or not self._block.size)

    def close(self) -> None:
        """No more will be filled."""
        self._closed = True
        self.notify()

    def notify(self) -> None:
        """Wake who waits for a change."""
        self._waiting.unpark_all()

    async def change(self) -> None:
        """Wait for `notify`: something was filled, taken, closed, or a job ended."""
        await self._waiting.park()

    def abandon(self) -> None:
        """The block in the joint goes back."""
        if self._block is not None:
            self._blocks.release(self._block)
            self._block = None


def _one_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to report: a stage's before the receiver's, any before Cancelled.

    Several stages that failed by themselves are rare (a disk that fills up while the client leaves); the
    storage's word counts then, for it decides what the client may rely on.
    """
    failures = group.split(trio.Cancelled)[1]
    if failures is None:
        return group
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [failures]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        else:
            leaves.append(each)
    # BrokenResourceError only says that the next stage ended; its reason is another leaf.
    causes = [each for each in leaves if not isinstance(each, trio.BrokenResourceError)]
    causes.sort(key=lambda each: not isinstance(each, StorageError))
    return (causes or leaves)[0]

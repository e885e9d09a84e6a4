"""One body into one upload: every byte once and in order, in few blocks, and true about how far it came."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from scripted import Nothing, ScriptedBody, WatchedFile, WatchedUpload
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName
from trioreg.pipeline.body import ClientDisconnected, ClientStalled
from trioreg.pipeline.budget import PAGE, Budget
from trioreg.pipeline.digests import load_state, new_state
from trioreg.pipeline.engine import INLINE_BYTES, Engine, NativeEngine, ThreadEngine, best_engine
from trioreg.pipeline.pump import Pump, Reached
from trioreg.storage.base import BlobStore, StorageError, StorageFull, Upload, WritesByDescriptor
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

DATA = random.Random(2).randbytes(40 * PAGE)
NEVER = 2**40


def reached_nothing() -> Reached:
    return Reached(0, new_state("sha256"), "sha256")


class Rig:
    """One way that bodies go: which engine, and into which storage."""

    def __init__(self, engine: Engine, storage: BlobStore) -> None:
        self._engine = engine
        self._storage = storage

    def pump_of(self, blocks: int, *, block: int = PAGE, sync_every: int = NEVER) -> Pump:
        return Pump(Budget(blocks * block, block), self._engine, sync_every)

    @asynccontextmanager
    async def open_session(self) -> AsyncIterator[Upload]:
        info = await self._storage.create_upload(RepositoryName("some/name"), "sha256")
        async with self._storage.lease_upload(info.id, 0) as upload:
            yield upload

    def watched(self, real: Upload, watch: Callable[[str], None]) -> WatchedUpload:
        """Watched without closing the way on which the engine writes by itself."""
        kind = WatchedFile if isinstance(real, WritesByDescriptor) else WatchedUpload
        return kind(real, watch=watch)


@pytest.fixture(params=["threads", "native", "native-writes"])
def rig(request: pytest.FixtureRequest, nursery: trio.Nursery, tmp_path: Path) -> Rig:
    """Hashed in threads; in the native engine; and hashed and written there, which needs a file."""
    engine: Engine = ThreadEngine()
    if request.param != "threads":
        engine = best_engine()
        if not isinstance(engine, NativeEngine):
            pytest.skip("the extension is not built")
        nursery.start_soon(engine.run)
    if request.param == "native-writes":
        return Rig(engine, FilesystemStorage(tmp_path, Disk(durable=False)))
    return Rig(engine, MemoryStorage())


async def check_truth(upload: Upload, reached: Reached, came: bytes) -> None:
    """`reached` is exactly what came: in the store, in the offset and in the digest state."""
    assert reached.offset == len(came)
    # Bytes that no record vouches for may follow: they are cut off before the next writer begins.
    assert await upload.read(0, len(came)) == came
    assert reached.state.digest() == hashlib.sha256(came).digest()
    saved = reached.checkpoint()
    assert saved.offset == len(came)
    if saved.digest is not None:
        loaded = load_state("sha256", saved.digest)
        assert loaded is not None
        assert loaded.digest() == hashlib.sha256(came).digest()


async def until(condition: Callable[[], bool]) -> None:
    """Let everything go on until it is so; engines have threads that Trio does not know of."""
    with trio.fail_after(10):
        while not condition():
            await wait_all_tasks_blocked()


def check_returned(pump: Pump) -> None:
    statistics = pump.budget.statistics()
    assert (statistics.held, statistics.waiting) == (0, 0)


@pytest.mark.parametrize(
    "piece", [1, 2, 1000, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 17, 20 * PAGE], ids=lambda size: f"by-{size}"
)
async def test_bytes_arrive_whole_and_in_order(rig: Rig, piece: int) -> None:
    """Whatever the pieces in which a body comes, against the size of a block."""
    data = DATA[: 300 if piece < 1000 else len(DATA)]
    pump, reached = rig.pump_of(8), reached_nothing()
    body = ScriptedBody(*(data[at : at + piece] for at in range(0, len(data), piece)))
    async with rig.open_session() as upload:
        await pump.run(body, upload, reached, None)
        await check_truth(upload, reached, data)
    check_returned(pump)


async def test_blocks_that_are_hashed_in_threads(rig: Rig) -> None:
    """Blocks of the real size take the way through the engine."""
    data = DATA * 8
    pump, reached = rig.pump_of(4, block=256 * 1024), reached_nothing()
    async with rig.open_session() as upload:
        await pump.run(ScriptedBody(data), upload, reached, len(data))
        assert reached.offset == len(data)
        assert reached.state.digest() == hashlib.sha256(data).digest()
    check_returned(pump)


@pytest.mark.parametrize(("taken", "most"), [(0, 5), (21, 3)], ids=["free", "scarce"])
async def test_blocks_of_one_upload(rig: Rig, taken: int, most: int) -> None:
    """One is filled, and 4 MiB may be in the engine; two blocks once others hold half of the budget."""
    pump, reached, data = rig.pump_of(40, block=2**20), reached_nothing(), DATA * 80
    others = [await pump.budget.acquire() for _ in range(taken)]
    held: list[int] = []
    body = ScriptedBody(data, watch=lambda _: held.append(pump.budget.statistics().held - taken))
    async with rig.open_session() as upload:
        await pump.run(body, upload, reached, len(data))
        assert reached.state.digest() == hashlib.sha256(data).digest()
    assert max(held) <= most
    for block in others:
        pump.budget.release(block)
    check_returned(pump)


async def test_a_body_of_nothing(rig: Rig) -> None:
    """It takes no block and moves nothing."""
    pump, reached = rig.pump_of(1), reached_nothing()
    async with rig.open_session() as upload:
        await pump.run(ScriptedBody(), upload, reached, 0)
        await check_truth(upload, reached, b"")
    assert pump.budget.statistics().warm == 0


@pytest.mark.parametrize(
    "pieces",
    [[1], [5000], [INLINE_BYTES], [INLINE_BYTES + 1], [1, 4999], [2000, 2000, 1000]],
    ids=lambda pieces: "+".join(map(str, pieces)),
)
@pytest.mark.parametrize("start", [0, 300], ids=["from-0", "from-300"])
async def test_a_small_body(rig: Rig, pieces: list[int], start: int) -> None:
    """Whole at once it takes no stages, in pieces it takes them from where they begin; it is the same."""
    pump, reached = rig.pump_of(8, block=64 * 1024), reached_nothing()
    length = sum(pieces)
    ends = [start + sum(pieces[: number + 1]) for number in range(len(pieces))]
    async with rig.open_session() as upload:
        if start:
            await pump.run(ScriptedBody(DATA[:start]), upload, reached, None)
        parts = [DATA[end - size : end] for size, end in zip(pieces, ends, strict=True)]
        body = ScriptedBody(*parts, length=length)
        await pump.run(body, upload, reached, length)
        await check_truth(upload, reached, DATA[: start + length])
        await upload.checkpoint(reached.checkpoint(), sync=True)
        await check_truth(upload, reached, DATA[: start + length])
    check_returned(pump)


@pytest.mark.parametrize("came", [0, 1, 999])
async def test_a_small_body_is_cut(rig: Rig, came: int) -> None:
    """What came of it counts, as of a large one; a client that is waited for holds no block."""
    pump, reached = rig.pump_of(2), reached_nothing()
    silence = trio.Event()
    body = ScriptedBody(*[DATA[:came]][:came], silence, ClientDisconnected(), length=1000)
    async with rig.open_session() as upload, trio.open_nursery() as nursery:

        async def run() -> None:
            with pytest.raises(ClientDisconnected):
                await pump.run(body, upload, reached, 1000)
            await check_truth(upload, reached, DATA[:came])

        nursery.start_soon(run)
        await until(lambda: body.given == came and pump.budget.statistics().held == 0)
        silence.set()
    check_returned(pump)


async def test_a_small_body_that_is_too_short(rig: Rig) -> None:
    """A front whose body ends before its length is told so."""
    pump, reached = rig.pump_of(2), reached_nothing()
    async with rig.open_session() as upload:
        with pytest.raises(RegistryError) as raised:
            await pump.run(ScriptedBody(length=10), upload, reached, 10)
    assert raised.value.error is ErrorCode.SIZE_INVALID
    check_returned(pump)


async def test_it_goes_on_where_the_last_one_ended(rig: Rig) -> None:
    """Two bodies into one upload, the second with what the first reached."""
    pump, reached = rig.pump_of(4), reached_nothing()
    async with rig.open_session() as upload:
        await pump.run(ScriptedBody(DATA[:5000]), upload, reached, 5000)
        await pump.run(ScriptedBody(DATA[5000:]), upload, reached, None)
        await check_truth(upload, reached, DATA)


async def test_at_most_three_blocks(rig: Rig) -> None:
    """One filled, one digested, one written; more would only be memory in a queue."""
    pump, reached, most = rig.pump_of(40), reached_nothing(), 0

    def watch(what: str) -> None:
        nonlocal most
        most = max(most, pump.budget.statistics().held)

    async with rig.open_session() as real:
        upload = WatchedUpload(real, pause_at=0, watch=watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run, ScriptedBody(DATA, watch=watch), upload, reached, None)
            await until(lambda: pump.budget.statistics().held == 3)
            upload.go_on.set()
        await check_truth(real, reached, DATA)
    assert most == 3


async def test_a_slow_write_stops_the_receiver(rig: Rig) -> None:
    """Backpressure: nothing is taken from the client beyond the three blocks."""
    pump, reached = rig.pump_of(40), reached_nothing()
    body = ScriptedBody(*(DATA[at : at + 100] for at in range(0, len(DATA), 100)))
    async with rig.open_session() as real:
        upload = WatchedUpload(real, pause_at=5 * PAGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run, body, upload, reached, None)
            await until(lambda: upload.written > 0 and pump.budget.statistics().held == 3)
            await wait_all_tasks_blocked()
            assert body.given <= upload.written + 3 * PAGE
            assert reached.offset == upload.written <= 5 * PAGE
            upload.go_on.set()
        await check_truth(real, reached, DATA)


async def test_silent_clients_hold_no_block(rig: Rig) -> None:
    """64 clients that wait, some in the middle, and a budget of four blocks: a fast one passes them."""
    pump, silence = rig.pump_of(4), trio.Event()
    heads = [DATA[: number * 100] if number % 2 else b"" for number in range(64)]
    silent = [(head, ScriptedBody(*[head][: len(head)], silence)) for head in heads]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _, body in silent:
                nursery.start_soon(run_alone, rig, pump, body)
            await until(lambda: all(body.given == len(head) for head, body in silent))
            await until(lambda: pump.budget.statistics().held == 0)
            await run_alone(rig, pump, ScriptedBody(DATA))
            silence.set()
    check_returned(pump)


async def run_alone(rig: Rig, pump: Pump, body: ScriptedBody) -> None:
    """A transfer with a storage of its own."""
    reached = reached_nothing()
    async with rig.open_session() as upload:
        await pump.run(body, upload, reached, None)
        assert reached.offset == body.given


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
async def test_few_blocks_for_many_transfers(rig: Rig, blocks: int) -> None:
    """Down to one for twelve there is no deadlock: whoever has a block needs no other to return it."""
    pump = rig.pump_of(blocks)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(run_alone, rig, pump, ScriptedBody(DATA[: 10 * PAGE + 1]))
    check_returned(pump)


async def test_a_bounded_number_of_blocks_for_stuck_disks(rig: Rig) -> None:
    """Many clients that push at full speed into writes that do not end take the budget, and no more."""
    pump, bodies, go_on = rig.pump_of(4), [ScriptedBody(DATA) for _ in range(10)], trio.Event()

    async def run_stuck(body: ScriptedBody) -> None:
        async with rig.open_session() as real:
            upload = WatchedUpload(real, pause_at=0, go_on=go_on)
            await pump.run(body, upload, reached_nothing(), None)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(run_stuck, body)
            await until(lambda: pump.budget.statistics().waiting >= 6)
            assert pump.budget.statistics().held == 4
            assert sum(body.given for body in bodies) <= 4 * PAGE
            go_on.set()
    assert [body.given for body in bodies] == [len(DATA)] * 10
    check_returned(pump)


@pytest.mark.parametrize("cause", [ClientDisconnected, ClientStalled])
@pytest.mark.parametrize("came", [0, 1, PAGE - 1, PAGE, PAGE + 1, 7 * PAGE + 5])
async def test_what_came_is_kept_when_the_client_goes(rig: Rig, cause: type[Exception], came: int) -> None:
    """Every byte that was read is written, and the checkpoint says so."""
    pump, reached = rig.pump_of(4), reached_nothing()
    async with rig.open_session() as upload:
        with pytest.raises(cause) as caught:
            await pump.run(ScriptedBody(DATA[:came], cause()), upload, reached, NEVER)
        assert type(caught.value) is cause
        await check_truth(upload, reached, DATA[:came])
    check_returned(pump)


async def test_what_came_is_kept_when_the_disk_is_slow_too(rig: Rig) -> None:
    """The client leaves while a write is under way: the blocks behind it are written as well."""
    pump, reached = rig.pump_of(8), reached_nothing()
    async with rig.open_session() as real:
        upload = WatchedUpload(real, pause_at=PAGE)
        async with trio.open_nursery() as nursery:

            async def lose_the_client() -> None:
                body = ScriptedBody(DATA[: 3 * PAGE], ClientDisconnected())
                with pytest.raises(ClientDisconnected):
                    await pump.run(body, upload, reached, None)

            nursery.start_soon(lose_the_client)
            await until(lambda: reached.offset == PAGE)
            upload.go_on.set()
        await check_truth(real, reached, DATA[: 3 * PAGE])
    check_returned(pump)


async def cancel_at(rig: Rig, moment: int, sync_every: int = 2 * PAGE) -> int:
    """Cancel a transfer at the n-th thing that happens in it; how many happened."""
    pump, reached, count = rig.pump_of(3, sync_every=sync_every), reached_nothing(), 0
    scope = trio.CancelScope()

    def watch(what: str) -> None:
        nonlocal count
        count += 1
        if count == moment:
            scope.cancel()

    data = DATA[: 9 * PAGE + 100]
    body = ScriptedBody(*(data[at : at + 1500] for at in range(0, len(data), 1500)), watch=watch)
    async with rig.open_session() as real:
        upload = rig.watched(real, watch)
        with scope:
            await pump.run(body, upload, reached, len(data))
        await check_truth(real, reached, data[: body.given])
        for checkpoint, _ in upload.checkpoints:
            state = load_state("sha256", checkpoint.digest) if checkpoint.digest else None
            assert state is None or state.digest() == hashlib.sha256(data[: checkpoint.offset]).digest()
    check_returned(pump)
    assert scope.cancelled_caught or moment == 0 or body.given == len(data)
    return count


async def test_cancelled_at_any_moment(rig: Rig) -> None:
    """After each call of the body or the upload: what was filled is written, and every block is back."""
    total = await cancel_at(rig, 0)
    assert total > 50
    for moment in range(1, total + 1):
        await cancel_at(rig, moment)


async def test_cancelled_while_it_waits_for_its_client(rig: Rig) -> None:
    """The usual moment: nothing is under way, and what came before is kept."""
    pump, reached = rig.pump_of(2), reached_nothing()
    async with rig.open_session() as upload:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump.run, ScriptedBody(DATA[:5000], trio.Event()), upload, reached, None)
                await until(lambda: reached.offset == 5000)
                scope.cancel()
        await check_truth(upload, reached, DATA[:5000])
    check_returned(pump)


async def test_cancelled_while_it_waits_for_a_block(rig: Rig) -> None:
    """Its place in the queue is free again, and so is the client."""
    pump, reached = rig.pump_of(1), reached_nothing()
    taken = await pump.budget.acquire()
    async with rig.open_session() as upload:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump.run, ScriptedBody(DATA), upload, reached, None)
                await wait_all_tasks_blocked()
                assert pump.budget.statistics().waiting == 1
                scope.cancel()
        await check_truth(upload, reached, b"")
    pump.budget.release(taken)
    check_returned(pump)


@pytest.mark.parametrize("failure", [StorageError("broken"), StorageFull("full")], ids=["broken", "full"])
@pytest.mark.parametrize("at", [0, 1, 3 * PAGE, 17 * PAGE + 5])
async def test_a_failing_write_is_the_one_cause(rig: Rig, failure: StorageError, at: int) -> None:
    """The storage's own error leaves the pump, not a group, and the client is no longer read."""
    pump, reached = rig.pump_of(4), reached_nothing()
    body = ScriptedBody(*(DATA[at : at + 999] for at in range(0, len(DATA), 999)), trio.Event())
    async with rig.open_session() as real:
        upload = WatchedUpload(real, fail_at=at, failure=failure)
        with pytest.raises(StorageError) as caught:
            await pump.run(body, upload, reached, None)
        assert caught.value is failure
        await check_truth(real, reached, DATA[: upload.written])
    check_returned(pump)


async def test_the_storages_word_counts_when_the_client_leaves_as_well(rig: Rig) -> None:
    """Both fail: the client's offset is what the storage has, so its error is the answer."""
    pump, reached = rig.pump_of(4), reached_nothing()
    async with rig.open_session() as real:
        upload = WatchedUpload(real, fail_at=PAGE, failure=StorageFull("full"))
        with pytest.raises(StorageFull):
            await pump.run(ScriptedBody(DATA[: 3 * PAGE], ClientDisconnected()), upload, reached, None)
        await check_truth(real, reached, DATA[: upload.written])
    check_returned(pump)


async def test_a_failing_checkpoint_is_a_failing_write(rig: Rig) -> None:
    """The record could not be saved: what is written stays true, and every block is back."""
    pump, reached = rig.pump_of(4, sync_every=2 * PAGE), reached_nothing()

    def fail(what: str) -> None:
        if what == "checkpoint":
            raise StorageError("no record")

    async with rig.open_session() as real:
        upload = rig.watched(real, fail)
        with pytest.raises(StorageError, match="no record"):
            await pump.run(ScriptedBody(DATA), upload, reached, None)
        await check_truth(real, reached, DATA[: 2 * PAGE])
    check_returned(pump)


@pytest.mark.parametrize("announced", [0, 1, 4999, 5001, NEVER])
async def test_a_body_of_another_size_than_announced(rig: Rig, announced: int) -> None:
    """Too many or too few bytes: SIZE_INVALID; and too many are noticed before they are written."""
    pump, reached = rig.pump_of(4), reached_nothing()
    body = ScriptedBody(*(DATA[at : at + 100] for at in range(0, 5000, 100)))
    async with rig.open_session() as upload:
        with pytest.raises(RegistryError) as caught:
            await pump.run(body, upload, reached, announced)
        assert caught.value.error is ErrorCode.SIZE_INVALID
        assert reached.offset <= announced
        await check_truth(upload, reached, DATA[: reached.offset])
    check_returned(pump)


async def test_a_durable_checkpoint_each_so_many_bytes(rig: Rig) -> None:
    """Each is taken right behind a write, past the next multiple, and is true for exactly its bytes."""
    pump, reached = rig.pump_of(4, sync_every=3 * PAGE), reached_nothing()
    async with rig.open_session() as real:
        upload = rig.watched(real, Nothing)
        await pump.run(ScriptedBody(DATA), upload, reached, None)
    offsets = [checkpoint.offset for checkpoint, _ in upload.checkpoints]
    assert len(offsets) == len(DATA) // (3 * PAGE)
    for number, offset in enumerate(offsets, start=1):
        assert 3 * number * PAGE <= offset < 3 * number * PAGE + PAGE
    assert all(sync for _, sync in upload.checkpoints)
    for checkpoint, _ in upload.checkpoints:
        if checkpoint.digest is not None:
            state = load_state("sha256", checkpoint.digest)
            assert state is not None
            assert state.digest() == hashlib.sha256(DATA[: checkpoint.offset]).digest()


async def test_nothing_is_left_running(rig: Rig) -> None:
    """Ended, failed or cancelled: no task of the pump outlives it."""
    before = trio.lowlevel.current_statistics().tasks_living
    for moment in range(20):
        await cancel_at(rig, moment)
    async with rig.open_session() as real:
        upload = WatchedUpload(real, fail_at=PAGE, failure=StorageError("broken"))
        with pytest.raises(StorageError):
            await rig.pump_of(4).run(ScriptedBody(DATA), upload, reached_nothing(), None)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_an_empty_fill_keeps_no_block(rig: Rig) -> None:
    """`ready` may be wrong about a socket: the block goes back before the receiver waits again."""
    pump, reached, silence = rig.pump_of(1), reached_nothing(), trio.Event()

    class Deceived(ScriptedBody):
        empty_fills = 0

        def fill(self, view: memoryview) -> int:
            if self._pending[0]:
                return super().fill(view)
            self._pending = memoryview(b"")
            self.empty_fills += 1
            return 0

    async with rig.open_session() as upload, trio.open_nursery() as nursery:
        body = Deceived(b"\0", silence, b"more")
        nursery.start_soon(pump.run, body, upload, reached, None)
        await until(lambda: body.empty_fills == 1)
        assert pump.budget.statistics().held == 0
        silence.set()
    assert reached.offset == 4


async def test_large_uploads_go_past_the_cache(nursery: trio.Nursery, tmp_path: Path) -> None:
    """From 512 KiB on the engine has the direct way too; every byte arrives, wherever it resumes."""
    engine = best_engine()
    if not isinstance(engine, NativeEngine):
        pytest.skip("the extension is not built")
    nursery.start_soon(engine.run)
    asked: list[bool] = []

    class Seen(Disk):
        def open_direct(self, path: Path) -> int | None:
            found = super().open_direct(path)
            asked.append(found is not None)
            # Where there is no direct way (tmpfs of older kernels) any other descriptor shows the same.
            return os.open(path, os.O_WRONLY) if found is None else found

    rig, reached = Rig(engine, FilesystemStorage(tmp_path, Seen(durable=False))), reached_nothing()
    pump = rig.pump_of(8, block=64 * PAGE)
    came = b""
    async with rig.open_session() as upload:
        for size in (5, 1000, 2**19 - 1006, 3 * 2**20 + 12_345, 70_000, 2**20):
            data = random.Random(size).randbytes(size)
            pieces = (data[at : at + 300_001] for at in range(0, size, 300_001))
            await pump.run(ScriptedBody(*pieces), upload, reached, size)
            came += data
            assert len(asked) == (len(came) >= 2**19)
        await check_truth(upload, reached, came)
    check_returned(pump)


async def test_what_was_allocated_for_a_body_that_is_cut(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The engine allocates ahead of the bytes; a session that nobody goes on with gives the rest back."""
    engine = best_engine()
    if not isinstance(engine, NativeEngine):
        pytest.skip("the extension is not built")
    nursery.start_soon(engine.run)
    rig, reached = Rig(engine, FilesystemStorage(tmp_path, Disk(durable=False))), reached_nothing()
    pump, came = rig.pump_of(8, block=64 * PAGE), random.Random(1).randbytes(2**20)
    async with rig.open_session() as upload:
        data = tmp_path / "uploads" / upload.info.id / "data"
        with pytest.raises(ClientDisconnected):
            await pump.run(ScriptedBody(came, ClientDisconnected()), upload, reached, 2**25)
        assert data.stat().st_blocks * 512 > 2**23  # else there is nothing to give back
    assert data.stat().st_size == 2**20
    assert data.stat().st_blocks * 512 < 2**21
    assert data.read_bytes() == came


async def test_a_disk_that_is_full_under_the_engine(nursery: trio.Nursery) -> None:
    """The engine's own write fails: StorageFull, nothing counted, every block back."""

    class OnFullDisk(WatchedUpload):
        def write_descriptor(self) -> int:
            return full

        def direct_descriptor(self) -> None:
            return None

        def wrote(self, count: int) -> None:
            raise AssertionError("nothing was written")

    engine = best_engine()
    if not isinstance(engine, NativeEngine):
        pytest.skip("the extension is not built")
    nursery.start_soon(engine.run)
    rig, reached = Rig(engine, MemoryStorage()), reached_nothing()
    pump, full = rig.pump_of(4), os.open("/dev/full", os.O_WRONLY)
    try:
        async with rig.open_session() as real:
            with pytest.raises(StorageFull):
                await pump.run(ScriptedBody(DATA, trio.Event()), OnFullDisk(real), reached, None)
            await check_truth(real, reached, b"")
    finally:
        os.close(full)
    check_returned(pump)

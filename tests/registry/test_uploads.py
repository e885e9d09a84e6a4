"""Upload sessions: what is promised to a client is kept, and what is not right is never published."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from scripted import ScriptedBody, WatchedUpload
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.digest import Algorithm, Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import UploadId, new_upload_id
from trioreg.pipeline.body import ClientDisconnected
from trioreg.pipeline.digests import HashlibState
from trioreg.pipeline.engine import ThreadEngine
from trioreg.pipeline.pump import Pump, Reached
from trioreg.storage.base import StorageError, StorageFull, Upload
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, THERE, House

DATA = random.Random(3).randbytes(50_000)
ABSENT = digest_of(b"never pushed")


async def refused(call: object) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await call  # type: ignore[misc]
    return caught.value


class Watched(MemoryStorage):
    """The driver in memory whose leased uploads are watched; `prepare` may script the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.leased: list[WatchedUpload] = []
        self.prepare: Callable[[WatchedUpload], None] = lambda upload: None

    @asynccontextmanager
    async def lease_upload(self, upload: UploadId, wait: float) -> AsyncIterator[Upload]:  # type: ignore[override]
        async with super().lease_upload(upload, wait) as real:
            watched = WatchedUpload(real)
            self.prepare(watched)
            self.leased.append(watched)
            yield watched


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_in_pieces(house: House, algorithm: Algorithm) -> None:
    """Two chunks and a last one in the finish: the blob is whole, and the session over."""
    upload, digest = await house.begin(algorithm), digest_of(DATA, algorithm)
    assert await house.append(upload, DATA[:1]) == 1
    assert await house.append(upload, DATA[1:30_000]) == 30_000
    assert not await house.stored(digest)
    await house.finish(upload, digest, DATA[30_000:])
    assert await house.pull(digest) == DATA
    assert await house.sessions() == []


@pytest.mark.parametrize("announced", ["sha256", "sha512"])
async def test_wrong_digest(house: House, announced: Algorithm) -> None:
    """The session is gone, and nothing is published under either digest."""
    upload = await house.begin(announced)
    await house.append(upload, DATA)
    error = await refused(house.finish(upload, ABSENT))
    assert error.error is ErrorCode.DIGEST_INVALID
    assert error.detail == {"provided": str(ABSENT), "uploaded": str(digest_of(DATA))}
    assert await house.sessions() == []
    assert not await house.stored(ABSENT)
    assert not await house.stored(digest_of(DATA))
    again = await refused(house.finish(upload, digest_of(DATA)))
    assert again.error is ErrorCode.BLOB_UPLOAD_UNKNOWN


@pytest.mark.parametrize(("announced", "asked"), [("sha256", "sha512"), ("sha512", "sha256")])
async def test_digest_in_another_algorithm(announced: Algorithm, asked: Algorithm) -> None:
    """One pass over the bytes in the store, none otherwise."""
    storage = Watched()
    house = House(storage)
    for algorithm, reads in ((announced, 0), (asked, len(DATA))):
        upload = await house.begin(announced)
        await house.append(upload, DATA[:-7])
        await house.finish(upload, digest_of(DATA, algorithm), DATA[-7:])
        assert await house.pull(digest_of(DATA, algorithm)) == DATA
        assert sum(each.reads for each in storage.leased) == reads
    assert house.pump.budget.statistics().held == 0


async def test_wrong_digest_in_another_algorithm(house: House) -> None:
    """Found out by the pass over the store."""
    upload = await house.begin("sha256")
    await house.append(upload, DATA)
    error = await refused(house.finish(upload, digest_of(b"other", "sha512")))
    assert error.error is ErrorCode.DIGEST_INVALID
    assert await house.sessions() == []


async def test_resumed_without_a_saved_state() -> None:
    """A worker whose engine cannot save wrote the first half: the next reads that half once."""
    storage = Watched()
    house = House(storage)
    upload = await house.begin()
    async with storage.lease_upload(upload, 0) as session:
        reached = Reached(0, HashlibState("sha256"), "sha256")
        await Pump(house.pump.budget, ThreadEngine(), 2**40).run(
            ScriptedBody(DATA[:30_000]), session, reached, None
        )
        assert reached.checkpoint() == (30_000, None)
        await session.checkpoint(reached.checkpoint(), sync=False)
    assert await house.append(upload, DATA[30_000:]) == len(DATA)
    assert storage.leased[-1].reads == 30_000
    await house.finish(upload, digest_of(DATA))
    assert storage.leased[-1].reads == 0, "what was read again is saved now"
    assert await house.pull(digest_of(DATA)) == DATA


async def test_resumed_by_another_process(house: House) -> None:
    """A second registry over the same storage goes on; it does not read what is there."""
    other = House(house.storage)
    upload = await house.begin()
    await house.append(upload, DATA[:12_345])
    assert (await other.registry.uploads.status(HERE, upload)).offset == 12_345
    await other.finish(upload, digest_of(DATA), DATA[12_345:])
    assert await house.pull(digest_of(DATA)) == DATA


@pytest.mark.parametrize("came", [0, 1, 4096, 30_000])
async def test_client_gone(house: House, came: int) -> None:
    """What came is kept and told; the upload goes on from there."""
    upload = await house.begin()
    body = ScriptedBody(DATA[:came], ClientDisconnected())
    with pytest.raises(ClientDisconnected):
        await house.registry.uploads.append(HERE, upload, body, None)
    assert (await house.registry.uploads.status(HERE, upload)).offset == came
    await house.finish(upload, digest_of(DATA), DATA[came:])
    assert await house.pull(digest_of(DATA)) == DATA


@pytest.mark.parametrize("verb", ["append", "finish"])
async def test_cancelled(house: House, verb: str) -> None:
    """A shutdown in the middle saves the offset; nothing is published."""
    upload, body = await house.begin(), ScriptedBody(DATA[:9999], trio.Event())
    uploads = house.registry.uploads
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            if verb == "append":
                nursery.start_soon(uploads.append, HERE, upload, body, None)
            else:
                nursery.start_soon(uploads.finish, HERE, upload, digest_of(DATA), body, None)
            with trio.fail_after(10):
                while body.given < 9999:
                    await wait_all_tasks_blocked()
            scope.cancel()
    assert (await uploads.status(HERE, upload)).offset == 9999
    assert not await house.stored(digest_of(DATA))
    await house.finish(upload, digest_of(DATA), DATA[9999:])
    assert await house.pull(digest_of(DATA)) == DATA


async def test_body_of_another_size_than_its_range(house: House) -> None:
    """SIZE_INVALID, and the session stays where it was."""
    upload = await house.begin()
    await house.append(upload, DATA[:100])
    for size in (99, 101):
        body = ScriptedBody(DATA[100 : 100 + size])
        error = await refused(house.registry.uploads.append(HERE, upload, body, "100-199"))
        assert error.error is ErrorCode.SIZE_INVALID
        assert (await house.registry.uploads.status(HERE, upload)).offset == 100
    await house.finish(upload, digest_of(DATA), DATA[100:])
    assert await house.pull(digest_of(DATA)) == DATA


async def test_replayed_chunk(house: House) -> None:
    """A client that lost our answer sends it again: 416 with the true range, and not a byte is read."""
    upload, body = await house.begin(), ScriptedBody(DATA[:100])
    await house.append(upload, DATA[:100])
    error = await refused(house.registry.uploads.append(HERE, upload, body, "0-99"))
    assert error.error is ErrorCode.RANGE_INVALID
    assert error.headers == {"Range": "0-99"}
    assert body.given == 0


@pytest.mark.parametrize("verb", ["append", "finish", "cancel"])
async def test_second_writer(house: House, verb: str) -> None:
    """Who comes while another writes gets 416, and not a byte of its body is read."""
    upload, first, second = await house.begin(), ScriptedBody(DATA, trio.Event()), ScriptedBody(DATA)
    uploads = house.registry.uploads
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uploads.append, HERE, upload, first, None)
            while first.given < len(DATA):
                await wait_all_tasks_blocked()
            if verb == "append":
                error = await refused(uploads.append(HERE, upload, second, None))
            elif verb == "finish":
                error = await refused(uploads.finish(HERE, upload, digest_of(DATA), second, None))
            else:
                error = await refused(uploads.cancel(HERE, upload))
            assert error.error is ErrorCode.RANGE_INVALID
            assert second.given == 0
            nursery.cancel_scope.cancel()
    await house.finish(upload, digest_of(DATA))


async def test_session_of_another_repository(house: House) -> None:
    """It is unknown there, whatever is asked, and not harmed."""
    upload, uploads = await house.begin(), house.registry.uploads
    await house.append(upload, DATA)
    calls = [
        uploads.status(THERE, upload),
        uploads.append(THERE, upload, ScriptedBody(b"x"), None),
        uploads.finish(THERE, upload, digest_of(DATA), ScriptedBody(), None),
        uploads.cancel(THERE, upload),
    ]
    for call in calls:
        assert (await refused(call)).error is ErrorCode.BLOB_UPLOAD_UNKNOWN
    assert not await house.stored(digest_of(DATA))
    await house.finish(upload, digest_of(DATA))


async def test_unknown_session(house: House) -> None:
    """Never begun, cancelled, or finished: all the same."""
    uploads = house.registry.uploads
    cancelled, finished = await house.begin(), await house.begin()
    await uploads.cancel(HERE, cancelled)
    await house.finish(finished, digest_of(DATA), DATA)
    for upload in (new_upload_id(), cancelled, finished):
        calls = [
            uploads.status(HERE, upload),
            uploads.append(HERE, upload, ScriptedBody(b"x"), None),
            uploads.finish(HERE, upload, digest_of(DATA), ScriptedBody(), None),
            uploads.cancel(HERE, upload),
        ]
        for call in calls:
            assert (await refused(call)).error is ErrorCode.BLOB_UPLOAD_UNKNOWN


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (StorageFull("full"), ErrorCode.INSUFFICIENT_STORAGE),
        (StorageError("broken"), ErrorCode.UNAVAILABLE),
    ],
    ids=["full", "broken"],
)
class TestFailingStorage:
    async def test_in_the_middle(self, failure: StorageError, code: ErrorCode) -> None:
        """The session survives with what was written, and goes on when there is space again."""
        storage = Watched()
        house = House(storage)

        def fail(upload: WatchedUpload) -> None:
            upload._fail_at, upload._failure = 20_000, failure

        upload = await house.begin()
        storage.prepare = fail
        assert (await refused(house.append(upload, DATA))).error is code
        storage.prepare = lambda upload: None
        offset = (await house.registry.uploads.status(HERE, upload)).offset
        assert 0 < offset <= 20_000
        await house.finish(upload, digest_of(DATA), DATA[offset:])
        assert await house.pull(digest_of(DATA)) == DATA
        assert house.pump.budget.statistics().held == 0

    async def test_at_commit(self, failure: StorageError, code: ErrorCode) -> None:
        """All bytes came and publishing failed: a finish without a body is enough later."""
        storage = Watched()
        house = House(storage)

        def fail(upload: WatchedUpload) -> None:
            upload.commit_failure = failure

        upload = await house.begin()
        storage.prepare = fail
        assert (await refused(house.finish(upload, digest_of(DATA), DATA))).error is code
        assert not await house.stored(digest_of(DATA))
        storage.prepare = lambda upload: None
        assert (await house.registry.uploads.status(HERE, upload)).offset == len(DATA)
        await house.finish(upload, digest_of(DATA))
        assert await house.pull(digest_of(DATA)) == DATA


@pytest.mark.parametrize("there", [True, False])
async def test_no_room_for_the_link(tmp_path: Path, there: bool) -> None:
    """507 whether or not the blob was there before; once there is room the push is done again."""

    class FullForLinks(Disk):
        full = False

        def link(self, source: Path, target: Path) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().link(source, target)

    disk = FullForLinks()
    house = House(FilesystemStorage(tmp_path, disk))
    if there:
        await house.push(DATA)
        await house.registry.blobs.delete(HERE, digest_of(DATA))
    upload = await house.begin()
    disk.full = True
    assert (
        await refused(house.finish(upload, digest_of(DATA), DATA))
    ).error is ErrorCode.INSUFFICIENT_STORAGE
    disk.full = False
    await house.push(DATA)
    assert await house.pull(digest_of(DATA)) == DATA


async def test_the_same_blob_twice_at_once(house: House) -> None:
    """Both succeed, the bytes are there once, and no session is left."""
    uploads = [await house.begin() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for upload in uploads:
            nursery.start_soon(house.finish, upload, digest_of(DATA), DATA)
    assert await house.pull(digest_of(DATA)) == DATA
    assert [digest async for digest in house.storage.list_blobs()] == [digest_of(DATA)]
    assert await house.sessions() == []


async def test_a_push_in_one_request_that_is_wrong_leaves_nothing(house: House) -> None:
    """No session that nobody knows of, and no repository."""
    error = await refused(house.registry.uploads.push(HERE, ABSENT, "sha256", ScriptedBody(DATA)))
    assert error.error is ErrorCode.DIGEST_INVALID
    assert await house.sessions() == []
    assert not await house.catalog.exists(HERE)


async def test_an_empty_blob(house: House) -> None:
    """It is a blob as any other."""
    digest = await house.push(b"")
    assert await house.pull(digest) == b""
    assert isinstance(digest, Digest)

"""Upload sessions, in every driver: appended to by one, resumed by another, published whole or not at all."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trioreg.oci.digest import ALGORITHMS, Algorithm, digest_of
from trioreg.oci.names import RepositoryName, UploadId, new_upload_id
from trioreg.registry import Storage
from trioreg.storage.base import Checkpoint, Upload, UploadBusy, UploadNotFound

NAME = RepositoryName("a/b")
STATE = b"a digest state \x00\xff"


async def created(storage: Storage) -> UploadId:
    return (await storage.create_upload(NAME, "sha256")).id


async def append(session: Upload, data: bytes, *, sync: bool = False) -> None:
    """Write and record, as the pump does."""
    await session.write(memoryview(bytearray(data)))
    await session.checkpoint(Checkpoint(session.info.offset, STATE), sync=sync)


async def check_gone(storage: Storage, upload: UploadId) -> None:
    with pytest.raises(UploadNotFound):
        await storage.upload_info(upload)
    with pytest.raises(UploadNotFound):
        async with storage.lease_upload(upload, 0.0):
            pass
    assert upload not in [each.id async for each in storage.list_uploads()]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_create(storage: Storage, algorithm: Algorithm) -> None:
    """A new session is empty, known to all, and remembers where it belongs."""
    made = await storage.create_upload(NAME, algorithm)
    assert (made.repository, made.algorithm, made.offset) == (NAME, algorithm, 0)
    assert made.started > 1_700_000_000
    assert await storage.upload_info(made.id) == made
    assert [each async for each in storage.list_uploads()] == [made]
    async with storage.lease_upload(made.id, 0.0) as session:
        assert session.info == made
        assert session.resumed == Checkpoint(0, None)
        await session.cancel()


async def test_unknown(storage: Storage) -> None:
    """A session that never was is not found."""
    await check_gone(storage, new_upload_id())


async def test_write_read_commit(storage: Storage) -> None:
    """Bytes are appended in order, can be read back, and become a blob; the session is gone then."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 1.0) as session:
        for data in (b"one", b"", b"two" * 1000, b"3"):
            before = session.info.offset
            await session.write(memoryview(bytearray(data)))
            assert session.info.offset == before + len(data)
        whole = b"one" + b"two" * 1000 + b"3"
        assert await session.read(0, 10**6) == whole
        assert await session.read(2, 3) == whole[2:5]
        assert await session.read(len(whole), 1) == b""
        await session.commit(digest_of(whole))
    assert await storage.size(digest_of(whole)) == len(whole)
    blob = await storage.open_blob(digest_of(whole))
    assert await blob.read(0, 10**6) == whole
    blob.close()
    await check_gone(storage, upload)


async def test_written_memory_is_free_again(storage: Storage) -> None:
    """The memory that was written from may be used for other bytes at once."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 1.0) as session:
        block = bytearray(b"first")
        await session.write(memoryview(block))
        block[:] = b"other"
        assert await session.read(0, 5) == b"first"
        await session.cancel()


@pytest.mark.parametrize("sync", [False, True])
async def test_resume(storage: Storage, sync: bool) -> None:
    """The next holder of the lease goes on from the last record, with its state; later bytes are cut."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 1.0) as session:
        await append(session, b"recorded", sync=sync)
        await session.write(memoryview(b"lost"))
    assert (await storage.upload_info(upload)).offset == 8
    async with storage.lease_upload(upload, 1.0) as session:
        assert session.resumed == Checkpoint(8, STATE)
        assert session.info.offset == 8
        assert await session.read(0, 100) == b"recorded"
        await append(session, b" and on")
        await session.commit(digest_of(b"recorded and on"))
    assert await storage.size(digest_of(b"recorded and on")) == 15


async def test_unrecorded_bytes_are_nothing(storage: Storage) -> None:
    """Without a record a session begins again."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 1.0) as session:
        await session.write(memoryview(b"x" * 100))
    assert (await storage.upload_info(upload)).offset == 0
    async with storage.lease_upload(upload, 1.0) as session:
        assert session.resumed == Checkpoint(0, None)
        assert await session.read(0, 100) == b""
        await session.cancel()


async def test_record_never_runs_ahead(storage: Storage) -> None:
    """A checkpoint beyond the bytes is a bug of the caller's."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 1.0) as session:
        await session.write(memoryview(b"abc"))
        with pytest.raises(AssertionError):
            await session.checkpoint(Checkpoint(4, STATE), sync=False)
        await session.checkpoint(Checkpoint(2, STATE), sync=False)
        await session.checkpoint(Checkpoint(3, STATE), sync=False)
        await session.cancel()


async def test_cancel(storage: Storage) -> None:
    """A cancelled session is gone with its bytes."""
    upload, other = await created(storage), await created(storage)
    async with storage.lease_upload(upload, 1.0) as session:
        await append(session, b"bytes")
        await session.cancel()
    await check_gone(storage, upload)
    assert [each.id async for each in storage.list_uploads()] == [other]
    assert [each async for each in storage.list_blobs()] == []


async def test_commit_of_an_existing_blob(storage: Storage) -> None:
    """A second session with the same bytes succeeds and leaves one blob."""
    for _ in range(2):
        upload = await created(storage)
        async with storage.lease_upload(upload, 1.0) as session:
            await append(session, b"the same")
            await session.commit(digest_of(b"the same"))
        await check_gone(storage, upload)
    assert [each async for each in storage.list_blobs()] == [digest_of(b"the same")]


async def test_commits_at_once(storage: Storage) -> None:
    """Sessions with the same bytes that commit at once all succeed."""

    async def push(ready: trio.Event) -> None:
        upload = await created(storage)
        async with storage.lease_upload(upload, 1.0) as session:
            await append(session, b"the same")
            await ready.wait()
            await session.commit(digest_of(b"the same"))
        await check_gone(storage, upload)

    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(push, ready)
        await trio.testing.wait_all_tasks_blocked()
        ready.set()
    assert [each async for each in storage.list_blobs()] == [digest_of(b"the same")]


@pytest.mark.parametrize("wait", [0.0, 0.01])
async def test_busy(storage: Storage, wait: float) -> None:
    """One holder at a time: who does not get the lease within its wait is told so."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 0.0):
        with pytest.raises(UploadBusy):
            async with storage.lease_upload(upload, wait):
                pass
        assert (await storage.upload_info(upload)).offset == 0
    async with storage.lease_upload(upload, 0.0) as session:
        await session.cancel()


async def test_waiting_for_the_lease(storage: Storage) -> None:
    """A waiter gets the lease when it is given back, and sees what was recorded."""
    upload, seen = await created(storage), []

    async def wait_for_it() -> None:
        async with storage.lease_upload(upload, 60.0) as session:
            seen.append(session.resumed.offset)

    async with trio.open_nursery() as nursery:
        async with storage.lease_upload(upload, 1.0) as session:
            nursery.start_soon(wait_for_it)
            await trio.testing.wait_all_tasks_blocked(0.0)
            await append(session, b"12345")
            assert seen == []
    assert seen == [5]


@pytest.mark.parametrize("end", ["commit", "cancel"])
async def test_session_ends_while_one_waits(storage: Storage, end: str) -> None:
    """Who waited for a session that its holder ended finds none, and touches no published byte."""
    upload = await created(storage)

    async def wait_for_it() -> None:
        with pytest.raises(UploadNotFound):
            async with storage.lease_upload(upload, 60.0):
                pass

    async with trio.open_nursery() as nursery:
        async with storage.lease_upload(upload, 1.0) as session:
            nursery.start_soon(wait_for_it)
            await trio.testing.wait_all_tasks_blocked(0.0)
            await append(session, b"12345")
            await (session.commit(digest_of(b"12345")) if end == "commit" else session.cancel())
    assert await storage.size(digest_of(b"12345")) == (5 if end == "commit" else None)


async def test_lease_ends_with_an_exception(storage: Storage) -> None:
    """However the holder leaves, the lease is free and the records stay."""
    upload = await created(storage)

    async def fail() -> None:
        async with storage.lease_upload(upload, 0.0) as session:
            await append(session, b"kept")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    with trio.CancelScope() as scope:
        async with storage.lease_upload(upload, 0.0):
            scope.cancel()
            await trio.sleep_forever()
    async with storage.lease_upload(upload, 0.0) as session:
        assert session.resumed.offset == 4
        await session.cancel()


async def test_cancelled_waiter(storage: Storage) -> None:
    """Who gives up waiting leaves nothing held."""
    upload = await created(storage)
    async with storage.lease_upload(upload, 0.0) as session:
        with trio.move_on_after(0.001):
            async with storage.lease_upload(upload, 60.0):
                raise AssertionError("two holders of one lease")
        await append(session, b"x")
    async with storage.lease_upload(upload, 0.0) as session:
        await session.cancel()


async def test_sessions_do_not_mix(storage: Storage) -> None:
    """Many sessions at once keep their bytes apart."""
    contents = [bytes([at]) * (at + 1) for at in range(20)]

    async def push(data: bytes) -> None:
        upload = await created(storage)
        for at in range(len(data)):
            async with storage.lease_upload(upload, 0.0) as session:
                assert session.info.offset == at
                await append(session, data[at : at + 1])
        async with storage.lease_upload(upload, 0.0) as session:
            await session.commit(digest_of(data))

    async with trio.open_nursery() as nursery:
        for data in contents:
            nursery.start_soon(push, data)
    assert {each async for each in storage.list_blobs()} == {digest_of(data) for data in contents}
    for data in contents:
        blob = await storage.open_blob(digest_of(data))
        assert await blob.read(0, 100) == data
        blob.close()

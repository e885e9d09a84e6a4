"""Purge: sessions that nobody has used for long are ended, and no other."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import trio

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import UploadId
from trioreg.registry.purge import PurgeReport, purge
from trioreg.storage import layout
from trioreg.storage.collecting import CollectableStorage
from trioreg.storage.filesystem import Disk
from trioreg.storage.filesystem.collecting import CollectableFiles
from trioreg.storage.memory import MemoryStorage

from .conftest import House

WEEK = 7 * 24 * 3600.0


@pytest.fixture(params=["memory", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CollectableStorage:
    if request.param == "memory":
        return MemoryStorage()
    return CollectableFiles(tmp_path, Disk(durable=False))


async def purge_later(store: CollectableStorage, seconds: float, *, dry_run: bool = False) -> PurgeReport:
    return await purge(store, expire_after=WEEK, dry_run=dry_run, now=lambda: time.time() + seconds)


async def test_an_unused_session_is_ended(store: CollectableStorage) -> None:
    """After the time and not before; its bytes go, and its client is told that it is unknown."""
    house = House(store)
    session = await house.begin()
    await house.append(session, b"some bytes")
    assert (await purge_later(store, WEEK - 60)).purged == 0
    dry = await purge_later(store, WEEK + 60, dry_run=True)
    assert await house.sessions() == [session]
    report = await purge_later(store, WEEK + 60)
    for each in (dry, report):
        assert (each.sessions, each.purged, each.bytes) == (1, 1, 10)
    assert await house.sessions() == []
    with pytest.raises(RegistryError, match="BLOB_UPLOAD_UNKNOWN"):
        await house.append(session, b"more")


async def test_a_session_that_is_leased_stays(store: CollectableStorage) -> None:
    """However old it is: somebody sends to it."""
    house = House(store)
    session = await house.begin()
    async with store.lease_upload(session, 0.0):
        report = await purge_later(store, WEEK + 60)
        assert (report.purged, report.busy) == (0, 1)
    await house.finish(session, digest_of(b"end"), b"end")
    assert await house.pull(digest_of(b"end")) == b"end"


async def test_a_session_that_is_used_stays(tmp_path: Path) -> None:
    """It counts when bytes last came, not when it began; and that is asked again under the lease."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    house = House(store)
    session = await house.begin()
    directory = tmp_path / layout.upload(session)
    for path in (directory, *directory.iterdir()):
        os.utime(path, (1, 1))
    await house.append(session, b"late")
    assert not await store.drop_session(session, time.time() - 60)
    assert (await purge_later(store, WEEK - 60)).purged == 0
    assert await house.sessions() == [session]


async def test_what_killed_processes_left_goes(tmp_path: Path) -> None:
    """Sessions without a record, and temporary files wherever they are; fresh ones stay."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    torn = tmp_path / layout.upload(UploadId("8d9bc404-4f52-43df-b3a9-87e1f076dadc"))
    torn.mkdir()
    (torn / "data").touch()
    old, fresh = tmp_path / "blobs" / ".tmp-1-1", tmp_path / "repositories" / ".tmp-1-2"
    old.touch()
    os.utime(old, (1, 1))
    fresh.touch()
    report = await purge(store, expire_after=0.0, now=lambda: time.time() + 1)
    assert (report.purged, report.temporaries) == (1, 1)
    assert not torn.exists() and not old.exists() and fresh.exists()


async def test_a_purge_beside_a_client(tmp_path: Path) -> None:
    """Of a client that comes back and a purge one wins: the bytes are all there, or the client is told."""
    store, serving = (CollectableFiles(tmp_path, Disk(durable=False)) for _ in range(2))
    house = House(serving)
    answers = {ErrorCode.BLOB_UPLOAD_UNKNOWN, ErrorCode.RANGE_INVALID}

    async def come_back(session: UploadId, data: bytes) -> None:
        try:
            await house.finish(session, digest_of(data), data)
        except RegistryError as error:
            if error.error not in answers:
                raise
        else:
            assert await house.pull(digest_of(data)) == data

    for number in range(20):
        session = await house.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back, session, b"%d" % number)
            nursery.start_soon(store.drop_session, session, time.time() + 60)

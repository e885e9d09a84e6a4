"""A fault between any two steps of pushes, tag moves, deletes and a collection: what was promised stays true.

Each test makes the scenario fail at call k, for every k: with an error of the disk, with the death of
the process, with a loss of power, and with a death that a loss of power follows.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from aging import age_files

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.registry.garbage import Collector
from trioreg.storage import layout
from trioreg.storage.filesystem import FilesystemStorage
from trioreg.storage.filesystem.collecting import CollectableFiles

from .client import OTHER, Bytes, Client, check_disk, registry_over
from .tally import SEED, TALLY, size
from .worst import LOSSES, Crash, Durable, FaultyDisk, Loss

# More calls than the scenario makes; each test finds the end by itself.
MOST_CALLS = 1000
# Each call in turn; every third in a test run.
STRIDE = size(3, 1)


@pytest.fixture
def durable() -> Iterator[Durable]:
    watched = Durable()
    yield watched
    watched.close()


def open_storage(root: Path, disk: FaultyDisk, boot: str = "A") -> FilesystemStorage:
    return FilesystemStorage(root, disk, cache_bytes=0, boot=boot)


async def finish_and_check(root: Path, client: Client, boot: str, disk: FaultyDisk) -> None:
    """Open the storage anew: all that was promised is true, and the client can go on to the end."""
    check_disk(root, boot)
    registry = registry_over(open_storage(root, disk, boot))
    await client.check(registry)
    await client.run(registry)
    await client.check(registry)
    check_disk(root, boot)
    storage = open_storage(root, FaultyDisk(), boot)
    for upload in [each.id async for each in storage.list_uploads()]:
        async with storage.lease_upload(upload, 0.0) as session:
            await session.cancel()
    assert [each async for each in storage.list_uploads()] == []


async def run_until_crash(root: Path, disk: FaultyDisk, client: Client) -> None:
    try:
        await client.run(registry_over(open_storage(root, disk)))
    except* Crash:
        pass


ERRORS = {
    errno.EIO: ErrorCode.UNAVAILABLE,
    errno.ENOSPC: ErrorCode.INSUFFICIENT_STORAGE,
    errno.EDQUOT: ErrorCode.INSUFFICIENT_STORAGE,
}


@pytest.mark.parametrize("numbers", [(errno.EIO,), (errno.ENOSPC, errno.EDQUOT)], ids=["broken", "full"])
async def test_error_of_the_disk(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """One failing call is 503 or 507; the same registry goes on, and a retry gets there."""
    for at in range(1, MOST_CALLS, STRIDE):
        root, client, disk = tmp_path / str(at), Client(), FaultyDisk()
        registry = registry_over(open_storage(root, disk))
        number = numbers[at % len(numbers)]
        disk.arm(at, OSError(number, "a fault"))
        with TALLY.moment(f"errno {errno.errorcode[number]} at one call of the disk"):
            try:
                await client.run(registry)
            except RegistryError as error:
                assert error.error is ERRORS[number], disk.struck  # noqa: PT017
                await client.check(registry)
                check_disk(root, "A")
                await client.run(registry)
            await finish_and_check(root, client, "A", FaultyDisk())
        if disk.struck is None:
            return
    raise AssertionError("the scenario does not end")


async def test_death(tmp_path: Path) -> None:
    """The process dies at any call; the next one serves what was promised and goes on."""
    for at in range(1, MOST_CALLS, STRIDE):
        root, client = tmp_path / str(at), Client()
        disk = FaultyDisk(at, Crash())
        with TALLY.moment("death between two calls of the disk"):
            await run_until_crash(root, disk, client)
            await finish_and_check(root, client, "A", FaultyDisk())
        if disk.struck is None:
            return
    raise AssertionError("the scenario does not end")


LOSES: dict[Loss, str] = {
    "names": "unsynced names and bytes",
    "bytes": "unsynced bytes",
    "between": "some names, some bytes",
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_power_loss(tmp_path: Path, loss: Loss, durable: Durable) -> None:
    """Power goes at any call, with what was not synced or without; what was promised is still there."""
    for at in range(1, MOST_CALLS, STRIDE):
        root, left, client = tmp_path / str(at), tmp_path / f"{at}-left", Client()
        disk = FaultyDisk(at, Crash(), watched=durable, root=root if loss == "between" else None)
        with TALLY.moment(f"power loss, {LOSES[loss]}"):
            await run_until_crash(root, disk, client)
            root.mkdir(exist_ok=True)
            durable.lose_power(root, left, loss, random.Random(f"{SEED}-{at}"))
            await finish_and_check(left, client, "B", FaultyDisk())
        if disk.struck is None:
            return
    raise AssertionError("the scenario does not end")


async def test_death_and_then_power_loss(tmp_path: Path, durable: Durable) -> None:
    """What a second process promises on top of what a killed one left half done survives a loss of power."""
    for at in range(1, MOST_CALLS, STRIDE):
        root, left, client = tmp_path / str(at), tmp_path / f"{at}-left", Client()
        client.tags_may_dangle = True
        disk, second = FaultyDisk(at, Crash(), watched=durable), FaultyDisk(watched=durable)
        with TALLY.moment("death, then power loss"):
            await run_until_crash(root, disk, client)
            await client.run(registry_over(open_storage(root, second)), most=1)
            durable.lose_power(root, left, "names", random.Random(SEED))
            await finish_and_check(left, client, "B", FaultyDisk())
        if disk.struck is None:
            return
    raise AssertionError("the scenario does not end")


GRACE = 3600.0
STRAY = b"pushed, and named by no manifest"


async def begin_a_collection(root: Path, durable: Durable, client: Client) -> None:
    """One image to keep; a deleted manifest, a link and a blob that nobody needs, all of them old."""
    registry = registry_over(open_storage(root, FaultyDisk(watched=durable)))
    await client.run(registry, most=6)
    await registry.uploads.push(OTHER, digest_of(STRAY), "sha256", Bytes(STRAY))
    age_files(root, 10 * GRACE)


async def collect(root: Path, disk: FaultyDisk) -> int:
    """Things removed, or 0 when it did not come to its end."""
    removed = 0
    try:
        report = await Collector(CollectableFiles(root, disk, boot="A"), grace=GRACE).run()
        removed = report.links_removed + report.blobs_removed
    except* Crash:
        pass
    return removed


@pytest.mark.parametrize("loss", LOSSES)
async def test_power_loss_amid_a_collection(tmp_path: Path, loss: Loss) -> None:
    """Power goes at any call of a collection: what images need is there, and the next one ends it."""
    for at in range(1, MOST_CALLS, STRIDE):
        root, left, client, durable = tmp_path / str(at), tmp_path / f"{at}-left", Client(), Durable()
        try:
            await begin_a_collection(root, durable, client)
            disk = FaultyDisk(at, Crash(), watched=durable, root=root if loss == "between" else None)
            with TALLY.moment(f"power loss amid a collection, {LOSES[loss]}"):
                collected = await collect(root, disk)
                durable.lose_power(root, left, loss, random.Random(f"{SEED}-{at}"))
                age_files(left, 10 * GRACE)
                await collect(left, FaultyDisk())
                assert not (left / layout.blob(digest_of(STRAY))).exists()
                await finish_and_check(left, client, "B", FaultyDisk())
        finally:
            durable.close()
        if disk.struck is None:
            assert collected
            return
    raise AssertionError("the collection does not end")


class Forgetful(Durable):
    """Believes no sync of one kind: a disk that lies, or code that forgot to ask."""

    def __init__(self, forgets: str) -> None:
        super().__init__()
        setattr(self, forgets, lambda _what: None)


@pytest.mark.parametrize("forgets", ["file_synced", "directory_synced"])
async def test_a_sync_that_is_missing_is_found_out(tmp_path: Path, forgets: str) -> None:
    """So the tests above can fail: without the syncs what was promised is lost with the power."""
    durable, client = Forgetful(forgets), Client()
    try:
        await client.run(registry_over(open_storage(tmp_path / "root", FaultyDisk(watched=durable))), most=3)
        durable.lose_power(tmp_path / "root", tmp_path / "left", "names", random.Random(SEED))
    finally:
        durable.close()
    (tmp_path / "left").mkdir(exist_ok=True)
    with pytest.raises(AssertionError):
        await finish_and_check(tmp_path / "left", client, "B", FaultyDisk())

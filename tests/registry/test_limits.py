"""What may be stored: sizes, the reserve of the disk, and quotas that are never passed."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from scripted import ScriptedBody
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_INDEX
from trioreg.oci.names import RepositoryName, Tag, new_upload_id
from trioreg.registry.limits import Limits
from trioreg.registry.pending import KEPT_SECONDS, Pending
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage
from trioreg.storage.usage import Usage

from .conftest import HERE, THERE, House

INDEX = b'{"schemaVersion":2,"manifests":[],"annotations":{"n":"%d"}}'
EACH = len(INDEX % 0)


async def refused(code: ErrorCode, verb: object) -> dict[str, object]:
    """The detail of a refusal."""
    with pytest.raises(RegistryError) as error:
        await verb  # type: ignore[misc]  # a coroutine of any verb
    assert error.value.error is code, error.value
    detail: dict[str, object] = error.value.detail
    return detail


async def used(house: House, name: RepositoryName = HERE) -> int:
    return await Usage(house.storage, house.storage).of_repository(name)


# Sizes.


async def test_a_blob_of_the_largest_size(house: House) -> None:
    """The limit itself is allowed, in one piece, in chunks and in a stream."""
    house.registry.guard.limits = Limits(blob_max=100)
    await house.push(bytes(100))
    upload = await house.begin()
    await house.append(upload, bytes([1]) * 60)
    await house.append(upload, bytes([1]) * 40)
    await house.finish(upload, digest_of(bytes([1]) * 100))
    assert await used(house) == 200


@pytest.mark.parametrize("offset", [0, 60])
async def test_an_announced_body_that_is_too_large(house: House, offset: int) -> None:
    """Refused before a byte of it is read; the session stays where it was."""
    house.registry.guard.limits = Limits(blob_max=100)
    upload = await house.begin()
    await house.append(upload, bytes(offset))
    body = ScriptedBody(bytes(101 - offset), length=101 - offset)
    verb = house.registry.uploads.append(HERE, upload, body, None)
    assert await refused(ErrorCode.BLOB_TOO_LARGE, verb) == {"limit": 100}
    assert body.given == 0
    assert (await house.registry.uploads.status(HERE, upload)).offset == offset


@pytest.mark.parametrize("limits", [Limits(blob_max=100), Limits(quota_bytes=(("**", 100),))], ids=str)
async def test_a_stream_that_is_too_large(house: House, limits: Limits) -> None:
    """Noticed at the byte that is too much; such a session cannot be finished, so it is gone."""
    house.registry.guard.limits = limits
    code = ErrorCode.BLOB_TOO_LARGE if limits.blob_max else ErrorCode.QUOTA_EXCEEDED
    upload = await house.begin()
    await house.append(upload, bytes(60))
    body = ScriptedBody(bytes(40), bytes(1), bytes(10**6))
    await refused(code, house.registry.uploads.append(HERE, upload, body, None))
    assert body.given == 41
    assert await house.sessions() == []
    assert house.pump.budget.statistics().held == 0


# The disk.


class AlmostFull(Disk):
    free = 1000

    def free_bytes(self, path: Path) -> int:
        return self.free


async def test_the_reserve_of_the_disk(tmp_path: Path, nursery: trio.Nursery) -> None:
    """What is announced to go into it is refused, at the beginning and in a session; the rest is not."""
    disk = AlmostFull(durable=False)
    house = House(FilesystemStorage(tmp_path, disk))
    house.registry.guard.limits = Limits(disk_reserve=900)
    upload = await house.begin()
    body = ScriptedBody(bytes(101), length=101)
    detail = await refused(
        ErrorCode.INSUFFICIENT_STORAGE, house.registry.uploads.append(HERE, upload, body, None)
    )
    assert detail["reserve"] == 900
    assert body.given == 0
    body = ScriptedBody(bytes(100), length=100)
    assert await house.registry.uploads.append(HERE, upload, body, None) == 100
    disk.free = 899
    house.registry.guard._free = (0, 0.0)  # a second later
    await refused(ErrorCode.INSUFFICIENT_STORAGE, house.registry.uploads.start(HERE, "sha256"))
    # What is here can be finished, and manifests, which are small, still come in.
    nothing = ScriptedBody(length=0)
    await house.registry.uploads.finish(HERE, upload, digest_of(bytes(100)), nothing, None)
    await house.registry.manifests.put(HERE, Tag("a"), OCI_INDEX, INDEX % 0)


async def test_the_disk_is_asked_once_a_second(tmp_path: Path) -> None:
    """Not for each request: a filesystem on the network may take its time."""
    asked = []

    class Counting(Disk):
        def free_bytes(self, path: Path) -> int:
            asked.append(path)
            return 2**40

    house = House(FilesystemStorage(tmp_path, Counting(durable=False)))
    await house.begin()
    assert asked == []
    house.registry.guard.limits = Limits(disk_reserve=1)
    for _ in range(20):
        await house.begin()
    assert len(asked) <= 2


async def test_a_store_without_a_disk_has_no_reserve() -> None:
    """There is nothing to ask."""
    house = House(MemoryStorage())
    house.registry.guard.limits = Limits(disk_reserve=2**60)
    await house.begin()


# Quotas.


async def test_a_quota_of_bytes(house: House) -> None:
    """Used to the last byte; then a push is refused when it begins, and what is deleted makes room."""
    house.registry.guard.limits = Limits(quota_bytes=((HERE, 100),))
    first = await house.push(bytes(60))
    upload = await house.begin()
    body = ScriptedBody(bytes(41), length=41)
    detail = await refused(ErrorCode.QUOTA_EXCEEDED, house.registry.uploads.append(HERE, upload, body, None))
    assert (detail["for"], detail["limit"], detail["used"], detail["asked"]) == (HERE, 100, 60, 41)
    assert body.given == 0
    await house.finish(upload, digest_of(b"x" * 40), b"x" * 40)
    await refused(ErrorCode.QUOTA_EXCEEDED, house.registry.uploads.start(HERE, "sha256"))
    await house.push(bytes(1000), THERE)
    await house.registry.blobs.delete(HERE, first)
    await house.push(bytes(60))
    assert await used(house) == 100


async def test_what_is_here_can_be_pushed_again(house: House) -> None:
    """It adds nothing; nor does a second tag of a manifest."""
    await house.push(bytes(60))
    upload = await house.begin()
    await house.append(upload, bytes(60))
    house.registry.guard.limits = Limits(quota_bytes=((HERE, 60),))
    await house.finish(upload, digest_of(bytes(60)))
    assert await house.registry.blobs.mount(HERE, digest_of(bytes(60)), HERE)


async def test_what_is_on_the_way_counts(house: House) -> None:
    """Of bodies that are received at once those find no room that would not fit in the end."""
    house.registry.guard.limits = Limits(quota_bytes=((HERE, 100),))
    uploads = house.registry.uploads
    first, second, third = [await house.begin() for _ in range(3)]
    came = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(uploads.append, HERE, first, ScriptedBody(came, bytes(60), length=60), None)
        await wait_all_tasks_blocked()
        announced = ScriptedBody(bytes(41), length=41)
        detail = await refused(ErrorCode.QUOTA_EXCEEDED, uploads.append(HERE, second, announced, None))
        assert (detail["used"], detail["asked"], announced.given) == (60, 41, 0)
        await house.append(second, bytes(40))
        await refused(ErrorCode.QUOTA_EXCEEDED, uploads.start(HERE, "sha256"))
        stream = uploads.append(HERE, third, ScriptedBody(b"1"), None)
        await refused(ErrorCode.QUOTA_EXCEEDED, stream)
        came.set()
    await house.finish(first, digest_of(bytes(60)))
    await house.finish(second, digest_of(bytes(40)))
    assert await used(house) == 100
    assert house.registry.guard.pending.of(HERE) == 0


async def test_streams_that_grow_together_meet_the_quota(house: House) -> None:
    """Nobody announced how long they are: the one that brings the byte too much is refused."""
    house.registry.guard.limits = Limits(quota_bytes=(("some/", 100),))
    uploads = house.registry.uploads
    first, second = [await house.begin() for _ in range(2)]
    more = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(uploads.append, HERE, first, ScriptedBody(bytes(50), more), None)
        await wait_all_tasks_blocked()
        await refused(
            ErrorCode.QUOTA_EXCEEDED, uploads.append(HERE, second, ScriptedBody(bytes(50), b"1"), None)
        )
        more.set()
    assert house.registry.guard.pending.of("some/") == 50


def test_what_a_client_left_does_not_count_for_long() -> None:
    """A session that nobody goes on with would fill a quota until it is purged."""
    now = 0.0
    pending = Pending(lambda: now)
    one, two = new_upload_id(), new_upload_id()
    pending.receiving(HERE, one, 60)
    pending.receiving(THERE, two, 5)
    assert (pending.of(HERE), pending.of(HERE, one), pending.of("another/", one)) == (60, 0, 5)
    now += 2 * KEPT_SECONDS
    assert pending.of(HERE) == 60, "its body may be slow"
    pending.resting(one, 30)
    assert pending.of(HERE) == 30
    now += KEPT_SECONDS
    assert pending.of(HERE) == 0
    pending.resting(one, 30)
    pending.ended(one)
    assert (pending.of(HERE), pending.of(THERE)) == (0, 5)


def test_what_is_on_the_way_is_bounded() -> None:
    """Of more sessions than anybody has open the oldest are forgotten."""
    pending = Pending()
    for _ in range(5000):
        pending.receiving(HERE, new_upload_id(), 1)
    assert pending.of(HERE) == 4096


async def test_a_mount_counts(house: House) -> None:
    """It costs no disk, but it is what the repository holds."""
    digest = await house.push(bytes(60), THERE)
    house.registry.guard.limits = Limits(quota_bytes=((HERE, 59),))
    await refused(ErrorCode.QUOTA_EXCEEDED, house.registry.blobs.mount(HERE, digest, THERE))
    assert await used(house) == 0
    house.registry.guard.limits = Limits(quota_bytes=((HERE, 60),))
    assert await house.registry.blobs.mount(HERE, digest, THERE)


async def test_manifests_count(house: House) -> None:
    """Else one could keep anything in annotations."""
    house.registry.guard.limits = Limits(quota_bytes=((HERE, 2 * EACH),))
    put = house.registry.manifests.put
    for number in (1, 2, 2, 1):
        await put(HERE, Tag("a"), OCI_INDEX, INDEX % number)
    await refused(ErrorCode.QUOTA_EXCEEDED, put(HERE, Tag("a"), OCI_INDEX, INDEX % 3))
    assert await used(house) == 2 * EACH


async def test_a_quota_of_tags(house: House) -> None:
    """A tag that is there may be moved; a new one is one too many, until another is deleted."""
    house.registry.guard.limits = Limits(quota_tags=(("some/*", 2), ("**", 0)))
    put = house.registry.manifests.put
    for number, tag in enumerate(("a", "b", "a")):
        await put(HERE, Tag(tag), OCI_INDEX, INDEX % number)
    detail = await refused(ErrorCode.QUOTA_EXCEEDED, put(HERE, Tag("c"), OCI_INDEX, INDEX % 1))
    assert (detail["limit"], detail["tags"]) == (2, 2)
    await put(HERE, digest_of(INDEX % 7), OCI_INDEX, INDEX % 7)
    await house.registry.manifests.delete(HERE, Tag("b"))
    await put(HERE, Tag("c"), OCI_INDEX, INDEX % 1)
    await refused(ErrorCode.QUOTA_EXCEEDED, put(THERE, Tag("a"), OCI_INDEX, INDEX % 1))


async def test_the_first_pattern_counts_and_every_namespace(house: House) -> None:
    """An exception stands before the rule; what is below a name together is bounded besides."""
    big, small, deep = (RepositoryName(name) for name in ("team/big", "team/small", "team/deep/er"))
    house.registry.guard.limits = Limits(
        quota_bytes=(("team/big", 200), ("**", 50), ("team/", 250), ("team/deep/", 10))
    )
    await house.push(b"b" * 200, big)
    await refused(ErrorCode.QUOTA_EXCEEDED, house.registry.uploads.start(big, "sha256"))
    await house.push(b"d" * 10, deep)
    detail = await refused(ErrorCode.QUOTA_EXCEEDED, house.registry.uploads.start(deep, "sha256"))
    assert detail["for"] == "team/deep/"
    await house.push(b"s" * 40, small)
    detail = await refused(ErrorCode.QUOTA_EXCEEDED, house.registry.uploads.start(small, "sha256"))
    assert (detail["for"], detail["used"]) == ("team/", 250)
    await house.push(b"o" * 50, RepositoryName("other"))


@pytest.mark.parametrize("scope", [HERE, "some/"])
async def test_many_at_once_in_two_processes(scope: str, tmp_path: Path) -> None:
    """Twenty pushes and mounts that all saw room: as many come in as fit, and not one more."""
    houses = [House(FilesystemStorage(tmp_path, Disk(durable=False))) for _ in range(2)]
    for house in houses:
        house.registry.guard.limits = Limits(quota_bytes=((scope, 95),))
    elsewhere = [await houses[0].push(b"%02d" % number * 5, THERE) for number in range(10, 20)]
    outcomes: list[str] = []

    async def push(number: int) -> None:
        house = houses[number % 2]
        data = b"%02d" % number * 5
        try:
            if number < 10:
                upload = await house.begin()
                await house.append(upload, data)
                await trio.lowlevel.checkpoint()
                await house.finish(upload, digest_of(data))
            else:
                await house.registry.blobs.mount(HERE, elsewhere[number - 10], THERE)
            outcomes.append("in")
        except RegistryError as error:
            outcomes.append(error.error.name)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(push, number)
    assert await used(houses[0]) == await used(houses[1]) == 90
    assert sorted(outcomes) == ["QUOTA_EXCEEDED"] * 11 + ["in"] * 9


async def test_tags_at_once_in_two_processes(tmp_path: Path) -> None:
    """The same with tags."""
    houses = [House(FilesystemStorage(tmp_path, Disk(durable=False))) for _ in range(2)]
    for house in houses:
        house.registry.guard.limits = Limits(quota_tags=(("**", 3),))
    refusals: list[ErrorCode] = []

    async def tag(number: int) -> None:
        manifests = houses[number % 2].registry.manifests
        try:
            await manifests.put(HERE, Tag(f"t{number}"), OCI_INDEX, INDEX % (number % 3))
        except RegistryError as error:
            refusals.append(error.error)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(tag, number)
    assert refusals == [ErrorCode.QUOTA_EXCEEDED] * 7
    assert len((await houses[0].registry.manifests.tags(HERE, None, None))[0]) == 3

"""A push and a deletion of one manifest at the same time: either comes first, and nothing is left half."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import trio

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_INDEX
from trioreg.oci.names import Tag
from trioreg.storage import layout
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, House

TAGS = [Tag("latest"), Tag("stable")]
SUBJECT = digest_of(b"whatever it belongs to")
ABSENT = {ErrorCode.MANIFEST_UNKNOWN, ErrorCode.NAME_UNKNOWN}


class LateStorage(MemoryStorage):
    """The driver in memory whose every answer takes some turns, as the dice of a seed say."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._dice = random.Random(seed)

    async def _wait(self) -> None:
        for _ in range(self._dice.randrange(4)):
            await trio.lowlevel.checkpoint()

    async def get(self, key: str) -> bytes | None:
        await self._wait()
        return await super().get(key)

    async def put(self, key: str, value: bytes) -> None:
        await self._wait()
        await super().put(key, value)
        await self._wait()

    async def delete(self, key: str) -> bool:
        await self._wait()
        found = await super().delete(key)
        await self._wait()
        return found


def manifest(number: int) -> bytes:
    subject = {"mediaType": OCI_INDEX, "digest": str(SUBJECT), "size": 1}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "subject": subject}
    return json.dumps({**document, "annotations": {"number": str(number)}}).encode()


async def push(house: House, tag: Tag, data: bytes) -> None:
    await house.registry.manifests.put(HERE, tag, None, data)


async def delete(house: House, digest: Digest) -> None:
    try:
        await house.registry.manifests.delete(HERE, digest)
    except RegistryError as error:
        assert error.error in ABSENT  # noqa: PT017 (it may be raised or not)


async def is_there(house: House, reference: Tag | Digest) -> bool:
    try:
        await house.registry.manifests.get(HERE, reference)
    except RegistryError as error:
        assert error.error in ABSENT  # noqa: PT017
        return False
    return True


async def check_whole(house: House, digest: Digest) -> None:
    """Every tag that is listed leads somewhere, and the manifest is there altogether or not at all."""
    listed, _ = await house.catalog.tags(HERE, None, None)
    for tag in listed:
        assert await is_there(house, tag), f"{tag} points at nothing"
    for tag in TAGS:
        assert (tag in listed) == (await house.catalog.get_tag(HERE, tag) is not None)
    there = await is_there(house, digest)
    for key in (layout.revision_link(HERE, digest), layout.revision_media_type(HERE, digest)):
        assert (await house.storage.get(key) is not None) == there, key
    assert there or not await house.catalog.referrer_descriptor(HERE, SUBJECT, digest)
    assert (digest in await house.catalog.referrers(HERE, SUBJECT)) == there


async def rounds(pushing: House, deleting: House, count: int) -> set[bool]:
    """Push and delete at once, `count` times with another manifest; whether it was there at the end."""
    ends = set()
    for number in range(count):
        data = manifest(number)
        digest = digest_of(data)
        await push(pushing, TAGS[0], data)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push, pushing, TAGS[number % 2], data)
                nursery.start_soon(delete, deleting, digest)
        for house in (pushing, deleting):
            await check_whole(house, digest)
        ends.add(await is_there(pushing, digest))
        await delete(deleting, digest)
        await check_whole(pushing, digest)
    return ends


@pytest.mark.parametrize("seed", range(5))
async def test_in_memory(seed: int) -> None:
    """However the turns fall, and both ends are seen."""
    house = House(LateStorage(seed))
    assert await rounds(house, house, 40) == {True, False}


async def test_on_disk(tmp_path: Path) -> None:
    """With real threads."""
    house = House(FilesystemStorage(tmp_path, Disk(durable=False)))
    await rounds(house, house, 40)


async def test_on_disk_of_two_processes(tmp_path: Path) -> None:
    """Two registries that share nothing but the directory."""
    pushing, deleting = (House(FilesystemStorage(tmp_path, Disk(durable=False))) for _ in range(2))
    await rounds(pushing, deleting, 40)


async def test_a_tag_that_moves_while_its_manifest_is_deleted(tmp_path: Path) -> None:
    """It is moved elsewhere and stays, or was deleted before; the push that was answered is not undone."""
    pushing, deleting = (House(FilesystemStorage(tmp_path, Disk(durable=False))) for _ in range(2))
    for number in range(40):
        before, after = manifest(2 * number), manifest(2 * number + 1)
        await push(pushing, TAGS[0], before)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push, pushing, TAGS[0], after)
                nursery.start_soon(delete, deleting, digest_of(before))
        for house in (pushing, deleting):
            assert await house.catalog.get_tag(HERE, TAGS[0]) == digest_of(after)
            assert not await is_there(house, digest_of(before))

"""Blobs: immutable bytes by digest, in every driver."""

from __future__ import annotations

import pytest
import trio

from trioreg.oci.digest import ALGORITHMS, Algorithm, digest_of
from trioreg.registry import Storage
from trioreg.storage.base import BlobNotFound

DATA = b"the bytes of a blob" * 1000
DIGEST = digest_of(DATA)
ABSENT = digest_of(b"absent")


async def listed(storage: Storage) -> set[str]:
    return {str(digest) async for digest in storage.list_blobs()}


async def read(storage: Storage, data: bytes, algorithm: Algorithm = "sha256") -> bytes:
    blob = await storage.open_blob(digest_of(data, algorithm))
    try:
        return await blob.read(0, blob.size)
    finally:
        blob.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "byte", "more"])
async def test_put_and_read(storage: Storage, data: bytes, algorithm: Algorithm) -> None:
    """What was put is there, whole, under its digest, and is listed once."""
    digest = digest_of(data, algorithm)
    await storage.put_blob(digest, data)
    await storage.put_blob(digest, data)
    assert await storage.size(digest) == await storage.touch(digest) == len(data)
    assert await read(storage, data, algorithm) == data
    assert [each async for each in storage.list_blobs()] == [digest]


async def test_absent(storage: Storage) -> None:
    """A blob that is not here has no size, cannot be opened, and is deleted without complaint."""
    await storage.put_blob(DIGEST, DATA)
    assert await storage.size(ABSENT) is None
    assert await storage.touch(ABSENT) is None
    with pytest.raises(BlobNotFound):
        await storage.open_blob(ABSENT)
    await storage.delete_blob(ABSENT)
    assert await listed(storage) == {str(DIGEST)}


async def test_empty_storage(storage: Storage) -> None:
    """Nothing is in a new storage."""
    assert await listed(storage) == set()
    assert [each async for each in storage.list_uploads()] == []


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 10**9), (5, 7), (len(DATA) - 3, 10), (len(DATA), 5), (10**9, 5), (3, 0)]
)
async def test_read_a_part(storage: Storage, start: int, length: int) -> None:
    """A read gives the bytes from `start`, at most `length`, and none past the end."""
    await storage.put_blob(DIGEST, DATA)
    blob = await storage.open_blob(DIGEST)
    try:
        assert blob.size == len(DATA)
        assert await blob.read(start, length) == DATA[start : start + length]
    finally:
        blob.close()
        blob.close()


async def test_delete(storage: Storage) -> None:
    """A deleted blob is gone; who has it open reads on; it can be put again."""
    await storage.put_blob(DIGEST, DATA)
    blob = await storage.open_blob(DIGEST)
    try:
        await storage.delete_blob(DIGEST)
        assert await storage.size(DIGEST) is None
        assert await storage.touch(DIGEST) is None
        assert await listed(storage) == set()
        assert await blob.read(0, blob.size) == DATA
    finally:
        blob.close()
    await storage.put_blob(DIGEST, DATA)
    assert await read(storage, DATA) == DATA


async def test_many_at_once(storage: Storage) -> None:
    """Puts of the same and of different blobs at once all succeed."""
    contents = [b"%d" % (at % 10) for at in range(40)]
    async with trio.open_nursery() as nursery:
        for data in contents:
            nursery.start_soon(storage.put_blob, digest_of(data), data)
    assert await listed(storage) == {str(digest_of(data)) for data in contents}
    for data in contents[:10]:
        assert await read(storage, data) == data

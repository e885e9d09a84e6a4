"""What collection sets aside is back as soon as somebody looks for it: in every driver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.names import RepositoryName
from trioreg.storage import layout
from trioreg.storage.base import BlobNotFound
from trioreg.storage.catalog import Catalog
from trioreg.storage.collecting import PIECE, CollectableStorage, UpkeepBusy
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.changes import finish
from trioreg.storage.filesystem.collecting import CollectableFiles
from trioreg.storage.memory import MemoryStorage

DATA = b"set aside"
DIGEST = digest_of(DATA)
NAME = RepositoryName("a/b")
LINK = layout.layer_link(NAME, DIGEST)


@pytest.fixture(params=["filesystem", "memory"])
def store(request: pytest.FixtureRequest, root: Path) -> CollectableStorage:
    return CollectableFiles(root) if request.param == "filesystem" else MemoryStorage()


@pytest.fixture
def files(root: Path) -> CollectableFiles:
    return CollectableFiles(root)


async def listed(store: CollectableStorage, after: str = "") -> list[Digest]:
    return [info.digest async for _, infos in store.scan_blobs(after) for info in infos]


async def aside(store: CollectableStorage) -> list[Digest]:
    return [digest async for digests in store.blobs_aside() for digest in digests]


async def read(store: CollectableStorage) -> bytes:
    blob = await store.open_blob(DIGEST)
    try:
        return await blob.read(0, blob.size)
    finally:
        blob.close()


@pytest.mark.parametrize("look", ["size", "touch", "read", "take", "put"])
async def test_a_blob_that_is_looked_for_is_back(store: CollectableStorage, look: str) -> None:
    """Whoever asks for it finds it in its place, and dropping it comes too late."""
    await store.put_blob(DIGEST, DATA)
    assert await store.set_blob_aside(DIGEST)
    assert (await listed(store), await aside(store)) == ([], [DIGEST])
    info = await store.blob_info(DIGEST)
    assert info is not None and info.size == len(DATA)
    if look == "size":
        assert await store.size(DIGEST) == len(DATA)
    elif look == "touch":
        assert await store.touch(DIGEST) == len(DATA)
    elif look == "read":
        assert await read(store) == DATA
    elif look == "take":
        assert await store.take_blob_back(DIGEST)
    else:
        await store.put_blob(DIGEST, DATA)
        assert await store.take_blob_back(DIGEST)
    assert (await listed(store), await aside(store)) == ([DIGEST], [])
    assert not await store.drop_blob(DIGEST)
    assert await read(store) == DATA


async def test_a_blob_that_is_dropped_is_gone(store: CollectableStorage) -> None:
    """After that nobody finds it, and it can be stored again."""
    await store.put_blob(DIGEST, DATA)
    assert await store.set_blob_aside(DIGEST)
    assert await store.drop_blob(DIGEST)
    assert not await store.take_blob_back(DIGEST)
    assert await store.size(DIGEST) is None
    assert await store.blob_info(DIGEST) is None
    with pytest.raises(BlobNotFound):
        await store.open_blob(DIGEST)
    assert not await store.set_blob_aside(DIGEST)
    await store.put_blob(DIGEST, DATA)
    assert await read(store) == DATA


@pytest.mark.parametrize("look", [True, False])
async def test_a_link_that_is_looked_for_is_back(store: CollectableStorage, look: bool) -> None:
    """A repository has the blob as long as nobody has dropped the link."""
    catalog = Catalog(store)
    await catalog.link_blob(NAME, DIGEST)
    before = await store.used(LINK)
    assert await store.set_aside(LINK)
    assert await store.get(LINK) is None
    assert await store.used(LINK) == before
    if look:
        assert await catalog.has_blob(NAME, DIGEST)
        assert await store.get(LINK) == str(DIGEST).encode()
    assert await store.drop(LINK) is not look
    assert await catalog.has_blob(NAME, DIGEST) is look
    assert [names async for names in store.scan(layout.layers(NAME)) if names] == ([["sha256"]] * look)


async def test_a_manifest_link_that_is_looked_for_is_back(store: CollectableStorage) -> None:
    """Its media type is found too, and it can be deleted while it is aside."""
    catalog = Catalog(store)
    key = layout.revision_link(NAME, DIGEST)
    await catalog.link_manifest(NAME, DIGEST, "a/b")
    await store.set_aside(key)
    assert await catalog.manifest_media_type(NAME, DIGEST) == "a/b"
    await store.set_aside(key)
    assert await catalog.has_manifest(NAME, DIGEST)
    await store.set_aside(key)
    assert await catalog.unlink_manifest(NAME, DIGEST)
    assert not await catalog.has_manifest(NAME, DIGEST)
    assert not await store.take_back(key)


async def test_a_deleted_link_does_not_come_back(store: CollectableStorage) -> None:
    """DELETE of a blob whose link is aside leaves nothing to be taken back."""
    catalog = Catalog(store)
    await catalog.link_blob(NAME, DIGEST)
    await store.set_aside(LINK)
    assert await catalog.unlink_blob(NAME, DIGEST)
    assert not await catalog.has_blob(NAME, DIGEST)
    assert not await catalog.unlink_blob(NAME, DIGEST)


async def test_a_deleted_link_that_was_written_anew_does_not_come_back(store: CollectableStorage) -> None:
    """A push writes the link again while collection has the old one aside: one DELETE removes both."""
    catalog = Catalog(store)
    await catalog.link_blob(NAME, DIGEST)
    await store.set_aside(LINK)
    await catalog.link_blob(NAME, DIGEST)
    assert await store.take_back(LINK)
    assert await catalog.unlink_blob(NAME, DIGEST)
    assert not await catalog.has_blob(NAME, DIGEST)


class TakenBackAmidst(Disk):
    """Somebody has taken back the first half of the way, the link, when what is aside is unlinked."""

    def __init__(self, place: Path):
        super().__init__(durable=False)
        self._place = place

    def unlink(self, path: Path) -> None:
        os.link(path, self._place)
        super().unlink(path)


async def test_a_drop_amid_taking_back_came_too_late(root: Path) -> None:
    """It says so, for whoever drops a link goes on to remove what belongs to it."""
    store = CollectableFiles(root)
    await Catalog(store).link_blob(NAME, DIGEST)
    await store.set_aside(LINK)
    assert not await CollectableFiles(root, TakenBackAmidst(root / LINK)).drop(LINK)
    assert await store.get(LINK) is not None
    await store.put_blob(DIGEST, DATA)
    await store.set_blob_aside(DIGEST)
    place = root / layout.blob(DIGEST)
    assert not await CollectableFiles(root, TakenBackAmidst(place)).drop_blob(DIGEST)
    assert await read(store) == DATA


async def test_one_worker_of_a_kind(store: CollectableStorage) -> None:
    """A second one is refused at once; another kind of work is not."""
    with store.alone("gc"):
        with pytest.raises(UpkeepBusy), store.alone("gc"):
            pass
        with store.alone("scrub"):
            pass
    with store.alone("gc"):
        pass


async def test_what_was_published_again_stays(files: CollectableFiles, root: Path) -> None:
    """A blob in its place is not replaced by an older copy that was set aside, as a crash may leave one."""
    await files.put_blob(DIGEST, DATA)
    old = root / layout.blob(DIGEST)
    os.utime(old, (1, 1))
    await files.set_blob_aside(DIGEST)
    disk = FilesystemStorage(root)._disk
    finish(disk, disk.replace_file(old, DATA))
    assert await files.take_blob_back(DIGEST)
    info = await files.blob_info(DIGEST)
    assert info is not None and info.used > 1
    assert (await listed(files), await aside(files)) == ([DIGEST], [])


async def test_listing_goes_on_after_a_position(files: CollectableFiles, root: Path) -> None:
    """In the order of positions, in pieces, and only what is named as a blob."""
    blobs = sorted(digest_of(str(number).encode()) for number in range(20))
    for number in range(20):
        data = str(number).encode()
        await files.put_blob(digest_of(data), data)
    (root / layout.blob(blobs[0])).with_name("foreign").write_bytes(b"")
    found: list[Digest] = []
    async for after, infos in files.scan_blobs():
        assert sorted(await listed(files, after)) == blobs[len(found) :]
        found += sorted(info.digest for info in infos)
    assert found == blobs


async def test_a_large_directory_comes_in_pieces(files: CollectableFiles, root: Path) -> None:
    """No piece of a listing is larger than the limit, and hidden names are in none."""
    directory = root / "repositories" / "x" / layout.LAYERS / "sha256"
    directory.mkdir(parents=True)
    for number in range(PIECE + 10):
        (directory / str(number)).mkdir()
    (directory / ".tmp-1").touch()
    pieces = [len(names) async for names in files.scan(f"repositories/x/{layout.LAYERS}/sha256")]
    (directory / ".tmp-1").unlink()
    assert sum(pieces) == PIECE + 10 and max(pieces) <= PIECE

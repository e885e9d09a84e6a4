"""Verify, du and scrub: what they find, and what they leave alone."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
import trio
from aging import age
from trio.testing import MockClock

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.garbage import Collector
from trioreg.registry.inspect import Used, Verifier, count_usage
from trioreg.registry.scrub import Scrubber
from trioreg.storage import layout
from trioreg.storage.collecting import CollectableStorage, UpkeepBusy
from trioreg.storage.filesystem import Disk
from trioreg.storage.filesystem.collecting import CollectableFiles
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, THERE, House
from .test_garbage import TAG, image, index, push_image, put, store

__all__ = ["store"]


@pytest.fixture
def house(store: CollectableStorage) -> House:
    return House(store)


async def problems(store: CollectableStorage) -> list[str]:
    report = await Verifier(store).run()
    assert report.broken == len(report.problems)
    return report.problems


async def test_a_whole_storage_has_no_problem(store: CollectableStorage, house: House) -> None:
    """And everything in it was looked at."""
    manifest = await push_image(house, TAG, b"one", b"two")
    await put(house, Tag("index"), index(manifest))
    report = await Verifier(store).run()
    assert (report.broken, report.repositories, report.links) == (0, 1, 3)
    assert (report.manifests, report.tags) == (2, 2)


@pytest.mark.parametrize("broken", ["layer", "size", "manifest", "link", "tag", "torn"])
async def test_what_is_broken_is_named(store: CollectableStorage, house: House, broken: str) -> None:
    """Each kind of damage is found, with the repository it is in."""
    manifest = await push_image(house, TAG, b"one")
    layer, digest = digest_of(b"one"), digest_of(manifest)
    if broken == "layer":
        await store.delete_blob(layer)
    elif broken == "size":
        await store.delete_blob(layer)
        await store.put_blob(layer, b"another")
    elif broken == "manifest":
        await store.delete_blob(digest)
        await store.put_blob(digest, image(b"two"))
    elif broken == "link":
        await store.delete(layout.layer_link(HERE, layer))
    elif broken == "tag":
        await store.delete(layout.revision_link(HERE, digest))
    else:
        await store.put(layout.tag_link(HERE, TAG), b"\xff")
    found = await problems(store)
    assert found and all(problem.startswith(HERE) for problem in found)


async def test_usage_counts_what_is_shared(store: CollectableStorage, house: House) -> None:
    """Links of each blob, what repositories see, and what nobody links."""
    await push_image(house, TAG, b"shared")
    await push_image(house, TAG, b"shared", name=THERE)
    await store.put_blob(digest_of(b"unlinked"), b"unlinked")
    once = len(b"{}") + len(b"shared") + len(image(b"shared"))
    used = await count_usage(store, repositories=1, blobs=10)
    assert isinstance(used, Used)
    assert (used.blobs, used.bytes) == (4, once + len(b"unlinked"))
    assert (used.links, used.linked_bytes) == (6, 2 * once)
    assert (used.unlinked, used.unlinked_bytes) == (1, len(b"unlinked"))
    assert [(each.links, each.bytes) for each in used.repositories] == [(3, once)]
    counts = {each.digest: each.links for each in used.largest}
    assert counts[str(digest_of(b"shared"))] == 2 and counts[str(digest_of(b"unlinked"))] == 0
    classes = [(each.least, each.most, each.blobs, each.bytes) for each in used.by_links]
    assert classes == [(0, 0, 1, len(b"unlinked")), (2, 2, 3, once)]
    assert {each.links for each in used.most_linked} == {2} and len(used.most_linked) == 3


async def test_links_are_counted_in_classes(store: CollectableStorage, house: House) -> None:
    """0, 1, 2, 3 to 4, 5 to 8; the most shared first, and only so many as were asked for."""
    for number in range(6):
        for blob in range(number):
            await house.push(b"%d" % blob, RepositoryName(f"r{number}"))
    used = await count_usage(store, repositories=0, blobs=2)
    classes = [(each.least, each.most, each.blobs) for each in used.by_links]
    assert classes == [(1, 1, 1), (2, 2, 1), (3, 4, 2), (5, 8, 1)]
    shared = [(each.digest, each.links) for each in used.most_linked]
    assert shared == [(str(digest_of(b"0")), 5), (str(digest_of(b"1")), 4)]


def rot(root: Path, data: bytes) -> None:
    path = root / layout.blob(digest_of(data))
    path.chmod(0o644)
    path.write_bytes(b"x" * len(data))


async def test_a_rotten_blob_is_taken_out_and_a_push_repairs_it(tmp_path: Path) -> None:
    """It answers 404 instead of wrong bytes; the report names the images; pushed again, it is served."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    house = House(store, cache_bytes=0)
    await push_image(house, TAG, b"good", b"rotten")
    await push_image(house, None, b"rotten", name=THERE)
    rot(tmp_path, b"rotten")
    digest = digest_of(b"rotten")
    report = await Scrubber(store, rate=0).run()
    assert [each.digest for each in report.rotten] == [str(digest)]
    untagged = f"{THERE}@{digest_of(image(b'rotten'))}"
    assert sorted(report.rotten[0].images) == sorted([f"{HERE}:{TAG}", untagged])
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        await house.registry.blobs.size(HERE, digest)
    assert (tmp_path / layout.rotten(digest)).read_bytes() == b"x" * 6
    await house.push(b"rotten")
    for name in (HERE, THERE):
        assert await house.pull(digest, name) == b"rotten"
    assert (await Scrubber(store, rate=0).run()).rotten == []


async def test_what_was_repaired_meanwhile_stays(tmp_path: Path) -> None:
    """A push while the scrub looks who needs a rotten blob: its 201 counts, and the blob is served."""
    served = House(CollectableFiles(tmp_path, Disk(durable=False)), cache_bytes=0)

    class Repaired(CollectableFiles):
        async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
            if prefix.startswith(layout.REPOSITORIES):
                await served.push(b"rotten")
            async for names in super().scan(prefix):
                yield names

    await push_image(served, TAG, b"rotten")
    path = tmp_path / layout.blob(digest_of(b"rotten"))
    path.chmod(0o644)
    path.write_bytes(b"rot")
    await Scrubber(Repaired(tmp_path, Disk(durable=False)), rate=0).run()
    assert await served.pull(digest_of(b"rotten")) == b"rotten"


async def test_a_rotten_manifest_is_named_by_its_tag(tmp_path: Path) -> None:
    """Manifests are blobs too."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    house = House(store, cache_bytes=0)
    manifest = await push_image(house, TAG, b"layer")
    rot(tmp_path, manifest)
    [rotten] = (await Scrubber(store, rate=0).run()).rotten
    assert rotten.images == [f"{HERE}:{TAG}"]
    await put(house, TAG, manifest)
    assert (await house.registry.manifests.get(HERE, TAG)).content == manifest


class Unreadable(Disk):
    """Reading the blobs of these sizes gives EIO, so many times each."""

    def __init__(self, sizes: dict[int, int]):
        super().__init__(durable=False)
        self.sizes = sizes

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        size = os.fstat(descriptor).st_size
        if self.sizes.get(size):
            self.sizes[size] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().pread(descriptor, length, offset)


async def test_a_scrub_goes_on_behind_what_it_cannot_read(tmp_path: Path) -> None:
    """It is named with its images and left in its place; what could be read the second time is nothing."""
    disk = Unreadable({})
    store = CollectableFiles(tmp_path, disk)
    house = House(store, cache_bytes=0)
    await push_image(house, TAG, b"once", b"always", b"rotten!")
    rot(tmp_path, b"rotten!")
    disk.sizes = {len(b"once"): 1, len(b"always"): 2}
    report = await Scrubber(store, rate=0).run()
    assert report.blobs == 5
    assert [each.digest for each in report.rotten] == [str(digest_of(b"rotten!"))]
    [unread] = report.unreadable
    assert (unread.digest, unread.images) == (str(digest_of(b"always")), [f"{HERE}:{TAG}"])
    assert report.unreadable_blobs == 1 and os.strerror(errno.EIO) in unread.reason
    assert await house.pull(digest_of(b"always")) == b"always"


async def test_a_manifest_that_the_disk_does_not_give(tmp_path: Path) -> None:
    """Verify and collection say so and go on with other repositories; what it may need is kept."""
    disk = Unreadable({})
    store = CollectableFiles(tmp_path, disk)
    house = House(store, cache_bytes=0)
    manifest = await push_image(house, TAG, b"needed")
    await push_image(house, None, b"other layer", name=THERE)
    await house.push(b"unneeded", THERE)
    age(store, 7200)
    disk.sizes = {len(manifest): 1}
    [problem] = await problems(store)
    assert problem.startswith(f"{HERE}@{digest_of(manifest)}")
    disk.sizes = {len(manifest): 1}
    report = await Collector(store, grace=3600).run()
    assert (len(report.unreadable), report.links_removed, report.blobs_removed) == (1, 1, 1)
    assert await house.pull(digest_of(b"needed")) == b"needed"


async def test_a_scrub_keeps_its_rate(autojump_clock: MockClock) -> None:
    """So many bytes a second, however fast the disk is."""
    store = MemoryStorage()
    for number in range(10):
        data = bytes([number]) * 1000
        await store.put_blob(digest_of(data), data)
    began = trio.current_time()
    report = await Scrubber(store, rate=500).run()
    assert (report.blobs, report.bytes) == (10, 10_000)
    assert trio.current_time() - began >= 20


async def test_a_scrub_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Behind the folder of blobs it came to; once done it begins anew."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    house = House(store)
    digests = sorted([await house.push(b"%d" % number, RepositoryName("r")) for number in range(20)])
    at = f"sha256/{digests[9].hex[:2]}"
    await store.put(layout.upkeep("scrub"), b'{"phase":"blobs","after":"%s"}' % at.encode())
    report = await Scrubber(store, rate=0).run()
    behind = [each for each in digests if each.hex[:2] > digests[9].hex[:2]]
    assert (report.resumed_after, report.blobs) == (at, len(behind))
    assert (await Scrubber(store, rate=0).run()).blobs == 20


async def test_one_scrub_at_a_time(store: CollectableStorage) -> None:
    """A second one is told so."""
    with store.alone("scrub"), pytest.raises(UpkeepBusy):
        await Scrubber(store, rate=0).run()

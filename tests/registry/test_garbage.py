"""Collection: what goes, what stays, and what it says of it. Races: tests/faults/test_collection.py."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from aging import age

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import RegistryError
from trioreg.oci.manifest import OCI_INDEX, OCI_MANIFEST
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.collected import Report
from trioreg.registry.garbage import BATCH, Collector
from trioreg.registry.grace import agreed_grace, announce
from trioreg.registry.marking import Marker, pack, unpack
from trioreg.storage import layout
from trioreg.storage.catalog import Catalog
from trioreg.storage.collecting import CollectableStorage, UpkeepBusy
from trioreg.storage.filesystem import Disk
from trioreg.storage.filesystem.collecting import CollectableFiles
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, THERE, House

# Twice what a storage waits before it makes a time new.
GRACE = 7200.0
TAG = Tag("latest")


@pytest.fixture(params=["memory", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CollectableStorage:
    if request.param == "memory":
        return MemoryStorage()
    return CollectableFiles(tmp_path, Disk(durable=False))


@pytest.fixture
def house(store: CollectableStorage) -> House:
    return House(store)


def described(data: bytes, media_type: str = "a/b", **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data), **more}


def image(*layers: bytes, subject: bytes | None = None, **members: object) -> bytes:
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(b"{}")}
    if subject is not None:
        document["subject"] = described(subject, OCI_MANIFEST)
    return json.dumps({**document, "layers": [described(each) for each in layers], **members}).encode()


def index(*manifests: bytes) -> bytes:
    listed = [described(each, OCI_MANIFEST) for each in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


async def push_image(
    house: House, reference: Tag | None, *layers: bytes, name: RepositoryName = HERE, **members: object
) -> bytes:
    for each in (b"{}", *layers):
        await house.push(each, name)
    data = image(*layers, **members)  # type: ignore[arg-type]  # `subject` or members of the document
    await put(house, reference, data, name)
    return data


async def put(house: House, reference: Tag | None, data: bytes, name: RepositoryName = HERE) -> None:
    await house.registry.manifests.put(name, reference or digest_of(data), None, data)


async def collect(store: CollectableStorage, *, untagged: bool = False, dry_run: bool = False) -> Report:
    return await Collector(store, grace=GRACE, untagged=untagged, dry_run=dry_run).run()


async def blobs(store: CollectableStorage) -> set[Digest]:
    return {digest async for digest in store.list_blobs()}


def digests(*contents: bytes) -> set[Digest]:
    return {digest_of(each) for each in contents}


def left_aside(root: Path) -> list[Path]:
    return [*root.rglob(".aside-*"), *(root / "quarantine").rglob("*/*")]


async def test_nothing_that_is_needed_goes(store: CollectableStorage, house: House) -> None:
    """Everything below a tag stays, however old, and can be pulled."""
    manifest = await push_image(house, TAG, b"one", b"two")
    listed = index(manifest)
    await put(house, Tag("index"), listed)
    age(store, 2 * GRACE)
    report = await collect(store, untagged=True)
    assert (report.links_removed, report.manifests_removed, report.blobs_removed) == (0, 0, 0)
    assert await blobs(store) == digests(b"{}", b"one", b"two", manifest, listed)
    assert await house.pull(digest_of(b"two")) == b"two"
    assert (await house.registry.manifests.get(HERE, TAG)).content == manifest


async def test_what_a_deleted_image_alone_needed_goes(store: CollectableStorage, house: House) -> None:
    """Its own layers and its manifest, not those of another; after the grace period, and not before."""
    first = await push_image(house, TAG, b"one", b"shared")
    second = await push_image(house, Tag("other"), b"two", b"shared")
    await house.registry.manifests.delete(HERE, digest_of(first))
    early = await collect(store)
    assert (early.links_removed, early.blobs_removed) == (0, 0)
    age(store, 2 * GRACE)
    report = await collect(store)
    assert (report.links_removed, report.blobs_removed) == (1, 2)
    assert report.bytes_removed == len(b"one") + len(first)
    assert await blobs(store) == digests(b"{}", b"two", b"shared", second)
    with pytest.raises(RegistryError, match="BLOB_UNKNOWN"):
        await house.registry.blobs.size(HERE, digest_of(b"one"))


async def test_a_blob_that_another_repository_links_stays(store: CollectableStorage, house: House) -> None:
    """Bytes go with the last link."""
    await house.push(b"mounted")
    digest = digest_of(b"mounted")
    assert await house.registry.blobs.mount(THERE, digest, HERE)
    await push_image(house, TAG, b"mounted", name=THERE)
    age(store, 2 * GRACE)
    report = await collect(store)
    assert (report.links_removed, report.blobs_removed) == (1, 0)
    assert not await house.catalog.has_blob(HERE, digest)
    assert await house.pull(digest, THERE) == b"mounted"


@pytest.mark.parametrize("relied", ["head", "mount", "manifest", "commit"])
async def test_who_relies_on_a_blob_leases_it(store: CollectableStorage, house: House, relied: str) -> None:
    """HEAD, mount, the needs of a manifest and a push of the same bytes each hold collection off."""
    digest, name = await house.push(b"layer"), HERE
    await house.push(b"{}")
    age(store, 2 * GRACE)
    if relied == "head":
        assert await house.registry.blobs.size(HERE, digest) == 5
    elif relied == "mount":
        assert await house.registry.blobs.mount(THERE, digest, HERE)
        name = THERE
    elif relied == "manifest":
        await put(house, None, image(b"layer"))
    else:
        await house.push(b"layer")
    await collect(store)
    assert await house.pull(digest, name) == b"layer"
    age(store, 2 * GRACE)
    await collect(store)
    assert await house.stored(digest) is (relied == "manifest")


async def test_what_an_open_push_has_uploaded_stays(store: CollectableStorage, house: House) -> None:
    """As long as a session that began no later than a grace period after it is open in its repository."""
    early, elsewhere = await house.push(b"early"), await house.push(b"elsewhere", THERE)
    session = await house.begin()
    age(store, 2 * GRACE)
    await collect(store)
    assert await house.stored(early) and not await house.stored(elsewhere)
    await house.registry.uploads.cancel(HERE, session)
    await collect(store)
    assert not await house.stored(early)


async def test_a_foreign_layer_that_was_pushed_stays(store: CollectableStorage, house: House) -> None:
    """A manifest need not have it here; if it has, it is the manifest's."""
    foreign = described(b"foreign", urls=["https://example.com/layer"])
    elsewhere = {**foreign, "digest": "blake3:00"}
    await house.push(b"foreign")
    await house.push(b"{}")
    document = {"schemaVersion": 2, "config": described(b"{}"), "layers": [foreign, elsewhere]}
    await put(house, TAG, json.dumps(document).encode())
    age(store, 2 * GRACE)
    assert (await collect(store)).links_removed == 0
    assert await house.pull(digest_of(b"foreign")) == b"foreign"


async def test_untagged_manifests_go_if_told_to(store: CollectableStorage, house: House) -> None:
    """Not what a tagged index lists, nor what refers to a subject that is there; with all below."""
    child = await push_image(house, None, b"child")
    await put(house, Tag("index"), index(child))
    signature = await push_image(house, None, b"signature", subject=child)
    lost = await push_image(house, None, b"lost")
    of_lost = await push_image(house, None, b"of lost", subject=lost)
    age(store, 2 * GRACE)
    assert (await collect(store)).manifests_removed == 0
    dry = await collect(store, untagged=True, dry_run=True)
    report = await collect(store, untagged=True)
    for each in (dry, report):
        assert (each.manifests_removed, each.links_removed, each.blobs_removed) == (2, 2, 4)
    assert await blobs(store) == digests(b"{}", b"child", b"signature", child, signature, index(child))
    assert await house.catalog.referrers(HERE, digest_of(lost)) == []
    assert await house.catalog.referrer_descriptor(HERE, digest_of(lost), digest_of(of_lost)) is None
    assert await house.catalog.referrers(HERE, digest_of(child)) == [digest_of(signature)]


async def test_a_child_that_is_taken_back_at_the_last_moment_is_whole(tmp_path: Path) -> None:
    """An index is pushed when its child's link is aside and the time was looked at: it is whole."""

    class Amidst(Disk):
        def unlink(self, path: Path) -> None:
            if path.name == ".aside-link" and "revisions" in path.parts:
                os.link(path, path.with_name("link"))  # the push takes back; its own unlink comes after ours
            super().unlink(path)

    store = CollectableFiles(tmp_path, Disk(durable=False))
    house = House(store)
    child = await push_image(house, None, b"layer")
    age(store, 2 * GRACE)
    await collect(CollectableFiles(tmp_path, Amidst(durable=False)), untagged=True)
    await put(house, TAG, index(child))
    assert (await house.registry.manifests.get(HERE, digest_of(child))).content == child
    assert await house.pull(digest_of(b"layer")) == b"layer"


async def test_a_dry_run_changes_nothing_and_says_the_same(store: CollectableStorage, house: House) -> None:
    """Its figures are those of the run that follows."""
    await push_image(house, TAG, b"kept")
    await push_image(house, Tag("other"), b"lost", name=THERE)
    await house.registry.manifests.delete(THERE, Tag("other"))
    await house.registry.manifests.delete(THERE, digest_of(image(b"lost")))
    age(store, 2 * GRACE)
    before = await blobs(store)
    dry = await collect(store, dry_run=True)
    assert await blobs(store) == before
    real = await collect(store)
    for report in (dry, real):
        assert (report.links_removed, report.blobs_removed) == (2, 2)
        assert report.bytes_removed == len(b"lost") + len(image(b"lost"))
        assert (report.repositories, report.blobs) == (2, 5)


@pytest.mark.parametrize("how", ["missing", "changed"])
async def test_a_manifest_that_cannot_be_read_holds_its_repository(
    store: CollectableStorage, house: House, how: str
) -> None:
    """Nobody knows what it needs, so nothing of the repository goes, and the report names it."""
    manifest = await push_image(house, TAG, b"layer")
    unneeded = await house.push(b"unneeded")
    elsewhere = await house.push(b"elsewhere", THERE)
    await store.delete_blob(digest_of(manifest))
    if how == "changed":
        await store.put_blob(digest_of(manifest), image())
    age(store, 2 * GRACE)
    report = await collect(store)
    assert len(report.unreadable) == 1 and str(digest_of(manifest)) in report.unreadable[0]
    assert await house.stored(unneeded) and not await house.stored(elsewhere)


async def test_a_torn_tag_holds_what_is_untagged(store: CollectableStorage, house: House) -> None:
    """It may have been the tag of any of them."""
    await push_image(house, TAG, b"layer")
    await store.put(layout.tag_link(HERE, TAG), b"\xff")
    age(store, 2 * GRACE)
    report = await collect(store, untagged=True)
    assert (report.manifests_removed, len(report.unreadable)) == (0, 1)


async def test_two_do_not_collect_at_once(store: CollectableStorage) -> None:
    """The second is told so."""
    with store.alone("gc"), pytest.raises(UpkeepBusy):
        await collect(store)


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_the_size_of_a_batch_does_not_matter(
    store: CollectableStorage, house: House, batch: int
) -> None:
    """A storage with more candidates than fit is walked through more than once, with the same end."""
    for number in range(5):
        await push_image(
            house, Tag(f"t{number}"), b"layer %d" % number, name=RepositoryName(f"r{number % 2}")
        )
        await house.push(b"unneeded %d" % number, RepositoryName(f"r{number % 2}"))
    age(store, 2 * GRACE)
    report = await Collector(store, grace=GRACE, batch=batch).run()
    assert (report.links_removed, report.blobs_removed, report.blobs) == (5, 5, 16)
    assert (await collect(store)).blobs == 11


async def test_what_a_killed_run_left_aside_is_back(tmp_path: Path) -> None:
    """Links and blobs alike, if they are needed; else they go now. Empty folders go too."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    house = House(store)
    await push_image(house, TAG, b"needed")
    needed, lost = digest_of(b"needed"), await house.push(b"lost")
    for digest in (needed, lost):
        await store.set_aside(layout.layer_link(HERE, digest))
        await store.set_blob_aside(digest)
    empty = tmp_path / layout.layer_link(HERE, digest_of(b"empty"))
    empty.parent.mkdir()
    age(store, 2 * GRACE)
    report = await collect(store)
    assert (report.left_behind, report.links_removed, report.blobs_removed) == (2, 1, 1)
    assert await house.pull(needed) == b"needed"
    assert not await house.stored(lost) and not empty.parent.exists()
    assert left_aside(tmp_path) == []


async def test_grace_is_the_longest_that_was_agreed(store: CollectableStorage) -> None:
    """A collection waits as long as any server refreshes; a shorter one counts once the longer has passed."""
    assert await agreed_grace(store, 5.0, 0.0) == 5.0
    await announce(store, 100.0, 0.0)
    assert await agreed_grace(store, 5.0, 1.0) == 100.0
    assert await agreed_grace(store, 200.0, 1.0) == 200.0
    await announce(store, 10.0, 1000.0)
    await announce(store, 10.0, 1090.0)
    assert await agreed_grace(store, 5.0, 1099.0) == 100.0
    assert await agreed_grace(store, 5.0, 1101.0) == 10.0


def test_memory_is_bounded() -> None:
    """A full set of candidates takes about 130 bytes each, 4.3 MB in all, with or without sizes."""
    names = [digest_of(b"%d" % number) for number in range(BATCH)]
    for make in (lambda: {pack(each) for each in names}, lambda: dict.fromkeys(map(pack, names), 0)):
        tracemalloc.start()
        try:
            candidates = make()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(candidates) == BATCH
        assert 90 < taken / BATCH < 140
    assert all(unpack(pack(each)) == each for each in [*names[:10], digest_of(b"x", "sha512")])


async def test_a_manifest_that_is_linked_between_two_looks() -> None:
    """The first look finds no media type because there is no link yet: that is no damage."""
    manifest = image(b"layer")
    link = layout.revision_link(HERE, digest_of(manifest))

    class LinkedAmidst(MemoryStorage):
        async def take_back(self, key: str) -> bool:
            found = await super().take_back(key)
            if key == link and not found:
                await Catalog(self).link_manifest(HERE, digest_of(manifest), OCI_MANIFEST)
            return found

    store = LinkedAmidst()
    await store.put_blob(digest_of(manifest), manifest)
    assert await Marker(store).manifest(HERE, digest_of(manifest)) is not None

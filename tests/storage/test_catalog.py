"""The catalog over every driver: links, tags, referrers, repositories, and how lists page."""

from __future__ import annotations

import pytest

from trioreg.oci.digest import digest_of
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry import Storage
from trioreg.storage.catalog import Catalog

NAME = RepositoryName("a/b")
OTHER = RepositoryName("a")
ONE, TWO = digest_of(b"one"), digest_of(b"two", "sha512")
SUBJECT = digest_of(b"subject")


@pytest.fixture
def catalog(storage: Storage) -> Catalog:
    return Catalog(storage)


async def test_layer_links(catalog: Catalog) -> None:
    """A blob is linked into one repository at a time, as often as one likes, and unlinked once."""
    for _ in range(2):
        await catalog.link_blob(NAME, ONE)
    assert await catalog.has_blob(NAME, ONE)
    assert not await catalog.has_blob(OTHER, ONE)
    assert not await catalog.has_blob(NAME, TWO)
    assert await catalog.unlink_blob(NAME, ONE)
    assert not await catalog.unlink_blob(NAME, ONE)
    assert not await catalog.has_blob(NAME, ONE)


async def test_manifests(catalog: Catalog) -> None:
    """A manifest is there with the media type of its last push, until it is unlinked."""
    assert await catalog.manifest_media_type(NAME, ONE) is None
    for media_type in ("a/b", "a/b", "c/d"):
        await catalog.link_manifest(NAME, ONE, media_type)
        assert await catalog.manifest_media_type(NAME, ONE) == media_type
    assert await catalog.has_manifest(NAME, ONE)
    assert not await catalog.has_manifest(OTHER, ONE)
    assert await catalog.unlink_manifest(NAME, ONE)
    assert not await catalog.unlink_manifest(NAME, ONE)
    assert await catalog.manifest_media_type(NAME, ONE) is None


async def test_tags(catalog: Catalog) -> None:
    """A tag points where it was last moved; deleted, it is gone."""
    assert await catalog.get_tag(NAME, Tag("t")) is None
    for digest in (ONE, TWO, ONE):
        await catalog.set_tag(NAME, Tag("t"), digest)
        assert await catalog.get_tag(NAME, Tag("t")) == digest
    assert await catalog.get_tag(OTHER, Tag("t")) is None
    assert await catalog.delete_tag(NAME, Tag("t"))
    assert not await catalog.delete_tag(NAME, Tag("t"))
    assert await catalog.tags(NAME, None, None) == ([], False)


async def test_delete_tags_of(catalog: Catalog) -> None:
    """With a manifest go the tags that point at it, and no others."""
    for tag, digest in (("a", ONE), ("b", TWO), ("c", ONE)):
        await catalog.set_tag(NAME, Tag(tag), digest)
        await catalog.set_tag(OTHER, Tag(tag), digest)
    await catalog.delete_tags_of(NAME, ONE)
    assert await catalog.tags(NAME, None, None) == (["b"], False)
    assert await catalog.tags(OTHER, None, None) == (["a", "b", "c"], False)


@pytest.mark.parametrize("n", [None, 0, 1, 2, 3, 6, 7, 100])
async def test_tags_page(catalog: Catalog, n: int | None) -> None:
    """Pages follow one another in ASCII order without gap or repetition, and say when more follow."""
    names = sorted(["10", "9", "A", "_", "a", "a.b", "a-b"])
    for name in names:
        await catalog.set_tag(NAME, Tag(name), ONE)
    if n == 0:
        assert await catalog.tags(NAME, 0, None) == ([], True)
        return
    found: list[str] = []
    last, more = None, True
    while more:
        page, more = await catalog.tags(NAME, n, last)
        assert len(page) == n or not more
        found += page
        last = page[-1]
    assert found == names


@pytest.mark.parametrize("last", ["", "0", "A", "Aa", "a", "b", "zz", "~", "../x"])
async def test_tags_after(catalog: Catalog, last: str) -> None:
    """`last` need not be a tag: what sorts after it follows."""
    for name in ("A", "a", "b"):
        await catalog.set_tag(NAME, Tag(name), ONE)
    expected = [each for each in ("A", "a", "b") if each > last]
    assert await catalog.tags(NAME, None, last) == (expected, False)


async def test_referrers(catalog: Catalog) -> None:
    """A referrer is listed under its subject while the repository has its manifest."""
    assert await catalog.referrers(NAME, SUBJECT) == []
    for digest in (ONE, TWO):
        await catalog.add_referrer(NAME, SUBJECT, digest, b"descriptor of " + str(digest).encode())
    assert await catalog.referrers(NAME, SUBJECT) == []
    await catalog.link_manifest(NAME, ONE, "a/b")
    assert await catalog.referrers(NAME, SUBJECT) == [ONE]
    await catalog.link_manifest(NAME, TWO, "a/b")
    assert await catalog.referrers(NAME, SUBJECT) == [ONE, TWO]
    assert await catalog.referrers(OTHER, SUBJECT) == []
    assert await catalog.referrer_descriptor(NAME, SUBJECT, TWO) == b"descriptor of " + str(TWO).encode()
    await catalog.remove_referrer(NAME, SUBJECT, ONE)
    assert await catalog.referrers(NAME, SUBJECT) == [TWO]
    assert await catalog.referrer_descriptor(NAME, SUBJECT, ONE) is None


async def test_exists(catalog: Catalog) -> None:
    """A repository exists once anything was pushed there; one above or below it does not."""
    name = RepositoryName("x/y/z")
    assert not await catalog.exists(name)
    await catalog.link_blob(name, ONE)
    assert await catalog.exists(name)
    for other in ("x", "x/y", "x/y/z/w", "x/y/zz"):
        assert not await catalog.exists(RepositoryName(other))


async def test_repositories(catalog: Catalog) -> None:
    """Repositories that hold manifests, nested ones too, sorted by name and not by directory."""
    names = ["a", "a-b/c", "a.b", "a/b", "a/b/c", "b", "tags/list"]
    for name in names:
        await catalog.link_manifest(RepositoryName(name), ONE, "a/b")
    await catalog.link_blob(RepositoryName("only/blobs"), ONE)
    everything = sorted(names)
    assert await catalog.repositories(None, None) == (everything, False)
    assert await catalog.repositories(2, None) == (everything[:2], True)
    assert await catalog.repositories(len(names), None) == (everything, False)
    assert await catalog.repositories(None, "a.b") == ([each for each in everything if each > "a.b"], False)
    await catalog.unlink_manifest(RepositoryName("a/b"), ONE)
    assert "a/b" not in (await catalog.repositories(None, None))[0]

"""How many bytes repositories hold, on every driver."""

from __future__ import annotations

import pytest

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.names import RepositoryName
from trioreg.registry import Storage
from trioreg.storage.catalog import Catalog
from trioreg.storage.usage import Usage

ONE, TWO = RepositoryName("team/one"), RepositoryName("team/deep/two")
OTHER = RepositoryName("teams/other")
PARENT = RepositoryName("team")


@pytest.fixture
def usage(storage: Storage) -> Usage:
    return Usage(storage, storage)


async def link(storage: Storage, name: RepositoryName, data: bytes) -> Digest:
    digest = digest_of(data)
    await storage.put_blob(digest, data)
    await Catalog(storage).link_blob(name, digest)
    return digest


async def test_blobs_and_manifests(storage: Storage, usage: Usage) -> None:
    """All that is linked counts, in full, also what others link; the rest does not."""
    assert await usage.of_repository(ONE) == 0
    await link(storage, ONE, bytes(100))
    await link(storage, ONE, bytes(30))
    assert await usage.of_repository(ONE) == 130
    manifest = digest_of(b"m" * 7, "sha512")
    await storage.put_blob(manifest, b"m" * 7)
    await Catalog(storage).link_manifest(ONE, manifest, "text/plain")
    assert await usage.of_repository(ONE) == 137
    await link(storage, TWO, bytes(100))
    await storage.put_blob(digest_of(b"unlinked"), b"unlinked")
    assert (await usage.of_repository(ONE), await usage.of_repository(TWO)) == (137, 100)


async def test_what_is_unlinked_counts_no_more(storage: Storage, usage: Usage) -> None:
    """Also when its bytes have gone with it, and when others came meanwhile."""
    gone = await link(storage, ONE, bytes(100))
    await link(storage, ONE, bytes(30))
    assert await usage.of_repository(ONE) == 130
    await Catalog(storage).unlink_blob(ONE, gone)
    await storage.delete_blob(gone)
    await link(storage, ONE, bytes(5))
    assert await usage.of_repository(ONE) == 35


async def test_bytes_that_come_back(storage: Storage, usage: Usage) -> None:
    """A link without bytes counts nothing; a push of the bytes changes no listing, and is seen."""
    digest = await link(storage, ONE, bytes(100))
    await storage.delete_blob(digest)
    assert await usage.of_repository(ONE) == 0
    await storage.put_blob(digest, bytes(100))
    assert await usage.of_repository(ONE) == 100


async def test_a_namespace(storage: Storage, usage: Usage) -> None:
    """All below a name and neither itself nor a neighbour; a repository without manifests too."""
    for name, size in ((ONE, 1), (TWO, 10), (OTHER, 100), (PARENT, 1000)):
        await link(storage, name, bytes(size))
    assert await usage.of_namespace("team/") == 11
    assert await usage.of_namespace("team/deep/") == 10
    assert await usage.of_namespace("nobody/") == 0

"""Blobs of a repository: look, read, mount, unlink.

Rule: a blob is served only through a repository that links it. Bytes are shared by all repositories and
go only by garbage collection; a blob that we tell a client it can rely on is touched first (DESIGN, rule 3).
"""

from __future__ import annotations

from trioreg.oci.digest import Digest
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName
from trioreg.registry.failures import answers
from trioreg.registry.limits import Guard
from trioreg.storage.base import BlobReader, BlobStore
from trioreg.storage.catalog import Catalog
from trioreg.storage.lru import ByteLru

# Configs and other small blobs: what a manifest is to the cache. A read of so much may be inline.
SMALL_BYTES = 16 * 1024


class Blobs:
    """`contents` keeps small blobs by digest; it is shared with the manifests."""

    def __init__(self, store: BlobStore, catalog: Catalog, contents: ByteLru[bytes], guard: Guard):
        self._store = store
        self._guard = guard
        self._catalog = catalog
        self._contents = contents

    @answers
    async def size(self, name: RepositoryName, digest: Digest) -> int:
        """Bytes of a blob that the client may now rely on. Raises BLOB_UNKNOWN."""
        await self._must_link(name, digest)
        size = await self._store.touch(digest)
        if size is None:
            raise _unknown(digest)
        # Again: collection may have taken the link before our touch told it not to.
        await self._must_link(name, digest)
        return size

    @answers
    async def small(self, name: RepositoryName, digest: Digest) -> bytes | None:
        """The bytes of a blob that is in the cache; None: `open` it. Raises BLOB_UNKNOWN."""
        await self._must_link(name, digest)
        return self._contents.get(digest)

    @answers
    async def remember(self, digest: Digest, blob: BlobReader) -> bytes | None:
        """The bytes of an open blob, if it is small; they are in the cache from now on."""
        if blob.size > SMALL_BYTES:
            return None
        data = await blob.read(0, blob.size)
        self._contents.put(digest, data, len(data))
        return data

    @answers
    async def open(self, name: RepositoryName, digest: Digest) -> BlobReader:
        """The bytes, to be closed. Raises BLOB_UNKNOWN."""
        await self._must_link(name, digest)
        return await self._store.open_blob(digest)

    @answers
    async def delete(self, name: RepositoryName, digest: Digest) -> None:
        """Unlink; the bytes stay until collected. Raises BLOB_UNKNOWN."""
        if not await self._catalog.unlink_blob(name, digest):
            raise _unknown(digest)

    @answers
    async def mount(self, name: RepositoryName, digest: Digest, source: RepositoryName | None) -> bool:
        """Link a blob that `source` has (None: any repository); whether that was possible.

        No copy is made. Linking first and looking again afterwards means that a blob collected meanwhile
        is not promised. Raises QUOTA_EXCEEDED.
        """
        if source is not None and not await self._catalog.has_blob(source, digest):
            return False
        size = await self._store.touch(digest)
        if size is None:
            return False
        added = 0 if await self._catalog.has_blob(name, digest) else size
        async with self._guard.adding(name, added):
            await self._catalog.link_blob(name, digest)
        return await self._store.size(digest) is not None

    async def _must_link(self, name: RepositoryName, digest: Digest) -> None:
        if not await self._catalog.has_blob(name, digest):
            raise _unknown(digest)


def _unknown(digest: Digest) -> RegistryError:
    return RegistryError(ErrorCode.BLOB_UNKNOWN, {"digest": str(digest)})

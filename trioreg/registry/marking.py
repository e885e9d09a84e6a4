"""What the manifests of a repository need, for collection: mark.

Rule: when in doubt, needed. A manifest that cannot be read, or whose bytes are not what its digest says,
makes the whole repository `Unreadable`, for nobody knows what it needs; then nothing of it is collected.

Sets hold digests as bytes (`pack`), about 100 bytes an entry. They hold candidates and not what is marked:
so their size is chosen, and large repositories are read more than once instead.
"""

from __future__ import annotations

from contextlib import aclosing

import trio

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import RegistryError
from trioreg.oci.manifest import Manifest, parse_manifest
from trioreg.oci.names import RepositoryName
from trioreg.storage.base import BlobNotFound, StorageError
from trioreg.storage.catalog import Catalog
from trioreg.storage.collecting import CollectableStorage
from trioreg.storage.links import Links

# As `manifests`: hashing and parsing so much takes about 0.3 ms, more goes to a thread.
_INLINE_BYTES = 64 * 1024


class Unreadable(Exception):
    """A manifest that is linked and cannot be read; the text says which and why."""


class _Changed(Exception):
    pass


def pack(digest: Digest) -> bytes:
    return bytes.fromhex(digest.hex)


def unpack(packed: bytes) -> Digest:
    return Digest("sha256" if len(packed) == 32 else "sha512", packed.hex())


class Marker:
    """`ignored`: (repository, packed digest) of manifests that count as gone."""

    def __init__(self, store: CollectableStorage):
        self._store = store
        self._catalog = Catalog(store)
        self._links = Links(store)
        self.ignored: set[tuple[RepositoryName, bytes]] = set()
        self.read = 0

    async def discard_needed(self, name: RepositoryName, layers: set[bytes], manifests: set[bytes]) -> None:
        """Take from both sets what a manifest of the repository needs. Raises Unreadable.

        Of `manifests` those are needed too whose subject the repository has.
        """
        async with aclosing(self._links.manifests(name)) as pieces:
            async for digests in pieces:
                for digest in digests:
                    if (name, pack(digest)) not in self.ignored:
                        await self._discard_needs(name, digest, layers, manifests)

    async def _discard_needs(
        self, name: RepositoryName, digest: Digest, layers: set[bytes], manifests: set[bytes]
    ) -> None:
        manifest = await self.manifest(name, digest)
        if manifest is None:
            return
        layers.difference_update(pack(need.digest) for need in manifest.blobs)
        layers.difference_update(pack(foreign) for foreign in manifest.foreign)
        manifests.difference_update(pack(need.digest) for need in manifest.manifests)
        subject = manifest.subject if pack(digest) in manifests else None
        if subject is not None and await self._has(name, subject):
            manifests.discard(pack(digest))

    async def discard_tagged(self, name: RepositoryName, manifests: set[bytes]) -> None:
        """Take out what has a tag. Raises Unreadable."""
        async with aclosing(self._links.tags(name)) as tags:
            async for tag, digest in tags:
                if digest is None:
                    raise Unreadable(f"{name}:{tag}: the tag is torn")
                manifests.discard(pack(digest))

    async def manifest(self, name: RepositoryName, digest: Digest) -> Manifest | None:
        """A manifest that the repository links; None if it does not any more. Raises Unreadable."""
        media_type = await self._media_type(name, digest)
        if media_type is None:
            return None
        self.read += 1
        try:
            blob = await self._store.open_blob(digest)
            try:
                data = await blob.read(0, blob.size)
            finally:
                blob.close()
            if len(data) <= _INLINE_BYTES:
                return _parse(data, digest, media_type)
            return await trio.to_thread.run_sync(_parse, data, digest, media_type)
        except BlobNotFound:
            if await self._catalog.has_manifest(name, digest):
                raise Unreadable(f"{name}@{digest}: its bytes are missing") from None
            return None
        except (RegistryError, _Changed, StorageError) as error:
            raise Unreadable(f"{name}@{digest}: {error}") from None

    async def _media_type(self, name: RepositoryName, digest: Digest) -> str | None:
        for _ in range(2):
            media_type = await self._catalog.manifest_media_type(name, digest)
            if media_type is not None or not await self._catalog.has_manifest(name, digest):
                return media_type
            # Its push may have linked it between these two looks.
        raise Unreadable(f"{name}@{digest}: no media type")

    async def _has(self, name: RepositoryName, digest: Digest) -> bool:
        return (name, pack(digest)) not in self.ignored and await self._catalog.has_manifest(name, digest)


def _parse(data: bytes, digest: Digest, media_type: str) -> Manifest:
    if digest_of(data, digest.algorithm) != digest:
        raise _Changed("its bytes have changed")
    return parse_manifest(data, media_type)

"""Manifests of a repository, the tags that point at them, and the referrers that name them.

Rules: the bytes are kept as pushed. A manifest is accepted only when what it needs is here (DESIGN, rule
6: bytes, media type, then the link that makes it visible; a tag comes last). A missing subject is
accepted, so are layers that may live elsewhere. Manifests are cached by digest, which never goes stale;
whether a repository has one is asked of the catalog each time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Manifest,
    Reference,
    descriptor_artifact_type,
    parse_manifest,
    referrer_descriptor,
    referrers_index,
)
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.failures import answers, unbroken
from trioreg.registry.immutable import TagPatterns, is_immutable, refused
from trioreg.registry.limits import Guard
from trioreg.registry.pulls import Pulls
from trioreg.storage.base import BlobNotFound, BlobReader, BlobStore
from trioreg.storage.catalog import Catalog, NewManifest
from trioreg.storage.lru import ByteLru, CacheStatistics

# Hashing and parsing 64 KiB takes about 0.3 ms; larger ones go to a thread, one at a time, because a
# parsed manifest may be several times its text.
_INLINE_BYTES = 64 * 1024


# spec.md, "Listing Referrers": the index of a page SHOULD NOT exceed what a manifest may have.
_REFERRERS_BYTES = 4 * 10**6

# Descriptors of some thousand referrers.
_DESCRIPTORS_BYTES = 2 * 2**20


class StoredManifest(NamedTuple):
    """`content` is an open blob, to be closed, when the manifest is too large to be kept in memory."""

    digest: Digest
    media_type: str
    content: bytes | BlobReader


class PushedManifest(NamedTuple):
    digest: Digest
    subject: Digest | None


class Manifests:
    """`contents` keeps manifests by digest; it is shared with small blobs."""

    def __init__(self, store: BlobStore, catalog: Catalog, contents: ByteLru[bytes], guard: Guard):
        self._store = store
        self._guard = guard
        self._catalog = catalog
        self._contents = contents
        self._descriptors: ByteLru[tuple[bytes, str | None]] = ByteLru(_DESCRIPTORS_BYTES)
        self._one_large = trio.Lock()
        self.immutable: TagPatterns = ()
        # Where pulls are noted, if a rule of retention asks for them.
        self.pulls: Pulls | None = None

    @answers
    async def get(
        self, name: RepositoryName, reference: Tag | Digest, *, pull: bool = False
    ) -> StoredManifest:
        """Raises MANIFEST_UNKNOWN, or NAME_UNKNOWN where nothing was ever pushed. `pull`: for a client.

        Any number of clients may be slow to read a large manifest: it leaves from the store, in pieces.
        """
        digest = await self._resolve(name, reference)
        media_type = await self._media_type(name, digest)
        if media_type is None:
            raise await self._unknown(name, reference)
        if pull and self.pulls is not None:
            await self.pulls.note(name, digest)
        try:
            return StoredManifest(digest, media_type, await self._content(digest))
        except BlobNotFound:
            raise await self._unknown(name, reference) from None

    @answers
    async def put(
        self, name: RepositoryName, reference: Tag | Digest, content_type: str | None, data: bytes
    ) -> PushedManifest:
        """Store a manifest and point `reference` at it.

        Raises MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN with the digests that are missing, or DIGEST_INVALID
        when `reference` is a digest of other bytes; QUOTA_EXCEEDED, TAG_IMMUTABLE.
        """
        digest, manifest = await self._read(reference, content_type, data)
        immutable = is_immutable(self.immutable, name, reference)
        if immutable and not await self._may_set(name, reference, digest):
            raise refused(name, reference)
        await self._check_needs(name, manifest)
        async with (
            self._catalog.changing(name, digest),
            self._room(name, reference, digest, data),
            unbroken(),
        ):
            new = NewManifest(
                digest,
                data,
                manifest.media_type,
                manifest.subject,
                b"" if manifest.subject is None else referrer_descriptor(manifest, digest),
                None if isinstance(reference, Digest) else reference,
                immutable,
            )
            if not await self._catalog.publish(self._store, name, new):
                raise refused(name, reference)
        self._contents.put(digest, data, len(data))
        return PushedManifest(digest, manifest.subject)

    @answers
    async def delete(self, name: RepositoryName, reference: Tag | Digest) -> None:
        """Remove a tag; or a manifest with the tags that point at it. Raises MANIFEST_UNKNOWN."""
        if not isinstance(reference, Digest):
            if not await self._catalog.delete_tag(name, reference):
                raise await self._unknown(name, reference)
            return
        async with self._catalog.changing(name, reference):
            media_type = await self._media_type(name, reference)
            if media_type is None:
                raise await self._unknown(name, reference)
            manifest = await self._parsed(reference, media_type)
            async with unbroken():
                # Tags first: were we to die now, the client can ask again and no tag points at nothing.
                await self._catalog.delete_tags_of(name, reference)
                await self._catalog.unlink_manifest(name, reference)
                if manifest.subject is not None:
                    await self._catalog.remove_referrer(name, manifest.subject, reference)

    @answers
    async def tags(self, name: RepositoryName, n: int | None, last: str | None) -> tuple[list[Tag], bool]:
        """At most `n` tags after `last`, sorted, and whether more follow. Raises NAME_UNKNOWN."""
        found = await self._catalog.tags(name, n, last)
        if not found[0] and not await self._catalog.exists(name):
            raise RegistryError(ErrorCode.NAME_UNKNOWN, {"name": name})
        return found

    @answers
    async def repositories(
        self, n: int | None, last: str | None, shown: Callable[[RepositoryName], bool] | None = None
    ) -> tuple[list[RepositoryName], bool]:
        """At most `n` repositories after `last` that are `shown`, sorted, and whether more follow."""
        return await self._catalog.repositories(n, last, shown)

    @answers
    async def referrers(
        self, name: RepositoryName, subject: Digest, artifact_type: str | None, last: Digest | None
    ) -> tuple[bytes, Digest | None]:
        """An image index of manifests that name `subject`, of one artifact type if given, after `last`.

        And the digest to go on after, if there are more: one index is not larger than a manifest may be.
        An unknown subject has none: that is an empty index and no error (spec.md, "Listing Referrers").
        """
        descriptors: list[bytes] = []
        size = 0
        before: Digest | None = None
        for index, digest in enumerate(await self._catalog.referrers(name, subject)):
            if index % 256 == 255:
                await trio.lowlevel.checkpoint()
            if last is not None and digest <= last:
                continue
            descriptor, kind = await self._descriptor(name, subject, digest)
            if not descriptor or (artifact_type is not None and kind != artifact_type):
                continue
            size += len(descriptor)
            if descriptors and size > _REFERRERS_BYTES:
                return referrers_index(descriptors), before
            descriptors.append(descriptor)
            before = digest
        return referrers_index(descriptors), None

    async def _descriptor(
        self, name: RepositoryName, subject: Digest, digest: Digest
    ) -> tuple[bytes, str | None]:
        """A referrer's descriptor and artifact type; read once, for a manifest never changes."""
        known = self._descriptors.get((name, digest))
        if known is not None:
            return known
        descriptor = await self._catalog.referrer_descriptor(name, subject, digest)
        if descriptor is None:
            return b"", None
        try:
            found = (descriptor, descriptor_artifact_type(descriptor, digest))
        except ValueError:
            found = await self._described_again(name, digest)
            descriptor = found[0]
        self._descriptors.put((name, digest), found, len(descriptor))
        return found

    async def _media_type(self, name: RepositoryName, digest: Digest) -> str | None:
        """None as well where it is torn: the next push of the manifest writes it anew."""
        found = await self._catalog.manifest_media_type(name, digest)
        return found if found in MANIFEST_TYPES or found in INDEX_TYPES else None

    async def _described_again(self, name: RepositoryName, digest: Digest) -> tuple[bytes, str | None]:
        """For a descriptor that is torn: what it said is in the manifest, too."""
        media_type = await self._media_type(name, digest)
        if media_type is None:
            return b"", None
        manifest = await self._parsed(digest, media_type)
        return referrer_descriptor(manifest, digest), manifest.artifact_type

    def cache_statistics(self) -> CacheStatistics:
        return self._contents.statistics()

    async def _read(
        self, reference: Tag | Digest, content_type: str | None, data: bytes
    ) -> tuple[Digest, Manifest]:
        if len(data) <= _INLINE_BYTES:
            return _read(reference, content_type, data)
        async with self._one_large:
            return await trio.to_thread.run_sync(_read, reference, content_type, data)

    async def _resolve(self, name: RepositoryName, reference: Tag | Digest) -> Digest:
        if isinstance(reference, Digest):
            return reference
        digest = await self._catalog.get_tag(name, reference)
        if digest is None:
            raise await self._unknown(name, reference)
        return digest

    async def _content(self, digest: Digest) -> bytes | BlobReader:
        data = self._contents.get(digest)
        if data is not None:
            return data
        blob = await self._store.open_blob(digest)
        if blob.size > _INLINE_BYTES:
            return blob
        return await self._remember(digest, blob)

    async def _remember(self, digest: Digest, blob: BlobReader) -> bytes:
        try:
            data = await blob.read(0, blob.size)
        finally:
            blob.close()
        self._contents.put(digest, data, len(data))
        return data

    async def _parsed(self, digest: Digest, media_type: str) -> Manifest:
        """A stored manifest, read again; large ones one at a time."""
        async with self._one_large:
            data = self._contents.get(digest)
            if data is None:
                data = await self._remember(digest, await self._store.open_blob(digest))
            return await trio.to_thread.run_sync(parse_manifest, data, media_type)

    @asynccontextmanager
    async def _room(
        self, name: RepositoryName, reference: Tag | Digest, digest: Digest, data: bytes
    ) -> AsyncIterator[None]:
        """Make the links in here that a manifest adds. Raises QUOTA_EXCEEDED."""
        added = 0 if await self._catalog.has_manifest(name, digest) else len(data)
        tag = None if isinstance(reference, Digest) else reference
        async with self._guard.adding(name, added, tag):
            yield

    async def _may_set(self, name: RepositoryName, reference: Tag | Digest, digest: Digest) -> bool:
        """Whether an immutable tag is free or set so already; it saves a push in vain, `publish` decides."""
        if isinstance(reference, Digest):
            return True
        return await self._catalog.get_tag(name, reference) in (None, digest)

    async def _check_needs(self, name: RepositoryName, manifest: Manifest) -> None:
        """Everything that a manifest needs must be in this repository, with the size it states."""
        missing = []
        for index, need in enumerate((*manifest.blobs, *manifest.manifests)):
            is_blob = index < len(manifest.blobs)
            size = await self._size(name, need, is_blob)
            if size is None:
                missing.append(str(need.digest))
            elif size != need.size:
                detail = {"digest": str(need.digest), "size": size, "stated": need.size}
                raise RegistryError(ErrorCode.MANIFEST_INVALID, detail)
            if index % 256 == 255:
                await trio.lowlevel.checkpoint()
        if missing:
            # Enough to act on, and an answer of bounded size.
            raise RegistryError(ErrorCode.MANIFEST_BLOB_UNKNOWN, {"digests": missing[:100]})

    async def _size(self, name: RepositoryName, need: Reference, is_blob: bool) -> int | None:
        # First the touch: a collection that did not see it has taken the link already (docs/garbage.md).
        size = await self._store.touch(need.digest)
        has = self._catalog.has_blob if is_blob else self._catalog.has_manifest
        return size if await has(name, need.digest) else None

    async def _unknown(self, name: RepositoryName, reference: Tag | Digest) -> RegistryError:
        if await self._catalog.exists(name):
            return RegistryError(ErrorCode.MANIFEST_UNKNOWN, {"reference": str(reference)})
        return RegistryError(ErrorCode.NAME_UNKNOWN, {"name": name})


def _read(reference: Tag | Digest, content_type: str | None, data: bytes) -> tuple[Digest, Manifest]:
    if not isinstance(reference, Digest):
        return digest_of(data), parse_manifest(data, content_type)
    actual = digest_of(data, reference.algorithm)
    if actual != reference:
        detail = {"provided": str(reference), "uploaded": str(actual)}
        raise RegistryError(ErrorCode.DIGEST_INVALID, detail)
    return actual, parse_manifest(data, content_type)

"""What is in each repository: tags, manifest revisions, layer links, referrers.

Written once over `ObjectStore`. Rule (DESIGN, rule 6): when entries must agree they are always written
in one order, and the link that makes content visible comes last; on delete the link goes first.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import trio

from trioreg.oci.digest import ALGORITHMS, Digest, parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, Tag
from trioreg.storage import layout
from trioreg.storage.base import BlobStore, Entry, ObjectStore, PutsTogether, Upload
from trioreg.storage.lru import ByteLru

# Media types of some thousand manifests, each with the stamp of its link.
_TYPES_BYTES = 1024 * 1024


_SURE_SECONDS = 10.0
# A listing of 10,000 tags counts 800 kB here, though the driver's cache most often holds the same one.
_SURE_BYTES = 4 * 2**20


class NewManifest(NamedTuple):
    """A manifest that has been verified; `descriptor` is what referrers of its `subject` say of it."""

    digest: Digest
    data: bytes
    media_type: str
    subject: Digest | None = None
    descriptor: bytes = b""
    tag: Tag | None = None
    immutable: bool = False


class Catalog:
    def __init__(self, objects: ObjectStore):
        self._objects = objects
        self._sure: ByteLru[tuple[Sequence[str], float]] = ByteLru(_SURE_BYTES)
        self._types: ByteLru[tuple[Hashable, str]] = ByteLru(_TYPES_BYTES)

    # Listings of which every entry was looked at. A driver gives out the same object as long as the
    # listing is the same; what is behind an entry goes before the entry goes, so only a process that was
    # killed in between leaves one that has nothing, and we find it out after `_SURE_SECONDS`.

    def _is_sure(self, key: str, names: Sequence[str]) -> bool:
        known = self._sure.get(key)
        return known is not None and known[0] is names and time.monotonic() < known[1]

    def _make_sure(self, key: str, names: Sequence[str]) -> None:
        if not self._is_sure(key, names):
            self._sure.put(key, (names, time.monotonic() + _SURE_SECONDS), len(key) + 80 * len(names))

    # Layer links: which blobs a repository may serve.

    async def link_blob(self, name: RepositoryName, digest: Digest) -> None:
        """Durable when it returns, also where the link was there: its writer may have died too early."""
        await self._objects.put_in_order([_layer_entry(name, digest)])

    async def publish_blob(
        self, blobs: BlobStore, upload: Upload, name: RepositoryName, digest: Digest
    ) -> None:
        """Commit an upload, whose digest was verified, and make its blob visible in a repository."""
        objects: object = self._objects
        if blobs is objects and isinstance(blobs, PutsTogether):
            await blobs.commit_and(upload, digest, _layer_entry(name, digest))
        else:
            await upload.commit(digest)
            await self.link_blob(name, digest)

    async def has_blob(self, name: RepositoryName, digest: Digest) -> bool:
        key = layout.layer_link(name, digest)
        return await self._objects.stamp(key) is not None or await self._objects.take_back(key)

    async def unlink_blob(self, name: RepositoryName, digest: Digest) -> bool:
        key = layout.layer_link(name, digest)
        return await self._objects.take_back(key) and await self._objects.delete(key)

    # Manifests.

    async def link_manifest(self, name: RepositoryName, digest: Digest, media_type: str) -> None:
        """Make a stored manifest visible by its digest."""
        await self._objects.put_in_order(*await self._links(name, digest, media_type))

    async def publish(self, blobs: BlobStore, name: RepositoryName, manifest: NewManifest) -> bool:
        """Store a manifest, link it, and set its tag; False, and nothing done, if that is fixed elsewhere."""
        digest, tag = manifest.digest, manifest.tag
        needs, link = await self._links(name, digest, manifest.media_type)
        if manifest.subject is not None:
            # Before the link, so that whoever sees the manifest finds it among the referrers.
            needs.insert(0, Entry(layout.referrer(name, manifest.subject, digest), manifest.descriptor))
        if tag is None:
            await self._put(blobs, manifest, needs, link)
            return True
        key = layout.tag_link(name, tag)
        async with self._objects.exclusive("tag", key):
            if manifest.immutable and await self.get_tag(name, tag) not in (None, digest):
                return False
            await self._put(blobs, manifest, needs, link, [Entry(key, str(digest).encode())])
            return True

    async def _put(self, blobs: BlobStore, manifest: NewManifest, *groups: Sequence[Entry]) -> None:
        objects: object = self._objects
        if blobs is objects and isinstance(blobs, PutsTogether):
            await blobs.put_blob_and(manifest.digest, manifest.data, *groups)
        else:
            await blobs.put_blob(manifest.digest, manifest.data)
            await self._objects.put_in_order(*groups)

    async def _links(
        self, name: RepositoryName, digest: Digest, media_type: str
    ) -> tuple[list[Entry], list[Entry]]:
        """What has to be there before a manifest's link, and the link."""
        type_key, link_key = layout.revision_media_type(name, digest), layout.revision_link(name, digest)
        changed = await self._objects.get(type_key) != media_type.encode()
        needs = [Entry(type_key, media_type.encode())] if changed else []
        # The link is written anew with another type, because its stamp stands for the type below. Else it is
        # made sure of: whoever wrote it may have died before it was durable.
        return needs, [Entry(link_key, str(digest).encode(), absent=not changed)]

    async def has_manifest(self, name: RepositoryName, digest: Digest) -> bool:
        key = layout.revision_link(name, digest)
        return await self._objects.stamp(key) is not None or await self._objects.take_back(key)

    async def manifest_media_type(self, name: RepositoryName, digest: Digest) -> str | None:
        """None if the repository does not have the manifest."""
        key = layout.revision_link(name, digest)
        stamp = await self._objects.stamp(key)
        if stamp is None and await self._objects.take_back(key):
            stamp = await self._objects.stamp(key)
        if stamp is None:
            return None
        known = self._types.get((name, digest))
        if known is not None and known[0] == stamp:
            return known[1]
        value = await self._objects.get(layout.revision_media_type(name, digest))
        if value is None:
            return None
        media_type = value.decode("latin-1")
        self._types.put((name, digest), (stamp, media_type), len(name) + len(media_type))
        return media_type

    async def unlink_manifest(self, name: RepositoryName, digest: Digest) -> bool:
        key = layout.revision_link(name, digest)
        found = await self._objects.take_back(key) and await self._objects.delete(key)
        await self._objects.delete(layout.revision_media_type(name, digest))
        return found

    # Tags.

    def changing(self, name: RepositoryName, digest: Digest) -> AbstractAsyncContextManager[None]:
        """Be alone with the links of a manifest: a push and a deletion of it do not mix."""
        return self._objects.exclusive("manifest", f"{name}@{digest}")

    async def set_tag(
        self, name: RepositoryName, tag: Tag, digest: Digest, *, immutable: bool = False
    ) -> bool:
        """Whether it was set: an `immutable` one is not moved elsewhere."""
        key = layout.tag_link(name, tag)
        async with self._objects.exclusive("tag", key):
            if immutable and await self.get_tag(name, tag) not in (None, digest):
                return False
            await self._objects.put(key, str(digest).encode())
            return True

    async def get_tag(self, name: RepositoryName, tag: Tag) -> Digest | None:
        value = await self._objects.get(layout.tag_link(name, tag))
        return _link_target(value) if value is not None else None

    async def delete_tag(self, name: RepositoryName, tag: Tag) -> bool:
        key = layout.tag_link(name, tag)
        async with self._objects.exclusive("tag", key):
            return await self._objects.delete(key)

    async def delete_tag_if(self, name: RepositoryName, tag: Tag, digest: Digest, stamp: Hashable) -> bool:
        """Remove a tag unless it was set since somebody saw it so; whether it was removed."""
        key = layout.tag_link(name, tag)
        async with self._objects.exclusive("tag", key):
            if await self._objects.stamp(key) != stamp or await self.get_tag(name, tag) != digest:
                return False
            return await self._objects.delete(key)

    async def delete_tags_of(self, name: RepositoryName, digest: Digest) -> None:
        """Remove every tag that points at `digest`; one that is moved elsewhere meanwhile stays."""
        value = str(digest).encode()
        for index, each in enumerate(await self._objects.children(layout.tags(name))):
            await _breathe(index)
            key = layout.tag_link(name, Tag(each))
            if await self._objects.get(key) == value:
                async with self._objects.exclusive("tag", key):
                    if await self._objects.get(key) == value:
                        await self._objects.delete(key)

    async def tags(self, name: RepositoryName, n: int | None, last: str | None) -> tuple[list[Tag], bool]:
        """At most `n` tags that sort after `last`, and whether more follow."""
        names = await self._objects.children(layout.tags(name))
        following = _after(names, last)
        if self._is_sure(layout.tags(name), names):
            page = following if n is None else following[:n]
            return [Tag(each) for each in page], len(page) < len(following)
        found: list[Tag] = []
        for index, each in enumerate(following):
            await _breathe(index)
            # A name may be one whose link is being written or removed.
            if await self._objects.stamp(layout.tag_link(name, Tag(each))) is not None:
                if n is not None and len(found) >= n:
                    return found, True
                found.append(Tag(each))
        if len(found) == len(names):
            self._make_sure(layout.tags(name), names)
        return found, False

    # Referrers.

    async def add_referrer(
        self, name: RepositoryName, subject: Digest, digest: Digest, descriptor: bytes
    ) -> None:
        await self._objects.put(layout.referrer(name, subject, digest), descriptor)

    async def remove_referrer(self, name: RepositoryName, subject: Digest, digest: Digest) -> None:
        await self._objects.delete(layout.referrer(name, subject, digest))

    async def referrers(self, name: RepositoryName, subject: Digest) -> list[Digest]:
        """Manifests in this repository that name `subject`."""
        found = []
        for algorithm in ALGORITHMS:
            key = f"{layout.referrers(name, subject)}/{algorithm}"
            names = await self._objects.children(key)
            sure = self._is_sure(key, names)
            here = []
            for index, encoded in enumerate(names):
                await _breathe(index)
                digest = Digest(algorithm, encoded)
                if sure or await self.has_manifest(name, digest):
                    here.append(digest)
            if len(here) == len(names):
                self._make_sure(key, names)
            found += here
        return found

    async def referrer_descriptor(
        self, name: RepositoryName, subject: Digest, digest: Digest
    ) -> bytes | None:
        return await self._objects.get(layout.referrer(name, subject, digest))

    # Repositories.

    async def exists(self, name: RepositoryName) -> bool:
        """Whether anything was ever pushed there."""
        below = await self._objects.children(f"{layout.REPOSITORIES}/{name}")
        return any(each.startswith("_") for each in below)

    async def repositories(
        self, n: int | None, last: str | None, shown: Callable[[RepositoryName], bool] | None = None
    ) -> tuple[list[RepositoryName], bool]:
        """Names of repositories that hold manifests: at most `n` after `last`, and whether more follow.

        Those that are not `shown` count for nothing.
        """
        names: list[str] = []
        waiting = [""]
        while waiting:
            parent = waiting.pop()
            for each in await self._objects.children(f"{layout.REPOSITORIES}/{parent}".rstrip("/")):
                if each == layout.MANIFESTS:
                    name = RepositoryName(parent)
                    if (shown is None or shown(name)) and await self._holds_manifests(name):
                        names.append(parent)
                elif not each.startswith("_"):
                    waiting.append(f"{parent}/{each}".lstrip("/"))
            await trio.lowlevel.checkpoint()
        names.sort()
        found = [RepositoryName(each) for each in _after(names, last)]
        return (found, False) if n is None else (found[:n], len(found) > n)

    async def _holds_manifests(self, name: RepositoryName) -> bool:
        for algorithm in ALGORITHMS:
            if await self._objects.children(f"{layout.revisions(name)}/{algorithm}"):
                return True
        return False


async def _breathe(index: int) -> None:
    """Let others run in a long list: a driver may answer `stamp` and `get` without a checkpoint.

    256 look-ups of ~3 µs are less than a millisecond.
    """
    if index % 256 == 255:
        await trio.lowlevel.checkpoint()


def _layer_entry(name: RepositoryName, digest: Digest) -> Entry:
    return Entry(layout.layer_link(name, digest), str(digest).encode(), absent=True)


def _link_target(value: bytes) -> Digest | None:
    """None for a link that is torn: it leads nowhere, and the next push writes it anew."""
    try:
        return parse_digest(value.decode("latin-1"))
    except RegistryError:
        return None


def _after(names: Sequence[str], last: str | None) -> Sequence[str]:
    """The part of a sorted list that follows `last`."""
    return names if last is None else names[bisect_right(names, last) :]

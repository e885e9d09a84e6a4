"""Looks at a whole storage, without changing it: does everything lead somewhere, and who uses how much.

Rule: what is found wrong is looked at twice, because clients may be pushing and deleting meanwhile.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import aclosing

import msgspec
import trio

from trioreg.oci.digest import Digest
from trioreg.oci.manifest import Manifest
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.marking import Marker, Unreadable, pack, unpack
from trioreg.storage.catalog import Catalog
from trioreg.storage.collecting import CollectableStorage
from trioreg.storage.links import Links

# Blobs whose links are counted in one walk; about 130 bytes each.
_BATCH = 32_768
_PROBLEMS = 1000


class Verified(msgspec.Struct):
    """`broken` counts all that leads nowhere or to other bytes; `problems` says it of the first 1000."""

    repositories: int = 0
    links: int = 0
    manifests: int = 0
    tags: int = 0
    broken: int = 0
    problems: list[str] = []

    def add(self, problem: str) -> None:
        self.broken += 1
        if len(self.problems) < _PROBLEMS:
            self.problems.append(problem)


class Verifier:
    """Links lead to blobs, tags to manifests, manifests (whose digests are checked) to what they need.

    `watch` is called after each repository and now and then inside.
    """

    def __init__(self, store: CollectableStorage, watch: Callable[[Verified], None] = lambda report: None):
        self._store = store
        self._catalog = Catalog(store)
        self._links = Links(store)
        self._marker = Marker(store)
        self._watch = watch
        self.report = Verified()

    async def run(self) -> Verified:
        async with aclosing(self._links.repositories()) as repositories:
            async for name in repositories:
                self.report.repositories += 1
                await self._layers(name)
                await self._manifests(name)
                await self._tags(name)
                self._watch(self.report)
        return self.report

    async def _layers(self, name: RepositoryName) -> None:
        async with aclosing(self._links.layers(name)) as pieces:
            async for digests in pieces:
                for digest in digests:
                    self.report.links += 1
                    if self.report.links % 256 == 0:
                        self._watch(self.report)
                        await trio.lowlevel.checkpoint()
                    if await self._store.size(digest) is None and await self._is_lost(name, digest):
                        self.report.add(f"{name}: links {digest}, whose bytes are missing")

    async def _is_lost(self, name: RepositoryName, digest: Digest) -> bool:
        return await self._catalog.has_blob(name, digest) and await self._store.size(digest) is None

    async def _manifests(self, name: RepositoryName) -> None:
        async with aclosing(self._links.manifests(name)) as pieces:
            async for digests in pieces:
                for digest in digests:
                    self.report.manifests += 1
                    try:
                        manifest = await self._marker.manifest(name, digest)
                    except Unreadable as why:
                        self.report.add(str(why))
                        continue
                    if manifest is not None:
                        await self._needs(name, digest, manifest)

    async def _needs(self, name: RepositoryName, digest: Digest, manifest: Manifest) -> None:
        for index, need in enumerate((*manifest.blobs, *manifest.manifests)):
            is_blob = index < len(manifest.blobs)
            has = self._catalog.has_blob if is_blob else self._catalog.has_manifest
            size = await self._store.size(need.digest)
            if size == need.size and await has(name, need.digest):
                continue
            if not await self._catalog.has_manifest(name, digest):
                return  # deleted meanwhile
            what = "a blob" if is_blob else "a manifest"
            state = f"has {size} bytes instead of {need.size}" if size is not None else "is missing"
            if size == need.size:
                state = "is not linked here"
            self.report.add(f"{name}@{digest}: needs {what} that {state}: {need.digest}")

    async def _tags(self, name: RepositoryName) -> None:
        async with aclosing(self._links.tags(name)) as tags:
            async for tag, digest in tags:
                self.report.tags += 1
                if digest is None:
                    self.report.add(f"{name}:{tag}: the tag is torn")
                elif await self._dangles(name, tag, digest):
                    self.report.add(f"{name}:{tag}: leads to a manifest that is not here: {digest}")

    async def _dangles(self, name: RepositoryName, tag: Tag, digest: Digest) -> bool:
        if await self._catalog.has_manifest(name, digest):
            return False
        return await self._catalog.get_tag(name, tag) == digest


class Usage(msgspec.Struct):
    """Of a repository: what it links, and the sum of the sizes (bytes), shared with others or not."""

    name: str
    links: int
    bytes: int


class Counted(msgspec.Struct):
    """A blob and the number of links to it."""

    digest: str
    size: int
    links: int


class SharedBy(msgspec.Struct):
    """How many blobs have from `least` to `most` links, and their bytes on the disk."""

    least: int
    most: int
    blobs: int
    bytes: int


class Used(msgspec.Struct):
    """`bytes` are on the disk, `linked_bytes` is what repositories see: their ratio is what sharing saves.

    `unlinked`: blobs without a link, which collection takes. `by_links`: all blobs, by the number of their
    links. `largest`: the blobs that take most; `most_linked`: those that are shared most.
    """

    blobs: int = 0
    bytes: int = 0
    links: int = 0
    linked_bytes: int = 0
    unlinked: int = 0
    unlinked_bytes: int = 0
    repositories: list[Usage] = []
    by_links: list[SharedBy] = []
    largest: list[Counted] = []
    most_linked: list[Counted] = []


async def count_usage(
    store: CollectableStorage,
    *,
    repositories: int,
    blobs: int,
    watch: Callable[[Used], None] = lambda report: None,
) -> Used:
    """What takes how much: totals, the so many largest repositories and blobs, and blobs with most links."""
    report, links, counts = Used(), Links(store), _Counts(blobs)
    batch: dict[bytes, list[int]] = {}
    async with aclosing(store.scan_blobs()) as pieces:
        async for _, infos in pieces:
            for info in infos:
                report.blobs += 1
                report.bytes += info.size
                batch[pack(info.digest)] = [info.size, 0]
            watch(report)
            if len(batch) >= _BATCH:
                await _count_links(links, batch)
                counts.take(batch)
    await _count_links(links, batch)
    counts.take(batch)
    counts.write(report)
    await _repositories(store, links, report, repositories, watch)
    return report


class _Counts:
    """Links of blobs, summed up batch by batch; names the so many (`most`) largest and most shared."""

    def __init__(self, most: int):
        self._most = most
        # By the length of the number below: 0, 1, 2, 3 to 4, 5 to 8 links and so on.
        self._classes: dict[int, SharedBy] = {}
        self._largest: list[tuple[int, int, bytes]] = []
        self._linked: list[tuple[int, int, bytes]] = []

    def take(self, batch: dict[bytes, list[int]]) -> None:
        for size, links in batch.values():
            width = (links - 1).bit_length() + 1 if links else 0
            least, most = (links, links) if links < 3 else (2 ** (width - 2) + 1, 2 ** (width - 1))
            sums = self._classes.setdefault(width, SharedBy(least, most, 0, 0))
            sums.blobs += 1
            sums.bytes += size
        if self._most:
            found = [(size, links, packed) for packed, (size, links) in batch.items()]
            self._largest = heapq.nlargest(self._most, [*self._largest, *found])
            shared = [(links, size, packed) for size, links, packed in found if links > 1]
            self._linked = heapq.nlargest(self._most, [*self._linked, *shared])
        batch.clear()

    def write(self, report: Used) -> None:
        report.by_links = [self._classes[width] for width in sorted(self._classes)]
        if unlinked := self._classes.get(0):
            report.unlinked, report.unlinked_bytes = unlinked.blobs, unlinked.bytes
        report.largest = [_counted(packed, size, links) for size, links, packed in self._largest]
        report.most_linked = [_counted(packed, size, links) for links, size, packed in self._linked]


def _counted(packed: bytes, size: int, links: int) -> Counted:
    return Counted(str(unpack(packed)), size, links)


async def _count_links(links: Links, batch: dict[bytes, list[int]]) -> None:
    async with aclosing(links.repositories()) as repositories:
        async for name in repositories:
            for kind in (links.layers, links.manifests):
                async with aclosing(kind(name)) as pieces:
                    async for digests in pieces:
                        for each in map(pack, digests):
                            if each in batch:
                                batch[each][1] += 1
            await trio.lowlevel.checkpoint()


async def _repositories(
    store: CollectableStorage, links: Links, report: Used, most: int, watch: Callable[[Used], None]
) -> None:
    largest: list[tuple[int, int, str]] = []
    async with aclosing(links.repositories()) as repositories:
        async for name in repositories:
            count = total = 0
            for kind in (links.layers, links.manifests):
                async with aclosing(kind(name)) as pieces:
                    async for digests in pieces:
                        for digest in digests:
                            count += 1
                            total += await store.size(digest) or 0
                        await trio.lowlevel.checkpoint()
            report.links += count
            report.linked_bytes += total
            largest = heapq.nlargest(most, [*largest, (total, count, name)])
            watch(report)
    report.repositories = [Usage(name, count, total) for total, count, name in largest]

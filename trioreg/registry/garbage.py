"""Garbage collection beside pushes: sweep what no manifest, no link and no open push needs.

The argument why nothing that is needed can go is in docs/garbage.md. In short, three rules:

1. A blob's time is its lease. Whoever begins to rely on a blob (HEAD that says yes, mount, the needs of
   a manifest, a commit that meets it) makes its time new first and looks for the link, or the blob, then.
2. We set aside first and look at the time behind that. So of a push and a collection that meet, one sees
   the other; and whoever looks for what is set aside takes it back himself.
3. Bytes go after the links to them, and only when all links were looked through twice.

No lock is held that a push waits for, but for the few milliseconds in which an untagged manifest is removed.
Memory holds at most `BATCH` candidates; a repository or storage with more is walked through more than once.
A run that was killed is gone on with: `Report.resumed_after`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import aclosing

import trio

from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName
from trioreg.registry.collected import Position, Removed, Report, tell_nobody
from trioreg.registry.marking import Marker, Unreadable, pack, unpack
from trioreg.storage import layout
from trioreg.storage.catalog import Catalog
from trioreg.storage.collecting import BlobInfo, CollectableStorage
from trioreg.storage.links import Links

# About 130 bytes each (`test_memory_is_bounded`).
BATCH = 32_768

# An index of indexes of images with signatures is four deep; what is deeper goes in the next run.
_ROUNDS = 4


class Collector:
    """One run. `grace`: seconds for which what nobody needs is kept; `untagged`: manifests too.

    `dry_run` changes nothing and reports what would go. `watch` is called now and then with the report,
    `removed` with each manifest when it is gone.
    """

    def __init__(
        self,
        store: CollectableStorage,
        *,
        grace: float,
        untagged: bool = False,
        dry_run: bool = False,
        batch: int = BATCH,
        now: Callable[[], float] = time.time,
        watch: Callable[[Report], None] = lambda report: None,
        removed: Removed = tell_nobody,
    ):
        self._store = store
        self._catalog = Catalog(store)
        self._links = Links(store)
        self._marker = Marker(store)
        self._untagged = untagged
        self._dry_run = dry_run
        self._batch = batch
        self._now = now
        self._watch = watch
        self._removed = removed
        self._doomed_links: set[tuple[RepositoryName, bytes]] = set()
        self.report = Report(dry_run=dry_run, grace=grace, started=now())
        self._cutoff = self.report.started - grace
        self._steps = 0

    async def run(self) -> Report:
        """Collect. Raises UpkeepBusy when another collection runs here, StorageError.

        Cancelled at any point, it leaves what the next run goes on with.
        """
        report = self.report
        with self._store.alone("gc"):
            position = Position(self._store, "gc")
            at = Position.START if self._dry_run else await position.load()
            report.resumed_after = at.after
            if not self._dry_run:
                await self._take_all_back()
            if at.phase == "links":
                await self._sweep_links(position, at.after)
            await self._sweep_blobs(position, at.after if at.phase == "blobs" else "")
            if not self._dry_run:
                await position.forget()
        report.manifests_read = self._marker.read
        report.seconds = self._now() - report.started
        return report

    async def _take_all_back(self) -> None:
        """What a killed run left aside is judged anew."""
        async with aclosing(self._store.blobs_aside()) as pieces:
            async for digests in pieces:
                for digest in digests:
                    await self._store.take_blob_back(digest)
                    self.report.left_behind += 1

    # Links.

    async def _sweep_links(self, position: Position, after: str) -> None:
        sessions = await self._oldest_sessions()
        async with aclosing(self._links.repositories(after)) as repositories:
            async for name in repositories:
                # What an open push has uploaded is needed, however long the push takes.
                cutoff = min(self._cutoff, sessions.get(name, self._cutoff) - self.report.grace)
                self.report.repositories += 1
                try:
                    await self._sweep_repository(name, cutoff)
                except Unreadable as why:
                    self.report.cannot_read(str(why))
                if not self._dry_run:
                    await position.save("links", name)

    async def _oldest_sessions(self) -> dict[RepositoryName, float]:
        """When the oldest upload session of each repository began; those that begin later do not matter."""
        oldest: dict[RepositoryName, float] = {}
        async for info in self._store.list_uploads():
            oldest[info.repository] = min(info.started, oldest.get(info.repository, info.started))
        return oldest

    async def _sweep_repository(self, name: RepositoryName, cutoff: float) -> None:
        rounds = _ROUNDS if self._untagged else 0
        while rounds and await self._sweep_manifests(name, cutoff):
            rounds -= 1
        candidates: set[bytes] = set()
        async with aclosing(self._links.layers(name)) as pieces:
            async for digests in pieces:
                self.report.links += len(digests)
                for digest in digests:
                    await self._breathe()
                    key = layout.layer_link(name, digest)
                    await self._restore(key)
                    if await self._is_old(key, digest, cutoff):
                        candidates.add(pack(digest))
                if len(candidates) >= self._batch:
                    await self._sweep_layers(name, candidates, cutoff)
                    candidates.clear()
        await self._sweep_layers(name, candidates, cutoff)

    async def _sweep_layers(self, name: RepositoryName, candidates: set[bytes], cutoff: float) -> None:
        if not candidates:
            return
        await self._marker.discard_needed(name, candidates, set())
        for each in candidates:
            digest = unpack(each)
            key = layout.layer_link(name, digest)
            if self._dry_run:
                self.report.links_removed += 1
                self._doom(self._doomed_links, name, each)
            elif await self._store.set_aside(key):
                await self._settle(key, digest, cutoff)

    async def _settle(self, key: str, digest: Digest, cutoff: float) -> bool:
        """Drop a link that is aside, unless somebody has begun to rely on it; whether it was dropped."""
        if await self._is_old(key, digest, cutoff) and await self._store.drop(key):
            self.report.links_removed += 1
            return True
        await self._store.take_back(key)
        self.report.taken_back += 1
        return False

    async def _restore(self, key: str) -> None:
        """Put back a link that a killed run left aside; remove what is left of one that is gone."""
        if self._dry_run or await self._store.stamp(key) is not None:
            return
        if not await self._store.take_back(key):
            await self._store.drop(key)

    async def _is_old(self, key: str, digest: Digest, cutoff: float) -> bool:
        """Whether neither link nor blob was written or relied on since `cutoff`."""
        used = await self._store.used(key)
        if used is None or used >= cutoff:
            return False
        blob = await self._store.blob_info(digest)
        return blob is None or blob.used < cutoff

    # Untagged manifests.

    async def _sweep_manifests(self, name: RepositoryName, cutoff: float) -> int:
        """Remove manifests without a tag that no other needs; how many. What only they need is next."""
        candidates: set[bytes] = set()
        async with aclosing(self._links.manifests(name)) as pieces:
            async for digests in pieces:
                for digest in digests:
                    await self._breathe()
                    doomed = (name, pack(digest)) in self._marker.ignored
                    key = layout.revision_link(name, digest)
                    if not doomed and await self._is_old(key, digest, cutoff):
                        candidates.add(pack(digest))
                if len(candidates) >= self._batch:
                    break  # The next round takes the others.
        if candidates:
            await self._marker.discard_tagged(name, candidates)
        if candidates:
            await self._marker.discard_needed(name, set(), candidates)
        removed = 0
        for each in candidates:
            removed += await self._remove_manifest(name, unpack(each), cutoff)
        return removed

    async def _remove_manifest(self, name: RepositoryName, digest: Digest, cutoff: float) -> bool:
        key = layout.revision_link(name, digest)
        if self._dry_run:
            self.report.manifests_removed += 1
            return self._doom(self._marker.ignored, name, pack(digest))
        manifest = await self._marker.manifest(name, digest)
        async with self._catalog.changing(name, digest):
            if manifest is None or not await self._store.set_aside(key):
                return False
            if not await self._settle(key, digest, cutoff):
                return False
            await self._store.delete(layout.revision_media_type(name, digest))
            if manifest.subject is not None:
                await self._catalog.remove_referrer(name, manifest.subject, digest)
        self.report.links_removed -= 1
        self.report.manifests_removed += 1
        await self._removed(name, None, digest)
        return True

    # Blobs.

    async def _sweep_blobs(self, position: Position, after: str) -> None:
        candidates: dict[bytes, int] = {}
        async with aclosing(self._store.scan_blobs(after)) as pieces:
            async for done, infos in pieces:
                self.report.at_blobs(done)
                for info in infos:
                    await self._breathe()
                    self.report.blobs += 1
                    self.report.bytes += info.size
                    if info.used < self._cutoff:
                        candidates[pack(info.digest)] = info.size
                if len(candidates) >= self._batch:
                    await self._sweep_unlinked(candidates)
                    candidates.clear()
                    if not self._dry_run:
                        await position.save("blobs", done)
        await self._sweep_unlinked(candidates)

    async def _sweep_unlinked(self, candidates: dict[bytes, int]) -> None:
        await self._discard_linked(candidates)
        if self._dry_run:
            self._removed_blobs(candidates.values())
            return
        aside: dict[bytes, int] = {}
        for each, size in candidates.items():
            digest = unpack(each)
            if self._is_unused(await self._store.blob_info(digest)) and await self._store.set_blob_aside(
                digest
            ):
                aside[each] = size
        for each in await self._discard_linked(aside):
            await self._store.take_blob_back(unpack(each))
            self.report.taken_back += 1
        for each, size in aside.items():
            digest = unpack(each)
            if self._is_unused(await self._store.blob_info(digest)) and await self._store.drop_blob(digest):
                self._removed_blobs([size])
            else:
                await self._store.take_blob_back(digest)
                self.report.taken_back += 1

    def _is_unused(self, info: BlobInfo | None) -> bool:
        return info is not None and info.used < self._cutoff

    def _removed_blobs(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            self.report.blobs_removed += 1
            self.report.bytes_removed += size

    async def _discard_linked(self, wanted: dict[bytes, int]) -> list[bytes]:
        """Take out of `wanted` what any repository links; what was taken out."""
        found: list[bytes] = []
        if not wanted:
            return found
        async with aclosing(self._links.repositories()) as repositories:
            async for name in repositories:
                for kind, doomed in (
                    (self._links.layers, self._doomed_links),
                    (self._links.manifests, self._marker.ignored),
                ):
                    async with aclosing(kind(name)) as pieces:
                        async for digests in pieces:
                            for each in map(pack, digests):
                                if each in wanted and (name, each) not in doomed:
                                    del wanted[each]
                                    found.append(each)
                await self._breathe()
        return found

    def _doom(self, doomed: set[tuple[RepositoryName, bytes]], name: RepositoryName, packed: bytes) -> bool:
        """Remember for a dry run what would be gone by now, as far as there is room."""
        if len(doomed) >= self._batch:
            self.report.at_least = True
            return False
        doomed.add((name, packed))
        return True

    async def _breathe(self) -> None:
        """Let others run, and whoever watches see: a look at a file takes a few microseconds."""
        self._steps += 1
        if self._steps % 64 == 0:
            self._watch(self.report)
            await trio.lowlevel.checkpoint()

"""What clients do to a registry whose every call waits for its turn, and what was promised to them.

Small enough to enumerate: two repositories, three layers, images over them, an untagged image in an index.
`Shop.check` asks from outside whether all that was promised is true.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from aging import age_files

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_INDEX, OCI_MANIFEST
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry import Registry
from trioreg.registry.garbage import Collector
from trioreg.storage.collecting import UpkeepBusy
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.collecting import CollectableFiles

from .client import Bytes, registry_over
from .turns import Actor

GRACE = 10_000.0
LAYERS = (b"config", b"layer one", b"layer two")
REPOSITORIES = (RepositoryName("r/one"), RepositoryName("r/two"))
ABSENT = {ErrorCode.MANIFEST_UNKNOWN, ErrorCode.NAME_UNKNOWN}


def _described(data: bytes, media_type: str = "a/b") -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data)}


def image(*layers: bytes) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _described(LAYERS[0])}
    return json.dumps({**document, "layers": [_described(each) for each in layers]}).encode()


def index(*manifests: bytes) -> bytes:
    listed = [_described(each, OCI_MANIFEST) for each in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


# What a client pushes: (tag, the manifest, its layers, the untagged image in it). The last is an index.
_CHILD = image(LAYERS[2])
GOODS: tuple[tuple[Tag, bytes, tuple[bytes, ...], bytes | None], ...] = (
    (Tag("a"), image(LAYERS[1]), LAYERS[:2], None),
    (Tag("b"), image(LAYERS[1], LAYERS[2]), LAYERS, None),
    (Tag("i"), index(_CHILD), (LAYERS[0], LAYERS[2]), _CHILD),
)


class Shop:
    """The directory, the actors at work, and the promises: (repository, which of the goods) that is there.

    `storage` and `collector` make an actor's own; a test may plant a mistake in them.
    """

    def __init__(
        self,
        root: Path,
        storage: type[FilesystemStorage] = FilesystemStorage,
        collector: type[Collector] = Collector,
    ):
        self._root = root
        self._storage = storage
        self._collector = collector
        self.actors: list[Actor] = []
        self.promised: set[tuple[RepositoryName, int]] = set()
        self.collected = 0
        # Of a push and a delete at once nobody knows which comes first.
        self._deletes: Counter[tuple[RepositoryName, int]] = Counter()
        self._deleting: Counter[tuple[RepositoryName, int]] = Counter()
        FilesystemStorage(root, Disk(durable=False))

    # What may go on. Each returns the actor, stopped before its first call.

    def push(self, name: RepositoryName, which: int, *, mount: bool = False) -> Actor:
        """A client that asks for each layer by HEAD, brings what is not there, and puts the manifest.

        Nothing may refuse it: what HEAD, mount and upload have promised holds.
        """
        key = (name, which)
        before = self._deletes[key]
        certain = not self._deleting[key]

        async def work(registry: Registry) -> None:
            tag, manifest, layers, child = GOODS[which]
            for layer in layers:
                await self._bring(registry, name, layer, mount=mount)
            if child is not None:
                await registry.manifests.put(name, digest_of(child), None, child)
            await registry.manifests.put(name, tag, None, manifest)
            if certain and self._deletes[key] == before:
                self.promised.add(key)

        return self._serve(f"push {which} to {name}", work)

    def delete(self, name: RepositoryName, which: int) -> Actor:
        """A client that deletes one of the goods; not the untagged image in the index."""
        key = (name, which)
        self.promised.discard(key)
        self._deletes[key] += 1
        self._deleting[key] += 1

        async def work(registry: Registry) -> None:
            try:
                await registry.manifests.delete(name, digest_of(GOODS[which][1]))
            except RegistryError as error:
                if error.error not in ABSENT:
                    raise
            self._deleting[key] -= 1

        actor = self._serve(f"delete {which} from {name}", work)
        actor.deletes = key
        return actor

    def collect(self, *, untagged: bool = False, batch: int = 2) -> Actor:
        async def work(disk: Disk) -> None:
            store = CollectableFiles(self._root, disk)
            try:
                report = await self._collector(store, grace=GRACE, untagged=untagged, batch=batch).run()
            except UpkeepBusy:
                return
            assert report.unreadable == [], report.unreadable
            self.collected += report.links_removed + report.blobs_removed + report.manifests_removed

        actor = self._start("collect", work)
        actor.collects = True
        return actor

    def age(self, seconds: float) -> None:
        age_files(self._root, seconds)

    def end(self) -> None:
        """Let all come to their ends. Raises what one of them raised."""
        while any(not actor.ended for actor in self.actors):
            for actor in self.actors:  # In turn: one may wait for a lock that another holds.
                for _ in range(20):
                    actor.step()
        actors, self.actors = self.actors, []
        for actor in actors:
            actor.run()

    def kill(self, which: int) -> None:
        """One dies where it is, if it has not ended. What it did not come to will not happen any more."""
        actor = self.actors[which]
        if not actor.ended:
            actor.kill()
            if actor.deletes is not None:
                self._deleting[actor.deletes] -= 1

    def abandon(self) -> None:
        for actor in self.actors:
            actor.kill()
        self.actors.clear()

    async def check(self) -> None:
        """All that was promised can be pulled, and whatever manifest there is has all that it needs."""
        registry = registry_over(FilesystemStorage(self._root, Disk(durable=False)))
        for name in REPOSITORIES:
            for which, (tag, manifest, layers, child) in enumerate(GOODS):
                found = await _manifest(registry, name, digest_of(manifest))
                if (name, which) in self.promised:
                    assert found == manifest, f"{name}: manifest {which} is lost"
                    assert await _manifest(registry, name, tag) == manifest, f"{name}: tag {tag} is lost"
                if found is None:
                    continue
                for layer in layers:
                    assert await _pulled(registry, name, layer) == layer, f"{name}: {layer!r} is lost"
                if child is not None:
                    assert await _manifest(registry, name, digest_of(child)) == child, f"{name}: child"

    async def _bring(self, registry: Registry, name: RepositoryName, layer: bytes, *, mount: bool) -> None:
        digest = digest_of(layer)
        try:
            assert await registry.blobs.size(name, digest) == len(layer)
        except RegistryError as error:
            if error.error is not ErrorCode.BLOB_UNKNOWN:
                raise
            other = REPOSITORIES[1 - REPOSITORIES.index(name)]
            if not (mount and await registry.blobs.mount(name, digest, other)):
                await registry.uploads.push(name, digest, "sha256", Bytes(layer))

    def _serve(self, name: str, work: Callable[[Registry], Awaitable[None]]) -> Actor:
        async def serve(disk: Disk) -> None:
            storage = self._storage(self._root, disk, cache_bytes=0, touch_after=GRACE / 2)
            await work(registry_over(storage))

        return self._start(name, serve)

    def _start(self, name: str, work: Callable[[Disk], Awaitable[None]]) -> Actor:
        actor = Actor(name, work)
        self.actors.append(actor)
        return actor


async def _manifest(registry: Registry, name: RepositoryName, reference: Tag | Digest) -> bytes | None:
    try:
        found = await registry.manifests.get(name, reference)
    except RegistryError as error:
        if error.error not in ABSENT:
            raise
        return None
    assert isinstance(found.content, bytes)
    return found.content


async def _pulled(registry: Registry, name: RepositoryName, layer: bytes) -> bytes | None:
    try:
        blob = await registry.blobs.open(name, digest_of(layer))
    except RegistryError as error:
        if error.error is not ErrorCode.BLOB_UNKNOWN:
            raise
        return None
    try:
        return await blob.read(0, blob.size)
    finally:
        blob.close()

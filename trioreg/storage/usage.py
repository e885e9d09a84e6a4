"""How many bytes a repository holds: computed from its links, never a number that is kept.

A repository holds every blob and every manifest that it links, in full, also where others link it too: so
what it holds does not change with what others do.

Rule: the answer is that of the listing as it is, in whichever process the links were made. What is
remembered is the sum of a listing; of one that has only grown since, only what is new is looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from trioreg.oci.digest import ALGORITHMS, Algorithm, Digest
from trioreg.oci.names import RepositoryName
from trioreg.storage import layout
from trioreg.storage.base import BlobStore, ObjectStore
from trioreg.storage.lru import ByteLru

# Listings of 50,000 links; of one that has more than 13,000 nothing is remembered.
_SUMS_BYTES = 4 * 2**20


class Usage:
    def __init__(self, blobs: BlobStore, objects: ObjectStore):
        self._blobs = blobs
        self._objects = objects
        self._sums: ByteLru[tuple[Sequence[str], int]] = ByteLru(_SUMS_BYTES)

    async def of_repository(self, name: RepositoryName) -> int:
        """Bytes of all that a repository links."""
        total = 0
        for links in (layout.layers(name), layout.revisions(name)):
            for algorithm in ALGORITHMS:
                total += await self._sum(f"{links}/{algorithm}", algorithm)
        return total

    async def of_namespace(self, prefix: str) -> int:
        """The same for all repositories whose names begin with `prefix`, which ends with a slash."""
        total = 0
        async for name in self._below(prefix.rstrip("/")):
            total += await self.of_repository(name)
        return total

    async def _below(self, parent: str) -> AsyncIterator[RepositoryName]:
        waiting = [parent]
        while waiting:
            name = waiting.pop()
            children = await self._objects.children(f"{layout.REPOSITORIES}/{name}")
            waiting += [f"{name}/{each}" for each in children if not each.startswith("_")]
            if name != parent and any(each.startswith("_") for each in children):
                yield RepositoryName(name)
            await trio.lowlevel.checkpoint()

    async def _sum(self, key: str, algorithm: Algorithm) -> int:
        names = await self._objects.children(key)
        before, total = self._sums.get(key) or ((), 0)
        if before is names:
            return total
        new = set(names)
        if new.issuperset(before):
            new.difference_update(before)
        else:
            # What is gone may have no size any more.
            total = 0
        missing = False
        for index, encoded in enumerate(new):
            size = await self._blobs.size(Digest(algorithm, encoded))
            # Bytes that are missing take no room; a push brings them back, and the listing stays the same.
            missing = missing or size is None
            total += size or 0
            if index % 256 == 255:
                await trio.lowlevel.checkpoint()
        if not missing:
            self._sums.put(key, (names, total), len(key) + 80 * len(names))
        return total

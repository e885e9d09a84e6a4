"""Every link of every repository, for those who walk over all of them: collection, counts, checks.

Written once over `CollectableObjects`. Rule: memory holds the names of one folder of repositories and one
piece of a listing, however much there is. An entry that is just being written or removed is listed too:
who keeps what is listed keeps enough.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from trioreg.oci.digest import ALGORITHMS, Digest, parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, Tag, parse_name, parse_tag
from trioreg.storage import layout
from trioreg.storage.collecting import CollectableObjects


def _parsed(value: bytes) -> Digest | None:
    try:
        return parse_digest(value.decode())
    except (RegistryError, UnicodeDecodeError):
        return None


class Links:
    def __init__(self, objects: CollectableObjects):
        self._objects = objects

    async def repositories(self, after: str = "") -> AsyncGenerator[RepositoryName, None]:
        """Every repository that holds anything, in the order of its components, behind `after`."""
        passed = tuple(after.split("/")) if after else ()
        waiting = [""]
        while waiting:
            name = waiting.pop()
            below = await self._objects.children(f"{layout.REPOSITORIES}/{name}".rstrip("/"))
            nested = [f"{name}/{each}".lstrip("/") for each in below if not each.startswith("_")]
            if len(nested) < len(below) and tuple(name.split("/")) > passed:
                with suppress(RegistryError):  # a folder that is not ours
                    yield parse_name(name)
            waiting += reversed(nested)

    async def layers(self, name: RepositoryName) -> AsyncGenerator[Sequence[Digest], None]:
        """Blobs that a repository links."""
        async with aclosing(self._digests(layout.layers(name))) as pieces:
            async for piece in pieces:
                yield piece

    async def manifests(self, name: RepositoryName) -> AsyncGenerator[Sequence[Digest], None]:
        """Manifests that a repository links."""
        async with aclosing(self._digests(layout.revisions(name))) as pieces:
            async for piece in pieces:
                yield piece

    async def pulled(self, name: RepositoryName) -> AsyncGenerator[Sequence[Digest], None]:
        """Manifests of which it is noted when they were pulled, whether or not they are linked still."""
        async with aclosing(self._digests(layout.pulls(name))) as pieces:
            async for piece in pieces:
                yield piece

    async def tags(self, name: RepositoryName) -> AsyncGenerator[tuple[Tag, Digest | None], None]:
        """Tags and what they point at; None for one that is torn."""
        async with aclosing(self._objects.scan(layout.tags(name))) as pieces:
            async for names in pieces:
                for each in names:
                    with suppress(RegistryError):
                        tag = parse_tag(each)
                        value = await self._objects.get(layout.tag_link(name, tag))
                        if value is not None:
                            yield tag, _parsed(value)

    async def _digests(self, key: str) -> AsyncGenerator[Sequence[Digest], None]:
        for algorithm in ALGORITHMS:
            async with aclosing(self._objects.scan(f"{key}/{algorithm}")) as pieces:
                async for names in pieces:
                    found = []
                    for each in names:
                        with suppress(RegistryError):
                            found.append(parse_digest(f"{algorithm}:{each}"))
                    yield found

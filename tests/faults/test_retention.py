"""No push of a tag is undone by retention, whatever their order, call by call to the disk.

Both are processes of their own over one directory (`turns`): pairs of moments of the two are run, and a
retention that removes what it has seen without a second look under the lock is found by the same search.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Hashable, Iterator
from pathlib import Path

import pytest
import trio
from aging import age_files

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.retention import Retention
from trioreg.storage.catalog import Catalog
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.collecting import CollectableFiles

from .turns import Actor

NAME, TAG = RepositoryName("some/name"), Tag("latest")
OLD, NEW = digest_of(b"old"), digest_of(b"new")
RULES = (("**", "*", 0, 1, 0),)
# CI takes one pair in so many; TRIOREG_TEST_PAIRS=1 takes all of them, some hundred.
EVERY = min(7, int(os.environ.get("TRIOREG_TEST_PAIRS", "7")))
WEEK = 7 * 86_400.0


class NoSecondLook(Catalog):
    """Removes a tag as it was seen, whatever it is by now."""

    async def delete_tag_if(self, name: RepositoryName, tag: Tag, digest: Digest, stamp: Hashable) -> bool:
        return await self.delete_tag(name, tag)


def set_tag(root: Path, digest: Digest) -> Actor:
    async def work(disk: Disk) -> None:
        await Catalog(FilesystemStorage(root, disk)).set_tag(NAME, TAG, digest)

    return Actor("a push", work)


def retain(root: Path, catalog: type[Catalog]) -> Actor:
    async def work(disk: Disk) -> None:
        store = CollectableFiles(root, disk)
        retention = Retention(store, RULES)
        retention._catalog = catalog(store)
        await retention.run()

    return Actor("retention", work)


def run_pair(home: Path, catalog: type[Catalog], at: tuple[int, int]) -> tuple[int, int]:
    """Retention to its step, the push to its own, then in turns; how many steps they took. The push holds."""
    set_tag(home, OLD).run()
    age_files(home, WEEK)
    actors = (retain(home, catalog), set_tag(home, NEW))
    for actor, steps in zip(actors, at, strict=True):
        for _ in range(steps):
            actor.step()
    # In turns, for one may wait for a lock that the other has.
    while not all(actor.ended for actor in actors):
        for actor in actors:
            actor.step()
    for actor in actors:
        actor.run()
    found = trio.run(Catalog(FilesystemStorage(home, Disk(durable=False))).get_tag, NAME, TAG)
    assert found == NEW, f"undone at {at}"
    return actors[0].steps, actors[1].steps


def pairs(root: Path, catalog: type[Catalog]) -> Iterator[tuple[int, int]]:
    """Up to what each has to do where the other does not come between."""
    retention, _ = run_pair(root / "first", catalog, (1000, 0))
    _, push = run_pair(root / "second", catalog, (0, 1000))
    moments = itertools.product(range(retention + 1), range(push + 1))
    for at in itertools.islice(moments, 0, None, EVERY):
        run_pair(root / f"{at[0]}-{at[1]}", catalog, at)
        yield at


def test_a_push_is_never_undone(tmp_path: Path) -> None:
    """At whatever moments of the two they meet: the tag leads to what was pushed."""
    assert len(list(pairs(tmp_path, Catalog))) > 20


def test_a_planted_mistake_is_found(tmp_path: Path) -> None:
    """Without the second look the same search finds a push that is undone."""
    with pytest.raises(AssertionError, match="undone"):
        for _ in pairs(tmp_path, NoSecondLook):
            pass

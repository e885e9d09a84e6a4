"""Upkeep and upload sessions that begin, go on and end meanwhile: neither fails for the other.

Both are processes of their own over one directory (`turns`), which stop at each call to the disk, those on
sessions included: a session is removed between list and look, between look and lock, while it is made.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName
from trioreg.registry import Registry
from trioreg.registry.garbage import Collector
from trioreg.registry.purge import purge
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.collecting import CollectableFiles

from .client import Bytes, registry_over
from .turns import Actor, SessionDisk

NAME = RepositoryName("some/name")
# CI takes one pair in so many; TRIOREG_TEST_PAIRS=1 takes all of them.
EVERY = min(29, int(os.environ.get("TRIOREG_TEST_PAIRS", "29")))
TO_THE_END = 1000
# What a client may be told of a session that was taken for a dead one's; then it begins again.
GONE = {ErrorCode.BLOB_UPLOAD_UNKNOWN, ErrorCode.RANGE_INVALID, ErrorCode.UNAVAILABLE}

Client = Callable[[Registry], Awaitable[None]]


async def push(registry: Registry) -> None:
    """Begin, append, finish; what got its 201 is there."""
    session = await registry.uploads.start(NAME, "sha256")
    await registry.uploads.append(NAME, session.id, Bytes(b"half"), None)
    await registry.uploads.finish(NAME, session.id, digest_of(b"halfhalf"), Bytes(b"half"), None)
    assert await registry.blobs.size(NAME, digest_of(b"halfhalf")) == 8


async def cancel(registry: Registry) -> None:
    session = await registry.uploads.start(NAME, "sha256")
    await registry.uploads.cancel(NAME, session.id)


async def collect(store: CollectableFiles) -> None:
    await Collector(store, grace=3600.0).run()


async def end_old_sessions(store: CollectableFiles) -> None:
    await purge(store, expire_after=7 * 86_400.0)


async def purge_in_another_year(store: CollectableFiles) -> None:
    """Its clock, or that of the disk, is wrong: all that is there looks old."""
    await purge(store, expire_after=7 * 86_400.0, now=lambda: 4e9)


WORKS = {each.__name__: each for each in (collect, end_old_sessions, purge_in_another_year)}


def pairs(root: Path, client: Client, work: Callable[[CollectableFiles], Awaitable[None]]) -> Iterator[None]:
    """A client to each step, upkeep to each of its own, some or all of the client, the rest in turns."""
    wrong_clock = work is purge_in_another_year

    def run_pair(home: Path, at: tuple[int, int, int]) -> tuple[int, int]:
        FilesystemStorage(home, Disk(durable=False))

        async def serve(disk: Disk) -> None:
            try:
                await client(registry_over(FilesystemStorage(home, disk, cache_bytes=0)))
            except RegistryError as error:
                if not (wrong_clock and error.error in GONE):
                    raise

        actors = (
            Actor("upkeep", lambda disk: work(CollectableFiles(home, disk)), SessionDisk),
            Actor("a client", serve, SessionDisk),
        )
        for actor, steps in zip((actors[1], actors[0], actors[1]), at, strict=True):
            for _ in range(steps):
                actor.step()
        # In turns, for one may wait for a lock that the other has.
        while not all(actor.ended for actor in actors):
            for actor in actors:
                actor.step()
        for actor in actors:
            actor.run()
        return actors[0].steps, actors[1].steps

    _, ours = run_pair(root / "first", (TO_THE_END, 0, 0))
    theirs, _ = run_pair(root / "second", (ours // 2, TO_THE_END, 0))
    moments = itertools.product(range(ours + 1), range(theirs + 1), (1, 2, 3, TO_THE_END))
    for at in itertools.islice(moments, 0, None, EVERY):
        run_pair(root / "-".join(map(str, at)), at)
        yield


@pytest.mark.parametrize("client", [push, cancel])
@pytest.mark.parametrize("work", WORKS)
def test_upkeep_meets_a_session(tmp_path: Path, client: Client, work: str) -> None:
    """At whatever moments they meet, upkeep comes to its end, and no client is refused for it."""
    assert sum(1 for _ in pairs(tmp_path, client, WORKS[work])) > 10

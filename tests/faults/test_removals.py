"""Directories that one process removes and makes anew while another believes them to be durable."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from trioreg.storage.filesystem import FilesystemStorage
from trioreg.storage.filesystem.removals import Removals

from .tally import SEED, TALLY
from .worst import Crash, Durable, FaultyDisk

# More calls than a scenario makes; each test finds the end by itself.
MOST_CALLS = 1000


@pytest.fixture
def durable() -> Iterator[Durable]:
    watched = Durable()
    yield watched
    watched.close()


def open_storage(root: Path, disk: FaultyDisk) -> FilesystemStorage:
    return FilesystemStorage(root, disk, cache_bytes=0, boot="A")


KEY = "repositories/a/_manifests/tags/latest/current/link"


class Interrupted(FaultyDisk):
    """At one call, or look at a mark of removals, another process comes between."""

    def __init__(self, watched: Durable, other: Callable[[], Awaitable[object]]) -> None:
        super().__init__(watched=watched)
        self._other, self._when, self.came = other, 0, False
        self.removals = _Interrupted(self)

    def interrupt(self, at: int) -> None:
        """Count from here."""
        self.arm(0, None)
        self._when = at

    def look(self) -> None:
        self.count += 1
        self.between()

    def between(self) -> None:
        if self.count == self._when and not self.came:
            self.came = True
            trio.run(self._other)

    def _step(self, name: str) -> None:
        super()._step(name)
        self.between()


class _Interrupted(Removals):
    def __init__(self, disk: Interrupted) -> None:
        super().__init__()
        self._disk = disk

    def mark(self, directory: Path | str) -> bytes:
        mark = super().mark(directory)
        self._disk.look()
        return mark

    def announce(self, directory: Path) -> None:
        super().announce(directory)
        self._disk.look()


async def remove_and_die_making(storage: FilesystemStorage, disk: FaultyDisk) -> None:
    """Delete what is there, with its directories; make them anew, and die before any is durable."""
    await storage.delete(KEY)
    disk.dies_before("sync_data")
    try:
        await storage.put(KEY, b"never")
    except* Crash:
        pass


@pytest.mark.parametrize("interrupted", ["ours", "other"])
async def test_directories_that_another_process_removed_and_made_again(
    tmp_path: Path, durable: Durable, interrupted: str
) -> None:
    """What we put there survives a loss of power: one interrupts the other at any call, or not at all."""
    for at in range(MOST_CALLS):
        root, left = tmp_path / str(at), tmp_path / f"{at}-left"
        ours = Interrupted(durable, lambda: remove_and_die_making(theirs, other))  # noqa: B023 (called below)
        # Over the same disk, but of its own: threads of a storage belong to one loop.
        other = Interrupted(durable, lambda: open_storage(root, ours).put(KEY, b"ours"))  # noqa: B023 (as above)
        storage, theirs = open_storage(root, ours), open_storage(root, other)
        with TALLY.moment("directories made anew by another, then power loss"):
            await storage.put(KEY, b"before")
            if interrupted == "other":
                other.interrupt(at)
            if interrupted == "other" or at == 0:
                await remove_and_die_making(theirs, other)
            if interrupted == "ours":
                ours.interrupt(at)
            if interrupted == "ours" or at == 0:
                await storage.put(KEY, b"ours")
            there = (root / KEY).exists()  # else the other deleted it
            durable.lose_power(root, left, "names", random.Random(SEED))
            assert not there or (left / KEY).read_bytes() == b"ours"
        if at and not (ours if interrupted == "ours" else other).came:
            return
    raise AssertionError("the scenario does not end")

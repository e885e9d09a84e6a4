"""Changes of the disk share their syncs, and each fails by itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from trioreg.storage.filesystem.changes import Changes, Steps, Sync, finish


class Syncs:
    """Counts what it is asked to sync; `broken` fails, and the first sync waits until `go_on`."""

    def __init__(self) -> None:
        self.asked: list[int | Path] = []
        self.broken: set[int | Path] = set()
        self.go_on = threading.Event()

    def sync_data(self, descriptor: int) -> None:
        self._sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._sync(path)

    def _sync(self, what: int | Path) -> None:
        self.asked.append(what)
        assert self.go_on.wait(10)
        if what in self.broken:
            raise OSError(5, f"{what} is broken")


def change(file: int, directory: str, done: list[int]) -> Steps[int]:
    yield Sync(files=(file,))
    yield Sync(directories=(Path(directory),))
    done.append(file)
    return -file


async def run_together(syncs: Syncs, changes: Changes, count: int, directory: str) -> list[int | str]:
    """`count` changes of files 1, 2 … that all wait before the first sync goes on; what came of each."""
    outcomes: list[int | str] = [""] * count

    async def run(number: int) -> None:
        try:
            outcomes[number] = await changes.run(change(number + 1, directory, []))
        except OSError as error:
            outcomes[number] = str(error.strerror)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(run, number)
        await trio.testing.wait_all_tasks_blocked()
        syncs.go_on.set()
    return outcomes


async def test_changes_that_end_together_sync_a_directory_once() -> None:
    """Every file is synced, and the one directory they share no more often than rounds were begun."""
    syncs = Syncs()
    assert await run_together(syncs, Changes(syncs), 40, "/same") == [-number for number in range(1, 41)]
    assert sorted(each for each in syncs.asked if isinstance(each, int)) == list(range(1, 41))
    # Two threads: what came while each waited for its first sync goes on in one round of each.
    assert syncs.asked.count(Path("/same")) <= 4


async def test_a_broken_sync_is_the_failure_of_who_asked() -> None:
    """One file that cannot be synced fails its change; a directory, all that changed it."""
    syncs = Syncs()
    syncs.broken = {2}
    assert await run_together(syncs, Changes(syncs), 3, "/same") == [-1, "2 is broken", -3]
    syncs.broken = {Path("/same")}
    assert set(await run_together(syncs, Changes(syncs), 3, "/same")) == {"/same is broken"}


async def test_a_change_goes_on_after_the_sync_it_handles() -> None:
    """A sync's error is raised where it was asked for, as that of any call."""
    syncs = Syncs()
    syncs.go_on.set()
    syncs.broken = {7}

    def careful() -> Steps[str]:
        try:
            yield Sync(files=(7,))
        except OSError:
            return "noticed"
        return "not noticed"

    assert await Changes(syncs).run(careful()) == "noticed"
    assert finish(syncs, careful()) == "noticed"


async def test_nothing_of_a_change_that_is_cancelled_before() -> None:
    """Cancelled before it begins, nothing happens; once begun, it is waited for."""
    syncs, done = Syncs(), list[int]()
    changes = Changes(syncs)
    with trio.CancelScope() as scope:
        scope.cancel()
        await changes.run(change(1, "/here", done))
    assert (scope.cancelled_caught, syncs.asked, done) == (True, [], [])
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(changes.run, change(2, "/here", done))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            syncs.go_on.set()
    assert done == [2]


async def test_a_change_without_a_thread_never_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had (a limit of processes) it fails at once, and not later on its own."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    syncs, done = Syncs(), list[int]()
    syncs.go_on.set()
    changes = Changes(syncs)
    with monkeypatch.context() as without_threads:
        without_threads.setattr(trio.lowlevel, "start_thread_soon", refuse)
        for number in (1, 2):
            with pytest.raises(RuntimeError, match="thread"):
                await changes.run(change(number, "/here", done))
    with trio.fail_after(10):
        assert await changes.run(change(3, "/here", done)) == -3
    assert done == [3]


async def test_changes_begin_again_after_a_rest() -> None:
    """The threads end when nothing waits, and the next change starts one."""
    syncs, done = Syncs(), list[int]()
    syncs.go_on.set()
    changes = Changes(syncs)
    for number in range(1, 50):
        assert await changes.run(change(number, "/here", done)) == -number
    assert done == list(range(1, 50))


def test_a_change_alone() -> None:
    """`finish` runs one here and now; its errors are raised."""
    syncs, done = Syncs(), list[int]()
    syncs.go_on.set()
    assert finish(syncs, change(3, "/here", done)) == -3
    assert syncs.asked == [3, Path("/here")]
    syncs.broken = {3}
    with pytest.raises(OSError, match="3 is broken"):
        finish(syncs, change(3, "/here", done))

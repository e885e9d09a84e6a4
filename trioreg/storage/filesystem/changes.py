"""Changes of the disk, many at a time: what wants to be durable at the same moment is synced together.

A change is a generator (`Steps`): it works, and yields a `Sync` wherever it may go on only when some files
and directories are durable. One thread takes every change that waits a step further, syncs what all of them
asked for, each file and directory once, and goes on; so commits that end together share a commit of the
filesystem's journal, and take one thread instead of one each.

Rule: a change is cancelled before it begins or not at all, and fails by itself: with its own error, or with
that of a sync it asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import trio

T = TypeVar("T")

# One works while another waits for the disk. More would only fight for the interpreter.
_THREADS = 2

# Changes that one thread takes along: each may hold a file open.
_AT_ONCE = 64


class Sync(NamedTuple):
    """What has to be durable before a change goes on: bytes of open files, entries of directories."""

    files: tuple[int, ...] = ()
    directories: tuple[Path, ...] = ()


Steps: TypeAlias = Generator[Sync, None, T]


class CanSync(Protocol):
    """What a change asks for is done by these; both block."""

    def sync_data(self, descriptor: int) -> None: ...

    def sync_directory(self, path: Path) -> None: ...


def finish(disk: CanSync, steps: Steps[T]) -> T:
    """Run a change by itself, here and now."""
    try:
        sync = next(steps)
        while True:
            errors = _sync(disk, [sync])
            error = _error_of(sync, errors)
            sync = steps.send(None) if error is None else steps.throw(error)
    except StopIteration as end:
        result: T = end.value
        return result


class _Change(Generic[T]):
    """A change on its way. `go_on` is called in the thread, the rest by its owner."""

    def __init__(self, steps: Steps[T]):
        self._steps = steps
        self.sync: Sync | None = None
        self.ended = trio.Event()
        self.result: T | None = None
        self.error: BaseException | None = None

    def go_on(self, error: BaseException | None) -> None:
        """Take it to its next sync, or to the end."""
        try:
            self.sync = self._steps.send(None) if error is None else self._steps.throw(error)
        except StopIteration as end:
            self.sync, self.result = None, end.value
        except BaseException as failure:  # noqa: BLE001 (it belongs to whoever waits for the change)
            self.sync, self.error = None, failure


class Changes:
    """Runs changes on threads of its own. One for each storage."""

    def __init__(self, disk: CanSync):
        self._disk = disk
        self._lock = threading.Lock()
        self._waiting: deque[_Change[Any]] = deque()
        self._threads = 0

    async def run(self, steps: Steps[T]) -> T:
        """Run a change to its end. Raises what it raises, or OSError of a sync."""
        await trio.lowlevel.checkpoint_if_cancelled()
        change = _Change(steps)
        token = trio.lowlevel.current_trio_token()
        with self._lock:
            self._waiting.append(change)
            starts = self._threads < _THREADS
            self._threads += starts
        if starts:
            self._start(token, change)
        # As a job in any thread: what has begun cannot be called back.
        with trio.CancelScope(shield=True):
            await change.ended.wait()
        if change.error is not None:
            raise change.error
        return change.result  # type: ignore[return-value]  # set, as there was no error

    def _start(self, token: trio.lowlevel.TrioToken, change: _Change[Any]) -> None:
        """One more thread. Raises RuntimeError if there can be none, and no other that takes the change."""
        try:
            trio.lowlevel.start_thread_soon(lambda: self._work(token), _ignore, "changes")
        except BaseException:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    self._waiting.remove(change)
                    raise

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        under_way: list[_Change[Any]] = []
        errors: dict[int | Path, BaseException] = {}
        while under_way or self._has_more():
            for change in under_way:
                assert change.sync is not None
                change.go_on(_error_of(change.sync, errors))
            for change in self._take(_AT_ONCE - len(under_way)):
                change.go_on(None)
                under_way.append(change)
            _tell(token, [change for change in under_way if change.sync is None])
            under_way = [change for change in under_way if change.sync is not None]
            errors = _sync(self._disk, [change.sync for change in under_way if change.sync is not None])

    def _has_more(self) -> bool:
        """Whether there is work; if not, this thread counts as ended."""
        with self._lock:
            self._threads -= not self._waiting
            return bool(self._waiting)

    def _take(self, most: int) -> list[_Change[Any]]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]


def _sync(disk: CanSync, wanted: Iterable[Sync]) -> dict[int | Path, BaseException]:
    """Sync each thing once, files first; the errors by what they are of."""
    errors: dict[int | Path, BaseException] = {}

    def attempt(call: Callable[[Any], None], what: int | Path) -> None:
        try:
            call(what)
        except BaseException as error:  # noqa: BLE001 (it belongs to whoever asked for the sync)
            errors[what] = error

    wanted = list(wanted)
    for descriptor in dict.fromkeys(each for sync in wanted for each in sync.files):
        attempt(disk.sync_data, descriptor)
    for path in dict.fromkeys(each for sync in wanted for each in sync.directories):
        attempt(disk.sync_directory, path)
    return errors


def _error_of(sync: Sync, errors: dict[int | Path, BaseException]) -> BaseException | None:
    if not errors:
        return None
    return next((errors[each] for each in (*sync.files, *sync.directories) if each in errors), None)


def _tell(token: trio.lowlevel.TrioToken, ended: list[_Change[Any]]) -> None:
    if ended:
        token.run_sync_soon(lambda: [change.ended.set() for change in ended])


def _ignore(_outcome: object) -> None:
    return None

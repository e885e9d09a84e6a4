"""A change of the disk, written down before it is made: a list of system calls.

A script can run in threads without Python (`threads`), or call by call over a `Disk` (`Script.steps`), where
tests make any of them fail. Both do the same; `tests/storage/test_script.py` compares them.

Rules: calls are made in order, and the first that fails ends the script. Syncs that stand side by side are
made at once, together with those of other scripts, and what follows waits for them. A file that a script has
written and not moved when it fails is removed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from trioreg.storage.filesystem.changes import Steps, Sync

if TYPE_CHECKING:
    from trioreg.storage.filesystem.disk import Disk

# What `native/script.h` calls them, and says of them.
(
    MAKE_DIRECTORY, WRITE_FILE, SYNC_FILE, SYNC_DIRECTORY, RENAME, LINK, UNLINK, REMOVE_DIRECTORY, TOUCH,
    SET_MODE, WRITE_AT,
) = range(11)  # fmt: skip

_SYNCS = (SYNC_FILE, SYNC_DIRECTORY)

# Never in a name of ours: the grammars of repository, tag and digest allow no leading dot.
TEMPORARY_PREFIX = ".tmp-"
# In a container the process number is the same after each start, and in each container on one storage.
_LIFE = os.urandom(4).hex()
_temporary_names = itertools.count()

# Who takes away our temporary files, or the directory, again and again is no accident.
TRIES = 10

_Object: TypeAlias = str | bytes | int | tuple[bytes, int] | None
Call: TypeAlias = tuple[int, str | int, _Object]


class Put(NamedTuple):
    """A file to be, whole. `absent`: only where there is none. No `data`: one that is there is made sure of.

    That is: its name made durable, for whoever wrote it may not have come to that.
    """

    path: str
    data: bytes | None
    absent: bool = False


class Script:
    """`existed`: a file was there already, of one that was to be put only if absent.

    `failed` is the call that failed, or -1, and `errno` why; any of a row of syncs stands for the others.
    """

    def __init__(self, disk: Disk) -> None:
        self.calls: list[Call] = []
        self.existed = False
        self.failed, self.errno = -1, 0
        self._disk = disk
        self._written: list[str] = []
        self._entered: dict[str, None] = {}
        self._settled: dict[str, bytes] = {}
        # Directories, with their marks when we first looked: before anything of ours was in them.
        self._marks: dict[str, bytes] = {}
        self._unsettled: dict[str, dict[str, bytes]] = {}

    # Writing it down.

    def enter(self, directory: str) -> None:
        """Make a directory, and those above it, unless they are known to be there."""
        for each in reversed(self._look(directory)):
            if each not in self._entered:
                self._entered[each] = None
                self.calls.append((MAKE_DIRECTORY, each, None))

    def sync_file(self, file: int | str) -> None:
        """An open file, or one that was written before."""
        if self._disk.durable:
            self.calls.append((SYNC_FILE, file, None))

    def settle(self, *changed: str) -> None:
        """Make the entries of directories durable, and their own in those above them."""
        wanted = dict.fromkeys(changed)
        for directory in changed:
            for each, mark in self._look(directory).items():
                if each not in self._settled:
                    self._settled[each] = mark
                    wanted[os.path.dirname(each)] = None
        if self._disk.durable:
            self.calls += [(SYNC_DIRECTORY, each, None) for each in wanted]

    def put(self, *groups: Sequence[Put]) -> None:
        """Put files in order: each group is durable before anything of the next has its name."""
        named = [self.write(group) for group in groups]
        self.sync_written()
        for group, calls in zip(groups, named, strict=True):
            self.calls += calls
            self.settle(*(os.path.dirname(put.path) for put in group))

    def write(self, puts: Sequence[Put]) -> list[Call]:
        """Write files beside their places; the calls that will give them their names, in order."""
        naming: list[Call] = []
        for put in puts:
            self.enter(os.path.dirname(put.path))
        for put in puts:
            if put.data is None:
                continue
            temporary = _temporary_beside(put.path)
            self.calls.append((WRITE_FILE, temporary, put.data))
            self._written.append(temporary)
            naming.append((LINK if put.absent else RENAME, temporary, put.path))
            if put.absent:
                naming.append((UNLINK, temporary, None))
        return naming

    def sync_written(self) -> None:
        """Make durable what was written."""
        for temporary in self._written:
            self.sync_file(temporary)
        self._written.clear()

    def _look(self, directory: str) -> dict[str, bytes]:
        """What of it and those above is not settled, once and for all."""
        if directory not in self._unsettled:
            self._marks[directory] = self._disk.removals.mark(directory)
            self._unsettled[directory] = self._disk.unsettled(directory)
        return self._unsettled[directory]

    # Running it.

    @property
    def failed_call(self) -> int:
        """What kind of call failed; of a row of syncs the first, or the one that did."""
        return self.calls[self.failed][0]

    def done(self) -> None:
        """It came to its end: directories are known from now on."""
        self._disk.settled(self._settled)

    def vanished(self) -> None:
        """Something was not there: perhaps a directory that we believed to be."""
        for directory in self._marks:
            self._disk.forget(directory)

    def doubtful(self) -> list[str]:
        """Directories that may have been removed and made anew since we looked, before ours was in them."""
        return [each for each, mark in self._marks.items() if self._disk.removals.mark(each) != mark]

    def steps(self) -> Steps[None]:
        """Run it over its disk. Raises OSError of the call that failed."""
        run = _Run(self._disk, self)
        yield from run.steps()
        self.done()


def run_steps(disk: Disk, write: Callable[[Script], None]) -> Steps[Script]:
    """Write a script down and run it; again when a directory or a temporary file was gone under our hands.

    A purge may take that for a dead process's, whose clock is another year's.
    """
    for left in reversed(range(TRIES)):
        script = Script(disk)
        write(script)
        try:
            yield from script.steps()
            break
        except FileNotFoundError:
            script.vanished()
            if not left:
                raise
    again = script
    while directories := again.doubtful():
        again = Script(disk)
        again.settle(*directories)
        yield from again.steps()
    return script


class _Run:
    """A script on its way over a disk, call by call."""

    def __init__(self, disk: Disk, script: Script):
        self._disk = disk
        self._script = script
        self._open: dict[str, int] = {}  # written, not synced
        self._made: dict[str, None] = {}  # written, not moved

    def steps(self) -> Steps[None]:
        calls, at = self._script.calls, 0
        try:
            while at < len(calls):
                row = list(itertools.takewhile(lambda call: call[0] in _SYNCS, calls[at:]))
                if row:
                    yield from self._sync(row)
                else:
                    self._call(*calls[at])
                at += len(row) or 1
        except BaseException:
            self._script.failed = at
            for temporary in self._made:
                with suppress(OSError):
                    self._disk.unlink(Path(temporary))
            raise
        finally:
            for path in list(self._open):
                self._close(path)

    def _sync(self, row: Iterable[Call]) -> Steps[None]:
        files = [path for kind, path, _ in row if kind == SYNC_FILE]
        directories = [Path(str(path)) for kind, path, _ in row if kind == SYNC_DIRECTORY]
        descriptors = [path if isinstance(path, int) else self._open[path] for path in files]
        yield Sync(tuple(descriptors), tuple(directories))
        for path in files:
            if isinstance(path, str):
                self._close(path)

    def _call(self, kind: int, subject: str | int, other: _Object) -> None:
        if isinstance(subject, int):
            if isinstance(other, tuple):
                self._disk.write_all(subject, memoryview(other[0]), other[1])
            else:
                assert isinstance(other, int)
                os.fchmod(subject, other)
            return
        disk, path = self._disk, Path(str(subject))
        with suppress(*_FINE.get(kind, ())):
            if kind == WRITE_FILE:
                assert isinstance(other, bytes)
                self._write(str(subject), other)
            elif kind == RENAME:
                disk.rename(path, Path(str(other)))
            elif kind == LINK:
                self._link(path, Path(str(other)))
            elif kind == UNLINK:
                disk.unlink(path)
            elif kind == MAKE_DIRECTORY:
                disk.mkdir(path)
            elif kind == REMOVE_DIRECTORY:
                disk.rmdir(path)
            else:
                disk.touch(path)
        if kind in (RENAME, UNLINK):
            self._made.pop(str(subject), None)

    def _write(self, path: str, data: bytes) -> None:
        self._open[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._made[path] = None
        self._disk.write_all(self._open[path], memoryview(data), 0)
        if not self._disk.durable:
            self._close(path)

    def _link(self, path: Path, other: Path) -> None:
        try:
            self._disk.link(path, other)
        except FileExistsError:
            self._script.existed = True

    def _close(self, path: str) -> None:
        os.close(self._open.pop(path))


_FINE: dict[int, tuple[type[OSError], ...]] = {
    MAKE_DIRECTORY: (FileExistsError,),
    UNLINK: (FileNotFoundError,),
    REMOVE_DIRECTORY: (FileNotFoundError,),
}


def _temporary_beside(path: str) -> str:
    directory, _, _ = path.rpartition("/")
    return f"{directory}/{TEMPORARY_PREFIX}{os.getpid()}-{_LIFE}-{next(_temporary_names)}"

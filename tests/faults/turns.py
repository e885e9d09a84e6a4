"""Processes whose every call to the disk waits for its turn.

An `Actor` is a thread with a Trio of its own and, over the common directory, a storage of its own: it shares
with the others what two processes share, files and locks. It stops before each call to the disk, looks
included; a test says who makes the next one, so it chooses how processes interleave, and can again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from trioreg.oci.names import RepositoryName
from trioreg.storage import layout
from trioreg.storage.filesystem import Disk

# More than any call takes on a busy machine; only a bug of the test gets there.
_PATIENCE = 60.0


class Killed(BaseException):
    """The process died: nothing of it happens after this."""


class Actor:
    """`work` runs over a disk that waits; `run` and `step` are for the test's thread."""

    def __init__(
        self, name: str, work: Callable[[Disk], Awaitable[None]], disk: type[TurnDisk] | None = None
    ):
        self.name = name
        self.steps = 0
        self.error: BaseException | None = None
        self.aged = self.collects = False
        self.deletes: tuple[RepositoryName, int] | None = None
        self._changed = threading.Condition()
        self._waiting = self._go = self._killed = self.ended = False
        self._work = work
        self._disk = disk or TurnDisk
        self._thread = threading.Thread(target=self._main, name=name)
        self._thread.start()
        self._settle()

    def step(self) -> None:
        """Let it make one call; back when it waits before the next, or has ended."""
        if self.ended:
            return
        with self._changed:
            self._go, self._waiting = True, False
            self._changed.notify_all()
        self.steps += 1
        self._settle()

    def run(self) -> None:
        """Let it come to its end. Raises what it raised."""
        while not self.ended:
            self.step()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def kill(self) -> None:
        """Here it dies; no call of it is made any more."""
        with self._changed:
            self._killed = True
            self._changed.notify_all()
        self._thread.join()

    def stop(self) -> None:
        """Wait for a turn; called before each call to the disk, in whatever thread makes it."""
        with self._changed:
            if not self._killed:
                self._waiting = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._go or self._killed)
            if self._killed:
                raise Killed
            self._go = False

    def _settle(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._waiting or self.ended, _PATIENCE), self.name

    def _main(self) -> None:
        try:
            trio.run(self._work, self._disk(self))
        except Killed:
            pass
        except BaseExceptionGroup as group:
            if group.split(Killed)[1] is not None:
                self.error = group
        except BaseException as error:  # noqa: BLE001 (it goes to whoever calls `run`)
            self.error = error
        with self._changed:
            self.ended = True
            self._changed.notify_all()


class TurnDisk(Disk):
    """Stops before each call that another process can notice: not at those on one's own upload session."""

    def __init__(self, actor: Actor):
        super().__init__(durable=False)
        self._actor = actor

    def _stop(self, path: Path | str) -> None:
        if f"/{layout.UPLOADS}/" not in str(path):
            self._actor.stop()

    def stat(self, path: str) -> os.stat_result:
        self._stop(path)
        return super().stat(path)

    def try_lock(self, descriptor: int) -> None:
        self._actor.stop()
        super().try_lock(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._stop(target)
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._stop(target)
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._stop(path)
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        self._stop(path)
        super().mkdir(path)

    def rmdir(self, path: Path) -> None:
        self._stop(path)
        super().rmdir(path)

    def touch(self, path: Path) -> None:
        self._stop(path)
        super().touch(path)


class SessionDisk(TurnDisk):
    """Stops also at what is done to upload sessions, reading and writing included."""

    def _stop(self, path: Path | str) -> None:
        self._actor.stop()

    def read_file(self, path: str | Path) -> bytes:
        self._actor.stop()
        return super().read_file(path)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        self._actor.stop()
        return super().pwrite(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        self._actor.stop()
        super().sync_data(descriptor)

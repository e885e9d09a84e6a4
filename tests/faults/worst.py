"""Disks that fail: one that breaks at the k-th call, and one that remembers what was really made durable.

A test runs a scenario over `FaultyDisk`; `Durable` watches every sync and can build the directory that
the harshest power loss would leave.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Literal

from trioreg.storage.filesystem import Disk

Loss = Literal["names", "bytes", "between"]
LOSSES: tuple[Loss, ...] = ("names", "bytes", "between")


CHANGES_NAMES = ("rename", "link", "unlink", "mkdir", "rmdir")


class Crash(BaseException):
    """The process died: nothing of it happens after this."""


class Durable:
    """What reached the platter, known from the syncs alone.

    A file has the bytes of its last sync, a directory the entries of its own. Inodes are held open, so
    that their numbers are not used again. Close it.
    """

    def __init__(self) -> None:
        self._held: dict[int, int] = {}
        self._bytes: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self._since: list[dict[Path, int]] = []

    def changing(self, root: Path) -> None:
        """Names are about to change: remember those of now, which a power loss may bring back."""
        self._since.append({each.relative_to(root): self._hold(each) for each in sorted(root.rglob("*"))})

    def file_synced(self, descriptor: int) -> None:
        path = f"/proc/self/fd/{descriptor}"
        self._bytes[self._hold(Path(path))] = Path(path).read_bytes()

    def directory_synced(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._entries[self._hold(path)] = {each.name: self._hold(each) for each in path.iterdir()}
            # A journal is written in order: what was renamed before a sync does not come undone after it.
            self._since.clear()

    def lose_power(self, root: Path, target: Path, loss: Loss, choose: random.Random) -> None:
        """Build in `target` what is left of `root`.

        "names": every entry of a directory that was not synced is lost, and every byte. "bytes": the
        names happened to be written, the bytes that were not synced are zeroes. "between": the names of
        some moment since the last sync of a directory; of each file that was not synced the bytes or none.
        """
        shutil.rmtree(target, ignore_errors=True)
        if loss == "names":
            self._build(os.stat(root).st_ino, target)
        elif loss == "bytes":
            self._copy(root, target)
        else:
            self.changing(root)
            self._go_back(choose.choice(self._since), target, choose)

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)

    def _hold(self, path: Path) -> int:
        descriptor = os.open(path, os.O_PATH)
        inode = os.fstat(descriptor).st_ino
        if inode in self._held:
            os.close(descriptor)
        else:
            self._held[inode] = descriptor
        return inode

    def _build(self, directory: int, target: Path) -> None:
        target.mkdir()
        for name, inode in self._entries.get(directory, {}).items():
            if os.path.isdir(f"/proc/self/fd/{self._held[inode]}"):
                self._build(inode, target / name)
            else:
                (target / name).write_bytes(self._bytes.get(inode, b""))

    def _go_back(self, names: dict[Path, int], target: Path, choose: random.Random) -> None:
        target.mkdir()
        for path, inode in names.items():  # a directory comes before what is in it
            held = Path(f"/proc/self/fd/{self._held[inode]}")
            if held.is_dir():
                (target / path).mkdir()
                continue
            now, synced = held.read_bytes(), self._bytes.get(inode, b"")
            lost = synced[: len(now)] + bytes(max(0, len(now) - len(synced)))
            (target / path).write_bytes(choose.choice([now, lost]))

    def _copy(self, source: Path, target: Path) -> None:
        target.mkdir()
        for each in source.iterdir():
            if each.is_dir():
                self._copy(each, target / each.name)
            else:
                status = each.stat()
                kept = self._bytes.get(status.st_ino, b"")[: status.st_size]
                (target / each.name).write_bytes(kept + bytes(status.st_size - len(kept)))


class FaultyDisk(Disk):
    """Fails at call number `at` (from 1), with `fault` instead of doing it.

    An OSError comes once; after a `Crash` no call does anything any more. `struck` says where it was.
    """

    def __init__(
        self,
        at: int = 0,
        fault: BaseException | None = None,
        *,
        watched: Durable | None = None,
        root: Path | None = None,
    ):
        super().__init__()
        self.struck: str | None = None
        self._watched = watched
        self._root = root
        self._dead = False
        self.arm(at, fault)

    def arm(self, at: int, fault: BaseException | None) -> None:
        """Count from here."""
        self.count, self._at, self._fault = 0, at, fault
        self._before: str | None = None

    def dies_before(self, name: str) -> None:
        """At the next call of this name."""
        self._before, self._fault = name, Crash()

    def _step(self, name: str) -> None:
        if self._dead:
            raise Crash
        self.count += 1
        if (self.count == self._at or name == self._before) and self._fault is not None:
            self.struck = f"{name} (call {self.count})"
            self._dead = isinstance(self._fault, Crash)
            raise self._fault
        if self._watched is not None and self._root is not None and name in CHANGES_NAMES:
            self._watched.changing(self._root)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        self._step("pwrite")
        # A fault can come between two parts of one write.
        part = data[: len(data) // 2] if len(data) > 2048 else data
        return super().pwrite(descriptor, part, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate")
        super().truncate(descriptor, size)

    def sync_data(self, descriptor: int) -> None:
        self._step("sync_data")
        if self._watched is not None:
            self._watched.file_synced(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._step("sync_directory")
        if self._watched is not None:
            self._watched.directory_synced(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._step("link")
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        self._step("mkdir")
        super().mkdir(path)

    def rmdir(self, path: Path) -> None:
        self._step("rmdir")
        super().rmdir(path)

    def touch(self, path: Path) -> None:
        self._step("touch")
        super().touch(path)

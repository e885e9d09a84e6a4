"""One upload session on disk: ``uploads/<id>/data`` and ``uploads/<id>/state``.

Rule (DESIGN, rules 1 and 2): the lease is a `flock` on the session's directory, which is never replaced;
after taking it the path is checked to lead there still, for a commit or cancel removes it. Only then is
``data`` opened. A commit renames ``data``, so no published blob is ever reachable as an upload: even a
crash between any two steps leaves one name on the bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from trioreg.oci.digest import Digest
from trioreg.oci.names import UploadId
from trioreg.storage import layout, record
from trioreg.storage.base import Checkpoint, UploadInfo, UploadNotFound
from trioreg.storage.filesystem import aside
from trioreg.storage.filesystem.changes import Changes, Steps, Sync, finish
from trioreg.storage.filesystem.disk import Disk, storage_errors
from trioreg.storage.filesystem.script import (
    MAKE_DIRECTORY,
    REMOVE_DIRECTORY,
    RENAME,
    SET_MODE,
    SYNC_FILE,
    TOUCH,
    UNLINK,
    WRITE_AT,
    WRITE_FILE,
    Put,
    Script,
)
from trioreg.storage.filesystem.threads import Scripts
from trioreg.storage.record import Record

# Bytes that the disk takes in a few milliseconds.
_SOON_SYNCED = 2**20

# More than this allocated beyond a file's bytes is not what a filesystem needs for itself.
_TAIL_BYTES = 2**20
_SECTOR = 512  # of `st_blocks`, stat(2)

DATA = "data"
STATE = "state"
_NEW_STATE = ".state"  # The lease holder is alone here, so one name is enough.


class FilesystemUpload:
    """`Upload` in a directory whose lock the caller (`leased`) holds."""

    def __init__(
        self,
        root: Path,
        directory: Path,
        disk: Disk,
        saved: Record,
        boot: str,
        data: int,
        changes: trio.CapacityLimiter,
        publishing: Changes,
        scripts: Scripts,
    ):
        self._root = root
        self._changes = changes
        self._publishing = publishing
        self._scripts = scripts
        self._directory = directory
        self._disk = disk
        self._record = saved
        self._boot = boot
        self._data = data
        self._direct: int | None = None
        self._asked_for_direct = False
        self._doubted = False
        self._soon = b""
        size = os.fstat(data).st_size
        self._resumed = saved.resume_point(boot, size)
        self._offset = self._resumed.offset
        if self._offset != saved.written.offset:
            # We go on from an older point: the newer ones may never count again, whatever comes there.
            self._record = saved.after(self._resumed, boot, synced=self._resumed == record.START)
            save_record(disk, directory, self._record)
        if size > self._offset:
            # Bytes that no record vouches for.
            disk.truncate(data, self._offset)

    @property
    def info(self) -> UploadInfo:
        return self._record.info(UploadId(self._directory.name), self._offset)

    @property
    def resumed(self) -> Checkpoint:
        return self._resumed

    def write_descriptor(self) -> int | None:
        return self._data if self._disk.plain_writes else None

    def direct_descriptor(self) -> int | None:
        if not self._asked_for_direct:
            self._asked_for_direct = True
            self._direct = self._disk.open_direct(self._directory / DATA)
        return self._direct

    def close(self) -> None:
        """Let go of what was opened besides the file itself, which is the store's."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def wrote(self, count: int) -> None:
        self._offset += count

    async def write(self, data: memoryview) -> None:
        with storage_errors("writing an upload"):
            await trio.to_thread.run_sync(self._disk.write_all, self._data, data, self._offset)
        self._offset += len(data)

    def write_soon(self, data: bytes) -> None:
        assert not self._soon, "what comes behind these bytes has not followed"
        self._soon = data
        self._offset += len(data)

    async def read(self, start: int, length: int) -> bytes:
        with storage_errors("reading an upload"):
            return await trio.to_thread.run_sync(self._read, start, length)

    async def checkpoint(self, at: Checkpoint, *, sync: bool) -> None:
        assert at.offset <= self._offset, "a record may not run ahead of the bytes"
        with storage_errors("saving the state of an upload"):
            await trio.to_thread.run_sync(self._checkpoint, at, sync, limiter=self._changes)

    async def commit(self, digest: Digest) -> None:
        with storage_errors("publishing a blob"):
            await self.publish(digest, list)

    async def publish(self, digest: Digest, links: Callable[[], Sequence[Put]]) -> None:
        """`commit`, and put files that name the blob. Raises OSError of the call that failed."""
        if self._offset - self._record.synced.offset > _SOON_SYNCED:
            # Not with the others: they would wait for all of it.
            await trio.to_thread.run_sync(self._sync, limiter=self._changes)
        blob = self._root / layout.blob(digest)
        try:
            self._disk.stat(str(blob))
        except FileNotFoundError:
            await self._name(str(blob), links)
        else:
            await self._publishing.run(self._meet(blob, digest))
            await self._scripts.run(lambda script: script.put(links()))

    async def cancel(self) -> None:
        with storage_errors("cancelling an upload"):
            await trio.to_thread.run_sync(self._remove, limiter=self._changes)

    def _read(self, start: int, length: int) -> bytes:
        self._write_now()
        return self._disk.pread(self._data, length, start)

    def _write_now(self) -> None:
        """Write what was to be written soon; if that fails, it still is."""
        if self._soon:
            self._disk.write_all(self._data, memoryview(self._soon), self._offset - len(self._soon))
            self._soon = b""

    def _checkpoint(self, at: Checkpoint, sync: bool) -> None:
        self._write_now()
        if sync:
            self._sync()
        elif self._doubted:
            self._cut()
            at = self._record.synced_checkpoint
        self._record = self._record.after(at, self._boot, synced=sync and self._disk.durable)
        save_record(self._disk, self._directory, self._record)

    def _sync(self) -> None:
        finish(self._disk, self._sync_steps())

    def _sync_steps(self) -> Steps[None]:
        self._write_now()
        try:
            yield Sync(files=(self._data,))
        except OSError:
            self._doubt()
            raise

    def _doubt(self) -> None:
        """A sync has failed: nobody knows which bytes are durable, though the kernel calls them clean.

        https://lwn.net/Articles/752063/: so nothing past the last good sync counts any more.
        """
        self._doubted = True
        self._cut()

    def _cut(self) -> None:
        """Give up what was not synced: a file that is shorter than its record falls back by itself.

        So it does whether or not we can still save a record, or live to do it.
        """
        with contextlib.suppress(OSError):
            self._disk.truncate(self._data, self._record.synced.offset)

    async def _name(self, blob: str, links: Callable[[], Sequence[Put]]) -> None:
        """Where there is no such blob. One that comes meanwhile, or is aside, has the same bytes."""
        data = f"{self._directory}/{DATA}"
        latest: list[Script] = []

        def write(script: Script) -> None:
            puts = links()
            if latest and not os.path.lexists(data):
                # A directory for a link was gone, when the blob had its name already.
                script.put([Put(blob, None), *puts])
                self._write_removal(script)
                return
            latest[:] = [script]
            if self._soon:
                place = self._offset - len(self._soon)
                script.calls.append((WRITE_AT, self._data, (self._soon, place)))
            naming = script.write(puts)
            script.enter(os.path.dirname(blob))
            script.sync_file(self._data)
            script.sync_written()
            # A blob's time says when somebody began to rely on it; the last byte may have come long ago.
            script.calls.append((TOUCH, data, None))
            script.calls.append((RENAME, data, blob))
            script.calls.append((SET_MODE, self._data, 0o444))
            script.calls += naming
            script.settle(os.path.dirname(blob), *(os.path.dirname(put.path) for put in puts))
            self._write_removal(script)

        try:
            await self._scripts.run(write)
        except OSError:
            script = latest[0]
            if script.failed >= 0 and script.failed_call != WRITE_AT:
                self._soon = b""
            if script.failed >= 0 and script.failed_call == SYNC_FILE:
                await trio.to_thread.run_sync(self._doubt, limiter=self._changes)
            raise

    def _write_removal(self, script: Script) -> None:
        script.calls += [(UNLINK, f"{self._directory}/{name}", None) for name in (STATE, _NEW_STATE)]
        script.calls.append((REMOVE_DIRECTORY, str(self._directory), None))

    def _meet(self, blob: Path, digest: Digest) -> Steps[None]:
        """Commit where the blob is, or was a moment ago."""
        yield from self._sync_steps()
        unsettled = self._disk.open_directory(blob.parent)
        if not self._is_there(blob, digest):
            self._disk.touch(self._directory / DATA)
            self._disk.rename(self._directory / DATA, blob)
            os.fchmod(self._data, 0o444)
        # Also when it was there: who published it may not have come to that, and our client relies on it.
        yield from self._disk.settle_directories(unsettled, changed=blob.parent)
        self._remove()

    def _is_there(self, blob: Path, digest: Digest) -> bool:
        """Whether the blob exists, now promised to stay: its fresh time holds collection off."""
        while True:
            try:
                self._disk.touch(blob)
                return self._disk.stat(str(blob)).st_size == self._offset
            except FileNotFoundError:
                if not aside.take_blob_back(self._disk, self._root, digest):
                    return False

    def _remove(self) -> None:
        for name in (DATA, STATE, _NEW_STATE):
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(self._directory / name)
        with contextlib.suppress(FileNotFoundError):
            self._disk.rmdir(self._directory)


def is_quick_to_close(data: int) -> bool:
    """Not the last hold on unlinked bytes, which take the disk a while to free, and nothing to give back."""
    status = os.fstat(data)
    return status.st_nlink > 0 and not _has_tail(status)


def close_slowly(disk: Disk, data: int) -> None:
    """Close a session's file. What was allocated for a body that did not come goes back to the disk."""
    try:
        status = os.fstat(data)
        if status.st_nlink and _has_tail(status):
            with contextlib.suppress(OSError):
                disk.truncate(data, status.st_size)
    finally:
        os.close(data)


def _has_tail(status: os.stat_result) -> bool:
    """Whether much more is allocated than there are bytes; a blob, which may not be written to, has none."""
    is_session = bool(status.st_mode & stat.S_IWUSR)
    return is_session and status.st_blocks * _SECTOR > status.st_size + _TAIL_BYTES


def create(script: Script, directory: str, saved: Record) -> None:
    """Make a session. It need not outlive a power loss: nothing was promised about it yet.

    So its first record may be torn by one too: who is asked for it then knows of no such session.
    """
    script.enter(os.path.dirname(directory))
    script.calls.append((MAKE_DIRECTORY, directory, None))
    script.calls.append((WRITE_FILE, f"{directory}/{DATA}", b""))
    script.calls.append((WRITE_FILE, f"{directory}/{STATE}", record.encode(saved)))


def save_record(disk: Disk, directory: Path, saved: Record) -> None:
    """By rename, unsynced: after a power loss the older record is as true, only shorter."""
    temporary = directory / _NEW_STATE
    _write_record(disk, temporary, saved)
    disk.rename(temporary, directory / STATE)


def _write_record(disk: Disk, path: Path, saved: Record) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        disk.write_all(descriptor, memoryview(record.encode(saved)), 0)
    finally:
        os.close(descriptor)


def read_record(disk: Disk, directory: Path) -> Record:
    """The session's record, or UploadNotFound."""
    try:
        saved = record.decode(disk.read_file(directory / STATE))
    except (FileNotFoundError, NotADirectoryError):
        saved = None
    if saved is None:
        raise UploadNotFound(directory.name)
    return saved


def lock(directory: Path) -> int:
    """Lock a session without waiting: a descriptor, to be closed. BlockingIOError if it is held.

    Raises UploadNotFound also when the session was removed while we took the lock.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise UploadNotFound(directory.name) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _leads_to(directory, descriptor):
            raise UploadNotFound(directory.name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_data(directory: Path) -> int:
    """The session's bytes, under its lock. UploadNotFound when they were published or never made."""
    try:
        return os.open(directory / DATA, os.O_RDWR)
    except FileNotFoundError:
        raise UploadNotFound(directory.name) from None


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))

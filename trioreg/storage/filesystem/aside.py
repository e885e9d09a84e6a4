"""Moves between a thing's place and where collection has set it aside.

A link waits beside its place under a hidden name, a blob in ``quarantine/``. Setting aside is a rename.
Taking back is a link and an unlink, because a rename would replace what was published again meanwhile, and
with it a fresher time. Only a drop is synced: after a loss of power a thing may be in either place, and is
found in both.

All of it blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from trioreg.oci.digest import Digest
from trioreg.storage import layout
from trioreg.storage.filesystem.changes import finish
from trioreg.storage.filesystem.disk import Disk


def set_aside(disk: Disk, root: Path, key: str) -> bool:
    return _move(disk, root / key, root / layout.aside(key))


def take_back(disk: Disk, root: Path, key: str) -> bool:
    return _take_back(disk, root / layout.aside(key), root / key)


def set_blob_aside(disk: Disk, root: Path, digest: Digest) -> bool:
    target = root / layout.blob_aside(digest)
    finish(disk, disk.make_directory(target.parent))
    return _move(disk, root / layout.blob(digest), target)


def retire_blob(disk: Disk, root: Path, digest: Digest) -> bool:
    source, target = root / layout.blob(digest), root / layout.rotten(digest)
    finish(disk, disk.make_directory(target.parent))
    if not _move(disk, source, target):
        return False
    disk.sync_directory(target.parent)
    disk.sync_directory(source.parent)
    return True


def take_blob_back(disk: Disk, root: Path, digest: Digest) -> bool:
    return _take_back(disk, root / layout.blob_aside(digest), root / layout.blob(digest))


def drop(disk: Disk, path: Path, place: Path) -> bool:
    """Durable, where that matters: bytes may only go when the links to them are gone for good.

    Taking back takes two calls, and ours may come between them: then it is in its place behind ours.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        disk.unlink(path)
        disk.sync_directory(path.parent)
        return not _is_there(disk, place)
    return False


def _is_there(disk: Disk, path: Path) -> bool:
    try:
        disk.stat(str(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _take_back(disk: Disk, source: Path, target: Path) -> bool:
    try:
        disk.link(source, target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except FileExistsError:
        pass
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(source)
    return True


def _move(disk: Disk, source: Path, target: Path) -> bool:
    try:
        disk.rename(source, target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True

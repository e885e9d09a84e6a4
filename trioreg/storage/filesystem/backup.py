"""A backup: a copy of a registry's root, with a file that says whether it is whole.

Rules: a backup is a root as well, so all that works on one works on it. Nobody else writes to it
meanwhile (`flock` on its directory). It counts as whole only when the last copy came to its end and was
synced; a restore takes no other, and writes into nothing that holds something already.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trioreg.storage import layout
from trioreg.storage.filesystem.changes import finish
from trioreg.storage.filesystem.copying import Copier, Report
from trioreg.storage.filesystem.disk import Disk

MARKER = "backup.json"
RESTORING = "restore.json"

Tell = Callable[[str, float], None]


class Refused(Exception):
    """What was asked for is not done; the text is one line that says why."""


def backup(source: Path, target: Path, *, verify: bool, link: bool, tell: Tell) -> Report:
    """Bring `target` up to date with the registry at `source`, which may be running.

    Raises Refused, and OSError when the disk fails: then what was copied stays, and the next run goes on.
    """
    _must_be_storage(source)
    _must_be_apart(source, target)
    target.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        if any(target.iterdir()) and not (target / MARKER).exists():
            raise Refused(f"{target} holds something that is not a backup")
        started = time.time()
        _write(target / MARKER, {"whole": False, "started": started})
        report = Copier(source, target, verify=verify, link=link, tell=tell).run()
        _write(
            target / MARKER,
            {"whole": True, "started": started, "ended": time.time(), "source": str(source)}
            | {name: value for name, value in asdict(report).items() if name != "named"},
        )
    return report


def restore(source: Path, target: Path, *, verify: bool, link: bool, tell: Tell) -> Report:
    """Make a root at `target`, which must hold nothing, from the backup at `source`. Raises as `backup`."""
    marker = _read(source / MARKER)
    if marker is None:
        raise Refused(f"{source} is no backup: it has no {MARKER}")
    if not marker.get("whole"):
        raise Refused(f"{source} is not whole: its last backup did not come to its end; run it again")
    _must_be_apart(source, target)
    target.mkdir(parents=True, exist_ok=True)
    with _alone(source), _alone(target):
        if not (target / RESTORING).exists() and (found := _first_file(target)) is not None:
            raise Refused(f"{target} is not empty: it has {found}")
        _write(target / RESTORING, {"source": str(source), "started": time.time()})
        report = Copier(source, target, verify=verify, link=link, tell=tell).run()
        (target / RESTORING).unlink()
        Disk().sync_directory(target)
    return report


def _must_be_storage(path: Path) -> None:
    if not (path / layout.BLOBS).is_dir():
        raise Refused(f"{path} holds no registry")


def _must_be_apart(source: Path, target: Path) -> None:
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise Refused(f"{target} and {source} must not lie in one another")


def _first_file(root: Path) -> Path | None:
    """A file below a root that a server would miss; empty folders, locks and notes of upkeep are nothing."""
    for directory, folders, files in os.walk(root):
        if Path(directory) == root:
            folders[:] = [name for name in folders if name not in (layout.LOCKS, layout.UPKEEP, "lost+found")]
        if files:
            return Path(directory) / files[0]
    return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{path} is in use by another backup or restore") from None
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, values: dict[str, Any]) -> None:
    disk = Disk()
    finish(disk, disk.replace_file(path, json.dumps(values).encode() + b"\n"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return values if isinstance(values, dict) else None

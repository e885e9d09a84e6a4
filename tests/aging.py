"""Time that passes in a storage: every time in it goes back."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import msgspec

from trioreg.storage import record
from trioreg.storage.memory import MemoryStorage


def age(storage: object, seconds: float) -> None:
    """Let everything that is in a storage be so much older."""
    if isinstance(storage, MemoryStorage):
        for key in storage.times:
            storage.times[key] -= seconds
        for session in storage.sessions.values():
            session.info = dataclasses.replace(session.info, started=session.info.started - seconds)
        return
    root: Path = storage._root  # type: ignore[attr-defined]  # there is no other way to ask for it
    age_files(root, seconds)


def age_files(root: Path, seconds: float) -> None:
    """The same of the directory of a storage, where others may be at work."""
    for folder in ("blobs", "repositories", "quarantine"):
        for above, _, names in os.walk(root / folder):
            for name in names:
                path = Path(above, name)
                try:
                    status = path.stat()
                    os.utime(path, (status.st_atime, status.st_mtime - seconds))
                except FileNotFoundError:
                    continue
    for state in (root / "uploads").glob("*/state"):
        content = state.read_bytes()
        if not content:
            continue  # killed while the session was made: there is none yet
        saved = record.decode(content)
        assert saved is not None
        state.write_bytes(record.encode(msgspec.structs.replace(saved, started=saved.started - seconds)))

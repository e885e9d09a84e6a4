"""Counting what is stored: blobs and their bytes, and the bytes that all links to them add up to.

Rule: it never takes more than a tenth of a processor and keeps nothing but sums, however many blobs there
are. What comes or goes meanwhile may be counted or not.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

from trioreg.oci.digest import ALGORITHMS
from trioreg.storage import layout
from trioreg.storage.filesystem.disk import storage_errors

# Bytes up to which a blob belongs to a class of size; the last class has no end.
SIZE_BOUNDS = (4 * 2**10, 64 * 2**10, 2**20, 16 * 2**20, 256 * 2**20, 4 * 2**30)

_WORK_SECONDS = 0.02
_REST_SECONDS = 0.18


@dataclass(slots=True)
class Census:
    """`stored`: bytes in blobs. `linked`: the same with each blob as often as a repository links it."""

    blobs: list[int] = field(default_factory=lambda: [0] * (len(SIZE_BOUNDS) + 1))
    stored: int = 0
    linked: int = 0


async def take_census(root: Path) -> Census:
    """Count everything below `root`; takes its time. Raises StorageError."""
    census = Census()
    steps = _steps(root, census)
    with storage_errors("counting blobs"):
        more = True
        while more:
            more = await trio.to_thread.run_sync(_work, steps)
            await trio.sleep(_REST_SECONDS if more else 0)
    return census


def _work(steps: Iterator[None]) -> bool:
    """Go on for a moment; whether there is more."""
    until = time.monotonic() + _WORK_SECONDS
    return any(time.monotonic() >= until for _ in steps)


def _steps(root: Path, census: Census) -> Iterator[None]:
    """Counts one blob, or one link, a step."""
    for algorithm in ALGORITHMS:
        for prefix in _entries(root / layout.BLOBS / algorithm):
            for blob in _entries(Path(prefix.path)):
                size = _size(blob.path)
                census.blobs[bisect_left(SIZE_BOUNDS, size)] += 1
                census.stored += size
                yield
    yield from _links(root, root / layout.REPOSITORIES, census)


def _links(root: Path, below: Path, census: Census) -> Iterator[None]:
    """Of a repository and those whose names begin with its own."""
    for each in _entries(below):
        path = Path(each.path)
        if each.name == "_layers":
            yield from _linked(root, path, census)
        elif each.name == layout.MANIFESTS:
            yield from _linked(root, path / "revisions", census)
        elif not each.name.startswith("_"):
            yield from _links(root, path, census)
        yield


def _linked(root: Path, links: Path, census: Census) -> Iterator[None]:
    for algorithm in _entries(links):
        for link in _entries(Path(algorithm.path)):
            census.linked += _size(f"{root}/{layout.BLOBS}/{algorithm.name}/{link.name[:2]}/{link.name}")
            yield


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a directory, but for temporary files; nothing if it is gone."""
    try:
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0

"""Every driver in turn, and the check that a test left nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from trioreg.registry import Storage
from trioreg.storage.filesystem import FilesystemStorage
from trioreg.storage.memory import MemoryStorage

MARKS = "/locks/removals"


def descriptors() -> list[str]:
    """What this process has open below a test's directory, or as a file that is gone."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # the listing's own
    # Marks of removals stay mapped for as long as a storage is there, and a mapping holds a descriptor.
    kept = ("/dev", "/proc")
    return [
        each for each in found if each.startswith("/") and not each.startswith(kept) and MARKS not in each
    ]


def hidden(root: Path) -> list[Path]:
    """Temporary files: no name of ours begins with a dot."""
    return list(root.rglob(".*"))


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty directory; afterwards no temporary file is in it and no descriptor of it is open."""
    before = descriptors()
    yield tmp_path / "root"
    assert hidden(tmp_path) == []
    assert sorted(descriptors()) == sorted(before)


@pytest.fixture(params=["filesystem", "memory"])
def storage(request: pytest.FixtureRequest, root: Path) -> Storage:
    """An empty storage of each driver."""
    return FilesystemStorage(root) if request.param == "filesystem" else MemoryStorage()


@pytest.fixture
def files(root: Path) -> FilesystemStorage:
    return FilesystemStorage(root)

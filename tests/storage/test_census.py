"""Counting what is stored: blobs by size, their bytes, and what all links add up to."""

from __future__ import annotations

from pathlib import Path

import trio
from blackbox import Server, image, push_blob, push_manifest

from trioreg.metrics import cells, table
from trioreg.server.inside.stored import count
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.census import SIZE_BOUNDS, Census, take_census


async def test_an_empty_storage(tmp_path: Path) -> None:
    """Nothing is counted, and nothing is divided by it."""
    FilesystemStorage(tmp_path, Disk(durable=False))
    assert await take_census(tmp_path) == Census()


def test_links_count_as_often_as_they_are(tmp_path: Path) -> None:
    """A blob in two repositories is stored once; a manifest is a blob too; what was unlinked is stored."""
    large = bytes(100_000)
    manifest = image(b"{}", [large])
    with Server(tmp_path) as server:
        push_manifest(server, "some/name", manifest, "latest")
        push_blob(server, "some/name/below", large)
        push_blob(server, "other", b"alone")
        assert (
            server.request("DELETE", f"/v2/other/blobs/{push_blob(server, 'other', b'alone')}").status == 202
        )
    census = trio.run(take_census, tmp_path / "storage")
    sizes = [len(large), len(manifest.body), len(b"{}"), len(b"alone")]
    assert census.stored == sum(sizes)
    assert census.linked == sum(sizes) + len(large) - len(b"alone")
    assert sum(census.blobs) == 4
    assert census.blobs[2] == 1  # of up to 1 MiB


def test_classes_have_names() -> None:
    """Each bound has its label, and so has what is larger."""
    names = [f"{bound // 2**10}KiB" for bound in SIZE_BOUNDS[:2]]
    names += [f"{bound // 2**20}MiB" for bound in SIZE_BOUNDS[2:5]] + [f"{SIZE_BOUNDS[5] // 2**30}GiB"]
    assert (*names, "larger") == table.SIZES


async def test_the_census_is_shown(tmp_path: Path) -> None:
    """Sums and ratio are gauges, which all workers share."""
    storage = FilesystemStorage(tmp_path, Disk(durable=False))
    cells.open_slots(1)
    await count(tmp_path)
    assert table.DEDUP_RATIO.total(0) == table.DEDUP_RATIO.unit
    assert table.COUNTED_AT.total(0) > 0
    assert table.STORED_BYTES.total(0) == 0
    assert storage is not None

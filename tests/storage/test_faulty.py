"""The disk that fails where a file says."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from trioreg.storage.filesystem.disk import Disk
from trioreg.storage.filesystem.faulty import CALLS, FaultyDisk


def test_strikes_once_and_counts_anew_with_each_file(tmp_path: Path) -> None:
    """The second rename fails, the third does not; a new file begins to count again."""
    faults, disk = tmp_path / "faults", FaultyDisk(tmp_path / "faults")
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    for number in (errno.EIO, errno.ENOSPC):
        (tmp_path / "new").write_text(f"rename 2 {errno.errorcode[number]}")
        (tmp_path / "new").rename(faults)
        disk.rename(one, two)
        with pytest.raises(OSError) as failed:  # noqa: PT011 (its number is looked at)
            disk.rename(two, one)
        assert failed.value.errno == number
        disk.rename(two, one)
    faults.unlink()
    disk.rename(one, two)


@pytest.mark.parametrize("line", ["", "rename", "rename x EIO", "rename 1 EWHAT", "jump 1 EIO", "a b c d"])
def test_a_line_that_is_no_fault(tmp_path: Path, line: str) -> None:
    """Nothing fails."""
    (tmp_path / "faults").write_text(line)
    FaultyDisk(tmp_path / "faults").mkdir(tmp_path / "made")
    assert (tmp_path / "made").is_dir()


def test_every_name_is_a_call_of_the_disk() -> None:
    """So none of them is armed in vain."""
    assert all(callable(getattr(Disk, name)) for name in CALLS)
    assert all(getattr(FaultyDisk, name) is not getattr(Disk, name) for name in CALLS)

"""The queue on the disk: order, cursor, segments, and what a death leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trioreg.events import spool
from trioreg.events.spool import Spool


def drain(queue: Spool) -> list[bytes]:
    lines = []
    while (line := queue.next()) is not None:
        lines.append(line)
        queue.done()
    return lines


def die(queue: Spool) -> None:
    """What the end of a process does: its locks and descriptors go, its files stay."""
    for descriptor in (queue._output, queue._mark, queue._lock):
        if descriptor >= 0:
            os.close(descriptor)


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    """Across reads and segments; delivered segments are removed, and nothing is left at the end."""
    queue = spool.create(tmp_path, durable=False)
    lines = [b"%06d " % number + b"x" * 900 for number in range(3000)]
    for line in lines:
        assert queue.write(line + b"\n") == len(line) + 1
    assert queue.size == sum(len(line) + 1 for line in lines)
    assert len(list(queue.directory.glob("*.jsonl"))) == 3
    assert drain(queue) == lines
    assert queue.size == 0
    assert len(list(queue.directory.glob("*.jsonl"))) == 1
    queue.close()
    assert list(tmp_path.iterdir()) == []


def test_reading_follows_writing(tmp_path: Path) -> None:
    """What is written later is found; an empty queue says so and can go on."""
    queue = spool.create(tmp_path, durable=True)
    assert queue.next() is None
    for number in range(5):
        queue.write(b"%d\n" % number)
        assert queue.next() == b"%d" % number
        assert queue.next() == b"%d" % number, "until it is done"
        queue.done()
        assert queue.next() is None
    queue.close()


@pytest.mark.parametrize("delivered", [0, 1, 40, 99, 100])
def test_an_orphan_goes_on_where_it_was(tmp_path: Path, delivered: int) -> None:
    """Its owner died after so many deliveries: the others come, none twice."""
    queue = spool.create(tmp_path, durable=False)
    lines = [b"%d" % number for number in range(100)]
    queue.write(b"".join(line + b"\n" for line in lines))
    for _ in range(delivered):
        assert queue.next() is not None
        queue.done()
    assert list(spool.adopt(tmp_path, durable=False)) == [], "it is alive"
    size = queue.size
    die(queue)
    [orphan] = spool.adopt(tmp_path, durable=False)
    assert orphan.size == size
    assert drain(orphan) == lines[delivered:]
    orphan.close()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_line_was_never_promised(tmp_path: Path) -> None:
    """What a death in the middle of a write leaves is not delivered."""
    queue = spool.create(tmp_path, durable=False)
    queue.write(b"whole\nto")
    die(queue)
    [orphan] = spool.adopt(tmp_path, durable=False)
    assert drain(orphan) == [b"whole"]
    orphan.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cursor", [b"", b"\0" * 32, b"0000000001 "])
def test_a_torn_cursor_means_again(tmp_path: Path, cursor: bytes) -> None:
    """After a loss of power: rather twice than never."""
    queue = spool.create(tmp_path, durable=False)
    queue.write(b"a\nb\n")
    queue.next()
    queue.done()
    die(queue)
    (queue.directory / "cursor").write_bytes(cursor)
    [orphan] = spool.adopt(tmp_path, durable=False)
    assert drain(orphan) == [b"a", b"b"]
    orphan.close()


def test_a_cursor_of_a_segment_that_is_gone(tmp_path: Path) -> None:
    """Killed between the end of a segment and the cursor: it goes on with the next segment."""
    queue = spool.create(tmp_path, durable=False)
    queue.write(b"a\n")
    queue._begin_segment()
    queue.write(b"b\n")
    die(queue)
    (queue.directory / "0000000001.jsonl").unlink()
    [orphan] = spool.adopt(tmp_path, durable=False)
    assert drain(orphan) == [b"b"]
    orphan.close()

"""Lines that are written together."""

from __future__ import annotations

import threading

import trio
from trio.testing import wait_all_tasks_blocked

from trioreg.events import batches
from trioreg.events.batches import Batches


async def test_who_waits_shares_the_write() -> None:
    """While the disk is busy with the first line the others gather, and are written in one go, in order."""
    go, written = threading.Event(), []

    def write(data: bytes) -> int:
        go.wait()
        written.append(data)
        return len(data)

    subject = Batches(write, "x")
    async with trio.open_nursery() as nursery:
        for number in range(10):
            assert subject.add(b"%d\n" % number)
            nursery.start_soon(subject.flush)
            if number == 0:
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        go.set()
    assert written == [b"0\n", b"".join(b"%d\n" % number for number in range(1, 10))]
    assert subject.waiting == 0


async def test_a_disk_that_refuses_loses_nothing() -> None:
    """What was not written waits, and goes before what comes later; a part is not written twice."""
    answers: list[int | OSError] = [OSError(28, "No space left"), 3]
    out = bytearray()

    def write(data: bytes) -> int:
        answer = answers.pop(0) if answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        out.extend(data[:answer])
        return answer

    subject = Batches(write, "x")
    assert subject.add(b"abc\ndef\n")
    assert not await subject.flush()
    assert not await subject.flush()
    assert subject.add(b"ghi\n")
    assert await subject.flush()
    assert out == b"abc\ndef\nghi\n"


async def test_memory_is_bounded() -> None:
    """Lines beyond the limit are refused and counted."""
    subject = Batches(len, "x")
    line = b"x" * 1023 + b"\n"
    assert all(subject.add(line) for _ in range(batches.LIMIT // 1024))
    assert not subject.add(b"\n")
    assert subject.lost == 1
    await subject.flush()
    assert subject.add(line)

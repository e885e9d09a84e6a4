"""What Python allocates for a megabyte that is uploaded: a copy that sneaks in shows.

Every step of a task is looked at by itself: by how much the traced memory stood above where the step began.
The sum of that over an upload counts every buffer that a step makes, also one that it drops again (of two
that one step makes one after the other, the larger). Blocks of the budget are mappings, which are not traced.
"""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from blackbox import digest_of, seeded_bytes
from inprocess import KIB, MIB, InProcess, serving

from trioreg.storage.filesystem import Disk, FilesystemStorage

SIZE = 16 * MIB
MEGABYTES = SIZE / 1e6
CONTENT = seeded_bytes("allocation budget", SIZE)
FRAME = 32 * KIB  # docker's chunks


class Steps(trio.abc.Instrument):
    """The sum over steps of the memory each took above its beginning, in bytes."""

    def __init__(self) -> None:
        self.total = 0
        self._begin = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        tracemalloc.reset_peak()
        self._begin = tracemalloc.get_traced_memory()[0]

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.total += max(tracemalloc.get_traced_memory()[1] - self._begin, 0)


def send(port: int, head: str, body: bytes) -> bytes:
    """A request from a thread, through one socket that copies nothing; the head of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(head.encode())
        sock.sendall(body)
        return sock.recv(4 * KIB)


def plain(location: str) -> tuple[str, bytes]:
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {SIZE}\r\n\r\n"
    return head, CONTENT


def chunked(location: str) -> tuple[str, bytes]:
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    frames = (CONTENT[at : at + FRAME] for at in range(0, SIZE, FRAME))
    return head, b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames) + b"0\r\n\r\n"


async def allocated(server: InProcess, shape: Callable[[str], tuple[str, bytes]]) -> float:
    """Bytes for each megabyte of one PATCH, whose content must have arrived."""
    location = await server.start_upload()
    head, body = shape(location)
    answer: list[bytes] = []
    thread = threading.Thread(target=lambda: answer.append(send(server.port, head, body)))
    steps = Steps()
    tracemalloc.start()
    trio.lowlevel.add_instrument(steps)
    try:
        thread.start()
        await trio.to_thread.run_sync(thread.join)
    finally:
        trio.lowlevel.remove_instrument(steps)
        tracemalloc.stop()
    assert answer[0].startswith(b"HTTP/1.1 202 "), answer
    done = await server.request("PUT", f"{location}?digest={digest_of(CONTENT)}")
    assert done.status == 201
    return steps.total / MEGABYTES


# Bytes of Python's own for each megabyte that comes in; what this test saw on Python 3.11 beside them. A copy
# more is 1,000,000.
BUDGETS: list[tuple[str, Callable[[str], tuple[str, bytes]], int]] = [
    ("direct", plain, 100_000),  # 28,000: from the socket into the block, nothing is copied
    ("direct", chunked, 1_300_000),  # 1,043,000: one read buffer, out of which chunks are copied
    ("quart", plain, 2_600_000),  # 2,110,000: the read, and the message made of it
]


@pytest.mark.parametrize(("front", "shape", "budget"), BUDGETS)
async def test_allocation_budget(
    front: str, shape: Callable[[str], tuple[str, bytes]], budget: int, tmp_path: Path
) -> None:
    """A megabyte that is uploaded costs as many copies as its way has, and not one more."""
    async with serving(FilesystemStorage(tmp_path, Disk(durable=False)), front) as server:
        await allocated(server, shape)  # the first fills caches
        assert await allocated(server, shape) < budget


async def test_a_copy_that_is_dropped_at_once_is_seen() -> None:
    """The measure itself: a step that copies a megabyte and forgets it counts a megabyte."""
    content = memoryview(bytearray(MIB))
    steps = Steps()
    tracemalloc.start()
    trio.lowlevel.add_instrument(steps)
    try:
        await trio.lowlevel.checkpoint()
        assert len(bytes(content)) == MIB
        await trio.lowlevel.checkpoint()
    finally:
        trio.lowlevel.remove_instrument(steps)
        tracemalloc.stop()
    assert MIB < steps.total < MIB + 64 * KIB

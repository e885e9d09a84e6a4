"""Bodies: unique by name, what their digest says, the same bytes however they are sent."""

import hashlib
import socket
from collections.abc import Iterator

import pytest

from perf.bodies import CYCLE, FRAME, UNIQUE, Body, Digests, Source

SIZES = [0, 1, UNIQUE, FRAME, FRAME + UNIQUE - 1, FRAME + UNIQUE, CYCLE + 5 * FRAME + 777]


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with Source() as shared:
        yield shared


def sent(source: Source, body: Body, *, chunked: bool) -> bytes:
    """All that leaves for a body, through a real socket pair."""
    wire = source.wire(body, chunked=chunked)
    left, right = socket.socketpair()
    received = bytearray()
    with left, right:
        position = 0
        while position < wire.length:
            count = wire.send(left.fileno(), position, 64 << 10)
            position += count
            received += right.recv(count, socket.MSG_WAITALL)
    return bytes(received)


def unframed(coded: bytes) -> bytes:
    """The content of a chunked body; fails unless it ends with the last chunk and nothing more."""
    content = bytearray()
    while True:
        size, _, coded = coded.partition(b"\r\n")
        length = int(size, 16)
        content += coded[:length]
        assert coded[length : length + 2] == b"\r\n"
        coded = coded[length + 2 :]
        if length == 0:
            assert coded == b""
            return bytes(content)


@pytest.mark.parametrize("size", SIZES)
def test_digest_is_that_of_the_bytes_sent(source: Source, size: int) -> None:
    """Sent plain or chunked, a body has its size and hashes to the digest it is pushed under."""
    body = Body("one", size)
    plain = sent(source, body, chunked=False)
    assert len(plain) == size
    assert Digests(source).of(body) == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert unframed(sent(source, body, chunked=True)) == plain


@pytest.mark.parametrize("size", [UNIQUE, FRAME + UNIQUE, 10 * FRAME])
def test_two_names_are_two_blobs(source: Source, size: int) -> None:
    """A body depends on its name, and on nothing else."""
    digests = Digests(source)
    assert digests.of(Body("a", size)) != digests.of(Body("b", size))
    assert digests.of(Body("a", size)) == Digests(source).of(Body("a", size))


def test_a_pull_is_compared_at_every_position(source: Source) -> None:
    """The right bytes match wherever they start; one wrong bit, or one byte too many, does not."""
    body = Body("pulled", CYCLE + 3 * FRAME + 100)
    content = sent(source, body, chunked=False)
    for start in (0, 1, FRAME - 1, CYCLE - 10, CYCLE + 1, body.bulk - 1, body.bulk, body.size - 1):
        piece = bytearray(content[start : start + 256 * 1024])
        assert source.matches(body, start, piece)
        piece[-1] ^= 1
        assert not source.matches(body, start, piece)
    assert not source.matches(body, body.size - 1, bytearray(content[-1:] + b"x"))

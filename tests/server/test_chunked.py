"""`server.chunked` against tables, every way to cut its input, and h11.

The rule shown here: content and end are those that h11 finds, however the bytes arrive and are taken, and
what h11 refuses is refused. We refuse more: a bare LF after a size, sizes of more than 15 digits, white
space behind a size, control characters in extensions, lines over 4 KiB and trailers over 16 KiB. One thing
h11 refuses and we do not: white space before the semicolon of an extension (RFC 9112, 7.1.1: BWS).
"""

from __future__ import annotations

import h11
import pytest
import trio
from fuzzing import examples
from hypothesis import example, given
from hypothesis import strategies as st

from trioreg.pipeline.budget import Share
from trioreg.server.chunked import BadChunk, ChunkDecoder
from trioreg.server.lane_body import ChunkedBody

from .test_fuzz import ScriptedWire

KIB = 1024

GOOD: dict[str, tuple[bytes, bytes]] = {
    "empty": (b"0\r\n\r\n", b""),
    "one": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two": (b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
    "upper and lower case": (b"A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n", b"0123456789abcdefghij"),
    "leading zeros": (b"0005\r\nhello\r\n00\r\n\r\n", b"hello"),
    "content that looks like the coding": (b"7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n\r\n"),
    "extension": (b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello"),
    "quoted extension": (b'5;a="b;c"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "extension with white space": (b"5 ;\ta = b\r\nhello\r\n0\r\n\r\n", b"hello"),
    "empty extension": (b"5;\r\nhello\r\n0\r\n\r\n", b"hello"),
    "trailers": (b"5\r\nhello\r\n0\r\nX: a\r\nY: b\r\n\r\n", b"hello"),
}

BAD: dict[str, bytes] = {
    "empty size": b"\r\nhello\r\n0\r\n\r\n",
    "no hexadecimal": b"g\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "space before": b" 5\r\nhello\r\n0\r\n\r\n",
    "space behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "sixteen digits": b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    "overflow of 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "bare LF": b"5\nhello\r\n0\r\n\r\n",
    "bare CR": b"5\rhello\r\n0\r\n\r\n",
    "two CRs": b"5\r\r\nhello\r\n0\r\n\r\n",
    "bare LF after an extension": b"5;a\nhello\r\n0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "chunk too long": b"4\r\nhello\r\n0\r\n\r\n",
    "chunk too short": b"6\r\nhello\r\n0\r\n\r\n",
    "no end of the chunk": b"5\r\nhello0\r\n\r\n",
    "bare CR as a trailer": b"0\r\n\rX: a\r\n\r\n",
    "bare CR in a trailer": b"0\r\nX: a\rb\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "no colon in a trailer": b"0\r\nGET /v2/ HTTP/1.1\r\n\r\n",
    "LF as the end of the chunk": b"5\r\nhello\n0\r\n\r\n",
    "bare LF after a trailer": b"0\r\nX: a\n\r\n",
    "bare LF as the end": b"0\r\n\n",
    "a second body": b"5\r\nhello\r\n\r\n0\r\n\r\n",
}


def decode(*pieces: bytes, room: int = 4 * KIB) -> tuple[bytes, bool, bytes]:
    """Content, whether it ended, and what is left, of bytes that arrive in pieces."""
    decoder, content = ChunkDecoder(), b""
    for number, piece in enumerate(pieces):
        decoder.feed(piece)
        content += take(decoder, room)
        if decoder.ended:
            return content, True, decoder.rest() + b"".join(pieces[number + 1 :])
    return content, False, b""


def take(decoder: ChunkDecoder, room: int) -> bytes:
    """All that is there, through a buffer of `room` bytes."""
    buffer, content = bytearray(room), b""
    while decoder.available:
        count = decoder.take(memoryview(buffer))
        assert 0 < count <= room
        content += buffer[:count]
    decoder.check()
    return content


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    """Content and end; what follows is left, in whatever two pieces it comes and through any buffer."""
    coded, content = GOOD[name]
    following = b"GET /v2/ HTTP/1.1\r\n"
    both = coded + following
    for room in (1, 3, 4 * KIB):
        for cut in range(len(both) + 1):
            assert decode(both[:cut], both[cut:], room=room) == (content, True, following)
        assert decode(*(both[at : at + 1] for at in range(len(both))), room=room) == (
            content,
            True,
            following,
        )


@pytest.mark.parametrize("name", GOOD)
def test_unfinished(name: str) -> None:
    """No beginning of a body is taken for the whole."""
    coded, content = GOOD[name]
    for cut in range(len(coded)):
        got, ended, _ = decode(coded[:cut])
        assert not ended
        assert content.startswith(got)


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    """Refused in one piece and byte by byte, and the content is never more than was there."""
    coded = BAD[name]
    with pytest.raises(BadChunk):
        decode(coded)
    with pytest.raises(BadChunk):
        decode(*(coded[at : at + 1] for at in range(len(coded))))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "unfinished"])
@pytest.mark.parametrize(
    ("before", "allowed"), [(b"5;", 4 * KIB - 4), (b"5\r\nhello\r\n0;", 4 * KIB - 6)], ids=["first", "later"]
)
def test_a_long_size_line(before: bytes, allowed: int, whole: bool) -> None:
    """Extensions are bounded, though their line never ends."""
    decode(before + b"x" * allowed + b"\r\n")
    with pytest.raises(BadChunk):
        decode(before + b"x" * (allowed + 10) + (b"\r\n" if whole else b""))


def test_long_trailers() -> None:
    """One line is bounded, and all of them."""
    with pytest.raises(BadChunk):
        decode(b"0\r\nx:" + b"x" * 5 * KIB)
    many = [b"X: %s\r\n" % (b"x" * KIB)] * 15
    assert decode(b"0\r\n", *many, b"\r\n")[1]
    with pytest.raises(BadChunk):
        decode(b"0\r\n", *many, *many)


def test_a_large_chunk_is_given_as_it_comes() -> None:
    """The decoder keeps what was fed and no more; a size of 2**59 costs nothing."""
    decoder = ChunkDecoder()
    decoder.feed(b"%x\r\n" % 2**59)
    buffer = memoryview(bytearray(64 * KIB))
    for _ in range(20):
        assert decoder.available == 0
        decoder.feed(bytes(64 * KIB))
        assert decoder.available == 64 * KIB
        assert decoder.take(buffer[:1000]) == 1000
        assert decoder.take(buffer) == 64 * KIB - 1000
        assert decoder.take(buffer) == 0
    assert not decoder.ended


def test_nothing_is_taken_into_no_room() -> None:
    """An empty buffer changes nothing."""
    decoder = ChunkDecoder()
    decoder.feed(b"5\r\nhello\r\n0\r\n\r\n")
    assert decoder.take(memoryview(bytearray())) == 0
    assert take(decoder, 100) == b"hello"
    assert decoder.ended


chunks = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=40),
        st.sampled_from([b"", b";a", b';b="c"', b"; d=e"]),
        st.sampled_from([b"%x", b"%X", b"000%x"]),
    ),
    max_size=8,
)
cuts = st.lists(st.integers(0, 600), max_size=8)


def encode(written: list[tuple[bytes, bytes, bytes]], trailers: bytes) -> bytes:
    coded = [form % len(data) + extension + b"\r\n" + data + b"\r\n" for data, extension, form in written]
    return b"".join(coded) + b"0\r\n" + trailers + b"\r\n"


def cut_up(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


@examples(300)
@given(chunks, st.sampled_from([b"", b"X: a\r\n"]), st.binary(max_size=20), cuts, st.integers(1, 50))
def test_any_chunking(
    written: list[tuple[bytes, bytes, bytes]], trailers: bytes, following: bytes, places: list[int], room: int
) -> None:
    """The content comes back, however it was cut into chunks, reads and buffers."""
    content = b"".join(data for data, _, _ in written)
    pieces = cut_up(encode(written, trailers) + following, places)
    assert decode(*pieces, room=room) == (content, True, following)


nasty = st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b"0", b"f", b";", b"\0", b"x", b"-", b"\x80"])
edits = st.lists(st.tuples(st.booleans(), st.floats(0, 1), nasty), max_size=3)


@examples(400)
@given(chunks, st.sampled_from([b"", b"X: a\r\n"]), edits, st.binary(max_size=20), cuts)
@example([(b"a", b"", b"%x")], b"", [(False, 0.2, b"\n")], b"", [])
def test_what_we_accept_h11_reads_the_same(
    written: list[tuple[bytes, bytes, bytes]],
    trailers: bytes,
    changes: list[tuple[bool, float, bytes]],
    following: bytes,
    places: list[int],
) -> None:
    """Bodies bent here and there: same content, same end, same rest; or refused by us."""
    coded = encode(written, trailers)
    for insert, where, piece in changes:
        at = int(where * len(coded))
        coded = coded[:at] + piece + coded[at + (0 if insert else len(piece)) :]
    check_against_h11(coded + following, places)


@examples(300)
@given(st.binary(max_size=60), cuts)
@example(b"5\r\nhello\r\n0\r\n\r\n", [])
def test_any_bytes(coded: bytes, places: list[int]) -> None:
    """Nothing but BadChunk is raised."""
    check_against_h11(coded, places)


def check_against_h11(coded: bytes, places: list[int]) -> None:
    try:
        content, ended, rest = decode(*cut_up(coded, places))
    except BadChunk:
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + coded)
    assert isinstance(peer.next_event(), h11.Request)
    theirs = b""
    try:
        while isinstance(event := peer.next_event(), h11.Data):
            theirs += event.data
    except h11.RemoteProtocolError:
        if b" ;" in coded or b"\t;" in coded:
            return
        raise
    assert theirs == content
    assert isinstance(event, h11.EndOfMessage) == ended
    if ended:
        assert peer.trailing_data[0] == rest


def test_one_take_has_an_end() -> None:
    """However much room there is, 256 chunks at a time: a client of tiny ones does not hold everybody up."""
    decoder, buffer, content = ChunkDecoder(), bytearray(64 * KIB), b""
    decoder.feed(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    counts = []
    while decoder.available:
        counts.append(decoder.take(memoryview(buffer)))
        content += buffer[: counts[-1]]
    assert counts == [256, 256, 256, 232]
    assert content == b"x" * 1000
    assert decoder.ended


def test_large_chunks_fill_the_room() -> None:
    """The limit is none for those who send whole ones."""
    decoder, buffer = ChunkDecoder(), bytearray(64 * KIB)
    decoder.feed(b"%x\r\n%s\r\n" % (KIB, bytes(KIB)) * 100)
    assert decoder.take(memoryview(buffer)) == 64 * KIB


@pytest.mark.parametrize("room", [1, 4 * KIB, 256 * KIB])
async def test_tiny_chunks_let_others_run(room: int) -> None:
    """Between two looks at a body that never lets us wait, every other task has its turn."""
    count = 20_000
    wire = ScriptedWire([b"1\r\nx\r\n" * count + b"0\r\n\r\n"])
    body = ChunkedBody(wire, b"", Share(2**40), expects_continue=False)
    turns, buffer = 0, memoryview(bytearray(room))

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    fills = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        while await body.ready():
            body.fill(buffer)
            fills += 1
        nursery.cancel_scope.cancel()
    assert body.received == count
    assert fills >= count / 256
    # As good as one each: at both ends a turn may be missing.
    assert turns >= fills - 2

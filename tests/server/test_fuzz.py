"""The direct lane before bytes that nobody foresaw, on a wire in memory.

The rule shown here: whatever a client sends, and however it is cut up, the lane neither raises nor hangs;
what it says is well-formed HTTP/1.1 (as h11 reads it), answers the requests in their order, and is never
500, because a 500 would be a bug. The registry behind it is the real one, over storage in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import h11
import trio
from fuzzing import examples
from hypothesis import example, given
from hypothesis import strategies as st
from inprocess import KIB, MIB

from trioreg import logs
from trioreg.api import Service
from trioreg.oci.digest import digest_of
from trioreg.oci.names import UploadId
from trioreg.pipeline.budget import Budget, ByteGate, Share
from trioreg.pipeline.engine import best_engine
from trioreg.pipeline.pump import Pump
from trioreg.registry import build_registry
from trioreg.server.lane import Lane, LaneSettings
from trioreg.storage.base import BlobReader
from trioreg.storage.memory import MemoryStorage

# More turns of waiting, reading and sending than any example needs.
STEPS = 20_000


class ScriptedWire:
    """`server.wire.Wire` that brings `pieces` and then the end, and keeps what is sent."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.expires = float("inf")
        self.certificate: str | None = None
        self.sent = bytearray()
        self.closed = False
        self._pieces = [piece for piece in pieces if piece]
        self._left = STEPS

    async def readable(self, until: float | None = None, *, bytes_at_once: int = 1) -> None:
        self._step()
        await trio.lowlevel.checkpoint()

    def receive(self, limit: int) -> bytes | None:
        self._step()
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > limit:
            self._pieces.insert(0, piece[limit:])
        return piece[:limit]

    def receive_into(self, view: memoryview) -> int | None:
        data = self.receive(len(view)) or b""
        view[: len(data)] = data
        return len(data)

    async def send(self, data: bytes) -> None:
        self._step()
        assert not self.closed, "sent after the end"
        self.sent += data

    async def send_blob(self, blob: BlobReader, start: int, end: int, piece: Callable[[], int]) -> None:
        self.sent += await blob.read(start, end - start)

    async def finish(self) -> None:
        self.closed = True

    def be_content(self) -> bool:
        return False

    def abort(self) -> None:
        self.closed = True

    def _step(self) -> None:
        self._left -= 1
        assert self._left > 0, "the lane goes round and round"


@dataclass
class RecordedLog(logs.AccessLog):
    """Method and status of each request."""

    rows: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(enabled=False)

    def record(self, method: str, path: str, status: int, **fields: object) -> None:
        self.rows.append((method, status))


@dataclass
class Talk:
    """What came of it: requests and the status each got, bytes sent, bytes handed to the other front."""

    rows: list[tuple[str, int]]
    sent: bytes
    elsewhere: bytes | None


BLOB = b"0123456789"
DIGEST = digest_of(BLOB)
SESSION = UploadId("11111111-1111-4111-8111-111111111111")
PATH = f"/v2/a/b/blobs/uploads/{SESSION}".encode()


def talk(pieces: Sequence[bytes]) -> Talk:
    """Serve one connection to its end."""
    return trio.run(_talk, pieces, strict_exception_groups=True)


async def _talk(pieces: Sequence[bytes]) -> Talk:
    storage, engine = MemoryStorage(), best_engine()
    registry = build_registry(
        storage,
        storage,
        Pump(Budget(16 * 16 * KIB, 16 * KIB), engine, MIB),
        lease_wait=0.0,
        cache_bytes=MIB,
        manifest_max=64 * KIB,
        manifest_gate=ByteGate(256 * KIB),
    )
    log, wire, handed = RecordedLog(), ScriptedWire(pieces), list[bytes]()
    lane = Lane(Service(registry), Share(MIB), log, LaneSettings(4 * KIB, 60.0), name="fuzz")

    async def elsewhere(unread: bytes) -> None:
        handed.append(unread)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.run)
            setup = ScriptedWire([request(b"POST", b"/v2/a/b/blobs/uploads/?digest=" + NAME, BLOB)])
            await lane.serve(setup, "127.0.0.1", elsewhere)
            assert setup.sent.startswith(b"HTTP/1.1 201 "), setup.sent
            log.rows.clear()
            await lane.serve(wire, "127.0.0.1", elsewhere)
            nursery.cancel_scope.cancel()
    return Talk(log.rows, bytes(wire.sent), handed[0] if handed else None)


NAME = str(DIGEST).encode()


def request(method: bytes, target: bytes, body: bytes = b"", fields: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body or method in (b"PUT", b"PATCH", b"POST") else b""
    return method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n" + length + fields + b"\r\n" + body


def chunked(method: bytes, target: bytes, *parts: bytes, fields: bytes = b"") -> bytes:
    head = method + b" " + target + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + fields
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))
    return head + b"\r\n" + body


def check(found: Talk) -> None:
    """The answers are those that the log names, whole and in order, and nothing else was sent."""
    left = found.sent
    for number, (method, status) in enumerate(found.rows):
        if status == 499:
            # The client left, or broke its own framing; it may have been told to go on before.
            assert number == len(found.rows) - 1
            assert left in (b"", b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        answered, left = first_answer(left, method)
        assert answered == status
    if left:
        # A head that was refused; it is in no log, and its method was never read.
        answered, left = first_answer(left, "GET")
        assert answered in (400, 431, 501)
    assert left == b""
    assert found.elsewhere is None or len(found.elsewhere) > 0


def first_answer(data: bytes, method: str) -> tuple[int, bytes]:
    peer = h11.Connection(h11.CLIENT)
    sent = "GET" if method == "CONNECT" else method
    peer.send(h11.Request(method=sent, target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(data)
    status = 0
    while True:
        event = peer.next_event()
        assert event is not h11.NEED_DATA, data[-200:]
        if isinstance(event, h11.InformationalResponse):
            assert event.status_code == 100
        elif isinstance(event, h11.Response):
            status = event.status_code
            assert status != 500, data[:2000]
            named = {name for name, _ in event.headers}
            assert {b"date", b"x-request-id"} <= named
            assert (b"content-length" in named) == (status not in (204, 304))
        elif isinstance(event, h11.EndOfMessage):
            return status, peer.trailing_data[0]


GET = request(b"GET", b"/v2/")
REQUESTS = [
    GET,
    request(b"HEAD", b"/v2/"),
    request(b"GET", b"/v2/a/b/blobs/" + NAME),
    request(b"GET", b"/v2/a/b/blobs/" + NAME, fields=b"Range: bytes=2-4\r\n"),
    request(b"HEAD", b"/v2/a/b/blobs/" + NAME),
    request(b"GET", b"/v2/a/b/tags/list?n=1"),
    request(b"POST", b"/v2/a/b/blobs/uploads/"),
    request(b"POST", b"/v2/a/b/blobs/uploads/?digest=" + NAME, BLOB),
    request(b"POST", b"/v2/c/d/blobs/uploads/?mount=" + NAME + b"&from=a/b"),
    chunked(b"POST", b"/v2/a/b/blobs/uploads/?digest=" + NAME, BLOB[:3], BLOB[3:]),
    request(b"PATCH", PATH, bytes(100)),
    request(b"PATCH", PATH, bytes(100), b"Expect: 100-continue\r\n"),
    request(b"PUT", b"/v2/a/b/manifests/latest", b'{"schemaVersion":2}'),
    chunked(b"PUT", b"/v2/a/b/manifests/latest", b'{"schemaVersion"', b":2}"),
    request(b"PUT", b"/v2/a/b/manifests/latest", b"{}", b"Connection: close\r\n"),
    request(b"DELETE", b"/v2/a/b/blobs/" + NAME),
    request(b"DELETE", b"/v2/a/b/blobs/" + NAME, b"body"),
    request(b"GET", b"/v2/nothing"),
    request(b"BREW", b"/v2/", b"coffee"),
    request(b"GET", b"/v2/_catalog?n=x"),
    request(b"GET", b"/"),
    request(b"GET", b"/v2/", fields=b"Upgrade: h2c\r\n"),
    b"GET /v2/ HTTP/1.0\r\n\r\n",
    b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v2/a/b/blobs/uploads/?digest=" + NAME + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n",
]
BITS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b":",
    b"0",
    b"9",
    b"\0",
    b"%",
    b"/",
    b"?",
    b"\xff",
    b"chunked",
]

edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "double"]), st.floats(0, 1), st.sampled_from(BITS)
    ),
    max_size=4,
)
cuts = st.lists(st.floats(0, 1), max_size=6)


def bend(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, piece in changes:
        at = int(where * len(data))
        cut = {"insert": 0, "replace": len(piece), "delete": 3, "double": 0}[kind]
        new = {"insert": piece, "replace": piece, "delete": b"", "double": data[at : at + 30]}[kind]
        data = data[:at] + new + data[at + cut :]
    return data


def cut_up(data: bytes, places: list[float]) -> list[bytes]:
    ends = [*sorted(int(place * len(data)) for place in places), len(data)]
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


@examples(200)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=5), edits, cuts)
@example([GET, GET, GET], [], [])
def test_bent_requests(
    requests: list[bytes], changes: list[tuple[str, float, bytes]], places: list[float]
) -> None:
    """Requests of every kind, one after the other, bent here and there."""
    check(talk(cut_up(bend(b"".join(requests), changes), places)))


@examples(100)
@given(st.binary(max_size=300), cuts)
def test_any_bytes(data: bytes, places: list[float]) -> None:
    """Bytes that are no HTTP, alone and after a request."""
    check(talk(cut_up(data, places)))
    check(talk(cut_up(GET + data, places)))


# A client that waits for 100 and one that says close may find the connection closed.
KEEPING = [row for row in REQUESTS[:20] if b"close" not in row and b"Expect" not in row]


@examples(100)
@given(st.lists(st.sampled_from(KEEPING), max_size=6), cuts)
def test_good_requests_are_all_answered(requests: list[bytes], places: list[float]) -> None:
    """So the tests above are not about nothing: each good request gets its answer, however they are cut."""
    whole = talk(cut_up(b"".join(requests), places))
    check(whole)
    assert len(whole.rows) == len(requests)
    assert [method for method, _ in whole.rows] == [row.split(b" ")[0].decode() for row in requests]
    assert all(status != 499 for _, status in whole.rows)


def test_empty_lines_for_ever() -> None:
    """They cost the client its connection, and nobody else a turn."""
    found = talk([b"\r\n" * 8 * KIB] * 1000)
    check(found)
    assert found.sent.startswith(b"HTTP/1.1 431 ")


def test_the_smallest_chunks() -> None:
    """A body in chunks of one byte, of extensions only to look at, and in pieces of one byte."""
    body = chunked(b"PATCH", PATH, *[b"x"] * 2000)
    assert talk([body]).rows == [("PATCH", 404)]
    digest = str(digest_of(b"x" * 500)).encode()
    target = b"/v2/a/b/blobs/uploads/?digest=" + digest
    body = chunked(b"POST", target, *[b"x"] * 500).replace(b"1\r\nx", b"1;" + b"e" * 50 + b"\r\nx")
    assert talk([body]).rows == [("POST", 201)]
    body = chunked(b"POST", target, *[b"x"] * 500) + GET
    assert talk([body[at : at + 1] for at in range(len(body))]).rows == [("POST", 201), ("GET", 200)]

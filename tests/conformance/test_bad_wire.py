"""Bad input below HTTP: clients that vanish, overlap, send too much, or speak another protocol."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from blackbox import Answer, Registry, Server, digest_of

from .content import OCTETS
from .steps import accepted, blob_path, check_error, finish, patch, start_upload
from .test_base import ABSENT, SESSION
from .wire import Closed, Wire

SIZE = 1_500_000

# At and around the edges of a block (1 MiB), of what one read may bring (64 KiB), and the ends.
CUTS = [0, 1, 1000, 65_536, 700_000, 1_048_575, 1_048_576, 1_048_577, SIZE - 1]


def held(server: Registry, location: str) -> tuple[str, int]:
    """Where the session goes on, and the bytes it holds (`0-0`, none or one, counts as one)."""
    status = server.request("GET", location)
    assert status.status == 204, (status.status, status.body)
    return status.headers["Location"], end_of(status)


def end_of(answer: Answer) -> int:
    first, _, last = answer.headers["Range"].partition("-")
    assert first == "0"
    return int(last) + 1


def resume(server: Registry, location: str, blob: bytes) -> tuple[str, int]:
    """Send the rest as a client does: ask, send, and ask again when the place was wrong.

    The next Location, and the offset from which it went on. While the server still takes in what
    the lost client sent, its answer may be old: then 416 tells more. `0-0` cannot tell none from
    one byte, so both are tried.
    """
    location, offset = held(server, location)
    for _ in range(20):
        answer = patch(server, location, blob[offset:], offset)
        if answer.status == 202:
            assert end_of(answer) == len(blob)
            return answer.headers["Location"], offset
        check_error(answer, 416)
        location = answer.headers.get("Location", location)
        offset = 0 if offset == end_of(answer) == 1 else end_of(answer)
    raise AssertionError("the session never took the rest")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("farewell", ["close", "reset"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_client_vanishes(server: Registry, repository: str, cut: int, farewell: str, coding: str) -> None:
    """What arrived is kept and known, never more; the upload goes on from there to a right blob."""
    blob = secrets.token_bytes(SIZE)
    location = start_upload(server, repository)
    with Wire(server) as wire:
        if coding == "length":
            wire.send(wire.head("PATCH", location, {"Content-Length": str(SIZE)}) + blob[:cut])
        else:
            head = wire.head("PATCH", location, {"Transfer-Encoding": "chunked"})
            wire.send(head + b"%x\r\n" % SIZE + blob[:cut])
        if farewell == "reset":
            wire.reset()
    assert held(server, location)[1] <= max(cut, 1)
    location, offset = resume(server, location, blob)
    assert offset <= cut
    answer = finish(server, location, digest_of(blob))
    assert answer.status == 201, answer.body
    assert server.request("GET", blob_path(repository, digest_of(blob))).body == blob


@pytest.mark.parametrize("cut", CUTS)
def test_client_vanishes_in_the_closing_put(server: Registry, repository: str, cut: int) -> None:
    """A PUT that was cut publishes nothing, and the session can still be closed."""
    blob = secrets.token_bytes(SIZE)
    digest = digest_of(blob)
    location = start_upload(server, repository)
    with Wire(server) as wire:
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        wire.send(wire.head("PUT", target, {"Content-Length": str(SIZE)}) + blob[:cut])
    location, offset = resume(server, location, blob)
    assert offset <= cut
    assert server.request("HEAD", blob_path(repository, digest)).status == 404
    assert finish(server, location, digest).status == 201
    assert server.request("GET", blob_path(repository, digest)).body == blob


@pytest.fixture(scope="module")
def impatient_server(
    server: Registry, http_front: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A server that lets a second writer wait for 0.3 seconds only."""
    if not isinstance(server, Server):
        yield server
        return
    home = tmp_path_factory.mktemp("impatient")
    settings = {"upload.lease_wait": "0.3", "http.front": http_front}
    with Server(home, settings=settings) as running:
        yield running


@pytest.mark.parametrize("placed", [True, False], ids=["content-range", "stream"])
def test_two_patches_at_once(impatient_server: Registry, repository: str, placed: bool) -> None:
    """Of two writers of the same bytes one wins, the other gets 416, and the blob is right."""
    server, blob = impatient_server, secrets.token_bytes(400_000)
    location = start_upload(server, repository)
    place = {"Content-Length": str(len(blob)), "Content-Range": f"0-{len(blob) - 1}"}
    with Wire(server) as slow:
        slow.send(slow.head("PATCH", location, place) + blob[:300_000])
        second = patch(server, location, blob, 0 if placed else None)
        slow.send_until_answered(blob[300_000:])
        first = slow.answer("PATCH")
    assert sorted([first.status, second.status]) == [202, 416]
    refused = first if first.status == 416 else second
    check_error(refused, 416)
    assert "Range" in refused.headers
    location, end = held(server, location)
    assert end == len(blob)
    assert finish(server, location, digest_of(blob)).status == 201
    assert server.request("GET", blob_path(repository, digest_of(blob))).body == blob


def test_many_patches_at_once(server: Registry, repository: str) -> None:
    """Eight clients send the same chunk of one session: it is appended once."""
    blob = secrets.token_bytes(200_000)
    location = start_upload(server, repository)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: patch(server, location, blob, 0), range(8)))
    assert sorted(answer.status for answer in answers) == [202] + [416] * 7
    location, _ = held(server, location)
    assert finish(server, location, digest_of(blob)).status == 201


def test_same_blob_at_once(server: Registry, repository: str) -> None:
    """Eight clients push the same blob, each through a session of its own: all succeed."""
    blob = secrets.token_bytes(200_000)

    def push(_: int) -> Answer:
        return finish(server, start_upload(server, repository), digest_of(blob), blob)

    with ThreadPoolExecutor(8) as clients:
        assert [answer.status for answer in clients.map(push, range(8))] == [201] * 8
    assert server.request("GET", blob_path(repository, digest_of(blob))).body == blob


def test_answers_that_come_before_the_body(server: Registry) -> None:
    """Fifty bodies of 2 MiB that nobody wants: each is answered or cut off, and nothing hangs."""
    body = bytes(2 * 1024 * 1024)
    target = f"/v2/some/name/blobs/uploads/{SESSION}?digest={ABSENT}"
    wire, answered = Wire(server), 0
    for _ in range(50):
        try:
            wire.send_until_answered(wire.head("PUT", target, {"Content-Length": str(len(body))}) + body)
            # Not drained: a client that was refused reads the answer and gives up the rest.
            check_error(wire.answer("PUT"), 404, "BLOB_UPLOAD_UNKNOWN")
            answered += 1
        except (Closed, ConnectionError):
            pass
        if not wire.sent_all:
            wire.close()
            wire = Wire(server)
    wire.close()
    assert answered > 0
    assert server.request("GET", "/v2/").status == 200


@pytest.mark.parametrize("kind", ["one-long", "huge", "many", "long-target"])
def test_head_over_the_limit(server: Registry, kind: str) -> None:
    """A head of more than 32 KiB is refused with 4xx and the connection is closed."""
    with Wire(server) as wire:
        if kind == "one-long":
            head = wire.head("GET", "/v2/", {"X-Long": "x" * 36_000})
        elif kind == "huge":
            head = wire.head("GET", "/v2/", {"X-Long": "x" * 1_000_000})
        elif kind == "many":
            head = wire.head("GET", "/v2/", {f"X-{n}": "x" * 40 for n in range(750)})
        else:
            head = wire.head("GET", f"/v2/{'a' * 36_000}/tags/list")
        wire.send_until_answered(head)
        assert wire.answer().status in (400, 414, 431)
        wire.rest()
    assert server.request("GET", "/v2/").status == 200


@pytest.mark.parametrize("size", [8_000, 24_000])
def test_head_within_the_limit(server: Registry, size: int) -> None:
    """A long token is no reason to refuse a client."""
    assert server.request("GET", "/v2/", headers={"X-Long": "x" * size}).status == 200


def test_tls_hello_on_the_plain_port(server: Registry) -> None:
    """docker, podman and skopeo try TLS first: they are answered or cut off at once, not kept."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="registry.example.com"
    )
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with Wire(server) as wire:
        wire.send(outgoing.read())
        answer = wire.rest()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer[:100]
    assert server.request("GET", "/v2/").status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost : a\r\n\r\n",
    ],
)
def test_garbage_instead_of_a_head(server: Registry, garbage: bytes) -> None:
    """What is not HTTP is refused with 4xx or 5xx, or cut off; the connection ends."""
    with Wire(server) as wire:
        wire.send(garbage)
        answer = wire.rest()
    assert answer == b"" or answer.split(b" ")[1][:1] in (b"4", b"5"), answer[:200]


def test_bad_chunk_size_keeps_what_came_before(server: Registry, repository: str) -> None:
    """Broken transfer coding is the end of the connection, not of the session."""
    blob = secrets.token_bytes(2000)
    location = start_upload(server, repository)
    with Wire(server) as wire:
        head = wire.head("PATCH", location, {"Transfer-Encoding": "chunked"})
        wire.send(head + b"3e8\r\n" + blob[:1000] + b"\r\nnonsense\r\n")
        wire.rest()
    location, offset = resume(server, location, blob)
    assert offset <= 1000
    assert finish(server, location, digest_of(blob)).status == 201


def test_expect_continue(server: Registry, repository: str) -> None:
    """A client that waits for `100 Continue` gets it, or the refusal at once."""
    blob = secrets.token_bytes(5000)
    location = start_upload(server, repository)
    expect = {"Expect": "100-continue", "Content-Length": "5000", "Content-Type": OCTETS}
    with Wire(server) as wire:
        wire.send(wire.head("PATCH", location, expect))
        assert wire.status() == 100
        wire.send(blob)
        location = accepted(wire.answer("PATCH"), 5000)
    assert finish(server, location, digest_of(blob)).status == 201

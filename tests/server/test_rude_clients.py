"""Clients that take more than their part, or speak a little differently: they cost themselves, not others."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from blackbox import ANSWER_SECONDS, OCI_INDEX, Server, index
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived
from inprocess import FRONTS, KIB, MIB, Answer, Client, InProcess, serving
from trio.testing import wait_all_tasks_blocked

from trioreg.storage.memory import MemoryStorage

NAME = "some/name"
HERE = f"/v2/{NAME}/manifests"
SETTLED = 0.05
on_both_fronts = pytest.mark.parametrize("front", FRONTS)


@asynccontextmanager
async def registry_on(front: str = "direct") -> AsyncIterator[InProcess]:
    """A server for a test that must not hang."""
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front) as server:
            yield server


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def begin_manifest(client: Client, tag: str) -> None:
    headers = {"Content-Type": OCI_INDEX, "Transfer-Encoding": "chunked"}
    await client.send_head("PUT", f"{HERE}/{tag}", headers)


def check_error(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, (answer, answer.body)
    assert [each["code"] for each in json.loads(answer.body)["errors"]] == [code]


# Manifests.


@on_both_fronts
async def test_two_that_dribble_large_manifests_hold_up_no_small_one(front: str) -> None:
    """Each of the two has the right to hold 4 MB for a while; a manifest of 300 bytes asks for none."""
    async with registry_on(front) as server:
        async with server.connect() as one, server.connect() as another, server.connect() as third:
            for number, client in enumerate((one, another, third)):
                await begin_manifest(client, f"large{number}")
                await client.send(chunk(b'{"annotations":{"a":"' + b"x" * 100 * KIB))
            await wait_all_tasks_blocked(SETTLED)
            small = index([], annotations={"pad": "x" * 200}).body
            for headers in ({"Content-Type": OCI_INDEX}, {"Content-Type": OCI_INDEX, "Expect": "x"}):
                answer = await server.request("PUT", f"{HERE}/small", small, headers)
                assert answer.status == 201, answer.body
            async with server.connect() as client:
                await begin_manifest(client, "chunked")
                await client.send(chunk(small) + b"0\r\n\r\n")
                assert (await client.answer()).status == 201
            assert (await server.request("GET", f"{HERE}/small")).body == small


@on_both_fronts
@pytest.mark.parametrize("size", [64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 4 * MIB - 1, 4 * MIB])
async def test_a_large_manifest_in_chunks(front: str, size: int) -> None:
    """What is read before the gate and behind it are one manifest, up to the limit."""
    frame = len(index([], annotations={"pad": ""}).body)
    manifest = index([], annotations={"pad": "x" * (size - frame)})
    assert len(manifest.body) == size
    async with registry_on(front) as server:
        async with server.connect() as client:
            await begin_manifest(client, "large")
            for start in range(0, size, 256 * KIB):
                await client.send(chunk(manifest.body[start : start + 256 * KIB]))
            await client.send(b"0\r\n\r\n")
            answer = await client.answer()
        assert (answer.status, answer.headers["docker-content-digest"]) == (201, manifest.digest)
        assert (await server.request("GET", f"{HERE}/large")).body == manifest.body


@on_both_fronts
async def test_a_manifest_in_chunks_that_is_too_large(front: str) -> None:
    """One byte more than the limit is noticed, though nobody announced it."""
    async with registry_on(front) as server, server.connect() as client:
        await begin_manifest(client, "large")
        for _ in range(16):
            await client.send(chunk(b" " * 256 * KIB))
        await client.send(chunk(b" "))
        await client.send(b"0\r\n\r\n")
        check_error(await client.answer(), 413, "SIZE_INVALID")


# Heads.


async def test_a_hundred_header_fields() -> None:
    """Far fewer bytes than a head may have, and yet too much: 101 fields are refused, 100 are not."""
    async with registry_on() as server:
        for count, status in ((100, 200), (101, 431)):
            async with server.connect() as client:
                fields = b"".join(b"x%d:\r\n" % number for number in range(count - 1))
                await client.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
                answer = await client.answer()
                assert answer.status == status
                assert (answer.headers.get("connection") == "close") == (status == 431)


@pytest.mark.parametrize(
    "target", ["http://x/v2/", "HTTP://x:5000/v2/", "https://x/v2/", "http://x/v2/?a=//"]
)
async def test_a_target_in_absolute_form(target: str) -> None:
    """What a client of a proxy sends is the same request, and answered by the lane itself."""
    async with registry_on() as server, server.connect() as client:
        for _ in range(2):
            await client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"{}")
            assert answer.headers["x-request-id"].startswith("test-")


async def test_a_query_in_absolute_form() -> None:
    """Path and query are found behind the host."""
    async with registry_on() as server:
        manifest = index([])
        for tag in ("a", "b"):
            await server.request("PUT", f"{HERE}/{tag}", manifest.body, {"Content-Type": OCI_INDEX})
        async with server.connect() as client:
            await client.send(f"GET http://x/v2/{NAME}/tags/list?n=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await client.answer()
            assert json.loads(answer.body)["tags"] == ["a"]
            assert answer.headers["link"] == f'</v2/{NAME}/tags/list?n=1&last=a>; rel="next"'


# Broken chunks.


@pytest.mark.parametrize("apart", [True, False], ids=["later", "at once"])
@pytest.mark.parametrize("broken", [b"ZZ\r\n", b"5 \r\n", b"0\r\nno trailer\r\n\r\n"])
async def test_a_broken_chunk_in_an_upload(broken: bytes, apart: bool) -> None:
    """400, and not silence; what came in the chunks before it is kept, and the upload goes on from there."""
    async with registry_on() as server:
        location = await server.start_upload(NAME)
        async with server.connect() as client:
            await client.send_head("PATCH", location, {"Transfer-Encoding": "chunked"})
            if apart:
                await client.send(chunk(b"hello"))
                await wait_all_tasks_blocked(SETTLED)
                await client.send(broken)
            else:
                await client.send(chunk(b"hello") + broken)
            check_error(await client.answer(), 400, "BLOB_UPLOAD_INVALID")
            assert await client.ended()
        assert (await server.request("GET", location)).headers["range"] == "0-4"


async def test_a_broken_chunk_in_a_manifest() -> None:
    """400 as well, and nothing is stored."""
    async with registry_on() as server:
        async with server.connect() as client:
            await begin_manifest(client, "broken")
            await client.send(chunk(index([]).body) + b"ZZ\r\n")
            assert (await client.answer()).status == 400
            assert await client.ended()
        assert (await server.request("GET", f"{HERE}/broken")).status == 404


# HTTP/2, which is off unless it is asked for.


def said(server: Server, data: bytes) -> bytes:
    """What a server answers to some bytes, until it closes or speaks HTTP/2."""
    with server.connect() as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.sendall(data)
        answer = b""
        try:
            while SETTINGS not in answer and (more := connection.recv(64 * KIB)):
                answer += more
        except ConnectionResetError:
            pass
        return answer


# The first frame of a server that speaks it: of type 4, without flags, for the connection.
SETTINGS = bytes([4, 0, 0, 0, 0, 0])
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
HTTP2_OFF = {
    "preface": PREFACE,
    "preface with a header": PREFACE.replace(b"2.0\r\n", b"2.0\r\nHost: x\r\n"),
    "preface after a request": b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n" + PREFACE,
    "preface elsewhere": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + PREFACE,
    "upgrade": UPGRADE % b"/v2/",
    "upgrade elsewhere": UPGRADE % b"/",
}


QUICK = {"http.idle_timeout": "1", "http.shutdown_grace": "0"}


@pytest.fixture(scope="module")
def without_http2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("http1"), settings=QUICK) as server:
        yield server


@pytest.mark.parametrize("name", HTTP2_OFF)
def test_http2_that_is_off(without_http2: Server, name: str) -> None:
    """A client that begins with it is refused, in HTTP/1.1, whatever it puts before."""
    answer = said(without_http2, HTTP2_OFF[name])
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3})", answer)]
    assert statuses and 101 not in statuses, answer
    assert not name.startswith("preface") or statuses[-1] in (400, 404, 505)
    assert SETTINGS not in answer


@on_both_fronts
@pytest.mark.parametrize("path", ["/v2/", "/elsewhere"])
async def test_a_websocket_is_refused(front: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing here speaks it: the lane ignores the wish (RFC 9110, 7.8), Hypercorn refuses it; no trace."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with registry_on(front) as server:
        answer = await server.request("GET", path, headers=upgrade)
        assert answer.status == (200 if (front, path) == ("direct", "/v2/") else 403)
        assert (await server.request("GET", "/v2/")).status == 200
    assert not [each for each in caplog.records if each.exc_info]


@on_both_fronts
async def test_streams_of_one_connection_are_bounded(front: str) -> None:
    """32 requests at once on HTTP/2 are served; one more, and the connection is closed; others go on."""
    async with registry_on(front) as server:
        for streams in (32, 33):
            async with server.connect() as client:
                peer = H2Connection(H2Configuration(client_side=True))
                peer.initiate_connection()
                for number in range(streams):
                    target = [(":method", "PUT"), (":path", f"{HERE}/t{number}"), (":scheme", "http")]
                    peer.send_headers(1 + 2 * number, [*target, (":authority", "a")])
                await client.stream.send_all(peer.data_to_send())
                peer.receive_data(await client.stream.receive_some(65536))
                assert peer.remote_settings.max_concurrent_streams == 32
                if streams == 32:
                    await wait_all_tasks_blocked(SETTLED)
                    for number in range(streams):
                        peer.reset_stream(1 + 2 * number)
                    peer.send_headers(65, [(":method", "GET"), (":path", "/v2/"), (":scheme", "http"),
                                           (":authority", "a")], end_stream=True)  # fmt: skip
                    await client.stream.send_all(peer.data_to_send())
                    events: list[object] = []
                    while not any(isinstance(each, ResponseReceived) for each in events):
                        events += peer.receive_data(await client.stream.receive_some(65536))
                else:
                    with suppress(trio.BrokenResourceError):
                        while await client.stream.receive_some(65536):
                            pass
        assert (await server.request("GET", "/v2/")).status == 200

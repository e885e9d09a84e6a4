"""The direct lane on a real socket: order, hand-over, early answers, time limits, and nothing left behind."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio
from blackbox import Server
from inprocess import KIB, MIB, Answer, Client, InProcess, serving
from scripted import WatchedUpload
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.digest import digest_of
from trioreg.oci.names import UploadId
from trioreg.registry import Storage
from trioreg.server import connections
from trioreg.storage.base import Upload
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

HERE = "some/name"
SESSION = "11111111-1111-4111-8111-111111111111"
BLOB = hashlib.shake_128(b"blob").digest(20 * KIB)
WHERE = f"/v2/{HERE}/blobs/{digest_of(BLOB)}"
NOWHERE = f"/v2/{HERE}/blobs/uploads/{SESSION}"
PING = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"
ROOT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

SETTLED = 0.05


def post(blob: bytes = BLOB) -> bytes:
    target = f"/v2/{HERE}/blobs/uploads/?digest={digest_of(blob)}"
    return f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(blob)}\r\n\r\n".encode() + blob


@asynccontextmanager
async def lane(storage: Storage, **settings: Any) -> AsyncIterator[InProcess]:
    """A server for a test that must not hang."""
    with trio.fail_after(30):
        async with serving(storage, "direct", **settings) as server:
            yield server


@pytest.fixture
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are looked at five times a second; more often, and no loop would ever seem settled."""
    monkeypatch.setattr(connections, "_WATCH_SECONDS", 4 * SETTLED)


async def push(server: InProcess, blob: bytes) -> str:
    """A blob is there; its path."""
    async with server.connect() as client:
        await client.send(post(blob))
        assert (await client.answer()).status == 201
    return f"/v2/{HERE}/blobs/{digest_of(blob)}"


@pytest.fixture(autouse=True)
def no_bug_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client does is no error of ours."""
    yield
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert errors == []


@pytest.fixture
def on_disk(tmp_path: Path) -> FilesystemStorage:
    return FilesystemStorage(tmp_path, Disk(durable=False))


async def test_a_connection_is_kept() -> None:
    """A hundred requests of all kinds on one; only a client that asks for it has it closed."""
    async with lane(MemoryStorage()) as server, server.connect() as client:
        await client.send(post())
        assert (await client.answer()).status == 201
        for _ in range(25):
            assert (await client.request("GET", "/v2/")).status == 200
            assert (await client.request("GET", WHERE)).body == BLOB
            assert (await client.request("GET", "/v2/nothing")).status == 404
            answer = await client.request("HEAD", WHERE)
            assert (answer.status, answer.headers["content-length"]) == (200, str(len(BLOB)))
            assert "connection" not in answer.headers
        answer = await client.request("GET", "/v2/", headers={"Connection": "close"})
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended()


@pytest.mark.parametrize("cut", [None, 1, 7])
async def test_pipelined_requests_are_answered_in_order(cut: int | None) -> None:
    """Twenty, of them one with a body, one chunked and one refused with its body, in any pieces."""
    small = b"some bytes"
    chunked = (
        b"POST /v2/%s/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        % (
            HERE.encode(),
            str(digest_of(small)).encode(),
        )
    )
    requests: list[tuple[bytes, str, int]] = [
        (PING, "GET", 200),
        (post(BLOB[:500]), "POST", 201),
        (f"HEAD {WHERE} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "HEAD", 404),
        (chunked + b"4\r\nsome\r\n6\r\n bytes\r\n0\r\nX: y\r\n\r\n", "POST", 201),
        (f"PATCH {NOWHERE} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ".encode(), "PATCH", 404),
        *[(PING, "GET", 200)] * 13,
        (b"\r\n" + PING, "GET", 200),
        (f"GET /v2/{HERE}/blobs/{digest_of(small)} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "GET", 200),
    ]
    assert len(requests) == 20
    whole = b"".join(data for data, _, _ in requests)
    async with lane(MemoryStorage()) as server, server.connect() as client, trio.open_nursery() as nursery:
        if cut is None:
            nursery.start_soon(client.stream.send_all, whole)
        else:

            async def dribble(size: int) -> None:
                for at in range(0, len(whole), size):
                    await client.stream.send_all(whole[at : at + size])
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(dribble, cut)
        answers = [await client.answer(method) for _, method, _ in requests]
        assert [answer.status for answer in answers] == [status for _, _, status in requests]
        assert answers[-1].body == small
        assert (await client.request("GET", "/v2/")).status == 200


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    """Once, before the answer; and not when the body has come already."""
    async with lane(MemoryStorage()) as server, server.connect() as client:
        location = await server.start_upload()
        expect = {"Expect": "100-continue", "Content-Length": "5"}
        await client.send_head("PATCH", location, expect)
        assert (await client.head())[0] == 100
        await client.send(b"hello")
        assert (await client.answer()).headers["range"] == "0-4"
        await client.send_head("PATCH", location, {"Expect": "100-continue", "Transfer-Encoding": "chunked"})
        assert (await client.head())[0] == 100
        await client.send(b"1\r\n!\r\n0\r\n\r\n")
        assert (await client.answer()).headers["range"] == "0-5"
        together = (
            f"PATCH {location} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n?"
        )
        await client.stream.send_all(together.encode())
        assert (await client.answer()).headers["range"] == "0-6"
        # Nothing to wait for in a request without a body.
        assert (await client.request("GET", "/v2/", headers={"Expect": "100-continue"})).status == 200


@pytest.mark.parametrize("coding", [{"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}])
async def test_no_continue_for_a_body_that_nobody_wants(coding: dict[str, str]) -> None:
    """The refusal at once; the client may send the body or not, so the connection ends."""
    async with lane(MemoryStorage()) as server, server.connect() as client:
        await client.send_head("PATCH", NOWHERE, {"Expect": "100-continue", **coding})
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert await client.ended()


@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_a_small_rest_is_read_on(coding: str) -> None:
    """After an answer that did not want the body the next request is found behind it."""
    size = 900 * KIB
    head = f"PATCH {NOWHERE} HTTP/1.1\r\nHost: a\r\n".encode()
    if coding == "length":
        refused = head + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
    else:
        refused = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
    async with lane(MemoryStorage()) as server, server.connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, (refused + PING) * 2)
        for _ in range(2):
            assert (await client.answer()).status == 404
            assert (await client.answer()).status == 200


def test_an_early_answer_is_readable_by_a_client_that_first_sends_all(tmp_path: Path) -> None:
    """64 MB that nobody wants, sent without reading: what stops the client does not destroy the answer."""
    body = bytes(64 * MIB)
    with Server(tmp_path) as server:
        for fields in (
            b"Content-Length: %d\r\n\r\n" % len(body),
            b"Transfer-Encoding: chunked\r\n\r\n4000000\r\n",
        ):
            with server.connect() as client:
                try:
                    client.sendall(f"PATCH {NOWHERE} HTTP/1.1\r\nHost: a\r\n".encode() + fields)
                    client.sendall(body)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                answer = client.recv(65536)
                assert answer.startswith(b"HTTP/1.1 404 "), answer
                assert b"\r\nConnection: close\r\n" in answer
        assert server.request("GET", "/v2/").status == 200


async def test_head_has_the_length_and_no_body() -> None:
    """Whatever it is of."""
    async with lane(MemoryStorage()) as server, server.connect() as client:
        await push(server, BLOB)
        for path in (WHERE, "/v2/", "/v2/nothing", f"/v2/{HERE}/manifests/absent", "/v2/_catalog"):
            got = await client.request("GET", path)
            head = await client.request("HEAD", path)
            assert head.status in (got.status, 405)
            if head.status == got.status:
                assert head.headers["content-length"] == str(len(got.body))


async def elsewhere(client: Client) -> None:
    """Hypercorn serves this connection now, and OCI operations as well."""
    for _ in range(2):
        assert (await client.request("GET", "/v2/")).status == 200
        target = f"/v2/{HERE}/blobs/uploads/?digest={digest_of(BLOB)}"
        assert (await client.request("POST", target, BLOB)).status == 201
        answer = await client.request("GET", WHERE)
        assert answer.body == BLOB
        # The lane numbers its requests under the name of its server; Hypercorn's have a random id.
        assert not answer.headers["x-request-id"].startswith("test-")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (ROOT, 404),
        (b"POST /some/path HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", 404),
        (b"GET http://a/other HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ],
    ids=["path", "body", "absolute"],
)
@pytest.mark.parametrize("before", [0, 3])
async def test_what_is_not_ours_goes_to_the_other_front(
    before: int, request_: bytes, status: int | None
) -> None:
    """With every unread byte: requests before, behind and after it are all answered, in order."""
    async with lane(MemoryStorage()) as server, server.connect() as client:
        await client.send(post() + PING * before + request_ + PING)
        with trio.fail_after(20):
            assert (await client.answer()).status == 201
            for _ in range(before):
                assert (await client.answer()).headers["x-request-id"].startswith("test-")
            answer = await client.answer()
            assert status is None or answer.status == status
            assert not answer.headers.get("x-request-id", "").startswith("test-")
            assert (await client.answer()).status == 200
            await elsewhere(client)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"GET http://a/v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET HTTPS://a:80/v2 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["upgrade", "absolute", "secure"],
)
async def test_ours_whatever_it_looks_like(request_: bytes) -> None:
    """An upgrade may be ignored (RFC 9110, 7.8); an absolute target must be taken (RFC 9112, 3.2.2)."""
    async with lane(MemoryStorage()) as server, server.connect() as client:
        await client.send(request_)
        with trio.fail_after(20):
            answer = await client.answer()
        assert answer.status == 200
        assert answer.headers["x-request-id"].startswith("test-")


async def test_http_1_0() -> None:
    """Answered by Hypercorn, which closes; also behind a request of ours."""
    async with lane(MemoryStorage()) as server:
        for before in (b"", PING):
            async with server.connect() as client:
                await client.send(before + b"GET /v2/ HTTP/1.0\r\n\r\n")
                if before:
                    assert (await client.answer()).status == 200
                answer = await client.answer()
                assert (answer.status, answer.body) == (200, b"{}")
                assert await client.ended()


@pytest.mark.parametrize("cut", [None, 1])
async def test_http_2_with_prior_knowledge(cut: int | None) -> None:
    """Hypercorn knows its preface; we see the empty line in the middle of it."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    peer.send_headers(
        1, [(":method", "GET"), (":path", "/v2/"), (":scheme", "http"), (":authority", "a")], end_stream=True
    )
    status, body, ended = "", b"", False
    async with lane(MemoryStorage()) as server, server.connect() as client:
        data = peer.data_to_send()
        for at in range(0, len(data), cut or len(data)):
            await client.stream.send_all(data[at : at + (cut or len(data))])
        with trio.fail_after(20):
            while not ended:
                for event in peer.receive_data(await client.stream.receive_some(65536)):
                    if isinstance(event, h2.events.ResponseReceived):
                        status = str(dict(event.headers or []).get(b":status", b""), "ascii")
                    elif isinstance(event, h2.events.DataReceived):
                        body += event.data or b""
                    elif isinstance(event, h2.events.StreamEnded):
                        ended = True
                await client.stream.send_all(peer.data_to_send())
    assert (status, body) == ("200", b"{}")


IDLE = 0.2


async def test_an_idle_connection_is_closed(quick_watch: None) -> None:
    """Without a word, before the first request and between two."""
    async with lane(MemoryStorage(), idle=IDLE) as server:
        for requests in (0, 1):
            async with server.connect() as client:
                for _ in range(requests):
                    assert (await client.request("GET", "/v2/")).status == 200
                with trio.fail_after(20):
                    assert await client.ended()


async def test_a_head_that_dribbles_in_is_cut(quick_watch: None) -> None:
    """It has its time as a whole, though a byte comes again and again."""
    async with lane(MemoryStorage(), idle=IDLE) as server, server.connect() as client:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:

                async def dribble() -> None:
                    await client.stream.send_all(b"GET /v2/ HTTP/1.1\r\nX: ")
                    try:
                        while True:
                            await client.stream.send_all(b"x")
                            await trio.sleep(0.02)
                    except trio.BrokenResourceError:
                        pass

                nursery.start_soon(dribble)
                assert await client.ended()


class Slow(MemoryStorage):
    """Uploads whose writes wait for `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()

    @asynccontextmanager
    async def lease_upload(self, upload: UploadId, wait: float) -> AsyncIterator[Upload]:  # type: ignore[override]
        async with super().lease_upload(upload, wait) as real:
            yield WatchedUpload(real, pause_at=0, go_on=self.go_on)


async def test_our_own_time_is_not_the_clients(quick_watch: None) -> None:
    """A disk that takes longer than every limit of a client costs it nothing."""
    storage = Slow()
    async with lane(storage, stall=0.1, idle=0.1, blocks=1) as server:
        location = await server.start_upload()
        async with server.connect() as client, trio.open_nursery() as nursery:
            answers: list[Answer] = []

            async def push() -> None:
                answers.append(await client.request("PATCH", location, bytes(64 * KIB)))

            nursery.start_soon(push)
            # Twice each limit, and some rounds of the watchdog.
            await trio.sleep(0.6)
            assert answers == []
            storage.go_on.set()
            with trio.fail_after(20):
                while not answers:
                    await wait_all_tasks_blocked(SETTLED)
        assert answers[0].status == 202


async def test_a_slow_reader_of_a_large_blob(on_disk: FilesystemStorage) -> None:
    """By `sendfile`, whole and in ranges, to clients that take it in small bites."""
    blob = hashlib.shake_128(b"large").digest(5 * MIB + 3)
    size = len(blob)
    async with lane(on_disk) as server:
        path = await push(server, blob)
        async with server.connect() as client:
            await client.send_head("GET", path)
            await wait_all_tasks_blocked(SETTLED)
            got = b""
            while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < size:
                got += await client.stream.receive_some(100_003)
            assert got.partition(b"\r\n\r\n")[2] == blob
            for first, last in [(0, 0), (1, MIB), (MIB - 1, 2 * MIB), (size - 1, size - 1), (4096, size - 1)]:
                answer = await client.request("GET", path, headers={"Range": f"bytes={first}-{last}"})
                assert (answer.status, answer.body) == (206, blob[first : last + 1])
                assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"


async def test_a_reader_that_stalls_is_cut(quick_watch: None, on_disk: FilesystemStorage) -> None:
    """In the middle of a `sendfile`, after the stall limit."""
    async with lane(on_disk, stall=0.2) as server:
        path = await push(server, LARGE)
        await wait_all_tasks_blocked(SETTLED)  # the connection of the push has gone
        tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        sock = trio.socket.socket()
        # So small that the answer cannot hide in the buffers of both sides, which grow as they like.
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 64 * 1024)
        await sock.connect(("127.0.0.1", server.port))
        stream = trio.SocketStream(sock)
        await stream.send_all(head("GET", path))
        # The client's own socket is the one file more.
        await settle(tasks, files + 1)
        got = 0
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while data := await stream.receive_some(MIB):
                got += len(data)
            raise trio.BrokenResourceError("the end, in good order")
        assert got < len(LARGE)
        await stream.aclose()


async def test_over_tls(certificate: tuple[Path, Path]) -> None:
    """In order, with 100 Continue, handed over with what was read, and nothing is left of a connection."""
    made, key = certificate
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(made, key)
    theirs = ssl.create_default_context(cafile=str(made))
    async with lane(MemoryStorage(), tls=ours) as server:
        for number in range(4):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            secure = trio.SSLStream(stream, theirs, server_hostname="127.0.0.1", https_compatible=True)
            client = Client(secure)
            await client.send(post() + PING * 3)
            assert [(await client.answer()).status for _ in range(4)] == [201, 200, 200, 200]
            await client.send_head(
                "PATCH", await upload(client), {"Expect": "100-continue", "Content-Length": "5"}
            )
            assert (await client.head())[0] == 100
            await client.send(b"hello")
            assert (await client.answer()).headers["range"] == "0-4"
            assert (await client.request("GET", WHERE)).body == BLOB
            await client.send(PING + ROOT + PING)
            assert [(await client.answer()).status for _ in range(3)] == [200, 404, 200]
            await elsewhere(client)
            await (stream if number % 2 else secure).aclose()
            await wait_all_tasks_blocked(SETTLED)
            if number == 0:
                # What is made for the first connection only stays.
                tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        await settle(tasks, files)


async def upload(client: Client) -> str:
    return (await client.request("POST", f"/v2/{HERE}/blobs/uploads/")).headers["location"]


async def test_a_blob_without_a_descriptor() -> None:
    """Storage in memory has none: read and sent."""
    blob = hashlib.shake_128(b"large").digest(3 * MIB + 3)
    async with lane(MemoryStorage()) as server, server.connect() as client:
        path = await push(server, blob)
        assert (await client.request("GET", path)).body == blob
        answer = await client.request("GET", path, headers={"Range": "bytes=1000-2000000"})
        assert answer.body == blob[1000:2000001]
        assert (await client.request("GET", "/v2/")).status == 200


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settle(tasks: int, files: int) -> None:
    """Wait until no more tasks and files are there than were before."""
    with trio.fail_after(20):
        while trio.lowlevel.current_statistics().tasks_living > tasks or descriptors() > files:
            await wait_all_tasks_blocked(SETTLED)


# More than the socket buffers of both sides, which grow to ten megabytes.
LARGE = bytes(24 * MIB)


def head(method: str, target: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


MANIFEST = f"/v2/{HERE}/manifests/latest"
STATES: dict[str, bytes] = {
    "before a word": b"",
    "in a request line": b"GET /v2/",
    "in a head": PING[:-2],
    "between requests": PING,
    "in a pipeline": PING * 3 + PING[:10],
    "waiting for 100": head("PUT", MANIFEST, "Expect: 100-continue", "Content-Length: 9"),
    "in a body": post()[:-1000],
    "in a chunk": head("POST", f"{NOWHERE[:-36]}?digest={digest_of(BLOB)}", "Transfer-Encoding: chunked")
    + b"5000\r\n"
    + BLOB[:9000],
    "in a body nobody wants": head("PATCH", NOWHERE, "Content-Length: 9000") + b"x",
    "in a large body nobody wants": head("PATCH", NOWHERE, "Content-Length: 9000000") + b"x",
    "in a download": head("GET", f"/v2/{HERE}/blobs/{digest_of(LARGE)}"),
    "in a manifest": head("PUT", MANIFEST, "Content-Length: 900") + b"{",
    "elsewhere": ROOT,
    "in a head elsewhere": ROOT + b"GET /",
}


@pytest.mark.parametrize("farewell", ["close", "reset"])
async def test_a_client_that_vanishes_leaves_nothing(on_disk: FilesystemStorage, farewell: str) -> None:
    """No task and no open file, in whatever state it was."""
    async with lane(on_disk) as server:
        await push(server, LARGE)
        async with server.connect() as client:
            # What is made for the first one only (Hypercorn's) stays.
            await client.send(ROOT)
            await client.answer()
        await wait_all_tasks_blocked(SETTLED)
        tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
        for state, data in STATES.items():
            async with server.connect() as client:
                await client.stream.send_all(data)
                await wait_all_tasks_blocked(0.01)
                if farewell == "reset":
                    linger = (1).to_bytes(4, "little") + bytes(4)
                    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # type: ignore[attr-defined]
            try:
                await settle(tasks, files)
            except trio.TooSlowError:
                raise AssertionError(f"something is left of a client that vanished {state}") from None
        assert server.budget.statistics().held == 0
        async with server.connect() as client:
            assert (await client.request("GET", "/v2/")).status == 200


def resident(server: Server) -> int:
    """Bytes of memory of a server."""
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_a_thousand_idle_connections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is answered, twice, and costs a few kilobytes while it waits."""
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 200:
        pytest.skip(f"needs {count + 200} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    clients: list[socket.socket] = []
    try:
        with Server(tmp_path, settings={"log.access": "false"}) as server:
            server.request("GET", "/v2/")
            before = resident(server)
            clients.extend(server.connect() for _ in range(count))
            for _ in range(2):
                for client in clients:
                    client.sendall(PING)
                for client in clients:
                    assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            each = (resident(server) - before) / count
            with capsys.disabled():
                print(f"\n{each / KIB:.1f} KiB an idle connection", end=" ")  # noqa: T201
            # A connection is a task, a wire and its receive buffer: 6 KiB measured.
            assert each < 24 * KIB
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

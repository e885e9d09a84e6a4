"""Clients that vanish, thousands that connect and drop, a server that is told to end amid pushes."""

from __future__ import annotations

import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from blackbox import ANSWER_SECONDS, Server, digest_of, path_of, push_blob, seeded_bytes, with_query
from inprocess import FRONTS, serving

from trioreg.storage.memory import MemoryStorage

from .tally import SEED, TALLY, size

KIB = 1024
STEP = 64 * KIB
CONTENT = seeded_bytes(SEED, size(256, 4096) * KIB)
DIGEST = digest_of(CONTENT)


@pytest.fixture(scope="module", params=FRONTS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"http.front": request.param, "upload.lease_wait": "30", "log.access": "false"}
    with Server(tmp_path_factory.mktemp(f"clients-{request.param}"), settings=settings) as running:
        yield running


def begin(server: Server, name: str) -> str:
    answer = server.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202, answer
    return path_of(answer.headers["Location"])


def head(method: str, path: str, fields: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n".encode()


def vanish(connection: socket.socket, *, rudely: bool) -> None:
    """Close; rudely: with a reset, which also drops what the server has not read yet."""
    if rudely:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def go_on(server: Server, location: str) -> int:
    """Finish an upload as a client does that lost its connection; where it went on."""
    offset, status = offset_of(server.request("GET", location).headers["Range"]), 416
    while status == 416:
        place = {"Content-Range": f"{offset}-{len(CONTENT) - 1}"}
        rest = CONTENT[offset:]
        answer = server.request("PATCH", location, rest, place if rest else {})
        status, start = answer.status, offset
        offset = offset_of(answer.headers["Range"])
    assert (status, offset) == (202, len(CONTENT))
    assert server.request("PUT", with_query(location, f"digest={DIGEST}"), b"").status == 201
    return start


def offset_of(text: str) -> int:
    last = int(text.removeprefix("0-"))
    return last + 1 if last else 0


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_client_vanishes_at_every_64_kib_of_a_push(server: Server, chunked: bool) -> None:
    """What arrived is kept, the upload goes on from there, and the blob is right."""
    for sent in range(0, len(CONTENT), STEP):
        for rudely in (False, True):
            with TALLY.moment("client gone at a 64 KiB of its push"):
                location = begin(server, "vanish/push")
                with server.connect() as connection:
                    fields = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(CONTENT)}"
                    connection.sendall(head("PATCH", location, fields))
                    for at in range(0, sent, STEP):
                        part = CONTENT[at : at + STEP]
                        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
                    vanish(connection, rudely=rudely)
                start = go_on(server, location)
                assert start <= sent if rudely else start == sent
                assert server.request("GET", f"/v2/vanish/push/blobs/{DIGEST}").body == CONTENT
                assert server.request("DELETE", f"/v2/vanish/push/blobs/{DIGEST}").status == 202


def test_a_client_vanishes_at_every_64_kib_of_a_pull(server: Server) -> None:
    """The server lets go of the file and of the connection."""
    push_blob(server, "vanish/pull", CONTENT)
    before = descriptors(server)
    for read in range(0, len(CONTENT), STEP):
        with TALLY.moment("client gone at a 64 KiB of its pull"):
            with server.connect() as connection:
                connection.sendall(head("GET", f"/v2/vanish/pull/blobs/{DIGEST}", "Accept: */*"))
                left = read
                while left:
                    left -= len(connection.recv(min(left, STEP)))
                vanish(connection, rudely=bool(read // STEP % 2))
    until(server, lambda: descriptors(server) <= before)
    assert digest_of(server.request("GET", f"/v2/vanish/pull/blobs/{DIGEST}").body) == DIGEST


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def until(server: Server, come: Callable[[], bool]) -> None:
    """Ask the server things until something has come true."""
    deadline = time.monotonic() + 60
    while not come():
        assert time.monotonic() < deadline, "it does not come"
        assert server.request("GET", "/v2/").status == 200


# How far each connection comes before it is dropped.
STAGES = [
    b"",
    b"G",
    b"GET /v2/ HTTP/1.1\r\nHost:",
    b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v2/a/blobs/" + DIGEST.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
    b"POST /v2/a/blobs/uploads/?digest=" + DIGEST.encode() + b" HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 99\r\n\r\nhalf",
    b"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]
CONNECTIONS = size(800, 5000)
AT_ONCE = 400


def test_thousands_of_connections_opened_and_dropped(server: Server) -> None:
    """Each is dropped somewhere else; descriptors are back where they were, and all is served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * AT_ONCE)), hard))
    for stage in STAGES:  # the other front is loaded, and what it keeps open is open
        drop(server, [stage])
    push_blob(server, "dropped", CONTENT)
    before = descriptors(server)
    for start in range(0, CONNECTIONS, AT_ONCE):
        count = min(AT_ONCE, CONNECTIONS - start)
        with TALLY.moment("connection opened and dropped", count):
            drop(server, [STAGES[(start + at) % len(STAGES)] for at in range(count)])
            assert server.request("GET", "/v2/").status == 200
    until(server, lambda: descriptors(server) <= before)
    assert server.request("GET", f"/v2/dropped/blobs/{DIGEST}").body == CONTENT
    assert "unforeseen" not in server.stderr


def drop(server: Server, stages: list[bytes]) -> None:
    """Connections that are open together, then dropped together, every other one rudely."""
    connections = [server.connect() for _ in stages]
    for connection, stage in zip(connections, stages, strict=True):
        connection.sendall(stage)
    for at, connection in enumerate(connections):
        vanish(connection, rudely=at % 2 == 0)


@pytest.mark.parametrize("front", FRONTS)
async def test_dropped_connections_leave_no_task(front: str) -> None:
    """A task for each is begun and ended."""
    with trio.fail_after(60):
        async with serving(MemoryStorage(), front) as server:
            for stage in STAGES:
                await drop_one(server.port, stage)
            await settled(await tasks_at_rest())
            before = await tasks_at_rest()
            async with trio.open_nursery() as nursery:
                for number in range(size(100, 500)):
                    nursery.start_soon(drop_one, server.port, STAGES[number % len(STAGES)])
            await settled(before)


async def drop_one(port: int, stage: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(stage)
    await stream.aclose()


async def tasks_at_rest() -> int:
    await trio.testing.wait_all_tasks_blocked(0.01)
    return trio.lowlevel.current_statistics().tasks_living


async def settled(most: int) -> None:
    """Until no more tasks live; the test's time limit ends a wait for nothing."""
    while await tasks_at_rest() > most:
        await trio.lowlevel.checkpoint()


# SIGTERM.

PUSHES = 50


class HalfPush:
    """A push that has sent half its body when the signal comes; `quick` ones then send the rest."""

    def __init__(self, server: Server, number: int):
        self.content = seeded_bytes(f"{SEED}-{number}", 512 * KIB)
        self.digest = digest_of(self.content)
        self.quick = number % 2 == 0
        self.location = begin(server, "term")
        self.created = False
        target = with_query(self.location, f"digest={self.digest}")
        self._connection = server.connect()
        self._connection.sendall(head("PUT", target, f"Content-Length: {len(self.content)}"))
        self._connection.sendall(self.content[: len(self.content) // 2])

    def arrived_in(self, storage: Path) -> Callable[[], bool]:
        data = storage / "uploads" / Path(self.location).name / "data"
        return lambda: data.stat().st_size > 0

    def send_the_rest(self) -> None:
        self._connection.sendall(self.content[len(self.content) // 2 :])
        self.created = self._connection.recv(64).startswith(b"HTTP/1.1 201 ")

    def close(self) -> None:
        self._connection.close()


def test_sigterm_amid_fifty_pushes(tmp_path: Path) -> None:
    """Those that go on end with 201, and it is true; the others go on at the next server. Exit code 0."""
    server = Server(tmp_path, settings={"http.shutdown_grace": str(int(ANSWER_SECONDS))})
    with server, TALLY.moment("SIGTERM amid a push", PUSHES):
        pushes = [HalfPush(server, number) for number in range(PUSHES)]
        for push in pushes:
            until(server, push.arrived_in(server.storage))
        server.signal(signal.SIGTERM)
        quick = [threading.Thread(target=push.send_the_rest) for push in pushes if push.quick]
        for thread in quick:
            thread.start()
        for thread in quick:
            thread.join()
        server.stop()  # a second signal: those that do not go on are not waited for
        for push in pushes:
            push.close()
        assert [push.created for push in pushes] == [push.quick for push in pushes]
        server.start()
        for push in pushes:
            if not push.created:
                resume(server, push)
            body = server.request("GET", f"/v2/term/blobs/{push.digest}").body
            assert digest_of(body) == push.digest


def resume(server: Server, push: HalfPush) -> None:
    status = server.request("GET", push.location)
    assert status.status == 204, status
    offset = offset_of(status.headers["Range"])
    assert 0 < offset <= len(push.content) // 2
    place = {"Content-Range": f"{offset}-{len(push.content) - 1}"}
    target = with_query(push.location, f"digest={push.digest}")
    assert server.request("PUT", target, push.content[offset:], place).status == 201

"""Each trap of the ground we stand on, closed on both fronts: a test for each, named after it.

The numbers are those of the list of traps that the project began with; what a trap says stands in the
docstring of its test. T15, T19 and T20 are closed in tests/pipeline and tests/storage.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from blackbox import image
from inprocess import FRONTS, KIB, MIB, Answer, Client, InProcess, serving
from scripted import WatchedUpload
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import RegistryError
from trioreg.oci.manifest import MAX_REFERENCES, parse_manifest
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.storage.base import StorageError, StorageFull, Upload
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

HERE = RepositoryName("some/name")
SESSION = "11111111-1111-4111-8111-111111111111"
OCTETS = {"Content-Type": "application/octet-stream"}

# In one loop with the clients: once nobody has run for so long, nothing moves any more.
SETTLED = 0.05

on_both_fronts = pytest.mark.parametrize("front", FRONTS)


class Scripted(MemoryStorage):
    """The driver in memory, with what a test wants of the uploads that are leased."""

    def __init__(self, wrap: Callable[[Upload], Upload]) -> None:
        super().__init__()
        self._wrap = wrap

    @asynccontextmanager
    async def lease_upload(self, upload: UploadId, wait: float) -> AsyncIterator[Upload]:  # type: ignore[override]
        async with super().lease_upload(upload, wait) as real:
            yield self._wrap(real)


class EndlessBlob:
    """A blob of a gigabyte that takes no memory and counts what is read of it."""

    size = 1024 * MIB

    def __init__(self) -> None:
        self.read_bytes = 0
        self.closed = trio.Event()

    async def read(self, start: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint()
        self.read_bytes += length
        return bytes(length)

    def close(self) -> None:
        self.closed.set()


class EndlessStorage(MemoryStorage):
    digest = Digest("sha256", "e" * 64)

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[EndlessBlob] = []

    async def open_blob(self, digest: Digest) -> EndlessBlob:  # type: ignore[override]
        self.opened.append(EndlessBlob())
        return self.opened[-1]


async def stalled_download(server: InProcess, client: Client) -> None:
    """A client that has asked for the endless blob, read the head of the answer, and reads no more."""
    await server.catalog.link_blob(HERE, EndlessStorage.digest)
    await client.send_head("GET", f"/v2/{HERE}/blobs/{EndlessStorage.digest}")
    status, headers = await client.head()
    assert (status, headers["content-length"]) == (200, str(EndlessBlob.size))


def check_envelope(answer: Answer, status: int | tuple[int, ...], code: str | None = None) -> None:
    statuses = (status,) if isinstance(status, int) else status
    assert answer.status in statuses, (answer, answer.body)
    assert answer.headers["content-type"].startswith("application/json")
    (error,) = json.loads(answer.body)["errors"]
    assert set(error) >= {"code", "message"}
    assert code is None or error["code"] == code


@on_both_fronts
@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_t1_t17_a_stuck_disk_stops_the_clients(front: str, coding: str) -> None:
    """Neither a body queue nor the server's own queues grow while writes hang: the clients have to wait."""
    go_on, clients, size = trio.Event(), 6, 4 * MIB
    storage = Scripted(lambda real: WatchedUpload(real, pause_at=0, go_on=go_on))
    blob, connections, answers = bytes(size), list[Client](), list[Answer]()

    async def push(server: InProcess) -> None:
        location = await server.start_upload()
        async with server.connect() as client:
            client.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 32 * KIB)  # type: ignore[attr-defined]
            connections.append(client)
            if coding == "length":
                await client.send_head("PATCH", location, {"Content-Length": str(size), **OCTETS})
                await client.send(blob)
            else:
                await client.send_head("PATCH", location, {"Transfer-Encoding": "chunked"})
                await client.send(b"%x\r\n" % size + blob + b"\r\n0\r\n\r\n")
            answers.append(await client.answer())

    with trio.fail_after(30):
        async with (
            serving(storage, front, blocks=4, front_bytes=MIB, receive_buffer=32 * KIB) as server,
            trio.open_nursery() as nursery,
        ):
            for _ in range(clients):
                nursery.start_soon(push, server)
            while len(connections) < clients:
                await wait_all_tasks_blocked(SETTLED)
            await wait_all_tasks_blocked(SETTLED)
            kernel, piece = 256 * KIB, server.share.copies * server.share.piece()
            assert sum(client.sent for client in connections) <= 4 * 64 * KIB + clients * (kernel + piece)
            assert server.budget.statistics().held <= 4
            go_on.set()
    assert [answer.status for answer in answers] == [202] * clients
    assert [answer.headers["range"] for answer in answers] == [f"0-{size - 1}"] * clients


@on_both_fronts
async def test_t2_no_limit_of_16_mib(front: str) -> None:
    """A framework's default would answer 413."""
    blob = bytes(17 * MIB)
    async with serving(MemoryStorage(), front) as server:
        location = await server.start_upload()
        digest = digest_of(blob)
        answer = await server.request("PUT", f"{location}?digest={digest}", blob, OCTETS)
        assert answer.status == 201, answer.body
        answer = await server.request("GET", f"/v2/{HERE}/blobs/{digest}")
        assert digest_of(answer.body) == digest


@on_both_fronts
async def test_t2_a_download_may_pause(front: str, tmp_path: Path) -> None:
    """The server waits for a slow reader, and what comes afterwards is whole."""
    blob = hashlib.shake_128(b"seed").digest(8 * MIB)
    storage = FilesystemStorage(tmp_path, Disk(durable=False))
    async with serving(storage, front) as server, server.connect() as client:
        location = await server.start_upload()
        digest = digest_of(blob)
        assert (await server.request("PUT", f"{location}?digest={digest}", blob)).status == 201
        await client.send_head("GET", f"/v2/{HERE}/blobs/{digest}")
        await wait_all_tasks_blocked(SETTLED)
        with trio.fail_after(20):
            answer = await client.answer()
        assert answer.body == blob


@on_both_fronts
@pytest.mark.parametrize("size", [1000, 500 * KIB, 3 * MIB])
async def test_t4_early_answers_leak_nothing(front: str, size: int) -> None:
    """An answer before the end of the body: the connection goes on or closes, and no task is left."""
    async with serving(MemoryStorage(), front) as server:
        await server.request("GET", "/v2/")
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(12):
            async with server.connect() as client:
                with trio.fail_after(20):
                    check_envelope(await refused_push(client, bytes(size)), 404, "BLOB_UPLOAD_UNKNOWN")
        with trio.fail_after(20):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await wait_all_tasks_blocked(SETTLED)


async def refused_push(client: Client, body: bytes) -> Answer:
    """Send a body that nobody wants, and read the answer while doing so."""
    answer: list[Answer] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            answer.append(await client.answer())
            nursery.cancel_scope.cancel()

        nursery.start_soon(read)
        target = f"/v2/{HERE}/blobs/uploads/{SESSION}"
        try:
            await client.send_head("PATCH", target, {"Content-Length": str(len(body))})
            await client.send(body)
        except trio.BrokenResourceError:
            pass
        await trio.sleep_forever()
    return answer[0]


@on_both_fronts
async def test_t4_a_small_unwanted_body_does_not_cost_the_connection(front: str) -> None:
    """The next request on it is answered."""
    async with serving(MemoryStorage(), front) as server, server.connect() as client:
        with trio.fail_after(20):
            for _ in range(20):
                answer = await client.request("PATCH", f"/v2/{HERE}/blobs/uploads/{SESSION}", bytes(100_000))
                check_envelope(answer, 404, "BLOB_UPLOAD_UNKNOWN")
            assert (await client.request("GET", "/v2/")).status == 200


@on_both_fronts
async def test_t5_a_blob_is_not_read_for_a_client_that_left(front: str) -> None:
    """The reader is closed, and at most what sockets hold was read."""
    storage = EndlessStorage()
    async with serving(storage, front) as server:
        async with server.connect() as client:
            await stalled_download(server, client)
        with trio.fail_after(10):
            await storage.opened[0].closed.wait()
        assert storage.opened[0].read_bytes < 64 * MIB


@on_both_fronts
@pytest.mark.parametrize(
    ("failure", "status"), [(StorageFull("full"), 507), (StorageError("broken"), 503)], ids=["full", "broken"]
)
async def test_t6_one_cause_never_a_group(front: str, failure: StorageError, status: int) -> None:
    """A stage that fails deep in two nurseries is answered as itself, and the server goes on."""
    storage = Scripted(lambda real: WatchedUpload(real, fail_at=300 * KIB, failure=failure))
    async with serving(storage, front) as server:
        location = await server.start_upload()
        answer = await server.request("PATCH", location, bytes(700 * KIB))
        check_envelope(answer, status, "UNAVAILABLE")
        answer = await server.request("GET", location)
        assert answer.status == 204
        assert 0 < int(answer.headers["range"].partition("-")[2]) < 300 * KIB
        assert server.budget.statistics().held == 0


@on_both_fronts
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/favicon.ico"),
        ("GET", "/v1/"),
        ("GET", "/v2/nothing"),
        ("GET", "/v2//some/name/tags/list"),
        ("GET", "/v2/some//name/tags/list"),
        ("GET", "/v2/some%2Fname/tags/list"),
        ("GET", "/v2/../v2/some/name/tags/list"),
        ("GET", "/v2/some/%2e%2e/name/tags/list"),
        ("GET", "/v2/some/name/manifests/%00"),
        ("GET", "//v2/"),
        ("POST", "/v2/"),
        ("OPTIONS", "/v2/"),
        ("PUT", "/v2/some/name/tags/list"),
        ("PATCH", "/v2/some/name/manifests/latest"),
        ("DELETE", "/nothing"),
        ("BREW", "/v2/"),
    ],
)
async def test_t7_every_refusal_is_the_envelope(front: str, method: str, target: str) -> None:
    """No HTML, no redirect, no unescaping: ours or nobody's."""
    async with serving(MemoryStorage(), front) as server:
        answer = await server.request(method, target)
        check_envelope(answer, (400, 404, 405))
        assert "location" not in answer.headers
        if answer.status == 405:
            assert answer.headers["allow"]


class ThreadDisk(Disk):
    """A disk that knows which calls came from the Trio thread."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: set[str] = set()
        self.inline: set[str] = set()
        self._trio = threading.get_ident()

    def __getattribute__(self, name: str) -> object:
        if name in ThreadDisk.watched:
            self.calls.add(name)
            if threading.get_ident() == self._trio:
                self.inline.add(name)
        return super().__getattribute__(name)

    watched = frozenset(
        ("pwrite", "truncate", "sync_data", "sync_directory", "rename", "link", "unlink", "mkdir", "rmdir")
    )


@on_both_fronts
async def test_t10_nothing_that_blocks_on_the_trio_thread(front: str, tmp_path: Path) -> None:
    """Writes, syncs and changes of names happen in worker threads only."""
    disk = ThreadDisk()
    storage = FilesystemStorage(tmp_path, disk)
    async with serving(storage, front) as server:
        disk.calls.clear()
        disk.inline.clear()
        for blob in (b"{}", bytes(300 * KIB), bytes(300 * KIB)):
            location = await server.start_upload()
            assert (await server.request("PATCH", location, blob[:10])).status == 202
            answer = await server.request("PUT", f"{location}?digest={digest_of(blob)}", blob[10:])
            assert answer.status == 201
        location = await server.start_upload()
        await server.request("PATCH", location, bytes(1000))
        # As a crash between a write and its record leaves it.
        data = next((tmp_path / "uploads").iterdir()) / "data"
        data.write_bytes(data.read_bytes() + b"unrecorded")
        assert (await server.request("PATCH", location, bytes(1000))).status == 202
        assert (await server.request("DELETE", location)).status == 204
        location = await server.start_upload()
        wrong = f"{location}?digest={digest_of(b'wrong')}"
        check_envelope(await server.request("PUT", wrong, b"right"), 400, "DIGEST_INVALID")
        manifest = image()
        target = f"/v2/{HERE}/manifests/latest"
        headers = {"Content-Type": manifest.media_type}
        assert (await server.request("PUT", target, manifest.body, headers)).status == 201
        target = f"/v2/{HERE}/manifests/{manifest.digest}"
        assert (await server.request("DELETE", target)).status == 202
        assert (await server.request("DELETE", f"/v2/{HERE}/blobs/{digest_of(b'{}')}")).status == 202
    assert disk.calls >= {"pwrite", "truncate", "sync_data", "sync_directory", "rename", "unlink", "rmdir"}
    assert disk.inline == set()


@on_both_fronts
async def test_t11_a_tls_hello_on_the_plain_port(front: str) -> None:
    """Answered or closed at once: clients try TLS first."""
    outgoing = ssl.MemoryBIO()
    hello = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="example.com")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    async with serving(MemoryStorage(), front) as server, server.connect() as client:
        await client.send(outgoing.read())
        with trio.fail_after(10):
            answer = await client.answer_or_end()
            assert answer is None or answer.status == 400


@on_both_fronts
async def test_t12_what_clients_send(front: str) -> None:
    """Six Accept lines; a mount unescaped, or without `from`; PATCH with neither length nor type; POST with
    a JSON type; an upload URL without its query.
    """
    async with serving(MemoryStorage(), front) as server, server.connect() as client:
        blob = b"{}"
        answer = await client.request(
            "POST", f"/v2/{HERE}/blobs/uploads/", headers={"Content-Type": "application/json"}
        )
        location = answer.headers["location"]
        assert "?" not in location
        await client.send_head("PATCH", location, {"Transfer-Encoding": "chunked"})
        await client.send(b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
        assert (await client.answer()).headers["range"] == "0-1"
        digest = digest_of(blob)
        assert (await client.request("PUT", f"{location}?digest={digest}")).status == 201
        for query in (f"mount={digest}&from=some/name", f"mount={digest}"):
            answer = await client.request("POST", f"/v2/another/name/blobs/uploads/?{query}")
            assert answer.status == 201, answer
        manifest = image()
        target, headers = f"/v2/{HERE}/manifests/latest", {"Content-Type": manifest.media_type}
        assert (await client.request("PUT", target, manifest.body, headers)).status == 201
        accept = "".join(f"Accept: application/vnd.example.v{n}+json\r\n" for n in range(6))
        await client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n{accept}\r\n".encode())
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, manifest.body)
        assert answer.headers["content-type"] == manifest.media_type


@on_both_fronts
async def test_t13_a_replayed_chunk_is_refused(front: str) -> None:
    """416 with the range that the session has, and nothing is appended twice."""
    async with serving(MemoryStorage(), front) as server:
        location = await server.start_upload()
        chunk = {"Content-Range": "0-99", **OCTETS}
        assert (await server.request("PATCH", location, bytes(100), chunk)).status == 202
        for _ in range(3):
            answer = await server.request("PATCH", location, bytes(100), chunk)
            check_envelope(answer, 416)
            assert answer.headers["range"] == "0-99"
        assert (await server.request("GET", location)).headers["range"] == "0-99"


@on_both_fronts
async def test_t14_a_full_budget_makes_a_body_wait(front: str) -> None:
    """It is never refused in the middle, because a client cannot rewind it."""
    async with serving(MemoryStorage(), front, blocks=1) as server:
        taken = await server.budget.acquire()
        location, answers = await server.start_upload(), list[Answer]()

        async def push() -> None:
            answers.append(await server.request("PATCH", location, bytes(200 * KIB)))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push)
                while not server.budget.statistics().waiting:
                    await wait_all_tasks_blocked(SETTLED)
                assert answers == []
                server.budget.release(taken)
        assert answers[0].status == 202


@on_both_fronts
@pytest.mark.parametrize("sent", [0, 1, 64 * KIB, 64 * KIB + 1, 128 * KIB])
async def test_t17_clients_that_fall_silent_hold_no_block(front: str, sent: int) -> None:
    """Also those that stop exactly where a block is full: a fast one passes sixteen of them."""
    storage = MemoryStorage()
    async with serving(storage, front, blocks=4) as server, trio.open_nursery() as nursery:
        done: list[int] = []

        async def fall_silent() -> None:
            location = await server.start_upload()
            async with server.connect() as client:
                await client.send_head("PATCH", location, {"Content-Length": str(MIB)})
                await client.send(bytes(sent))
                done.append(1)
                await trio.sleep_forever()

        with trio.fail_after(20):
            for _ in range(16):
                nursery.start_soon(fall_silent)
            while len(done) < 16:
                await wait_all_tasks_blocked(SETTLED)
            while sum(len(session.data) for session in storage.sessions.values()) < 16 * sent:
                await wait_all_tasks_blocked(SETTLED)
            await wait_all_tasks_blocked(SETTLED)
            assert server.budget.statistics().held == 0
            location = await server.start_upload()
            assert (await server.request("PATCH", location, bytes(MIB))).status == 202
        nursery.cancel_scope.cancel()


@on_both_fronts
async def test_t18_a_reader_that_takes_nothing_is_dropped(front: str) -> None:
    """After the stall limit, though Hypercorn shields its sends."""
    storage = EndlessStorage()
    with trio.fail_after(20):
        async with serving(storage, front, stall=0.2) as server, server.connect() as client:
            await stalled_download(server, client)
            await storage.opened[0].closed.wait()


@on_both_fronts
async def test_t18_a_stuck_reader_does_not_keep_the_server_up(front: str) -> None:
    """Whose stall limit has not come yet when the grace is over."""
    storage = EndlessStorage()
    with trio.fail_after(20):
        async with serving(storage, front, stall=3600.0) as server:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stalled_download(server, Client(stream))
            await wait_all_tasks_blocked(SETTLED)
        assert storage.opened[0].closed.is_set()
        await stream.aclose()


@on_both_fronts
@pytest.mark.parametrize("coding", ["length", "chunked"])
async def test_t18_an_upload_that_stalls_is_ended_and_resumable(front: str, coding: str) -> None:
    """408 or a closed connection; what came is kept, and the upload goes on from there."""
    blob = bytes(300 * KIB)
    async with serving(MemoryStorage(), front, stall=0.2) as server:
        location = await server.start_upload()
        async with server.connect() as client:
            if coding == "length":
                await client.send_head("PATCH", location, {"Content-Length": str(len(blob))})
                await client.send(blob[:100_000])
            else:
                await client.send_head("PATCH", location, {"Transfer-Encoding": "chunked"})
                await client.send(b"%x\r\n" % len(blob) + blob[:100_000])
            with trio.fail_after(20):
                answer = await client.answer_or_end()
                if answer is not None:
                    check_envelope(answer, 408, "BLOB_UPLOAD_INVALID")
                    assert await client.ended()
        answer = await server.request("GET", location)
        assert answer.headers["range"] == "0-99999"
        digest = digest_of(blob)
        answer = await server.request("PUT", f"{location}?digest={digest}", blob[100_000:])
        assert answer.status == 201


_LAYER = b'{"mediaType":"a","digest":"sha256:%s","size":1}' % (b"0" * 64)
_HOSTILE = {
    "deep": b'{"schemaVersion":2,"x":' + b"[" * (4 * MIB - 100),
    "deep-objects": b'{"schemaVersion":2,"x":' + b'{"a":' * 800_000,
    "many-layers": b'{"schemaVersion":2,"layers":[' + b",".join([_LAYER] * (MAX_REFERENCES + 1)) + b"]}",
    "empty-layers": b'{"schemaVersion":2,"layers":[' + b"{}," * (MIB - 100) + b"{}]}",
    "numbers": b'{"schemaVersion":2,"x":[' + b"1," * (2 * MIB - 100) + b"1]}",
    "big-number": b'{"schemaVersion":' + b"9" * (4 * MIB - 100) + b"}",
    "unknown-members": b'{"schemaVersion":2' + b"".join(b',"%06x":0' % n for n in range(350_000)) + b"}",
    "one-string": b'{"schemaVersion":2,"mediaType":"' + b"a" * (4 * MIB - 100) + b'"}',
    "escapes": b'{"schemaVersion":2,"mediaType":"' + b"\\u00e4" * 690_000 + b'"}',
}


@pytest.mark.parametrize("name", _HOSTILE)
def test_t21_a_hostile_manifest_is_bounded(name: str) -> None:
    """4 MiB cost `json.loads` 93 MB; here what is built is bounded, and it is MANIFEST_INVALID."""
    body = _HOSTILE[name]
    assert len(body) <= 4 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(RegistryError) as caught:
            parse_manifest(body, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.error.code == "MANIFEST_INVALID"
    assert peak < 16 * MIB


@on_both_fronts
async def test_t21_hostile_manifests_end_to_end(front: str) -> None:
    """Each is refused in an envelope of bounded size, and the server goes on."""
    async with serving(MemoryStorage(), front) as server:
        for body in _HOSTILE.values():
            answer = await server.request("PUT", f"/v2/{HERE}/manifests/latest", body)
            check_envelope(answer, 400, "MANIFEST_INVALID")
            assert len(answer.body) < 4096
        assert (await server.request("GET", "/v2/")).status == 200

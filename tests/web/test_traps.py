"""The Quart application over bare ASGI: the traps of the framework, without any server around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from scripted import WatchedUpload
from trio.testing import wait_all_tasks_blocked

from trioreg import logs
from trioreg.api import Service
from trioreg.oci.digest import Algorithm
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.pipeline.budget import Budget, ByteGate, Share
from trioreg.pipeline.engine import ThreadEngine
from trioreg.pipeline.pump import Pump
from trioreg.registry import build_registry
from trioreg.storage.memory import MemoryStorage
from trioreg.web import create_app
from trioreg.web.app import WebApp

HERE = RepositoryName("some/name")
PIECE = 64 * 1024


def app_over(storage: MemoryStorage, *, stall: float = 60.0) -> WebApp:
    pump = Pump(Budget(4 * PIECE, PIECE), ThreadEngine(), 2**40)
    registry = build_registry(
        storage,
        storage,
        pump,
        lease_wait=0.0,
        cache_bytes=2**20,
        manifest_max=2**22,
        manifest_gate=ByteGate(2**23),
    )
    access = logs.AccessLog(enabled=False)
    return create_app(Service(registry), Share(2**20), access, stall_timeout=stall, max_head_bytes=32 * 1024)


class Exchange:
    """One request to an ASGI application. `asked` counts how often it called `receive`."""

    def __init__(self, method: str, path: str, *pieces: bytes, length: int | None = None) -> None:
        raw, _, query = path.partition("?")
        headers = [(b"host", b"a")]
        headers += [(b"transfer-encoding", b"chunked")] if length is None else []
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw,
            "raw_path": raw.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [*headers, *([(b"content-length", b"%d" % length)] if length is not None else [])],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
        }
        self._pieces = list(pieces)
        self.asked = 0
        self.leave = trio.Event()
        self.on_send: Callable[[dict[str, Any]], None] = lambda message: None
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)
        self.on_send(message)

    async def run(self, app: WebApp) -> None:
        await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def session(storage: MemoryStorage, algorithm: Algorithm = "sha256") -> UploadId:
    return (await storage.create_upload(HERE, algorithm)).id


def test_t2_the_frameworks_limits_are_gone() -> None:
    """16 MiB for a body, and a minute for a body or a response, would cut off what is allowed to be long."""
    config = app_over(MemoryStorage()).config
    for name in ("MAX_CONTENT_LENGTH", "BODY_TIMEOUT", "RESPONSE_TIMEOUT"):
        assert config[name] is None, name


async def test_t1_a_body_is_pulled() -> None:
    """`receive` is called only as fast as blocks are written; nothing drains it into a queue."""
    go_on = trio.Event()

    class Stuck(MemoryStorage):
        def lease_upload(self, upload: UploadId, wait: float) -> Any:
            return _Wrapped(super().lease_upload(upload, wait), go_on)

    storage = Stuck()
    upload = await session(storage)
    exchange = Exchange("PATCH", f"/v2/{HERE}/blobs/uploads/{upload}", *[bytes(PIECE)] * 100)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.run, app_over(storage))
            while exchange.asked < 4:
                await wait_all_tasks_blocked(0.02)
            await wait_all_tasks_blocked(0.02)
            assert exchange.asked <= 5, "three blocks, and one piece that waits for the fourth"
            go_on.set()
    assert exchange.status == 202
    assert len(storage.sessions[upload].data) == 100 * PIECE


class _Wrapped:
    """A lease whose upload cannot write before `go_on`."""

    def __init__(self, lease: Any, go_on: trio.Event) -> None:
        self._lease = lease
        self._go_on = go_on

    async def __aenter__(self) -> WatchedUpload:
        return WatchedUpload(await self._lease.__aenter__(), pause_at=0, go_on=self._go_on)

    async def __aexit__(self, *reason: Any) -> Any:
        return await self._lease.__aexit__(*reason)


async def test_t4_after_an_early_answer_somebody_still_receives() -> None:
    """Until the client is heard to leave, so that a server's queue of one does not hang."""
    storage = MemoryStorage()
    exchange = Exchange("PATCH", f"/v2/{HERE}/blobs/uploads/not-an-id", *[bytes(1000)] * 50)
    with trio.fail_after(20):
        await exchange.run(app_over(storage))
    assert exchange.status == 400
    assert exchange.asked >= 50


async def test_t4_a_client_that_leaves_during_an_early_answer() -> None:
    """While we read on through its unwanted body: no error leaves the application."""
    exchange = Exchange("PATCH", f"/v2/{HERE}/blobs/uploads/not-an-id", bytes(1000), b"", length=5000)
    exchange._pieces[1:] = []
    exchange.scope["headers"] = [(b"host", b"a"), (b"content-length", b"5000")]
    exchange.leave.set()

    async def vanish() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with trio.fail_after(20):
        await app_over(MemoryStorage())(exchange.scope, vanish, exchange.send)  # type: ignore[arg-type]


@pytest.mark.parametrize("stall", [0.01, 60.0])
async def test_t18_a_stalled_body_is_408(stall: float) -> None:
    """Also when the stall limit is shorter than our patience with unwanted bodies."""
    storage = MemoryStorage()
    upload = await session(storage)
    exchange = Exchange("PATCH", f"/v2/{HERE}/blobs/uploads/{upload}", length=5000)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.run, app_over(storage, stall=stall))
            if stall > 1:
                await wait_all_tasks_blocked(0.02)
                assert exchange.sent == []
                exchange.leave.set()
    if stall < 1:
        assert exchange.status == 408
        assert dict(exchange.sent[0]["headers"])[b"connection"] == b"close"
        assert json.loads(exchange.body)["errors"][0]["code"] == "BLOB_UPLOAD_INVALID"
    else:
        assert exchange.sent == [], "nobody is there to answer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v2", 404),
        ("BREW", "/v2/", 405),
        ("GET", "/v2/a%2Fb/tags/list", 400),
        ("GET", "/v2/a//b/tags/list", 400),
    ],
)
async def test_t7_the_envelope_instead_of_html(method: str, path: str, status: int) -> None:
    """Quart's own 404, 405 and redirects never reach a client."""
    exchange = Exchange(method, path, length=0)
    exchange._pieces = [b""]
    exchange.leave.set()
    await exchange.run(app_over(MemoryStorage()))
    assert exchange.status in (status, 200 if path == "/v2" else status)
    if exchange.status != 200:
        assert set(json.loads(exchange.body)["errors"][0]) >= {"code", "message"}

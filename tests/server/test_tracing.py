"""A span for each request, its parent the client's, its children where an upload's time went."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trio
from blackbox import Server
from inprocess import FRONTS, KIB, InProcess, serving
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from trioreg import logs
from trioreg.config import Config, ConfigError
from trioreg.oci.digest import digest_of
from trioreg.server import otel
from trioreg.server.tracing import Tracing
from trioreg.storage.filesystem import Disk, FilesystemStorage

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
BLOB = bytes(200 * KIB)
FORMATS: tuple[logs.Format, ...] = ("text", "json")


@asynccontextmanager
async def traced(front: str, home: Path) -> AsyncIterator[tuple[InProcess, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with trio.fail_after(30):
        async with serving(FilesystemStorage(home, Disk(durable=False)), front) as server:
            server.service.tracing = Tracing(provider, server.service.registry.pump.transfers)
            yield server, exporter
    logs.trace_id.set("")


async def finished(exporter: InMemorySpanExporter, name: str) -> None:
    """The Quart front is done with a request a moment after the client has its answer."""
    while not any(span.name == name for span in exporter.get_finished_spans()):
        await trio.lowlevel.checkpoint()


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


@pytest.mark.parametrize("front", FRONTS)
async def test_an_upload_has_children(front: str, tmp_path: Path) -> None:
    """One server span, below the client's, and below it a span for each thing that took time."""
    async with traced(front, tmp_path) as (server, exporter):
        location = await server.start_upload()
        await finished(exporter, "POST start_upload")
        exporter.clear()
        target = f"{location}?digest={digest_of(BLOB)}"
        assert (await server.request("PUT", target, BLOB, TRACED)).status == 201
        await finished(exporter, "PUT finish_upload")
    *children, span = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("PUT finish_upload", SpanKind.SERVER)
    assert trace_of(span) == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    attributes = dict(span.attributes or {})
    assert attributes["http.response.status_code"] == 201
    assert attributes["http.request.body.size"] == len(BLOB)
    assert attributes["url.path"] == location
    names = {child.name for child in children}
    assert {"client", "verify", "publish", "lease"} <= names
    assert "engine" in names or {"digest", "write"} <= names
    assert span.start_time is not None and span.end_time is not None
    for child in children:
        assert child.parent == span.context
        assert child.start_time == span.start_time
        assert child.end_time is not None
        assert child.end_time <= span.end_time


@pytest.mark.parametrize("front", FRONTS)
async def test_a_request_without_a_parent_begins_a_trace(front: str, tmp_path: Path) -> None:
    """Each request on a connection has a trace of its own; a broken traceparent is as good as none."""
    async with traced(front, tmp_path) as (server, exporter):
        async with server.connect() as client:
            await client.request("GET", "/v2/")
            await client.request(
                "GET", "/v2/some/name/manifests/none", headers={"traceparent": "00-nonsense"}
            )
        await finished(exporter, "GET get_manifest")
    first, second = exporter.get_finished_spans()
    assert (first.name, second.name) == ("GET ping", "GET get_manifest")
    assert first.parent is None and second.parent is None
    assert trace_of(first) != trace_of(second)
    assert dict(second.attributes or {})["http.response.status_code"] == 404
    assert second.status.status_code is StatusCode.UNSET


def test_log_lines_carry_the_trace() -> None:
    """In text and in JSON, in records and in the access log; and nothing where there is none."""
    for fmt in FORMATS:
        lines = logged(fmt, TRACE)
        assert len(lines) == 2
        for line in lines:
            found = json.loads(line)["trace"] if fmt == "json" else line.rpartition(" trace=")[2]
            assert found == TRACE
        assert not any("trace" in line for line in logged(fmt, ""))


def logged(fmt: logs.Format, trace: str) -> list[str]:
    """A record and a line of the access log, as they are written."""
    reading, writing = os.pipe()
    logs.configure("info", fmt, writing)
    token = logs.trace_id.set(trace)
    try:
        logs.Log("trioreg.tests").info("something")
        access = logs.AccessLog(enabled=True)
        access.record("GET", "/v2/", 200, received=0, sent=2, seconds=0.1, client="", request="r")
        access.write(access.take())
    finally:
        logs.trace_id.reset(token)
        os.close(writing)
        logs.configure("info", "text")
    with os.fdopen(reading, encoding="ascii") as file:
        return file.read().splitlines()


def test_tracing_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the extra, before anything is started."""
    monkeypatch.setattr(otel, "_is_installed", lambda: False)
    otel.check_tracing(Config())
    with pytest.raises(ConfigError, match=r"trioreg\[otel\]"):
        otel.check_tracing(Config(otel_enabled=True))


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes what is sent over OTLP/HTTP: its address, and the bodies."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_spans_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server sends what it has over OTLP when it stops, and its access log names the trace."""
    with collector() as (url, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with Server(tmp_path, settings={"otel.enabled": "true"}) as server:
            assert server.request("GET", "/v2/", headers=TRACED).status == 200
        sent = b"".join(bodies)
        assert bytes.fromhex(TRACE) in sent
        assert b"GET ping" in sent
        assert b"trioreg" in sent
        assert f"trace={TRACE}" in server.stderr

"""What the server shows of itself: to whom, and that it is true."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from blackbox import Registry, Server, push_blob
from inprocess import FRONTS, KIB, InProcess, serving
from scripted import ScriptedBody
from trio.testing import wait_all_tasks_blocked

from trioreg.api import Exchange
from trioreg.api.insiders import is_from_here
from trioreg.oci.digest import digest_of
from trioreg.storage.filesystem import Disk, FilesystemStorage

BLOCK = 64 * KIB
PINGS = 'trioreg_http_requests_total{operation="ping",code="200"}'


@pytest.mark.parametrize(
    ("peer", "headers", "allowed"),
    [
        ("127.0.0.1", {"host": "localhost:5000"}, True),
        ("127.8.0.1", {"host": "127.0.0.1:5000"}, True),
        ("::1", {"host": "[::1]:5000"}, True),
        ("::ffff:127.0.0.1", {"host": "localhost"}, True),
        ("127.0.0.1", {"host": "localhost", "sec-fetch-site": "same-origin"}, True),
        ("127.0.0.1", {"host": "localhost", "sec-fetch-site": "cross-site"}, False),
        ("127.0.0.1", {"host": "localhost:5000", "origin": "http://localhost:5000"}, True),
        ("127.0.0.1", {"host": "localhost:5000", "origin": "http://evil.example"}, False),
        ("127.0.0.1", {"host": "localhost:5000", "origin": "http://localhost:8080"}, False),
        ("127.0.0.1", {"host": "localhost:5000", "origin": "null"}, False),
        ("127.0.0.1", {"host": "evil.example"}, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "10.1.2.3"}, False),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=10.1.2.3"}, False),
        ("127.0.0.1", {"host": "localhost", "via": "1.1 proxy"}, False),
        ("10.1.2.3", {"host": "localhost"}, False),
        ("::ffff:10.1.2.3", {"host": "localhost"}, False),
        ("", {"host": "localhost"}, False),
    ],
)
def test_who_is_on_this_machine(peer: str, headers: dict[str, str], allowed: bool) -> None:
    """A loopback peer that asked for a local name, and came by no proxy and from no web page elsewhere."""
    exchange = Exchange("GET", "/debug/uploads", "", headers, ScriptedBody(), "1", peer)
    assert is_from_here(exchange) is allowed


@asynccontextmanager
async def registry_on(front: str, home: Path, blocks: int = 16) -> AsyncIterator[InProcess]:
    with trio.fail_after(30):
        async with serving(FilesystemStorage(home, Disk(durable=False)), front, blocks=blocks) as server:
            yield server


LOCAL = {"Host": "localhost"}


async def look(server: InProcess) -> dict[str, Any]:
    """What /debug/uploads says."""
    answer = await server.request("GET", "/debug/uploads", headers=LOCAL)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def numbers(server: InProcess) -> dict[str, float]:
    """What /metrics says, by line."""
    answer = await server.request("GET", "/metrics")
    assert answer.status == 200
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.mark.parametrize("front", FRONTS)
async def test_an_upload_is_shown_while_it_runs(front: str, tmp_path: Path) -> None:
    """Where it stands, what it waits for and what it holds; and it is gone when it is over."""
    async with registry_on(front, tmp_path) as server:
        location = await server.start_upload("some/name")
        assert (await look(server))["uploads"] == []
        async with server.connect() as client:
            await client.send_head("PATCH", location, {"Content-Length": str(3 * BLOCK)})
            await client.send(bytes(2 * BLOCK))
            found: dict[str, Any] = {}
            while found.get("written_bytes") != 2 * BLOCK:
                await wait_all_tasks_blocked(0.01)
                [found] = (await look(server))["uploads"]
            assert found["upload"] == location.rpartition("/")[2]
            assert found["repository"] == "some/name"
            assert (found["phase"], found["waits_for"], found["receive"]) == ("body", "client", "client")
            assert found["offset"] == found["received_bytes"] == 2 * BLOCK
            assert found["blocks"] == 0
            counted = await numbers(server)
            assert counted['trioreg_uploads{waits_for="client"}'] == 1
            assert counted["trioreg_budget_blocks"] == 16
            assert counted["trioreg_budget_held_blocks"] == 0
            await client.send(bytes(BLOCK))
            assert (await client.answer()).status == 202
        assert (await look(server))["uploads"] == []


@pytest.mark.parametrize("front", FRONTS)
async def test_who_waits_for_a_block_says_so(front: str, tmp_path: Path) -> None:
    """While somebody else has the whole budget, the metrics and the upload name what is missing."""
    async with registry_on(front, tmp_path, blocks=1) as server:
        location = await server.start_upload()
        block = await server.budget.acquire()
        async with server.connect() as client:
            await client.send_head("PATCH", location, {"Content-Length": "5"})
            await client.send(b"bytes")
            while server.budget.statistics().waiting == 0:
                await wait_all_tasks_blocked(0.01)
            [found] = (await look(server))["uploads"]
            assert found["waits_for"] == "block"
            counted = await numbers(server)
            assert counted["trioreg_budget_waiting"] == 1
            assert counted['trioreg_uploads{waits_for="block"}'] == 1
            server.budget.release(block)
            assert (await client.answer()).status == 202


@pytest.mark.parametrize("front", FRONTS)
async def test_a_second_writer_waits_for_the_lease(front: str, tmp_path: Path) -> None:
    """It is in the table too, and holds nothing."""
    async with registry_on(front, tmp_path) as server:
        location = await server.start_upload()
        async with server.connect() as first, server.connect() as second:
            await first.send_head("PATCH", location, {"Content-Length": "5"})
            while len((await look(server))["uploads"]) < 1:
                await wait_all_tasks_blocked(0.01)
            await second.send_head("PATCH", location, {"Content-Length": "5"})
            waits: list[str] = []
            while waits != ["client", "lease"]:
                await wait_all_tasks_blocked(0.01)
                waits = [each["waits_for"] for each in (await look(server))["uploads"]]
            await first.send(b"bytes")
            assert (await first.answer()).status == 202


@pytest.mark.parametrize("front", FRONTS)
async def test_requests_are_counted_by_operation_and_status(front: str, tmp_path: Path) -> None:
    """Each request once, under what it asked for and what it was told, with the bytes it moved."""
    async with registry_on(front, tmp_path) as server:
        before = await numbers(server)
        location = await server.start_upload()
        blob = bytes(1000)
        digest = digest_of(blob)
        assert (await server.request("PUT", f"{location}?digest={digest}", blob)).status == 201
        assert (await server.request("GET", f"/v2/some/name/blobs/{digest}")).status == 200
        assert (await server.request("HEAD", f"/v2/some/name/blobs/{digest}")).status == 200
        assert (await server.request("GET", "/v2/some/name/manifests/none")).status == 404
        after = await numbers(server)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)}
    requests = {name: count for name, count in grown.items() if name.startswith("trioreg_http_requests")}
    assert requests == {
        'trioreg_http_requests_total{operation="start_upload",code="202"}': 1,
        'trioreg_http_requests_total{operation="finish_upload",code="201"}': 1,
        'trioreg_http_requests_total{operation="get_blob",code="200"}': 1,
        'trioreg_http_requests_total{operation="head_blob",code="200"}': 1,
        'trioreg_http_requests_total{operation="get_manifest",code="404"}': 1,
        'trioreg_http_requests_total{operation="other",code="200"}': 1,  # the first look at the metrics
    }
    assert grown["trioreg_http_received_bytes_total"] == 1000
    assert grown['trioreg_http_request_duration_seconds_count{operation="get_blob"}'] == 1
    assert grown["trioreg_engine_digested_bytes_total"] >= 1000


@pytest.mark.parametrize("front", FRONTS)
async def test_debug_pages_are_for_insiders(front: str, tmp_path: Path) -> None:
    """A name that is not this machine's is refused; a method that a page does not know is named."""
    async with registry_on(front, tmp_path) as server:
        answer = await server.request("GET", "/debug/uploads", headers={"Host": "registry.example.com"})
        assert answer.status == 403
        answer = await server.request("POST", "/debug/uploads", headers=LOCAL)
        assert (answer.status, answer.headers["allow"]) == (405, "GET")
        assert (await server.request("POST", "/metrics")).status == 405


async def call(server: InProcess, method: str, target: str) -> Any:
    """What a debug page says."""
    answer = await server.request(method, target, headers=LOCAL)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


async def test_memory_is_accounted_for(tmp_path: Path) -> None:
    """The kernel's, the allocator's and our own figures, in bytes, and they are of one process."""
    async with registry_on("direct", tmp_path) as server:
        found = await call(server, "GET", "/debug/memory")
    assert found["rss"] > 10 * 2**20
    assert found["kernel"]["rss"] >= found["kernel"]["anonymous"] > 2**20
    assert found["allocator"]["used"] > 2**20
    assert found["budget"] == {"block_size": BLOCK, "total": 16, "held": 0, "waiting": 0, "warm": 0}
    assert set(found["caches"]) == {"replies", "contents", "values", "listings"}
    assert found["tracemalloc"]["tracing"] is False


async def test_trim_gives_free_blocks_back(tmp_path: Path) -> None:
    """What no transfer holds has no pages afterwards."""
    async with registry_on("direct", tmp_path) as server:
        block = await server.budget.acquire()
        block.view[:] = b"x" * BLOCK
        server.budget.release(block)
        assert server.budget.statistics().warm == 1
        found = await call(server, "POST", "/debug/trim")
        assert server.budget.statistics().warm == 0
    assert found["after"] <= found["before"] + 2**20


async def test_allocations_since_a_mark(tmp_path: Path) -> None:
    """Tracing is started, marked, compared and stopped from outside; what was allocated since has a line."""
    async with registry_on("direct", tmp_path) as server:
        assert (await call(server, "GET", "/debug/tracemalloc"))["rows"] == []
        assert (await call(server, "POST", "/debug/tracemalloc/start"))["tracing"] is True
        try:
            assert (await call(server, "POST", "/debug/tracemalloc/mark?name=idle"))["marks"] == ["idle"]
            kept = [bytes(100_000 + number) for number in range(10)]
            found = await call(server, "GET", "/debug/tracemalloc?since=idle&by=filename")
            [mine] = [row for row in found["rows"] if "test_inside.py" in row[0]]
            assert mine[1] >= sum(map(len, kept))
            assert mine[2] >= len(kept)
            answer = await server.request("GET", "/debug/tracemalloc?since=never", headers=LOCAL)
            assert answer.status == 400
        finally:
            found = await call(server, "POST", "/debug/tracemalloc/stop")
        assert (found["tracing"], found["marks"]) == (False, [])


async def test_the_tree_of_tasks(tmp_path: Path) -> None:
    """An upload's two stages are in it, below their connection, with the line where each waits."""
    async with registry_on("direct", tmp_path) as server:
        location = await server.start_upload()
        async with server.connect() as client:
            await client.send_head("PATCH", location, {"Content-Length": "50000"})
            while not (await look(server))["uploads"]:
                await wait_all_tasks_blocked(0.01)
            found = await call(server, "GET", "/debug/tasks")
            await client.send(bytes(50_000))
            await client.answer()
    assert found["living"] >= 5

    def every(task: dict[str, Any]) -> list[dict[str, Any]]:
        below = [each for nursery in task.get("nurseries", []) for each in nursery["tasks"]]
        return [task, *(found for each in below for found in every(each))]

    waits = [task["waits_at"] for task in every(found["root"])]
    [receiving] = [frames for frames in waits if any("pump:receive" in frame for frame in frames)]
    assert any("lane_body:ready" in frame for frame in receiving)
    assert any("digest_and_write" in frame for frames in waits for frame in frames)


def test_syncs_are_timed(tmp_path: Path) -> None:
    """A durable push waits for the disk for the bytes, and for the directories that name them."""
    with Server(tmp_path) as server:
        push_blob(server, "some/name", b"bytes")
        lines = server.request("GET", "/metrics").body.decode().splitlines()
    counts = {
        line.partition("{")[2]: int(line.split()[-1])
        for line in lines
        if "sync_duration_seconds_count" in line
    }
    assert {kind.partition("}")[0] for kind, count in counts.items() if count} == {
        'kind="data"',
        'kind="directory"',
    }


def test_debug_pages_are_off(tmp_path: Path) -> None:
    """Without debug.enabled there are none; the metrics are there, and looking does not load Quart."""
    with Server(tmp_path) as server:
        before = resident(server.pid)
        assert server.request("GET", "/metrics").status == 200
        assert resident(server.pid) - before < 2 * 2**20
        assert server.request("GET", "/debug/uploads").status == 404


def test_workers_answer_for_all(tmp_path: Path) -> None:
    """However requests are spread over the workers, each worker counts all of them."""
    with Server(tmp_path, settings={"http.workers": "2"}) as server:
        for _ in range(20):
            assert server.request("GET", "/v2/").status == 200
        expected = {f"{PINGS} 20", "trioreg_workers 2"}
        agreeing = 0
        # The last request may be counted a moment after it was answered; from then on all agree.
        while agreeing < 10:
            found = set(server.request("GET", "/metrics").body.decode().splitlines())
            agreeing = agreeing + 1 if expected <= found else 0
            assert not any(line.startswith(PINGS) and int(line.split()[1]) > 20 for line in found)


def test_a_worker_that_dies_leaves_its_counts(tmp_path: Path) -> None:
    """What it counted stays and its successor goes on from there: no counter goes back, at any moment."""
    with Server(tmp_path, settings={"http.workers": "2"}) as server:
        for _ in range(20):
            assert server.request("GET", "/v2/").status == 200
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        before = set(children.read_text().split())
        pings: list[int] = []
        while not pings or pings[-1] < 20:
            pings.append(counted_pings(server))
        os.kill(int(min(before)), signal.SIGKILL)
        while len(set(children.read_text().split()) - before) == 0:
            pings.append(counted_pings(server))
        pings += [counted_pings(server) for _ in range(20)]
        assert pings == sorted(pings)
        assert pings[-1] == 20


def counted_pings(server: Server) -> int:
    """What any worker says; a connection to one that is just killed is made again."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            lines = server.request("GET", "/metrics").body.decode().splitlines()
            [line] = [line for line in lines if line.startswith(PINGS)] or [f"{PINGS} 0"]
            return int(line.split()[1])


def resident(pid: int) -> int:
    """RSS in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_metrics_on_an_address_of_their_own(tmp_path: Path) -> None:
    """Then they are there and nothing else is, and the registry's own address does not have them."""
    with Server(tmp_path, settings={"metrics.bind": "127.0.0.1:0", "metrics.census_interval": "0"}) as server:
        [port] = re.findall(r"metrics have their own address port=(\d+)", server.stderr)
        apart = Registry(f"http://127.0.0.1:{port}")
        assert "trioreg_workers 1\n" in apart.request("GET", "/metrics").body.decode()
        assert apart.request("GET", "/v2/").status == 404
        assert apart.request("GET", "/").status == 404
        assert server.request("GET", "/metrics").status == 404
        assert server.request("GET", "/v2/").status == 200

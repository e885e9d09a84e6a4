"""Nothing is kept of a request that is over: Python's own allocations do not grow with their number."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import trio
from inprocess import FRONTS, KIB, InProcess, serving
from trio.testing import wait_all_tasks_blocked

from trioreg.oci.digest import digest_of
from trioreg.storage.filesystem import Disk, FilesystemStorage

NAME = "some/name"
BLOB = bytes(100 * KIB)
ROUNDS = 25

# Bounded caches (parsed heads, Trio's heap of deadlines) still fill up, with less than 8 KiB a round. A
# buffer that is kept is 16 KiB at least, a body 100 KiB.
KEPT_A_ROUND = 12 * KIB

# Packages whose objects belong to one connection or request; `oci` are plain values that caches hold.
LIVE = ("trioreg.server", "trioreg.web", "trioreg.pipeline", "trioreg.registry", "hypercorn", "h11", "quart")
CACHED = {"Head"}


def census() -> Counter[str]:
    """How many objects there are of each type that lives as long as a connection or request."""
    types = (type(each) for each in gc.get_objects())
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in types
        if str(kind.__module__).startswith(LIVE) and kind.__qualname__ not in CACHED
    )


async def one_round(server: InProcess) -> None:
    """A push, a pull, a push that is cut in the middle and cancelled, and two refusals."""
    location = await server.start_upload(NAME)
    async with server.connect() as client:
        await client.request("PATCH", location, BLOB)
        answer = await client.request("PUT", f"{location}?digest={digest_of(BLOB)}")
        assert answer.status == 201
        answer = await client.request("GET", f"/v2/{NAME}/blobs/{digest_of(BLOB)}")
        assert answer.body == BLOB
        assert (await client.request("GET", f"/v2/{NAME}/manifests/none")).status == 404
        assert (await client.request("GET", "/nothing")).status == 404
    location = await server.start_upload(NAME)
    async with server.connect() as client:
        await client.send_head("PATCH", location, {"Content-Length": str(len(BLOB))})
        await client.send(BLOB[: 50 * KIB])
    assert (await server.request("DELETE", location)).status == 204


async def settled(server: InProcess, tasks: int) -> tuple[int, Counter[str]]:
    """Bytes and objects that Python holds once every connection is gone."""
    with trio.fail_after(10):
        while trio.lowlevel.current_statistics().tasks_living > tasks:
            await wait_all_tasks_blocked(0.02)
    assert server.budget.statistics().held == 0
    gc.collect()
    return tracemalloc.get_traced_memory()[0], census()


@pytest.mark.parametrize("front", FRONTS)
async def test_no_growth(front: str, tmp_path: Path) -> None:
    """Twenty-five more rounds of pushes, pulls and aborts leave no buffer and no object behind."""
    async with serving(FilesystemStorage(tmp_path, Disk(durable=False)), front) as server:
        await wait_all_tasks_blocked(0.02)
        tasks = trio.lowlevel.current_statistics().tasks_living
        await one_round(server)
        tracemalloc.start()
        try:
            for _ in range(5):
                await one_round(server)
            held, objects = await settled(server, tasks)
            for _ in range(ROUNDS):
                await one_round(server)
            held_later, objects_later = await settled(server, tasks)
        finally:
            tracemalloc.stop()
    grown = {kind: count for kind, count in (objects_later - objects).items() if count >= ROUNDS // 2}
    assert grown == {}
    assert held_later - held < KEPT_A_ROUND * ROUNDS

"""Too many connections: idle ones make room, then newcomers are told 503; heads in pieces are bounded."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from inprocess import FRONTS, KIB, MIB, Client, InProcess, serving
from trio.testing import wait_all_tasks_blocked

from trioreg.server.crowd import _FRONT_PART, Crowd, UnfinishedHeads
from trioreg.storage.memory import MemoryStorage

SETTLED = 0.05
PING = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"
ROOT = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(autouse=True)
def no_bug_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client does is no error of ours."""
    yield
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert errors == []


@asynccontextmanager
async def registry(front: str = "direct", most: int = 16) -> AsyncIterator[InProcess]:
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front, most=most) as server:
            yield server


async def is_refused(client: Client) -> bool:
    """Whether a connection is told 503, and closed, before it has said anything."""
    answer = await client.answer()
    [error] = json.loads(answer.body)["errors"]
    assert (answer.status, error["code"]) == (503, "UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    return await client.ended()


async def busy(server: InProcess, stack: AsyncExitStack) -> Client:
    """A connection in the middle of an upload."""
    client = await stack.enter_async_context(server.connect())
    await client.send(b"POST /v2/some/name/blobs/uploads/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    location = (await client.answer()).headers["location"]
    await client.send_head("PATCH", location, {"Content-Length": str(MIB)})
    await client.send(bytes(KIB))
    await wait_all_tasks_blocked(SETTLED)
    return client


async def test_the_longest_idle_makes_room() -> None:
    """When it is full every newcomer is served, and the oldest of those that wait for nothing go."""
    async with registry() as server, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(server.connect()) for _ in range(15)]
        for client in idle:
            assert (await client.request("GET", "/v2/")).status == 200
        # The first is in use again, so it is not the one that is idle longest.
        assert (await idle[0].request("GET", "/v2/")).status == 200
        for _ in range(5):
            client = await stack.enter_async_context(server.connect())
            assert (await client.request("GET", "/v2/")).status == 200
        for client in idle[1:4]:
            assert await client.ended()
        assert (await idle[0].request("GET", "/v2/")).status == 200
        assert server.connections.crowd.refused == 0
        assert server.connections.counts()[0] <= 16


async def test_when_all_are_busy_a_newcomer_is_told() -> None:
    """503 at once; the uploads are not touched, and when one ends there is room again."""
    async with registry() as server, AsyncExitStack() as stack:
        uploads = []
        while server.connections.crowd.enter("127.0.0.1"):
            server.connections.crowd.leave("127.0.0.1")
            uploads.append(await busy(server, stack))
        assert len(uploads) == 15
        async with server.connect() as client:
            assert await is_refused(client)
        await uploads[0].stream.aclose()
        await wait_all_tasks_blocked(SETTLED)
        assert (await server.request("GET", "/v2/")).status == 200
        await uploads[1].send(bytes(MIB - KIB))
        assert (await uploads[1].answer()).status == 202


async def test_of_one_address_not_all() -> None:
    """A crowd from one address gets its share; another address still gets in."""
    crowd = Crowd(16, lambda count, client: 0)
    while crowd.enter("flood"):
        pass
    assert crowd.enter("another")
    assert not crowd.enter("flood")
    crowd.leave("another")
    assert crowd.refused == 2


async def test_the_front_has_an_eighth() -> None:
    """What Hypercorn serves takes more memory each; over its part one is told 503, the lane goes on."""
    async with registry(most=4 * _FRONT_PART) as server, AsyncExitStack() as stack:
        for _ in range(4):
            client = await stack.enter_async_context(server.connect())
            await client.send(ROOT)
            assert (await client.answer()).status == 404
        async with server.connect() as client:
            await client.send(ROOT)
            assert await is_refused(client)
        assert (await server.request("GET", "/v2/")).status == 200
        assert server.connections.counts()[1] == 4


@pytest.mark.parametrize("front", FRONTS)
async def test_connections_that_come_and_go(front: str) -> None:
    """Opened and dropped, some in the middle of a head: nothing is left of them."""
    async with registry(front, most=64 * _FRONT_PART) as server:
        assert (await server.request("GET", "/v2/")).status == 200
        for _ in range(3):
            async with trio.open_nursery() as nursery:

                async def come_and_go(number: int) -> None:
                    async with server.connect() as client:
                        await client.stream.send_all(PING[:number])

                for number in range(len(PING)):
                    nursery.start_soon(come_and_go, number)
        while sum(server.connections.counts()):
            await wait_all_tasks_blocked(SETTLED)
        assert server.connections.crowd._places.taken == server.connections.crowd._front.taken == 0
        assert (await server.request("GET", "/v2/")).status == 200


# Heads in pieces.


class Recorded:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_the_oldest_unfinished_head_goes_first() -> None:
    """What is held never passes the bound, and who finished counts no more."""
    heads = UnfinishedHeads(10_000)
    wires = [Recorded() for _ in range(10)]
    for wire in wires[:5]:
        heads.hold(wire, 1000)
    heads.release(wires[0])
    for wire in wires[5:]:
        heads.hold(wire, 1000)
        assert heads.held <= 10_000
    assert [wire.aborted for wire in wires] == [False] + [True] * 3 + [False] * 6
    heads.hold(wires[9], 50_000)
    assert wires[9].aborted
    assert heads.held == 0


async def test_a_flood_of_heads_in_pieces() -> None:
    """Hundreds of connections send 30 KiB of a head each and stop: the rest is served as ever."""
    async with registry(most=1000) as server, AsyncExitStack() as stack:
        server.connections._lane.heads._most = MIB  # type: ignore[union-attr]  # there is a lane
        slow = []
        for _ in range(100):
            client = await stack.enter_async_context(server.connect())
            await client.stream.send_all(b"GET /v2/ HTTP/1.1\r\nX: " + b"x" * 30 * KIB)
            slow.append(client)
        await wait_all_tasks_blocked(SETTLED)
        assert 0 < server.connections._lane.heads.held <= MIB  # type: ignore[union-attr]
        async with server.connect() as client:
            for byte in PING:
                await client.stream.send_all(bytes([byte]))
                await trio.lowlevel.checkpoint()
            assert (await client.answer()).status == 200
        await slow[-1].stream.send_all(b"\r\nHost: a\r\n\r\n")
        assert (await slow[-1].answer()).status == 200
        assert await slow[0].ended()

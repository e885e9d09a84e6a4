"""Small bodies that dribble: what has come of all of them is bounded, and who is quick does not notice."""

from __future__ import annotations

import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from auth.people import guard
from inprocess import FRONTS, KIB, serving
from trio.testing import wait_all_tasks_blocked

from trioreg.api.arriving import MOST_BYTES, Arriving
from trioreg.api.token import PATH, token
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.body import ClientStalled
from trioreg.server.lane_body import LengthBody
from trioreg.server.wire import PlainWire
from trioreg.storage.memory import MemoryStorage

KIND = "application/vnd.oci.image.index.v1+json"
INDEX = b'{"schemaVersion": 2, "mediaType": "%s", "manifests": []}' % KIND.encode()


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/v2/some/name/manifests/slow"), ("POST", PATH)], ids=["manifest", "form"]
)
async def test_a_flood_of_dribblers_ends_its_own(front: str, method: str, path: str, tmp_path: Path) -> None:
    """The oldest are told to come again, what is held stays below its bound, and a whole manifest passes."""
    access = guard(tmp_path, tokens=True) if path == PATH else None
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front, authorizer=access) as server, AsyncExitStack() as stack:
            server.service.pages = {**server.service.pages, PATH: lambda each: token(server.service, each)}
            arriving = server.service.arriving = Arriving(32 * KIB)
            slow = [await stack.enter_async_context(server.connect()) for _ in range(6)]
            for client in slow:
                length = {"Content-Length": str(10 * KIB), "Content-Type": KIND}
                await client.send_head(method, path, length)
                await client.send(b" " * 8 * KIB)
                await wait_all_tasks_blocked(0.01)
                assert arriving.held <= 32 * KIB
            for client in slow[:2]:
                answer = await client.answer()
                assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert arriving.held == 32 * KIB
            if access is None:
                target = "/v2/some/name/manifests/quick"
                assert (await server.request("PUT", target, INDEX, {"Content-Type": KIND})).status == 201
            for client in slow:
                await client.stream.aclose()
            while arriving.held:
                await wait_all_tasks_blocked(0.01)


async def test_who_is_late_and_who_must_go_are_told_apart(autojump_clock: trio.testing.MockClock) -> None:
    """Time that is over is a stall; room that is gone is no fault of the client's."""
    arriving = Arriving(10)

    async def dribble(*sizes: int) -> None:
        with arriving.one(5) as hold:
            for size in sizes:
                hold(size)
            await trio.sleep_forever()

    with pytest.raises(ClientStalled):
        await dribble(10)
    with pytest.raises(RegistryError) as refused:
        await dribble(11, 12)
    assert refused.value.error is ErrorCode.TOOMANYREQUESTS
    assert arriving.held == 0


def test_what_came_with_the_head_is_let_go() -> None:
    """Once it is read: a body that goes on slowly does not keep the first read of its connection."""
    early = bytes(12 * KIB) + b"!"
    before = sys.getrefcount(early)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        body = LengthBody(PlainWire(ours, 60.0), len(early) + 1, early, expects_continue=False)
        view = memoryview(bytearray(len(early)))
        assert body.fill(view[:1]) == 1
        assert sys.getrefcount(early) > before
        assert body.fill(view[1:]) == len(early) - 1
        assert sys.getrefcount(early) == before
        assert body.left == 1
        assert body.rest() == b""


async def test_a_connection_keeps_nothing_of_its_first_read() -> None:
    """While the rest of a body is waited for, neither the connection nor its task holds what came before."""
    with trio.fail_after(30):
        async with serving(MemoryStorage()) as server, server.connect() as client:
            location = await server.start_upload()
            lane = server.connections._lane
            assert lane is not None
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {20 * KIB}\r\n\r\n".encode()
            await client.stream.send_all(head + bytes(10 * KIB))
            await wait_all_tasks_blocked(0.01)
            [connection] = [each for each in lane._connections if not each.idle]
            assert connection._unread == b""
            await client.send(bytes(10 * KIB))
            assert (await client.answer()).status == 202
            assert (await client.request("GET", "/v2/")).status == 200


async def test_while_much_is_being_stored_no_more_is_read() -> None:
    """Who would bring more waits; room that comes free is for all who wait, as long as there is some."""
    arriving = Arriving(10)
    passed: list[int] = []

    async def bring(number: int, size: int) -> None:
        await arriving.room()
        with arriving.stored(size):
            passed.append(number)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        with arriving.stored(4), arriving.stored(6):
            for number, size in enumerate((5, 5, 5, 5)):
                nursery.start_soon(bring, number, size)
                await wait_all_tasks_blocked()
            assert passed == []
        await wait_all_tasks_blocked()
        assert len(passed) == 2
        nursery.cancel_scope.cancel()
    assert arriving.whole == 0


@pytest.mark.parametrize("front", FRONTS)
async def test_manifests_wait_for_those_that_are_being_stored(front: str) -> None:
    """And are taken when those are done."""
    with trio.fail_after(30):
        async with serving(MemoryStorage(), front) as server, server.connect() as client:
            arriving = server.service.arriving
            with arriving.stored(MOST_BYTES):
                target = "/v2/some/name/manifests/1"
                length = {"Content-Length": str(len(INDEX)), "Content-Type": KIND}
                await client.send_head("PUT", target, length)
                await client.send(INDEX)
                while not arriving._waiting:
                    await wait_all_tasks_blocked(0.01)
                assert arriving.held == 0
            assert (await client.answer()).status == 201

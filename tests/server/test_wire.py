"""A connection as the direct lane sees it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioreg.server.wire import PlainWire


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, PlainWire]]:
    """A client's socket, and ours as a wire."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setblocking(False)
    with client, ours:
        yield client, PlainWire(ours, 60.0)


async def test_a_quick_client_that_slows_down(pair: tuple[socket.socket, PlainWire]) -> None:
    """We wake when as much is there as is worth it, or for less once a moment has passed."""
    client, wire = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: wire.readable(bytes_at_once=1000))
        await wait_all_tasks_blocked()
        client.sendall(b"x" * 10)
        assert select.select([wire.sock], [], [], 0)[0] == []
        assert wire.be_content()
    assert not wire.be_content()
    assert wire.receive(100) == b"x" * 10
    client.sendall(b"y" * 1000)
    await wire.readable(bytes_at_once=1000)
    assert wire.receive(2000) == b"y" * 1000


async def test_the_end_wakes_us_whatever_we_wait_for(pair: tuple[socket.socket, PlainWire]) -> None:
    """A client that leaves in the middle of a piece: its last bytes, and then the end."""
    client, wire = pair
    client.sendall(b"last")
    client.close()
    await wire.readable(bytes_at_once=1000)
    assert wire.receive(100) == b"last"
    await wire.readable(bytes_at_once=1000)
    assert wire.receive(100) == b""


async def test_nobody_waits_for_much_of_a_next_request(pair: tuple[socket.socket, PlainWire]) -> None:
    """The next wait is for any byte again."""
    client, wire = pair
    client.sendall(b"x" * 1000)
    await wire.readable(bytes_at_once=1000)
    assert wire.receive(2000) == b"x" * 1000
    client.sendall(b"G")
    await wire.readable()
    assert wire.receive(10) == b"G"

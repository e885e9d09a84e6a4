"""Several worker processes on one port: they share nothing but the files."""

from __future__ import annotations

import http.client
import os
import signal
import time
from pathlib import Path

import pytest
from blackbox import Server, digest_of, path_of, push_blob, seeded_bytes, with_query

from .test_life import SOON, end

WORKERS = {"http.workers": "2", "http.idle_timeout": "5"}


def workers_of(server: Server) -> set[int]:
    """The processes that serve; the one that was started only watches them."""
    return {int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()}


def who_answers(server: Server) -> str:
    """A name of the worker that takes a new connection: the first half of its request ids."""
    answer = server.request("GET", "/v2/")
    assert answer.status == 200
    return str(answer.headers["X-Request-Id"]).partition("-")[0]


def until_both_answered(server: Server) -> None:
    names: set[str] = set()
    for _ in range(200):  # The kernel spreads connections at random: all to one is 2 ** -199.
        names.add(who_answers(server))
        if len(names) == 2:
            return
    pytest.fail("one worker took every connection")


def until_one_is_left(server: Server) -> None:
    """Who has nothing to do ends as soon as it is told to, and the other was told at the same time."""
    limit = time.monotonic() + SOON
    while len(workers_of(server)) > 1:
        assert time.monotonic() < limit, "no worker ended"
        os.sched_yield()


def test_any_worker_goes_on_with_any_upload(tmp_path: Path) -> None:
    """A session is begun, fed in pieces and finished on connections that the kernel deals to either."""
    with Server(tmp_path, settings=WORKERS) as server:
        assert len(workers_of(server)) == 2
        until_both_answered(server)
        data = seeded_bytes(7, 300_000)
        location = path_of(server.request("POST", "/v2/a/b/blobs/uploads/").headers["Location"])
        for start in range(0, len(data), 10_000):
            piece = data[start : start + 10_000]
            where = {"Content-Range": f"{start}-{start + len(piece) - 1}"}
            assert server.request("PATCH", location, piece, where).status == 202
        finished = server.request("PUT", with_query(location, f"digest={digest_of(data)}"))
        assert finished.status == 201
        assert server.request("GET", f"/v2/a/b/blobs/{digest_of(data)}").body == data


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """What was published stays, what was begun goes on, and the port answers all the time."""
    with Server(tmp_path, settings=WORKERS) as server:
        data = seeded_bytes(8, 50_000)
        digest = push_blob(server, "a/b", data)
        location = path_of(server.request("POST", "/v2/a/b/blobs/uploads/").headers["Location"])
        assert server.request("PATCH", location, data[:20_000]).status == 202
        for victim in workers_of(server):
            os.kill(victim, signal.SIGKILL)
        # Connections wait in the sockets that the parent holds until the successors accept them.
        assert server.request("GET", f"/v2/a/b/blobs/{digest}").body == data
        assert server.request("GET", location).headers["Range"] == "0-19999"
        assert server.request("PATCH", location, data[20_000:]).status == 202
        until_both_answered(server)


def test_the_budget_is_divided(tmp_path: Path) -> None:
    """What one worker may take is too little for a third, and the error says so."""
    with pytest.raises(RuntimeError, match="for each of 64 workers"):
        Server(tmp_path, settings={"http.workers": "64"}).start()


@pytest.mark.parametrize("first", ["watcher", "workers"])
def test_a_signal_to_all_of_them_at_once(tmp_path: Path, first: str) -> None:
    """A service manager tells every process of a group: what is under way is finished, then all end."""
    with Server(tmp_path, settings={**WORKERS, "http.shutdown_grace": "600"}) as server:
        data = seeded_bytes(9, 300_000)
        begin = f"POST /v2/a/b/blobs/uploads/?digest={digest_of(data)} HTTP/1.1\r\nHost: a\r\n"
        begin += f"Content-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(begin.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            connection.sendall(data[:150_000])
            everyone = [server.pid, *workers_of(server)]
            for pid in everyone if first == "watcher" else reversed(everyone):
                os.kill(pid, signal.SIGTERM)
            until_one_is_left(server)
            connection.sendall(data[150_000:])
            answer = http.client.HTTPResponse(connection, method="POST")
            answer.begin()
            assert answer.status == 201
            answer.read()
        assert end(server) == 0
    with Server(tmp_path) as again:
        assert again.request("GET", f"/v2/a/b/blobs/{digest_of(data)}").body == data

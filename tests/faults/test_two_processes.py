"""Two server processes on one directory are one registry."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from blackbox import Answer, Server, digest_of, image, push_blob, push_manifest, seeded_bytes, with_query

Pair = tuple[Server, Server]
CONTENT = seeded_bytes("two processes", 300_000)
DIGEST = digest_of(CONTENT)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two servers, one storage; a lease is waited for as long as a test may take."""
    home = tmp_path_factory.mktemp("pair")
    settings = {"upload.lease_wait": "20"}
    with Server(home / "a", storage=home / "storage", settings=settings) as a:
        with Server(home / "b", storage=home / "storage", settings=settings) as b:
            yield a, b


def begin(server: Server, name: str) -> str:
    answer = server.request("POST", f"/v2/{name}/blobs/uploads/", b"")
    assert answer.status == 202
    return answer.headers["Location"]


def append(server: Server, location: str, start: int, end: int) -> Answer:
    return server.request("PATCH", location, CONTENT[start:end], {"Content-Range": f"{start}-{end - 1}"})


def finish(server: Server, location: str) -> Answer:
    return server.request("PUT", with_query(location, f"digest={DIGEST}"), b"")


def at_once(*calls: Callable[[], Answer]) -> list[Answer]:
    """The answers to requests that were sent at the same time."""
    answers: dict[int, Answer] = {}
    start = threading.Barrier(len(calls))

    def call(index: int) -> None:
        start.wait()
        answers[index] = calls[index]()

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[index] for index in range(len(calls))]


def check_blob(pair: Pair, name: str) -> None:
    for server in pair:
        assert server.request("GET", f"/v2/{name}/blobs/{DIGEST}").body == CONTENT


@pytest.mark.parametrize("last", [0, 1])
def test_an_upload_wanders(pair: Pair, last: int) -> None:
    """Begun on one, continued on the other, finished on either: nothing is lost between."""
    location = begin(pair[0], f"wander/{last}")
    bounds = [0, 1, 64, 1000, 99_999, 100_001, len(CONTENT)]
    for step, (start, end) in enumerate(pairwise(bounds)):
        answer = append(pair[(step + 1) % 2], location, start, end)
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{end - 1}")
        for server in pair:
            assert server.request("GET", location).headers["Range"] == f"0-{end - 1}"
    assert finish(pair[last], location).status == 201
    check_blob(pair, f"wander/{last}")
    for server in pair:
        assert server.request("GET", location).status == 404


@pytest.mark.parametrize("turn", range(5))
def test_the_same_chunk_on_both(pair: Pair, turn: int) -> None:
    """Of two PATCHes of one chunk one is taken; the other is 416 with the range, and nothing is doubled."""
    location = begin(pair[0], f"both/{turn}")
    answers = at_once(*[lambda server=server: append(server, location, 0, 100_000) for server in pair])
    assert sorted(answer.status for answer in answers) == [202, 416]
    assert [answer.headers["Range"] for answer in answers] == ["0-99999"] * 2
    assert append(pair[turn % 2], location, 100_000, len(CONTENT)).status == 202
    assert finish(pair[0], location).status == 201
    check_blob(pair, f"both/{turn}")


def test_cancelled_on_the_other(pair: Pair) -> None:
    """A session cancelled on one is unknown on the other."""
    location = begin(pair[0], "cancel")
    assert append(pair[0], location, 0, 10).status == 202
    assert pair[1].request("DELETE", location).status == 204
    assert append(pair[0], location, 10, 20).status == 404
    assert finish(pair[0], location).status == 404


def test_commit_while_the_other_waits(pair: Pair) -> None:
    """B waits for the lease while A commits: B finds no session, the blob is unchanged (T20)."""
    a, b = pair
    location = begin(a, "waits")
    head = f"PUT {with_query(location, f'digest={DIGEST}')} HTTP/1.1\r\nHost: {a.address}\r\n"
    with a.connect() as holder:
        holder.sendall(f"{head}Content-Length: {len(CONTENT)}\r\n\r\n".encode() + CONTENT[:100_000])
        wait_for_bytes(a, location)
        late: list[Answer] = []
        # No Content-Range: only the session itself can refuse these bytes.
        waiter = threading.Thread(target=lambda: late.append(b.request("PATCH", location, b"x" * 1000)))
        waiter.start()
        holder.sendall(CONTENT[100_000:])
        assert holder.recv(64).startswith(b"HTTP/1.1 201")
        waiter.join()
    assert (late[0].status, late[0].error_codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    check_blob(pair, "waits")
    path = a.storage / "blobs" / "sha256" / DIGEST[7:9] / DIGEST[7:]
    assert digest_of(path.read_bytes()) == DIGEST


def wait_for_bytes(server: Server, location: str) -> None:
    """Until the server holds the lease and has written something: its file has grown."""
    data = server.storage / "uploads" / Path(location).name / "data"
    deadline = time.monotonic() + 20
    while not data.stat().st_size:
        assert time.monotonic() < deadline, "nothing arrives"
        os.sched_yield()


def test_tags_move(pair: Pair) -> None:
    """A tag set, moved or deleted on one is so on the other at once."""
    a, b = pair
    manifests = [image(b"{}", annotations={"variant": str(at)}) for at in range(10)]
    for at, manifest in enumerate(manifests):
        push_manifest((a, b)[at % 2], "moves", manifest, "latest")
        for server in pair:
            found = server.request("GET", "/v2/moves/manifests/latest")
            assert (found.status, found.headers["Docker-Content-Digest"]) == (200, manifest.digest)
            assert found.body == manifest.body
    assert a.request("DELETE", "/v2/moves/manifests/latest").status == 202
    assert b.request("GET", "/v2/moves/manifests/latest").status == 404
    assert b.request("GET", "/v2/moves/tags/list").json()["tags"] == []
    assert b.request("DELETE", f"/v2/moves/manifests/{manifests[0].digest}").status == 202
    assert a.request("GET", f"/v2/moves/manifests/{manifests[0].digest}").status == 404


@pytest.mark.parametrize("turn", range(5))
def test_the_same_blob_on_both(pair: Pair, turn: int) -> None:
    """One digest pushed on both at once: both are created, and the blob is right."""
    content = seeded_bytes(turn, 200_000)
    digest = digest_of(content)
    path = f"/v2/same/{turn}/blobs/uploads/?digest={digest}"
    answers = at_once(*[lambda server=server: server.request("POST", path, content) for server in pair * 2])
    assert [answer.status for answer in answers] == [201] * 4
    for server in pair:
        assert server.request("GET", f"/v2/same/{turn}/blobs/{digest}").body == content


def test_mounted_on_the_other(pair: Pair) -> None:
    """A blob pushed on one can be mounted on the other, and deleted there."""
    digest = push_blob(pair[0], "mount/from", b"to be mounted")
    answer = pair[1].request("POST", f"/v2/mount/to/blobs/uploads/?mount={digest}&from=mount/from", b"")
    assert answer.status == 201
    assert pair[0].request("GET", f"/v2/mount/to/blobs/{digest}").body == b"to be mounted"
    assert pair[0].request("DELETE", f"/v2/mount/to/blobs/{digest}").status == 202
    assert pair[1].request("GET", f"/v2/mount/to/blobs/{digest}").status == 404
    assert pair[1].request("GET", f"/v2/mount/from/blobs/{digest}").status == 200

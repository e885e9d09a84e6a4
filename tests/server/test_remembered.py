"""A reply that was remembered is what a new one would be, whatever happened in between; over both fronts."""

from __future__ import annotations

import errno
import json
import os
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from aging import age, age_files
from auth.people import basic, guard, write_htpasswd, write_rules
from blackbox import DOCKER_LIST, OCI_INDEX, Server, digest_of, image, push_manifest
from inprocess import FRONTS, KIB, InProcess, serving

from trioreg.api import blobs, manifests
from trioreg.api.rates import RateLimits
from trioreg.api.remembered import ENTRY_BYTES, Remembered
from trioreg.events.event import Event
from trioreg.oci.digest import parse_digest
from trioreg.oci.names import RepositoryName
from trioreg.registry.pulls import Pulls
from trioreg.storage import layout
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.filesystem.aside import set_aside

NAME = RepositoryName("some/name")
BLOB = b"a small blob"
WHERE = f"/v2/{NAME}/blobs/{digest_of(BLOB)}"
LATEST = f"/v2/{NAME}/manifests/latest"


def index(number: int) -> bytes:
    """Without a media type of its own: it has the one that it is pushed with."""
    return json.dumps({"schemaVersion": 2, "manifests": [], "annotations": {"number": str(number)}}).encode()


def by_digest(content: bytes) -> str:
    return f"/v2/{NAME}/manifests/{digest_of(content)}"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The path of each reply that was made anew and not given again."""
    paths: list[str] = []

    def watched(real: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def get(service: Any, operation: Any, exchange: Any) -> Any:
            paths.append(exchange.path)
            return await real(service, operation, exchange)

        return get

    for module in (manifests, blobs):
        monkeypatch.setattr(module, "get", watched(module.get))
    return paths


@asynccontextmanager
async def filled(root: Path, front: str = "direct", **settings: Any) -> AsyncIterator[InProcess]:
    """A server with a blob and a manifest, both there for an hour."""
    storage = FilesystemStorage(root, Disk(durable=False))
    with trio.fail_after(30):
        async with serving(storage, front, **settings) as server:
            await push_index(server, index(0))
            pushed = await server.request("POST", f"/v2/{NAME}/blobs/uploads/?digest={digest_of(BLOB)}", BLOB)
            assert pushed.status == 201, pushed
            age(storage, 3600)
            yield server


async def push_index(
    server: InProcess, content: bytes, media_type: str = OCI_INDEX, where: str = LATEST
) -> None:
    pushed = await server.request("PUT", where, content, {"Content-Type": media_type})
    assert pushed.status == 201, pushed


async def warm(server: InProcess, *paths: str) -> None:
    """Ask until the next one to ask is given what was remembered."""
    async with server.connect() as client:
        for path in paths:
            for _ in range(3):
                assert (await client.request("GET", path)).status == 200


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "size"),
    [
        ("GET", LATEST, {}, 200, len(index(0))),
        ("HEAD", LATEST, {}, 200, len(index(0))),
        ("GET", by_digest(index(0)), {}, 200, len(index(0))),
        ("GET", WHERE, {}, 200, len(BLOB)),
        ("GET", WHERE, {"Range": "bytes=2-4"}, 206, 3),
        ("GET", LATEST, {"If-None-Match": f'"{digest_of(index(0))}"'}, 304, 0),
    ],
)
async def test_given_again(
    front: str,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    size: int,
    tmp_path: Path,
    made: list[str],
) -> None:
    """From the third time on it is not made anew: the same but for the request's id and the time."""
    async with filled(tmp_path, front) as server:
        answers = []
        for known in (False, False, True, True):
            made.clear()
            answers.append(answer := await server.request(method, path, headers=headers))
            assert made == ([] if known else [path])
            assert answer.status == status
            assert len(answer.body) == (0 if method == "HEAD" else size)
    ids = [answer.headers.pop("x-request-id") for answer in answers]
    assert len(set(ids)) == len(answers)
    for answer in answers:
        assert answer.headers.pop("date")
        assert (answer.headers, answer.body) == (answers[0].headers, answers[0].body)


async def test_who_asks_otherwise_gets_otherwise(tmp_path: Path, made: list[str]) -> None:
    """Method, range and conditions are told apart, in any order; other header fields make no difference."""
    tag = f'"{digest_of(BLOB)}"'
    asked: list[tuple[str, dict[str, str], int, bytes]] = [
        ("GET", {}, 200, BLOB),
        ("GET", {"If-None-Match": tag}, 304, b""),
        ("GET", {"If-None-Match": '"other"'}, 200, BLOB),
        ("GET", {"Range": "bytes=0-0"}, 206, BLOB[:1]),
        ("GET", {"Range": "bytes=1-1"}, 206, BLOB[1:2]),
        ("GET", {"Range": "bytes=1-1", "If-Range": '"other"'}, 200, BLOB),
        ("GET", {"Range": "bytes=100-"}, 416, b""),
        ("HEAD", {}, 200, b""),
    ]
    async with filled(tmp_path) as server, server.connect() as client:
        for turn in range(5):
            for method, headers, status, body in asked:
                more = {"User-Agent": f"client/{turn}", "Accept": "*/*"}
                answer = await client.request(method, WHERE, headers={**headers, **more})
                assert (answer.status, answer.body) == (status, body) or status == answer.status == 416
        # Two of each that is remembered, five of the refusal and of HEAD, which refreshes the blob's time.
        assert len(made) == 6 * 2 + 2 * 5


async def moved(server: InProcess, _root: Path) -> tuple[str, int, bytes]:
    await push_index(server, index(1))
    return LATEST, 200, index(1)


async def moved_and_back(server: InProcess, root: Path) -> tuple[str, int, bytes]:
    await moved(server, root)
    await push_index(server, index(0))
    return LATEST, 200, index(0)


async def tag_deleted(server: InProcess, _root: Path) -> tuple[str, int, bytes]:
    assert (await server.request("DELETE", LATEST)).status == 202
    return LATEST, 404, b""


async def manifest_deleted(server: InProcess, _root: Path) -> tuple[str, int, bytes]:
    assert (await server.request("DELETE", by_digest(index(0)))).status == 202
    return LATEST, 404, b""


async def manifest_deleted_by_digest(server: InProcess, root: Path) -> tuple[str, int, bytes]:
    await manifest_deleted(server, root)
    return by_digest(index(0)), 404, b""


async def blob_unlinked(server: InProcess, _root: Path) -> tuple[str, int, bytes]:
    assert (await server.request("DELETE", WHERE)).status == 202
    return WHERE, 404, b""


async def blob_pushed_again(server: InProcess, root: Path) -> tuple[str, int, bytes]:
    await blob_unlinked(server, root)
    assert (await server.request("POST", f"/v2/{NAME}/blobs/uploads/?digest={digest_of(BLOB)}", BLOB)).status
    return WHERE, 200, BLOB


async def link_removed_by_hand(_server: InProcess, root: Path) -> tuple[str, int, bytes]:
    (root / layout.revision_link(NAME, parse_digest(digest_of(index(0))))).unlink()
    return LATEST, 404, b""


async def another_process_moved_it(_server: InProcess, root: Path) -> tuple[str, int, bytes]:
    async with serving(FilesystemStorage(root, Disk(durable=False))) as other:
        await push_index(other, index(2))
    return LATEST, 200, index(2)


async def collection_set_it_aside(_server: InProcess, root: Path) -> tuple[str, int, bytes]:
    assert set_aside(Disk(durable=False), root, layout.layer_link(NAME, parse_digest(digest_of(BLOB))))
    return WHERE, 200, BLOB


CHANGES = [
    moved,
    moved_and_back,
    tag_deleted,
    manifest_deleted,
    manifest_deleted_by_digest,
    blob_unlinked,
    blob_pushed_again,
    link_removed_by_hand,
    another_process_moved_it,
    collection_set_it_aside,
]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_change_counts_at_once(
    front: str, change: Callable[[InProcess, Path], Awaitable[tuple[str, int, bytes]]], tmp_path: Path
) -> None:
    """The next request sees it, and so do those after it."""
    async with filled(tmp_path, front) as server:
        await warm(server, LATEST, by_digest(index(0)), WHERE)
        path, status, body = await change(server, tmp_path)
        for _ in range(4):
            answer = await server.request("GET", path)
            assert answer.status == status
            assert answer.body == body or status == 404


@pytest.mark.parametrize("front", FRONTS)
async def test_another_media_type(front: str, tmp_path: Path) -> None:
    """The same bytes pushed again as something else: the tag's link is as it was, the type is not."""
    async with filled(tmp_path, front) as server:
        await warm(server, LATEST)
        await push_index(server, index(0), DOCKER_LIST, by_digest(index(0)))
        for _ in range(4):
            assert (await server.request("GET", LATEST)).headers["content-type"] == DOCKER_LIST


async def test_changes_within_a_tick_of_the_clock(tmp_path: Path) -> None:
    """What changed a moment ago may change again with the same time: it is looked up each time."""
    async with filled(tmp_path) as server, server.connect() as client:
        await warm(server, LATEST)
        for number in range(1, 50):
            await push_index(server, index(number % 7))
            for _ in range(3):
                assert (await client.request("GET", LATEST)).body == index(number % 7)


@pytest.mark.parametrize("front", FRONTS)
async def test_everybody_is_asked_who_they_are(front: str, tmp_path: Path, made: list[str]) -> None:
    """One reply serves all who may have it, and nobody else: wrong, revoked, denied by a new rule."""
    storage, rules = tmp_path / "storage", "[[rule]]\nwho = ['ann', 'eve']\nmay = ['pull', 'push']\n"
    ann, eve = basic("ann"), basic("eve")
    access = guard(tmp_path)
    write_rules(tmp_path, rules)
    with trio.fail_after(30):
        objects = FilesystemStorage(storage, Disk(durable=False))
        async with serving(objects, front, authorizer=access) as server:

            async def status(headers: dict[str, str]) -> int:
                return (await server.request("GET", LATEST, headers=headers)).status

            pushed = await server.request("PUT", LATEST, index(0), {"Content-Type": OCI_INDEX, **ann})
            assert pushed.status == 201
            age(objects, 3600)
            assert [await status(each) for each in (ann, eve, ann, eve)] == [200] * 4
            assert made == [LATEST] * 2
            assert await status({}) == await status(basic("ann", "wrong")) == 401
            assert await status(basic("root")) == 403
            write_htpasswd(tmp_path, {"ann": "ann's secret"})
            assert await status(eve) == 401
            write_rules(tmp_path, rules.replace("'ann', ", ""))
            assert await status(ann) == 403
            write_rules(tmp_path, rules)
            assert await status(ann) == 200
            assert made == [LATEST] * 2


@pytest.mark.parametrize("front", FRONTS)
async def test_every_request_counts_for_the_rate(front: str, tmp_path: Path, made: list[str]) -> None:
    """A client that has used up its requests gets none of the replies that cost us little either."""
    async with filled(tmp_path, front) as server:
        server.service.rates.limits = RateLimits(0.01, 5)
        statuses = [(await server.request("GET", LATEST)).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        assert len(made) == 2


class Told:
    """An `events.Recorder` that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def record(self, event: Event) -> None:
        self.events.append(event)


@pytest.mark.parametrize("front", FRONTS)
async def test_every_pull_is_told(front: str, tmp_path: Path) -> None:
    """Each with the id of its own request."""
    async with filled(tmp_path, front) as server:
        server.service.events = told = Told()
        answers = [await server.request("GET", LATEST) for _ in range(4)]
        assert [event.request for event in told.events] == [each.headers["x-request-id"] for each in answers]
        assert {(event.action, event.tag, event.digest) for event in told.events} == {
            ("pull", "latest", digest_of(index(0)))
        }


class Noted(Pulls):
    """Counts what is to be noted."""

    count = 0

    async def note(self, name: RepositoryName, digest: object) -> None:
        assert (name, str(digest)) == (NAME, digest_of(index(0)))
        self.count += 1


@pytest.mark.parametrize("front", FRONTS)
async def test_every_pull_is_noted_for_retention(front: str, tmp_path: Path) -> None:
    """Of manifests, by tag and by digest; a blob has no note."""
    async with filled(tmp_path, front) as server:
        await warm(server, LATEST, by_digest(index(0)), WHERE)
        noted = server.service.registry.manifests.pulls = Noted(FilesystemStorage(tmp_path))
        await warm(server, LATEST, by_digest(index(0)), WHERE)
        assert noted.count == 6


class FailingDisk(Disk):
    failing = False

    def stat(self, path: str) -> os.stat_result:
        if self.failing:
            raise OSError(errno.EIO, "input/output error")
        return super().stat(path)


@pytest.mark.parametrize("front", FRONTS)
async def test_a_disk_that_fails(front: str, tmp_path: Path) -> None:
    """What cannot be looked at is not promised: 503, and the reply again when the disk is well."""
    disk = FailingDisk(durable=False)
    async with filled(tmp_path, front), serving(FilesystemStorage(tmp_path, disk), front) as server:
        await warm(server, LATEST)
        disk.failing = True
        assert (await server.request("GET", LATEST)).status == 503
        disk.failing = False
        assert (await server.request("GET", LATEST)).body == index(0)


async def test_pipelined_and_closed(tmp_path: Path) -> None:
    """Three at once on one connection: in order, each with its own id, and closed when that was asked for."""
    async with filled(tmp_path) as server, server.connect() as client:
        await warm(server, LATEST, WHERE)
        await client.send(
            f"GET {LATEST} HTTP/1.1\r\nHost: a\r\n\r\n"
            f"HEAD {LATEST} HTTP/1.1\r\nHost: a\r\n\r\n"
            f"GET {WHERE} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        )
        answers = [await client.answer(method) for method in ("GET", "HEAD", "GET")]
        assert [answer.body for answer in answers] == [index(0), b"", BLOB]
        assert len({answer.headers["x-request-id"] for answer in answers}) == 3
        assert ["connection" in answer.headers for answer in answers] == [False, False, True]
        assert await client.ended()


async def test_large_content_is_not_kept(tmp_path: Path, made: list[str]) -> None:
    """It leaves by `sendfile`; the cache stays for what is small."""
    large = bytes(100 * KIB)
    async with filled(tmp_path) as server:
        await server.request("POST", f"/v2/{NAME}/blobs/uploads/?digest={digest_of(large)}", large)
        for _ in range(4):
            assert (await server.request("GET", f"/v2/{NAME}/blobs/{digest_of(large)}")).body == large
        assert len(made) == 4
        assert server.service.remembered.statistics().entries == 0


async def test_what_an_entry_takes(tmp_path: Path) -> None:
    """No more than it is counted for, and all together no more than the limit."""
    count, limit = 200, 400 * KIB
    async with filled(tmp_path) as server:
        for number in range(count):
            await push_index(server, index(0), where=f"/v2/{NAME}/manifests/tag-{number}")
        asked = [f"/v2/{NAME}/manifests/tag-{number}" for number in range(count)] * 3
        async with server.connect() as client:
            for path in asked:
                await client.request("GET", path)
            server.service.remembered = remembered = Remembered(limit)
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for path in asked:
                    assert (await client.request("GET", path)).status == 200
                taken = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
    look = remembered.statistics()
    assert 100 < look.entries < count
    assert look.bytes <= limit
    assert taken / look.entries < ENTRY_BYTES + len(index(0))


async def test_no_cache(tmp_path: Path, made: list[str]) -> None:
    """With `memory.cache` 0 every reply is made anew."""
    async with filled(tmp_path) as server:
        server.service.remembered = Remembered(0)
        await warm(server, LATEST)
        assert len(made) == 3


def test_two_workers(tmp_path: Path) -> None:
    """What one worker changes, the other does not give again."""
    with Server(tmp_path, settings={"http.workers": "2"}) as server:
        for number in range(3):
            pushed = image(str(number).encode())
            push_manifest(server, NAME, pushed, "latest")
            age_files(server.storage, 3600)
            for _ in range(20):  # of which each worker gets some
                assert server.request("GET", LATEST).body == pushed.body
        assert server.request("DELETE", LATEST).status == 202
        assert {server.request("GET", LATEST).status for _ in range(20)} == {404}

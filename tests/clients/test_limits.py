"""What clients make of our limits: skopeo waits for a place, comes back after a 429, and shows a refusal."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blackbox import Manifest, Server, path_of, push_manifest, seeded_bytes

from clients.images import assert_holds, platform_image, tar_of, write_layout
from clients.programs import Program


@pytest.fixture
def skopeo(tmp_path: Path) -> Program:
    return Program(["skopeo", "--insecure-policy"], tmp_path / "home")


@pytest.fixture
def image() -> Manifest:
    """Six layers, which clients push side by side."""
    layers = [tar_of({f"{number}.bin": seeded_bytes(number, 200_000)}) for number in range(6)]
    return platform_image([(layer, True) for layer in layers])


@contextmanager
def serving(home: Path, front: str, **settings: str) -> Iterator[Server]:
    dotted = {name.replace("_", ".", 1): value for name, value in settings.items()}
    with Server(home / "server", settings={"http.front": front, **dotted}) as server:
        yield server


@contextmanager
def freed_after_a_refusal(server: Server, busy: socket.socket) -> Iterator[None]:
    """Another client leaves as soon as somebody was told 429; at the latest when we are done."""
    over = threading.Event()

    def watch() -> None:
        while " status=429 " not in server.stderr and not over.wait(0.05):
            pass
        busy.close()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def copy(server: Server, source: str) -> list[str]:
    target = f"docker://{server.address}/team/app:1"
    return ["copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests", source, target]


def test_one_place_for_six_layers(http_front: str, skopeo: Program, image: Manifest, tmp_path: Path) -> None:
    """They wait in turn, and nobody is told 429."""
    with serving(tmp_path, http_front, admission_places="1") as server:
        skopeo(*copy(server, write_layout(tmp_path / "layout", image)))
        assert_holds(server, "team/app", "1", image)
        assert " status=429 " not in server.stderr


@pytest.mark.one_front
def test_a_client_that_is_told_429_comes_back(http_front: str, skopeo: Program, tmp_path: Path) -> None:
    """With no queue, and the only place taken until the first refusal: the push still ends well.

    skopeo comes back four times, each when Retry-After says so.
    """
    image = platform_image([(tar_of({"one": b"one"}), True)])
    with serving(tmp_path, http_front, admission_places="1", admission_wait="0") as server:
        opened = server.request("POST", "/v2/team/other/blobs/uploads/")
        assert opened.status == 202
        busy = server.connect()
        location = path_of(opened.headers["Location"])
        head = f"PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
        busy.sendall(head.encode() + b"x")
        with freed_after_a_refusal(server, busy):
            skopeo(*copy(server, write_layout(tmp_path / "layout", image)))
        assert_holds(server, "team/app", "1", image)
        assert " status=429 " in server.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quota_bytes": "team/=500KB"}, "quota of the repository is used up"),
        ({"quota_tags": "team/*=1"}, "quota of the repository is used up"),
        ({"blob_max_bytes": "100KB"}, "blob is larger than the limit"),
        # skopeo reads the body of a 4xx only.
        ({"storage_reserve": "999TiB"}, "507"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_refusal_is_shown(
    http_front: str, settings: dict[str, str], says: str, skopeo: Program, image: Manifest, tmp_path: Path
) -> None:
    """Who pushes reads why it did not work, and is not kept waiting."""
    with serving(tmp_path, http_front, **settings) as server:
        if "quota_tags" in settings:
            push_manifest(server, "team/app", platform_image([]), "taken")
        failed = skopeo.attempt(*copy(server, write_layout(tmp_path / "layout", image)))
        assert failed.returncode != 0
        assert says in failed.stderr

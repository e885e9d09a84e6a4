"""Real collections beside a real server: clients that skip what HEAD promised are never refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
from aging import age_files
from blackbox import Server, digest_of, image, push_blob, push_manifest

ROUNDS = 2
OLD = 10 * 86_400.0
NAME = "beside/gc"
LAYERS = [b"layer %d" % number for number in range(12)]
# Images that share their layers.
IMAGES = [image(b"{}", LAYERS[number : number + 3]) for number in range(10)]


def bring(server: Server, number: int) -> None:
    """Push an image, its blobs only where HEAD does not say that they are there."""
    for blob in (b"{}", *LAYERS[number : number + 3]):
        if server.request("HEAD", f"/v2/{NAME}/blobs/{digest_of(blob)}").status == 404:
            push_blob(server, NAME, blob)
    push_manifest(server, NAME, IMAGES[number], f"t{number}")


def check(server: Server, number: int) -> None:
    """An image can be pulled, with all its blobs."""
    assert server.request("GET", f"/v2/{NAME}/manifests/t{number}").body == IMAGES[number].body
    for blob in (b"{}", *LAYERS[number : number + 3]):
        assert server.request("GET", f"/v2/{NAME}/blobs/{digest_of(blob)}").body == blob


def trioreg(server: Server, command: str) -> list[str]:
    return [sys.executable, "-m", "trioreg", command, "--storage", str(server.storage)]


@pytest.mark.one_front
def test_pushes_beside_collections(fresh_server: Server) -> None:
    """Each round everything is garbage and old, and is pushed again while a collection runs."""
    for _ in range(ROUNDS):
        for number in range(len(IMAGES)):
            bring(fresh_server, number)
        for manifest in IMAGES:
            path = f"/v2/{NAME}/manifests/{manifest.digest}"
            assert fresh_server.request("DELETE", path).status == 202
        age_files(fresh_server.storage, OLD)
        pushed: list[int] = []
        with subprocess.Popen(trioreg(fresh_server, "gc"), stdout=subprocess.DEVNULL) as collection:
            while collection.poll() is None or not pushed:
                pushed.append(len(pushed) % len(IMAGES))
                bring(fresh_server, pushed[-1])
        assert collection.returncode == 0
        for number in set(pushed):
            check(fresh_server, number)
    assert subprocess.run(trioreg(fresh_server, "verify"), check=False).returncode == 0

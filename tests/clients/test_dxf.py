"""The Python client `dxf` pushes, pulls, mounts, names, lists and deletes blobs.

True here: blobs travel from a file (a known length) and from an iterator (chunked coding); names
and repositories are listed page by page; a push that breaks off leaves nothing, and the next one
succeeds.
"""

import gc
import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from blackbox import (
    DOCKER_MANIFEST,
    Manifest,
    Registry,
    digest_of,
    push_manifest,
    seeded_bytes,
)

from clients.conftest import LARGE
from clients.images import platform_index
from clients.programs import require_module

PIECE = 256 * 1024  # bytes


class Repositories:
    """Opens dxf clients of one registry; closed together at the end of the test."""

    def __init__(self, server: Registry, stack: ExitStack) -> None:
        self._server = server
        self._stack = stack
        self._dxf = require_module("dxf")

    def __call__(self, name: str) -> Any:
        client = self._dxf.DXF(self._server.address, name, insecure=True, timeout=60)
        return self._stack.enter_context(client)


@pytest.fixture
def dxf(server: Registry) -> Iterator[Repositories]:
    with ExitStack() as stack:
        yield Repositories(server, stack)


def pieces(content: bytes) -> Iterator[bytes]:
    return (content[start : start + PIECE] for start in range(0, len(content), PIECE))


def push(repository: Any, content: bytes) -> str:
    digest: str = repository.push_blob(data=pieces(content), digest=digest_of(content))
    return digest


def digest_of_all(chunks: Iterable[bytes]) -> str:
    return digest_of(b"".join(chunks))


@pytest.mark.one_front
def test_large_file(dxf: Repositories, tmp_path: Path) -> None:
    """A file of 100 MB comes back, and a second push of it sends nothing."""
    content = seeded_bytes("dxf", LARGE)
    path = tmp_path / "large.bin"
    path.write_bytes(content)
    repository = dxf("dxf/large")
    sent: list[int] = []

    def progress(digest: str, chunk: bytes, size: int) -> None:
        sent.append(len(chunk))

    digest = repository.push_blob(str(path), progress=progress)
    assert digest == digest_of(content)
    assert sum(sent) == LARGE
    sent.clear()
    assert repository.push_blob(str(path), progress=progress) == digest
    assert sent == []
    assert repository.blob_size(digest) == LARGE
    chunks, size = repository.pull_blob(digest, size=True, chunk_size=1 << 20)
    assert size == LARGE
    assert digest_of_all(chunks) == digest


def test_stream_of_unknown_length(dxf: Repositories) -> None:
    """A blob sent from an iterator, in chunked coding, comes back."""
    content = seeded_bytes("dxf stream", 20_000_000)
    repository = dxf("dxf/stream")
    digest = push(repository, content)
    assert digest_of_all(repository.pull_blob(digest)) == digest


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # dxf leaves it to the collector
def test_pull_that_breaks_off(server: Registry, dxf: Repositories) -> None:
    """What dxf had when its pull was cut, and the rest by Range, are the blob."""
    content = seeded_bytes("dxf cut", 10_000_000)
    digest = push(dxf("dxf/cut"), content)
    half = list(itertools.islice(dxf("dxf/cut").pull_blob(digest, chunk_size=PIECE), 20))
    first = sum(len(chunk) for chunk in half)
    assert 0 < first < len(content)
    gc.collect()  # the connection that dxf left open, here and not in a test that follows
    rest = {"Range": f"bytes={first}-"}
    answer = server.request("GET", f"/v2/dxf/cut/blobs/{digest}", headers=rest)
    assert answer.status == 206
    assert digest_of_all([*half, answer.body]) == digest


def test_mount(server: Registry, dxf: Repositories) -> None:
    """A blob is mounted from another repository, and is not there before."""
    content = seeded_bytes("dxf mount", 1_000_000)
    digest = push(dxf("dxf/origin"), content)
    assert server.request("HEAD", f"/v2/dxf/mounted/blobs/{digest}").status == 404
    repository = dxf("dxf/mounted")
    assert repository.mount_blob("dxf/origin", digest) == digest
    assert digest_of_all(repository.pull_blob(digest)) == digest


def test_aliases(server: Registry, dxf: Repositories) -> None:
    """Names are set (Docker schema 2), resolved, listed in pages, moved and deleted."""
    repository = dxf("dxf/aliases")
    one, two = (push(repository, seeded_bytes(name, 10_000)) for name in ("one", "two"))
    for number in range(5):
        repository.set_alias(f"name{number}", one)
    repository.set_alias("name4", one, two)
    head = server.request("HEAD", "/v2/dxf/aliases/manifests/name4")
    assert head.headers["Content-Type"] == DOCKER_MANIFEST
    assert repository.get_alias("name4") == [one, two]
    assert repository.get_alias("name3") == [one]
    assert repository.get_digest("name3") == one
    assert repository.list_aliases() == [f"name{number}" for number in range(5)]
    assert repository.list_aliases(batch_size=2) == [f"name{number}" for number in range(5)]
    assert repository.del_alias("name4") == [one, two]
    assert repository.list_aliases() == [f"name{number}" for number in range(4)]


def test_platforms(server: Registry, dxf: Repositories, platforms: dict[str, Manifest]) -> None:
    """Each platform of an index resolves to its own layers."""
    for image in platforms.values():
        push_manifest(server, "dxf/index", image)
    push_manifest(server, "dxf/index", platform_index(platforms), "all")
    repository = dxf("dxf/index")
    for architecture, image in platforms.items():
        layers = repository.get_alias("all", platform=f"linux/{architecture}")
        assert layers == [digest_of(layer) for layer in image.blobs[1:]]


def test_list_repositories(dxf: Repositories) -> None:
    """The catalog names every repository, in pages too."""
    names = {f"dxf/listed/{letter}" for letter in "abc"}
    for name in names:
        repository = dxf(name)
        repository.set_alias("1", push(repository, b"listed"))
    everything = list(dxf("dxf/listed/a").list_repos())
    assert names <= set(everything)
    assert everything == sorted(everything)
    assert list(dxf("dxf/listed/a").list_repos(batch_size=2)) == everything


def test_delete_blob(server: Registry, dxf: Repositories) -> None:
    """A deleted blob is gone from its repository and stays in another that has it."""
    content = seeded_bytes("dxf delete", 5_000)
    here, there = dxf("dxf/delete/here"), dxf("dxf/delete/there")
    digest = push(here, content)
    assert there.mount_blob("dxf/delete/here", digest) == digest
    here.del_blob(digest)
    assert server.request("HEAD", f"/v2/dxf/delete/here/blobs/{digest}").status == 404
    assert digest_of_all(there.pull_blob(digest)) == digest


def test_push_that_breaks_off(server: Registry, dxf: Repositories) -> None:
    """A stream cut in the middle publishes nothing; pushed again it is whole."""
    content = seeded_bytes("dxf broken", 8_000_000)

    class Cut(Exception):
        pass

    def broken() -> Iterator[bytes]:
        yield from itertools.islice(pieces(content), 10)
        raise Cut

    repository = dxf("dxf/broken")
    digest = digest_of(content)
    with pytest.raises(Cut):
        repository.push_blob(data=broken(), digest=digest)
    assert server.request("HEAD", f"/v2/dxf/broken/blobs/{digest}").status == 404
    assert push(repository, content) == digest
    assert digest_of_all(repository.pull_blob(digest)) == digest


def test_wrong_digest_is_refused(server: Registry, dxf: Repositories) -> None:
    """A stream that is not what its digest says is refused with 400 and not published."""
    errors = require_module("requests").exceptions
    promised = digest_of(b"something else")
    with pytest.raises(errors.HTTPError) as refused:
        dxf("dxf/wrong").push_blob(data=pieces(b"this"), digest=promised)
    assert refused.value.response.status_code == 400
    assert refused.value.response.json()["errors"][0]["code"] == "DIGEST_INVALID"
    assert server.request("HEAD", f"/v2/dxf/wrong/blobs/{promised}").status == 404

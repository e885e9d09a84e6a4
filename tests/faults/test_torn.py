"""State files cut short at every length, garbled and empty, under a server that runs.

What a file says that cannot be true is not believed: never 500, never other bytes, never a broken list; and
the next push of the same thing puts it right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import (
    OCI_MANIFEST,
    Answer,
    Manifest,
    Server,
    digest_of,
    image,
    path_of,
    push_blob,
    push_manifest,
    with_query,
)

from trioreg.oci.digest import parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, Tag
from trioreg.storage.filesystem import FilesystemStorage

from .client import registry_over
from .tally import SEED, TALLY, size

CONTENT = b"bytes of an upload" * 100
REPOSITORY = "torn"
SUBJECT = image(b"subject", [])
IMAGE = image(b"config", [b"layer"], subject=SUBJECT.descriptor)
FAULT = "torn state file"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("torn"), settings={"log.access": "false"}) as running:
        push_manifest(running, REPOSITORY, SUBJECT)
        yield running
    assert "unforeseen" not in running.stderr


def torn(good: bytes) -> Iterator[bytes]:
    """Every length, each byte another one (some of them in a test run), zeroes, more than there was."""
    choose = random.Random(f"{SEED}{len(good)}")
    yield from (good[:length] for length in range(len(good)))
    places = range(len(good)) if size(0, 1) else sorted(choose.sample(range(len(good)), min(20, len(good))))
    for at in places:
        yield good[:at] + bytes([good[at] ^ choose.randrange(1, 256)]) + good[at + 1 :]
    yield bytes(len(good))
    yield b"\r\nX: " + good
    yield good + b"\n"
    yield good + good
    yield choose.randbytes(len(good))


def write(path: Path, data: bytes) -> None:
    """A new file, as a crash leaves one; the stamp tells it from the old."""
    path.unlink()
    path.write_bytes(data)


def check_answer(answer: Answer, body: bytes) -> None:
    """The right bytes, or that there are none."""
    assert answer.status in (200, 404), (answer, answer.body)
    if answer.status == 200:
        assert answer.body == body
        assert answer.headers["Content-Type"].startswith("application/")


def link(repository: str, *parts: str) -> str:
    return "/".join(["repositories", repository, *parts])


def hex_of(manifest: Manifest) -> str:
    return manifest.digest.partition(":")[2]


LAYER = digest_of(b"layer").partition(":")[2]
REREAD = {
    "layer link": link(REPOSITORY, "_layers/sha256", LAYER, "link"),
    "revision link": link(REPOSITORY, "_manifests/revisions/sha256", hex_of(IMAGE), "link"),
    "tag": link(REPOSITORY, "_manifests/tags/latest/current/link"),
}
# Never changed under a server that has read them, which remembers them: so a new registry reads each tear.
READ_ONCE = {
    "media type": link(REPOSITORY, "_manifests/revisions/sha256", hex_of(IMAGE), "media-type"),
    "referrer": link(REPOSITORY, "_referrers/sha256", hex_of(SUBJECT), "sha256", hex_of(IMAGE)),
}


@pytest.mark.parametrize("name", REREAD)
def test_a_torn_link(server: Server, name: str) -> None:
    """Whatever it holds, each answer is right or 404, the lists are whole, and a push puts it right."""
    push_manifest(server, REPOSITORY, IMAGE, "latest")
    path = server.storage / REREAD[name]
    good = path.read_bytes()
    for bad in torn(good):
        with TALLY.moment(FAULT):
            write(path, bad)
            for reference in ("latest", IMAGE.digest):
                check_answer(server.request("GET", f"/v2/{REPOSITORY}/manifests/{reference}"), IMAGE.body)
            blob = f"/v2/{REPOSITORY}/blobs/{digest_of(b'layer')}"
            check_answer(server.request("GET", blob), b"layer")
            answer = server.request("GET", f"/v2/{REPOSITORY}/referrers/{SUBJECT.digest}")
            assert [each["digest"] for each in answer.json()["manifests"]] == [IMAGE.digest]
            assert server.request("GET", f"/v2/{REPOSITORY}/tags/list").json()["tags"] == ["latest"]
            assert server.request("GET", "/v2/_catalog").status == 200
    push_manifest(server, REPOSITORY, IMAGE, "latest")
    for reference in ("latest", IMAGE.digest):
        answer = server.request("GET", f"/v2/{REPOSITORY}/manifests/{reference}")
        assert (answer.status, answer.body) == (200, IMAGE.body)


@pytest.mark.parametrize("name", READ_ONCE)
async def test_a_torn_file_beside_a_manifest(server: Server, name: str) -> None:
    """A media type that cannot be is none, until the next push; a referrer is described again by itself."""
    push_manifest(server, REPOSITORY, IMAGE, "latest")
    path = server.storage / READ_ONCE[name]
    good = path.read_bytes()
    repository, subject = RepositoryName(REPOSITORY), parse_digest(SUBJECT.digest)
    for bad in torn(good):
        with TALLY.moment(FAULT):
            write(path, bad)
            registry = registry_over(FilesystemStorage(server.storage, cache_bytes=0))
            index, _ = await registry.manifests.referrers(repository, subject, None, None)
            listed = [each["digest"] for each in json.loads(index)["manifests"]]
            if name == "media type":
                with pytest.raises(RegistryError):
                    await registry.manifests.get(repository, Tag("latest"))
                assert listed == [IMAGE.digest]
                await registry.manifests.put(repository, Tag("latest"), OCI_MANIFEST, IMAGE.body)
                assert path.read_bytes() == good
            found = await registry.manifests.get(repository, Tag("latest"))
            assert (found.content, found.media_type) == (IMAGE.body, OCI_MANIFEST)
            assert listed == [IMAGE.digest]


def test_a_torn_record_of_an_upload(server: Server) -> None:
    """The session is unknown, as if it had never been; with its record it would go on."""
    opened = server.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    location = path_of(opened.headers["Location"])
    assert server.request("PATCH", location, CONTENT[:1000]).status == 202
    path = server.storage / "uploads" / Path(location).name / "state"
    good = path.read_bytes()
    for bad in torn(good):
        with TALLY.moment(FAULT):
            write(path, bad)
            assert server.request("GET", location).status == 404
            assert server.request("PATCH", location, b"more").status == 404
            assert server.request("PUT", with_query(location, f"digest={digest_of(CONTENT)}")).status == 404
    write(path, good)
    assert server.request("GET", location).headers["Range"] == "0-999"
    assert server.request("PATCH", location, CONTENT[1000:]).status == 202
    assert server.request("PUT", with_query(location, f"digest={digest_of(CONTENT)}")).status == 201


@pytest.mark.parametrize("length", [0, 1, 999])
def test_bytes_of_an_upload_that_are_shorter_than_its_record(server: Server, length: int) -> None:
    """The session falls back to what is certain, and never to a wrong blob."""
    with TALLY.moment(FAULT):
        opened = server.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
        location = path_of(opened.headers["Location"])
        assert server.request("PATCH", location, CONTENT[:1000]).status == 202
        data = server.storage / "uploads" / Path(location).name / "data"
        data.write_bytes(CONTENT[:length])
        finish = with_query(location, f"digest={digest_of(CONTENT)}")
        answer = server.request("PUT", finish, CONTENT[1000:], {"Content-Range": "1000-1799"})
        assert (answer.status, answer.headers["Range"]) == (416, "0-0")
        assert server.request("PUT", finish, CONTENT).status == 201
        digest = push_blob(server, REPOSITORY, CONTENT)
        assert server.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}").body == CONTENT

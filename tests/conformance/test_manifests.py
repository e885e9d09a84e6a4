"""end-3, 7, 9: every kind of manifest goes in, comes out byte for byte, and goes away."""

from __future__ import annotations

import json
import secrets

import pytest
from blackbox import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Registry,
    digest_of,
)

from .content import KINDS, SBOM, Content, Json, Manifest, content_of
from .steps import (
    ALGORITHMS,
    blob_path,
    check_blob,
    check_error,
    manifest_path,
    push_content,
    put_manifest,
)
from .wire import Wire

LIMIT = 4 * 1024 * 1024

by_every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def tags_of(content: Content) -> dict[str, Manifest]:
    if content.algorithm != "sha256":
        return {}
    return {manifest.tag: manifest for manifest in content.manifests if manifest.tag}


def check_manifest(
    server: Registry, repository: str, manifest: Manifest, reference: str | None = None
) -> None:
    path = manifest_path(repository, reference or manifest.digest)
    accept = {"Accept": f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_MANIFEST}, {DOCKER_LIST}"}
    for method, body in (("HEAD", b""), ("GET", manifest.body)):
        answer = server.request(method, path, headers=accept)
        assert answer.status == 200, (method, path, answer.status, answer.body[:300])
        assert answer.body == body
        assert answer.headers["Content-Type"] == manifest.media_type
        assert answer.headers["Content-Length"] == str(len(manifest.body))
        assert answer.headers["Docker-Content-Digest"] == manifest.digest


def check_manifest_absent(server: Registry, repository: str, reference: str) -> None:
    path = manifest_path(repository, reference)
    assert server.request("HEAD", path).status == 404
    check_error(server.request("GET", path), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")


def referrers(server: Registry, repository: str, subject: str, query: str = "") -> list[Json]:
    answer = server.request("GET", f"/v2/{repository}/referrers/{subject}{query}")
    assert answer.status == 200, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == OCI_INDEX
    index = json.loads(answer.body)
    assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
    if query:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    manifests: list[Json] = index["manifests"]
    return sorted(manifests, key=lambda listed: str(listed["digest"]))


@by_every_algorithm
@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_content(server: Registry, repository: str, kind: str, algorithm: str) -> None:
    """Push, list, pull, look up the referrers and delete: the official suite's round for a kind."""
    content = content_of(kind, algorithm)
    push_content(server, repository, content)
    tags = tags_of(content)
    if tags:
        listed = server.request("GET", f"/v2/{repository}/tags/list").json()
        assert listed == {"name": repository, "tags": sorted(tags)}
    for tag, manifest in tags.items():
        check_manifest(server, repository, manifest, tag)
    for manifest in content.manifests:
        check_manifest(server, repository, manifest)
    for digest, blob in content.blobs.items():
        check_blob(server, repository, blob, digest)
    for subject, expected in content.referrers.items():
        check_referrers(server, repository, subject, expected)
    check_deletion(server, repository, content)


def check_referrers(server: Registry, repository: str, subject: str, expected: list[Json]) -> None:
    """All descriptors, and for each artifact type just those of it."""
    expected = sorted(expected, key=lambda listed: str(listed["digest"]))
    assert referrers(server, repository, subject) == expected
    for artifact_type in {listed.get("artifactType") for listed in expected} - {None}:
        query = "?artifactType=" + str(artifact_type).replace("+", "%2B")
        of_type = [each for each in expected if each.get("artifactType") == artifact_type]
        assert referrers(server, repository, subject, query) == of_type


def check_deletion(server: Registry, repository: str, content: Content) -> None:
    """Tags, manifests (parents first), blobs: each is gone at once."""
    for tag, manifest in tags_of(content).items():
        assert server.request("DELETE", manifest_path(repository, tag)).status == 202
        check_manifest_absent(server, repository, tag)
        check_manifest(server, repository, manifest)
    for manifest in reversed(content.manifests):
        assert server.request("DELETE", manifest_path(repository, manifest.digest)).status == 202
        check_manifest_absent(server, repository, manifest.digest)
        if manifest.subject:
            listed = referrers(server, repository, manifest.subject)
            assert manifest.digest not in [each["digest"] for each in listed]
    for digest in content.blobs:
        assert server.request("DELETE", blob_path(repository, digest)).status == 202
        assert server.request("HEAD", blob_path(repository, digest)).status == 404
    for subject in content.referrers:
        assert referrers(server, repository, subject) == []


@by_every_algorithm
@pytest.mark.parametrize("kind", ["image", "index", "artifact", "docker-image"])
def test_push_answer(server: Registry, repository: str, kind: str, algorithm: str) -> None:
    """201 names the digest and a Location from which the same manifest comes back."""
    content = content_of(kind, algorithm)
    push_content(server, repository, content)
    manifest = content.manifests[-1]
    answer = put_manifest(server, repository, manifest)
    assert answer.status == 201
    assert answer.headers["Docker-Content-Digest"] == manifest.digest
    pulled = server.request("GET", answer.headers["Location"])
    assert (pulled.status, pulled.body) == (200, manifest.body)
    assert pulled.headers["Content-Type"] == manifest.media_type


@by_every_algorithm
@pytest.mark.parametrize("by_tag", [False, True], ids=["by-digest", "by-tag"])
@pytest.mark.parametrize("kind", ["artifacts-with-subject", "index-with-subject", "missing-subject"])
def test_subject_is_confirmed(
    server: Registry, repository: str, kind: str, algorithm: str, by_tag: bool
) -> None:
    """OCI-Subject says that the registry keeps the referrers; without a subject it is absent."""
    content = content_of(kind, algorithm)
    push_content(server, repository, content)
    for manifest in content.manifests:
        answer = put_manifest(server, repository, manifest, "some-tag" if by_tag else None)
        assert answer.status == 201
        assert answer.headers["OCI-Subject"] == manifest.subject


@by_every_algorithm
def test_digest_mismatch(server: Registry, repository: str, algorithm: str) -> None:
    """A manifest pushed under a digest that is not its own is refused (two spaces are enough)."""
    content = content_of("image", algorithm)
    push_content(server, repository, Content(algorithm, blobs=content.blobs))
    (manifest,) = content.manifests
    spoilt = Manifest(manifest.body + b"  ", manifest.media_type, manifest.digest, None)
    check_error(put_manifest(server, repository, spoilt), 400, "DIGEST_INVALID")
    check_manifest_absent(server, repository, manifest.digest)
    check_manifest_absent(server, repository, digest_of(spoilt.body, algorithm))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_malformed_digest(server: Registry, repository: str, method: str) -> None:
    """A reference with a colon that is no digest is 400."""
    content = content_of("image")
    push_content(server, repository, content)
    body = content.manifests[0].body if method == "PUT" else None
    path = manifest_path(repository, "sha256:baddigeststring")
    answer = server.request(method, path, body, {"Content-Type": OCI_MANIFEST})
    check_error(answer, 400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        "application/json",
        OCI_MANIFEST,
        f"{OCI_INDEX};q=0.5, {OCI_MANIFEST};q=0.9, */*;q=0.1",
    ],
)
def test_accept(server: Registry, repository: str, accept: str | None) -> None:
    """Whatever a client says it accepts, a manifest comes as it was pushed."""
    content = content_of("image", "sha256")
    push_content(server, repository, content)
    headers = {"Accept": accept} if accept else {}
    answer = server.request("GET", manifest_path(repository, "image"), headers=headers)
    assert (answer.status, answer.body) == (200, content.manifests[0].body)
    assert answer.headers["Content-Type"] == OCI_MANIFEST


def test_six_accept_lines(server: Registry, repository: str) -> None:
    """Clients (skopeo, docker) send each media type on a line of its own."""
    content = content_of("docker-list")
    push_content(server, repository, content)
    accept = [OCI_MANIFEST, DOCKER_MANIFEST, "application/json", DOCKER_LIST, OCI_INDEX, "*/*"]
    lines = "".join(f"Accept: {each}\r\n" for each in accept).encode()
    with Wire(server) as wire:
        head = wire.head("GET", manifest_path(repository, "docker-list"))
        wire.send(head[:-2] + lines + b"\r\n")
        answer = wire.answer()
    assert (answer.status, answer.body) == (200, content.manifests[-1].body)
    assert answer.headers["Content-Type"] == DOCKER_LIST


@pytest.mark.parametrize("content_type", [None, f"{OCI_MANIFEST}; charset=utf-8"])
def test_content_type_of_a_push(server: Registry, repository: str, content_type: str | None) -> None:
    """Parameters of the type are ignored; without a type the manifest's own `mediaType` counts."""
    content = content_of("no-layers")
    push_content(server, repository, Content(blobs=content.blobs))
    (manifest,) = content.manifests
    headers = {"Content-Type": content_type} if content_type else {}
    answer = server.request("PUT", manifest_path(repository, "t"), manifest.body, headers)
    assert answer.status == 201, answer.body
    check_manifest(server, repository, manifest, "t")


def test_manifest_without_media_type(server: Registry, repository: str) -> None:
    """OCI 1.0 images have no `mediaType`: the header's is kept and comes back."""
    content = Content()
    config = content.config(0)
    body = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    manifest = Manifest(body, OCI_MANIFEST, digest_of(body), "old")
    content.manifests.append(manifest)
    push_content(server, repository, content)
    check_manifest(server, repository, manifest, "old")


def sized_manifest(content: Content, size: int) -> Manifest:
    """A manifest of exactly `size` bytes."""
    config = content.config(0)
    for padding in (0, size - len(_padded(config, 0))):
        body = _padded(config, padding)
    assert len(body) == size
    return Manifest(body, OCI_MANIFEST, digest_of(body), None)


def _padded(config: Json, padding: int) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": [],
        "annotations": {"padding": "A" * padding},
    }
    return json.dumps(document).encode()


def test_manifest_of_the_greatest_size(server: Registry, repository: str) -> None:
    """4 MiB, the limit itself, is a manifest like another."""
    content = Content()
    manifest = sized_manifest(content, LIMIT)
    push_content(server, repository, content)
    assert put_manifest(server, repository, manifest).status == 201
    check_manifest(server, repository, manifest)


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_manifest_over_the_limit(server: Registry, repository: str, coding: str) -> None:
    """One byte more is 413, said from the length alone, or when the byte arrives."""
    content = Content()
    manifest = sized_manifest(content, LIMIT + 1)
    push_content(server, repository, content)
    headers = {"Content-Type": OCI_MANIFEST}
    with Wire(server) as wire:
        path = manifest_path(repository, "large")
        if coding == "length":
            headers["Content-Length"] = str(len(manifest.body))
            wire.send(wire.head("PUT", path, headers))
        else:
            wire.send(wire.head("PUT", path, {**headers, "Transfer-Encoding": "chunked"}))
            # No last chunk follows: the server must not wait for the end.
            wire.send_until_answered(b"%x\r\n%b\r\n" % (len(manifest.body), manifest.body))
        check_error(wire.answer("PUT"), 413, "SIZE_INVALID")
    check_manifest_absent(server, repository, "large")
    check_manifest_absent(server, repository, manifest.digest)


def test_tag_moves(server: Registry, repository: str) -> None:
    """A tag names what was pushed last; what it named before is still there by digest."""
    content = Content()
    first, second = content.image(), content.index([])
    push_content(server, repository, content)
    for manifest in (first, second, first):
        answer = put_manifest(server, repository, manifest, "moving")
        assert answer.status == 201
        assert answer.headers["Docker-Content-Digest"] == manifest.digest
        check_manifest(server, repository, manifest, "moving")
    check_manifest(server, repository, second)


def test_delete_by_digest_takes_the_tags(server: Registry, repository: str) -> None:
    """With a manifest go all tags that point at it, and no other."""
    content = Content()
    doomed, kept = content.image(), content.image(tag="kept")
    push_content(server, repository, content)
    for tag in ("one", "two"):
        assert put_manifest(server, repository, doomed, tag).status == 201
    assert server.request("DELETE", manifest_path(repository, doomed.digest)).status == 202
    for reference in (doomed.digest, "one", "two"):
        check_manifest_absent(server, repository, reference)
    check_manifest(server, repository, kept, "kept")
    listed = server.request("GET", f"/v2/{repository}/tags/list").json()
    assert listed["tags"] == ["kept"]
    again = server.request("DELETE", manifest_path(repository, doomed.digest))
    check_error(again, 404, "MANIFEST_UNKNOWN")


def test_names_with_the_words_of_the_api(server: Registry) -> None:
    """Names may hold the words of the API: the path is read from its end."""
    repository = f"blobs/uploads/tags/list/manifests/{secrets.token_hex(4)}"
    content = Content()
    content.image(tag="list")
    push_content(server, repository, content)
    check_manifest(server, repository, content.manifests[0], "list")


@pytest.mark.parametrize("shape", ["{name:a<255}", "{name:a<120}/{name:b<134}", "{name}/a/b/c/d/e/f/g/h/i/j"])
def test_long_and_nested_names(server: Registry, shape: str) -> None:
    """Repository names of up to 255 characters, in one component or many."""
    repository = shape.format(name=secrets.token_hex(4))
    content = content_of("image")
    push_content(server, repository, content)
    check_manifest(server, repository, content.manifests[0], "image")
    assert server.request("GET", f"/v2/{repository}/tags/list").json()["name"] == repository


def test_long_tag(server: Registry, repository: str) -> None:
    """A tag of 128 characters, with everything a tag may hold."""
    tag = "_.-Az09".ljust(128, "x")
    content = Content()
    content.image(tag=tag)
    push_content(server, repository, content)
    check_manifest(server, repository, content.manifests[0], tag)


def test_artifact_type_falls_back_to_config(server: Registry, repository: str) -> None:
    """Without `artifactType`, or with an empty one, an image is listed by its config's type."""
    content = Content()
    subject = content.image()
    content.image(subject=subject.descriptor)
    content.image(subject=subject.descriptor, artifactType="")
    push_content(server, repository, content)
    listed = referrers(server, repository, subject.digest)
    assert [each["artifactType"] for each in listed] == [OCI_CONFIG, OCI_CONFIG]
    assert referrers(server, repository, subject.digest, f"?artifactType={SBOM}") == []

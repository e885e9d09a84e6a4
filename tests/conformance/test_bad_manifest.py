"""Bad manifests: not one, not what the header says, or ahead of what they refer to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blackbox import OCI_INDEX, OCI_MANIFEST, Registry, descriptor, digest_of

from .content import OCTETS, Content, Json, content_of
from .steps import (
    ALGORITHMS,
    check_error,
    manifest_path,
    new_repository,
    push_content,
    put_manifest,
)

DIGEST = f"sha256:{'a' * 64}"
CONFIG: Json = descriptor("application/vnd.oci.image.config.v1+json", b"{}")


def _image(**changes: Any) -> Json:
    whole = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": []}
    return {**whole, **changes}


NO_MANIFESTS: dict[str, bytes] = {
    "nothing": b"",
    "not-json": b"this is no manifest",
    "half": json.dumps(_image()).encode()[:-1],
    "two": json.dumps(_image()).encode() * 2,
    "not-utf8": json.dumps(_image(annotations={"a": "X"})).encode().replace(b'"X"', b'"\xff"'),
    "null": b"null",
    "list": b"[]",
    "string": b'"manifest"',
    "empty": b"{}",
    "no-config": json.dumps(_image(config=None)).encode(),
    "config-is-text": json.dumps(_image(config="config")).encode(),
    "layers-are-an-object": json.dumps(_image(layers={"digest": DIGEST})).encode(),
    "layer-is-a-number": json.dumps(_image(layers=[1])).encode(),
    "bad-digest": json.dumps(_image(config={**CONFIG, "digest": "../../etc/passwd"})).encode(),
    "bad-subject": json.dumps(_image(subject={**CONFIG, "digest": "sha256:.."})).encode(),
    "negative-size": json.dumps(_image(config={**CONFIG, "size": -1})).encode(),
    "size-is-text": json.dumps(_image(config={**CONFIG, "size": "2"})).encode(),
    "schema-1": json.dumps(_image(schemaVersion=1)).encode(),
    "annotations-are-a-list": json.dumps(_image(annotations=["a"])).encode(),
    "deep-arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep-objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep-in-an-unknown-field": json.dumps(_image(deep="X"))
    .encode()
    .replace(b'"X"', b"[" * 100_000 + b"]" * 100_000),
    "deep-and-cut": b"[" * 100_000,
}


@pytest.mark.parametrize("body", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_no_manifest(server: Registry, repository: str, body: bytes) -> None:
    """What is not a manifest is MANIFEST_INVALID by tag and by digest, and is not kept."""
    push_content(server, repository, Content(blobs={CONFIG["digest"]: b"{}"}))
    for reference in ("broken", digest_of(body)):
        path = manifest_path(repository, reference)
        answer = server.request("PUT", path, body, {"Content-Type": OCI_MANIFEST})
        check_error(answer, 400, "MANIFEST_INVALID")
        check_error(server.request("GET", path), 404, "MANIFEST_UNKNOWN", "NAME_UNKNOWN")


@pytest.mark.parametrize(
    ("kind", "content_type"), [("image", OCI_INDEX), ("index", OCI_MANIFEST), ("artifact", OCTETS)]
)
def test_media_type_mismatch(server: Registry, repository: str, kind: str, content_type: str) -> None:
    """The header says one type and the manifest another."""
    content = content_of(kind)
    push_content(server, repository, content)
    path = manifest_path(repository, "mismatch")
    body = content.manifests[-1].body
    answer = server.request("PUT", path, body, {"Content-Type": content_type})
    check_error(answer, 400, "MANIFEST_INVALID")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("missing", ["config", "layer"])
def test_missing_blob(server: Registry, repository: str, algorithm: str, missing: str) -> None:
    """A manifest comes after its blobs: what is missing is named, also if others have it."""
    content = content_of("image", algorithm)
    (manifest,) = content.manifests
    document = json.loads(manifest.body)
    part = document["config"] if missing == "config" else document["layers"][1]
    blob = content.blobs.pop(part["digest"])
    push_content(server, new_repository(), Content(algorithm, blobs={part["digest"]: blob}))
    push_content(server, repository, Content(algorithm, blobs=content.blobs))
    for reference in ("tag", manifest.digest):
        answer = put_manifest(server, repository, manifest, reference)
        error = check_error(answer, 404, "MANIFEST_BLOB_UNKNOWN")
        assert part["digest"] in json.dumps(error["detail"])
        path = manifest_path(repository, reference)
        check_error(server.request("GET", path), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_missing_child(server: Registry, repository: str, algorithm: str) -> None:
    """An index comes after its manifests."""
    content = content_of("index", algorithm)
    *children, index = content.manifests
    missing = children.pop()
    push_content(server, repository, Content(algorithm, False, content.blobs, children))
    answer = put_manifest(server, repository, index, "tag")
    error = check_error(answer, 404, "MANIFEST_BLOB_UNKNOWN")
    assert missing.digest in json.dumps(error["detail"])


def test_several_missing_blobs(server: Registry, repository: str) -> None:
    """With several blobs missing the answer is the same, and names at least one of them."""
    content = content_of("image")
    (manifest,) = content.manifests
    error = check_error(put_manifest(server, repository, manifest), 404, "MANIFEST_BLOB_UNKNOWN")
    assert any(digest in json.dumps(error["detail"]) for digest in content.blobs)

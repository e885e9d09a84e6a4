"""What every conformance test says on the wire, and what it asks of any answer."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from blackbox import Answer, Registry, digest_of, with_query

from .content import OCTETS, Content, Manifest

ALGORITHMS = ("sha256", "sha512")


def new_repository() -> str:
    """A repository name that nothing was pushed to."""
    return f"conformance/{secrets.token_hex(8)}"


def blob_path(repository: str, digest: str) -> str:
    return f"/v2/{repository}/blobs/{digest}"


def manifest_path(repository: str, reference: str) -> str:
    return f"/v2/{repository}/manifests/{reference}"


def check_error(answer: Answer, status: int, *codes: str) -> dict[str, Any]:
    """`answer` is this status with the envelope of the spec and one of `codes`; its first error."""
    assert answer.status == status, (answer.status, answer.body[:500])
    assert answer.headers.get_content_type() == "application/json", answer.headers.items()
    document = json.loads(answer.body)
    assert list(document) == ["errors"], document
    assert document["errors"], document
    for error in document["errors"]:
        assert set(error) <= {"code", "message", "detail"}, error
        assert error["code"].replace("_", "").isupper(), error
        assert isinstance(error["message"], str), error
    first: dict[str, Any] = document["errors"][0]
    assert not codes or first["code"] in codes, first
    return first


def start_upload(server: Registry, repository: str, query: str = "") -> str:
    """A new session; its Location."""
    path = f"/v2/{repository}/blobs/uploads/" + (f"?{query}" if query else "")
    answer = server.request("POST", path, b"")
    assert answer.status == 202, (answer.status, answer.body)
    location: str = answer.headers["Location"]
    return location


def patch(
    server: Registry, location: str, chunk: bytes, start: int | None = None, method: str = "PATCH"
) -> Answer:
    """One chunk with its length; with its place (Content-Range) when `start` is given."""
    headers = {"Content-Type": OCTETS}
    if start is not None:
        headers["Content-Range"] = f"{start}-{start + len(chunk) - 1}"
    return server.request(method, location, chunk, headers)


def accepted(answer: Answer, end: int) -> str:
    """A chunk was taken and the session now holds `end` bytes; the next Location."""
    assert answer.status == 202, (answer.status, answer.body)
    assert answer.headers["Range"] == f"0-{end - 1}"
    location: str = answer.headers["Location"]
    return location


def finish(server: Registry, location: str, digest: str, body: bytes = b"") -> Answer:
    headers = {"Content-Type": OCTETS}
    return server.request("PUT", with_query(location, f"digest={digest}"), body, headers)


def push_post_put(server: Registry, repository: str, blob: bytes, digest: str) -> Answer:
    return finish(server, start_upload(server, repository), digest, blob)


def push_post_only(server: Registry, repository: str, blob: bytes, digest: str) -> Answer:
    path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
    return server.request("POST", path, blob, {"Content-Type": OCTETS})


def push_stream(server: Registry, repository: str, blob: bytes, digest: str) -> Answer:
    """One PATCH as docker sends it: chunked transfer coding, neither length nor type."""
    location = start_upload(server, repository)
    pieces = (blob[at : at + 700] for at in range(0, len(blob), 700))
    answer = server.request("PATCH", location, pieces)
    assert answer.status == 202, (answer.status, answer.body)
    return finish(server, answer.headers["Location"], digest)


def push_chunked(
    server: Registry,
    repository: str,
    blob: bytes,
    digest: str,
    chunk: int = 1024,
    put_last: bool = False,
) -> Answer:
    """PATCHes with Content-Range; the last chunk travels in the closing PUT when `put_last`."""
    location = start_upload(server, repository)
    for start in range(0, len(blob), chunk):
        piece = blob[start : start + chunk]
        end = start + len(piece)
        if put_last and end == len(blob):
            closing = with_query(location, f"digest={digest}")
            return patch(server, closing, piece, start, "PUT")
        location = accepted(patch(server, location, piece, start), end)
    return finish(server, location, digest)


def push_chunked_put(server: Registry, repository: str, blob: bytes, digest: str) -> Answer:
    return push_chunked(server, repository, blob, digest, put_last=True)


PushBlob = Callable[[Registry, str, bytes, str], Answer]
PUSHES: dict[str, PushBlob] = {
    "post-put": push_post_put,
    "post-only": push_post_only,
    "stream": push_stream,
    "chunked": push_chunked,
    "chunked-put": push_chunked_put,
}


def check_blob_created(server: Registry, answer: Answer, repository: str, blob: bytes, digest: str) -> None:
    """201 with the digest, and a Location from which the same bytes come back."""
    assert answer.status == 201, (answer.status, answer.body)
    assert answer.headers["Docker-Content-Digest"] == digest
    pulled = server.request("GET", answer.headers["Location"])
    assert (pulled.status, pulled.body) == (200, blob)
    check_blob(server, repository, blob, digest)


def check_blob(server: Registry, repository: str, blob: bytes, digest: str) -> None:
    for method, body in (("HEAD", b""), ("GET", blob)):
        answer = server.request(method, blob_path(repository, digest))
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Content-Length"] == str(len(blob))
        assert answer.headers["Docker-Content-Digest"] == digest


def check_blob_absent(server: Registry, repository: str, digest: str) -> None:
    assert server.request("HEAD", blob_path(repository, digest)).status == 404
    check_error(server.request("GET", blob_path(repository, digest)), 404, "BLOB_UNKNOWN")


def put_blob(server: Registry, repository: str, blob: bytes, algorithm: str = "sha256") -> str:
    digest = digest_of(blob, algorithm)
    assert push_post_only(server, repository, blob, digest).status == 201
    return digest


def put_manifest(
    server: Registry, repository: str, manifest: Manifest, reference: str | None = None
) -> Answer:
    path = manifest_path(repository, reference or manifest.digest)
    return server.request("PUT", path, manifest.body, {"Content-Type": manifest.media_type})


def push_content(server: Registry, repository: str, content: Content) -> None:
    """All blobs, all manifests by digest, and the tags (sha256 only: a tag names that digest)."""
    for digest, blob in content.blobs.items():
        assert push_post_only(server, repository, blob, digest).status == 201
    for manifest in content.manifests:
        references = [manifest.digest]
        if manifest.tag and content.algorithm == "sha256":
            references.append(manifest.tag)
        for reference in references:
            answer = put_manifest(server, repository, manifest, reference)
            assert answer.status == 201, (answer.status, answer.body)

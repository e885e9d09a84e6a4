"""The words of the API once more over TLS, where bytes pass through a stream and not by the kernel."""

from __future__ import annotations

import pytest
from blackbox import Server, digest_of, seeded_bytes

from .content import content_of
from .steps import (
    PUSHES,
    blob_path,
    check_blob_absent,
    check_blob_created,
    check_error,
    manifest_path,
    push_content,
    start_upload,
)

# A little more than one turn of a send (1 MiB), and than some blocks.
SIZE = 1_500_000


@pytest.mark.parametrize("way", PUSHES)
def test_push_and_pull(tls_server: Server, repository: str, way: str) -> None:
    """A blob comes in whole and in pieces, with a length and chunked, and goes out whole."""
    blob = seeded_bytes(way, 5000 if way.startswith("chunked") else SIZE)
    digest = digest_of(blob)
    answer = PUSHES[way](tls_server, repository, blob, digest)
    check_blob_created(tls_server, answer, repository, blob, digest)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (100, 1_100_000), (SIZE - 1, SIZE - 1)])
def test_range(tls_server: Server, repository: str, first: int, last: int) -> None:
    """Exactly the bytes that were asked for."""
    blob = seeded_bytes("range", SIZE)
    assert PUSHES["post-only"](tls_server, repository, blob, digest_of(blob)).status == 201
    path = blob_path(repository, digest_of(blob))
    answer = tls_server.request("GET", path, headers={"Range": f"bytes={first}-{last}"})
    assert (answer.status, answer.body) == (206, blob[first : last + 1])


def test_image(tls_server: Server, repository: str) -> None:
    """An image is pushed and pulled by its tag."""
    content = content_of("image", "sha256")
    push_content(tls_server, repository, content)
    (manifest,) = content.manifests
    answer = tls_server.request("GET", manifest_path(repository, "image"))
    assert (answer.status, answer.body) == (200, manifest.body)


def test_refusals(tls_server: Server, repository: str) -> None:
    """Errors travel as they do without TLS; a wrong digest publishes nothing."""
    blob = b"some bytes"
    answer = PUSHES["post-put"](tls_server, repository, blob, digest_of(b"others"))
    check_error(answer, 400, "DIGEST_INVALID")
    check_blob_absent(tls_server, repository, digest_of(blob))


@pytest.mark.parametrize("size", [500_000, 8_000_000])
def test_answer_before_the_body_has_ended(tls_server: Server, repository: str, size: int) -> None:
    """A body that nobody wants: its client still reads why, whether or not it could send all of it."""
    location = start_upload(tls_server, repository)
    assert tls_server.request("DELETE", location).status == 204
    answer = tls_server.request("PATCH", location, bytes(size), {"Content-Type": "application/octet-stream"})
    check_error(answer, 404, "BLOB_UPLOAD_UNKNOWN")

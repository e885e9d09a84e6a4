"""end-4, 5, 6, 11, 13, 14: how blobs come in."""

from __future__ import annotations

import secrets

import pytest
from blackbox import Registry, digest_of, path_of, with_query

from .steps import (
    ALGORITHMS,
    PUSHES,
    accepted,
    blob_path,
    check_blob,
    check_blob_absent,
    check_blob_created,
    check_error,
    finish,
    new_repository,
    patch,
    put_blob,
    start_upload,
)

# Three chunks of 1024 bytes, the last one shorter: the sizes of the official suite.
CHUNK = 1024
THREE_CHUNKS = CHUNK * 3 - 5

in_every_way = pytest.mark.parametrize("way", PUSHES)
by_every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


@in_every_way
@by_every_algorithm
@pytest.mark.parametrize("size", [512, THREE_CHUNKS, 300_000])
def test_push(server: Registry, repository: str, way: str, algorithm: str, size: int) -> None:
    """A blob pushed in any way is there under its digest, until it is deleted."""
    blob = secrets.token_bytes(size)
    digest = digest_of(blob, algorithm)
    check_blob_absent(server, repository, digest)
    if way.startswith("chunked") and size > THREE_CHUNKS:
        blob = blob[:THREE_CHUNKS]
        digest = digest_of(blob, algorithm)
    check_blob_created(server, PUSHES[way](server, repository, blob, digest), repository, blob, digest)
    assert server.request("DELETE", blob_path(repository, digest)).status == 202
    check_blob_absent(server, repository, digest)


@in_every_way
@by_every_algorithm
@pytest.mark.parametrize("blob", [b"", b"{}"], ids=["empty", "empty-json"])
def test_push_well_known(server: Registry, repository: str, way: str, algorithm: str, blob: bytes) -> None:
    """A blob of no bytes is a blob, and so is one that every artifact shares."""
    digest = digest_of(blob, algorithm)
    for _ in range(2):
        answer = PUSHES[way](server, repository, blob, digest)
        check_blob_created(server, answer, repository, blob, digest)
    assert server.request("DELETE", blob_path(repository, digest)).status == 202
    check_blob_absent(server, repository, digest)


@in_every_way
@by_every_algorithm
def test_push_with_a_wrong_digest(server: Registry, repository: str, way: str, algorithm: str) -> None:
    """Bytes that are not what their digest says are refused, and nothing is published."""
    blob = secrets.token_bytes(THREE_CHUNKS)
    spoilt = blob + b"oh no"
    answer = PUSHES[way](server, repository, spoilt, digest_of(blob, algorithm))
    check_error(answer, 400, "DIGEST_INVALID")
    check_blob_absent(server, repository, digest_of(blob, algorithm))
    check_blob_absent(server, repository, digest_of(spoilt, algorithm))


@by_every_algorithm
@pytest.mark.parametrize("method", ["PATCH", "PUT"], ids=["patch-last", "put-last"])
def test_chunks_out_of_order(server: Registry, repository: str, algorithm: str, method: str) -> None:
    """A chunk from elsewhere is 416, GET tells where to go on, and the upload ends well."""
    blob = secrets.token_bytes(THREE_CHUNKS)
    digest = digest_of(blob, algorithm)
    location = start_upload(server, repository)
    for at in range(0, THREE_CHUNKS, CHUNK):
        # Skip one chunk ahead; at the end there is none, so begin again.
        elsewhere = at + CHUNK if at + CHUNK < THREE_CHUNKS else 0
        wrong = blob[elsewhere : elsewhere + CHUNK]
        is_last = method == "PUT" and elsewhere + len(wrong) == THREE_CHUNKS
        target = with_query(location, f"digest={digest}") if is_last else location
        refused = patch(server, target, wrong, elsewhere, method if is_last else "PATCH")
        check_error(refused, 416)
        assert refused.headers["Range"] == f"0-{max(0, at - 1)}"
        status = server.request("GET", location)
        assert (status.status, status.body) == (204, b"")
        assert status.headers["Range"] == f"0-{max(0, at - 1)}"
        location = status.headers["Location"]
        chunk = blob[at : at + CHUNK]
        if method == "PUT" and at + CHUNK >= THREE_CHUNKS:
            target = with_query(location, f"digest={digest}")
            answer = patch(server, target, chunk, at, "PUT")
            check_blob_created(server, answer, repository, blob, digest)
            return
        location = accepted(patch(server, location, chunk, at), at + len(chunk))
    check_blob_created(server, finish(server, location, digest), repository, blob, digest)


@by_every_algorithm
@pytest.mark.parametrize("way", ["put", "patch"])
def test_announced_algorithm(server: Registry, repository: str, algorithm: str, way: str) -> None:
    """POST may say by which algorithm the blob will be named."""
    blob = secrets.token_bytes(700)
    location = start_upload(server, repository, f"digest-algorithm={algorithm}")
    if way == "patch":
        location = accepted(patch(server, location, blob), len(blob))
        answer = finish(server, location, digest_of(blob, algorithm))
    else:
        answer = finish(server, location, digest_of(blob, algorithm), blob)
    check_blob_created(server, answer, repository, blob, digest_of(blob, algorithm))


@pytest.mark.parametrize(("announced", "used"), [ALGORITHMS, ALGORITHMS[::-1]])
def test_another_algorithm_than_announced(
    server: Registry, repository: str, announced: str, used: str
) -> None:
    """A client that changes its mind, or never announced, is served as well."""
    blob = secrets.token_bytes(700)
    location = start_upload(server, repository, f"digest-algorithm={announced}")
    location = accepted(patch(server, location, blob), len(blob))
    answer = finish(server, location, digest_of(blob, used))
    check_blob_created(server, answer, repository, blob, digest_of(blob, used))


def test_status_follows_the_upload(server: Registry, repository: str) -> None:
    """GET of a session says how many bytes it holds and where to send more."""
    blob = secrets.token_bytes(3000)
    location = start_upload(server, repository)
    for start, end in ((0, 1000), (1000, 3000)):
        location = accepted(patch(server, location, blob[start:end]), end)
        status = server.request("GET", location)
        assert (status.status, status.headers["Range"]) == (204, f"0-{end - 1}")
        location = status.headers["Location"]
    assert finish(server, location, digest_of(blob)).status == 201
    check_error(server.request("GET", location), 404, "BLOB_UPLOAD_UNKNOWN")


def test_session_has_a_name(server: Registry, repository: str) -> None:
    """POST, PATCH and GET name the session in Docker-Upload-UUID, as its Location does."""
    opened = server.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
    name = opened.headers["Docker-Upload-UUID"]
    sent = patch(server, opened.headers["Location"], b"some bytes")
    for answer in (opened, sent, server.request("GET", sent.headers["Location"])):
        assert answer.headers["Docker-Upload-UUID"] == name
        assert name in answer.headers["Location"]


@pytest.mark.parametrize("held", [0, 100])
def test_cancel(server: Registry, repository: str, held: int) -> None:
    """DELETE ends a session and what it held is gone."""
    blob = secrets.token_bytes(held)
    location = start_upload(server, repository)
    if held:
        location = accepted(patch(server, location, blob), held)
    cancelled = server.request("DELETE", location)
    assert (cancelled.status, cancelled.body) == (204, b"")
    for method in ("GET", "DELETE", "PATCH"):
        check_error(server.request(method, location, b""), 404, "BLOB_UPLOAD_UNKNOWN")
    check_error(finish(server, location, digest_of(blob)), 404, "BLOB_UPLOAD_UNKNOWN")


def test_upload_location_needs_no_query(server: Registry, repository: str) -> None:
    """Some clients drop the query of a Location: the path alone names the session."""
    blob = secrets.token_bytes(2048)
    location = path_of(start_upload(server, repository)).partition("?")[0]
    accepted(patch(server, location, blob[:1024], 0), 1024)
    accepted(patch(server, location, blob[1024:], 1024), 2048)
    answer = server.request("PUT", f"{location}?digest={digest_of(blob)}")
    check_blob_created(server, answer, repository, blob, digest_of(blob))


def test_first_location_stays_good(server: Registry, repository: str) -> None:
    """A client may go on with the Location of POST and ignore those that follow."""
    blob = secrets.token_bytes(2048)
    location = start_upload(server, repository)
    accepted(patch(server, location, blob[:1024]), 1024)
    accepted(patch(server, location, blob[1024:]), 2048)
    assert finish(server, location, digest_of(blob)).status == 201


def test_post_as_clients_send_it(server: Registry, repository: str) -> None:
    """POST without the last slash, or with a type that means nothing, opens a session too."""
    json_type = {"Content-Type": "application/json"}
    for path in (f"/v2/{repository}/blobs/uploads/", f"/v2/{repository}/blobs/uploads"):
        answer = server.request("POST", path, b"", json_type)
        assert answer.status == 202
        minimum = answer.headers.get("OCI-Chunk-Min-Length", "0")
        assert int(minimum) <= CHUNK


@by_every_algorithm
@pytest.mark.parametrize("escaped", [False, True], ids=["as-containerd", "escaped"])
def test_mount(server: Registry, repository: str, algorithm: str, escaped: bool) -> None:
    """A blob of another repository is linked, not sent again."""
    source, blob = new_repository(), secrets.token_bytes(512)
    digest = put_blob(server, source, blob, algorithm)
    query = f"mount={digest}&from={source}"
    if escaped:
        query = query.replace(":", "%3A").replace("/", "%2F")
    answer = server.request("POST", f"/v2/{repository}/blobs/uploads/?{query}", b"")
    check_blob_created(server, answer, repository, blob, digest)
    assert server.request("DELETE", blob_path(source, digest)).status == 202
    check_blob(server, repository, blob, digest)


@by_every_algorithm
def test_mount_without_source(server: Registry, repository: str, algorithm: str) -> None:
    """`from` may be missing: a blob that the registry has is found."""
    blob = secrets.token_bytes(512)
    digest = put_blob(server, new_repository(), blob, algorithm)
    answer = server.request("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}", b"")
    check_blob_created(server, answer, repository, blob, digest)


@by_every_algorithm
@pytest.mark.parametrize("named", [True, False], ids=["from", "anonymous"])
def test_mount_of_a_missing_blob(server: Registry, repository: str, algorithm: str, named: bool) -> None:
    """What cannot be mounted becomes an upload session that works."""
    blob = secrets.token_bytes(512)
    digest = digest_of(blob, algorithm)
    query = f"mount={digest}" + (f"&from={new_repository()}" if named else "")
    answer = server.request("POST", f"/v2/{repository}/blobs/uploads/?{query}", b"")
    assert answer.status == 202
    check_blob_absent(server, repository, digest)
    pushed = finish(server, answer.headers["Location"], digest, blob)
    check_blob_created(server, pushed, repository, blob, digest)


def test_a_blob_of_another_repository_is_not_visible(server: Registry, repository: str) -> None:
    """Bytes are shared inside, never seen where they were not pushed or mounted."""
    digest = put_blob(server, new_repository(), secrets.token_bytes(64))
    check_blob_absent(server, repository, digest)

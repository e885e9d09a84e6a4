"""end-2, end-10: how blobs go out, and away."""

from __future__ import annotations

import secrets

import pytest
from blackbox import Registry

from .steps import ALGORITHMS, blob_path, check_blob_absent, check_error, put_blob

SIZE = 2048
by_every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


@by_every_algorithm
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=500-1499", 500, 1499),
        ("bytes=500-", 500, 2047),
        ("bytes=-500", 1548, 2047),
        ("bytes=2000-5000", 2000, 2047),
        ("bytes=0-0", 0, 0),
        ("bytes=2047-", 2047, 2047),
        ("bytes=0-", 0, 2047),
        ("bytes=-1", 2047, 2047),
        ("bytes=-5000", 0, 2047),
    ],
)
def test_range(server: Registry, repository: str, algorithm: str, asked: str, first: int, last: int) -> None:
    """The bytes that were asked for, and which they are."""
    blob = secrets.token_bytes(SIZE)
    path = blob_path(repository, put_blob(server, repository, blob, algorithm))
    answer = server.request("GET", path, headers={"Range": asked})
    assert (answer.status, answer.body) == (206, blob[first : last + 1])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["Content-Length"] == str(last + 1 - first)


@pytest.mark.parametrize(
    "asked", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0", "bytes=99999999999999-"]
)
@by_every_algorithm
def test_range_that_cannot_be(server: Registry, repository: str, algorithm: str, asked: str) -> None:
    """No byte is in the range: 416 and the size. The official suite counts `500-0` among these."""
    digest = put_blob(server, repository, secrets.token_bytes(SIZE), algorithm)
    answer = server.request("GET", blob_path(repository, digest), headers={"Range": asked})
    check_error(answer, 416)
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    ["bytes", "bytes=", "bytes=a-b", "bytes=1-2-3", "bytes 0-5", "items=0-5", "0-5", "bytes=--5"],
)
def test_range_that_is_none(server: Registry, repository: str, asked: str) -> None:
    """RFC 9110, 14.2: a Range that is not understood is as if it were not there."""
    blob = secrets.token_bytes(SIZE)
    digest = put_blob(server, repository, blob)
    answer = server.request("GET", blob_path(repository, digest), headers={"Range": asked})
    assert (answer.status, answer.body) == (200, blob)


def test_several_ranges(server: Registry, repository: str) -> None:
    """Several ranges come as parts, or the whole blob comes."""
    blob = secrets.token_bytes(SIZE)
    digest = put_blob(server, repository, blob)
    several = {"Range": "bytes=0-1,100-101"}
    answer = server.request("GET", blob_path(repository, digest), headers=several)
    if answer.status == 206:
        assert answer.headers.get_content_type() == "multipart/byteranges"
        assert blob[0:2] in answer.body
        assert blob[100:102] in answer.body
    else:
        assert (answer.status, answer.body) == (200, blob)


def test_interrupted_pull_is_resumed(server: Registry, repository: str) -> None:
    """The pieces that ranges give are the blob, block boundaries or not."""
    blob = secrets.token_bytes(700_001)
    path = blob_path(repository, put_blob(server, repository, blob))
    pulled = b""
    for end in (1, 65_536, 262_144, 262_145, 700_000, ""):
        start = len(pulled)
        last = "" if end == "" else int(end) - 1
        answer = server.request("GET", path, headers={"Range": f"bytes={start}-{last}"})
        assert answer.status == 206
        pulled += answer.body
    assert pulled == blob


@pytest.mark.parametrize("form", ["{}", 'W/{}, "other"', '"other", {}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_if_none_match(server: Registry, repository: str, form: str, method: str) -> None:
    """A client that has the blob is told so without its bytes, also when it asks for a range."""
    path = blob_path(repository, put_blob(server, repository, secrets.token_bytes(SIZE)))
    entity_tag = server.request("HEAD", path).headers["ETag"]
    assert entity_tag.strip('"') == entity_tag[1:-1]
    known = {"If-None-Match": form.format(entity_tag)}
    for headers in (known, {**known, "Range": "bytes=0-9"}):
        answer = server.request(method, path, headers=headers)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == entity_tag


def test_if_none_match_of_something_else(server: Registry, repository: str) -> None:
    """A client that has another blob gets this one."""
    blob = secrets.token_bytes(SIZE)
    path = blob_path(repository, put_blob(server, repository, blob))
    answer = server.request("GET", path, headers={"If-None-Match": '"sha256:other"'})
    assert (answer.status, answer.body) == (200, blob)


@by_every_algorithm
def test_delete(server: Registry, repository: str, algorithm: str) -> None:
    """A deleted blob is gone at once, a second DELETE finds nothing, and it can be pushed again."""
    blob = secrets.token_bytes(64)
    digest = put_blob(server, repository, blob, algorithm)
    assert server.request("DELETE", blob_path(repository, digest)).status == 202
    check_blob_absent(server, repository, digest)
    again = server.request("DELETE", blob_path(repository, digest))
    check_error(again, 404, "BLOB_UNKNOWN")
    put_blob(server, repository, blob, algorithm)
    assert server.request("GET", blob_path(repository, digest)).body == blob

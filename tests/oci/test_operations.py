"""Endpoints: raw methods, paths and queries as clients send them, each one frozen value or one refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName, Tag, UploadId
from trioreg.oci.operations import (
    AppendUpload,
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    GetBlob,
    GetManifest,
    ListReferrers,
    ListRepositories,
    ListTags,
    Operation,
    Ping,
    PutManifest,
    StartUpload,
    UploadStatus,
    is_ours,
    parse_operation,
)

SHA256 = digest_of(b"content")
SHA512 = digest_of(b"content", "sha512")
ESCAPED = str(SHA256).replace(":", "%3A")
NAME = RepositoryName("a/b")
OTHER = RepositoryName("c/d")
UPLOAD = UploadId("01234567-89ab-4def-8123-456789abcdef")


def started(
    digest: Digest | None = None, mount: Digest | None = None, source: RepositoryName | None = None
) -> StartUpload:
    return StartUpload(NAME, digest, mount, source, digest.algorithm if digest else "sha256")


OPERATIONS: list[tuple[str, Operation]] = [
    ("GET /v2/", Ping()),
    ("GET /v2", Ping()),
    ("HEAD /v2/", Ping()),
    ("GET /v2/?anything=1", Ping()),
    (f"GET /v2/a/b/blobs/{SHA256}", GetBlob(NAME, SHA256)),
    (f"HEAD /v2/a/b/blobs/{SHA512}", GetBlob(NAME, SHA512)),
    (f"DELETE /v2/a/b/blobs/{SHA256}", DeleteBlob(NAME, SHA256)),
    (f"GET /v2/a/b/blobs/{ESCAPED}", GetBlob(NAME, SHA256)),
    ("POST /v2/a/b/blobs/uploads/", started()),
    ("POST /v2/a/b/blobs/uploads", started()),
    (f"POST /v2/a/b/blobs/uploads/?digest={SHA256}", started(SHA256)),
    (f"POST /v2/a/b/blobs/uploads/?digest={SHA512}", started(SHA512)),
    (f"PATCH /v2/a/b/blobs/uploads/{UPLOAD}", AppendUpload(NAME, UPLOAD)),
    (f"PATCH /v2/a/b/blobs/uploads/{UPLOAD}?_state=foreign", AppendUpload(NAME, UPLOAD)),
    (f"PUT /v2/a/b/blobs/uploads/{UPLOAD}?digest={SHA256}", FinishUpload(NAME, UPLOAD, SHA256)),
    (f"PUT /v2/a/b/blobs/uploads/{UPLOAD}?digest={ESCAPED}", FinishUpload(NAME, UPLOAD, SHA256)),
    (f"GET /v2/a/b/blobs/uploads/{UPLOAD}", UploadStatus(NAME, UPLOAD)),
    (f"DELETE /v2/a/b/blobs/uploads/{UPLOAD}", CancelUpload(NAME, UPLOAD)),
    ("GET /v2/a/b/manifests/latest", GetManifest(NAME, Tag("latest"))),
    (f"HEAD /v2/a/b/manifests/{SHA256}", GetManifest(NAME, SHA256)),
    ("PUT /v2/a/b/manifests/1.0", PutManifest(NAME, Tag("1.0"))),
    (f"PUT /v2/a/b/manifests/{SHA512}", PutManifest(NAME, SHA512)),
    ("DELETE /v2/a/b/manifests/latest", DeleteManifest(NAME, Tag("latest"))),
    (f"DELETE /v2/a/b/manifests/{ESCAPED}", DeleteManifest(NAME, SHA256)),
    ("GET /v2/a/b/tags/list", ListTags(NAME, None, None)),
    ("GET /v2/a/b/tags/list?n=10&last=v1", ListTags(NAME, 10, "v1")),
    ("GET /v2/a/b/tags/list?n=0", ListTags(NAME, 0, None)),
    ("GET /v2/a/b/tags/list?last=", ListTags(NAME, None, "")),
    ("GET /v2/a/b/tags/list?n=999999999", ListTags(NAME, 999_999_999, None)),
    (f"GET /v2/a/b/referrers/{SHA256}", ListReferrers(NAME, SHA256, None)),
    (f"GET /v2/a/b/referrers/{SHA256}?artifactType=a/b", ListReferrers(NAME, SHA256, "a/b")),
    (f"GET /v2/a/b/referrers/{SHA256}?artifactType=a%2Fb%2Bc", ListReferrers(NAME, SHA256, "a/b+c")),
    (f"GET /v2/a/b/referrers/{SHA256}?artifactType=", ListReferrers(NAME, SHA256, None)),
    ("GET /v2/_catalog", ListRepositories(None, None)),
    ("GET /v2/_catalog?n=2&last=a%2Fb", ListRepositories(2, "a/b")),
    # Clients as they are. containerd leaves colon and slash as they are; docker escapes them; regctl
    # mounts from nowhere; some send every parameter empty.
    (f"POST /v2/a/b/blobs/uploads/?mount={SHA256}&from=c/d", started(None, SHA256, OTHER)),
    (f"POST /v2/a/b/blobs/uploads/?from=c%2Fd&mount={ESCAPED}", started(None, SHA256, OTHER)),
    (f"POST /v2/a/b/blobs/uploads/?mount={SHA256}", started(None, SHA256)),
    (f"POST /v2/a/b/blobs/uploads/?mount={SHA256}&from=", started(None, SHA256)),
    ("POST /v2/a/b/blobs/uploads/?mount=&from=", started()),
    ("POST /v2/a/b/blobs/uploads/?", started()),
    ("POST /v2/a/b/blobs/uploads/?digest-algorithm=sha512", StartUpload(NAME, None, None, None, "sha512")),
    (
        f"POST /v2/a/b/blobs/uploads/?digest={SHA256}&digest-algorithm=sha512",
        StartUpload(NAME, SHA256, None, None, "sha512"),
    ),
    (f"PUT /v2/a/b/blobs/uploads/{UPLOAD}?x=1&digest={SHA256}", FinishUpload(NAME, UPLOAD, SHA256)),
    # The first of a repeated key counts.
    (f"PUT /v2/a/b/blobs/uploads/{UPLOAD}?digest={SHA256}&digest=x", FinishUpload(NAME, UPLOAD, SHA256)),
    # Escapes that need not be, in one segment.
    ("GET /v2/%61/b/manifests/l%61test", GetManifest(NAME, Tag("latest"))),
    ("GET /v2/a/b/m%61nifests/latest", GetManifest(NAME, Tag("latest"))),
    # A repository may be called like an endpoint: paths are read from the right.
    ("GET /v2/tags/list/tags/list", ListTags(RepositoryName("tags/list"), None, None)),
    ("GET /v2/a/manifests/manifests/b", GetManifest(RepositoryName("a/manifests"), Tag("b"))),
    (f"GET /v2/blobs/blobs/{SHA256}", GetBlob(RepositoryName("blobs"), SHA256)),
    (f"GET /v2/a/blobs/uploads/blobs/{SHA256}", GetBlob(RepositoryName("a/blobs/uploads"), SHA256)),
    ("GET /v2/a/manifests/list", GetManifest(RepositoryName("a"), Tag("list"))),
    ("GET /v2/a/tags/list", ListTags(RepositoryName("a"), None, None)),
]

REFUSED = [
    ("GET /", "PATH_UNKNOWN"),
    ("GET ", "PATH_UNKNOWN"),
    ("GET /v1/", "PATH_UNKNOWN"),
    ("GET /v22/", "PATH_UNKNOWN"),
    ("GET /V2/", "PATH_UNKNOWN"),
    ("GET //v2/", "PATH_UNKNOWN"),
    ("GET /v2/a", "PATH_UNKNOWN"),
    ("GET /v2/a/b/c", "PATH_UNKNOWN"),
    ("GET /v2/a/tags/list/", "PATH_UNKNOWN"),
    ("GET /v2/_catalog/", "PATH_UNKNOWN"),
    ("GET /v2/a/tags/listing", "PATH_UNKNOWN"),
    # No name, or one that is none.
    ("GET /v2/tags/list", "NAME_INVALID"),
    ("GET /v2//tags/list", "NAME_INVALID"),
    ("GET /v2/manifests/latest", "NAME_INVALID"),
    ("GET /v2/A/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a//b/manifests/latest", "NAME_INVALID"),
    ("GET /v2/../manifests/latest", "NAME_INVALID"),
    ("GET /v2/%2e%2e/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a%2Fb/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a%2fb/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a/manifests/..%2F..%2Fetc", "NAME_INVALID"),
    ("GET /v2/%FF/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a%00/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a%0A/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a%252Fb/manifests/latest", "NAME_INVALID"),
    ("GET /v2/a%/manifests/latest", "NAME_INVALID"),
    ("GET /v2/_catalog/manifests/latest", "NAME_INVALID"),
    (f"GET /v2/{'a' * 256}/manifests/latest", "NAME_INVALID"),
    (f"POST /v2/a/blobs/uploads/?mount={SHA256}&from=../c", "NAME_INVALID"),
    # References.
    ("GET /v2/a/manifests/", "TAG_INVALID"),
    ("GET /v2/a/manifests/..", "TAG_INVALID"),
    ("GET /v2/a/manifests/%2e%2e", "TAG_INVALID"),
    ("GET /v2/a/manifests/-x", "TAG_INVALID"),
    ("GET /v2/a/manifests/a+b", "TAG_INVALID"),
    (f"GET /v2/a/manifests/{'a' * 129}", "TAG_INVALID"),
    ("GET /v2/a/manifests/sha256:abc", "DIGEST_INVALID"),
    ("GET /v2/a/manifests/a:b", "DIGEST_INVALID"),
    ("GET /v2/a/blobs/latest", "DIGEST_INVALID"),
    ("GET /v2/a/blobs/", "DIGEST_INVALID"),
    ("GET /v2/a/referrers/latest", "DIGEST_INVALID"),
    ("POST /v2/a/blobs/uploads/?digest=", "DIGEST_INVALID"),
    ("POST /v2/a/blobs/uploads/?mount=x", "DIGEST_INVALID"),
    ("POST /v2/a/blobs/uploads/?digest-algorithm=", "DIGEST_INVALID"),
    ("POST /v2/a/blobs/uploads/?digest-algorithm=md5", "DIGEST_INVALID"),
    (f"PUT /v2/a/blobs/uploads/{UPLOAD}", "DIGEST_INVALID"),
    (f"PUT /v2/a/blobs/uploads/{UPLOAD}?digest", "DIGEST_INVALID"),
    (f"PUT /v2/a/blobs/uploads/{UPLOAD}?Digest={SHA256}", "DIGEST_INVALID"),
    # Upload ids.
    ("PATCH /v2/a/blobs/uploads/x", "BLOB_UPLOAD_INVALID"),
    ("PATCH /v2/a/blobs/uploads/..", "BLOB_UPLOAD_INVALID"),
    (f"PATCH /v2/a/blobs/uploads/{UPLOAD.upper()}", "BLOB_UPLOAD_INVALID"),
    (f"PATCH /v2/a/blobs/uploads/{UPLOAD}%00", "BLOB_UPLOAD_INVALID"),
    # Pages.
    ("GET /v2/a/tags/list?n=-1", "PAGINATION_NUMBER_INVALID"),
    ("GET /v2/a/tags/list?n=", "PAGINATION_NUMBER_INVALID"),
    ("GET /v2/a/tags/list?n=1.5", "PAGINATION_NUMBER_INVALID"),
    ("GET /v2/a/tags/list?n=%2B1", "PAGINATION_NUMBER_INVALID"),
    ("GET /v2/a/tags/list?n=%D9%A1", "PAGINATION_NUMBER_INVALID"),
    ("GET /v2/a/tags/list?n=%C2%B2", "PAGINATION_NUMBER_INVALID"),
    (f"GET /v2/_catalog?n={'9' * 5000}", "PAGINATION_NUMBER_INVALID"),
    (f"GET /v2/a/tags/list?{'&'.join(['n=1'] * 101)}", "UNSUPPORTED"),
]
METHODS = {
    "/v2/": "GET, HEAD",
    "/v2/_catalog": "GET",
    "/v2/a/tags/list": "GET",
    f"/v2/a/referrers/{SHA256}": "GET",
    "/v2/a/manifests/latest": "GET, HEAD, PUT, DELETE",
    f"/v2/a/blobs/{SHA256}": "GET, HEAD, DELETE",
    "/v2/a/blobs/uploads/": "POST",
    "/v2/a/blobs/uploads": "POST",
    f"/v2/a/blobs/uploads/{UPLOAD}": "GET, PATCH, PUT, DELETE",
}


def parse(line: str) -> Operation:
    method, _, target = line.partition(" ")
    path, _, query = target.partition("?")
    return parse_operation(method, path, query)


@pytest.mark.parametrize(("line", "expected"), OPERATIONS, ids=[each[0][:80] for each in OPERATIONS])
def test_operation(line: str, expected: Operation) -> None:
    """The request is this one value."""
    assert parse(line) == expected


@pytest.mark.parametrize(("line", "error"), REFUSED, ids=[each[0][:80] for each in REFUSED])
def test_refused(line: str, error: str) -> None:
    """The request is refused for the first thing in it that is wrong."""
    with pytest.raises(RegistryError) as refused:
        parse(line)
    assert refused.value.error.name == error


@pytest.mark.parametrize("path", METHODS)
def test_methods(path: str) -> None:
    """An endpoint takes its own methods, exactly spelt; others are 405 and `Allow` names them."""
    allowed = METHODS[path].split(", ")
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "BREW", ""):
        if method in allowed:
            parse_operation(method, path, f"digest={SHA256}")
            continue
        with pytest.raises(RegistryError) as refused:
            parse_operation(method, path, "")
        assert refused.value.error is ErrorCode.METHOD_UNSUPPORTED
        assert refused.value.headers == {"Allow": METHODS[path]}


def test_is_ours() -> None:
    """What begins with the API's prefix is the API's, well formed or not."""
    assert all(map(is_ours, ["/v2", "/v2/", "/v2/x", "/v2//"]))
    assert not any(map(is_ours, ["", "/", "/v2x", "v2/", "/metrics", "//v2/"]))


@given(
    line=st.sampled_from([each[0] for each in OPERATIONS]), at=st.integers(0, 400), what=st.text(max_size=3)
)
def test_mangled(line: str, at: int, what: str) -> None:
    """A request with letters changed is some value or a refusal, and nothing else happens."""
    mangled = line[:at] + what + line[at + 1 :]
    try:
        parse(mangled)
    except RegistryError as refused:
        if not 400 <= refused.error.status < 500:
            raise


@given(
    path=st.lists(st.sampled_from(["a", "v2", "", ".", "..", "%2F", "blobs", "uploads", "tags", "list"])).map(
        "/".join
    ),
    method=st.sampled_from(["GET", "PUT", "POST", "PATCH"]),
    query=st.text(max_size=30),
)
def test_any_path(path: str, method: str, query: str) -> None:
    """No path or query raises anything but a refusal of the client's."""
    try:
        parse_operation(method, f"/v2/{path}", query)
    except RegistryError as refused:
        if not 400 <= refused.error.status < 500:
            raise

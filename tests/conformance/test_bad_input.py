"""Bad input in well-formed requests: each is refused with its code and changes nothing."""

from __future__ import annotations

import secrets

import pytest
from blackbox import OCI_MANIFEST, Registry, digest_of, with_query

from .content import OCTETS, content_of
from .steps import (
    ALGORITHMS,
    PUSHES,
    accepted,
    blob_path,
    check_blob_absent,
    check_error,
    finish,
    manifest_path,
    new_repository,
    patch,
    push_content,
    start_upload,
)

DIGEST = f"sha256:{'a' * 64}"
BAD_DIGESTS = [
    "",
    "sha256",
    "sha256:",
    "sha256:short",
    f"sha256:{'A' * 64}",
    f"sha256:{'a' * 63}",
    f"sha256:{'a' * 65}",
    f"sha256:{'g' * 64}",
    f"sha512:{'a' * 64}",
    f"SHA256:{'a' * 64}",
    f"sha256:{'a' * 64}%0A",
    f"sha256:{'a' * 64}%00",
    "sha256:..%2F..%2F..%2Fetc%2Fpasswd",
]
UNSUPPORTED_DIGESTS = [f"md5:{'a' * 32}", f"sha384:{'a' * 96}", f"blake3:{'a' * 64}"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", ["patch", "put"])
def test_wrong_digest_ends_the_upload(server: Registry, repository: str, algorithm: str, way: str) -> None:
    """The bytes are not what they claim: 400, the session is gone, nothing is published."""
    blob, claimed = secrets.token_bytes(3000), digest_of(secrets.token_bytes(8), algorithm)
    location = start_upload(server, repository)
    if way == "patch":
        location = accepted(patch(server, location, blob), len(blob))
    answer = finish(server, location, claimed, b"" if way == "patch" else blob)
    check_error(answer, 400, "DIGEST_INVALID")
    check_error(server.request("GET", location), 404, "BLOB_UPLOAD_UNKNOWN")
    check_error(patch(server, location, blob), 404, "BLOB_UPLOAD_UNKNOWN")
    for digest in (claimed, digest_of(blob, algorithm)):
        check_blob_absent(server, repository, digest)
    answer = server.request("POST", f"/v2/{new_repository()}/blobs/uploads/?mount={claimed}", b"")
    assert answer.status == 202


@pytest.mark.parametrize("digest", BAD_DIGESTS + UNSUPPORTED_DIGESTS)
def test_malformed_digest_of_an_upload(server: Registry, repository: str, digest: str) -> None:
    """A digest that is none, or by no algorithm of ours, is 400; the session lives on."""
    blob = secrets.token_bytes(100)
    location = accepted(patch(server, start_upload(server, repository), blob), 100)
    check_error(finish(server, location, digest), 400, "DIGEST_INVALID")
    assert server.request("GET", location).headers["Range"] == "0-99"
    assert finish(server, location, digest_of(blob)).status == 201


@pytest.mark.parametrize("digest", [each for each in BAD_DIGESTS if each] + UNSUPPORTED_DIGESTS)
def test_malformed_digest_elsewhere(server: Registry, repository: str, digest: str) -> None:
    """So it is where a blob is named, mounted, sent at once, or asked for its referrers."""
    requests = [
        ("GET", blob_path(repository, digest)),
        ("DELETE", blob_path(repository, digest)),
        ("GET", f"/v2/{repository}/referrers/{digest}"),
        ("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}"),
        ("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}"),
    ]
    for method, path in requests:
        check_error(server.request(method, path, b""), 400, "DIGEST_INVALID", "NAME_INVALID")


@pytest.mark.parametrize("algorithm", ["md5", "sha384", "blake3", "", "SHA256", "..%2Fsha256"])
def test_unsupported_algorithm(server: Registry, repository: str, algorithm: str) -> None:
    """An algorithm that we cannot compute is refused before any byte is sent."""
    path = f"/v2/{repository}/blobs/uploads/?digest-algorithm={algorithm}"
    check_error(server.request("POST", path, b""), 400, "DIGEST_INVALID", "UNSUPPORTED")


@pytest.mark.parametrize(
    ("content_range", "code"),
    [
        ("0-98", "SIZE_INVALID"),
        ("0-100", "SIZE_INVALID"),
        ("0-0", "SIZE_INVALID"),
        ("99-0", "BLOB_UPLOAD_INVALID"),
        ("-99", "BLOB_UPLOAD_INVALID"),
        ("0-", "BLOB_UPLOAD_INVALID"),
        ("nonsense", "BLOB_UPLOAD_INVALID"),
    ],
)
def test_size_mismatch(server: Registry, repository: str, content_range: str, code: str) -> None:
    """A chunk whose two lengths disagree, or whose place cannot be read, adds nothing."""
    blob = secrets.token_bytes(100)
    location = start_upload(server, repository)
    headers = {"Content-Type": OCTETS, "Content-Range": content_range}
    check_error(server.request("PATCH", location, blob, headers), 400, code)
    location = accepted(patch(server, location, blob, 0), 100)
    closing = with_query(location, f"digest={digest_of(blob)}")
    refused = server.request("PUT", closing, blob, {**headers, "Content-Range": "100-198"})
    check_error(refused, 400, "SIZE_INVALID")
    assert finish(server, location, digest_of(blob)).status == 201


@pytest.mark.parametrize("start", [0, 500, 999, 1001, 5000])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_chunk_out_of_place(server: Registry, repository: str, start: int, method: str) -> None:
    """Replayed, overlapping, or ahead: 416 with the range that is held, and nothing is appended."""
    blob = secrets.token_bytes(2000)
    location = accepted(patch(server, start_upload(server, repository), blob[:1000], 0), 1000)
    target = location
    if method == "PUT":
        target = with_query(location, f"digest={digest_of(blob)}")
    refused = patch(server, target, blob[start : start + 1000] or blob[:1000], start, method)
    check_error(refused, 416)
    assert refused.headers["Range"] == "0-999"
    location = accepted(patch(server, location, blob[1000:], 1000), 2000)
    assert finish(server, location, digest_of(blob)).status == 201


UPLOAD_METHODS = ["GET", "PATCH", "PUT", "DELETE"]


@pytest.mark.parametrize("method", UPLOAD_METHODS)
def test_upload_under_another_repository(server: Registry, repository: str, method: str) -> None:
    """A session belongs to its repository: elsewhere it is unknown, and unharmed."""
    blob = secrets.token_bytes(100)
    location = accepted(patch(server, start_upload(server, repository), blob), 100)
    stolen = location.replace(repository, new_repository())
    answer = server.request(method, with_query(stolen, f"digest={DIGEST}"), b"")
    check_error(answer, 404, "BLOB_UPLOAD_UNKNOWN")
    assert server.request("GET", location).headers["Range"] == "0-99"
    assert finish(server, location, digest_of(blob)).status == 201


@pytest.mark.parametrize("method", UPLOAD_METHODS)
@pytest.mark.parametrize(
    "upload",
    [
        "x",
        "..",
        ".",
        "%2e%2e",
        "..%2F..%2F..%2Fetc",
        "00000000-0000-4000-8000-00000000000",
        "00000000-0000-4000-8000-000000000000%00",
        "00000000-0000-4000-8000-000000000000%2Fdata",
        "a" * 300,
    ],
)
def test_malformed_upload_id(server: Registry, repository: str, method: str, upload: str) -> None:
    """An id that we never gave out names nothing, least of all a file."""
    path = f"/v2/{repository}/blobs/uploads/{upload}?digest={DIGEST}"
    answer = server.request(method, path, b"")
    check_error(answer, answer.status if answer.status in (400, 404) else 400)


BAD_NAMES = [
    "UPPER",
    "a/Upper",
    "-dash",
    "dash-",
    ".dot",
    "_under",
    "a..b",
    "a___b",
    "a._b",
    "a/-b",
    "a%20b",
    "a%00b",
    "a%0Ab",
    "a%0A",
    "a%2Fb",
    "a%2F..%2Fb",
    "a%5Cb",
    "%2e%2e",
    "..%2F..%2Fetc",
    "a/%2e%2e/b",
    "%C3%A4",
    "%FF",
    "a" * 256,
    "/".join(["abc"] * 64) + "d",
]
# A front may take dots and double slashes out of a path: then there is no such endpoint.
BENT_PATHS = [
    "..",
    "../..",
    "a/..",
    "a/../b",
    "a/./b",
    "a//b",
    "/a",
    "a/",
    "../../../../etc/passwd",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_name(server: Registry, name: str) -> None:
    """A name outside the grammar is NAME_INVALID at every endpoint, for every method."""
    for method, rest in _endpoints():
        check_error(server.request(method, f"/v2/{name}/{rest}", b""), 400, "NAME_INVALID")


@pytest.mark.parametrize("name", BENT_PATHS)
def test_bent_path(server: Registry, name: str) -> None:
    """A path that tries to climb is 400 or 404, never something else's content."""
    for method, rest in _endpoints():
        answer = server.request(method, f"/v2/{name}/{rest}", b"")
        check_error(answer, answer.status if answer.status in (400, 404) else 400)


def _endpoints() -> list[tuple[str, str]]:
    return [
        ("GET", "tags/list"),
        ("GET", "manifests/latest"),
        ("PUT", "manifests/latest"),
        ("DELETE", "manifests/latest"),
        ("GET", f"blobs/{DIGEST}"),
        ("POST", "blobs/uploads/"),
        ("GET", f"referrers/{DIGEST}"),
    ]


def test_escaped_slash_is_no_slash(server: Registry, repository: str) -> None:
    """`%2F` cannot reach a repository that `/` reaches."""
    content = content_of("no-layers")
    push_content(server, repository, content)
    answer = server.request("GET", f"/v2/{repository.replace('/', '%2F')}/manifests/no-layers")
    check_error(answer, 400, "NAME_INVALID")


def test_bad_name_as_the_source_of_a_mount(server: Registry, repository: str) -> None:
    """`from` is a repository name as well."""
    for name in ("..", "..%2F..%2Fetc", "UPPER", "a%00"):
        path = f"/v2/{repository}/blobs/uploads/?mount={DIGEST}&from={name}"
        check_error(server.request("POST", path, b""), 400, "NAME_INVALID")


@pytest.mark.parametrize(
    "tag",
    [
        "-dash",
        ".dot",
        "a" * 129,
        "a%20b",
        "a%00",
        "a%0A",
        "..",
        "%2e%2e",
        "%2e",
        "a+b",
        "%C3%A4",
        "",
    ],
)
def test_bad_tag(server: Registry, repository: str, tag: str) -> None:
    """A tag outside the grammar is refused, whatever is asked of it."""
    content = content_of("no-layers")
    push_content(server, repository, content)
    for method in ("GET", "PUT", "DELETE"):
        body = content.manifests[0].body if method == "PUT" else None
        headers = {"Content-Type": OCI_MANIFEST}
        answer = server.request(method, manifest_path(repository, tag), body, headers)
        check_error(answer, answer.status if answer.status in (400, 404) else 400)


def test_tag_that_leaves_the_root(server: Registry, repository: str) -> None:
    """An escaped path as a tag is 400."""
    for tag in ("..%2F..%2Fescaped", "%2Ftmp%2Fescaped", "..%5Cescaped"):
        path = manifest_path(repository, tag)
        check_error(server.request("PUT", path, b"{}"), 400)
        check_error(server.request("GET", path), 400)


@pytest.mark.parametrize("way", PUSHES)
def test_bad_push_leaves_no_repository(server: Registry, repository: str, way: str) -> None:
    """A push that failed does not make a tag list of its repository."""
    PUSHES[way](server, repository, b"some bytes", DIGEST)
    answer = server.request("GET", f"/v2/{repository}/tags/list")
    check_error(answer, 404, "NAME_UNKNOWN")


def test_server_still_answers(server: Registry) -> None:
    """After all this the registry is still one."""
    assert server.request("GET", "/v2/").status == 200

"""end-1, and what every answer of the API has in common."""

from __future__ import annotations

import pytest
from blackbox import Registry

from .steps import check_error
from .wire import Wire

ABSENT = f"sha256:{'0' * 64}"
SESSION = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
def test_ping(server: Registry, path: str) -> None:
    """A client finds a registry that speaks this API, with or without the last slash."""
    answer = server.request("GET", path)
    assert answer.status == 200
    assert answer.headers.get("Docker-Distribution-API-Version", "registry/2.0") == "registry/2.0"
    assert server.request("HEAD", path).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing",
        "/v2/some/name/tags",
        "/v2/some/name/blobs",
        "/v2/name/unknown/thing",
        "/v2/_x",
    ],
)
def test_unknown_path(server: Registry, path: str) -> None:
    """A path that is no endpoint is told so in the envelope, not in the framework's HTML."""
    check_error(server.request("GET", path), 404)


METHODS = {
    "/v2/": {"GET"},
    "/v2/_catalog": {"GET"},
    "/v2/some/name/tags/list": {"GET"},
    f"/v2/some/name/referrers/{ABSENT}": {"GET"},
    "/v2/some/name/blobs/uploads/": {"POST"},
    f"/v2/some/name/blobs/uploads/{SESSION}": {"GET", "PATCH", "PUT", "DELETE"},
    f"/v2/some/name/blobs/{ABSENT}": {"GET", "HEAD", "DELETE"},
    "/v2/some/name/manifests/latest": {"GET", "HEAD", "PUT", "DELETE"},
}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, path)
        for method in ("TRACE", "BREW", "OPTIONS", "PATCH")
        for path, allowed in METHODS.items()
        if method not in allowed
    ],
)
def test_unknown_method(server: Registry, method: str, path: str) -> None:
    """A method that an endpoint has not is 405, with the methods it has."""
    answer = server.request(method, path)
    check_error(answer, 405, "UNSUPPORTED")
    named = {word.strip() for word in answer.headers["Allow"].split(",")}
    assert METHODS[path] <= named
    assert method not in named


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", f"/v2/some/name/blobs/{ABSENT}", "BLOB_UNKNOWN"),
        ("DELETE", f"/v2/some/name/blobs/{ABSENT}", "BLOB_UNKNOWN"),
        ("GET", "/v2/some/name/manifests/absent", "MANIFEST_UNKNOWN"),
        ("GET", f"/v2/some/name/manifests/{ABSENT}", "MANIFEST_UNKNOWN"),
        ("DELETE", "/v2/some/name/manifests/absent", "MANIFEST_UNKNOWN"),
        ("DELETE", f"/v2/some/name/manifests/{ABSENT}", "MANIFEST_UNKNOWN"),
        ("GET", "/v2/some/name/tags/list", "NAME_UNKNOWN"),
        ("GET", f"/v2/some/name/blobs/uploads/{SESSION}", "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", f"/v2/some/name/blobs/uploads/{SESSION}", "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", f"/v2/some/name/blobs/uploads/{SESSION}?digest={ABSENT}", "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", f"/v2/some/name/blobs/uploads/{SESSION}", "BLOB_UPLOAD_UNKNOWN"),
    ],
)
def test_what_is_not_there(server: Registry, method: str, path: str, code: str) -> None:
    """What a registry does not have is 404 with the code for it; NAME_UNKNOWN is right as well."""
    check_error(server.request(method, path), 404, code, "NAME_UNKNOWN")


def test_head_of_an_error_has_no_body(server: Registry) -> None:
    """HEAD of what is not there is a bare 404, and the connection goes on."""
    with Wire(server) as wire:
        for path in (f"/v2/some/name/blobs/{ABSENT}", "/v2/some/name/manifests/absent"):
            wire.send(wire.head("HEAD", path))
            assert wire.answer("HEAD").status == 404
        wire.send(wire.head("GET", "/v2/"))
        assert wire.answer().status == 200


def test_pipelined_requests(server: Registry, repository: str) -> None:
    """Requests sent together on one connection are answered each, in their order."""
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    upload = f"/v2/{repository}/blobs/uploads/?digest={digest}"
    with Wire(server) as wire:
        requests = [
            ("GET", "/v2/", b"", 200),
            ("HEAD", f"/v2/{repository}/blobs/{digest}", b"", 404),
            ("POST", upload, b"{}", 201),
            ("GET", f"/v2/{repository}/blobs/{digest}", b"", 200),
            ("GET", f"/v2/{repository}/manifests/absent", b"", 404),
            ("GET", "/v2/", b"", 200),
        ]
        together = b""
        for method, path, body, _ in requests:
            together += wire.head(method, path, {"Content-Length": str(len(body))}) + body
        wire.send(together)
        answers = [wire.answer(method) for method, *_ in requests]
    assert [answer.status for answer in answers] == [status for *_, status in requests]
    assert answers[3].body == b"{}"

"""Requests at random to a real server, on both fronts: never 500, never a bug in its log, never a hang."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest
from blackbox import OCI_INDEX, OCI_MANIFEST, Server, digest_of, image, path_of, push_manifest
from fuzzing import examples
from hypothesis import given, seed
from hypothesis import strategies as st

from .tally import SEED, TALLY

IMAGE = image(b"{}", [b"layer"], annotations={"a": "b"})
DIGEST = digest_of(b"layer")
# What a server may say in the 5xx: not implemented, no space, version of HTTP.
FINE = {501, 505, 507}

segments = st.sampled_from(
    [
        *[
            "v2",
            "a",
            "b",
            "blobs",
            "uploads",
            "manifests",
            "tags",
            "list",
            "referrers",
            "_catalog",
            "latest",
            "UPLOAD",
            "..",
            "%2e%2e",
            "%2F",
            "%00",
        ],
        *[
            "%ff",
            "%",
            "A",
            "sha256:x",
            "ä",
            "auth",
            "token",
            "metrics",
            "debug",
            "memory",
            "health",
            "healthz",
            "\x7f",
            "*",
            ";",
            "\\",
        ],
        *("", "a b", "a" * 300, DIGEST, IMAGE.digest),
    ]
)
keys = st.sampled_from(["digest", "mount", "from", "n", "last", "artifactType", "service", "scope", "x", ""])
values = st.sampled_from(
    [
        DIGEST,
        IMAGE.digest,
        "a/b",
        "a",
        "0",
        "1",
        "-1",
        "9" * 30,
        "%",
        "%ff",
        "%00",
        "",
        "sha512",
        "ä",
        "a&b",
        "=",
    ]
)
paths = st.one_of(
    st.lists(segments, max_size=8).map(lambda parts: "/" + "/".join(parts)),
    st.builds(
        "/v2/a/b/{}/{}".format,
        st.sampled_from(["blobs", "manifests", "referrers", "tags", "blobs/uploads"]),
        segments,
    ),
)
targets = st.builds(
    lambda path, query: path + ("?" + "&".join(f"{key}={value}" for key, value in query) if query else ""),
    paths,
    st.lists(st.tuples(keys, values), max_size=3),
)
numbers = st.sampled_from(["0", "1", "5", "-1", "9" * 20, "x", ""])
HEADERS: dict[str, st.SearchStrategy[str]] = {
    "Range": st.sampled_from(
        ["bytes=0-1", "bytes=-1", "bytes=9-", "bytes=0-0,2-3", "x", "bytes=" + "9" * 40 + "-"]
    ),
    "Content-Range": st.sampled_from(["0-4", "5-9", "bytes 0-4/*", "4-0", "x", "9" * 40 + "-1"]),
    "Content-Type": st.sampled_from(
        [OCI_MANIFEST, OCI_INDEX, "x", "", "a/b;c=\xff", "application/octet-stream"]
    ),
    "Authorization": st.sampled_from(
        [
            *("", "Basic", "Basic !", "Basic YTpi", "Basic /w==", "Basic Og==", "Basic " + "A" * 9000),
            *("Bearer", "Bearer ", "Bearer x", "Bearer a.b.c", "Bearer eyJhbGciOiJub25lIn0.e30."),
            *("Bearer " + "." * 5000, "Digest x", "\xff"),
        ]
    ),
    "Accept": st.sampled_from(["*/*", OCI_MANIFEST, "", ",", "x;q=9", "\xff"]),
    "If-None-Match": st.sampled_from(["*", f'"{DIGEST}"', '"', "W/", ","]),
    "Expect": st.sampled_from(["100-continue", "x"]),
    "Transfer-Encoding": st.sampled_from(["chunked", "gzip", "chunked, chunked", "x"]),
    "Connection": st.sampled_from(["close", "keep-alive", "upgrade", ","]),
    "X-Forwarded-For": st.sampled_from(["1.2.3.4", "x", ""]),
    "Host": st.sampled_from(["", "x", "a:b:c", "[::1]"]),
    "Cookie": st.sampled_from(["a=b", ";", "\xff"]),
    "traceparent": st.sampled_from(["00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x"]),
}
headers = st.lists(
    st.sampled_from(sorted(HEADERS)).flatmap(lambda name: st.tuples(st.just(name), HEADERS[name])), max_size=4
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([DIGEST, OCI_MANIFEST]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "digest", "size"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
).map(lambda document: json.dumps(document).encode())
bodies = st.one_of(
    st.just(b""),
    st.just(IMAGE.body),
    st.just(b"layer"),
    st.binary(max_size=50),
    documents,
    st.just(b"[" * 5000),
)
methods = st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])


@pytest.fixture(scope="module", params=["direct", "quart"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"http.front": request.param, "http.stall_timeout": "5", "upload.lease_wait": "0"}
    with Server(tmp_path_factory.mktemp(f"requests-{request.param}"), settings=settings) as running:
        yield running


@seed(SEED)
@examples(400)
@given(method=methods, target=targets, fields=headers, body=bodies, announced=st.none() | numbers)
def test_a_request_at_random(
    server: Server,
    method: str,
    target: str,
    fields: list[tuple[str, str]],
    body: bytes,
    announced: str | None,
) -> None:
    """Whatever is asked, the answer is one of HTTP's and no bug shows in the log."""
    if "UPLOAD" in target:
        push_manifest(server, "a/b", IMAGE, "latest")
        opened = server.request("POST", "/v2/a/b/blobs/uploads/")
        target = target.replace("UPLOAD", path_of(opened.headers["Location"]).rpartition("/")[2])
    length = str(len(body)) if announced is None else announced
    lines = [f"{method} {target} HTTP/1.1"]
    if "Host" not in dict(fields):
        lines.append("Host: a")
    lines += [f"{name}: {value}" for name, value in fields]
    if "Transfer-Encoding" not in dict(fields) and (body or announced):
        lines.append(f"Content-Length: {length}")
    with TALLY.moment("request at random"):
        before = len(server.stderr)
        status = ask(server, "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)
        assert status < 500 or status in FINE, (status, lines, server.stderr[before:])
        assert "unforeseen" not in server.stderr[before:]
        assert "Traceback" not in server.stderr[before:]


def ask(server: Server, data: bytes) -> int:
    """The status of the last answer; 0 for a connection that is closed without one."""
    with server.connect() as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer = (answer + more)[:65536]
        except (ConnectionResetError, BrokenPipeError, OSError):
            pass
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    return max(statuses, default=0)


def test_a_server_that_was_fuzzed_goes_on(server: Server) -> None:
    """And it was asked something: its log has the requests."""
    push_manifest(server, "c/d", IMAGE, "latest")
    assert server.request("GET", "/v2/c/d/manifests/latest").body == IMAGE.body
    assert server.stderr.count("trioreg.access") > 100

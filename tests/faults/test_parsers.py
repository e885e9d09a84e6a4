"""Every parser, on good input that was bent: it answers or refuses in its own words; nothing else escapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fuzzing import examples
from hypothesis import given, seed
from hypothesis import strategies as st

from trioreg.auth.access_file import parse_access_file
from trioreg.auth.robots import check_scope
from trioreg.auth.scopes import parse_scopes
from trioreg.config import RETENTION_RULES, ConfigError, load
from trioreg.oci.digest import digest_of, parse_algorithm, parse_digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.manifest import OCI_INDEX, OCI_MANIFEST, descriptor_artifact_type, parse_manifest
from trioreg.oci.names import RepositoryName, parse_name, parse_tag, parse_upload_id
from trioreg.oci.operations import parse_operation
from trioreg.oci.patterns import check_pattern, matches
from trioreg.oci.ranges import parse_content_range, parse_range
from trioreg.registry.pulls import parse_note
from trioreg.server.chunked import BadChunk, ChunkDecoder
from trioreg.server.head import BadHead, parse_head
from trioreg.storage import record

from .tally import SEED, TALLY

DIGEST = str(digest_of(b"a"))
UPLOAD = "01234567-89ab-4def-8123-456789abcdef"
DESCRIPTOR = {"mediaType": "a/b", "digest": DIGEST, "size": 1}
IMAGE = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR], "subject": DESCRIPTOR}
INDEX = {"schemaVersion": 2, "manifests": [{**DESCRIPTOR, "annotations": {"a": "b"}, "urls": ["x"]}]}
RECORD = record.encode(record.new_record(RepositoryName("a/b"), "sha256", 1.5, "boot"))
TOML = b'[http]\nbind = "127.0.0.1:5000"\n[memory]\nbudget = "64MiB"\n[log]\naccess = false\n'
HEAD = b"GET /v2/a/b/tags/list?n=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nRange: bytes=0-1\r\n\r\n"


ACCESS = b"""[groups]
ci = ["ann", "robot+build"]
[[rule]]
who = ["@ci"]
may = ["pull", "push"]
repositories = ["team/**"]
"""


class Parser(NamedTuple):
    """`parse` takes bytes; `refuses` is what it may raise."""

    parse: Callable[[bytes], Any]
    refuses: type[Exception] | tuple[type[Exception], ...]
    good: list[bytes]


def text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """As headers and targets are read: each byte a character."""
    return lambda data: parse(data.decode("latin-1"))


def operation(data: bytes) -> Any:
    method, _, target = data.decode("latin-1").partition(" ")
    path, _, query = target.partition("?")
    return parse_operation(method, path, query)


def pattern(text: str) -> bool:
    return matches(check_pattern(text), "a/b/c")


def chunked(data: bytes) -> None:
    """Also with a reader that takes seven bytes at a time."""
    decoder, room = ChunkDecoder(), memoryview(bytearray(7))
    decoder.feed(data)
    decoder.check()
    while decoder.take(room):
        decoder.check()


DIGESTS = [DIGEST.encode(), b"sha512:" + b"a" * 128, b"sha256:" + b"A" * 64, b"sha384:" + b"a" * 96]
PARSERS = {
    "names": Parser(text(parse_name), RegistryError, [b"a/b", b"library/ubuntu", b"a__b-c.d/e", b"a" * 255]),
    "tags": Parser(text(parse_tag), RegistryError, [b"latest", b"_v1.0-a", b"a" * 128]),
    "upload ids": Parser(text(parse_upload_id), RegistryError, [UPLOAD.encode()]),
    "digests": Parser(text(parse_digest), RegistryError, DIGESTS),
    "algorithms": Parser(text(parse_algorithm), RegistryError, [b"sha256", b"sha512"]),
    "ranges": Parser(
        text(lambda header: parse_range(header, 100)), RegistryError, [b"bytes=0-9", b"bytes=-5", b"bytes=5-"]
    ),
    "content ranges": Parser(
        text(parse_content_range), RegistryError, [b"0-9", b"bytes 0-9/*", b"bytes=0-9/10"]
    ),
    "operations and queries": Parser(
        operation,
        RegistryError,
        [
            b"GET /v2/a/b/tags/list?n=10&last=x",
            b"GET /v2/_catalog?n=%31&last=a%2Fb",
            f"POST /v2/a/b/blobs/uploads/?mount={DIGEST}&from=c/d".encode(),
            f"PUT /v2/a/b/blobs/uploads/{UPLOAD}?digest={DIGEST}".encode(),
            f"GET /v2/a/b/referrers/{DIGEST}?artifactType=a%2Fb".encode(),
            f"DELETE /v2/a/b/manifests/{DIGEST}".encode(),
        ],
    ),
    "manifests": Parser(
        lambda data: parse_manifest(data, None),
        RegistryError,
        [json.dumps(IMAGE).encode(), json.dumps(INDEX).encode()],
    ),
    "media types": Parser(
        text(lambda header: parse_manifest(json.dumps(IMAGE).encode(), header)),
        RegistryError,
        [OCI_MANIFEST.encode(), OCI_INDEX.encode(), b"a/b; charset=utf-8"],
    ),
    "referrers": Parser(
        lambda data: descriptor_artifact_type(data, digest_of(b"a")),
        ValueError,
        [json.dumps(DESCRIPTOR, separators=(",", ":")).encode()],
    ),
    "records of uploads": Parser(record.decode, (), [RECORD, RECORD.replace(b"null", b'"AAAA"')]),
    "scopes": Parser(
        text(lambda scope: parse_scopes([scope])),
        (),
        [b"repository:a/b:pull,push", b"registry:catalog:*", b"repository(plugin):localhost:5000/a:pull"],
    ),
    "scopes of robots": Parser(text(check_scope), ValueError, [b"repository:a/**:pull,push,delete"]),
    "patterns": Parser(text(pattern), ValueError, [b"a/**", b"*", b"a*b/**/c", b"**/**/**"]),
    "rules of retention": Parser(
        text(RETENTION_RULES.parse), ValueError, [b"ci/**:pr-*=newest 20 days 30, **=pulled 9", b"a=days 1"]
    ),
    "notes of pulls": Parser(parse_note, (), [b"1700000000"]),
    "access files": Parser(
        lambda data: parse_access_file(data).issuers, ValueError, [ACCESS, ACCESS.replace(b"ann", b"*")]
    ),
    "heads": Parser(parse_head, BadHead, [HEAD, HEAD.replace(b"1.1", b"1.0"), b"\r\n" + HEAD]),
    "chunks": Parser(
        chunked, BadChunk, [b"3\r\nabc\r\n0\r\n\r\n", b"a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n"]
    ),
}

BITS = [
    b"",
    b"\0",
    b"\r\n",
    b"\xff",
    b"%",
    b"%00",
    b"/",
    b"..",
    b"9" * 30,
    b"-",
    b"\xc3",
    b'"',
    b"{",
    b"[" * 50,
    b"=",
]
changes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 5), st.sampled_from(BITS) | st.binary(max_size=4)), max_size=4
)


def bend(data: bytes, bends: list[tuple[float, int, bytes]]) -> bytes:
    for where, length, piece in bends:
        at = int(where * len(data))
        data = data[:at] + piece + data[at + length :]
    return data


@pytest.mark.parametrize("name", PARSERS)
@seed(SEED)
@examples(100)
@given(data=st.data())
def test_bent_input(name: str, data: st.DataObject) -> None:
    """A value, or the refusal that callers know; and the same the second time, for some remember."""
    parser = PARSERS[name]
    given_ = data.draw(st.builds(bend, st.sampled_from(parser.good), changes) | st.binary(max_size=80))
    with TALLY.moment("bent input to a parser"):
        assert outcome(parser, given_) == outcome(parser, given_)


def outcome(parser: Parser, data: bytes) -> str:
    try:
        return repr(parser.parse(data))
    except parser.refuses as refused:
        return f"refused: {refused}"


@seed(SEED)
@examples(100)
@given(st.builds(bend, st.just(TOML), changes) | st.binary(max_size=80))
def test_a_bent_settings_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Settings, or one sentence that says what is wrong."""
    file = tmp_path_factory.getbasetemp() / "bent.toml"
    file.write_bytes(data)
    with TALLY.moment("bent input to a parser"):
        try:
            load({}, {}, Path(file))
        except ConfigError as refused:
            assert str(refused)  # noqa: PT017 (whether it is refused is not the question)


@pytest.mark.parametrize("name", PARSERS)
def test_good_input_is_taken(name: str) -> None:
    """So bending begins at something that is not refused at once: the first of each is good."""
    parser = PARSERS[name]
    assert not outcome(parser, parser.good[0]).startswith("refused")

"""`server.head` against the grammar, and against two other readers of it.

The rule shown here: whatever we accept, h11 and llhttp accept as well, and read the same method, target,
header and length of body from it; so nobody before or behind us frames a request differently. We refuse
more than they do, on purpose:

- two Content-Lengths, though they be equal, and `5, 5` (h11 takes the one);
- Transfer-Encoding in HTTP/1.0, or together with a length;
- control characters in a value, and everything that is not ASCII in a target (RFC 9110, 5.5);
- lines that end in a bare LF (RFC 9112, 2.2 allows them), and folded lines (5.2: MUST be refused or
  replaced).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import h11
import httptools
import pytest
from fuzzing import examples
from h11._connection import _body_framing
from hypothesis import example, given
from hypothesis import strategies as st

from trioreg.server.head import BadHead, Head, parse_head

HOST = b"Host: registry.example.com\r\n"


def get(fields: bytes = b"", *, line: bytes = b"GET /v2/ HTTP/1.1", host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + fields + b"\r\n"


BAD: dict[str, tuple[bytes, int]] = {
    # What two readers could frame differently.
    "both lengths": (get(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
    "both lengths, other order": (get(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
    "two lengths": (get(b"Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
    "two equal lengths": (get(b"Content-Length: 5\r\nContent-Length: 5\r\n"), 400),
    "two lengths, other case": (get(b"Content-Length: 5\r\ncontent-length: 6\r\n"), 400),
    "a list of lengths": (get(b"Content-Length: 5, 5\r\n"), 400),
    "length with a sign": (get(b"Content-Length: +5\r\n"), 400),
    "negative length": (get(b"Content-Length: -5\r\n"), 400),
    "hexadecimal length": (get(b"Content-Length: 0x5\r\n"), 400),
    "length with an underscore": (get(b"Content-Length: 1_0\r\n"), 400),
    "length with a space": (get(b"Content-Length: 1 0\r\n"), 400),
    "length with a letter": (get(b"Content-Length: 1x\r\n"), 400),
    "length with a fraction": (get(b"Content-Length: 1.0\r\n"), 400),
    "length in superscript": (get(b"Content-Length: \xb2\r\n"), 400),
    "empty length": (get(b"Content-Length:\r\n"), 400),
    "nineteen digits": (get(b"Content-Length: 1000000000000000000\r\n"), 400),
    "gzip": (get(b"Transfer-Encoding: gzip\r\n"), 501),
    "gzip, chunked": (get(b"Transfer-Encoding: gzip, chunked\r\n"), 501),
    "chunked, identity": (get(b"Transfer-Encoding: chunked, identity\r\n"), 501),
    "identity": (get(b"Transfer-Encoding: identity\r\n"), 501),
    "chunked twice": (get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
    "chunked and identity": (get(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), 400),
    "chunked with a parameter": (get(b"Transfer-Encoding: chunked;a=b\r\n"), 501),
    "quoted chunked": (get(b'Transfer-Encoding: "chunked"\r\n'), 501),
    "xchunked": (get(b"Transfer-Encoding: xchunked\r\n"), 501),
    "empty coding": (get(b"Transfer-Encoding:\r\n"), 501),
    "chunked and a vertical tab": (get(b"Transfer-Encoding: \x0bchunked\r\n"), 400),
    "chunked and a no-break space": (get(b"Transfer-Encoding: chunked\xa0\r\n"), 501),
    "chunked in HTTP/1.0": (get(b"Transfer-Encoding: chunked\r\n", line=b"GET /v2/ HTTP/1.0"), 400),
    "space before the colon": (get(b"Content-Length : 5\r\n"), 400),
    "tab before the colon": (get(b"Content-Length\t: 5\r\n"), 400),
    "folded line": (get(b"X: a\r\n b\r\n"), 400),
    "folded by a tab": (get(b"X: a\r\n\tb\r\n"), 400),
    "folded coding": (get(b"Transfer-Encoding:\r\n chunked\r\n"), 400),
    "folded from the start": (get(host=b" Host: a\r\n"), 400),
    "bare CR in a value": (get(b"X: a\rContent-Length: 5\r\n"), 400),
    "bare CR in a name": (get(b"X\rY: a\r\n"), 400),
    "bare CR in the target": (get(line=b"GET /v2/\r HTTP/1.1"), 400),
    "two CRs": (get(b"X: a\r\r\n"), 400),
    "bare LF after a field": (get(b"X: a\nContent-Length: 5\r\n"), 400),
    "bare LF after the request line": (b"GET /v2/ HTTP/1.1\n" + HOST + b"\r\n", 400),
    "bare LF in the target": (get(line=b"GET /v2/\n HTTP/1.1"), 400),
    "NUL in a value": (get(b"X: a\0b\r\n"), 400),
    "NUL in a name": (get(b"X\0: a\r\n"), 400),
    "NUL in the target": (get(line=b"GET /v2/\0 HTTP/1.1"), 400),
    "control character in a value": (get(b"X: a\x01b\r\n"), 400),
    "backspace in a value": (get(b"X: a\x08b\r\n"), 400),
    "DEL in a value": (get(b"X: a\x7fb\r\n"), 400),
    "form feed in a value": (get(b"X: a\x0cb\r\n"), 400),
    # Whom the request is for.
    "no host": (get(host=b""), 400),
    "two hosts": (get(b"Host: b\r\n"), 400),
    "two equal hosts": (get(HOST), 400),
    "no host in HTTP/2.0": (b"PRI * HTTP/2.0\r\n\r\n", 400),
    # What is no field line or no request line.
    "empty name": (get(b": a\r\n"), 400),
    "no colon": (get(b"nonsense\r\n"), 400),
    "bracket in a name": (get(b"X(Y): a\r\n"), 400),
    "name that is not ASCII": (get(b"\xc3\xa4: a\r\n"), 400),
    "no target": (get(line=b"GET HTTP/1.1"), 400),
    "empty target": (get(line=b"GET  HTTP/1.1"), 400),
    "two spaces": (get(line=b"GET  /v2/ HTTP/1.1"), 400),
    "tab for a space": (get(line=b"GET\t/v2/\tHTTP/1.1"), 400),
    "space at the end of the line": (get(line=b"GET /v2/ HTTP/1.1 "), 400),
    "space at the start": (get(line=b" GET /v2/ HTTP/1.1"), 400),
    "space in the target": (get(line=b"GET /v2/ x HTTP/1.1"), 400),
    "target that is not ASCII": (get(line=b"GET /v2/\xc3\xa4 HTTP/1.1"), 400),
    "no version": (get(line=b"GET /v2/"), 400),
    "version without a minor": (get(line=b"GET /v2/ HTTP/1"), 400),
    "version of two digits": (get(line=b"GET /v2/ HTTP/1.10"), 400),
    "version with letters": (get(line=b"GET /v2/ HTTP/x.y"), 400),
    "lower-case http": (get(line=b"GET /v2/ http/1.1"), 400),
    "another protocol": (get(line=b"GET /v2/ ICAP/1.0"), 400),
    "no method": (get(line=b"/v2/ HTTP/1.1"), 400),
    "method with a bracket": (get(line=b"G(ET /v2/ HTTP/1.1"), 400),
    "method of 33 letters": (get(line=b"A" * 33 + b" /v2/ HTTP/1.1"), 400),
    "nothing": (b"\r\n\r\n", 400),
    "an empty line first": (b"\r\n" + get(), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    """Each with its status; none is guessed at."""
    data, status = BAD[name]
    with pytest.raises(BadHead) as caught:
        parse_head(data)
    assert caught.value.status == status


# What is expected of method, target, version, length (None: chunked) and header without host.
GOOD: dict[str, tuple[bytes, tuple[str, str, tuple[int, int], int | None, dict[str, str]]]] = {
    "plain": (get(), ("GET", "/v2/", (1, 1), 0, {})),
    "query": (get(line=b"HEAD /v2/a?n=1&x=%2F HTTP/1.1"), ("HEAD", "/v2/a?n=1&x=%2F", (1, 1), 0, {})),
    "absolute": (
        get(line=b"GET http://a.example/v2/ HTTP/1.1"),
        ("GET", "http://a.example/v2/", (1, 1), 0, {}),
    ),
    "asterisk": (get(line=b"OPTIONS * HTTP/1.1"), ("OPTIONS", "*", (1, 1), 0, {})),
    "authority": (get(line=b"CONNECT a:443 HTTP/1.1"), ("CONNECT", "a:443", (1, 1), 0, {})),
    "two slashes": (get(line=b"GET //v2/ HTTP/1.1"), ("GET", "//v2/", (1, 1), 0, {})),
    "unknown method": (get(line=b"BREW /v2/ HTTP/1.1"), ("BREW", "/v2/", (1, 1), 0, {})),
    "lower-case method": (get(line=b"get /v2/ HTTP/1.1"), ("get", "/v2/", (1, 1), 0, {})),
    "HTTP/1.0": (get(line=b"GET /v2/ HTTP/1.0", host=b""), ("GET", "/v2/", (1, 0), 0, {})),
    "length": (get(b"Content-Length: 5\r\n"), ("GET", "/v2/", (1, 1), 5, {"content-length": "5"})),
    "length with zeros": (
        get(b"Content-Length: 007\r\n"),
        ("GET", "/v2/", (1, 1), 7, {"content-length": "007"}),
    ),
    "eighteen digits": (
        get(b"content-length:999999999999999999\r\n"),
        ("GET", "/v2/", (1, 1), 999999999999999999, {"content-length": "9" * 18}),
    ),
    "chunked": (
        get(b"Transfer-Encoding: chunked\r\n"),
        ("GET", "/v2/", (1, 1), None, {"transfer-encoding": "chunked"}),
    ),
    "CHUNKED": (
        get(b"TRANSFER-ENCODING:\t Chunked \r\n"),
        ("GET", "/v2/", (1, 1), None, {"transfer-encoding": "Chunked"}),
    ),
    "white space": (
        get(b"X:  \t a b\t \r\nY:\r\nZ: \t\r\n"),
        ("GET", "/v2/", (1, 1), 0, {"x": "a b", "y": "", "z": ""}),
    ),
    "repeated": (
        get(b"Accept: a/b\r\naccept: c/d;q=1\r\nACCEPT: e/f\r\n"),
        ("GET", "/v2/", (1, 1), 0, {"accept": "a/b, c/d;q=1, e/f"}),
    ),
    "colons": (get(b"X: a:b: c\r\n"), ("GET", "/v2/", (1, 1), 0, {"x": "a:b: c"})),
    "latin-1": (get(b"X: \xe4\xff\r\n"), ("GET", "/v2/", (1, 1), 0, {"x": "\xe4\xff"})),
    "odd name": (get(b"!#$%&'*+-.^_`|~: a\r\n"), ("GET", "/v2/", (1, 1), 0, {"!#$%&'*+-.^_`|~": "a"})),
    "long": (
        get(b"Authorization: Bearer " + b"x" * 30_000 + b"\r\n"),
        ("GET", "/v2/", (1, 1), 0, {"authorization": "Bearer " + "x" * 30_000}),
    ),
    "long target": (
        get(line=b"GET /" + b"a" * 30_000 + b" HTTP/1.1"),
        ("GET", "/" + "a" * 30_000, (1, 1), 0, {}),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_accepted(name: str) -> None:
    """Read as it stands: names in lower case, values trimmed, repeated fields in one."""
    data, expected = GOOD[name]
    head = parse_head(data)
    headers = {name: value for name, value in head.fields.headers.items() if name != "host"}
    assert (head.method, head.target, head.version, head.fields.length, headers) == expected
    check_against_h11(data)
    check_against_llhttp(data)


@pytest.mark.parametrize(
    ("fields", "keep_alive", "upgrade", "expects"),
    [
        (b"", True, False, False),
        (b"Connection: close\r\n", False, False, False),
        (b"Connection: Keep-Alive\r\n", True, False, False),
        (b"Connection: keep-alive, CLOSE\r\n", False, False, False),
        (b"Connection: keep-alive\r\nConnection: close\r\n", False, False, False),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", True, True, False),
        (b"Upgrade: websocket\r\n", True, True, False),
        (b"Expect: 100-continue\r\n", True, False, True),
        (b"expect: 100-Continue\r\n", True, False, True),
        (b"Expect: something\r\n", True, False, False),
    ],
)
def test_the_connection(fields: bytes, keep_alive: bool, upgrade: bool, expects: bool) -> None:
    """What a head says of its connection."""
    read = parse_head(get(fields)).fields
    assert (read.keep_alive, read.upgrade, read.expects_continue) == (keep_alive, upgrade, expects)


def test_a_header_that_is_sent_again_is_not_read_again() -> None:
    """The fields before are taken for the same bytes only."""
    before = parse_head(get(b"Content-Length: 5\r\n")).fields
    again = parse_head(get(b"Content-Length: 5\r\n", line=b"PUT /x HTTP/1.1"), before)
    assert (again.method, again.target) == ("PUT", "/x")
    assert again.fields is before
    assert parse_head(get(b"Content-Length: 6\r\n"), before).fields.length == 6
    with pytest.raises(BadHead):
        parse_head(get(b"Content-Length: 5\r\n")[:-2] + b" x\r\n\r\n", before)


def test_a_field_of_30_kb_is_no_reason_to_backtrack() -> None:
    """A large field, and thousands of small ones that fail at the end, in far less than a second."""
    started = time.process_time()
    for _ in range(10):
        parse_head(get(b"a:" + b"x" * 30_000 + b"\r\n"))
        for end in (b"x", b"x:\0\r\n", b":\r\n", b"x:\r\n"):
            with pytest.raises(BadHead):
                parse_head(get(b"a:\r\n" * 8000 + end))
    # 2 ms a head on any machine of this century; quadratic would be minutes.
    assert time.process_time() - started < 5


METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"BREW", b"get"]
TARGETS = [b"/", b"/v2/", b"/v2/a/b?c=d&e", b"*", b"http://a.example/v2/", b"a:443", b"//", b"/%00/..", b"?"]
VERSIONS = [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2"]
FIELDS = [
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"content-length:17",
    b"Content-Length: 007",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:CHUNKED",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Host: b",
    b"Host:",
    b"Connection: close",
    b"Connection: keep-alive, x",
    b"Connection: upgrade",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Accept: a/b",
    b"Accept: c/d;q=0.5",
    b"X: \t",
    b"X: a:b",
    b"X: \xff",
    b"_: 1",
]
NASTY = b" \t\r\n\0:,;\x0b\x7f\x80\xff/aZ0\x1f\"'"

lines = st.tuples(st.sampled_from(METHODS), st.sampled_from(TARGETS), st.sampled_from(VERSIONS))
fields = st.lists(
    st.one_of(
        st.sampled_from(FIELDS),
        st.builds(
            lambda name, value: name + b":" + value,
            st.text("Aa!#0-_~", min_size=1, max_size=4).map(str.encode),
            st.binary(max_size=6),
        ),
    ),
    max_size=5,
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "double"]),
        st.floats(0, 1),
        st.sampled_from([NASTY[n : n + 1] for n in range(len(NASTY))] + [b"\r\n", b"\r\n ", b" :"]),
    ),
    max_size=3,
)


def build(line: Sequence[bytes], host: bool, written: list[bytes]) -> bytes:
    head = [b" ".join(line), *([b"Host: a"] if host else []), *written]
    return b"\r\n".join([*head, b"", b""])


def mutate(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, where, piece in changes:
        at = int(where * len(data))
        if kind == "insert":
            data = data[:at] + piece + data[at:]
        elif kind == "replace":
            data = data[:at] + piece + data[at + 1 :]
        elif kind == "delete":
            data = data[:at] + data[at + 1 :]
        else:
            data = data[:at] + data[at : at + 12] + data[at:]
    return data


def as_head(data: bytes) -> bytes:
    """What the lane would cut from the wire: up to the first empty line, none before it."""
    return data.lstrip(b"\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


@examples(300)
@given(lines, st.booleans(), fields, edits)
def test_what_we_accept_h11_reads_the_same(
    line: Sequence[bytes], host: bool, written: list[bytes], changes: list[tuple[str, float, bytes]]
) -> None:
    """Heads from the grammar, bent here and there."""
    check_against_h11(as_head(mutate(build(line, host, written), changes)))


@examples(300)
@given(lines, st.booleans(), fields, edits)
def test_what_we_accept_llhttp_reads_the_same(
    line: Sequence[bytes], host: bool, written: list[bytes], changes: list[tuple[str, float, bytes]]
) -> None:
    """The same heads; a reader that has nothing in common with h11."""
    check_against_llhttp(as_head(mutate(build(line, host, written), changes)))


@examples(200)
@given(st.binary(max_size=200))
@example(b"GET / HTTP/1.1\r\nHost: a")
def test_any_bytes(data: bytes) -> None:
    """Accepted by all or refused by us; nothing but BadHead is raised."""
    check_against_h11(as_head(data))
    check_against_llhttp(as_head(data))
    check_against_h11(as_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + data))
    check_against_llhttp(as_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + data))


@examples(50)
@given(
    st.sampled_from(METHODS),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20),
    st.lists(
        st.tuples(
            st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).filter(
                lambda name: name.lower() not in ("host", "content-length", "transfer-encoding")
            ),
            st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20),
        ),
        max_size=6,
    ),
)
def test_what_is_in_the_grammar_is_accepted(
    method: bytes, target: str, written: list[tuple[str, str]]
) -> None:
    """So the comparisons above are not about nothing."""
    rows = [f"{name}: {value}".encode("latin-1") for name, value in written]
    head = parse_head(build((method, target.encode(), b"HTTP/1.1"), True, rows))
    assert (head.method, head.target, head.fields.length) == (method.decode(), target, 0)
    assert set(head.fields.headers) == {"host", *(name.lower() for name, _ in written)}


def accepted(data: bytes) -> Head | None:
    try:
        return parse_head(data)
    except BadHead:
        return None


def check_against_h11(data: bytes) -> None:
    head = accepted(data)
    if head is None:
        return
    peer = h11.Connection(h11.SERVER)
    peer.receive_data(data)
    event = peer.next_event()
    assert isinstance(event, h11.Request), data
    assert event.method == head.method.encode()
    assert event.target == head.target.encode()
    assert event.http_version == b"%d.%d" % head.version
    headers = dict(head.fields.headers)
    if "transfer-encoding" in headers:
        # h11 hands it on in lower case.
        headers["transfer-encoding"] = headers["transfer-encoding"].lower()
    assert joined(list(event.headers)) == headers
    framing = ("chunked", ()) if head.fields.length is None else ("content-length", (head.fields.length,))
    assert _body_framing(event.method, event) == framing
    assert peer.trailing_data[0] == b""


# llhttp knows a list of methods; we take any token and answer 405 in our own words.
_KNOWN = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Witness:
    """What llhttp calls back with."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_ended = False
        self.body = b""
        self.ended = False

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head_ended = True

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.ended = True


def check_against_llhttp(data: bytes) -> None:
    head = accepted(data)
    if head is None or head.method not in _KNOWN or head.version != (1, 1) or head.fields.upgrade:
        # The lane serves HTTP/1.1 only and hands on what wants to upgrade.
        return
    if not head.target.startswith(("/", "http://", "https://")):
        # llhttp looks into targets; the lane hands on those that are no path of ours.
        return
    witness = Witness()
    parser = httptools.HttpRequestParser(witness)
    parser.feed_data(data)
    assert witness.head_ended, data
    assert parser.get_method() == head.method.encode()
    assert witness.target == head.target.encode()
    assert joined(witness.headers) == head.fields.headers
    length = head.fields.length
    if length is None:
        assert not witness.ended
        parser.feed_data(b"3\r\nabc\r\n0\r\n\r\n")
        assert (witness.body, witness.ended) == (b"abc", True)
    elif 0 < length < 1000:
        parser.feed_data(bytes(length - 1))
        assert not witness.ended
        parser.feed_data(bytes(1))
        assert (witness.body, witness.ended) == (bytes(length), True)
    elif not length:
        assert witness.ended


def joined(pairs: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """As the exchange has them (RFC 9110, 5.3). llhttp leaves white space at the end of a value."""
    headers: dict[str, str] = {}
    for name, raw in pairs:
        key, value = name.decode("latin-1"), raw.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers

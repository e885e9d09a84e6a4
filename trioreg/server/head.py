"""Heads of HTTP/1.1 requests, read strictly.

Rule: what two readers could frame differently is refused, never guessed (RFC 9112, 11.2 "Request
Smuggling"): both lengths, two lengths, a transfer coding that is not exactly ``chunked``, white space
before a colon, folded lines, bare CR or LF, control characters, no Host or two. `tests/server/` compares
with h11: a head that is accepted here is accepted there, and framed the same way.

Our own and not llhttp, because these checks would have to be made on the bytes anyway; with them done, a
regular expression and a split are the whole parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# RFC 9110, 5.6.2:  token = 1*tchar
_TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"

# RFC 9112, 3:  request-line = method SP request-target SP HTTP-version, the target without control
# characters, white space or anything that is not ASCII.
_REQUEST_LINE = re.compile(rb"(%s{1,32}) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n" % _TCHAR)

# RFC 9112, 5:  field-line = field-name ":" OWS field-value OWS, without obs-fold; RFC 9110, 5.5.
_FIELD_LINES = re.compile(rb"(?:%s+:[\t\x20-\x7e\x80-\xff]*\r\n)*" % _TCHAR)

# Eighteen digits are more bytes than any disk has.
_LENGTH = re.compile(r"[0-9]{1,18}")

# Clients send a dozen. Each costs far more as an object than its bytes.
_MOST_FIELDS = 100

HEAD_END = b"\r\n\r\n"


class BadHead(Exception):
    """The bytes are no request that we take: the status to answer with, and the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


@dataclass(slots=True)
class Fields:
    """The header of a request, read once. `length` is None for a chunked body."""

    raw: bytes
    headers: dict[str, str]
    length: int | None
    expects_continue: bool
    keep_alive: bool
    upgrade: bool


@dataclass(slots=True)
class Head:
    """A request without its body; `target`, and `path` and `query` in it, are as they stood."""

    method: str
    target: str
    path: str
    query: str
    version: tuple[int, int]
    fields: Fields


def parse_head(data: bytes, before: Fields | None = None) -> Head:
    """Read a head that ends with `HEAD_END`. Raises BadHead.

    `before`: the header that this connection sent last; clients repeat it to the letter.
    """
    end = data.find(b"\r\n") + 2
    parse_line = _parse_remembered_line if end <= _REMEMBERED_LENGTH else _parse_line
    method, target, path, query, version = parse_line(data[:end])
    raw = data[end:-2]
    fields = before if before is not None and before.raw == raw else None
    if fields is None or version != (1, 1):
        fields = _parse_fields(raw, version)
    return Head(method, target, path, query, version, fields)


def _parse_line(line: bytes) -> tuple[str, str, str, str, tuple[int, int]]:
    """Method, target, path, query and version."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadHead(400, "not an HTTP request")
    method, target, major, minor = found.groups()
    text = target.decode("ascii")
    path, _, query = _origin(text).partition("?")
    return method.decode("ascii"), text, path, query, (int(major), int(minor))


def _origin(target: str) -> str:
    """The origin-form of a target; a proxy's client sends the absolute one (RFC 9112, 3.2.2)."""
    if target.startswith("/"):
        return target
    scheme, _, rest = target.partition("://")
    return "/" + rest.partition("/")[2] if scheme.lower() in ("http", "https") else target


# Clients ask for the same things again; a thousand of them take less than a megabyte.
_REMEMBERED_LENGTH = 300
_parse_remembered_line = lru_cache(maxsize=1024)(_parse_line)


def _parse_fields(raw: bytes, version: tuple[int, int]) -> Fields:
    if _FIELD_LINES.fullmatch(raw) is None:
        raise BadHead(400, "malformed header")
    headers: dict[str, str] = {}
    lines = raw.decode("latin-1").split("\r\n")[:-1]
    if len(lines) > _MOST_FIELDS:
        raise BadHead(431, "more header fields than that")
    for field in lines:
        name, _, value = field.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name in headers:
            if name in _ONCE:
                raise BadHead(400, f"more than one {name}")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    if "host" not in headers and version >= (1, 1):
        raise BadHead(400, "no host")
    connection = headers.get("connection", "").lower()
    return Fields(
        raw=raw,
        headers=headers,
        length=_body_length(headers, version),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
        keep_alive="close" not in connection,
        upgrade="upgrade" in headers or "upgrade" in connection,
    )


_ONCE = frozenset({"host", "content-length", "transfer-encoding"})


def _body_length(headers: dict[str, str], version: tuple[int, int]) -> int | None:
    """RFC 9112, 6.3: bytes of the body, None if it is chunked."""
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or version < (1, 1):
            raise BadHead(400, "transfer-encoding with a length or an old version")
        if coding.lower() != "chunked":
            raise BadHead(501, "a transfer coding other than chunked")
        return None
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise BadHead(400, "content-length is no number")
    return int(length)

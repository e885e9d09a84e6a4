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
    """A request without its body; `target` is as it stood."""

    method: str
    target: str
    version: tuple[int, int]
    fields: Fields


def parse_head(data: bytes, before: Fields | None = None) -> Head:
    """Read a head that ends with `HEAD_END`. Raises BadHead.

    `before`: the header that this connection sent last; clients repeat it to the letter.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise BadHead(400, "not an HTTP request")
    method, target, major, minor = line.groups()
    version = (int(major), int(minor))
    raw = data[line.end() : -2]
    if before is not None and before.raw == raw and version == (1, 1):
        return Head(method.decode("ascii"), target.decode("ascii"), version, before)
    return Head(method.decode("ascii"), target.decode("ascii"), version, _parse_fields(raw, version))


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

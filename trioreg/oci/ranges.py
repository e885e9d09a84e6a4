"""Byte ranges: ``Range`` on downloads (RFC 9110, section 14) and ``Content-Range`` on chunks (OCI).

Rule: a `Range` that is not understood is ignored, one that names no byte we have is 416 (so is one that
runs backwards: RFC 9110, 14.2 lets us ignore or reject it, the conformance suite wants it rejected). A
chunk's `Content-Range` that is not understood is an error: guessing would write bytes in the wrong place.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from trioreg.oci.errors import ErrorCode, RegistryError

# RFC 9110, 14.1.1:  int-range = first-pos "-" [ last-pos ]     suffix-range = "-" suffix-length
# Eighteen digits are more bytes than any disk has; more would only be work for the integer parser.
_BYTES_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*")

# spec.md, "Pushing a blob in chunks": Content-Range MUST match ^[0-9]+-[0-9]+$. Some clients send the
# form of RFC 9110, 14.4 ("bytes 0-99/*"): we take it as well.
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]{1,18}|\*))?")


class ByteRange(NamedTuple):
    """Half open: bytes ``start`` up to but not including ``end``."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range asked of a representation of `size` bytes; None means: send all of it.

    Several ranges are answered with the whole (RFC 9110, 14.2 allows it), so are malformed ones.
    Raises RANGE_INVALID (416, with ``Content-Range: bytes */size``) for a range outside the bytes.
    """
    match = _BYTES_RANGE.fullmatch(header) if header else None
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start = int(first)
        end = min(int(last) + 1, size) if last else size
    if start >= end:
        raise RegistryError(
            ErrorCode.RANGE_INVALID, {"size": size}, headers={"Content-Range": f"bytes */{size}"}
        )
    return ByteRange(start, end)


def parse_content_range(header: str) -> ByteRange:
    """The place of a chunk in its blob, or BLOB_UPLOAD_INVALID."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise RegistryError(ErrorCode.BLOB_UPLOAD_INVALID, {"content-range": header[:64]})
    return ByteRange(int(match[1]), int(match[2]) + 1)


def uploaded_range(offset: int) -> str:
    """The ``Range`` header that tells a client how far its upload came.

    ``0-<last byte>``; an empty session says ``0-0`` as Docker's registry does, for want of a notation.
    """
    return f"0-{max(0, offset - 1)}"

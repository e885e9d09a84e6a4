"""Offset rules of an upload session: may this chunk be appended, and how long must it be?

Rule: bytes are only ever appended at the session's offset. A chunk that says it belongs elsewhere (out
of order, overlapping, or replayed by a client that lost our answer) is 416 with the true ``Range``,
before a byte of its body is read.
"""

from __future__ import annotations

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.ranges import parse_content_range, uploaded_range


def chunk_length(offset: int, content_range: str | None, content_length: int | None) -> int | None:
    """Bytes that a chunk for a session at `offset` must have; None if its end tells.

    Raises RANGE_INVALID when the chunk starts elsewhere, SIZE_INVALID when its two lengths disagree,
    BLOB_UPLOAD_INVALID when its range cannot be read.
    """
    if content_range is None:
        return content_length
    place = parse_content_range(content_range)
    if place.start != offset:
        raise out_of_place(offset)
    if content_length is not None and content_length != place.length:
        raise RegistryError(
            ErrorCode.SIZE_INVALID,
            {"content-range": place.length, "content-length": content_length},
        )
    return place.length


def out_of_place(offset: int) -> RegistryError:
    """416 with the range that the session holds."""
    return RegistryError(
        ErrorCode.RANGE_INVALID, {"offset": offset}, headers={"Range": uploaded_range(offset)}
    )

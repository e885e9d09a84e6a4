"""Offset rules of an upload session: what may be appended at an offset, and how long it must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.session import chunk_length, out_of_place

# Offset, Content-Range, Content-Length, the length the chunk must have.
TAKEN = [
    (0, None, None, None),
    (0, None, 0, 0),
    (500, None, None, None),
    (500, None, 20, 20),
    (0, "0-99", None, 100),
    (0, "0-99", 100, 100),
    (500, "500-500", 1, 1),
    (500, "bytes 500-599/*", 100, 100),
]
REFUSED = [
    (0, "1-99", 99, ErrorCode.RANGE_INVALID),
    (100, "0-99", 100, ErrorCode.RANGE_INVALID),  # replayed
    (100, "50-149", 100, ErrorCode.RANGE_INVALID),  # overlapping
    (100, "101-200", 100, ErrorCode.RANGE_INVALID),  # ahead
    (100, "0-99", 5, ErrorCode.RANGE_INVALID),  # the place counts before the length
    (0, "0-99", 99, ErrorCode.SIZE_INVALID),
    (0, "0-99", 0, ErrorCode.SIZE_INVALID),
    (0, "99-0", 100, ErrorCode.BLOB_UPLOAD_INVALID),
    (0, "", 100, ErrorCode.BLOB_UPLOAD_INVALID),
    (0, "nonsense", 100, ErrorCode.BLOB_UPLOAD_INVALID),
]


@pytest.mark.parametrize(("offset", "place", "length", "expected"), TAKEN)
def test_taken(offset: int, place: str | None, length: int | None, expected: int | None) -> None:
    """A chunk at the offset is taken; its length is the one announced, if any was."""
    assert chunk_length(offset, place, length) == expected


@pytest.mark.parametrize(("offset", "place", "length", "error"), REFUSED)
def test_refused(offset: int, place: str, length: int, error: ErrorCode) -> None:
    """A chunk for elsewhere, or of two lengths, is refused; 416 says what the session holds."""
    with pytest.raises(RegistryError) as refused:
        chunk_length(offset, place, length)
    assert refused.value.error is error
    if error is ErrorCode.RANGE_INVALID:
        assert refused.value.headers == {"Range": f"0-{max(0, offset - 1)}"}


@given(offset=st.integers(0, 50), start=st.integers(0, 50), length=st.integers(1, 50))
def test_only_at_the_offset(offset: int, start: int, length: int) -> None:
    """A chunk with a place is taken exactly when it begins where the session ends."""
    place = f"{start}-{start + length - 1}"
    if start == offset:
        assert chunk_length(offset, place, length) == length
    else:
        with pytest.raises(RegistryError):
            chunk_length(offset, place, length)


def test_out_of_place() -> None:
    """416, with the true range for the client to go on from."""
    error = out_of_place(1234)
    assert (error.error.status, error.headers) == (416, {"Range": "0-1233"})

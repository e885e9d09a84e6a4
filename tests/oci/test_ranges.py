"""Ranges: what a download asks for, where a chunk belongs, and how far an upload came."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.ranges import ByteRange, parse_content_range, parse_range, uploaded_range

# Header, size, the half-open answer.
RANGES = [
    ("bytes=0-0", 10, (0, 1)),
    ("bytes=0-9", 10, (0, 10)),
    ("bytes=0-", 10, (0, 10)),
    ("bytes=9-", 10, (9, 10)),
    ("bytes=9-9", 10, (9, 10)),
    ("bytes=3-5", 10, (3, 6)),
    ("bytes=3-999", 10, (3, 10)),
    ("bytes=3-999999999999999999", 10, (3, 10)),
    ("bytes=-1", 10, (9, 10)),
    ("bytes=-10", 10, (0, 10)),
    ("bytes=-999", 10, (0, 10)),
    ("bytes= 3-5 ", 10, (3, 6)),
    ("bytes=\t3-5", 10, (3, 6)),
    ("bytes=0003-0005", 10, (3, 6)),
]
# RFC 9110, 14.2: a Range that is not understood, or names several, may be ignored: the whole is sent.
IGNORED = [
    None,
    "",
    "bytes",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=0-1,3-4",
    "bytes=0-1,",
    "bytes=0 - 1",
    "bytes=+1-2",
    "bytes=1.0-2",
    "bytes=0x1-2",
    "bytes 0-1",
    "items=0-1",
    "0-1",
    "bytes=0-1\n",
    "bytes=\u0661-\u0662",
    "bytes=--1",
    "bytes=" + "9" * 5000 + "-",
]
OUTSIDE = [
    ("bytes=10-", 10),
    ("bytes=10-10", 10),
    ("bytes=10-99", 10),
    ("bytes=999999999999999999-", 10),
    ("bytes=-0", 10),
    ("bytes=5-4", 10),
    ("bytes=0-", 0),
    ("bytes=0-0", 0),
    ("bytes=-1", 0),
]
CONTENT_RANGES = [
    ("0-0", (0, 1)),
    ("0-99", (0, 100)),
    ("100-199", (100, 200)),
    ("007-010", (7, 11)),
    (" 0-99 ", (0, 100)),
    ("bytes 0-99/*", (0, 100)),
    ("bytes 0-99/100", (0, 100)),
    ("bytes=0-99", (0, 100)),
    ("0-99/1000", (0, 100)),
]
BAD_CONTENT_RANGES = [
    "",
    "-",
    "0",
    "0-",
    "-0",
    "1-0",
    "a-b",
    "0-1,2-3",
    "0 - 1",
    "-1-2",
    "0-1-2",
    "bytes */100",
    "bytes 0-99/",
    "items 0-99",
    "\u0661-\u0662",
    "0-1\n2",
    "0-" + "9" * 5000,
]


@pytest.mark.parametrize(("header", "size", "expected"), RANGES)
def test_range(header: str, size: int, expected: tuple[int, int]) -> None:
    """RFC 9110, 14.1.2: first and last are inclusive, a suffix counts from the end, the end is cut."""
    found = parse_range(header, size)
    assert found is not None
    assert tuple(found) == expected
    assert found.length == expected[1] - expected[0]


@pytest.mark.parametrize("header", IGNORED)
@pytest.mark.parametrize("size", [0, 10])
def test_range_ignored(header: str | None, size: int) -> None:
    """What is not one range of bytes is answered with all of them."""
    assert parse_range(header, size) is None


@pytest.mark.parametrize(("header", "size"), OUTSIDE)
def test_range_outside(header: str, size: int) -> None:
    """A range without a byte is 416 and says how many there are."""
    with pytest.raises(RegistryError) as refused:
        parse_range(header, size)
    assert refused.value.error is ErrorCode.RANGE_INVALID
    assert refused.value.headers == {"Content-Range": f"bytes */{size}"}


numbers = st.integers(0, 40) | st.integers(0, 10**18 - 1)
spelt = st.one_of(
    st.builds("bytes={}-{}".format, numbers, numbers),
    st.builds("bytes={}-".format, numbers),
    st.builds("bytes=-{}".format, numbers),
    st.text(st.sampled_from("bytes=0123456789- ,\t"), max_size=20),
    st.text(),
)


@given(header=spelt, size=st.integers(0, 30) | st.integers(0, 2**63))
def test_range_is_inside(header: str, size: int) -> None:
    """Whatever is asked: no byte outside, never an empty range, and nothing but a refusal is raised."""
    try:
        found = parse_range(header, size)
    except RegistryError as refused:
        if refused.error is not ErrorCode.RANGE_INVALID:
            raise
        return
    if found is not None:
        assert 0 <= found.start < found.end <= size


@given(size=st.integers(1, 200), start=st.integers(0, 250), last=st.integers(0, 250))
def test_range_is_python_slice(size: int, start: int, last: int) -> None:
    """A range that can be had is the slice of the same numbers."""
    data = bytes(range(size))
    wanted = data[start : last + 1]
    if not wanted:
        with pytest.raises(RegistryError):
            parse_range(f"bytes={start}-{last}", size)
        return
    found = parse_range(f"bytes={start}-{last}", size)
    assert found is not None and data[found.start : found.end] == wanted


@pytest.mark.parametrize(("header", "expected"), CONTENT_RANGES)
def test_content_range(header: str, expected: tuple[int, int]) -> None:
    """The spec's form, and RFC 9110's, which some clients send."""
    assert parse_content_range(header) == expected


@pytest.mark.parametrize("header", BAD_CONTENT_RANGES)
def test_content_range_refused(header: str) -> None:
    """A place that cannot be read is an error: guessing would write bytes where they do not belong."""
    with pytest.raises(RegistryError) as refused:
        parse_content_range(header)
    assert refused.value.error is ErrorCode.BLOB_UPLOAD_INVALID


@given(start=st.integers(0, 10**17), length=st.integers(1, 10**17))
def test_content_range_and_back(start: int, length: int) -> None:
    """A place written down and read again is the same place."""
    assert parse_content_range(f"{start}-{start + length - 1}") == ByteRange(start, start + length)


@given(text=st.text(st.sampled_from("0123456789-/* bytes="), max_size=20) | st.text())
def test_content_range_has_bytes(text: str) -> None:
    """Whatever is accepted names at least one byte, none before the first."""
    try:
        place = parse_content_range(text)
    except RegistryError:
        return
    assert 0 <= place.start < place.end


@pytest.mark.parametrize(("offset", "header"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (100, "0-99")])
def test_uploaded_range(offset: int, header: str) -> None:
    """The Range of a session: inclusive, matching the spec's own expression."""
    assert uploaded_range(offset) == header
    assert re.fullmatch(r"[0-9]+-[0-9]+", uploaded_range(offset))

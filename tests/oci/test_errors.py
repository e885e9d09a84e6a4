"""The table of errors against the spec's own, and the envelope it is written in."""

from __future__ import annotations

import json

import pytest

from trioreg.oci.errors import ErrorCode, RegistryError, envelope

# distribution-spec v1.1, "Error Codes": id, code, description. The status is ours where the spec names
# none; where it does (404 for what is unknown, 401, 403, 429 by their RFCs) it is the spec's.
SPEC = [
    ("code-1", "BLOB_UNKNOWN", 404, "blob unknown to registry"),
    ("code-2", "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"),
    ("code-3", "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"),
    ("code-4", "DIGEST_INVALID", 400, "provided digest did not match uploaded content"),
    ("code-5", "MANIFEST_BLOB_UNKNOWN", 404, "manifest references a manifest or blob unknown to registry"),
    ("code-6", "MANIFEST_INVALID", 400, "manifest invalid"),
    ("code-7", "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"),
    ("code-8", "NAME_INVALID", 400, "invalid repository name"),
    ("code-9", "NAME_UNKNOWN", 404, "repository name not known to registry"),
    ("code-10", "SIZE_INVALID", 400, "provided length did not match content length"),
    ("code-11", "UNAUTHORIZED", 401, "authentication required"),
    ("code-12", "DENIED", 403, "requested access to the resource is denied"),
    ("code-13", "UNSUPPORTED", 400, "the operation is unsupported"),
    ("code-14", "TOOMANYREQUESTS", 429, "too many requests"),
]
# Codes that the spec does not list: Docker's registry introduced them and clients know them.
DOCKERS = {"RANGE_INVALID", "TAG_INVALID", "PAGINATION_NUMBER_INVALID", "UNAVAILABLE", "UNKNOWN"}


@pytest.mark.parametrize(("code", "status", "message"), [row[1:] for row in SPEC])
def test_row_of_the_spec(code: str, status: int, message: str) -> None:
    """Each code of the spec is in the table under its own name, with the spec's description."""
    row = ErrorCode[code]
    assert (row.code, row.status, row.message) == (code, status, message)


def test_no_other_codes() -> None:
    """Every row speaks the spec's codes or one of Docker's; nothing is of our invention."""
    assert {row.code for row in ErrorCode} - {code for _, code, _, _ in SPEC} == DOCKERS


@pytest.mark.parametrize("row", ErrorCode)
def test_every_row(row: ErrorCode) -> None:
    """Codes are capitals and underscores, statuses are failures, messages are text."""
    assert row.code.replace("_", "").isalpha() and row.code.isupper() and row.code.isascii()
    assert 400 <= row.status < 600
    assert row.message and row.message == row.message.strip()


def test_rows_are_distinct() -> None:
    """No two rows are the same, which an Enum would silently make one."""
    assert len(ErrorCode.__members__) == len(list(ErrorCode))


@pytest.mark.parametrize("row", ErrorCode)
@pytest.mark.parametrize("detail", [None, {"reason": 'ä \u2028 " \\ </script>'}, ["a", 1], "text"])
def test_envelope(row: ErrorCode, detail: object) -> None:
    """The body is the spec's JSON; a detail is left out when there is none."""
    document = json.loads(envelope(row, detail))
    expected = {"code": row.code, "message": row.message} | ({} if detail is None else {"detail": detail})
    assert document == {"errors": [expected]}


def test_error_speaks() -> None:
    """In a log it says which row and why; headers are a copy."""
    headers = {"Range": "0-9"}
    error = RegistryError(ErrorCode.RANGE_INVALID, {"offset": 10}, headers)
    headers.clear()
    assert error.headers == {"Range": "0-9"}
    assert str(error) == "RANGE_INVALID: invalid content range ({'offset': 10})"

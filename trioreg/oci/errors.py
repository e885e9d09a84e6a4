"""Errors a client may see: one table of code, status and message.

Rule: an error that reaches a client is a `RegistryError` raised with a row of `ErrorCode`, and it is
written in one place as the envelope of the spec (section "Error Codes"):
``{"errors": [{"code": …, "message": …, "detail": …}]}``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class ErrorCode(enum.Enum):
    """A row: (code on the wire, HTTP status, message).

    The first block is the spec's own table (code-1 to code-14); the second gives the same codes another
    status where HTTP has a better word; the third are codes that Docker's registry introduced and
    clients know. https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes
    """

    BLOB_UNKNOWN = ("BLOB_UNKNOWN", 404, "blob unknown to registry")
    BLOB_UPLOAD_INVALID = ("BLOB_UPLOAD_INVALID", 400, "blob upload invalid")
    BLOB_UPLOAD_UNKNOWN = ("BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry")
    DIGEST_INVALID = ("DIGEST_INVALID", 400, "provided digest did not match uploaded content")
    MANIFEST_BLOB_UNKNOWN = (
        "MANIFEST_BLOB_UNKNOWN",
        404,
        "manifest references a manifest or blob unknown to registry",
    )
    MANIFEST_INVALID = ("MANIFEST_INVALID", 400, "manifest invalid")
    MANIFEST_UNKNOWN = ("MANIFEST_UNKNOWN", 404, "manifest unknown to registry")
    NAME_INVALID = ("NAME_INVALID", 400, "invalid repository name")
    NAME_UNKNOWN = ("NAME_UNKNOWN", 404, "repository name not known to registry")
    SIZE_INVALID = ("SIZE_INVALID", 400, "provided length did not match content length")
    UNAUTHORIZED = ("UNAUTHORIZED", 401, "authentication required")
    DENIED = ("DENIED", 403, "requested access to the resource is denied")
    UNSUPPORTED = ("UNSUPPORTED", 400, "the operation is unsupported")
    TOOMANYREQUESTS = ("TOOMANYREQUESTS", 429, "too many requests")

    MANIFEST_TOO_LARGE = ("SIZE_INVALID", 413, "manifest is larger than the limit")
    BLOB_TOO_LARGE = ("SIZE_INVALID", 413, "blob is larger than the limit")
    QUOTA_EXCEEDED = ("DENIED", 403, "the quota of the repository is used up")
    METHOD_UNSUPPORTED = ("UNSUPPORTED", 405, "the method is not supported here")
    PATH_UNKNOWN = ("UNSUPPORTED", 404, "no such endpoint")
    HEAD_TOO_LARGE = ("UNSUPPORTED", 431, "the head of the request is larger than the limit")
    CODING_UNSUPPORTED = ("UNSUPPORTED", 501, "the transfer coding is not supported")
    BODY_STALLED = ("BLOB_UPLOAD_INVALID", 408, "the body stopped arriving")

    RANGE_INVALID = ("RANGE_INVALID", 416, "invalid content range")
    TAG_IMMUTABLE = ("DENIED", 403, "the tag is immutable")
    TAG_INVALID = ("TAG_INVALID", 400, "invalid tag name")
    PAGINATION_NUMBER_INVALID = (
        "PAGINATION_NUMBER_INVALID",
        400,
        "invalid number of results requested",
    )
    INSUFFICIENT_STORAGE = ("UNAVAILABLE", 507, "the registry has no space left")
    UNAVAILABLE = ("UNAVAILABLE", 503, "the registry cannot answer now")
    UNKNOWN = ("UNKNOWN", 500, "unknown error")

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def status(self) -> int:
        return self.value[1]

    @property
    def message(self) -> str:
        return self.value[2]


class RegistryError(Exception):
    """An answer of 4xx or 5xx: a row of the table, a detail for the reader, headers for the client."""

    def __init__(self, error: ErrorCode, detail: Any = None, headers: Mapping[str, str] | None = None):
        super().__init__(error, detail)
        self.error = error
        self.detail = detail
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return f"{self.error.name}: {self.error.message} ({self.detail!r})"


def envelope(error: ErrorCode, detail: Any = None) -> bytes:
    """The JSON body of an error answer."""
    row: dict[str, Any] = {"code": error.code, "message": error.message}
    if detail is not None:
        row["detail"] = detail
    return msgspec.json.encode({"errors": [row]})

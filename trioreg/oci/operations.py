"""The endpoints of the spec: a method, a path and a query become one frozen value.

Rule: everything below takes these values; nobody else looks at a path. The path is parsed raw and from
the right, because a repository name may contain ``blobs`` or ``tags``; each segment is unescaped by
itself, so that ``%2F`` cannot make two components of one.

Endpoints (spec.md, "Endpoints")::

    end-1    GET          /v2/                                           Ping
    end-2    GET HEAD     /v2/<name>/blobs/<digest>                      GetBlob
    end-10   DELETE       /v2/<name>/blobs/<digest>                      DeleteBlob
    end-4    POST         /v2/<name>/blobs/uploads/                      StartUpload   (4b, 11: query)
    end-5    PATCH        /v2/<name>/blobs/uploads/<id>                  AppendUpload
    end-6    PUT          /v2/<name>/blobs/uploads/<id>?digest=          FinishUpload
    end-13   GET          /v2/<name>/blobs/uploads/<id>                  UploadStatus
    end-14   DELETE       /v2/<name>/blobs/uploads/<id>                  CancelUpload
    end-3    GET HEAD     /v2/<name>/manifests/<reference>               GetManifest
    end-7    PUT          /v2/<name>/manifests/<reference>               PutManifest
    end-9    DELETE       /v2/<name>/manifests/<reference>               DeleteManifest
    end-8    GET          /v2/<name>/tags/list?n=&last=                  ListTags
    end-12   GET          /v2/<name>/referrers/<digest>?artifactType=    ListReferrers
    –        GET          /v2/_catalog?n=&last=                          ListRepositories (Docker's)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote

from trioreg.oci.digest import CANONICAL, Algorithm, Digest, parse_algorithm, parse_digest
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import (
    RepositoryName,
    Tag,
    UploadId,
    parse_name,
    parse_tag,
    parse_upload_id,
)

Reference: TypeAlias = Tag | Digest


@dataclass(frozen=True, slots=True)
class Ping:
    pass


@dataclass(frozen=True, slots=True)
class GetBlob:
    name: RepositoryName
    digest: Digest


@dataclass(frozen=True, slots=True)
class DeleteBlob:
    name: RepositoryName
    digest: Digest


@dataclass(frozen=True, slots=True)
class StartUpload:
    """`digest`: the whole blob is in this body (end-4b). `mount`: link this blob instead (end-11)."""

    name: RepositoryName
    digest: Digest | None
    mount: Digest | None
    source: RepositoryName | None
    algorithm: Algorithm


@dataclass(frozen=True, slots=True)
class AppendUpload:
    name: RepositoryName
    upload: UploadId


@dataclass(frozen=True, slots=True)
class FinishUpload:
    name: RepositoryName
    upload: UploadId
    digest: Digest


@dataclass(frozen=True, slots=True)
class UploadStatus:
    name: RepositoryName
    upload: UploadId


@dataclass(frozen=True, slots=True)
class CancelUpload:
    name: RepositoryName
    upload: UploadId


@dataclass(frozen=True, slots=True)
class GetManifest:
    name: RepositoryName
    reference: Reference


@dataclass(frozen=True, slots=True)
class PutManifest:
    name: RepositoryName
    reference: Reference


@dataclass(frozen=True, slots=True)
class DeleteManifest:
    name: RepositoryName
    reference: Reference


@dataclass(frozen=True, slots=True)
class ListTags:
    """`n`: at most so many; None is all. `last`: only those that sort after it."""

    name: RepositoryName
    n: int | None
    last: str | None


@dataclass(frozen=True, slots=True)
class ListRepositories:
    n: int | None
    last: str | None


@dataclass(frozen=True, slots=True)
class ListReferrers:
    name: RepositoryName
    digest: Digest
    artifact_type: str | None
    last: Digest | None = None


Operation: TypeAlias = (
    Ping
    | GetBlob
    | DeleteBlob
    | StartUpload
    | AppendUpload
    | FinishUpload
    | UploadStatus
    | CancelUpload
    | GetManifest
    | PutManifest
    | DeleteManifest
    | ListTags
    | ListRepositories
    | ListReferrers
)

_PREFIX = "/v2"

# More digits than any list has entries.
_N_MAX_DIGITS = 9


def is_ours(path: str) -> bool:
    """Whether a raw path belongs to the registry API at all."""
    return path == _PREFIX or path.startswith("/v2/")


def parse_operation(method: str, path: str, query: str) -> Operation:
    """The operation that a request asks for. `path` and `query` are raw, as they stood in the request.

    Raises PATH_UNKNOWN (404), METHOD_UNSUPPORTED (405 with ``Allow``), or the error of the first name,
    tag, digest, upload id or number that is not one.
    """
    if len(path) + len(query) <= _REMEMBERED_LENGTH:
        return _parse_remembered(method, path, query)
    return _parse(method, path, query)


# Clients ask for the same things again; a thousand of them take about half a megabyte.
_REMEMBERED_LENGTH = 300


@lru_cache(maxsize=1024)
def _parse_remembered(method: str, path: str, query: str) -> Operation:
    return _parse(method, path, query)


def _parse(method: str, path: str, query: str) -> Operation:
    if not is_ours(path):
        raise RegistryError(ErrorCode.PATH_UNKNOWN)
    segments = [_unescape(segment) for segment in path.split("/")[2:]]
    if segments in ([], [""]):
        _check_method(method, "GET", "HEAD")
        return Ping()
    if segments == ["_catalog"]:
        _check_method(method, "GET")
        return ListRepositories(*_page(_query(query)))
    match segments:
        case [*name, "tags", "list"]:
            _check_method(method, "GET")
            return ListTags(_name(name), *_page(_query(query)))
        case [*name, "manifests", reference]:
            return _manifest_operation(method, name, reference)
        case [*name, "referrers", digest]:
            _check_method(method, "GET")
            asked = _query(query)
            last = parse_digest(asked["last"]) if "last" in asked else None
            artifact_type = asked.get("artifactType") or None
            return ListReferrers(_name(name), parse_digest(digest), artifact_type, last)
        case [*name, "blobs", "uploads"] | [*name, "blobs", "uploads", ""]:
            _check_method(method, "POST")
            return _start_upload(_name(name), _query(query))
        case [*name, "blobs", "uploads", upload]:
            return _upload_operation(method, name, upload, query)
        case [*name, "blobs", digest]:
            _check_method(method, "GET", "HEAD", "DELETE")
            blob = (_name(name), parse_digest(digest))
            return DeleteBlob(*blob) if method == "DELETE" else GetBlob(*blob)
    raise RegistryError(ErrorCode.PATH_UNKNOWN)


def _manifest_operation(method: str, name: list[str], reference: str) -> Operation:
    _check_method(method, "GET", "HEAD", "PUT", "DELETE")
    at = (_name(name), parse_digest(reference) if ":" in reference else parse_tag(reference))
    match method:
        case "PUT":
            return PutManifest(*at)
        case "DELETE":
            return DeleteManifest(*at)
    return GetManifest(*at)


def _upload_operation(method: str, name: list[str], upload: str, query: str) -> Operation:
    _check_method(method, "GET", "PATCH", "PUT", "DELETE")
    session = (_name(name), parse_upload_id(upload))
    match method:
        case "PATCH":
            return AppendUpload(*session)
        case "PUT":
            return FinishUpload(*session, parse_digest(_query(query).get("digest", "")))
        case "DELETE":
            return CancelUpload(*session)
    return UploadStatus(*session)


def _start_upload(name: RepositoryName, query: dict[str, str]) -> StartUpload:
    digest = parse_digest(query["digest"]) if "digest" in query else None
    announced = query.get("digest-algorithm")
    if announced is not None:
        algorithm = parse_algorithm(announced)
    else:
        algorithm = digest.algorithm if digest else CANONICAL
    return StartUpload(
        name=name,
        digest=digest,
        mount=parse_digest(query["mount"]) if query.get("mount") else None,
        source=parse_name(query["from"]) if query.get("from") else None,
        algorithm=algorithm,
    )


def _check_method(method: str, *allowed: str) -> None:
    if method not in allowed:
        allow = ", ".join(allowed)
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, {"allow": allow}, headers={"Allow": allow})


def _name(components: list[str]) -> RepositoryName:
    return parse_name("/".join(components))


def _unescape(segment: str) -> str:
    """One path segment as text. An escaped slash or broken UTF-8 can be in no value of ours."""
    if "%" not in segment:
        return segment
    try:
        text = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        text = "/"
    if "/" in text:
        raise RegistryError(ErrorCode.NAME_INVALID, {"path": segment[:255]})
    return text


def _query(query: str) -> dict[str, str]:
    """The first value of each key; the spec repeats none of them."""
    values: dict[str, str] = {}
    try:
        for key, value in parse_qsl(query, keep_blank_values=True, max_num_fields=100):
            values.setdefault(key, value)
    except ValueError:
        raise RegistryError(ErrorCode.UNSUPPORTED, {"reason": "too many query fields"}) from None
    return values


def _page(query: dict[str, str]) -> tuple[int | None, str | None]:
    n = query.get("n")
    if n is not None and not (n.isascii() and n.isdigit() and len(n) <= _N_MAX_DIGITS):
        raise RegistryError(ErrorCode.PAGINATION_NUMBER_INVALID, {"n": n[:32]})
    return (int(n) if n is not None else None, query.get("last"))

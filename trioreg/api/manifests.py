"""Manifests, tags and referrers over HTTP.

Rule: bytes of manifests that are being pushed pass a gate, so that any number of them at once takes a
bounded amount of memory; and because a slow one would hold its place, it must arrive in limited time.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec
import trio

from trioreg.api.blobs import matches
from trioreg.api.exchange import BlobSlice, Exchange, Reply, empty_reply, typed_reply
from trioreg.api.service import Service
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_INDEX
from trioreg.oci.operations import (
    GetManifest,
    ListReferrers,
    ListRepositories,
    ListTags,
    PutManifest,
)
from trioreg.pipeline.body import Body, ClientStalled

# Grows with what arrives, so that a client that announces 4 MB and sends nothing costs nothing.
_READ_BYTES = 64 * 1024


async def get(service: Service, operation: GetManifest, exchange: Exchange) -> Reply:
    """end-3. The media type is the one that was pushed, whatever the client accepts."""
    stored = await service.registry.manifests.get(operation.name, operation.reference)
    validators = {"Docker-Content-Digest": str(stored.digest), "ETag": f'"{stored.digest}"'}
    if matches(exchange.headers.get("if-none-match"), stored.digest):
        if not isinstance(stored.content, bytes):
            stored.content.close()
        return empty_reply(304, validators)
    content = stored.content
    size = len(content) if isinstance(content, bytes) else content.size
    headers = {"Content-Type": stored.media_type, "Content-Length": str(size), **validators}
    if isinstance(content, bytes):
        return Reply(200, headers, b"" if exchange.method == "HEAD" else content)
    if exchange.method == "HEAD":
        content.close()
        return Reply(200, headers)
    return Reply(200, headers, BlobSlice(content, 0, size))


async def put(service: Service, operation: PutManifest, exchange: Exchange) -> Reply:
    """end-7. Raises MANIFEST_TOO_LARGE (413) before it reads a body that is announced as larger."""
    limit = service.registry.manifest_max
    length = exchange.body.length
    if length is not None and length > limit:
        raise _too_large(limit)
    async with service.registry.manifest_gate.hold(limit if length is None else length):
        data = await _read(exchange.body, limit, service.manifest_seconds)
        content_type = exchange.headers.get("content-type")
        pushed = await service.registry.manifests.put(operation.name, operation.reference, content_type, data)
    headers = {
        "Location": f"/v2/{operation.name}/manifests/{pushed.digest}",
        "Docker-Content-Digest": str(pushed.digest),
    }
    if pushed.subject is not None:
        headers["OCI-Subject"] = str(pushed.subject)
    return empty_reply(201, headers)


async def tags(service: Service, operation: ListTags) -> Reply:
    """end-8."""
    name = operation.name
    found, more = await service.registry.manifests.tags(name, operation.n, operation.last)
    return _list({"name": name, "tags": found}, f"/v2/{name}/tags/list", operation.n, found, more)


async def repositories(service: Service, operation: ListRepositories) -> Reply:
    """Docker's catalog (distribution, docs/spec/api.md "Listing Repositories")."""
    found, more = await service.registry.manifests.repositories(operation.n, operation.last)
    return _list({"repositories": found}, "/v2/_catalog", operation.n, found, more)


async def referrers(service: Service, operation: ListReferrers) -> Reply:
    """end-12."""
    index = await service.registry.manifests.referrers(
        operation.name, operation.digest, operation.artifact_type
    )
    filters = {"OCI-Filters-Applied": "artifactType"} if operation.artifact_type else {}
    return typed_reply(200, OCI_INDEX, index, filters)


async def _read(body: Body, limit: int, seconds: float) -> bytes:
    data = bytearray()
    with trio.move_on_after(seconds) as patience:
        while await body.ready():
            end = len(data)
            data.extend(bytes(min(_READ_BYTES, limit + 1 - end)))
            with memoryview(data) as view:
                count = body.fill(view[end:])
            del data[end + count :]
            if len(data) > limit:
                raise _too_large(limit)
    if patience.cancelled_caught:
        raise ClientStalled
    return bytes(data)


def _too_large(limit: int) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_TOO_LARGE, {"limit": limit})


def _list(document: object, path: str, n: int | None, found: Sequence[str], more: bool) -> Reply:
    """A page, and where the next one is (RFC 8288)."""
    headers = {}
    if more and found:
        query = urlencode({"n": n, "last": found[-1]})
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    return typed_reply(200, "application/json", msgspec.json.encode(document), headers)

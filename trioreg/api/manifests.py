"""Manifests, tags and referrers over HTTP.

Rule: bytes of manifests that are being pushed pass a gate, so that any number of them at once takes a
bounded amount of memory; and because a slow one would hold its place, it must arrive in limited time.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode

import msgspec
import trio

from trioreg.api.arriving import Hold, Room
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
_READ_BYTES = 16 * 1024

# Entries of a list in one answer: 10,000 tags are about 200 kB.
_LARGEST_PAGE = 10_000

# Nearly every manifest is smaller, and never waits.
_FREE_BYTES = 64 * 1024


async def get(service: Service, operation: GetManifest, exchange: Exchange) -> Reply:
    """end-3. The media type is the one that was pushed, whatever the client accepts."""
    stored = await service.registry.manifests.get(operation.name, operation.reference, pull=True)
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
    async with _received(service, exchange.body) as data:
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
    n = _page_size(operation.n)
    found, more = await service.registry.manifests.tags(name, n, operation.last)
    return _list({"name": name, "tags": found}, f"/v2/{name}/tags/list", n, found, more)


async def repositories(service: Service, operation: ListRepositories, exchange: Exchange) -> Reply:
    """Docker's catalog (distribution, docs/spec/api.md "Listing Repositories"): what the client may pull."""
    n = _page_size(operation.n)
    found, more = await service.registry.manifests.repositories(
        n, operation.last, service.authorizer.visible(exchange.identity)
    )
    return _list({"repositories": found}, "/v2/_catalog", n, found, more)


async def referrers(service: Service, operation: ListReferrers) -> Reply:
    """end-12."""
    index, last = await service.registry.manifests.referrers(
        operation.name, operation.digest, operation.artifact_type, operation.last
    )
    headers = {"OCI-Filters-Applied": "artifactType"} if operation.artifact_type else {}
    if last is not None:
        query = {"last": str(last)}
        if operation.artifact_type:
            query["artifactType"] = operation.artifact_type
        path = f"/v2/{operation.name}/referrers/{operation.digest}"
        headers["Link"] = f'<{path}?{urlencode(query)}>; rel="next"'
    return typed_reply(200, OCI_INDEX, index, headers)


@asynccontextmanager
async def _received(service: Service, body: Body) -> AsyncIterator[bytes]:
    """The bytes of a pushed manifest. What goes beyond `_FREE_BYTES` passes the gate before it is read.

    So clients that dribble large manifests hold up large ones only, and those for a limited time; what has
    come of those before the gate is bounded by `Service.arriving`.
    """
    limit, data = service.registry.manifest_max, bytearray()
    with service.arriving.one(service.manifest_seconds) as hold:
        ended = await _read(body, data, min(_FREE_BYTES, limit + 1), service.arriving.room, hold)
    if ended:
        with service.arriving.stored(len(data)):
            whole = bytes(data)
            data.clear()
            yield whole
        return
    async with AsyncExitStack() as gate:
        with service.arriving.one(math.inf) as hold:
            hold(len(data))
            size = limit if body.length is None else body.length
            await gate.enter_async_context(service.registry.manifest_gate.hold(size))
        with trio.move_on_after(service.manifest_seconds) as patience:
            ended = await _read(body, data, limit + 1)
        if patience.cancelled_caught:
            raise ClientStalled
        if not ended or len(data) > limit:
            raise _too_large(limit)
        yield bytes(data)


async def _read(
    body: Body, data: bytearray, limit: int, room: Room | None = None, hold: Hold = lambda _size: None
) -> bool:
    """Append what arrives until there are `limit` bytes; whether that was all."""
    while len(data) < limit:
        hold(len(data))
        if not await body.ready():
            return True
        if room is not None:
            await room()
        end = len(data)
        data.extend(bytes(min(_READ_BYTES, limit - end)))
        with memoryview(data) as view:
            count = body.fill(view[end:])
        del data[end + count :]
    return False


def _too_large(limit: int) -> RegistryError:
    return RegistryError(ErrorCode.MANIFEST_TOO_LARGE, {"limit": limit})


def _page_size(n: int | None) -> int:
    """A list without a number has an end too; who wants more follows the link."""
    return _LARGEST_PAGE if n is None else min(n, _LARGEST_PAGE)


def _list(document: object, path: str, n: int, found: Sequence[str], more: bool) -> Reply:
    """A page, and where the next one is (RFC 8288)."""
    headers = {}
    if more and found:
        query = urlencode({"n": n, "last": found[-1]})
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    return typed_reply(200, "application/json", msgspec.json.encode(document), headers)

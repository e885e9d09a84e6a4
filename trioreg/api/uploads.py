"""Upload sessions over HTTP (spec.md, "Pushing blobs").

Rule: an upload URL carries its session in the path and needs no query, because some clients drop it.
Locations are relative references (RFC 9110, 10.2.2): we do not know what our name is outside.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from trioreg.api.access import may_pull, owner_of
from trioreg.api.clients import client_of
from trioreg.api.exchange import Exchange, Reply, empty_reply
from trioreg.api.service import Service
from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.oci.operations import AppendUpload, CancelUpload, FinishUpload, StartUpload, UploadStatus
from trioreg.oci.ranges import uploaded_range


async def start(service: Service, operation: StartUpload, exchange: Exchange) -> Reply:
    """end-4a: a session; end-4b: the whole blob; end-11: a mount, or a session if it cannot be had."""
    registry, name = service.registry, operation.name
    mount, owner = operation.mount, owner_of(exchange)
    # A blob is mounted only from where the client may pull it, else the answer would tell that it is here.
    # Without `from` that could be any repository: to look for one that it may pull, all links would be read.
    if mount is not None and not may_pull(service, exchange, operation.source):
        mount = None
    if mount is not None and await registry.blobs.mount(name, mount, operation.source):
        return _created(name, mount)
    async with service.admission.place(client_of(exchange)) as place:
        if operation.digest is not None:
            session = await registry.uploads.push(
                name, operation.digest, operation.algorithm, exchange.body, owner
            )
            return _created(name, operation.digest, session.id)
        session = await registry.uploads.start(name, operation.algorithm, owner)
        place.keep(session.id)
    return _accepted(service, name, session.id, 0)


async def append(service: Service, operation: AppendUpload, exchange: Exchange) -> Reply:
    """end-5: one chunk, or a stream of unknown length."""
    async with service.admission.place(client_of(exchange), operation.upload) as place:
        offset = await service.registry.uploads.append(
            operation.name,
            operation.upload,
            exchange.body,
            exchange.headers.get("content-range"),
            owner_of(exchange),
        )
        place.keep(operation.upload)
    return _accepted(service, operation.name, operation.upload, offset)


async def finish(service: Service, operation: FinishUpload, exchange: Exchange) -> Reply:
    """end-6: the last chunk, perhaps empty, and the digest of the whole."""
    upload, body = operation.upload, exchange.body
    async with _place_for_last(service, exchange, upload):
        await service.registry.uploads.finish(
            operation.name,
            upload,
            operation.digest,
            body,
            exchange.headers.get("content-range"),
            owner_of(exchange),
        )
    return _created(operation.name, operation.digest, upload)


async def cancel(service: Service, operation: CancelUpload, exchange: Exchange) -> Reply:
    """end-14."""
    await service.registry.uploads.cancel(operation.name, operation.upload, owner_of(exchange))
    service.admission.drop(operation.upload)
    return empty_reply(204, {})


async def status(service: Service, operation: UploadStatus, exchange: Exchange) -> Reply:
    """end-13: how far it came."""
    session = await service.registry.uploads.status(operation.name, operation.upload, owner_of(exchange))
    headers = _session_headers(service, operation.name, operation.upload, session.offset)
    return empty_reply(204, headers)


def _place_for_last(
    service: Service, exchange: Exchange, upload: UploadId
) -> AbstractAsyncContextManager[object]:
    """A place for the last body of a session. One without a body needs none, and has no other to come."""
    if exchange.body.length == 0:
        service.admission.drop(upload)
        return nullcontext()
    return service.admission.place(client_of(exchange), upload)


def _accepted(service: Service, name: RepositoryName, upload: UploadId, offset: int) -> Reply:
    return empty_reply(202, _session_headers(service, name, upload, offset))


def _session_headers(service: Service, name: RepositoryName, upload: UploadId, offset: int) -> dict[str, str]:
    headers = {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Range": uploaded_range(offset),
        "Docker-Upload-UUID": upload,
    }
    if service.chunk_min_length:
        headers["OCI-Chunk-Min-Length"] = str(service.chunk_min_length)
    return headers


def _created(name: RepositoryName, digest: Digest, upload: UploadId | None = None) -> Reply:
    headers = {
        "Location": f"/v2/{name}/blobs/{digest}",
        "Docker-Content-Digest": str(digest),
    }
    if upload is not None:
        headers["Docker-Upload-UUID"] = upload
    return empty_reply(201, headers)

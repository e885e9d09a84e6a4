"""From an exchange to a reply: parse, authorize, do, and write errors in the one place.

Rule: every request gets exactly one reply or, when its client is gone, none. A `RegistryError` becomes the
OCI envelope; anything unforeseen is a bug: 500 with the request id, and its traceback in the log.
"""

from __future__ import annotations

from trioreg.api import access, blobs, manifests, notes, uploads
from trioreg.api.counting import COUNTED, COUNTED_HEAD
from trioreg.api.exchange import Exchange, Reply, empty_reply, typed_reply
from trioreg.api.service import Service
from trioreg.auth.authorizer import Action
from trioreg.logs import Log
from trioreg.oci import operations as op
from trioreg.oci.errors import ErrorCode, RegistryError, envelope
from trioreg.pipeline.body import BodyMalformed, ClientDisconnected, ClientStalled

_log = Log(__name__)

VERSION_HEADER = {"Docker-Distribution-Api-Version": "registry/2.0"}


async def answer(service: Service, exchange: Exchange) -> Reply:
    """The reply to an exchange. Raises ClientDisconnected when there is nobody left to answer."""
    try:
        page = service.pages.get(exchange.path)
        if page is not None:
            return await page(exchange)
        if service.tracing is not None:
            service.tracing.begin(exchange)
        operation = op.parse_operation(exchange.method, exchange.path, exchange.query)
        counted = COUNTED_HEAD if exchange.method == "HEAD" else COUNTED
        exchange.operation = counted[type(operation)]
        name, action = getattr(operation, "name", None), _ACTIONS[type(operation)]
        await access.identify(service, exchange, name, action)
        access.authorize(service, exchange, name, action)
        if service.events is not None:
            return await notes.noted(service, operation, exchange, _perform)
        return await _perform(service, operation, exchange)
    except RegistryError as error:
        if service.events is not None:
            await notes.refused(service.events, exchange, error)
        return error_reply(error)
    except BodyMalformed as error:
        return error_reply(RegistryError(ErrorCode.BLOB_UPLOAD_INVALID, {"reason": str(error)}))
    except ClientStalled:
        return error_reply(RegistryError(ErrorCode.BODY_STALLED))
    except ClientDisconnected:
        raise
    except Exception as bug:  # noqa: BLE001 (the boundary of a request)
        _log.error("unforeseen failure", cause=bug, method=exchange.method, path=exchange.path)
        detail = {"request_id": exchange.request_id}
        return error_reply(RegistryError(ErrorCode.UNKNOWN, detail))


def error_reply(error: RegistryError) -> Reply:
    content = envelope(error.error, error.detail)
    headers = {**VERSION_HEADER, **error.headers}
    return typed_reply(error.error.status, "application/json", content, headers)


_ACTIONS: dict[type, Action] = {
    op.GetBlob: "pull",
    op.GetManifest: "pull",
    op.ListTags: "pull",
    op.ListReferrers: "pull",
    op.StartUpload: "push",
    op.AppendUpload: "push",
    op.FinishUpload: "push",
    op.UploadStatus: "push",
    op.CancelUpload: "push",
    op.PutManifest: "push",
    op.DeleteBlob: "delete",
    op.DeleteManifest: "delete",
    op.ListRepositories: "catalog",
    op.Ping: "list",
}


async def _perform(service: Service, operation: op.Operation, exchange: Exchange) -> Reply:
    match operation:
        case op.GetManifest():
            return await service.remembered.get(service, operation, exchange, manifests.get)
        case op.GetBlob() if exchange.method == "HEAD":
            # Made anew each time, for it refreshes the blob's time: who asks relies on it.
            return await blobs.get(service, operation, exchange)
        case op.GetBlob():
            return await service.remembered.get(service, operation, exchange, blobs.get)
        case op.Ping():
            return typed_reply(200, "application/json", b"{}", VERSION_HEADER)
        case op.DeleteBlob():
            await service.registry.blobs.delete(operation.name, operation.digest)
            return empty_reply(202, {})
        case op.StartUpload():
            return await uploads.start(service, operation, exchange)
        case op.AppendUpload():
            return await uploads.append(service, operation, exchange)
        case op.FinishUpload():
            return await uploads.finish(service, operation, exchange)
        case op.UploadStatus():
            return await uploads.status(service, operation, exchange)
        case op.CancelUpload():
            return await uploads.cancel(service, operation, exchange)
        case op.PutManifest():
            return await manifests.put(service, operation, exchange)
        case op.DeleteManifest():
            await service.registry.manifests.delete(operation.name, operation.reference)
            return empty_reply(202, {})
        case op.ListTags():
            return await manifests.tags(service, operation)
        case op.ListRepositories():
            return await manifests.repositories(service, operation, exchange)
        case op.ListReferrers():
            return await manifests.referrers(service, operation)

"""What of an exchange is worth telling: the one place that makes events.

Rules: a push or a delete is recorded when it is done and before its answer is sent; were we to die in
between, the client was told nothing and asks again. A refusal is recorded when someone showed credentials
that were wrong, or may not do what was asked; not when a client that showed none is asked for some, as every
client is at first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from trioreg.api.exchange import Exchange, Reply
from trioreg.api.service import Service
from trioreg.events.event import Event, Recorder, What, clipped
from trioreg.oci import operations as op
from trioreg.oci.digest import Digest
from trioreg.oci.errors import RegistryError

Perform = Callable[[Service, op.Operation, Exchange], Awaitable[Reply]]


async def noted(service: Service, operation: op.Operation, exchange: Exchange, perform: Perform) -> Reply:
    """Perform the operation and record what it did."""
    was = await _digest_before(service, operation)
    reply = await perform(service, operation, exchange)
    try:
        event = await _event(service, operation, exchange, reply, was)
        if event is not None and service.events is not None:
            await service.events.record(event)
    except BaseException:
        reply.close()
        raise
    return reply


async def refused(recorder: Recorder, exchange: Exchange, error: RegistryError) -> None:
    """Record a refusal, if it is one."""
    shown = "authorization" in exchange.headers
    if error.error.status == 403 or (error.error.status == 401 and shown):
        detail = clipped(f"{exchange.method} {exchange.path}")
        await recorder.record(_of(exchange, "denied", code=error.error.name, detail=detail))


async def _digest_before(service: Service, operation: op.Operation) -> str:
    """The digest that a tag has before it is moved or removed, as far as that can be said."""
    if not isinstance(operation, op.PutManifest | op.DeleteManifest):
        return ""
    if isinstance(operation.reference, Digest):
        return ""
    try:
        stored = await service.registry.manifests.get(operation.name, operation.reference)
    except RegistryError:
        return ""
    if not isinstance(stored.content, bytes):
        stored.content.close()
    return str(stored.digest)


async def _event(
    service: Service, operation: op.Operation, exchange: Exchange, reply: Reply, was: str
) -> Event | None:
    match operation:
        case op.PutManifest():
            digest = reply.headers["Docker-Content-Digest"]
            tag = "" if isinstance(operation.reference, Digest) else operation.reference
            return _of(
                exchange,
                "push",
                target="manifest",
                repository=operation.name,
                tag=tag,
                digest=digest,
                was=was if was != digest else "",
                media_type=clipped(exchange.headers.get("content-type", "")),
                size=exchange.body.length,
            )
        case op.DeleteManifest():
            by_tag = not isinstance(operation.reference, Digest)
            return _of(
                exchange,
                "delete",
                target="tag" if by_tag else "manifest",
                repository=operation.name,
                tag=str(operation.reference) if by_tag else "",
                digest=was if by_tag else str(operation.reference),
            )
        case op.GetManifest() if exchange.method == "GET" and reply.status == 200:
            tag = "" if isinstance(operation.reference, Digest) else operation.reference
            return _of(
                exchange,
                "pull",
                target="manifest",
                repository=operation.name,
                tag=tag,
                digest=reply.headers["Docker-Content-Digest"],
                media_type=clipped(reply.headers["Content-Type"]),
                size=int(reply.headers["Content-Length"]),
            )
        case op.StartUpload() | op.FinishUpload() if reply.status == 201:
            digest = reply.headers["Docker-Content-Digest"]
            mounted = isinstance(operation, op.StartUpload) and str(operation.mount) == digest
            source = operation.source if isinstance(operation, op.StartUpload) and mounted else None
            return _of(
                exchange, "push", target="blob", repository=operation.name, digest=digest, source=source or ""
            )
        case op.DeleteBlob():
            digest = str(operation.digest)
            return _of(exchange, "delete", target="blob", repository=operation.name, digest=digest)
    return None


def _of(exchange: Exchange, action: What, **more: Any) -> Event:
    return Event(
        action=action,
        identity=exchange.identity.name if exchange.identity else "",
        peer=exchange.peer,
        request=exchange.request_id,
        agent=clipped(exchange.headers.get("user-agent", "")),
        **more,
    )

"""Blobs over HTTP: GET and HEAD with ranges and validators."""

from __future__ import annotations

from trioreg.api.exchange import BlobSlice, Exchange, Reply, empty_reply
from trioreg.api.service import Service
from trioreg.oci.digest import Digest
from trioreg.oci.operations import GetBlob
from trioreg.oci.ranges import ByteRange, parse_range
from trioreg.storage.base import BlobReader


async def get(service: Service, operation: GetBlob, exchange: Exchange) -> Reply:
    """end-2. A blob's bytes never change, so its digest is a strong validator."""
    name, digest = operation.name, operation.digest
    blobs = service.registry.blobs
    if exchange.method == "HEAD":
        size = await blobs.size(name, digest)
        if matches(exchange.headers.get("if-none-match"), digest):
            return empty_reply(304, _validators(digest))
        return Reply(200, {"Content-Length": str(size), **_headers(digest)})
    data = await blobs.small(name, digest)
    if data is not None:
        return _reply(exchange, digest, data)
    reader = await blobs.open(name, digest)
    try:
        data = await blobs.remember(digest, reader)
        reply = _reply(exchange, digest, reader if data is None else data)
    except BaseException:
        reader.close()
        raise
    if not isinstance(reply.content, BlobSlice):
        reader.close()
    return reply


def _reply(exchange: Exchange, digest: Digest, source: bytes | BlobReader) -> Reply:
    """The blob, the part that was asked for, or the word that the client has it. Owns no reader yet."""
    if matches(exchange.headers.get("if-none-match"), digest):
        return empty_reply(304, _validators(digest))
    size = len(source) if isinstance(source, bytes) else source.size
    part = _range(exchange, digest, size)
    start, end = part or (0, size)
    headers = {"Content-Length": str(end - start), **_headers(digest)}
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    content = source[start:end] if isinstance(source, bytes) else BlobSlice(source, start, end)
    return Reply(200 if part is None else 206, headers, content)


def matches(if_none_match: str | None, digest: Digest) -> bool:
    """Whether the client has it already (RFC 9110, 13.1.2; tags are compared weakly)."""
    if not if_none_match:
        return False
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in if_none_match.split(",")]
    return "*" in tags or str(digest) in tags


def _range(exchange: Exchange, digest: Digest, size: int) -> ByteRange | None:
    """The part asked for. ``If-Range`` with another validator asks for the whole (RFC 9110, 13.1.5)."""
    if_range = exchange.headers.get("if-range")
    if if_range is not None and if_range.strip('"') != str(digest):
        return None
    return parse_range(exchange.headers.get("range"), size)


def _validators(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": str(digest), "ETag": f'"{digest}"'}


def _headers(digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        **_validators(digest),
    }

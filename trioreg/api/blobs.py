"""Blobs over HTTP: GET and HEAD with ranges and validators."""

from __future__ import annotations

from trioreg.api.exchange import BlobSlice, Exchange, Reply, empty_reply
from trioreg.api.service import Service
from trioreg.oci.digest import Digest
from trioreg.oci.operations import GetBlob
from trioreg.oci.ranges import ByteRange, parse_range


async def get(service: Service, operation: GetBlob, exchange: Exchange) -> Reply:
    """end-2. A blob's bytes never change, so its digest is a strong validator."""
    name, digest = operation.name, operation.digest
    blobs = service.registry.blobs
    if exchange.method == "HEAD":
        size = await blobs.size(name, digest)
        if matches(exchange.headers.get("if-none-match"), digest):
            return empty_reply(304, _validators(digest))
        return Reply(200, {"Content-Length": str(size), **_headers(digest)})
    reader = await blobs.open(name, digest)
    try:
        if matches(exchange.headers.get("if-none-match"), digest):
            reader.close()
            return empty_reply(304, _validators(digest))
        part = _range(exchange, digest, reader.size)
    except BaseException:
        reader.close()
        raise
    if part is None:
        headers = {"Content-Length": str(reader.size), **_headers(digest)}
        return Reply(200, headers, BlobSlice(reader, 0, reader.size))
    headers = {
        "Content-Length": str(part.length),
        "Content-Range": f"bytes {part.start}-{part.end - 1}/{reader.size}",
        **_headers(digest),
    }
    return Reply(206, headers, BlobSlice(reader, part.start, part.end))


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
        # RFC 8246: what a digest names never changes.
        "Cache-Control": "max-age=31536000, immutable",
        **_validators(digest),
    }

"""A reply onto a wire: status line and header, then the content in whichever form it has.

Rule: an answer that is small leaves in one piece, head and content together; a larger one that many may be
sent at once is not copied for each.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus

from trioreg.api import Reply, Stream
from trioreg.pipeline.budget import Share
from trioreg.server.wire import Wire

# An answer so small leaves in one segment with its head.
_JOIN_BYTES = 8 * 1024

_REASONS = {status.value: status.phrase for status in HTTPStatus}


async def send_reply(
    wire: Wire, share: Share, reply: Reply, request_id: str, *, goes_on: bool, head_only: bool
) -> int:
    """Bytes of content that were sent. Raises ClientDisconnected. `share` bounds what passes our memory."""
    head = (
        reply.encoded or _encode(reply),
        request_id.encode(),
        _date(int(time.time())),
        b"\r\n" if goes_on else b"Connection: close\r\n\r\n",
    )
    content = reply.content
    if isinstance(content, bytes):
        if head_only:
            content = b""
        if len(content) <= _JOIN_BYTES:
            await wire.send(b"".join((*head, content)))
        else:
            # From the cache, which all who are sent it share: a copy for each would not be bounded.
            await wire.send(b"".join(head))
            await wire.send(content)
        return len(content)
    await wire.send(b"".join(head))
    if isinstance(content, Stream):
        return await _send_stream(wire, content)
    with share.taken():
        await wire.send_blob(content.reader, content.start, content.end, share.piece)
    return content.end - content.start


async def _send_stream(wire: Wire, content: Stream) -> int:
    sent = 0
    async with aclosing(content.pieces) as pieces:
        async for piece in pieces:
            await wire.send(piece)
            sent += len(piece)
    return sent


def _encode(reply: Reply) -> bytes:
    """What stands before the request id in the head; kept with the reply, which may be given again."""
    lines = [_status_line(reply.status)]
    for name, value in reply.headers.items():
        lines += (name, ": ", value, "\r\n")
    lines.append("X-Request-Id: ")
    reply.encoded = "".join(lines).encode("latin-1")
    return reply.encoded


@cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {_REASONS.get(status, '')}\r\n"


@lru_cache(maxsize=2)
def _date(now: int) -> bytes:
    """The end of the line before, and the field of RFC 9110, 6.6.1; made once a second."""
    return f"\r\nDate: {formatdate(now, usegmt=True)}\r\n".encode()

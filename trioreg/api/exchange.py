"""What a front hands in and what it gets back.

Rule: a `Reply` carries its own ``Content-Length``, so that HEAD answers what GET would; a front adds only
what belongs to the connection; only a `Stream` has no length, and ends with its connection. A reply with a
`BlobSlice` owns an open blob: whoever gets the reply closes it, sent or not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

from trioreg.auth.identity import Identity
from trioreg.pipeline.body import Body
from trioreg.storage.base import BlobReader


@dataclass(slots=True)  # frozen costs a microsecond a request
class Exchange:
    """A request: nothing of its body has been read.

    `path` and `query` are raw. `headers` have lower-case names; repeated ones are joined with ``", "``
    (RFC 9110, 5.3). `peer`: the address that the connection comes from, "" if unknown. `identity`: set by
    `api.access.identify`; None is anonymous. `operation`: what it turned out
    to ask for, as an index of `metrics.table.OPERATIONS`. `certificate`: the subject of a client certificate
    that was verified. `span` belongs to `Service.tracing`.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Body
    request_id: str
    peer: str = ""
    identity: Identity | None = None
    operation: int = 0
    certificate: str | None = None
    span: object = None


@dataclass(frozen=True, slots=True)
class BlobSlice:
    """Bytes `start` up to but not including `end` of an open blob."""

    reader: BlobReader
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Pieces of a content that has no length; `close` is called when it is over, sent or not."""

    pieces: AsyncGenerator[bytes, None]
    close: Callable[[], None]


@dataclass(slots=True)
class Reply:
    """`encoded` belongs to the front: what it has made of status and headers."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | BlobSlice | Stream = b""
    encoded: bytes = b""

    def close(self) -> None:
        if isinstance(self.content, BlobSlice):
            self.content.reader.close()
        elif isinstance(self.content, Stream):
            self.content.close()


def empty_reply(status: int, headers: Mapping[str, str]) -> Reply:
    """No content. 204 and 304 carry no length (RFC 9110, 8.6)."""
    length = {} if status in (204, 304) else {"Content-Length": "0"}
    return Reply(status, {**length, **headers})


def typed_reply(status: int, media_type: str, content: bytes, headers: Mapping[str, str]) -> Reply:
    """Content in one piece."""
    length = str(len(content))
    return Reply(status, {"Content-Type": media_type, "Content-Length": length, **headers}, content)

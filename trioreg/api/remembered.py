"""Replies that are given again: to who asks for a manifest or a small blob that was asked for before.

To see that nothing has changed costs far less than to look everything up and put the reply together. So a
reply is kept with the stamps of the links that it rests on (`registry.standing`), and given again while
a look finds them the same.

Rules: it begins where access control, rates and events have had their say (`api.answer`), so of those nothing
is remembered. Whatever else of a request a reply depends on is in its key. Stamps are taken before the reply
that they vouch for is made, so a reply is given again from the third request on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

from trioreg.api.exchange import Exchange, Reply
from trioreg.oci.digest import Digest, parse_digest
from trioreg.oci.operations import GetBlob, GetManifest
from trioreg.registry.standing import links_of_blob, links_of_manifest
from trioreg.storage.lru import ByteLru, CacheStatistics

if TYPE_CHECKING:
    from trioreg.api.service import Service

Operation = TypeVar("Operation", GetManifest, GetBlob)

# What an entry takes besides its content and its key: objects, header fields, the head as it is sent
# (`test_what_an_entry_takes`).
ENTRY_BYTES = 2000

_KEPT_STATUS = (200, 206, 304)


class _Kept:
    """`standing`: that of `links`, taken before `reply` was made; None vouches for nothing.

    `pulled`: whose manifest `digest` is, if it is one.
    """

    __slots__ = ("digest", "links", "pulled", "reply", "standing")

    def __init__(self, operation: GetManifest | GetBlob, digest: Digest, reply: Reply):
        self.digest = digest
        if isinstance(operation, GetBlob):
            self.pulled = None
            self.links = links_of_blob(operation.name, digest)
        else:
            self.pulled = operation.name
            self.links = links_of_manifest(operation.name, operation.reference, digest)
        self.reply = reply
        self.standing: Hashable | None = None


class Remembered:
    """At most `limit` bytes of replies. A reply that is in here belongs to many: nobody changes it."""

    def __init__(self, limit: int):
        self._replies: ByteLru[_Kept] = ByteLru(limit)

    async def get(
        self,
        service: Service,
        operation: Operation,
        exchange: Exchange,
        make: Callable[[Service, Operation, Exchange], Awaitable[Reply]],
    ) -> Reply:
        """What `make` would reply now, to a request that was authorized. Raises what it raises."""
        asked = exchange.headers.get
        key = (exchange.path, exchange.method, asked("if-none-match"), asked("range"), asked("if-range"))
        kept = self._replies.get(key)
        if kept is None:
            reply = await make(service, operation, exchange)
            self._keep(key, operation, reply, None)
            return reply
        registry = service.registry
        standing = await registry.standing.look(kept.links)
        if standing is None or standing != kept.standing:
            reply = await make(service, operation, exchange)
            self._keep(key, operation, reply, (kept.digest, standing))
            return reply
        if registry.manifests.pulls is not None and kept.pulled is not None:
            await registry.manifests.pulls.note(kept.pulled, kept.digest)
        return kept.reply

    def _keep(
        self,
        key: tuple[str | None, ...],
        operation: GetManifest | GetBlob,
        reply: Reply,
        before: tuple[Digest, Hashable | None] | None,
    ) -> None:
        """`before`: the standing of what leads to a digest, from before the reply was made."""
        if reply.status not in _KEPT_STATUS or not isinstance(reply.content, bytes):
            self._replies.discard(key)
            return
        digest = parse_digest(reply.headers["Docker-Content-Digest"])
        kept = _Kept(operation, digest, reply)
        if before is not None and before[0] == digest:
            kept.standing = before[1]
        size = ENTRY_BYTES + len(reply.content) + sum(len(part) for part in key if part)
        self._replies.put(key, kept, size)

    def statistics(self) -> CacheStatistics:
        return self._replies.statistics()

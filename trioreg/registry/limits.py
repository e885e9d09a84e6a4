"""Limits of what may be stored: the size of a blob, a reserve of the disk, quotas.

Rule: what is known to be too much is refused before a byte of a body is read, and what turns out to be too
much is not stored. Without limits each question here is one look at an attribute.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName, Tag, UploadId
from trioreg.pipeline.body import Body
from trioreg.registry.pending import Pending
from trioreg.registry.quotas import Quotas, Room, Rules
from trioreg.storage.base import BlobStore, HasFreeSpace, ObjectStore
from trioreg.storage.usage import Usage

# How old our picture of the disk may be: at 2 GB/s that is 2 GB, but most of it was announced.
_FREE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of the largest blob and of the disk that stay free, 0 is none; rules of `registry.quotas`."""

    blob_max: int = 0
    disk_reserve: int = 0
    quota_bytes: Rules = ()
    quota_tags: Rules = ()


class Guard:
    """`limits` may be replaced at any time; bodies that are being received keep those they began with."""

    def __init__(self, blobs: BlobStore, objects: ObjectStore, limits: Limits | None = None):
        self._disk = blobs if isinstance(blobs, HasFreeSpace) else None
        self._quotas = Quotas(objects, Usage(blobs, objects))
        self.pending = Pending()
        self._free = (0, 0.0)
        self.limits = limits or Limits()

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._quotas.sizes, self._quotas.tags = limits.quota_bytes, limits.quota_tags
        self._active = limits != Limits()

    async def begin(self, name: RepositoryName) -> None:
        """Before a session begins. Raises INSUFFICIENT_STORAGE, QUOTA_EXCEEDED."""
        if self._active:
            self._check_disk(0)
            await self._quotas.check(name, 1, self.pending.of)

    async def receive(
        self, name: RepositoryName, upload: UploadId, offset: int, expected: int | None, body: Body
    ) -> Body:
        """Before a body is read that goes behind `offset` bytes of a session: the body to read.

        `expected` bytes, if that is known. Raises BLOB_TOO_LARGE, INSUFFICIENT_STORAGE, QUOTA_EXCEEDED; where
        only its end tells, the body that is returned raises the first or the last of these.
        """
        if not self._active or expected == 0:
            return body
        self._check_disk(expected or 0)
        blob_max = self._limits.blob_max
        room = await self._quotas.room(name, partial(self.pending.of, besides=upload))
        if room is not None:
            body = self._count(room, name, upload, offset, expected, body)
        if expected is not None:
            if blob_max and offset + expected > blob_max:
                raise RegistryError(ErrorCode.BLOB_TOO_LARGE, {"limit": blob_max})
            return body
        if blob_max:
            too_large = RegistryError(ErrorCode.BLOB_TOO_LARGE, {"limit": blob_max})
            return BoundedBody(body, blob_max - offset, too_large)
        return body

    def _count(
        self,
        room: Room,
        name: RepositoryName,
        upload: UploadId,
        offset: int,
        expected: int | None,
        body: Body,
    ) -> Body:
        """Let what comes count for others as well. Raises QUOTA_EXCEEDED, or the body does."""
        if expected is None:
            linked = room.used - self.pending.of(room.scope, upload)

            def arrived(size: int) -> None:
                self.pending.receiving(name, upload, size)
                if linked + self.pending.of(room.scope) > room.limit:
                    raise room.exceeded(None)

            self.pending.receiving(name, upload, offset)
            return CountedBody(body, offset, arrived)
        if offset + expected > room.left:
            raise room.exceeded(offset + expected)
        self.pending.receiving(name, upload, offset + expected)
        return body

    def counts(self, name: RepositoryName) -> bool:
        """Whether what is added to a repository is counted."""
        return self._active and self._quotas.concern(name)

    def adding(
        self, name: RepositoryName, size: int, tag: Tag | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Make the link in here that adds `size` bytes, or a tag. Raises QUOTA_EXCEEDED."""
        return self._quotas.adding(name, size, tag) if self._active else nullcontext()

    def _check_disk(self, coming: int) -> None:
        """Raises INSUFFICIENT_STORAGE unless the reserve stays whole when `coming` bytes have come."""
        reserve = self._limits.disk_reserve
        if reserve and self._disk is not None and self._free_bytes(self._disk) < reserve + coming:
            detail = {"reason": "the disk is full but for a reserve", "reserve": reserve}
            raise RegistryError(ErrorCode.INSUFFICIENT_STORAGE, detail)

    def _free_bytes(self, disk: HasFreeSpace) -> int:
        now = time.monotonic()
        free, until = self._free
        if now >= until:
            free = disk.free_bytes()
            self._free = free, now + _FREE_SECONDS
        return free


class CountedBody:
    """A body of unknown length behind `size` bytes: tells how many there are in all, which may raise."""

    length = None

    def __init__(self, body: Body, size: int, arrived: Callable[[int], None]):
        self._body = body
        self._size = size
        self._arrived = arrived

    async def ready(self) -> bool:
        return await self._body.ready()

    def fill(self, view: memoryview) -> int:
        count = self._body.fill(view)
        self._size += count
        self._arrived(self._size)
        return count


class BoundedBody:
    """A body whose end nobody announced: raises `error` when it goes on after `left` bytes."""

    length = None

    def __init__(self, body: Body, left: int, error: RegistryError):
        self._body = body
        self._left = left
        self._error = error

    async def ready(self) -> bool:
        return await self._body.ready()

    def fill(self, view: memoryview) -> int:
        count = self._body.fill(view)
        self._left -= count
        if self._left < 0:
            raise self._error
        return count

"""What a driver offers to upkeep: when things were last relied on, and a place out of sight for them.

Collection removes nothing at once. It sets a thing aside (`set_aside`, `set_blob_aside`), looks again
whether somebody needs it, and then drops it or takes it back. Whoever looks for a thing that is set aside
(`ObjectStore.take_back`, and every look at a blob) takes it back himself, so nobody ever waits for a
collection or sees it at work.

Rules:

1. Setting aside, taking back and dropping are atomic. Of one who takes back and one who drops exactly one
   wins, in all processes.
2. A thing set aside survives the death of the collector, and can still be taken back.
3. `used` is the time of the last write or `touch`; it goes with the thing when that is set aside.
4. What is listed comes in pieces of bounded size; memory does not grow with the storage.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from trioreg.oci.digest import Digest
from trioreg.oci.names import UploadId
from trioreg.storage.base import BlobStore, ObjectStore, StorageError

# Names in one piece of a listing: a thread reads so many in a few milliseconds, and they take about 0.5 MB.
PIECE = 4096


class UpkeepBusy(StorageError):
    """The same work is going on already, here or in another process."""


class BlobInfo(NamedTuple):
    """`size` in bytes; `used` in seconds since 1970."""

    digest: Digest
    size: int
    used: float


class SessionInfo(NamedTuple):
    """`bytes` so far; `used` is when anything of it last changed, in seconds since 1970."""

    id: UploadId
    bytes: int
    used: float


class CollectableBlobs(BlobStore, Protocol):
    async def blob_info(self, digest: Digest) -> BlobInfo | None:
        """Of a blob in its place or aside, without taking it back; None if it is in neither."""

    def scan_blobs(self, after: str = "") -> AsyncGenerator[tuple[str, Sequence[BlobInfo]], None]:
        """Every blob in its place, with the position that it is safe to go on after: sorted by that."""

    async def set_blob_aside(self, digest: Digest) -> bool:
        """Whether it was there to be set aside."""

    async def take_blob_back(self, digest: Digest) -> bool:
        """Whether the blob is in its place now."""

    async def drop_blob(self, digest: Digest) -> bool:
        """Delete what is aside; False if somebody took it back."""

    async def retire_blob(self, digest: Digest) -> bool:
        """Move a rotten blob out of service for good, where people can look at it; whether it was there."""

    def blobs_aside(self) -> AsyncGenerator[Sequence[Digest], None]: ...

    def scan_sessions(self) -> AsyncGenerator[Sequence[SessionInfo], None]:
        """Every upload session, also one without a readable record."""

    async def drop_session(self, upload: UploadId, unused_since: float) -> bool:
        """End a session under its lease; False if somebody holds that, or used it since."""

    async def drop_temporaries(self, unused_since: float) -> int:
        """Delete what processes that were killed had half written; how many files."""


class CollectableObjects(ObjectStore, Protocol):
    async def used(self, key: str) -> float | None:
        """When a value in its place or aside was written (seconds since 1970); None if there is none."""

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[str], None]:
        """As `children`, in pieces and in no order."""

    async def set_aside(self, key: str) -> bool: ...

    async def drop(self, key: str) -> bool:
        """Delete what is aside, and what was left empty by it; False if there was nothing."""

    def alone(self, work: str) -> AbstractContextManager[None]:
        """Be the only one, in all processes, that does `work`. Raises UpkeepBusy at once if not."""


class CollectableStorage(CollectableBlobs, CollectableObjects, Protocol):
    """What upkeep works on."""

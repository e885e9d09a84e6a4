"""The contract of storage, small enough to implement in a day.

Two Protocols: `BlobStore` (immutable bytes named by digest, and the upload sessions they grow in) and
`ObjectStore` (small mutable values by key, from which `catalog` builds repositories). Optional abilities
are Protocols of their own, found with `isinstance`.

Rules every driver keeps, and `tests/storage/` proves:

1. A blob appears at `commit`, whole and durable, or not at all.
2. A recorded digest state never runs ahead of the bytes: see `Upload.checkpoint`.
3. One writer a session: between tasks, processes and restarts (`lease_upload`).
4. Cancellation happens before a call took effect or not at all; a job in a thread keeps its memory until
   it ends.
5. Failures are `StorageError`, never the driver's own exceptions.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from trioreg.oci.digest import Algorithm, Digest
from trioreg.oci.names import RepositoryName, UploadId


class StorageError(Exception):
    """The storage failed; the family's root.

    StorageError
      ├─ StorageFull      no space or quota left; what was stored before is intact
      ├─ BlobNotFound
      ├─ UploadNotFound   no such session (committed, cancelled, never begun, or lost its record)
      └─ UploadBusy       another writer holds the session's lease
    """


class StorageFull(StorageError):
    pass


class BlobNotFound(StorageError):
    pass


class UploadNotFound(StorageError):
    pass


class UploadBusy(StorageError):
    pass


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_failure(doing: str, number: int) -> StorageError:
    """What an errno of the disk means: StorageFull or StorageError."""
    kind = StorageFull if number in _FULL else StorageError
    return kind(f"{doing}: {os.strerror(number)}")


class Checkpoint(NamedTuple):
    """How far an upload came: `offset` bytes, and the digest state over exactly these.

    `digest` is engine-neutral (`pipeline.digests`); None at offset 0, or where the engine cannot save.
    """

    offset: int
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """What can be said of a session without holding its lease. `owner`: whose it is; None is anybody's."""

    id: UploadId
    repository: RepositoryName
    algorithm: Algorithm
    offset: int
    started: float
    owner: str | None = None


class Upload(Protocol):
    """An upload session whose lease we hold. Bytes are only ever appended, by one caller."""

    @property
    def info(self) -> UploadInfo:
        """`info.offset` is where the next `write` goes."""

    @property
    def resumed(self) -> Checkpoint:
        """What the session held when it was leased."""

    async def write(self, data: memoryview) -> None:
        """Append. When it returns the bytes are in the store (not yet durable) and `data` is free again.

        Raises StorageFull or StorageError; then the offset has not moved and the session survives.
        """

    async def read(self, start: int, length: int) -> bytes:
        """Bytes that were appended earlier, at most `length`."""

    async def checkpoint(self, at: Checkpoint, *, sync: bool) -> None:
        """Record that the session came to `at`, whose bytes have all been written.

        With `sync` (and full durability) the bytes are made durable first, so that the record is true
        after a power loss too. Atomic: a crash leaves this record or the one before.
        """

    async def commit(self, digest: Digest) -> None:
        """Publish the bytes under `digest`, which the caller has verified, and end the session.

        Durable when it returns. If the blob exists already its time is refreshed and our copy dropped.
        """

    async def cancel(self) -> None:
        """End the session and drop its bytes."""


class BlobReader(Protocol):
    """An open blob; stays readable when the blob is deleted meanwhile. Close it."""

    @property
    def size(self) -> int: ...

    async def read(self, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`; b"" only at the end."""

    def close(self) -> None: ...


@runtime_checkable
class HasDescriptor(Protocol):
    """A reader or upload that is a local file (sendfile, direct writes)."""

    def fileno(self) -> int: ...


@runtime_checkable
class WritesByDescriptor(Protocol):
    """An upload on a local file that an engine may write itself, a batch of uploads in one call."""

    def write_descriptor(self) -> int | None:
        """Where to write, from `info.offset` on; None if the store wants its own `write` called."""

    def direct_descriptor(self) -> int | None:
        """The same file past the page cache (O_DIRECT), for whole pages; None where there is no such way."""

    def wrote(self, count: int) -> None:
        """That many bytes were written at the offset, which moves."""


@runtime_checkable
class HasFreeSpace(Protocol):
    """A store that can run full, and knows how far it is from that."""

    def free_bytes(self) -> int:
        """Bytes that may still be written; StorageError when that cannot be found out. Does not wait."""


@runtime_checkable
class WritesSoon(Protocol):
    """An upload that writes a few last bytes together with what follows at once."""

    def write_soon(self, data: bytes) -> None:
        """Append bytes that the next `read`, `checkpoint` or `commit` writes; if it fails, the one after it.

        They are held in memory until then, so nobody waits for a client in between.
        """


class BlobStore(Protocol):
    """Bytes by digest."""

    async def size(self, digest: Digest) -> int | None:
        """Bytes of a blob, or None if it is not here.

        Of one that is here never a thread, never a wait on a local disk.
        """

    async def touch(self, digest: Digest) -> int | None:
        """`size`, and refresh the blob's time, because someone now relies on it (DESIGN, rule 3)."""

    async def open_blob(self, digest: Digest) -> BlobReader:
        """Raises BlobNotFound."""

    async def put_blob(self, digest: Digest, data: bytes) -> None:
        """Store small bytes (a manifest) whole and durably. `digest` has been verified."""

    async def delete_blob(self, digest: Digest) -> None:
        """Remove the bytes, if they are here. For garbage collection: no link may point at them."""

    def list_blobs(self) -> AsyncIterator[Digest]:
        """Every blob, in no order; those that come or go meanwhile may be missed."""

    async def create_upload(
        self, repository: RepositoryName, algorithm: Algorithm, owner: str | None = None
    ) -> UploadInfo: ...

    async def upload_info(self, upload: UploadId) -> UploadInfo:
        """Raises UploadNotFound."""

    def lease_upload(self, upload: UploadId, wait: float) -> AbstractAsyncContextManager[Upload]:
        """Become the session's only writer, waiting at most `wait` seconds for another to end.

        Raises UploadBusy, UploadNotFound. The session resumes at the newest checkpoint whose bytes are
        certain to be there; bytes past it are cut off.
        """

    def list_uploads(self) -> AsyncIterator[UploadInfo]: ...


class Entry(NamedTuple):
    """A value to be set. `absent`: only where there is none; what is there is made sure of."""

    key: str
    value: bytes
    absent: bool = False


@runtime_checkable
class PutsTogether(Protocol):
    """A driver that is a `BlobStore` and an `ObjectStore`, and changes both at once."""

    async def put_blob_and(self, digest: Digest, data: bytes, *groups: Sequence[Entry]) -> None:
        """`put_blob`, then `put_in_order`; the blob may come with the first group."""

    async def commit_and(self, upload: Upload, digest: Digest, entry: Entry) -> None:
        """`Upload.commit`, then `put_in_order` of a value that names the blob.

        Either may be durable before the other: nothing is promised before this returns, and a link to a blob
        that is not there leads nowhere.
        """


class ObjectStore(Protocol):
    """Small values (< 64 KiB) by key; a key is a path of safe components joined by ``/``."""

    async def get(self, key: str) -> bytes | None: ...

    async def stamp(self, key: str) -> Hashable | None:
        """Changes whenever the value does; None if there is none. Cheaper than `get`."""

    async def settled_stamps(self, keys: Sequence[str]) -> Hashable | None:
        """The stamps of several; None if one has no value, or so young a stamp that another change of it
        might have the same.
        """

    async def put(self, key: str, value: bytes) -> None:
        """Set atomically and durably."""

    async def put_if_absent(self, key: str, value: bytes) -> bool:
        """Set unless there is a value; whether it was set. Of two at once one wins.

        Either way there is a durable value when it returns.
        """

    async def put_in_order(self, *groups: Sequence[Entry]) -> None:
        """Set values, seen one after the other, and each group durable before anything of the next is seen.

        A failure, or death, leaves the first groups, and some of one.
        """

    async def delete(self, key: str) -> bool:
        """Whether there was a value. Durable."""

    def exclusive(self, kind: str, key: str) -> AbstractAsyncContextManager[None]:
        """Be alone in here with that kind and key, in all processes; unrelated keys may have to wait too.

        For a change of several values that must agree. Who holds two kinds takes them in one order.
        """

    async def take_back(self, key: str) -> bool:
        """Whether there is a value; one that collection has set aside is put back first (`collecting`)."""

    async def children(self, prefix: str) -> Sequence[str]:
        """Names directly below a key prefix, sorted. May name one whose values are just being written
        or removed: whoever relies on an entry gets it.
        """

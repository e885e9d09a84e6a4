"""What a failure of the storage means to a client: mapped here, and never above.

Disk full is 507 and the upload session survives; a session that is gone is BLOB_UPLOAD_UNKNOWN; anything
else that the storage could not do is 503 and a line in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import trio

from trioreg.logs import Log
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.storage.base import BlobNotFound, StorageError, StorageFull, UploadNotFound

_log = Log(__name__)
P = ParamSpec("P")
T = TypeVar("T")

# What has to be finished once begun (a publish and its links) gets this long: some fsyncs of a disk that is
# busy with those of hundreds of others.
FINISH_SECONDS = 120.0


def answers(
    verb: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """A verb of the registry that raises `RegistryError` where the storage raised its own."""

    @wraps(verb)
    async def translated(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await verb(*args, **kwargs)
        except StorageError as error:
            raise _answer(error) from error

    return translated


@asynccontextmanager
async def unbroken() -> AsyncIterator[None]:
    """A piece of work that a cancellation waits for.

    Raises StorageError when it took longer than `FINISH_SECONDS`: then not all of it was done, and nobody
    may be told that it was.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + FINISH_SECONDS) as scope:
        yield
    if scope.cancelled_caught:
        raise StorageError(f"not finished within {FINISH_SECONDS:.0f} seconds")


def _answer(error: StorageError) -> RegistryError:
    if isinstance(error, UploadNotFound):
        return RegistryError(ErrorCode.BLOB_UPLOAD_UNKNOWN)
    if isinstance(error, BlobNotFound):
        return RegistryError(ErrorCode.BLOB_UNKNOWN)
    _log.error("the storage failed", reason=str(error))
    if isinstance(error, StorageFull):
        return RegistryError(ErrorCode.INSUFFICIENT_STORAGE, {"reason": "no space left"})
    return RegistryError(ErrorCode.UNAVAILABLE, {"reason": "the storage failed"})

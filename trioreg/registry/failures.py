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

# What has to be finished once begun (a publish and its links) gets this long when we are cancelled: a few
# fsyncs of a busy disk.
FINISH_SECONDS = 30.0


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
    """A piece of work that a cancellation waits for, at most `FINISH_SECONDS`."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + FINISH_SECONDS):
        yield


def _answer(error: StorageError) -> RegistryError:
    if isinstance(error, UploadNotFound):
        return RegistryError(ErrorCode.BLOB_UPLOAD_UNKNOWN)
    if isinstance(error, BlobNotFound):
        return RegistryError(ErrorCode.BLOB_UNKNOWN)
    _log.error("the storage failed", reason=str(error))
    if isinstance(error, StorageFull):
        return RegistryError(ErrorCode.INSUFFICIENT_STORAGE, {"reason": "no space left"})
    return RegistryError(ErrorCode.UNAVAILABLE, {"reason": "the storage failed"})

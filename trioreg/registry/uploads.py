"""Upload sessions: begin, append, finish, ask, cancel.

Rules: what can be refused is refused before a byte of the body is read. Bytes are appended by the holder
of the session's lease alone. However an append ends (client gone, stalled, cancelled, disk full) what was
written is recorded, so that the client goes on from there; only of a body whose length contradicts its
announcement nothing counts that came after the last checkpoint. A blob is published when its digest has
been verified, and never before. A session that has an owner is known to nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from trioreg.oci.digest import Algorithm, Digest
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.oci.session import chunk_length, out_of_place
from trioreg.pipeline.body import Body
from trioreg.pipeline.digests import DigestState, load_state, new_state
from trioreg.pipeline.pump import Pump, Reached
from trioreg.pipeline.transfers import Transfer
from trioreg.registry.failures import answers, unbroken
from trioreg.registry.limits import Guard
from trioreg.storage.base import BlobStore, StorageError, Upload, UploadBusy, UploadInfo
from trioreg.storage.catalog import Catalog

_TOO_MUCH = (ErrorCode.BLOB_TOO_LARGE, ErrorCode.QUOTA_EXCEEDED)


class Uploads:
    """`lease_wait`: seconds that a second writer of a session waits for the first."""

    def __init__(self, store: BlobStore, catalog: Catalog, pump: Pump, lease_wait: float, guard: Guard):
        self._store = store
        self._catalog = catalog
        self._pump = pump
        self.lease_wait = lease_wait
        self._guard = guard

    @answers
    async def start(self, name: RepositoryName, algorithm: Algorithm, owner: str | None = None) -> UploadInfo:
        await self._guard.begin(name)
        return await self._store.create_upload(name, algorithm, owner)

    @answers
    async def status(self, name: RepositoryName, upload: UploadId, owner: str | None = None) -> UploadInfo:
        """Raises BLOB_UPLOAD_UNKNOWN, also for a session of another repository or owner."""
        return _of(name, owner, await self._store.upload_info(upload))

    @answers
    async def append(
        self,
        name: RepositoryName,
        upload: UploadId,
        body: Body,
        content_range: str | None,
        owner: str | None = None,
    ) -> int:
        """Append a chunk; the new offset (bytes).

        Raises RANGE_INVALID with the true range, SIZE_INVALID, BLOB_UPLOAD_UNKNOWN, and what the body
        raises (`ClientDisconnected`).
        """
        async with self._lease(name, upload, owner) as (session, transfer):
            reached = await self._receive(session, transfer, body, content_range)
            await session.checkpoint(reached.checkpoint(), sync=False)
            return reached.offset

    @answers
    async def finish(
        self,
        name: RepositoryName,
        upload: UploadId,
        digest: Digest,
        body: Body,
        content_range: str | None,
        owner: str | None = None,
    ) -> None:
        """Append a last chunk, which may be empty, and publish the blob into the repository.

        Raises as `append`; DIGEST_INVALID when the bytes are not what `digest` names: then the session is
        gone and nothing is published.
        """
        async with self._lease(name, upload, owner) as (session, transfer):
            reached = await self._receive(session, transfer, body, content_range)
            transfer.phase.to("verify")
            actual = await self._digest(session, reached, digest.algorithm)
            if actual != digest:
                async with unbroken():
                    await self._cancel(session)
                detail = {"provided": str(digest), "uploaded": str(actual)}
                raise RegistryError(ErrorCode.DIGEST_INVALID, detail)
            transfer.phase.to("publish")
            counted = self._guard.counts(name)
            async with unbroken():
                try:
                    if counted:
                        await session.commit(digest)
                    else:
                        await self._catalog.publish_blob(self._store, session, name, digest)
                except StorageError:
                    # The first failure says why. When only the link failed there is no session any more.
                    with suppress(StorageError):
                        await session.checkpoint(reached.checkpoint(), sync=False)
                    raise
                self._guard.pending.ended(upload)
                if counted:
                    transfer.phase.to("link")
                    await self._link(name, digest, reached.offset)

    async def push(
        self,
        name: RepositoryName,
        digest: Digest,
        algorithm: Algorithm,
        body: Body,
        owner: str | None = None,
    ) -> UploadInfo:
        """The whole blob in one request (end-4b): a session that begins and ends here."""
        session = await self.start(name, algorithm, owner)
        await self.finish(name, session.id, digest, body, None, owner)
        return session

    @answers
    async def cancel(self, name: RepositoryName, upload: UploadId, owner: str | None = None) -> None:
        """Drop the session and its bytes. Raises BLOB_UPLOAD_UNKNOWN."""
        async with self._lease(name, upload, owner) as (session, _):
            await self._cancel(session)

    async def _cancel(self, session: Upload) -> None:
        await session.cancel()
        self._guard.pending.ended(session.info.id)

    async def _link(self, name: RepositoryName, digest: Digest, size: int) -> None:
        """Link a blob where bytes are counted. Raises QUOTA_EXCEEDED: its bytes are collected then."""
        added = 0 if await self._catalog.has_blob(name, digest) else size
        async with self._guard.adding(name, added):
            await self._catalog.link_blob(name, digest)

    @asynccontextmanager
    async def _lease(
        self, name: RepositoryName, upload: UploadId, owner: str | None
    ) -> AsyncIterator[tuple[Upload, Transfer]]:
        try:
            with self._pump.transfers.running(name, upload) as transfer:
                async with self._store.lease_upload(upload, self.lease_wait) as session:
                    _of(name, owner, session.info)
                    try:
                        yield session, transfer
                    finally:
                        self._guard.pending.resting(upload, session.info.offset)
        except UploadBusy:
            raise out_of_place((await self.status(name, upload, owner)).offset) from None

    async def _receive(
        self, session: Upload, transfer: Transfer, body: Body, content_range: str | None
    ) -> Reached:
        """Pump a body into the session; on the way out by an exception what came is recorded."""
        offset = session.info.offset
        expected = chunk_length(offset, content_range, body.length)
        info = session.info
        body = await self._guard.receive(info.repository, info.id, offset, expected, body)
        reached = Reached(session.info.offset, await self._state(session), session.info.algorithm)
        transfer.begin_body(reached.offset)
        try:
            await self._pump.run(body, session, reached, expected, transfer)
        except RegistryError as error:
            # The body contradicts its announcement, or is more than it may be: such a session has no end.
            if error.error in _TOO_MUCH:
                async with unbroken():
                    await self._cancel(session)
            raise
        except BaseException:
            async with unbroken():
                await session.checkpoint(reached.checkpoint(), sync=False)
            raise
        return reached

    async def _state(self, session: Upload) -> DigestState:
        """The digest state at the session's offset: loaded, or read again if none could be saved."""
        resumed, algorithm = session.resumed, session.info.algorithm
        state = load_state(algorithm, resumed.digest) if resumed.digest else None
        return state or await self._reread(session, resumed.offset, algorithm)

    async def _digest(self, session: Upload, reached: Reached, algorithm: Algorithm) -> Digest:
        """The digest of the bytes; one pass over the disk if it is not the announced algorithm's."""
        state = reached.state
        if algorithm != session.info.algorithm:
            state = await self._reread(session, reached.offset, algorithm)
        return Digest(algorithm, state.digest().hex())

    async def _reread(self, session: Upload, end: int, algorithm: Algorithm) -> DigestState:
        """Digest the first `end` bytes from the store, at the price of one block of the budget."""
        state = new_state(algorithm)
        if not end:
            return state
        block = await self._pump.budget.acquire()
        try:
            offset = 0
            while offset < end:
                data = await session.read(offset, min(len(block.view), end - offset))
                if not data:
                    raise StorageError("an upload is shorter than its record")
                await self._pump.engine.update(state, memoryview(data))
                offset += len(data)
        finally:
            self._pump.budget.release(block)
        return state


def _of(name: RepositoryName, owner: str | None, info: UploadInfo) -> UploadInfo:
    """A session is known only in the repository where it began, and to who began it."""
    if info.repository != name or info.owner not in (None, owner):
        raise RegistryError(ErrorCode.BLOB_UPLOAD_UNKNOWN)
    return info

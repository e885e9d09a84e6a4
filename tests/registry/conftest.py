"""A registry over each driver, and the few words that its tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from scripted import ScriptedBody

from trioreg.oci.digest import Algorithm, Digest, digest_of
from trioreg.oci.names import RepositoryName, UploadId
from trioreg.pipeline.budget import PAGE, Budget, ByteGate
from trioreg.pipeline.engine import Engine, ThreadEngine, best_engine
from trioreg.pipeline.pump import Pump
from trioreg.registry import Registry, Storage, build_registry
from trioreg.storage.base import BlobNotFound
from trioreg.storage.catalog import Catalog
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

HERE = RepositoryName("some/name")
THERE = RepositoryName("another/name")


class House:
    """A registry, and the storage, pump and catalog that it stands on."""

    def __init__(
        self,
        storage: Storage,
        engine: Engine | None = None,
        *,
        lease_wait: float = 0.0,
        cache_bytes: int = 2**20,
    ) -> None:
        self.storage = storage
        self.pump = Pump(Budget(16 * PAGE, PAGE), engine or ThreadEngine(), 2**40)
        self.catalog = Catalog(storage)
        self.registry: Registry = build_registry(
            storage,
            storage,
            self.pump,
            lease_wait=lease_wait,
            cache_bytes=cache_bytes,
            manifest_max=2**22,
            manifest_gate=ByteGate(2**23),
        )

    async def begin(self, algorithm: Algorithm = "sha256") -> UploadId:
        return (await self.registry.uploads.start(HERE, algorithm)).id

    async def append(self, upload: UploadId, data: bytes) -> int:
        return await self.registry.uploads.append(HERE, upload, ScriptedBody(data), None)

    async def finish(self, upload: UploadId, digest: Digest, data: bytes = b"") -> None:
        await self.registry.uploads.finish(HERE, upload, digest, ScriptedBody(data), None)

    async def push(self, data: bytes, name: RepositoryName = HERE) -> Digest:
        digest = digest_of(data)
        await self.registry.uploads.push(name, digest, "sha256", ScriptedBody(data))
        return digest

    async def pull(self, digest: Digest, name: RepositoryName = HERE) -> bytes:
        reader = await self.registry.blobs.open(name, digest)
        try:
            return await reader.read(0, reader.size)
        finally:
            reader.close()

    async def stored(self, digest: Digest) -> bool:
        """Whether the bytes are there, linked or not."""
        try:
            (await self.storage.open_blob(digest)).close()
        except BlobNotFound:
            return False
        return True

    async def sessions(self) -> list[UploadId]:
        return [info.id async for info in self.storage.list_uploads()]


@pytest.fixture(params=["memory", "filesystem"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return MemoryStorage()
    return FilesystemStorage(tmp_path, Disk(durable=False))


@pytest.fixture
def house(storage: Storage, nursery: trio.Nursery) -> House:
    engine = best_engine()
    nursery.start_soon(engine.run)
    return House(storage, engine)

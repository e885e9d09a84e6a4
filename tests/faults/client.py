"""A client that pushes, moves a tag and deletes, keeps count of what it was promised, and never forgets.

It speaks to `trioreg.registry` without HTTP, retries what failed, and resumes its upload where the
registry says.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from trioreg.oci.digest import Digest, digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_MANIFEST
from trioreg.oci.names import RepositoryName, Tag, UploadId
from trioreg.pipeline.budget import PAGE, Budget, ByteGate
from trioreg.pipeline.digests import load_state
from trioreg.pipeline.engine import ThreadEngine
from trioreg.pipeline.pump import Pump
from trioreg.registry import Registry, build_registry
from trioreg.storage import record
from trioreg.storage.filesystem import FilesystemStorage

NAME, OTHER = RepositoryName("a/b"), RepositoryName("c")
CHUNK = PAGE + 123
BYTES = b"".join(b"%08d" % at for at in range(3 * CHUNK // 8))
CHECKPOINT = PAGE + 1
TAG = Tag("latest")


class Bytes:
    """A body that has arrived already."""

    def __init__(self, data: bytes):
        self._left = memoryview(data)
        self.length: int | None = len(data)

    async def ready(self) -> bool:
        return bool(self._left)

    def fill(self, view: memoryview) -> int:
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def registry_over(storage: FilesystemStorage) -> Registry:
    pump = Pump(Budget(8 * PAGE, PAGE), ThreadEngine(1), CHECKPOINT)
    return build_registry(
        storage,
        storage,
        pump,
        lease_wait=0.0,
        cache_bytes=0,
        manifest_max=2**20,
        manifest_gate=ByteGate(2**20),
    )


def manifest(variant: str) -> bytes:
    blob = {"mediaType": "a/b", "digest": str(digest_of(BYTES)), "size": len(BYTES)}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob, "layers": []}
    subject = {"mediaType": OCI_MANIFEST, "digest": str(digest_of(b"subject")), "size": 7}
    return json.dumps({**document, "subject": subject, "annotations": {"variant": variant}}).encode()


ONE, TWO = manifest("one"), manifest("two")
# A thing that can be asked for, and what it may answer: a digest, or None where it is absent.
Facts = dict[str, set[Digest | None]]


class Client:
    """`facts` is what must be true; of a step that got no answer, before and after are both true."""

    def __init__(self) -> None:
        self.facts: Facts = {"blob": {None}, "tag": {None}, "one": {None}, "two": {None}}
        self.facts |= {"mounted": {None}}
        self.upload: UploadId | None = None
        # A tag that a killed process took away, unsynced, may come back after a power loss: listed, but
        # its manifest is unknown.
        self.tags_may_dangle = False
        self._done: set[str] = set()
        self._may = 0

    @property
    def finished(self) -> bool:
        return "last" in self._done

    async def run(self, registry: Registry, most: int = 100) -> None:
        """At most so many steps of those not acknowledged yet, in order; raises what the registry raises."""
        self._may = most
        manifests, blobs, pushed = registry.manifests, registry.blobs, digest_of(BYTES)
        one, two = digest_of(ONE), digest_of(TWO)
        await self._once("push", {"blob": digest_of(BYTES)}, lambda: self._push(registry))
        await self._once("mount", {"mounted": pushed}, lambda: blobs.mount(OTHER, pushed, NAME))
        await self._once("one", {"one": one, "tag": one}, lambda: manifests.put(NAME, TAG, OCI_MANIFEST, ONE))
        await self._once("two", {"two": two, "tag": two}, lambda: manifests.put(NAME, TAG, OCI_MANIFEST, TWO))
        await self._once("delete", {"one": None}, lambda: self._delete(registry, one))
        await self._once("unmount", {"mounted": None}, lambda: self._unmount(registry))
        await self._once("untag", {"tag": None}, lambda: self._delete(registry, TAG))
        await self._once("retag", {"tag": two}, lambda: manifests.put(NAME, TAG, OCI_MANIFEST, TWO))
        await self._once("last", {"two": None, "tag": None}, lambda: self._delete(registry, two))

    async def _once(
        self, step: str, after: dict[str, Digest | None], act: Callable[[], Awaitable[object]]
    ) -> None:
        if step in self._done or not self._may:
            return
        self._may -= 1
        for fact, value in after.items():
            self.facts[fact].add(value)
        if await act() is not False:
            for fact, value in after.items():
                self.facts[fact] = {value}
        self._done.add(step)

    async def _push(self, registry: Registry) -> None:
        offset = await self._offset(registry)
        if self.upload is None:
            self.upload = (await registry.uploads.start(NAME, "sha256")).id
        while offset < len(BYTES):
            chunk = BYTES[offset : (offset // CHUNK + 1) * CHUNK]
            place = f"{offset}-{offset + len(chunk) - 1}"
            offset = await registry.uploads.append(NAME, self.upload, Bytes(chunk), place)
        await registry.uploads.finish(NAME, self.upload, digest_of(BYTES), Bytes(b""), None)

    async def _offset(self, registry: Registry) -> int:
        """Where our upload is, as the registry says; 0 and no upload once it is unknown."""
        if self.upload is None:
            return 0
        try:
            return (await registry.uploads.status(NAME, self.upload)).offset
        except RegistryError as error:
            if error.error is not ErrorCode.BLOB_UPLOAD_UNKNOWN:
                raise
            self.upload = None
            return 0

    async def _delete(self, registry: Registry, reference: Tag | Digest) -> bool:
        """False for a 404, as a retry gets: that is no promise that the thing is durably gone."""
        try:
            await registry.manifests.delete(NAME, reference)
        except RegistryError as error:
            if error.error not in (ErrorCode.MANIFEST_UNKNOWN, ErrorCode.NAME_UNKNOWN):
                raise
            return False
        return True

    async def _unmount(self, registry: Registry) -> bool:
        """False for a 404, as above."""
        try:
            await registry.blobs.delete(OTHER, digest_of(BYTES))
        except RegistryError as error:
            if error.error is not ErrorCode.BLOB_UNKNOWN:
                raise
            return False
        return True

    async def check(self, registry: Registry) -> None:
        """What the registry answers is what it promised."""
        found = {
            "blob": await self._blob(registry, NAME),
            "mounted": await self._blob(registry, OTHER),
            "tag": await self._manifest(registry, TAG),
            "one": await self._manifest(registry, digest_of(ONE)),
            "two": await self._manifest(registry, digest_of(TWO)),
        }
        wrong = {
            fact: (value, self.facts[fact]) for fact, value in found.items() if value not in self.facts[fact]
        }
        assert not wrong, wrong
        listed, _ = await self._tags(registry)
        if not (self.tags_may_dangle and found["tag"] is None):
            assert listed == ([TAG] if found["tag"] else [])

    async def _tags(self, registry: Registry) -> tuple[list[Tag], bool]:
        try:
            return await registry.manifests.tags(NAME, None, None)
        except RegistryError as error:
            assert error.error is ErrorCode.NAME_UNKNOWN  # noqa: PT017 (not what is under test)
            return [], False

    async def _blob(self, registry: Registry, name: RepositoryName) -> Digest | None:
        try:
            blob = await registry.blobs.open(name, digest_of(BYTES))
        except RegistryError as error:
            assert error.error is ErrorCode.BLOB_UNKNOWN  # noqa: PT017 (not what is under test)
            return None
        try:
            return digest_of(await blob.read(0, blob.size))
        finally:
            blob.close()

    async def _manifest(self, registry: Registry, reference: Tag | Digest) -> Digest | None:
        try:
            found = await registry.manifests.get(NAME, reference)
        except RegistryError as error:
            # A tag or link may outlive its manifest for a moment, but never shows other bytes.
            assert error.error in (ErrorCode.MANIFEST_UNKNOWN, ErrorCode.NAME_UNKNOWN)  # noqa: PT017
            return None
        assert isinstance(found.content, bytes) and digest_of(found.content) == found.digest
        return found.digest


def check_disk(root: Path, boot: str, hashed: set[tuple[Path, int]] | None = None) -> None:
    """No blob under a wrong name, in whole or in part; no record that says more than its file holds.

    `hashed` are files that were right before, with their inodes: they are not read again.
    """
    hashed = set() if hashed is None else hashed
    for path in (root / "blobs").rglob("*"):
        if path.is_file() and not path.name.startswith(".") and (path, path.stat().st_ino) not in hashed:
            assert str(digest_of(path.read_bytes())) == f"{path.parts[-3]}:{path.name}", path
            hashed.add((path, path.stat().st_ino))
    for directory in root.glob("uploads/*"):
        check_session(directory, boot)


def check_session(directory: Path, boot: str) -> None:
    """The record of a session, if it has one, agrees with its bytes."""
    try:
        saved = record.decode((directory / "state").read_bytes())
        data = (directory / "data").read_bytes()
    except FileNotFoundError:
        return
    if saved is None:
        return
    point = saved.resume_point(boot, len(data))
    assert saved.boot != boot or point.offset == saved.written.offset <= len(data)
    for each in [point] if saved.boot != boot else [saved.written, saved.synced]:
        if not each.offset:
            continue
        assert each.digest is not None
        state = load_state(saved.algorithm, each.digest)
        assert state is not None
        assert state.digest().hex() == digest_of(data[: each.offset], saved.algorithm).hex

"""What has to be finished once begun has a limit, and past it nobody is told that it was done."""

from __future__ import annotations

import json
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from scripted import ScriptedBody, WatchedUpload
from trio.testing import MockClock

from trioreg.oci.digest import digest_of
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.manifest import OCI_INDEX
from trioreg.oci.names import Tag
from trioreg.pipeline import pump
from trioreg.pipeline.body import ClientDisconnected
from trioreg.pipeline.budget import PAGE
from trioreg.pipeline.digests import new_state
from trioreg.pipeline.pump import Reached
from trioreg.registry import failures
from trioreg.storage.base import StorageError
from trioreg.storage.filesystem import Disk, FilesystemStorage
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, House

DATA = random.Random(5).randbytes(50_000)
BLOB = digest_of(DATA)
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
LATEST = Tag("latest")


@pytest.fixture
def on_disk(tmp_path: Path) -> House:
    return House(FilesystemStorage(tmp_path, Disk(durable=False)))


async def check_unavailable(call: Coroutine[Any, Any, object]) -> None:
    """The answer is a 503: ask again."""
    with pytest.raises(RegistryError) as caught:
        await call
    assert caught.value.error is ErrorCode.UNAVAILABLE
    assert caught.value.error.status == 503


async def check_no_manifest(house: House) -> None:
    for reference in (LATEST, digest_of(MANIFEST)):
        with pytest.raises(RegistryError):
            await house.registry.manifests.get(HERE, reference)


async def test_a_scope_past_its_limit_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left early, and said so; what ends in time raises nothing."""
    async with failures.unbroken():
        await trio.lowlevel.checkpoint()
    monkeypatch.setattr(failures, "FINISH_SECONDS", 0.0)
    steps = 0

    async def work() -> None:
        nonlocal steps
        async with failures.unbroken():
            await trio.lowlevel.checkpoint()
            steps += 1

    with pytest.raises(StorageError):
        await work()
    assert steps == 0


async def test_a_finish_past_its_limit(on_disk: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, nothing is published, and the session goes on from where it was."""
    upload = await on_disk.begin()
    await on_disk.append(upload, DATA)
    with monkeypatch.context() as patch:
        patch.setattr(failures, "FINISH_SECONDS", 0.0)
        await check_unavailable(on_disk.finish(upload, BLOB))
    with pytest.raises(RegistryError):
        await on_disk.registry.blobs.size(HERE, BLOB)
    await on_disk.finish(upload, BLOB)
    assert await on_disk.pull(BLOB) == DATA


async def test_a_push_in_one_request_past_its_limit(on_disk: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the client knows of no session: it sends the blob again."""
    with monkeypatch.context() as patch:
        patch.setattr(failures, "FINISH_SECONDS", 0.0)
        await check_unavailable(on_disk.push(DATA))
    with pytest.raises(RegistryError):
        await on_disk.registry.blobs.size(HERE, BLOB)
    await on_disk.push(DATA)
    assert await on_disk.pull(BLOB) == DATA


@pytest.mark.parametrize("reference", [LATEST, digest_of(MANIFEST)], ids=["tag", "digest"])
async def test_a_manifest_past_its_limit(
    on_disk: House, monkeypatch: pytest.MonkeyPatch, reference: Any
) -> None:
    """503 by tag and by digest; nobody finds the manifest, and the next push of it is a good one."""
    manifests = on_disk.registry.manifests
    with monkeypatch.context() as patch:
        patch.setattr(failures, "FINISH_SECONDS", 0.0)
        await check_unavailable(manifests.put(HERE, reference, None, MANIFEST))
    await check_no_manifest(on_disk)
    await manifests.put(HERE, reference, None, MANIFEST)
    assert (await manifests.get(HERE, reference)).content == MANIFEST


class StuckStorage(MemoryStorage):
    """A driver whose writes of keys that end so never return."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.end: str | None = end

    async def put(self, key: str, value: bytes) -> None:
        if self.end is not None and key.endswith(self.end):
            await trio.sleep_forever()
        await super().put(key, value)


@pytest.mark.parametrize("end", ["/media-type", f"/{digest_of(MANIFEST).hex}/link", "/current/link"])
async def test_a_manifest_whose_disk_is_stuck(end: str, autojump_clock: MockClock) -> None:
    """Whichever of its entries does not get written: 503, and no tag that nobody can rely on."""
    storage = StuckStorage(end)
    house = House(storage)
    await check_unavailable(house.registry.manifests.put(HERE, LATEST, None, MANIFEST))
    with pytest.raises(RegistryError):
        await house.registry.manifests.get(HERE, LATEST)
    storage.end = None
    await house.registry.manifests.put(HERE, LATEST, None, MANIFEST)
    assert (await house.registry.manifests.get(HERE, LATEST)).content == MANIFEST


async def test_a_link_that_is_stuck(autojump_clock: MockClock) -> None:
    """The bytes of a blob are published, but its repository does not have it: 503."""
    storage = StuckStorage(f"/{BLOB.hex}/link")
    house = House(storage)
    await check_unavailable(house.push(DATA))
    with pytest.raises(RegistryError):
        await house.registry.blobs.size(HERE, BLOB)
    storage.end = None
    await house.push(DATA)
    assert await house.pull(BLOB) == DATA


# The pump has a limit of its own, for a client that left.


async def test_the_client_leaves_and_the_disk_is_stuck(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage is to blame, and what is said to be written is exactly that."""
    monkeypatch.setattr(pump, "DRAIN_SECONDS", 0.0)
    size = PAGE
    reached = Reached(0, new_state("sha256"), "sha256")
    async with house.storage.lease_upload(await house.begin(), 0) as real:
        upload = WatchedUpload(real, pause_at=size)
        body = ScriptedBody(DATA[: 3 * size], ClientDisconnected())
        with trio.fail_after(10), pytest.raises((StorageError, ClientDisconnected)):
            await house.pump.run(body, upload, reached, None)
        assert reached.offset == upload.written <= size
        assert await real.read(0, reached.offset) == DATA[: reached.offset]
        assert reached.state.digest() == bytes.fromhex(digest_of(DATA[: reached.offset]).hex)
    assert house.pump.budget.statistics().held == 0


async def test_a_disk_may_take_its_time_when_the_body_has_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits for its answer is no reason to give up: every byte is written, without a limit."""
    monkeypatch.setattr(pump, "DRAIN_SECONDS", 0.0)
    reached, ended = Reached(0, new_state("sha256"), "sha256"), trio.Event()

    class Ending(ScriptedBody):
        async def ready(self) -> bool:
            more = await super().ready()
            if not more:
                ended.set()
            return more

    async with house.storage.lease_upload(await house.begin(), 0) as real:
        upload = WatchedUpload(real, pause_at=0)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.pump.run, Ending(DATA[:5000]), upload, reached, 5000)
                await ended.wait()
                await trio.testing.wait_all_tasks_blocked()
                assert reached.offset == 0
                upload.go_on.set()
        assert reached.offset == 5000
        assert await real.read(0, 10_000) == DATA[:5000]

"""Upkeep on schedule inside a server, and by command beside it."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from aging import age, age_files
from blackbox import Server, image, push_blob, push_manifest
from trio.testing import MockClock

from trioreg.config import Config, load
from trioreg.metrics.table import SCRUBBED
from trioreg.oci.digest import digest_of
from trioreg.oci.names import RepositoryName, Tag
from trioreg.registry.collected import Last, Position
from trioreg.registry.pulls import noted_since
from trioreg.server.recording import NOBODY
from trioreg.server.upkeep import WORKS, keep_up
from trioreg.storage.catalog import Catalog
from trioreg.storage.filesystem import Disk
from trioreg.storage.filesystem.collecting import CollectableFiles
from trioreg.storage.memory import MemoryStorage

DAY = 86_400.0


async def test_a_server_collects_when_it_is_due(autojump_clock: MockClock) -> None:
    """Not at its first start, but an interval later; and again after that."""
    store = MemoryStorage()
    await store.put_blob(digest_of(b"unneeded"), b"unneeded")
    age(store, 10 * DAY)
    settings = Config(gc_interval=1e-6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, store, lambda: settings)
        await trio.sleep(1)
        assert len(store.blobs) == 1
        await trio.sleep(120)
        assert len(store.blobs) == 0
        await store.put_blob(digest_of(b"another"), b"another")
        age(store, 10 * DAY)
        await trio.sleep(120)
        assert len(store.blobs) == 0
        nursery.cancel_scope.cancel()


async def test_a_server_goes_on_after_a_failure(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that fails is one line in the log, and tried again."""
    store = MemoryStorage()
    settings = Config(gc_interval=1e-6)
    await Last(store, "gc").done(0.0)
    real, store.list_uploads = store.list_uploads, None  # type: ignore[assignment,method-assign]  # it breaks
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, store, lambda: settings)
        await trio.sleep(1)
        assert "gc failed" in caplog.text
        store.list_uploads = real  # type: ignore[method-assign]  # it is whole again
        await store.put_blob(digest_of(b"unneeded"), b"unneeded")
        age(store, 10 * DAY)
        await trio.sleep(120)
        assert len(store.blobs) == 0
        nursery.cancel_scope.cancel()


async def test_what_was_killed_is_due_at_once(tmp_path: Path) -> None:
    """A position that is left says so, whenever the last run was."""
    store = CollectableFiles(tmp_path, Disk(durable=False))
    last = Last(store, "gc")
    assert not await last.is_due(DAY, 1000.0)
    assert not await last.is_due(DAY, 1000.0 + DAY - 1)
    assert await last.is_due(DAY, 1000.0 + DAY + 1)
    assert not await last.is_due(0.0, 1000.0 + DAY + 1)
    await last.done(1000.0)
    await store.put("upkeep/gc", b'{"phase":"blobs","after":"sha256/7f"}')
    assert await last.is_due(DAY, 1001.0)
    assert (await Position(store, "gc").load()).after == "sha256/7f"


async def test_a_server_retains_before_it_collects(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """By the settings in force; each tag that goes has a line in the log, with its digest."""
    caplog.set_level("INFO")
    store = MemoryStorage()
    catalog, name, digest = Catalog(store), RepositoryName("some/name"), digest_of(b"manifest")
    for tag in ("pr-1", "pr-2", "pr-fixed"):
        await catalog.set_tag(name, Tag(tag), digest)
    age(store, 20 * DAY)
    await catalog.set_tag(name, Tag("pr-2"), digest)
    text = {"gc.interval": "1e-6", "retention.rules": "**:pr-*=days 14", "tags.immutable": "**:pr-fixed"}
    settings = load(text, {}, None)
    await Last(store, "gc").done(0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, store, lambda: settings)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [*(await catalog.tags(name, None, None))[0]] == ["pr-2", "pr-fixed"]
    gone = [each for each in caplog.records if each.message == "retention removed a tag"]
    assert len(gone) == 1
    assert "gc is done" in caplog.text


async def test_a_server_says_since_when_it_notes_pulls(autojump_clock: MockClock) -> None:
    """As long as a rule asks for them; also when the settings change while it runs."""
    store = MemoryStorage()
    settings = [load({"retention.rules": "**=pulled 5"}, {}, None)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, store, lambda: settings[0])
        await trio.sleep(1)
        assert await noted_since(store) < math.inf
        settings[0] = Config()
        await trio.sleep(120)
        assert await noted_since(store) == math.inf
        nursery.cancel_scope.cancel()


@pytest.mark.one_front
def test_retain_by_command_beside_a_server(fresh_server: Server) -> None:
    """A dry run names what goes; without a rule it is an error; what is gone is 404 and its digest is not."""
    pushed = image(b"kept")
    push_blob(fresh_server, "upkeep/retain", b"kept")
    for tag in ("pr-1", "v1"):
        push_manifest(fresh_server, "upkeep/retain", pushed, tag)
    age_files(fresh_server.storage, 10 * DAY)
    rules = ("--set", "retention.rules=**=days 9", "--set", "retention.keep=**:v*")
    code, text = run(fresh_server.storage, "retain", "--dry-run", *rules)
    assert code == 0 and "upkeep/retain:pr-1" in text
    assert fresh_server.request("GET", "/v2/upkeep/retain/manifests/pr-1").status == 200
    code, text = run(fresh_server.storage, "retain", "--json", *rules)
    report = json.loads(text)
    assert (code, report["removed"], report["kept"]) == (0, 1, 1)
    for reference, status in (("pr-1", 404), ("v1", 200), (pushed.digest, 200)):
        assert fresh_server.request("GET", f"/v2/upkeep/retain/manifests/{reference}").status == status
    assert run(fresh_server.storage, "retain") == (2, "")


@pytest.mark.one_front
@pytest.mark.parametrize("front", ["direct", "quart"])
def test_a_server_notes_pulls_where_a_rule_asks(tmp_path: Path, front: str) -> None:
    """By GET or HEAD, of a tag or a digest; all is written when it has stopped. Without a rule nothing is."""
    pulled = {tag: image(tag.encode()) for tag in ("got", "seen", "by-digest")}
    asks = {"http.front": front, "retention.rules": "**=pulled 5"}
    with Server(tmp_path, settings=asks) as server:
        for tag, manifest in {**pulled, "left": image(b"left")}.items():
            push_blob(server, "upkeep/pulls", tag.encode())
            push_manifest(server, "upkeep/pulls", manifest, tag)
        manifests = "/v2/upkeep/pulls/manifests"
        server.settings = {"http.front": front}
        server.restart()
        assert server.request("GET", f"{manifests}/left").status == 200
        server.settings = asks
        server.restart()
        assert server.request("GET", f"{manifests}/got").status == 200
        assert server.request("HEAD", f"{manifests}/seen").status == 200
        assert server.request("GET", f"{manifests}/{pulled['by-digest'].digest}").status == 200
        assert server.request("GET", f"{manifests}/absent").status == 404
    notes = (server.storage / "repositories/upkeep/pulls/_pulled").glob("*/*")
    assert {f"sha256:{each.name}" for each in notes} == {each.digest for each in pulled.values()}


def run(storage: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "trioreg", *arguments, "--storage", str(storage)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode or not ended.stderr
    return ended.returncode, ended.stdout


@pytest.mark.one_front
def test_by_command_beside_a_server(fresh_server: Server) -> None:
    """What is deleted goes from the disk, what is tagged is served, and JSON says how much it was."""
    kept, lost = image(b"kept"), image(b"lost")
    for manifest, layer, tag in ((kept, b"kept", "latest"), (lost, b"lost", "old")):
        push_blob(fresh_server, "upkeep/gc", layer)
        push_manifest(fresh_server, "upkeep/gc", manifest, tag)
    assert fresh_server.request("DELETE", f"/v2/upkeep/gc/manifests/{lost.digest}").status == 202
    abandoned = fresh_server.request("POST", "/v2/upkeep/other/blobs/uploads/", b"")
    age_files(fresh_server.storage, 10 * DAY)
    dry = json.loads(run(fresh_server.storage, "gc", "--dry-run", "--json")[1])
    code, text = run(fresh_server.storage, "gc", "--json")
    report = json.loads(text)
    assert code == 0
    for each in (dry, report):
        assert (each["links_removed"], each["blobs_removed"]) == (1, 2)
    assert fresh_server.request("GET", "/v2/upkeep/gc/manifests/latest").body == kept.body
    code, text = run(fresh_server.storage, "purge", "--json", "--set", "upload.expire_after=1e9")
    assert (code, json.loads(text)["purged"]) == (0, 0)
    assert fresh_server.request("GET", abandoned.headers["Location"]).status == 204
    code, text = run(fresh_server.storage, "gc")
    assert code == 0 and "blobs removed        0" in text


def test_by_command_on_nothing(tmp_path: Path) -> None:
    """A storage that is not there is one line and exit code 1, and is not made."""
    code, text = run(tmp_path / "absent", "gc")
    assert (code, text) == (1, "")
    assert not (tmp_path / "absent").exists()


class Unreadable(Disk):
    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_scrub_on_schedule_says_what_it_cannot_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line in the log for each blob, and a number for alerts."""
    store = CollectableFiles(tmp_path, Unreadable(durable=False))
    for data in (b"one", b"two"):
        await store.put_blob(digest_of(data), data)
    before = SCRUBBED.total(SCRUBBED.at("unreadable"))
    [scrub] = [work for work in WORKS if work.name == "scrub"]
    await scrub.do(store, Config(), NOBODY)
    lines = [record.message for record in caplog.records if "cannot be read" in record.message]
    assert len(lines) == 2
    assert SCRUBBED.total(SCRUBBED.at("unreadable")) == before + 2

"""What commands, retention and collection do is told like what clients do."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
import trio
from aging import age_files
from blackbox import Server, image, push_manifest
from receiver import Receiver

from trioreg.cli import main
from trioreg.config import Config
from trioreg.events.event import Event
from trioreg.registry.collected import Last
from trioreg.server.recording import Told
from trioreg.server.upkeep import keep_up
from trioreg.storage.filesystem.collecting import CollectableFiles

NAME = "team/app"
DAY = 86_400.0
OLD, NEW = image(b"{}", [b"old"]), image(b"{}", [b"new"])
US = f"local/{pwd.getpwuid(os.getuid()).pw_name}"
RULES = (("team/**", "**", 1, 0, 0),)


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Two tags, the one to stay pushed last; all of it old enough to be collected."""
    with Server(tmp_path) as server:
        for tag, manifest in (("v1", OLD), ("v2", NEW)):
            push_manifest(server, NAME, manifest, tag)
    age_files(tmp_path / "storage", 40 * DAY)
    os.utime(tmp_path / "storage" / f"repositories/{NAME}/_manifests/tags/v2/current/link")
    return tmp_path / "storage"


def run(storage: Path, *words: str, expect: int = 0, **settings: str) -> None:
    options = [f"--set={name.replace('_', '.', 1)}={value}" for name, value in settings.items()]
    assert main([*words, "--storage", str(storage), *options], {}) == expect


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    for line in found:
        del line["time"]
    return found


def test_what_commands_remove_is_told(storage: Path, tmp_path: Path) -> None:
    """Each tag and manifest, in the name of who gave the command, and a sum; to webhooks too."""
    log = tmp_path / "audit"
    with Receiver() as receiver:
        told: dict[str, Any] = {"audit_path": str(log), "webhook_url": receiver.url}
        run(storage, "retain", retention_rules=f"{NAME}:**=newest 1", **told)
        run(storage, "gc", gc_untagged="true", **told)
        removed = lines(log)
        assert removed[0] == {
            "action": "delete", "target": "tag", "repository": NAME, "tag": "v1", "digest": OLD.digest,
            "identity": US,
        }  # fmt: skip
        assert removed[2] == {
            "action": "delete", "target": "manifest", "repository": NAME, "digest": OLD.digest,
            "identity": US,
        }  # fmt: skip
        sums = [(line["action"], line["detail"].partition(":")[0]) for line in removed if "detail" in line]
        assert sums == [("upkeep", "retain"), ("upkeep", "gc")]
        assert "removed=1" in removed[1]["detail"]
        with Server(tmp_path / "b", storage=storage, settings={"webhook.url": receiver.url}):
            kinds = sorted(delivery.event["type"] for delivery in receiver.wait(2))
        assert kinds == ["trioreg.manifest.delete", "trioreg.tag.delete"]


def test_a_dry_run_is_not_told(storage: Path, tmp_path: Path) -> None:
    """It did nothing."""
    run(storage, "gc", "--dry-run", audit_path=str(tmp_path / "audit"))
    assert not (tmp_path / "audit").exists()


def test_what_cannot_be_recorded_is_not_done(storage: Path, tmp_path: Path) -> None:
    """A log that cannot be opened ends a command before it does anything."""
    nowhere = str(tmp_path / "nowhere" / "audit")
    run(storage, "retain", expect=1, retention_rules=f"{NAME}:**=newest 1", audit_path=nowhere)
    assert (storage / f"repositories/{NAME}/_manifests/tags/v1").exists()
    run(storage, "auth", "robot", "create", "ci", expect=1, audit_path=nowhere)
    assert not (storage / "auth" / "robots" / "ci.json").exists()


def test_robots_and_a_restore_are_told(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With name and scopes, without the token; what failed is not."""
    log = tmp_path / "audit"
    run(storage, "auth", "robot", "create", "ci", "--scope", "repository:team/**:pull", audit_path=str(log))
    token = capsys.readouterr().out.split()[-1]
    run(storage, "auth", "robot", "create", "ci", expect=1, audit_path=str(log))
    run(storage, "auth", "robot", "revoke", "ci", audit_path=str(log))
    run(storage, "auth", "robot", "revoke", "nobody", expect=1, audit_path=str(log))
    run(storage, "backup", str(tmp_path / "copy"))
    run(tmp_path / "second", "restore", str(tmp_path / "copy"), audit_path=str(log))
    found = lines(log)
    assert found[:2] == [
        {"action": "robot", "detail": "create robot+ci repository:team/**:pull", "identity": US},
        {"action": "robot", "detail": "revoke robot+ci", "identity": US},
    ]
    assert found[2]["detail"].startswith(f"restore from {tmp_path / 'copy'}: repositories=1, ")
    assert len(found) == 3
    assert token not in log.read_text()


async def test_what_a_server_removes_on_schedule_is_told(storage: Path) -> None:
    """In the name of the work: each thing, and the sums when all is done."""
    store = CollectableFiles(storage)
    config = Config(gc_interval=30.0, gc_untagged=True, gc_grace=DAY, retention_rules=RULES)
    events: list[Event] = []
    collected = trio.Event()

    class Recorder:
        async def record(self, event: Event) -> None:
            events.append(event)
            if event.detail.startswith("gc:"):
                collected.set()

    recorder = Recorder()
    await Last(store, "gc").done(0.0)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_up, store, lambda: config, Told("upkeep", lambda: recorder))
            await collected.wait()
            nursery.cancel_scope.cancel()
    told = [(event.action, event.identity, event.tag or event.digest) for event in events if not event.detail]
    assert told == [("delete", "upkeep/retention", "v1"), ("delete", "upkeep/gc", OLD.digest)]
    assert [event.detail.partition(":")[0] for event in events if event.detail] == ["retain", "gc"]

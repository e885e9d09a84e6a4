"""The audit log and webhooks of a real server."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from blackbox import Server, image, push_blob, push_manifest
from receiver import Receiver

from .test_reload import File, until

NAME = "some/name"
IMAGE = image(b"{}", [b"layer"])
OTHER = image(b"{}", [b"another"])
FRONTS = pytest.mark.parametrize("front", ["direct", "quart"])


def audit(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tags_told(receiver: Receiver) -> set[str]:
    return {delivery.event["data"]["tag"] for delivery in receiver.got}


@FRONTS
def test_who_did_what_is_in_the_audit_log(tmp_path: Path, front: str) -> None:
    """Pushes, moves of tags and deletes, each before its answer; no pulls, nothing that failed."""
    path = tmp_path / "audit.jsonl"
    with Server(tmp_path, settings={"audit.path": str(path), "http.front": front}) as server:
        push_manifest(server, NAME, IMAGE, "v1")
        assert audit(path)[-1]["tag"] == "v1", "it is there when the client is told"
        moved = push_manifest(server, NAME, OTHER, "v1")
        assert server.request("GET", f"/v2/{NAME}/manifests/v1").status == 200
        assert server.request("PUT", f"/v2/{NAME}/manifests/v2", b"{").status == 400
        assert server.request("DELETE", f"/v2/{NAME}/manifests/v1").status == 202
        deleted = server.request("DELETE", f"/v2/{NAME}/manifests/{IMAGE.digest}")
        assert deleted.status == 202
        mount = f"/v2/new/one/blobs/uploads/?mount={OTHER.descriptor['digest']}&from={NAME}"
        assert server.request("POST", mount).status == 202, "a manifest is no blob"
    lines = audit(path)
    assert [(line["action"], line["target"]) for line in lines] == [
        ("push", "blob"),
        ("push", "blob"),
        ("push", "manifest"),
        ("push", "blob"),
        ("push", "blob"),
        ("push", "manifest"),
        ("delete", "tag"),
        ("delete", "manifest"),
    ]
    assert lines[5] == {
        "time": lines[5]["time"],
        "action": "push",
        "target": "manifest",
        "repository": NAME,
        "tag": "v1",
        "digest": OTHER.digest,
        "was": IMAGE.digest,
        "media_type": OTHER.media_type,
        "size": len(OTHER.body),
        "peer": "127.0.0.1",
        "request": moved.headers["X-Request-Id"],
    }
    assert (lines[6]["tag"], lines[6]["digest"]) == ("v1", OTHER.digest)
    assert lines[7]["request"] == deleted.headers["X-Request-Id"]


def test_a_mount_names_its_source(tmp_path: Path) -> None:
    """A blob that came without a byte came from somewhere."""
    path = tmp_path / "audit.jsonl"
    with Server(tmp_path, settings={"audit.path": str(path)}) as server:
        digest = push_blob(server, NAME, b"shared")
        mounted = server.request("POST", f"/v2/other/blobs/uploads/?mount={digest}&from={NAME}")
        assert mounted.status == 201
    first, second = audit(path)
    assert (first["repository"], second["repository"]) == (NAME, "other")
    assert (second["digest"], second["source"]) == (digest, NAME)
    assert "source" not in first


def test_webhooks_tell_what_was_asked_for(tmp_path: Path) -> None:
    """Manifests pushed, pulled and deleted, signed; blobs and HEAD are no news."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(b"key").decode())
    with Receiver() as receiver:
        settings = {
            "webhook.url": receiver.url,
            "webhook.events": "push,pull,delete",
            "webhook.secret_file": str(secret),
        }
        with Server(tmp_path, settings=settings) as server:
            push_manifest(server, NAME, IMAGE, "v1")
            server.request("HEAD", f"/v2/{NAME}/manifests/v1")
            server.request("GET", f"/v2/{NAME}/manifests/v1")
            server.request("DELETE", f"/v2/{NAME}/manifests/v1")
            receiver.wait(3)
        events = [delivery.event for delivery in receiver.got]
        assert [event["type"] for event in events] == [
            "trioreg.manifest.push",
            "trioreg.manifest.pull",
            "trioreg.tag.delete",
        ]
        assert {event["subject"] for event in events} == {f"{NAME}:v1"}
        assert {event["data"]["digest"] for event in events} == {IMAGE.digest}
        assert all("webhook-signature" in delivery.headers for delivery in receiver.got)
        assert len(receiver.got) == 3


def test_a_dead_receiver_does_not_hold_up_a_push(tmp_path: Path) -> None:
    """Pushes are answered while the first delivery hangs; all are told once the receiver is back."""
    with Receiver(None) as dead:
        server = Server(tmp_path, settings={"webhook.url": dead.url, "webhook.timeout": "600"})
        with server:
            push_manifest(server, NAME, IMAGE, "t0")
            dead.wait(1)
            for number in range(1, 20):
                push_manifest(server, NAME, IMAGE, f"t{number}")
            assert len(dead.got) == 1
    with Receiver(port=dead.port) as back, server:
        back.wait(20)
        assert tags_told(back) == {f"t{number}" for number in range(20)}


def test_what_was_answered_is_told_after_a_kill(tmp_path: Path) -> None:
    """After the last 201 comes kill -9, with nothing delivered: every push is told by the next process."""
    with Receiver(*[None] * 1000) as dead, contextlib.ExitStack() as stack:
        server = Server(tmp_path, settings={"webhook.url": dead.url})
        stack.callback(server.kill)
        server.start()
        for number in range(10):
            push_manifest(server, NAME, IMAGE, f"t{number}")
        server.kill()
    with Receiver(port=dead.port) as back, server:
        back.wait(10)
        assert tags_told(back) == {f"t{number}" for number in range(10)}


def test_a_worker_that_dies_leaves_its_queue_to_its_successor(tmp_path: Path) -> None:
    """Each worker has queues of its own, and takes over those that nobody holds."""
    with Receiver() as gone:
        pass
    settings = {"webhook.url": gone.url, "http.workers": "2", "http.idle_timeout": "5"}
    with Server(tmp_path, settings=settings) as server:
        for number in range(10):
            push_manifest(server, NAME, IMAGE, f"t{number}")
        with Receiver(port=gone.port) as receiver:
            for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            receiver.wait(10)
            until(server, lambda: tags_told(receiver) == {f"t{number}" for number in range(10)})


def test_both_can_be_switched_on_and_off_while_it_runs(tmp_path: Path) -> None:
    """By a reload; one that cannot be opened leaves what was there."""
    path = tmp_path / "audit.jsonl"
    file = File(tmp_path / "t.toml")
    with Receiver() as receiver, Server(tmp_path, options=file.options) as server:
        push_manifest(server, NAME, IMAGE, "before")
        file.write(f'[audit]\npath = "{path}"\n[webhook]\nurl = "{receiver.url}"\n')
        os.kill(server.pid, signal.SIGHUP)
        until(server, path.exists)
        push_manifest(server, NAME, IMAGE, "on")
        receiver.wait(1)
        assert [delivery.event["data"]["tag"] for delivery in receiver.got] == ["on"]
        file.write('[audit]\npath = "/no/such/folder/x"\n')
        os.kill(server.pid, signal.SIGHUP)
        until(server, lambda: "audit log and webhooks stay as they were" in server.stderr)
        push_manifest(server, NAME, IMAGE, "still")
        receiver.wait(2)
        file.write("")
        os.kill(server.pid, signal.SIGHUP)
        until(server, lambda: "setting=audit.path value= " in server.stderr.replace('""', ""))
    lines = audit(path)
    assert {line["tag"] for line in lines if line.get("target") == "manifest"} == {"on", "still"}
    assert [line["detail"] for line in lines if line["action"] == "settings"] == [
        "audit.path=/no/such/folder/x, webhook.url=",
        "audit.path=",
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"audit.path": "/no/such/folder/x"}, "/no/such/folder/x: No such file or directory"),
        ({"webhook.url": "http://a/", "webhook.secret_file": "/no/such"}, "/no/such: No such file"),
    ],
)
def test_what_cannot_be_opened_stops_the_start(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    """One line, and no server that forgets to say who did what."""
    server = Server(tmp_path, settings=settings)
    with pytest.raises(RuntimeError):
        server.start()
    assert says in server.stderr.splitlines()[-1]
    assert "Traceback" not in server.stderr

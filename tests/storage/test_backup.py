"""Backup and restore: what the copy holds, what a second run copies, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from blackbox import Server, artifact, descriptor, digest_of, image, index, push_blob, push_manifest

from trioreg.cli import main
from trioreg.oci.names import RepositoryName
from trioreg.storage.filesystem.links import Links

LAYER = b"a layer" * 1000
IMAGE = image(b"{}", [LAYER])
OTHER = image(b"{ }", [b"another"])
SIGNATURE = artifact("application/x.sig", b"signed", descriptor(IMAGE.media_type, IMAGE.body))


def command(*argv: object, expect: int = 0) -> None:
    assert main([str(each) for each in argv], {}) == expect


def report(capsys: pytest.CaptureFixture[str], *argv: object, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    command(*argv, "--json", expect=expect)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def fill(server: Server) -> None:
    push_manifest(server, "team/app", IMAGE, "v1")
    push_manifest(server, "team/app", IMAGE, "latest")
    push_manifest(server, "team/app", SIGNATURE)
    push_manifest(server, "team/app", OTHER, "v2")
    push_manifest(server, "team/app", index([IMAGE.descriptor, OTHER.descriptor]), "both")
    push_manifest(server, "team", IMAGE, "v1")
    push_blob(server, "only/blobs", b"loose")


def files(root: Path) -> dict[str, bytes]:
    """What a backup is about: blobs and links, with their content."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for top in ("blobs", "repositories")
        for path in (root / top).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a registry with some images."""
    with Server(tmp_path_factory.mktemp("filled")) as server:
        fill(server)
    return server.storage


@pytest.fixture
def storage(filled: Path, tmp_path: Path) -> Path:
    """The root of a registry with some images, not running, to be spoilt."""
    shutil.copytree(filled, tmp_path / "server/storage")
    return tmp_path / "server/storage"


def test_there_and_back(storage: Path, tmp_path: Path) -> None:
    """The restored registry holds the same files, and serves what was pushed."""
    copy, again = tmp_path / "copy", tmp_path / "again"
    command("backup", copy, "--storage", storage)
    command("restore", copy, "--storage", again)
    assert files(again) == files(copy) == files(storage)
    assert not list(again.rglob(".tmp-*"))
    assert sorted(path.name for path in again.iterdir()) == ["blobs", "repositories"]
    with Server(tmp_path / "second", storage=again) as server:
        assert server.request("GET", "/v2/team/app/tags/list").json()["tags"] == [
            "both",
            "latest",
            "v1",
            "v2",
        ]
        assert server.request("GET", "/v2/team/app/manifests/v1").body == IMAGE.body
        assert server.request("GET", f"/v2/team/app/blobs/{digest_of(LAYER)}").body == LAYER
        referrers = server.request("GET", f"/v2/team/app/referrers/{IMAGE.digest}").json()["manifests"]
        assert [each["digest"] for each in referrers] == [SIGNATURE.digest]
        assert server.request("GET", f"/v2/only/blobs/blobs/{digest_of(b'loose')}").body == b"loose"


def test_a_backup_can_be_served_as_it_is(storage: Path, tmp_path: Path) -> None:
    """It is a root like any other."""
    command("backup", tmp_path / "copy", "--storage", storage)
    with Server(tmp_path / "second", storage=tmp_path / "copy") as server:
        assert server.request("GET", "/v2/team/manifests/v1").body == IMAGE.body


def test_times_come_along(storage: Path, tmp_path: Path) -> None:
    """Retention goes by when a tag was written, not by when it was copied."""
    link = "repositories/team/_manifests/tags/v1/current/link"
    os.utime(storage / link, ns=(10**18, 10**18))
    command("backup", tmp_path / "copy", "--storage", storage)
    assert (tmp_path / "copy" / link).stat().st_mtime_ns == 10**18


def test_a_second_run_copies_what_is_new(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New blobs and links come, moved tags move, what was deleted goes; the rest is not touched."""
    copy = tmp_path / "copy"
    first = report(capsys, "backup", copy, "--storage", storage)
    assert (first["repositories"], first["tags"]) == (3, 5)
    assert first["copied_blobs"] == first["blobs"] == 10
    same = report(capsys, "backup", copy, "--storage", storage)
    assert (same["copied_blobs"], same["changed_links"], same["blobs"]) == (0, 0, first["blobs"])
    with Server(tmp_path / "server", storage=storage) as server:
        new = image(b"{}", [LAYER, b"new"])
        push_manifest(server, "team/app", new, "latest")
        server.request("DELETE", f"/v2/team/app/manifests/{SIGNATURE.digest}")
        server.request("DELETE", f"/v2/team/manifests/{IMAGE.digest}")
    second = report(capsys, "backup", copy, "--storage", storage)
    assert second["copied_blobs"] == 2, "the layer and the manifest"
    there = {path: content for path, content in files(storage).items() if path.startswith("repo")}
    assert {path: content for path, content in files(copy).items() if path.startswith("repo")} == there


@pytest.mark.parametrize("link", [False, True])
def test_bytes_are_checked(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], link: bool
) -> None:
    """A blob that rotted is named and not copied; with --verify one that rotted in the copy is renewed."""
    options = ["--link"] if link else []
    copy = tmp_path / "copy"
    command("backup", copy, "--storage", storage, *options)
    blob = f"blobs/sha256/{digest_of(LAYER)[7:9]}/{digest_of(LAYER)[7:]}"
    assert (copy / blob).stat().st_nlink == (2 if link else 1)
    rotten = LAYER.replace(b"a", b"b")
    (copy / blob).unlink()
    (copy / blob).write_bytes(rotten)
    command("backup", copy, "--storage", storage, *options)
    assert (copy / blob).read_bytes() == rotten, "the right size is enough"
    renewed = report(capsys, "backup", copy, "--storage", storage, "--verify", *options)
    assert (copy / blob).read_bytes() == LAYER
    assert "damaged" in renewed["named"][0]

    (storage / blob).chmod(0o644)
    (storage / blob).write_bytes(rotten)
    lost = report(capsys, "backup", tmp_path / "new", "--storage", storage, "--verify", *options, expect=1)
    assert lost["lost"] > 0
    assert digest_of(LAYER) in " ".join(lost["named"])
    assert not (tmp_path / "new" / blob).exists()


def test_a_good_copy_outlives_what_was_damaged(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A blob that lost its end in the registry costs the backup nothing that it has."""
    copy = tmp_path / "copy"
    command("backup", copy, "--storage", storage)
    before = files(copy)
    blob = storage / f"blobs/sha256/{digest_of(LAYER)[7:9]}/{digest_of(LAYER)[7:]}"
    blob.chmod(0o644)
    os.truncate(blob, 10)
    again = report(capsys, "backup", copy, "--storage", storage)
    assert (again["lost"], again["changed_links"]) == (0, 0)
    assert files(copy) == before


def test_what_the_registry_lacks_is_said(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A layer that somebody deleted by itself: its image is copied as it is, and named."""
    with Server(tmp_path / "server", storage=storage) as server:
        server.request("DELETE", f"/v2/team/blobs/{digest_of(LAYER)}")
    told = report(capsys, "backup", tmp_path / "copy", "--storage", storage)
    assert (told["lost"], told["incomplete"]) == (0, 1)
    assert told["named"] == [
        f"team: {IMAGE.digest} needs {digest_of(LAYER)}, which the repository does not have"
    ]


def test_a_manifest_without_bytes_has_no_tag_in_the_copy(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every tag of a copy leads somewhere, also where the registry's does not."""
    (storage / f"blobs/sha256/{OTHER.digest[7:9]}/{OTHER.digest[7:]}").unlink()
    told = report(capsys, "backup", tmp_path / "copy", "--storage", storage, expect=1)
    assert told["lost"] == 1
    tags = tmp_path / "copy/repositories/team/app/_manifests/tags"
    assert sorted(path.name for path in tags.iterdir()) == ["both", "latest", "v1"]


def test_what_collection_set_aside_is_copied(storage: Path, tmp_path: Path) -> None:
    """A blob or a link that a collection is just looking at may well be needed."""
    hexadecimal = digest_of(LAYER)[7:]
    (storage / "quarantine/sha256").mkdir(parents=True)
    (storage / f"blobs/sha256/{hexadecimal[:2]}/{hexadecimal}").rename(
        storage / f"quarantine/sha256/{hexadecimal}"
    )
    link = storage / f"repositories/team/_layers/sha256/{hexadecimal}/link"
    link.rename(link.with_name(".aside-link"))
    command("backup", tmp_path / "copy", "--storage", storage)
    with Server(tmp_path / "second", storage=tmp_path / "copy") as server:
        assert server.request("GET", f"/v2/team/blobs/{digest_of(LAYER)}").body == LAYER


@pytest.mark.parametrize("taken_back_at", [1, 2])
def test_a_link_that_is_taken_back_between_two_looks(storage: Path, taken_back_at: int) -> None:
    """Collection moves it while we look in one place and then in the other: it is found all the same."""
    name = RepositoryName("team")
    link = storage / f"repositories/team/_layers/sha256/{digest_of(LAYER)[7:]}/link"
    aside = link.with_name(".aside-link")
    before = Links.read(storage, name)
    link.rename(aside)
    looks = 0

    def open_file(path: Path) -> BinaryIO:
        nonlocal looks
        if path in (link, aside):
            looks += 1
            if looks == taken_back_at:
                aside.rename(link)
        return path.open("rb")

    assert Links.read(storage, name, open_file) == before
    assert looks == (1 if taken_back_at == 1 else 3)


def refused(capsys: pytest.CaptureFixture[str], says: str, *argv: object) -> None:
    capsys.readouterr()
    command(*argv, expect=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def test_what_is_refused(storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 1, before anything is written."""
    copy, full = tmp_path / "copy", tmp_path / "full"
    full.mkdir()
    (full / "letter").write_text("mine")
    refused(capsys, "holds no registry", "backup", copy, "--storage", tmp_path / "nothing")
    refused(capsys, "not a backup", "backup", full, "--storage", storage)
    refused(capsys, "must not lie in one another", "backup", storage / "copy", "--storage", storage)
    refused(capsys, "is no backup", "restore", storage, "--storage", tmp_path / "new")
    command("backup", copy, "--storage", storage)
    before = files(storage)
    refused(capsys, "is not empty", "restore", copy, "--storage", storage)
    refused(capsys, "is not empty", "restore", copy, "--storage", full)
    assert files(storage) == before
    (copy / "backup.json").write_text('{"whole": false}')
    refused(capsys, "is not whole", "restore", copy, "--storage", tmp_path / "new")


def test_an_empty_root_of_a_server_may_be_filled(storage: Path, tmp_path: Path) -> None:
    """A server was started there once, and nothing was pushed."""
    with Server(tmp_path / "second"):
        pass
    upkeep = tmp_path / "second/storage/upkeep"
    upkeep.mkdir(exist_ok=True)
    (upkeep / "gc-done").write_text("1.0")
    command("backup", tmp_path / "copy", "--storage", storage)
    command("restore", tmp_path / "copy", "--storage", tmp_path / "second/storage")
    assert files(tmp_path / "second/storage") == files(storage)


def test_a_restore_that_was_cut_off_goes_on(storage: Path, tmp_path: Path) -> None:
    """Its root is not empty, but what is in there is the restore's own."""
    copy, new = tmp_path / "copy", tmp_path / "new"
    command("backup", copy, "--storage", storage)
    (new / "blobs/sha256/00").mkdir(parents=True)
    (new / "blobs/sha256/00/.tmp-1").write_bytes(b"half")
    (new / "restore.json").write_text("{}")
    command("restore", copy, "--storage", new)
    assert files(new) == files(storage)
    assert not (new / "restore.json").exists()

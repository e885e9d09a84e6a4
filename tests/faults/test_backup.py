"""A backup beside pushes, moves of tags, deletes and collections, and one that is killed in the middle."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import Server, image, push_manifest, seeded_bytes

from trioreg.storage.filesystem.copying import Copier

from .copies import check_copy, layer, revision

SEED = 11
IMAGES = [image(b"{}", [seeded_bytes(f"layer {n}", 200_000), seeded_bytes(n, 1000)]) for n in range(4)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with Server(tmp_path_factory.mktemp("filled")) as server:
        for number, each in enumerate(IMAGES):
            push_manifest(server, "a/one", each, f"v{number}")
            push_manifest(server, "b/two", each, f"v{number}")
    return server.storage


def collect(root: Path, repository: str, number: int) -> None:
    """Delete an image as the registry does, and its bytes as a collection without any patience would."""
    folder, gone = root / "repositories" / repository, IMAGES[number]
    (folder / f"_manifests/tags/v{number}/current/link").unlink(missing_ok=True)
    revision(folder, gone.digest).unlink(missing_ok=True)
    revision(folder, gone.digest).with_name("media-type").unlink(missing_ok=True)
    digests = [gone.digest]
    for blob in gone.blobs[1:]:
        digests.append(f"sha256:{hashlib.sha256(blob).hexdigest()}")
        layer(folder, digests[-1]).unlink(missing_ok=True)
    for digest in digests:
        (root / "blobs/sha256" / digest[7:9] / digest[7:]).unlink(missing_ok=True)


@pytest.mark.parametrize("victim", [0, 3])
def test_an_image_that_vanishes_at_any_step(filled: Path, tmp_path: Path, victim: int) -> None:
    """Deleted and collected between any two steps of a copy: it is not in the copy, and the rest is whole."""
    copy_tree = ["cp", "-r", "--reflink=auto"]
    for step in range(1, 10_000):
        source, target = tmp_path / f"{step}", tmp_path / f"{step}-copy"
        subprocess.run([*copy_tree, filled, source], check=True)
        steps = iter(range(1, 10_000))

        def tell(
            text: str, done: float, source: Path = source, steps: Iterator[int] = steps, at: int = step
        ) -> None:
            if next(steps) == at:
                collect(source, "a/one", victim)
                collect(source, "b/two", victim)

        report = Copier(source, target, tell=tell).run()
        # What was copied before it vanished may be there still, as if the backup had been taken then.
        assert 2 * len(IMAGES) - 2 <= check_copy(target) <= 2 * len(IMAGES)
        assert report.lost == 0
        if next(steps) <= step:
            break
    assert step > 10


def test_a_backup_beside_a_busy_server(tmp_path: Path) -> None:
    """Pushes, moves and deletes go on; backups are killed, then one is let finish: it is whole."""
    choose = random.Random(SEED)
    with Server(tmp_path / "server") as server:
        for each in IMAGES:
            push_manifest(server, "busy", each, "keep")
        push_manifest(server, "quiet", IMAGES[0], "stays")
        stop = threading.Event()

        def work(seed: int) -> None:
            choose = random.Random(seed)
            while not stop.is_set():
                number = choose.randrange(len(IMAGES))
                # The other one may be deleting what this one has just pushed.
                with contextlib.suppress(AssertionError):
                    push_manifest(server, "busy", IMAGES[number], f"t{choose.randrange(10)}")
                if choose.random() < 0.3:
                    server.request("DELETE", f"/v2/busy/manifests/{IMAGES[choose.randrange(4)].digest}")

        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for worker in workers:
            worker.start()
        try:
            backup = [sys.executable, "-m", "trioreg", "backup", str(tmp_path / "copy")]
            backup += ["--storage", str(server.storage)]
            for _ in range(3):
                process = subprocess.Popen(backup, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(choose.uniform(0.2, 1.0))
                process.kill()
                process.wait()
                if (tmp_path / "copy").exists():
                    check_copy(tmp_path / "copy")
            done = subprocess.run(backup, capture_output=True, text=True, check=False)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert check_copy(tmp_path / "copy") >= 1
    assert (tmp_path / "copy/repositories/quiet/_manifests/tags/stays/current/link").exists()
    new = str(tmp_path / "new")
    restore = [sys.executable, "-m", "trioreg", "restore", str(tmp_path / "copy"), "--storage", new]
    subprocess.run(restore, check=True, capture_output=True)
    with Server(tmp_path / "second", storage=tmp_path / "new") as server:
        assert server.request("GET", "/v2/quiet/manifests/stays").body == IMAGES[0].body

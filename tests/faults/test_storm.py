"""A push storm while collections run back to back: nothing that was promised is lost, and much is collected.

The grace period is the shortest that there is, a minute, and storms come in rounds. Before each everything
that is there is made old, so that collections may take what no image needs at that moment, while clients are
told by HEAD that it is there, mount it, push it again. Behind the last round nobody is there to rely on a
thing, one more collection takes whatever it may, and all that was promised and not deleted is pulled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from aging import age_files
from blackbox import Server

from .copies import check_copy
from .storm import Goods, StormClient
from .tally import SEED, size

ROUNDS = size(3, 30)
CLIENTS = size(4, 12)
STEPS = size(8, 12)  # of each client in each round
GRACE = 60.0  # seconds


class Collections:
    """Collections without a pause, in a process of their own, and what they have removed so far."""

    def __init__(self, storage: Path):
        program = str(Path(__file__).with_name("endless.py"))
        environment = {**os.environ, "TRIOREG_GC_GRACE": str(GRACE), "TRIOREG_GC_UNTAGGED": "true"}
        self.ended = self.blobs = self.links = self.manifests = self.taken_back = 0
        self.unreadable: list[str] = []
        self._paused = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, program, "--storage", str(storage)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.strip():
                self._paused.set()
                continue
            report = json.loads(line)
            self.unreadable += report["unreadable"]
            self.blobs += report["blobs_removed"]
            self.links += report["links_removed"]
            self.manifests += report["manifests_removed"]
            self.taken_back += report["taken_back"]
            self.ended += 1
        self._paused.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """One behind the other, at least one."""
        self._say()
        try:
            yield
        finally:
            self._paused.clear()
            self._say()
            assert self._paused.wait(120), "a collection does not end"

    def _say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stderr is not None
        with self._process:
            self._process.stdin.close()
            complained = self._process.stderr.read()
            self._reader.join()
        assert (self._process.returncode, self.unreadable) == (0, []), complained


def storm(clients: list[StormClient]) -> None:
    """All clients at once, each so many steps. Raises what one of them raised."""
    bugs: list[BaseException] = []

    def work(client: StormClient) -> None:
        try:
            for _ in range(STEPS):
                client.work()
        except BaseException as bug:  # noqa: BLE001 (raised again by the test's own thread)
            bugs.append(bug)
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for bug in bugs:
        raise bug


def test_a_push_storm_during_collections(tmp_path: Path) -> None:
    """Every image that got its 201 can be pulled until it is deleted, whatever was collected meanwhile."""
    print(f"seed {SEED}")  # noqa: T201 (what to repeat)
    settings = {"http.workers": "2", "gc.grace": str(GRACE), "log.access": "false"}
    goods = Goods(SEED)
    with Server(tmp_path, settings=settings) as server, closing(Collections(server.storage)) as collections:
        clients = [StormClient(number, goods, server.host, server.port) for number in range(CLIENTS)]
        for _ in range(ROUNDS):
            age_files(server.storage, 2 * GRACE)
            with collections.running():
                storm(clients)
        removed = collections.blobs
        age_files(server.storage, 2 * GRACE)
        with collections.running():
            pass
        images = [image for client in clients for image in client.check_all()]
        command = [sys.executable, "-m", "trioreg", "verify", "--storage", str(server.storage)]
        assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert check_copy(server.storage) == len(images)
    assert "Traceback" not in server.stderr, server.stderr
    for image in images:
        image.moment.close()
    tell(clients, collections)
    assert removed > 2 * ROUNDS and collections.manifests and collections.links
    assert sum(client.skipped for client in clients) and sum(client.mounted for client in clients)


def tell(clients: list[StormClient], collections: Collections) -> None:
    """What the storm was, for docs/faults.md (`-s`)."""
    sums = {
        what: sum(getattr(client, what) for client in clients)
        for what in ("pushed", "skipped", "mounted", "uploaded", "deleted")
    }
    for what in ("ended", "blobs", "links", "manifests", "taken_back"):
        sums[f"collections: {what}"] = getattr(collections, what)
    print("\nstorm:", ", ".join(f"{count:,} {what}" for what, count in sums.items()))  # noqa: T201

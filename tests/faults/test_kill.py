"""kill -9 at random moments of mixed work and collections: what was promised stays true, uploads go on."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from aging import age_files
from blackbox import Server

from trioreg.storage import record

from .client import check_disk
from .mixed import Client
from .tally import SEED, TALLY, size
from .upload import Wire

KILLS = size(20, 200)
CLIENTS = 4
LOOK_AT_ALL = 20  # kills from one look at every promise to the next; the newest are looked at each time
COLLECTED = 4  # every so often one collection comes to its end before clients go on
FAULT = "kill -9 amid pushes, mounts, deletes, collections"
GRACE = 3600.0  # seconds; what a server made is that old at the next


class Moment:
    """The moment of a kill: when the clients have done so many things (pieces sent, requests begun)."""

    def __init__(self, things: int):
        self._left = things
        self._come = threading.Event()
        self._lock = threading.Lock()

    def did_one(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self._come.set()

    def now(self) -> None:
        self._come.set()

    def wait(self) -> None:
        assert self._come.wait(60), "the clients do nothing"


def work(server: Server, client: Client, moment: Moment, bugs: list[BaseException]) -> None:
    """One client until the server is gone; a bug is kept for the test's own thread."""
    wire = Wire(server.host, server.port, moment.did_one)
    try:
        client.run(wire)
    except (OSError, http.client.HTTPException):
        pass  # killed
    except BaseException as bug:  # noqa: BLE001 (raised again by the test's own thread)
        bugs.append(bug)
        moment.now()
    finally:
        wire.close()


class Collections:
    """`trioreg gc` again and again, in a process of its own that dies with the server."""

    def __init__(self, server: Server):
        self.ended = 0
        self.removed = 0
        self._command = [sys.executable, "-m", "trioreg", "gc", "--json", "--storage", str(server.storage)]
        self._process: subprocess.Popen[str] | None = None
        self._over = False
        self._thread: threading.Thread | None = None
        self._one_ended = threading.Event()

    def wait_for_one(self) -> None:
        """Until a collection that began earlier or now has ended."""
        self._one_ended.clear()
        assert self._one_ended.wait(60), "no collection ends"

    def start(self) -> None:
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def kill(self) -> None:
        assert self._thread is not None
        self._over = True
        while self._thread.is_alive():
            if self._process is not None:
                self._process.kill()
            self._thread.join(0.01)

    def _run(self) -> None:
        environment = {**os.environ, "TRIOREG_GC_GRACE": str(GRACE)}
        while not self._over:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            said, complained = self._process.communicate()
            if self._process.returncode != -signal.SIGKILL:
                assert self._process.returncode == 0, complained
                self.ended += 1
                self._one_ended.set()
                self.removed += json.loads(said)["blobs_removed"]


def run_until_killed(
    server: Server, collections: Collections, clients: list[Client], things: int, later: float
) -> None:
    moment, bugs = Moment(things), list[BaseException]()
    threads = [threading.Thread(target=work, args=(server, each, moment, bugs)) for each in clients]
    for thread in threads:
        thread.start()
    try:
        moment.wait()
        time.sleep(later)  # not for something: so that the kill meets any of the server's own steps
    finally:
        server.kill()
        collections.kill()
        for thread in threads:
            thread.join()
    for bug in bugs:
        raise bug


def check_promises(server: Server, clients: list[Client], *, everything: bool) -> None:
    for client in clients:
        wire = Wire(server.host, server.port, lambda: None)
        client.check(wire, everything=everything)
        wire.close()


def test_killed_amid_mixed_work(tmp_path: Path) -> None:
    """After each kill: every 2xx true, no wrong blob, records true; open uploads go on to the end."""
    print(f"seed {SEED}")  # noqa: T201 (what to repeat)
    choose = random.Random(SEED)
    clients = [Client(number, SEED) for number in range(CLIENTS)]
    boot, hashed, open_uploads = record.boot_id(), set[tuple[Path, int]](), 0
    settings = {"upload.checkpoint_bytes": "256KiB", "log.access": "false", "gc.grace": str(GRACE)}
    settings["memory.block"] = "256KiB"
    with Server(tmp_path, settings=settings) as server:
        collections = Collections(server)
        collections.start()
        for number in range(KILLS):
            server.settings["http.front"] = "quart" if number % 5 == 4 else "direct"
            with TALLY.moment(FAULT):
                later = choose.random() * 0.005
                run_until_killed(server, collections, clients, choose.randint(1, 150), later)
                check_disk(server.storage, boot, hashed)
                age_files(server.storage, 2 * GRACE)
                for client in clients:
                    client.time_passed()
                server.start()
                collections.start()
                if number % COLLECTED == 0:
                    collections.wait_for_one()
                check_promises(server, clients, everything=number % LOOK_AT_ALL == 0)
            open_uploads += sum(each.push is not None and each.push.acknowledged > 0 for each in clients)
        assert open_uploads >= KILLS // 2, "too few uploads were cut: the test does not test"
        assert sum(client.done for client in clients) >= KILLS
        for client in clients:
            wire = Wire(server.host, server.port, lambda: None)
            client.run(wire, most=1)
            assert client.push is None
            wire.close()
        check_promises(server, clients, everything=True)
        collections.kill()
    assert collections.ended >= KILLS // COLLECTED and collections.removed >= 1
    check_disk(server.storage, boot)
    # A kill leaves one temporary file at most for each client that it meets.
    assert len(list(server.storage.rglob(".tmp-*"))) <= KILLS * CLIENTS

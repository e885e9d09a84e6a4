"""kill -9 at random moments of mixed work: what was promised stays true, and uploads go on."""

from __future__ import annotations

import http.client
import random
import threading
import time
from pathlib import Path

from blackbox import Server

from trioreg.storage import record

from .client import check_disk
from .mixed import Client
from .tally import SEED, TALLY, size
from .upload import Wire

KILLS = size(20, 200)
CLIENTS = 4
LOOK_AT_ALL = 20  # kills from one look at every promise to the next; the newest are looked at each time
FAULT = "kill -9 amid pushes, mounts, deletes"


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


def run_until_killed(server: Server, clients: list[Client], things: int, later: float) -> None:
    moment, bugs = Moment(things), list[BaseException]()
    threads = [threading.Thread(target=work, args=(server, each, moment, bugs)) for each in clients]
    for thread in threads:
        thread.start()
    try:
        moment.wait()
        time.sleep(later)  # not for something: so that the kill meets any of the server's own steps
    finally:
        server.kill()
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
    with Server(tmp_path, settings={"upload.checkpoint_bytes": "256KiB", "log.access": "false"}) as server:
        for number in range(KILLS):
            server.settings["http.front"] = "quart" if number % 5 == 4 else "direct"
            with TALLY.moment(FAULT):
                run_until_killed(server, clients, choose.randint(1, 150), choose.random() * 0.005)
                check_disk(server.storage, boot, hashed)
                server.start()
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
    check_disk(server.storage, boot)
    # A kill leaves one temporary file at most for each client that it meets.
    assert len(list(server.storage.rglob(".tmp-*"))) <= KILLS * CLIENTS

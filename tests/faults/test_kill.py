"""kill -9 at random moments, twenty times: what was promised stays true, and uploads go on."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from pathlib import Path

from blackbox import Server, digest_of, path_of, seeded_bytes, with_query

from trioreg.storage import record

from .client import check_disk

SEED = 20
KILLS = 20
CLIENTS = 4
PIECE = 16 * 1024


class Moment:
    """The moment of a kill: when the clients have done so many things (pieces sent, requests begun)."""

    def __init__(self, things: int):
        self._left = things
        self._come = threading.Event()
        self._lock = threading.Lock()

    def did_one(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._come.set()

    def wait(self) -> None:
        assert self._come.wait(60), "the clients do nothing"


class Push:
    """One blob on its way: how far the registry acknowledged it, and what it promised."""

    def __init__(self, seed: str):
        choose = random.Random(seed)
        self.name = f"kill/{choose.randrange(3)}"
        self.content = seeded_bytes(seed, choose.choice([100, 5000, 70_000, 700_000, 1_500_000]))
        self.digest = digest_of(self.content)
        self.chunk = choose.choice([9_999, 65_536, 300_000, 10**9])
        self.streamed = choose.random() < 0.5  # as docker: chunked transfer coding, no Content-Range
        self.location: str | None = None
        self.acknowledged = 0
        self.finishing = False
        self.created = False

    def run(self, server: Server, moment: Moment) -> None:
        """Go on until the blob is created; raises what a connection that is cut raises."""
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        try:
            offset = self._offset(connection, moment)
            while offset < len(self.content):
                offset = self._append(connection, moment, offset)
            assert self.location is not None
            self.finishing = True
            target = with_query(self.location, f"digest={self.digest}")
            status, _ = self._request(connection, moment, "PUT", target, b"", {})
            assert status == 201, status
            self.created = True
        finally:
            connection.close()

    def _offset(self, connection: http.client.HTTPConnection, moment: Moment) -> int:
        """Where to go on, as GET says; a new session at the very beginning, or if it was being finished."""
        if self.location is not None:
            status, headers = self._request(connection, moment, "GET", self.location, b"", {})
            if status == 204:
                offset = offset_of(headers)
                assert self.acknowledged <= offset <= len(self.content)
                self.finishing = False
                return offset
            # Only a session whose end was asked for may be gone: it was, and no answer reached us.
            assert (status, self.finishing) == (404, True)
        status, headers = self._request(
            connection, moment, "POST", f"/v2/{self.name}/blobs/uploads/", b"", {}
        )
        assert status == 202, status
        self.location, self.acknowledged, self.finishing = headers["Location"], 0, False
        return 0

    def _append(self, connection: http.client.HTTPConnection, moment: Moment, offset: int) -> int:
        assert self.location is not None
        chunk = self.content[offset : offset + self.chunk]
        headers = {}
        if not self.streamed:
            headers = {
                "Content-Length": str(len(chunk)),
                "Content-Range": f"{offset}-{offset + len(chunk) - 1}",
            }
        status, answer = self._request(connection, moment, "PATCH", self.location, chunk, headers)
        assert status == 202, status
        assert answer["Range"] == f"0-{offset + len(chunk) - 1}"
        self.acknowledged = offset + len(chunk)
        return self.acknowledged

    def _request(
        self,
        connection: http.client.HTTPConnection,
        moment: Moment,
        method: str,
        location: str,
        body: bytes,
        headers: dict[str, str],
    ) -> tuple[int, http.client.HTTPMessage]:
        def pieces() -> Iterator[bytes]:
            for at in range(0, len(body), PIECE):
                moment.did_one()
                yield body[at : at + PIECE]

        moment.did_one()
        connection.request(method, path_of(location), pieces() if body else b"", headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers


def offset_of(headers: http.client.HTTPMessage) -> int:
    last = int(headers["Range"].removeprefix("0-"))
    return last + 1 if last else 0


class Client:
    """Pushes blob after blob until the server is gone, and goes on with the same one at the next."""

    def __init__(self, number: int):
        self._number = number
        self._begun = 0
        self.push = self._next()
        self.created: list[Push] = []
        self.bugs: list[BaseException] = []

    def run(self, server: Server, moment: Moment) -> None:
        try:
            while True:
                self.push.run(server, moment)
                self.created.append(self.push)
                self.push = self._next()
        except (OSError, http.client.HTTPException):
            return  # killed
        except BaseException as bug:  # noqa: BLE001 (shown by the test's own thread)
            self.bugs.append(bug)
            while True:  # let the kill come nevertheless
                try:
                    moment.did_one()
                    server.request("GET", "/v2/")
                except (OSError, http.client.HTTPException):
                    return

    def _next(self) -> Push:
        self._begun += 1
        return Push(f"{SEED}-{self._number}-{self._begun}")


def run_until_killed(server: Server, clients: list[Client], things: int) -> None:
    moment = Moment(things)
    threads = [threading.Thread(target=client.run, args=(server, moment)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        moment.wait()
    finally:
        server.kill()
        for thread in threads:
            thread.join()
    for client in clients:
        for bug in client.bugs:
            raise bug


def check_created(server: Server, clients: list[Client], already: set[str]) -> None:
    """Every 201 ever sent is true: new ones by their bytes, older ones by a look (the disk is re-hashed)."""
    for push in [push for client in clients for push in client.created]:
        method = "HEAD" if push.digest in already else "GET"
        answer = server.request(method, f"/v2/{push.name}/blobs/{push.digest}")
        assert answer.status == 200, (push.name, push.digest)
        assert answer.headers["Content-Length"] == str(len(push.content))
        if method == "GET":
            assert digest_of(answer.body) == push.digest
            already.add(push.digest)


def test_killed_twenty_times(tmp_path: Path) -> None:
    """After each kill: every 201 true, no partial blob, records true; open uploads go on to the end."""
    print(f"seed {SEED}")  # noqa: T201 (what to repeat)
    choose = random.Random(SEED)
    clients = [Client(number) for number in range(CLIENTS)]
    server = Server(tmp_path, settings={"upload.checkpoint_bytes": "256KiB", "log.access": "false"})
    boot, seen, open_uploads = record.boot_id(), set[str](), 0
    for _ in range(KILLS):
        server.start()
        check_created(server, clients, seen)
        run_until_killed(server, clients, choose.randint(1, 150))
        check_disk(server.storage, boot)
        open_uploads += sum(client.push.acknowledged > 0 for client in clients)
    assert open_uploads >= KILLS, "too few uploads were cut: the test does not test"
    assert sum(len(client.created) for client in clients) >= KILLS // 2
    with server.start():
        check_created(server, clients, seen)
        for client in clients:
            client.push.run(server, Moment(10**9))
            client.created.append(client.push)
        check_created(server, clients, set())
    check_disk(server.storage, boot)
    assert list((server.storage / "blobs").rglob(".*")) == []

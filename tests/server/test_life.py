"""The life of a server process: how it starts, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blackbox import (
    ANSWER_SECONDS,
    Server,
    artifact,
    digest_of,
    image,
    path_of,
    push_blob,
    push_manifest,
    seeded_bytes,
    with_query,
)

NAME = "some/name"
BLOB = seeded_bytes(1, 600_000)
FRONTS = pytest.mark.parametrize("front", ["direct", "quart"])
# A server that waits for a limit which it should not wait for overstays this one; nothing else comes near.
SOON = 20.0
LONG = "600"


def end(server: Server, seconds: float = SOON) -> int:
    """The exit code of a server that has been told to stop."""
    process = server._running()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        server.kill()
        pytest.fail(f"still running after {seconds} s:\n{server.stderr[-2000:]}")
    server._forget()
    return code


def stops_accepting(server: Server) -> None:
    """Wait until nobody can connect any more: the shutdown has begun."""
    with contextlib.suppress(OSError):
        while True:
            socket.create_connection((server.host, server.port), timeout=SOON).close()


def start_upload(server: Server) -> str:
    answer = server.request("POST", f"/v2/{NAME}/blobs/uploads/")
    assert answer.status == 202
    return path_of(answer.headers["Location"])


@contextmanager
def half_an_upload(server: Server, location: str) -> Iterator[socket.socket]:
    """A PATCH that the server has begun to read (it said 100), with half of its body sent."""
    with server.connect() as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(BLOB)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        connection.sendall(BLOB[:300_000])
        yield connection


def test_port_zero_prints_the_port(tmp_path: Path) -> None:
    """One line on standard output, once it accepts."""
    with Server(tmp_path) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", server.url)
        assert server.request("GET", "/v2/").status == 200


@FRONTS
def test_idle_connections_do_not_keep_it_up(tmp_path: Path, front: str) -> None:
    """SIGTERM with kept-alive connections, used and unused: it ends at once, with 0."""
    settings = {"http.front": front, "http.shutdown_grace": LONG, "http.idle_timeout": LONG}
    with Server(tmp_path, settings=settings) as server, contextlib.ExitStack() as open_connections:
        for _ in range(5):
            open_connections.enter_context(server.connect())
            connection = http.client.HTTPConnection(server.host, server.port, timeout=ANSWER_SECONDS)
            open_connections.callback(connection.close)
            connection.request("GET", "/v2/")
            connection.getresponse().read()
        os.kill(server.pid, signal.SIGTERM)
        assert end(server) == 0


@FRONTS
def test_sigterm_lets_an_upload_finish(tmp_path: Path, front: str) -> None:
    """Within the grace it is answered as always, and the connection closes; then the server ends with 0."""
    settings = {"http.front": front, "http.shutdown_grace": LONG, "http.idle_timeout": LONG}
    with Server(tmp_path, settings=settings) as server:
        location = start_upload(server)
        with half_an_upload(server, location) as connection:
            os.kill(server.pid, signal.SIGTERM)
            stops_accepting(server)
            connection.sendall(BLOB[300_000:])
            answer = http.client.HTTPResponse(connection, method="PATCH")
            answer.begin()
            assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(BLOB) - 1}")
            assert connection.recv(1000) == b""
        assert end(server) == 0


@FRONTS
@pytest.mark.parametrize("ending", ["grace", "second signal"])
def test_past_the_grace_the_offset_is_saved(tmp_path: Path, front: str, ending: str) -> None:
    """A cut upload keeps what came, goes on in the next process, and the exit code is 0."""
    grace = "0" if ending == "grace" else LONG
    settings = {"http.front": front, "http.shutdown_grace": grace, "http.stall_timeout": LONG}
    with Server(tmp_path, settings=settings) as server:
        location = start_upload(server)
        with half_an_upload(server, location):
            os.kill(server.pid, signal.SIGTERM)
            if ending == "second signal":
                stops_accepting(server)
                os.kill(server.pid, signal.SIGTERM)
            assert end(server) == 0
        server.start()
        answer = server.request("GET", location)
        assert answer.status == 204
        offset = int(answer.headers["Range"].partition("-")[2]) + 1
        # At most what was sent; at least what had come before the signal, which may be nothing.
        assert offset <= 300_000
        rest = BLOB[offset:] if offset > 1 else BLOB
        digest = digest_of(BLOB)
        assert server.request("PUT", with_query(location, f"digest={digest}"), rest).status == 201
        assert server.request("GET", f"/v2/{NAME}/blobs/{digest}").body == BLOB


@FRONTS
@pytest.mark.parametrize("level", ["json", "text"])
def test_the_log_has_the_request_id_of_the_answer(tmp_path: Path, front: str, level: str) -> None:
    """So that a client's complaint can be looked up; each answer has another one."""
    settings = {"http.front": front, "log.format": level}
    with Server(tmp_path, settings=settings) as server:
        answers = [server.request("GET", path) for path in ("/v2/", "/v2/_catalog", "/v2/no/manifests/x")]
        ids = [answer.headers["X-Request-Id"] for answer in answers]
        server.stop()
        assert len(set(ids)) == 3
        lines = server.stderr.splitlines()
        for request_id, answer in zip(ids, answers, strict=True):
            (line,) = [line for line in lines if request_id in line]
            if level == "json":
                record = json.loads(line)
                assert (record["request"], record["status"]) == (request_id, answer.status)
                assert record["method"] == "GET"
            else:
                assert f"request={request_id}" in line
                assert f"status={answer.status}" in line


@FRONTS
def test_the_access_log_can_be_off(tmp_path: Path, front: str) -> None:
    """Then a request leaves no line, and the rest of the log stays."""
    with Server(tmp_path, settings={"http.front": front, "log.access": "false"}) as server:
        server.request("GET", "/v2/secret/manifests/latest")
        server.stop()
        assert "secret" not in server.stderr
        assert "listening" in server.stderr


def test_registry_storage_path(tmp_path: Path) -> None:
    """The variable that names the root everywhere else names it here."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIOREG_")}
    environment["REGISTRY_STORAGE_PATH"] = str(tmp_path / "deep" / "root")
    command = [sys.executable, "-m", "trioreg", "serve", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"trioreg listening on ")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SOON)
        assert process.returncode == 0
    assert (tmp_path / "deep" / "root" / "blobs").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


@FRONTS
@pytest.mark.parametrize(
    "settings",
    [{"storage.driver": "memory"}, {"storage.durability": "none"}],
    ids=["driver-memory", "durability-none"],
)
def test_other_storages_end_to_end(tmp_path: Path, front: str, settings: dict[str, str]) -> None:
    """Push, pull, list, attach and delete."""
    with Server(tmp_path, settings={"http.front": front, **settings}) as server:
        pushed = image(b"{}", [BLOB, b"layer"])
        push_manifest(server, NAME, pushed, "latest")
        attached = artifact("a/sbom", b"sbom", pushed.descriptor)
        push_manifest(server, NAME, attached)
        pulled = server.request("GET", f"/v2/{NAME}/manifests/latest")
        assert (pulled.status, pulled.body) == (200, pushed.body)
        assert server.request("GET", f"/v2/{NAME}/blobs/{digest_of(BLOB)}").body == BLOB
        assert server.request("GET", f"/v2/{NAME}/tags/list").json()["tags"] == ["latest"]
        referrers = server.request("GET", f"/v2/{NAME}/referrers/{pushed.digest}").json()["manifests"]
        assert [each["digest"] for each in referrers] == [attached.digest]
        assert server.request("DELETE", f"/v2/{NAME}/manifests/{pushed.digest}").status == 202
        assert server.request("GET", f"/v2/{NAME}/manifests/latest").status == 404


def test_what_was_pushed_is_there_after_a_restart(tmp_path: Path) -> None:
    """And after a kill."""
    with Server(tmp_path) as server:
        push_manifest(server, NAME, image(b"{}", [BLOB]), "latest")
        for stop in (server.stop, server.kill):
            stop()
            server.start()
            assert server.request("GET", f"/v2/{NAME}/manifests/latest").body == image(b"{}", [BLOB]).body
            assert server.request("GET", f"/v2/{NAME}/blobs/{digest_of(BLOB)}").body == BLOB


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    """And an exit code that is not 0."""
    with Server(tmp_path / "first") as server:
        command = [sys.executable, "-m", "trioreg", "serve", "--storage", str(tmp_path / "second")]
        ended = subprocess.run(
            [*command, "--bind", server.address],
            capture_output=True,
            text=True,
            timeout=SOON,
            check=False,
        )
    assert ended.returncode in (1, 2)
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert str(server.address) in ended.stderr


def test_an_upload_does_not_delay_small_requests(tmp_path: Path) -> None:
    """A disk that takes minutes for one blob answers others meanwhile."""
    with Server(tmp_path, settings={"debug.write_delay": "30", "http.shutdown_grace": "0"}) as server:
        location = start_upload(server)
        with half_an_upload(server, location):
            for _ in range(20):
                assert server.request("GET", "/v2/").status == 200
        push_blob(server, NAME, b"small")
        server.kill()

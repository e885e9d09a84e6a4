"""A disk that is really full: 507, the session survives, the server goes on, and so does the upload."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blackbox import Answer, Server, digest_of, push_blob, seeded_bytes, with_query

from .tally import TALLY

MIB = 2**20
CONTENT = seeded_bytes("disk full", 3 * MIB)
DIGEST = digest_of(CONTENT)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MiB; skips where we may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "trioreg-test", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small filesystem can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def server(small_disk: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server", storage=small_disk / "storage") as running:
        yield running


def fill(disk: Path, leave: int) -> Path:
    """Take all space of a filesystem but `leave` bytes."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize - leave)
    return ballast


def begin(server: Server) -> str:
    answer = server.request("POST", "/v2/full/blobs/uploads/", b"")
    assert answer.status == 202, answer.body
    return answer.headers["Location"]


def check_full(answer: Answer) -> None:
    assert (answer.status, answer.error_codes) == (507, ["UNAVAILABLE"]), answer.body
    assert "no space left" in answer.json()["errors"][0]["message"]


def check_goes_on(server: Server) -> None:
    assert server.request("GET", "/v2/").status == 200


@pytest.mark.parametrize("streamed", [False, True], ids=["length", "streamed"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@TALLY.moment("disk full")
def test_full_in_the_middle(server: Server, small_disk: Path, method: str, streamed: bool) -> None:
    """507 in the middle of a body; once there is space the same session goes on to the right digest."""
    ballast = fill(small_disk, leave=MIB)
    location = begin(server)
    body = iter([CONTENT]) if streamed else CONTENT
    target = location if method == "PATCH" else with_query(location, f"digest={DIGEST}")
    check_full(server.request(method, target, body))
    check_goes_on(server)
    offset = held(server, location)
    assert offset < len(CONTENT)
    check_goes_on(server)
    ballast.unlink()
    push_blob(server, "full", b"a small one")
    assert held(server, location) == offset
    place = {"Content-Range": f"{offset}-{len(CONTENT) - 1}"}
    answer = server.request("PATCH", location, CONTENT[offset:], place)
    assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(CONTENT) - 1}")
    finished = server.request("PUT", with_query(location, f"digest={DIGEST}"), b"")
    assert finished.status == 201
    assert digest_of(server.request("GET", f"/v2/full/blobs/{DIGEST}").body) == DIGEST


def held(server: Server, location: str) -> int:
    """The offset of a session."""
    status = server.request("GET", location)
    assert status.status == 204, status.body
    last = int(status.headers["Range"].removeprefix("0-"))
    return last + 1 if last else 0


@TALLY.moment("disk full")
def test_full_at_the_start(server: Server, small_disk: Path) -> None:
    """With no space at all a new session is 507, what was pushed before is served, and space heals all."""
    digest = push_blob(server, "full", b"from before")
    ballast = fill(small_disk, leave=0)
    check_full(server.request("POST", "/v2/full/blobs/uploads/", b""))
    check_goes_on(server)
    assert server.request("GET", f"/v2/full/blobs/{digest}").body == b"from before"
    ballast.unlink()
    push_blob(server, "full", b"afterwards")


@TALLY.moment("disk full")
def test_full_at_the_end(server: Server, small_disk: Path) -> None:
    """Space that runs out at the commit is 507; the session can be finished once there is some."""
    location = begin(server)
    assert server.request("PATCH", location, CONTENT[:MIB]).status == 202
    ballast = fill(small_disk, leave=0)
    target = with_query(location, f"digest={digest_of(CONTENT[:MIB])}")
    answer = server.request("PUT", target, b"")
    if answer.status != 201:  # whether a rename and a link need space is the filesystem's affair
        check_full(answer)
        ballast.unlink()
        answer = server.request("PUT", target, b"")
        if answer.status == 404:
            # The bytes were published before the link could be made: the client begins again.
            push_blob(server, "full", CONTENT[:MIB])
    path = f"/v2/full/blobs/{digest_of(CONTENT[:MIB])}"
    assert server.request("GET", path).body == CONTENT[:MIB]

"""The clock of a real server jumps by years between any two requests: nothing is lost, nothing is 500."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from blackbox import Server, digest_of, image, path_of, push_manifest, seeded_bytes, with_query

from .tally import SEED, TALLY, size

YEAR = 365 * 24 * 3600
JUMPS = [-40 * YEAR, -YEAR, -3600, -1, 0, 1, 3600, YEAR, 60 * YEAR, 200 * YEAR]
CLOCKED = Path(__file__).parent / "clocked.py"


class ClockedServer(Server):
    """A server whose clock is where we put it."""

    def __init__(self, home: Path, front: str) -> None:
        self._clock = home / "clock"
        # Purge goes by the clock: a session of another year has expired (docs/faults.md).
        settings = {"http.front": front, "upload.expire_after": "0"}
        super().__init__(home, settings=settings, program=[str(CLOCKED), str(self._clock)])
        self.jump(0)

    def jump(self, seconds: int) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._clock)


@pytest.fixture(scope="module", params=["direct", "quart"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClockedServer]:
    with ClockedServer(tmp_path_factory.mktemp(f"clock-{request.param}"), request.param) as running:
        yield running
    assert "unforeseen" not in running.stderr
    assert "Traceback" not in running.stderr


def test_the_clock_is_off(server: ClockedServer) -> None:
    """So the tests below are about something: the server tells the time that we set."""
    server.jump(60 * YEAR)
    there = parsedate_to_datetime(server.request("GET", "/v2/").headers["Date"])
    server.jump(0)
    here = parsedate_to_datetime(server.request("GET", "/v2/").headers["Date"])
    assert round((there - here).total_seconds() / YEAR) == 60


def test_jumps_amid_pushes(server: ClockedServer) -> None:
    """An upload goes on over each jump, a tag that moves is seen at once, and what was pushed stays."""
    choose = random.Random(SEED)
    pushed = []
    for number in range(size(10, 100)):
        with TALLY.moment("clock jump amid a push"):
            content = seeded_bytes(f"{SEED}-{number}", 3000)
            digest = digest_of(content)
            server.jump(choose.choice(JUMPS))
            location = path_of(server.request("POST", "/v2/clock/blobs/uploads/").headers["Location"])
            for start in range(0, 3000, 1000):
                server.jump(choose.choice(JUMPS))
                place = {"Content-Range": f"{start}-{start + 999}"}
                answer = server.request("PATCH", location, content[start : start + 1000], place)
                assert (answer.status, answer.headers["Range"]) == (202, f"0-{start + 999}")
            server.jump(choose.choice(JUMPS))
            assert server.request("PUT", with_query(location, f"digest={digest}")).status == 201
            server.jump(choose.choice(JUMPS))
            manifest = image(b"{}", [content])
            push_manifest(server, "clock", manifest, "latest")
            pushed.append(manifest.digest)
            for _ in range(2):
                server.jump(choose.choice(JUMPS))
                found = server.request("GET", "/v2/clock/manifests/latest")
                assert (found.status, found.body) == (200, manifest.body)
            assert server.request("HEAD", f"/v2/clock/blobs/{digest}").status == 200
    for digest in pushed:
        assert server.request("GET", f"/v2/clock/manifests/{digest}").status == 200


def test_a_session_outlives_a_restart_in_another_year(server: ClockedServer) -> None:
    """The time when it began is no reason to forget it."""
    for jump in (-40 * YEAR, 60 * YEAR):
        with TALLY.moment("clock jump between two servers"):
            server.jump(0)
            location = path_of(server.request("POST", "/v2/clock/blobs/uploads/").headers["Location"])
            assert server.request("PATCH", location, b"half").status == 202
            server.jump(jump)
            server.restart()
            assert server.request("GET", location).headers["Range"] == "0-3"
            finish = with_query(location, f"digest={digest_of(b'halfhalf')}")
            assert server.request("PUT", finish, b"half").status == 201


def test_the_log_tells_the_time_that_is_set(server: ClockedServer) -> None:
    """Each line has a time, in whatever year."""
    server.jump(200 * YEAR)
    server.request("GET", "/v2/")
    server.restart()
    years = {int(year) for year in re.findall(r"^(\d{4})-\d\d-\d\dT", server.stderr, re.MULTILINE)}
    assert max(years) - min(years) > 150
    server.jump(0)

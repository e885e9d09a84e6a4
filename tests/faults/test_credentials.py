"""Credentials at random, and tokens under a clock that jumps: 401 or 200, never 500, and never in the log."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from blackbox import Server
from fuzzing import examples
from hypothesis import given, seed
from hypothesis import strategies as st

from .tally import SEED, TALLY
from .test_clock import CLOCKED, JUMPS, ClockedServer
from .test_parsers import bend, changes

PASSWORD = "secret-that-no-log-has"
BASIC = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
TOKEN_PATH = "/auth/token?service=trioreg&scope=repository:a/b:pull,push"


class GuardedServer(ClockedServer):
    """A server that knows one user, issues tokens, and has a clock that can be set."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, "direct")
        passwords = home / "htpasswd"
        passwords.write_text("ann:" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode() + "\n")
        self.settings |= {"auth.htpasswd": str(passwords), "auth.tokens": "true"}

    def status(self, authorization: str) -> int:
        return self.request("GET", "/v2/a/b/tags/list", headers={"Authorization": authorization}).status

    def token(self) -> str:
        answer = self.request("GET", TOKEN_PATH, headers={"Authorization": BASIC})
        assert answer.status == 200, answer.body
        return str(answer.json()["token"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    assert CLOCKED.exists()
    with GuardedServer(tmp_path_factory.mktemp("credentials")) as running:
        yield running
    check_log(running)
    assert PASSWORD not in running.stderr
    assert "eyJ" not in running.stderr


def check_log(server: Server) -> None:
    assert not re.search("unforeseen|Traceback", server.stderr), server.stderr[-4000:]


@seed(SEED)
@examples(100)
@given(data=st.data())
def test_credentials_at_random(server: GuardedServer, data: st.DataObject) -> None:
    """What was bent is refused with a challenge, or is what it was before."""
    server.jump(0)
    token = f"Bearer {server.token()}"
    good = data.draw(st.sampled_from([BASIC, token, "Bearer trioreg-robot.x.y", "Basic"]))
    sent = data.draw(st.builds(bend, st.just(good.encode()), changes)).decode("latin-1")
    if re.search(r"[\r\n\0]", sent):
        return  # another header, which test_requests.py has
    with TALLY.moment("credentials at random"):
        for method, path in (
            ("GET", "/v2/a/b/tags/list"),
            ("GET", TOKEN_PATH),
            ("PUT", "/v2/a/b/manifests/x"),
        ):
            answer = server.request(method, path, b"", {"Authorization": sent})
            assert answer.status < 500, (sent, answer.body)
            if answer.status == 401:
                assert answer.headers["WWW-Authenticate"], (method, path)


def test_good_credentials_are_taken(server: GuardedServer) -> None:
    """So the test above is about something: 404 is what there is to pull, and 401 comes without."""
    server.jump(0)
    assert [server.status(each) for each in (BASIC, f"Bearer {server.token()}", "")] == [404, 404, 401]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_token_and_a_clock_that_jumps(server: GuardedServer, jump: int) -> None:
    """A token is good or has ended; a client that asks for another goes on, whatever year it is."""
    with TALLY.moment("clock jump amid tokens"):
        server.jump(0)
        before = f"Bearer {server.token()}"
        assert server.status(before) == 404
        server.jump(jump)
        assert server.status(before) in (404, 401)
        after = f"Bearer {server.token()}"
        assert server.status(after) == 404
        server.jump(0)
        assert server.status(after) in (404, 401)
        assert server.status(f"Bearer {server.token()}") == 404

"""Keys of an issuer that are fetched by URL, from a real server that changes, fails, and is slow."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from trioreg.auth import issuers
from trioreg.auth.authorizer import BadCredentials
from trioreg.auth.issuers import Issuers, IssuerSpec

ISSUER = "https://cloud.example.com"
ONE, TWO = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def published(**keys: ec.EllipticCurvePrivateKey) -> bytes:
    rows = [
        {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
        for kid, key in keys.items()
    ]
    return json.dumps({"keys": rows}).encode()


def token(key: ec.EllipticCurvePrivateKey, kid: str) -> str:
    claims = {"iss": ISSUER, "aud": "trioreg", "sub": "ann", "exp": int(time.time()) + 60}
    return jwt.encode(claims, key, "ES256", headers={"kid": kid})


class KeyServer:
    """Answers every request with `status` and `body`, once `answers` is set."""

    def __init__(self) -> None:
        self.status, self.body = 200, published(one=ONE)
        self.headers: dict[str, str] = {}
        self.paths: list[str] = []
        self.answers = threading.Event()
        self.answers.set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.paths.append(self.path)
                owner.answers.wait(30)
                self.send_response(owner.status)
                for name, value in {"Content-Length": str(len(owner.body)), **owner.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(owner.body)

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    pass  # Whoever asked has had enough.

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as running:
        yield running


class World:
    def __init__(self, url: str) -> None:
        spec = IssuerSpec(name="cloud", issuer=ISSUER, audience="trioreg", keys=url, algorithms=["ES256"])
        spec.check()
        self._issuers = Issuers([spec])

    async def accepts(self, text: str) -> bool:
        try:
            found = await self._issuers.identify(text, ISSUER)
        except BadCredentials:
            return False
        assert found is not None
        return found[0].name == "cloud/ann"

    def pass_time(self, seconds: float) -> None:
        issuer = self._issuers._issuers[ISSUER]
        issuer._tried -= seconds
        issuer._fetched -= seconds


async def test_keys_are_fetched_once(server: KeyServer) -> None:
    """Any number of tokens cost one request, until an hour has passed."""
    world = World(server.url)
    for _ in range(3):
        assert await world.accepts(token(ONE, "one"))
    assert not await world.accepts(token(TWO, "one")), "signed with another key"
    assert server.paths == ["/keys"]
    world.pass_time(3700)
    assert await world.accepts(token(ONE, "one"))
    assert len(server.paths) == 2


async def test_keys_rotate(server: KeyServer) -> None:
    """A new key is looked for half a minute after the last look; one that is gone is taken no more."""
    world = World(server.url)
    assert await world.accepts(token(ONE, "one"))
    server.body = published(two=TWO)
    assert not await world.accepts(token(TWO, "two"))
    assert len(server.paths) == 1, "made-up names of keys cost the issuer nothing"
    world.pass_time(31)
    assert await world.accepts(token(TWO, "two"))
    assert not await world.accepts(token(ONE, "one"))


BROKEN: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "not JSON": (200, b"<html>", {}),
    "other JSON": (200, b'["keys"]', {}),
    "keys that are none": (200, b'{"keys":[1,null,{"kty":"EC"},{"kty":"EC","crv":"P-256","kid":"one"}]}', {}),
    "nested": (200, b"[" * 200_000, {}),
    "huge": (200, b'{"keys":[]}' + b" " * 300_000, {}),
    "less than was announced": (200, published(one=ONE)[:-10], {"Content-Length": "100000"}),
    "an error": (500, published(one=ONE), {}),
    "nothing there": (404, b"", {}),
    "elsewhere": (302, b"", {"Location": "/other"}),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_no_set_of_keys(server: KeyServer, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is let in by it, those who were stay in, the log says it, and it ends with the fault."""
    fresh, known = World(server.url), World(server.url)
    assert await known.accepts(token(ONE, "one"))
    good = server.body
    server.status, server.body, server.headers = BROKEN[what]
    known.pass_time(3700)
    assert not await fresh.accepts(token(ONE, "one"))
    assert await known.accepts(token(ONE, "one")) == (what != "keys that are none")
    assert len([each for each in caplog.records if "cannot be had" in each.message]) == (
        0 if what == "keys that are none" else 2
    )
    assert "/other" not in server.paths
    server.status, server.body, server.headers = 200, good, {}
    fresh.pass_time(31)
    assert await fresh.accepts(token(ONE, "one"))


async def test_a_server_that_is_down() -> None:
    """Known keys stay known; who has none is refused until it is up."""
    with key_server() as server:
        world = World(server.url)
        assert await world.accepts(token(ONE, "one"))
    world.pass_time(3700)
    assert await world.accepts(token(ONE, "one"))
    assert not await World(server.url).accepts(token(ONE, "one"))


async def test_a_server_that_is_silent(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has its time, then the token is refused and the next one does not wait again."""
    monkeypatch.setattr(issuers, "_FETCH_SECONDS", 0.05)
    server.answers.clear()
    world = World(server.url)
    assert not await world.accepts(token(ONE, "one"))
    assert not await world.accepts(token(ONE, "one"))
    assert len([each for each in caplog.records if "cannot be had" in each.message]) == 1

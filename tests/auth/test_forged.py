"""Tokens that somebody made up, took from elsewhere, or kept too long are no credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.people import guard
from trioreg.auth import issuers
from trioreg.auth.access_file import parse_access_file
from trioreg.auth.authorizer import BadCredentials
from trioreg.auth.guard import Guard, Sources
from trioreg.auth.policy import SIGNED_IN_MAY_ALL
from trioreg.auth.scopes import Scope
from trioreg.auth.token import TokenIssuer, load_or_make_key
from trioreg.auth.watched import Watched
from trioreg.oci.names import RepositoryName

ALL = (Scope("repository", "team/a", frozenset({"pull", "push"})),)
NAME = RepositoryName("team/a")


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a token that would be good."""
    now = int(time.time())
    good = {"iss": "trioreg", "aud": "trioreg", "sub": "ann", "iat": now, "nbf": now, "exp": now + 60}
    return {**good, "access": [{"type": "repository", "name": "team/a", "actions": ["pull"]}], **changes}


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def hmac_with(secret: bytes, header: dict[str, Any], body: dict[str, Any]) -> str:
    """A token signed with HS256 whatever the secret is; libraries refuse to make some of these."""
    signed = f"{encoded(header)}.{encoded(body)}"
    mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


class Forge:
    """What a forger knows: our public key, and its id from any token of ours."""

    def __init__(self, home: Path) -> None:
        self.issuer = TokenIssuer(home / "key.pem", "ES256", "trioreg", 300)
        self.key: Any = load_or_make_key(home / "key.pem", "ES256")
        self.text = self.issuer.issue("ann", ALL).text
        self.kid = jwt.get_unverified_header(self.text)["kid"]

    def signed(self, **changes: Any) -> str:
        """With the right key: only the claims are wrong."""
        body = {name: value for name, value in claims(**changes).items() if value is not None}
        return jwt.encode(body, self.key, "ES256", headers={"kid": self.kid})

    def public(self, encoding: Encoding) -> bytes:
        kind = PublicFormat.SubjectPublicKeyInfo
        found: bytes = self.key.public_key().public_bytes(encoding, kind)
        return found


FORGERIES: dict[str, Callable[[Forge], str]] = {
    "alg none": lambda forge: f"{encoded({'alg': 'none', 'kid': forge.kid})}.{encoded(claims())}.",
    "alg None": lambda forge: f"{encoded({'alg': 'None', 'kid': forge.kid})}.{encoded(claims())}.",
    "no signature": lambda forge: forge.text.rpartition(".")[0] + ".",
    "HMAC with the public key, PEM": lambda forge: hmac_with(
        forge.public(Encoding.PEM), {"alg": "HS256", "kid": forge.kid}, claims()
    ),
    "HMAC with the public key, DER": lambda forge: hmac_with(
        forge.public(Encoding.DER), {"alg": "HS256", "kid": forge.kid}, claims()
    ),
    "another key, our id": lambda forge: jwt.encode(
        claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": forge.kid}
    ),
    "another kind of key, our id": lambda forge: jwt.encode(
        claims(), ed25519.Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": forge.kid}
    ),
    "our key, another id": lambda forge: jwt.encode(claims(), forge.key, "ES256", headers={"kid": "x"}),
    "our key, no id": lambda forge: jwt.encode(claims(), forge.key, "ES256"),
    "a key in the header": lambda forge: jwt.encode(
        claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"jwk": {"kty": "EC"}}
    ),
    "other claims under a good signature": lambda forge: ".".join(
        [forge.text.split(".")[0], encoded(claims(sub="root")), forge.text.split(".")[2]]
    ),
    "another audience": lambda forge: forge.signed(aud="other"),
    "no audience": lambda forge: forge.signed(aud=None),
    "another issuer": lambda forge: forge.signed(iss="other"),
    "part of the issuer": lambda forge: forge.signed(iss="trio"),
    "expired": lambda forge: forge.signed(exp=int(time.time()) - 1),
    "never expires": lambda forge: forge.signed(exp=None),
    "not yet": lambda forge: forge.signed(nbf=int(time.time()) + 60),
    "a user who is gone": lambda forge: forge.signed(sub="gone"),
    "a robot who is gone": lambda forge: forge.signed(sub="robot+gone"),
    "a certificate where none are taken": lambda forge: forge.signed(sub="cert/ann"),
    "another issuer's subject": lambda forge: forge.signed(sub="cloud/ann"),
    "a subject that is no text": lambda forge: forge.signed(sub=7),
    "too long": lambda forge: forge.signed(filler="x" * 20_000),
    "three dots": lambda forge: "...",
    "a list as header": lambda forge: f"{encoded([])}.{encoded(claims())}.x",
    "a list as claims": lambda forge: f"{encoded({'alg': 'ES256'})}.{encoded([])}.x",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forged(forgery: str, tmp_path: Path) -> None:
    """Each is refused as wrong credentials, while the token it is made from is taken."""
    access, forge = guard(tmp_path, tokens=True), Forge(tmp_path)
    good = await access.identify(f"Bearer {forge.text}", None)
    assert good is not None and good.name == "ann"
    assert access.decide(good, NAME, "push").allowed
    with pytest.raises(BadCredentials):
        await access.identify(f"Bearer {FORGERIES[forgery](forge)}", None)


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
def test_keys_are_made_once_and_private(algorithm: Any, tmp_path: Path) -> None:
    """Two processes sign with one key; nobody else can read it."""
    file = tmp_path / "new" / "key.pem"
    first = TokenIssuer(file, algorithm, "a", 300)
    second = TokenIssuer(file, "ES256", "a", 300)
    assert file.stat().st_mode & 0o777 == 0o600
    text = first.issue("ann", ALL).text
    assert jwt.get_unverified_header(text)["alg"] == algorithm
    assert second.verify(text)["sub"] == "ann"
    file.write_text("nonsense")
    with pytest.raises(ValueError, match="not a private key"):
        TokenIssuer(file, algorithm, "a", 300)


# Other issuers.

FILE = """
[[issuer]]
name = "cloud"
issuer = "https://cloud.example.com"
audience = "registry"
keys = "{home}/cloud.json"
algorithms = ["ES256", "RS256"]

[[issuer]]
name = "broker"
issuer = "https://broker.example.com"
audience = "registry"
keys = "{home}/broker.json"
decides = true
realm = "https://broker.example.com/token"

[[rule]]
repositories = ["team/**"]
who = ["cloud/ann", "@cloud/staff"]
may = ["pull"]
"""


class World:
    """Two issuers with a key each, and a guard that knows their public keys from files."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cloud = rsa.generate_private_key(65537, 2048)
        self.broker = ec.generate_private_key(ec.SECP256R1())
        self.publish("cloud", jwt.algorithms.RSAAlgorithm.to_jwk(self.cloud.public_key(), as_dict=True))
        self.publish("broker", jwt.algorithms.ECAlgorithm.to_jwk(self.broker.public_key(), as_dict=True))
        file = home / "access.toml"
        file.write_text(FILE.format(home=home))
        sources = Sources(SIGNED_IN_MAY_ALL, access=Watched(file, parse_access_file))
        self.guard = Guard(sources, look_seconds=0)

    def publish(self, name: str, key: dict[str, Any], kid: str = "one") -> None:
        document = {"keys": [{"kty": "oct", "k": "AA", "kid": "secret"}, {**key, "kid": kid, "use": "sig"}]}
        (self.home / f"{name}.json").write_text(json.dumps(document))

    def token(self, name: str, key: Any, algorithm: str, kid: str = "one", **changes: Any) -> str:
        body = claims(**{"iss": f"https://{name}.example.com", "aud": "registry", **changes})
        return "Bearer " + jwt.encode(body, key, algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


async def test_rules_speak_of_subjects_of_another_issuer(world: World) -> None:
    """By name and by group; what their tokens say of access counts for nothing."""
    for changes, allowed in (
        ({"sub": "ann"}, True),
        ({"sub": "eve"}, False),
        ({"sub": "eve", "groups": ["staff", 7]}, True),
        ({"sub": "eve", "groups": "staff"}, False),
    ):
        text = world.token("cloud", world.cloud, "RS256", **changes)
        identity = await world.guard.identify(text, None)
        assert identity is not None and identity.name == f"cloud/{changes['sub']}"
        assert world.guard.decide(identity, NAME, "pull").allowed is allowed
        assert not world.guard.decide(identity, NAME, "push").allowed


async def test_an_issuer_that_decides(world: World) -> None:
    """Its token is good for what it says, and for nothing else; clients are sent to it."""
    identity = await world.guard.identify(world.token("broker", world.broker, "ES256"), None)
    assert world.guard.decide(identity, NAME, "pull").allowed
    assert not world.guard.decide(identity, NAME, "push").allowed
    assert not world.guard.decide(identity, RepositoryName("team/b"), "pull").allowed
    wild = [{"type": "repository", "name": "**", "actions": ["pull"]}]
    identity = await world.guard.identify(world.token("broker", world.broker, "ES256", access=wild), None)
    assert not world.guard.decide(identity, NAME, "pull").allowed
    challenge = world.guard.challenge("host", NAME, "push", None)
    expected = 'Bearer realm="https://broker.example.com/token",service="registry"'
    assert challenge == f'{expected},scope="repository:team/a:pull,push"'


OTHERS: dict[str, Callable[[World], str]] = {
    "the key of another issuer": lambda w: w.token("cloud", w.broker, "ES256"),
    "an algorithm that is not listed": lambda w: w.token("cloud", w.cloud, "PS256"),
    "a secret in a set of public keys": lambda w: w.token("cloud", b"\0" * 32, "HS256", kid="secret"),
    "a key that is not published": lambda w: w.token("cloud", w.cloud, "RS256", kid="two"),
    "another audience": lambda w: w.token("cloud", w.cloud, "RS256", aud="other"),
    "expired": lambda w: w.token("cloud", w.cloud, "RS256", exp=int(time.time()) - 60),
    "an issuer nobody knows": lambda w: w.token("none", w.cloud, "RS256"),
    "no subject": lambda w: w.token("cloud", w.cloud, "RS256", sub=""),
}


@pytest.mark.parametrize("forgery", OTHERS)
async def test_forged_tokens_of_other_issuers(forgery: str, world: World) -> None:
    """Each is refused as wrong credentials."""
    with pytest.raises(BadCredentials):
        await world.guard.identify(OTHERS[forgery](world), None)


async def test_an_issuer_may_change_its_key(tmp_path: Path) -> None:
    """An unknown key is looked for, but not more often than every half minute."""
    world = World(tmp_path)
    issuer = world.guard._issuers
    assert issuer is not None
    cloud = issuer._issuers["https://cloud.example.com"]
    assert await world.guard.identify(world.token("cloud", world.cloud, "RS256"), None)
    key = rsa.generate_private_key(65537, 2048)
    world.publish("cloud", jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "two")
    with pytest.raises(BadCredentials):
        await world.guard.identify(world.token("cloud", key, "RS256", kid="two"), None)
    cloud._tried -= 60
    assert await world.guard.identify(world.token("cloud", key, "RS256", kid="two"), None)
    (tmp_path / "cloud.json").write_text("nonsense")
    cloud._tried = cloud._fetched = cloud._fetched - 7200
    assert await world.guard.identify(world.token("cloud", key, "RS256", kid="two"), None)


async def test_who_leaves_does_not_keep_the_keys_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are being fetched arrive for others, though the client that needed them first is gone."""
    world, go = World(tmp_path), threading.Event()
    text = world.token("cloud", world.cloud, "RS256")

    def slowly(source: str) -> bytes:
        assert go.wait(30)
        return Path(source).read_bytes()

    monkeypatch.setattr(issuers, "fetch_keys", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.guard.identify, text, None)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        go.set()
    assert await world.guard.identify(text, None)

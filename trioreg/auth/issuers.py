"""Tokens of other issuers: verified with the public keys that they publish (JWKS, RFC 7517).

Rules: the key decides which algorithms may be, so no token talks us into ``none``, or into HMAC with a
public key. A key is looked for only in the set of the issuer that the token names. Keys are fetched in a
thread: when first needed, when they are old, and when a token names one that we do not know, but never more
often than every `_AGAIN_SECONDS`; what we have stays in force when fetching fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from trioreg.auth.authorizer import BadCredentials
from trioreg.auth.identity import Identity
from trioreg.auth.token import scopes_of
from trioreg.auth.watched import read_bounded
from trioreg.logs import Log

_log = Log(__name__)

_AGAIN_SECONDS = 30.0
_OLD_SECONDS = 3600.0
_FETCH_SECONDS = 10.0
_MOST_BYTES = 256 * 1024
_MOST_KEYS = 64
_LEEWAY_SECONDS = 30

# Key type and curve (RFC 7518, 6.1; RFC 8037, 2) to what may be signed with it. "oct" is not here: a set
# of public keys has no secrets.
_ALGORITHMS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
}
KNOWN_ALGORITHMS = frozenset(each for row in _ALGORITHMS.values() for each in row)


class IssuerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[issuer]]`` of the access file.

    `name` begins the names of its subjects; `keys` is an https URL or a path. `decides`: what its tokens say
    in their ``access`` claim they may; else only the rules say. `realm`: where clients get such tokens.
    """

    name: str
    issuer: str
    audience: str
    keys: str
    algorithms: list[str] = msgspec.field(default_factory=lambda: ["ES256", "EdDSA", "RS256"])
    decides: bool = False
    groups_claim: str = "groups"
    realm: str = ""

    def check(self) -> None:
        """Raises ValueError."""
        if not self.name or not all(each.isalnum() or each in "._-" for each in self.name):
            raise ValueError(f"issuer name {self.name!r}: letters, digits and . _ - only")
        if self.name == "cert":
            raise ValueError("an issuer cannot be named cert: names of client certificates begin so")
        for each in self.algorithms:
            if each not in KNOWN_ALGORITHMS:
                raise ValueError(
                    f"issuer {self.name}: algorithm {each!r} is none of {sorted(KNOWN_ALGORITHMS)}"
                )
        url = urlsplit(self.keys)
        if url.scheme and url.scheme != "https" and not _is_loopback(self.keys):
            raise ValueError(f"issuer {self.name}: keys are fetched over https, or read from a file")
        if self.realm and urlsplit(self.realm).scheme not in ("https", "http"):
            raise ValueError(f"issuer {self.name}: realm is no URL")


class Issuers:
    """All of them, found by their ``iss``. Loads cryptography when there is any."""

    def __init__(self, specs: Sequence[IssuerSpec]):
        self._issuers = {each.issuer: _Issuer(each) for each in specs}

    async def identify(self, text: str, claimed: object) -> tuple[Identity, float] | None:
        """Who a token of `claimed` (its unverified ``iss``) speaks for, and until when (epoch seconds).

        None if that issuer is not one of ours. Raises BadCredentials.
        """
        issuer = self._issuers.get(claimed) if isinstance(claimed, str) else None
        return await issuer.identify(text) if issuer is not None else None


class _Issuer:
    def __init__(self, spec: IssuerSpec):
        import jwt

        self._jwt = jwt
        self._spec = spec
        self._keys: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._tried = self._fetched = float("-inf")
        self._fetching = trio.Lock()

    async def identify(self, text: str) -> tuple[Identity, float]:
        try:
            header = self._jwt.get_unverified_header(text)
            kid = header.get("kid")
            key, algorithms = await self._key(kid if isinstance(kid, str) else None)
            claims = self._jwt.decode(
                text,
                key,
                algorithms=[each for each in algorithms if each in self._spec.algorithms],
                audience=self._spec.audience,
                issuer=self._spec.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except self._jwt.InvalidTokenError as error:
            raise BadCredentials(str(error)) from None
        return self._identity(claims), float(claims["exp"])

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        spec = self._spec
        if not claims["sub"]:
            raise BadCredentials("a token without a subject")
        name = f"{spec.name}/{claims['sub']}"
        groups = claims.get(spec.groups_claim)
        named = [each for each in groups if isinstance(each, str)] if isinstance(groups, list) else []
        belongs = frozenset(f"{spec.name}/{each}" for each in named)
        if spec.decides:
            scopes = scopes_of(claims)
            return Identity(name, belongs, rights=scopes, scopes=scopes)
        return Identity(name, belongs)

    async def _key(self, kid: str | None) -> tuple[Any, tuple[str, ...]]:
        if time.monotonic() - self._fetched > _OLD_SECONDS or self._find(kid) is None:
            async with self._fetching:
                if time.monotonic() - self._tried > _AGAIN_SECONDS:
                    await self._fetch()
        found = self._find(kid)
        if found is None:
            raise BadCredentials("signed with a key that its issuer does not publish")
        return found

    def _find(self, kid: str | None) -> tuple[Any, tuple[str, ...]] | None:
        """The key of that name; a token may leave the name out where there is but one (RFC 7515, 4.1.4)."""
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        self._tried = time.monotonic()
        try:
            # Not the client's to cancel: who leaves each time would keep the keys from everybody.
            with trio.CancelScope(shield=True), trio.fail_after(_FETCH_SECONDS):
                data = await trio.to_thread.run_sync(fetch_keys, self._spec.keys, abandon_on_cancel=True)
            self._keys = self._parse(data)
        except (OSError, ValueError, RecursionError, trio.TooSlowError) as error:
            _log.error(
                "keys of an issuer cannot be had", issuer=self._spec.name, reason=str(error) or "too slow"
            )
            return
        self._fetched = time.monotonic()

    def _parse(self, data: bytes) -> dict[str, tuple[Any, tuple[str, ...]]]:
        document = json.loads(data)
        rows = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            raise ValueError("not a set of keys")
        found: dict[str, tuple[Any, tuple[str, ...]]] = {}
        for number, row in enumerate(rows[:_MOST_KEYS]):
            if not isinstance(row, dict) or row.get("use", "sig") != "sig":
                continue
            curve = row.get("crv") if row.get("kty") != "RSA" else None
            algorithms = _ALGORITHMS.get((str(row.get("kty")), curve), ())
            if "alg" in row:
                algorithms = tuple(each for each in algorithms if each == row["alg"])
            if not algorithms:
                continue
            try:
                key = self._jwt.PyJWK(row, algorithm=algorithms[0]).key
            except self._jwt.PyJWTError:
                continue
            found[str(row.get("kid", f"#{number}"))] = (key, algorithms)
        return found


def fetch_keys(source: str) -> bytes:
    """A set of keys from a file, or over https without redirects. Raises OSError or ValueError."""
    if not urlsplit(source).scheme:
        return read_bounded(Path(source))
    import http.client
    import ssl
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        """A redirect could lead to plain http, or into our own network."""

        def redirect_request(self, *_: Any) -> None:
            return None

    context = ssl.create_default_context()
    opener = urllib.request.build_opener(Stay, urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(source, headers={"Accept": "application/json"})
    try:
        with opener.open(request, timeout=_FETCH_SECONDS) as answer:
            data: bytes = answer.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:  # it is the answer as well, with its connection
            raise OSError(f"{source}: status {error.code}") from None
    except http.client.HTTPException as error:
        raise OSError(f"{source}: {error!r}") from None
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{source}: more than {_MOST_BYTES} bytes")
    return data


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")

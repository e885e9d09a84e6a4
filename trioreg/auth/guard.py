"""Access control, put together: sources of identities, the policy, and the caches that make both cheap.

Rules: what was verified is remembered for at most `_REMEMBER_SECONDS` and never longer than a token lives;
passwords and robots' tokens under a keyed hash, so that none stays in memory. Files are looked at once a
second; when any of them changed everything is forgotten, so a password, robot or rule that is gone counts no
longer than that second. Nothing here writes credentials into a log or an answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from trioreg.auth.access_file import AccessFile
from trioreg.auth.authorizer import BadCredentials, IssuedToken
from trioreg.auth.htpasswd import Htpasswd
from trioreg.auth.identity import CERTIFICATE_PREFIX, ROBOT_PREFIX, Action, Identity
from trioreg.auth.issuers import Issuers
from trioreg.auth.policy import Decision, Policy
from trioreg.auth.robots import TOKEN_PREFIX, Robots
from trioreg.auth.scopes import CATALOG, Scope
from trioreg.auth.token import MOST_CHARACTERS, TokenIssuer, scopes_of
from trioreg.auth.watched import Watched
from trioreg.oci.names import RepositoryName

_REMEMBER_SECONDS = 300.0
_LOOK_SECONDS = 1.0

# Each takes about 0.5 KB. When there are more, all are forgotten: cheaper than to order them, and seldom.
_MOST_REMEMBERED = 4096
_MOST_DECISIONS = 8192

# A token may be 16 KiB, a list of scopes; what we keep of it takes four times as much.
_MOST_REMEMBERED_CHARACTERS = 2 * 2**20

# How the base64 of every JSON object begins, and so every signed token.
_SIGNED = "Bearer eyJ"

_HOST = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]+)?|\[[0-9A-Fa-f:.]+\](?::[0-9]+)?")
_BASIC = re.compile(r"basic +([A-Za-z0-9+/=]+) *", re.IGNORECASE)
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/=-]+) *", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where identities come from; what is None is not configured.

    `policy`: in force where there is no access file. `scheme`: how clients reach us, for the URL of
    ``/auth/token``, unless `realm` is that URL. `certificates`: whether client certificates are asked for.
    """

    policy: Policy
    htpasswd: Htpasswd | None = None
    access: Watched[AccessFile] | None = None
    robots: Robots | None = None
    tokens: TokenIssuer | None = None
    certificates: bool = False
    service: str = "trioreg"
    realm: str = ""
    scheme: str = "http"

    @property
    def is_open(self) -> bool:
        """Nobody has credentials, so nobody can be asked for them."""
        return not (self.htpasswd or self.access or self.robots or self.tokens or self.certificates)


class Guard:
    """The `Authorizer` of a server that has one of these configured. `clock`: monotonic seconds."""

    def __init__(
        self,
        sources: Sources,
        *,
        read_only: bool = False,
        look_seconds: float = _LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._sources = sources
        self._read_only = read_only
        self._look_seconds = look_seconds
        self._clock = clock
        self._looked = clock()
        self._generation = 0
        self._salted = hashlib.blake2b(key=os.urandom(32), digest_size=16)
        self._known: dict[bytes | str, tuple[Identity | None, float]] = {}
        self._certificates: dict[str, Identity] = {}
        self._decisions: dict[tuple[Identity | None, RepositoryName | None, Action], Decision] = {}
        self._apply()

    def _apply(self) -> None:
        access = self._sources.access
        policy = access.current.policy if access else self._sources.policy
        self._policy = replace(policy, read_only=self._read_only)
        specs = access.current.issuers if access else ()
        self._issuers = Issuers(specs) if specs else None
        self._foreign = next((each for each in specs if each.realm), None)
        self._generation += 1
        self._forget()

    def _forget(self) -> None:
        """Decisions too: they keep the identities alive that they were made for."""
        self._characters = 0
        self._known.clear()
        self._certificates.clear()
        self._decisions.clear()

    def set_read_only(self, read_only: bool) -> None:
        """From now on; what was decided before is forgotten."""
        self._read_only = read_only
        self._apply()

    def _look(self) -> float:
        """Once in a while see whether a file changed; the time."""
        now = self._clock()
        if now - self._looked >= self._look_seconds:
            self._looked = now
            watched = (self._sources.htpasswd, self._sources.access, self._sources.robots)
            changed = [each.refresh() for each in watched if each is not None]  # all of them, each time
            if any(changed):
                self._apply()
        return now

    # Who is it?

    def remembered(self, authorization: str) -> Identity | None:
        """As `identify` begins, without what may have to wait: most requests come no further."""
        now = self._look()
        entry = self._known.get(self._remembered_as(authorization))
        return entry[0] if entry is not None and now < entry[1] else None

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        now = self._look()
        if self._sources.is_open:
            return None  # as without access control: what nobody asked for is not looked at
        if not authorization:
            return self._certified(certificate) if certificate and self._sources.certificates else None
        key = self._remembered_as(authorization)
        entry = self._known.get(key)
        if entry is not None and now < entry[1]:
            return entry[0]
        generation = self._generation
        identity, seconds = await self._verify(authorization)
        if generation == self._generation:  # else a file changed meanwhile, and it may no longer hold
            if len(self._known) >= _MOST_REMEMBERED or self._characters >= _MOST_REMEMBERED_CHARACTERS:
                self._forget()
            self._characters += len(authorization)
            self._known[key] = (identity, now + min(seconds, _REMEMBER_SECONDS))
        return identity

    def _remembered_as(self, authorization: str) -> bytes | str:
        if authorization.startswith(_SIGNED):
            return authorization  # worth nothing in a few minutes, and asked for often: a hash takes 1 µs
        salted = self._salted.copy()
        salted.update(authorization.encode("utf-8", "surrogateescape"))
        return salted.digest()

    def _certified(self, subject: str) -> Identity:
        if len(self._certificates) >= _MOST_REMEMBERED:
            self._certificates.clear()
        return self._certificates.setdefault(subject, Identity(CERTIFICATE_PREFIX + subject))

    async def _verify(self, authorization: str) -> tuple[Identity | None, float]:
        """The identity, and for how many seconds that may be believed. Raises BadCredentials."""
        if match := _BASIC.fullmatch(authorization):
            return await self._basic(match[1])
        if match := _BEARER.fullmatch(authorization):
            text = match[1]
            return self._robot(text) if text.startswith(TOKEN_PREFIX) else await self._bearer(text)
        raise BadCredentials("neither Basic nor Bearer credentials")

    async def _basic(self, encoded: str) -> tuple[Identity | None, float]:
        """RFC 7617. Podman and skopeo send an empty name and password when they have none."""
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise BadCredentials("Basic credentials that are not base64 of UTF-8") from None
        if not user and not password:
            return None, _REMEMBER_SECONDS
        if user.startswith(ROBOT_PREFIX):
            identity, seconds = self._robot(password)
            if identity.name == user:
                return identity, seconds
        elif self._sources.htpasswd is not None and await self._sources.htpasswd.check(user, password):
            return Identity(user), _REMEMBER_SECONDS
        raise BadCredentials("unknown user or wrong password")

    def _robot(self, token: str) -> tuple[Identity, float]:
        robot = self._sources.robots.check(token) if self._sources.robots else None
        if robot is None:
            raise BadCredentials("unknown robot or wrong token")
        left = robot.expires - time.time() if robot.expires else _REMEMBER_SECONDS
        return robot.identity(), left

    async def _bearer(self, text: str) -> tuple[Identity | None, float]:
        tokens = self._sources.tokens
        if len(text) > MOST_CHARACTERS or (tokens is None and not self._issuers):
            raise BadCredentials("no such token")
        import jwt  # loaded by those who verify

        try:
            header = jwt.get_unverified_header(text)
            if tokens is not None and tokens.is_ours(header):
                claims = tokens.verify(text)
                return self._named(claims["sub"], scopes_of(claims)), claims["exp"] - time.time()
            claimed = jwt.decode(text, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError as error:
            raise BadCredentials(str(error)) from None
        found = await self._issuers.identify(text, claimed) if self._issuers else None
        if found is None:
            raise BadCredentials("a token of nobody we know")
        identity, until = found
        return identity, until - time.time()

    def _named(self, subject: str, scopes: tuple[Scope, ...]) -> Identity | None:
        """Who one of our own tokens was issued to, if they are still known."""
        sources = self._sources
        if not subject:
            return None
        if subject.startswith(ROBOT_PREFIX):
            robot = sources.robots.get(subject.removeprefix(ROBOT_PREFIX)) if sources.robots else None
            if robot is not None:
                return replace(robot.identity(), scopes=scopes)
        elif subject.startswith(CERTIFICATE_PREFIX):
            if sources.certificates:
                return Identity(subject, scopes=scopes)
        elif sources.htpasswd is not None and sources.htpasswd.knows(subject):
            return Identity(subject, scopes=scopes)
        raise BadCredentials("a token of someone who is gone")

    # May they?

    def decide(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision:
        key = (identity, repository, action)
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= _MOST_DECISIONS:
                self._decisions.clear()
            decision = self._decisions[key] = self._policy.decide(identity, repository, action)
        return decision

    def visible(self, identity: Identity | None) -> Callable[[RepositoryName], bool] | None:
        if self._sources.is_open:
            return None
        if identity is not None and identity.scopes is not None and CATALOG in identity.scopes:
            identity = replace(identity, scopes=None)
        policy = self._policy
        return lambda name: policy.decide(identity, name, "pull").allowed

    # What can they do about it?

    def challenge(
        self, host: str, repository: RepositoryName | None, action: Action, error: str | None
    ) -> str | None:
        sources = self._sources
        if sources.is_open:
            return None
        foreign = self._foreign
        if action == "admin" or (foreign is None and sources.tokens is None):
            return f'Basic realm="{sources.service}", charset="UTF-8"'
        if foreign is not None:
            realm, service = foreign.realm, foreign.audience
        else:
            known = host if _HOST.fullmatch(host) else "localhost"
            realm, service = sources.realm or f"{sources.scheme}://{known}/auth/token", sources.service
        parts = [f'Bearer realm="{realm}"', f'service="{service}"']
        if scope := _needed(repository, action):
            parts.append(f'scope="{scope}"')
        if error:
            parts.append(f'error="{error}"')
        return ",".join(parts)

    def issue(self, identity: Identity | None, asked: Iterable[Scope]) -> IssuedToken | None:
        tokens = self._sources.tokens
        if tokens is None:
            return None
        granted = self._policy.intersection(identity, asked)
        return tokens.issue(identity.name if identity else "", granted)


def _needed(repository: RepositoryName | None, action: Action) -> str | None:
    """The scope to ask for; who pushes also looks whether blobs are there."""
    if repository is not None:
        return f"repository:{repository}:{'pull,push' if action == 'push' else action}"
    return str(CATALOG) if action == "catalog" else None

"""Robot tokens: names for machines, with a secret and scopes of their own, in one file each.

::

    <auth.directory>/robots/<name>.json     SHA-256 of the token, scopes, when it was made and when it ends

Rule: the token is shown once, when it is made, and only its hash is kept; it has 256 random bits, so the hash
needs no salt and no slowness. A robot is revoked by removing its file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from trioreg.auth.identity import ROBOT_PREFIX, Identity
from trioreg.auth.scopes import ACTIONS, Scope, parse_scope
from trioreg.auth.watched import is_young, read_bounded, stamp_of
from trioreg.oci.patterns import check_pattern

# Said of a token wherever one is found by accident; scanners look for such words.
TOKEN_PREFIX = "trioreg-robot."

_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", re.ASCII)
_NAME_MOST = 64


class Robot(msgspec.Struct, frozen=True):
    """As it stands in its file (JSON). Times in seconds since the epoch."""

    version: Literal[1]
    name: str
    secret: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    scopes: list[str]
    created: float
    expires: float | None = None

    def identity(self) -> Identity:
        scopes = tuple(scope for each in self.scopes if (scope := parse_scope(each)) is not None)
        return Identity(ROBOT_PREFIX + self.name, rights=scopes)

    def is_over(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires


class Robots:
    """The robots in a directory, which need not exist."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._stamp = self._look()

    def refresh(self) -> bool:
        """Whether any came or went since the last look."""
        stamp = self._look()
        changed = stamp != self._stamp or (stamp is not None and is_young(stamp))
        self._stamp = stamp
        return changed

    def get(self, name: str) -> Robot | None:
        """The robot, unless it is unknown or its time is over. A broken file is no robot."""
        if not is_name(name):
            return None
        try:
            robot = msgspec.json.decode(read_bounded(self._file(name)), type=Robot)
        except (OSError, ValueError):
            return None
        return None if robot.name != name or robot.is_over(time.time()) else robot

    def check(self, token: str) -> Robot | None:
        """The robot whose token this is."""
        name, _, secret = token.removeprefix(TOKEN_PREFIX).rpartition(".")
        robot = self.get(name) if token.startswith(TOKEN_PREFIX) and secret else None
        if robot is None or not hmac.compare_digest(robot.secret, _hash(token)):
            return None
        return robot

    def create(self, name: str, scopes: Sequence[str], seconds: float | None) -> str:
        """Make a robot; its token. ValueError for a name or scope that is none, FileExistsError if taken."""
        if not is_name(name):
            raise ValueError(f"{name!r} is not a name for a robot: a-z, 0-9, and . _ - between them")
        for each in scopes:
            check_scope(each)
        token = f"{TOKEN_PREFIX}{name}.{secrets.token_urlsafe(32)}"
        now = time.time()
        robot = Robot(1, name, _hash(token), list(scopes), now, now + seconds if seconds else None)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._file(name), msgspec.json.encode(robot))
        return token

    def revoke(self, name: str) -> bool:
        """Whether there was one."""
        try:
            os.unlink(self._file(name))
        except FileNotFoundError:
            return False
        _sync(self._directory)
        return True

    def all(self) -> Iterator[Robot]:
        """Every robot by name, also those whose time is over."""
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return
        for each in names:
            if each.endswith(".json") and is_name(each.removesuffix(".json")):
                yield msgspec.json.decode(read_bounded(self._directory / each), type=Robot)

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _look(self) -> tuple[int, int, int] | None:
        try:
            return stamp_of(self._directory)
        except FileNotFoundError:
            return None


def is_name(text: str) -> bool:
    return len(text) <= _NAME_MOST and _NAME.fullmatch(text) is not None


def check_scope(text: str) -> Scope:
    """A scope that a robot may be given, or ValueError."""
    scope = parse_scope(text)
    if scope is None or scope.kind != "repository" or not scope.actions <= ACTIONS | {"*"}:
        raise ValueError(f"{text!r} is not a scope: write repository:PATTERN:pull,push,delete")
    check_pattern(scope.name)
    return scope


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only we may read, whole and durable. FileExistsError if there is one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

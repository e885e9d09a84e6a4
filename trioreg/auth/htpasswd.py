"""Passwords: an htpasswd file with bcrypt hashes (``htpasswd -B``).

Rules: a check costs its 50 ms or more in a thread, of which few run at once and few wait; the rest is told
to come again. One address has less than `_GREED` times what is left of these places (docs/limits.md), so who
guesses keeps nobody elsewhere from logging in. A name that does not exist costs the same as one that does.
Who asks for a check that is running already waits for its result.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import trio

from trioreg.auth.authorizer import asker
from trioreg.auth.watched import Watched
from trioreg.oci.errors import ErrorCode, RegistryError

# Two threads hash 20 to 40 passwords a second; more would take processors from transfers.
_AT_ONCE = 2

# Who comes behind 64 others would wait for seconds: 429 tells clients to come again.
_MOST_WAITING = 64

_GREED = 8

# bcrypt looks at so many bytes; htpasswd cuts off the rest as well, and the library refuses more.
_BCRYPT_BYTES = 72

_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
_USER = re.compile(r"[^\x00-\x1f\x7f/:]{1,128}")
_RESERVED = ("robot+",)


class Htpasswd:
    """Raises OSError or ValueError if the file cannot be used."""

    def __init__(self, path: Path):
        import bcrypt  # here: only who has passwords pays for it

        self._check_password = bcrypt.checkpw
        self._file = Watched(path, parse_htpasswd)
        self._threads = trio.CapacityLimiter(_AT_ONCE)
        self._salt = os.urandom(16)
        self._running: dict[bytes, _Check] = {}
        self._asked: Counter[str] = Counter()

    def refresh(self) -> bool:
        return self._file.refresh()

    def knows(self, user: str) -> bool:
        return user in self._file.current

    async def check(self, user: str, password: str) -> bool:
        """Whether that is the user's password. Raises TOOMANYREQUESTS. Cancelling leaves a thread to end."""
        users = self._file.current
        known = users.get(user)
        against = known or slowest(users)
        if against is None:
            return False
        key = hashlib.blake2b(f"{user}\0{password}".encode(), key=self._salt).digest() + against
        while key in self._running:
            check = self._running[key]
            await check.ended.wait()
            if check.result is not None:
                return check.result and known is not None
        return await self._run(key, password, against) and known is not None

    async def _run(self, key: bytes, password: str, against: bytes) -> bool:
        who = asker.get()
        if self._asked[who] >= _GREED * (_MOST_WAITING - len(self._running)):
            raise RegistryError(ErrorCode.TOOMANYREQUESTS, headers={"Retry-After": "2"})
        check = self._running[key] = _Check()
        self._asked[who] += 1
        try:
            check.result = await trio.to_thread.run_sync(
                self._check_password,
                password.encode()[:_BCRYPT_BYTES],
                against,
                limiter=self._threads,
                abandon_on_cancel=True,
            )
            return check.result
        finally:
            # Without a result (cancelled) one of those who wait checks in our place.
            del self._running[key]
            self._asked[who] -= 1
            self._asked += Counter()  # without those that have none left
            check.ended.set()


class _Check:
    def __init__(self) -> None:
        self.ended = trio.Event()
        self.result: bool | None = None


def parse_htpasswd(data: bytes) -> dict[str, bytes]:
    """Hashes by user. ValueError names the line; no other kind of hash is taken, for they are weak."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        name, _, hashed = line.partition(b":")
        try:
            user = name.decode()
        except UnicodeDecodeError:
            raise ValueError(f"line {number}: the name is not UTF-8") from None
        if not _USER.fullmatch(user) or user.startswith(_RESERVED):
            raise ValueError(f"line {number}: not a name for a user (no /, :, and not robot+...)")
        if not _HASH.fullmatch(hashed):
            raise ValueError(f"line {number}: not a bcrypt hash; make it with htpasswd -B")
        users[user] = hashed
    return users


def slowest(users: dict[str, bytes]) -> bytes | None:
    """The hash that a name which does not exist is checked against."""
    return max(users.values(), key=lambda each: each[4:6], default=None)

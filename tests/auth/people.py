"""Files of access control for tests: users, rules, robots; and what they show."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import bcrypt

from trioreg.auth.access_file import parse_access_file
from trioreg.auth.guard import Guard, Sources
from trioreg.auth.htpasswd import Htpasswd
from trioreg.auth.policy import SIGNED_IN_MAY_ALL
from trioreg.auth.robots import Robots
from trioreg.auth.token import TokenIssuer
from trioreg.auth.watched import Watched

PASSWORDS = {"ann": "ann's secret", "eve": "eve's: sëcret", "root": "x" * 100}

RULES = """
[groups]
team = ["ann"]

[[rule]]
repositories = ["team/**"]
who = ["@team"]
may = ["pull", "push", "delete"]

[[rule]]
repositories = ["public/**"]
who = ["*"]
may = ["pull"]

[[rule]]
who = ["root"]
may = ["pull", "push", "delete", "admin"]
"""


@cache
def hashed(password: str) -> str:
    """The cheapest bcrypt hash: 1 ms."""
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()


def write_htpasswd(home: Path, passwords: Mapping[str, str] = PASSWORDS) -> Path:
    file = home / "htpasswd"
    file.write_text("".join(f"{name}:{hashed(password)}\n" for name, password in passwords.items()))
    return file


def write_rules(home: Path, text: str = RULES) -> Path:
    file = home / "access.toml"
    file.write_text(text)
    return file


def basic(name: str, password: str | None = None) -> dict[str, str]:
    """The header of a user, with their right password unless another is given."""
    shown = PASSWORDS[name] if password is None else password
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{shown}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def guard(home: Path, *, rules: bool = True, tokens: bool = False, read_only: bool = False) -> Guard:
    """Looks at its files each time, where a server does once a second."""
    sources = Sources(
        SIGNED_IN_MAY_ALL,
        htpasswd=Htpasswd(write_htpasswd(home)),
        access=Watched(write_rules(home), parse_access_file) if rules else None,
        robots=Robots(home / "robots"),
        tokens=TokenIssuer(home / "key.pem", "ES256", "trioreg", 300) if tokens else None,
    )
    return Guard(sources, read_only=read_only, look_seconds=0)

"""The access file (TOML): groups, rules, and issuers whose tokens are taken.

::

    [groups]
    team = ["alice", "robot+ci"]

    [[rule]]
    repositories = ["team/**"]
    who = ["@team"]
    may = ["pull", "push"]

Rule: what is not understood refuses the whole file, with the place; a typing error must not open a door.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Literal

import msgspec

from trioreg.auth.issuers import IssuerSpec
from trioreg.auth.policy import EVERYONE, SIGNED_IN, Policy, Rule
from trioreg.auth.scopes import ANYWHERE
from trioreg.oci.patterns import check_pattern


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    who: list[str]
    may: list[Literal["pull", "push", "delete", "admin"]]
    repositories: list[str] = msgspec.field(default_factory=lambda: [ANYWHERE])
    excluding: list[str] = msgspec.field(default_factory=list)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    groups: dict[str, list[str]] = msgspec.field(default_factory=dict)
    rule: list[_Rule] = msgspec.field(default_factory=list)
    issuer: list[IssuerSpec] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AccessFile:
    policy: Policy
    issuers: tuple[IssuerSpec, ...]


def parse_access_file(data: bytes) -> AccessFile:
    """Raises ValueError that says where."""
    try:
        file = msgspec.convert(tomllib.loads(data.decode()), _File)
    except msgspec.ValidationError as error:
        raise ValueError(f"access file: {error}") from None
    except ValueError as error:  # not UTF-8, not TOML
        raise ValueError(f"access file: {error}") from None
    if SIGNED_IN in file.groups:
        raise ValueError(f"access file: the group {SIGNED_IN} is everybody who is signed in")
    for members in file.groups.values():
        _check_members(members)
    rules = [_checked(number, each, file.groups) for number, each in enumerate(file.rule, start=1)]
    for name in ("name", "issuer"):
        values = [getattr(each, name) for each in file.issuer]
        if len(set(values)) != len(values):
            raise ValueError(f"access file: two issuers have one {name}")
    for issuer in file.issuer:
        issuer.check()
    return AccessFile(Policy(rules, file.groups), tuple(file.issuer))


def _checked(number: int, rule: _Rule, groups: dict[str, list[str]]) -> Rule:
    where = f"access file: rule {number}"
    if not (rule.who and rule.may and rule.repositories):
        raise ValueError(f"{where}: who, may and repositories must not be empty")
    for each in rule.who:
        # Groups of other issuers have their name before a slash, and are not listed here.
        group = each[1:]
        if each.startswith("@") and group not in groups and group != SIGNED_IN and "/" not in group:
            raise ValueError(f"{where}: there is no group {group}")
    for pattern in (*rule.repositories, *rule.excluding):
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return Rule(number, rule.who, rule.may, rule.repositories, rule.excluding)


def _check_members(members: list[str]) -> None:
    for each in members:
        if not each or each.startswith("@") or each == EVERYONE:
            raise ValueError(f"access file: {each!r} is not a member; groups have names, no groups")

"""Who asks: a name that something vouched for, or nobody.

Rule: an identity is made by authentication and by nothing else. Anonymous is ``None``, never an `Identity`
with an empty name. Names of different sources never meet: a user of htpasswd has a plain name, a robot is
``robot+NAME``, a certificate ``cert/NAME``, a subject of another issuer ``ISSUER/SUBJECT``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from trioreg.auth.scopes import Scope

# `list`: the question whether we are here (GET /v2/); `catalog`: the names of repositories.
Action: TypeAlias = Literal["pull", "push", "delete", "admin", "list", "catalog"]

ROBOT_PREFIX = "robot+"
CERTIFICATE_PREFIX = "cert/"


@dataclass(frozen=True, slots=True, eq=False)  # compared by object: a decision is remembered for it
class Identity:
    """`name` is unique among all sources, so it can be counted, limited and logged.

    `rights`: what a robot, or a token of an issuer that decides itself, may do whatever the rules say; None
    for those whom only the rules speak of. `scopes`: what the token was issued for, a limit on all of that;
    None without a token. `groups` are without their ``@``.
    """

    name: str
    groups: frozenset[str] = frozenset()
    rights: tuple[Scope, ...] | None = None
    scopes: tuple[Scope, ...] | None = None

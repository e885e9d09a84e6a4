"""Scopes: what a token is asked for, issued for, or a robot is made for.

``repository:NAME:pull,push``, ``registry:catalog:*``; grammar and meaning are those of
https://distribution.github.io/distribution/spec/auth/scope/. Where we write scopes ourselves (robots), NAME
may be a pattern: ``*`` stands for anything within one component, ``**`` for any number of components.

Rule: a scope that we do not understand grants nothing, and it is no error to ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trioreg.oci.patterns import matches

ACTIONS = frozenset({"pull", "push", "delete"})
ANYWHERE = "**"


@dataclass(frozen=True, slots=True)
class Scope:
    kind: str
    name: str
    actions: frozenset[str]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(sorted(self.actions))}"

    def covers(self, kind: str, name: str, action: str) -> bool:
        return (
            kind == self.kind
            and (action in self.actions or "*" in self.actions)
            and (name == self.name or (("*" in self.name or "?" in self.name) and matches(self.name, name)))
        )


# The list that the catalog is: anybody who is told that it exists may ask for this.
CATALOG = Scope("registry", "catalog", frozenset({"*"}))

# Names in a token are exact, and a request names few repositories: docker at most two.
MOST_SCOPES = 32


def parse_scope(text: str) -> Scope | None:
    """One scope, or None. ``repository(plugin):…`` is a repository; NAME may contain ``:``."""
    kind, _, rest = text.partition(":")
    name, _, actions = rest.rpartition(":")
    kind = kind.partition("(")[0]
    wanted = frozenset(each for each in actions.split(",") if each)
    if not (kind and name and wanted):
        return None
    return Scope(kind, name, wanted)


def parse_scopes(texts: Iterable[str]) -> list[Scope]:
    """The scopes in query values, each of which may hold several, separated by spaces."""
    parts = [part for text in texts for part in text.split(" ") if part][:MOST_SCOPES]
    return [scope for part in parts if (scope := parse_scope(part)) is not None]


def covered(scopes: Iterable[Scope], kind: str, name: str, action: str) -> bool:
    return any(scope.covers(kind, name, action) for scope in scopes)

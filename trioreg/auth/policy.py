"""Who may do what: groups, rules, and the one place that decides.

Rules of the rules: they only grant, and what nothing grants is denied; their order has no meaning. A
decision says why, so that `trioreg auth explain` and the server cannot differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from trioreg.auth.identity import Action, Identity
from trioreg.auth.scopes import ANYWHERE, CATALOG, Scope, covered
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName, parse_name
from trioreg.oci.patterns import matches

EVERYONE = "*"  # also who is not signed in
SIGNED_IN = "users"  # the group of all who are, but for those whose own scopes say what they may


@dataclass(frozen=True, slots=True)
class Rule:
    """`who` may do what `may` lists in repositories that fit `repositories` and not `excluding`.

    `who`: ``*``, ``@group``, or a name in which ``*`` stands for anything. `number` counts from 1, as they
    stand in their file.
    """

    number: int
    who: Sequence[str]
    may: Sequence[str]
    repositories: Sequence[str] = (ANYWHERE,)
    excluding: Sequence[str] = ()

    def __str__(self) -> str:
        but = f" excluding {', '.join(self.excluding)}" if self.excluding else ""
        where = ", ".join(self.repositories) + but
        return f"rule {self.number}: {', '.join(self.who)} may {', '.join(self.may)} in {where}"

    def reaches(self, repository: RepositoryName | None) -> bool:
        """None is the registry as a whole: only a rule for every repository reaches that."""
        if repository is None:
            return ANYWHERE in self.repositories and not self.excluding
        return any(matches(each, repository) for each in self.repositories) and not any(
            matches(each, repository) for each in self.excluding
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """`narrow`: who asks may do it, but shows a token that was not issued for it. `closed`: nobody may."""

    allowed: bool
    why: str
    narrow: bool = False
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """`groups`: members of each, as in `Rule.who`. `read_only` denies every change."""

    rules: Sequence[Rule] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    read_only: bool = False

    def decide(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision:
        if self.read_only and action in ("push", "delete"):
            return Decision(False, "the registry is read-only", closed=True)
        if action in ("list", "catalog"):
            decision = self._listing(identity)
        else:
            decision = self._grant(identity, repository, action)
        if not decision.allowed or identity is None or identity.scopes is None:
            return decision
        return _within(identity.scopes, repository, action, decision)

    def intersection(self, identity: Identity | None, asked: Iterable[Scope]) -> list[Scope]:
        """Of the scopes asked for, what the rules allow; for issuing a token."""
        found = []
        for scope in asked:
            if scope.kind == CATALOG.kind and scope.name == CATALOG.name:
                granted = self.decide(identity, None, "catalog").allowed and "*" in scope.actions
                found += [CATALOG] if granted else []
            elif scope.kind == "repository" and (name := _name(scope.name)) is not None:
                actions = self._actions(identity, name, scope.actions)
                found += [Scope("repository", scope.name, actions)] if actions else []
        return found

    def _actions(
        self, identity: Identity | None, name: RepositoryName, wanted: frozenset[str]
    ) -> frozenset[str]:
        actions: tuple[Action, ...] = ("pull", "push", "delete")
        return frozenset(
            each
            for each in actions
            if (each in wanted or "*" in wanted) and self.decide(identity, name, each).allowed
        )

    def _listing(self, identity: Identity | None) -> Decision:
        """To look at the catalog, of which one sees what one may pull, and to be told that we are here."""
        if identity is not None:
            return Decision(True, "whoever is signed in may list what they may pull")
        for rule in self.rules:
            if EVERYONE in rule.who:
                return Decision(True, str(rule))
        return Decision(False, "no rule is for everyone")

    def _grant(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision:
        if identity is not None and identity.rights is not None and repository is not None:
            for scope in identity.rights:
                if scope.covers("repository", repository, action):
                    return Decision(True, f"its own scope {scope}")
        for rule in self.rules:
            if action in rule.may and rule.reaches(repository) and self._is_meant(rule.who, identity):
                return Decision(True, str(rule))
        return Decision(False, f"no rule grants {action}")

    def _is_meant(self, who: Sequence[str], identity: Identity | None) -> bool:
        if EVERYONE in who:
            return True
        if identity is None:
            return False
        return any(
            self._in_group(each[1:], identity) if each.startswith("@") else fnmatchcase(identity.name, each)
            for each in who
        )

    def _in_group(self, group: str, identity: Identity) -> bool:
        if group == SIGNED_IN:
            return identity.rights is None
        return group in identity.groups or any(
            fnmatchcase(identity.name, member) for member in self.groups.get(group, ())
        )


# Without rules: who is signed in may do everything but administer.
SIGNED_IN_MAY_ALL = Policy((Rule(1, (f"@{SIGNED_IN}",), ("pull", "push", "delete")),))
OPEN_MAY_ALL = Policy((Rule(1, (EVERYONE,), ("pull", "push", "delete", "admin")),))


def _within(
    scopes: Sequence[Scope], repository: RepositoryName | None, action: Action, decision: Decision
) -> Decision:
    """A token counts for what it was issued for; to be told that we are here, any does."""
    if repository is not None:
        inside = covered(scopes, "repository", repository, action)
    else:
        inside = action == "list" or (
            action == "catalog" and covered(scopes, CATALOG.kind, CATALOG.name, "*")
        )
    return decision if inside else Decision(False, "the token was not issued for it", narrow=True)


def _name(text: str) -> RepositoryName | None:
    try:
        return parse_name(text)
    except RegistryError:
        return None

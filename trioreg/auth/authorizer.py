"""The questions that access control answers: who is it, may they, and what can they do about it.

Rule: `identify` and `decide` are asked once for a request, before anything of its body is read. Answers of
`decide` are immediate; only `identify` may have to compute or fetch something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from trioreg.auth.identity import Action, Identity
from trioreg.auth.policy import Decision
from trioreg.auth.scopes import Scope
from trioreg.oci.names import RepositoryName

__all__ = ["Action", "AllowAll", "Authorizer", "BadCredentials", "IssuedToken", "asker"]


# The address whose credentials a task looks at; "" if unknown.
asker: ContextVar[str] = ContextVar("asker", default="")


class BadCredentials(Exception):
    """Credentials were shown and they are wrong, or nothing that we understand."""


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """`issued` in seconds since the epoch, `seconds` from then on."""

    text: str
    issued: int
    seconds: int


class Authorizer(Protocol):
    """`identity` None is anonymous; `repository` None is what concerns the whole registry."""

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        """Who sent this ``Authorization``, or holds the client certificate of this (verified) subject.

        Raises BadCredentials, and RegistryError TOOMANYREQUESTS when too many are being checked.
        """

    def remembered(self, authorization: str) -> Identity | None:
        """Who `identify` has found for the same and would find again, at once; None: ask `identify`."""

    def decide(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision: ...

    def visible(self, identity: Identity | None) -> Callable[[RepositoryName], bool] | None:
        """Which repositories they may know of; None for all there are."""

    def challenge(
        self, host: str, repository: RepositoryName | None, action: Action, error: str | None
    ) -> str | None:
        """``WWW-Authenticate`` for a request to `host`; None if no credentials could help (RFC 9110, 11.6.1).

        `error`: of RFC 6750, 3.1, or None when no credentials were shown.
        """

    def issue(self, identity: Identity | None, asked: Iterable[Scope]) -> IssuedToken | None:
        """A token for what they ask and may; None if we issue none."""


_YES = Decision(True, "there is no access control")


class AllowAll:
    """A registry without access control: for a lab, or behind a proxy that has it."""

    async def identify(self, authorization: str | None, certificate: str | None) -> Identity | None:
        return None

    def remembered(self, authorization: str) -> Identity | None:
        return None

    def decide(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> Decision:
        return _YES

    def visible(self, identity: Identity | None) -> None:
        return None

    def challenge(
        self, host: str, repository: RepositoryName | None, action: Action, error: str | None
    ) -> str | None:
        return None

    def issue(self, identity: Identity | None, asked: Iterable[Scope]) -> IssuedToken | None:
        return None

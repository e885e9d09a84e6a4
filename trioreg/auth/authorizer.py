"""The two questions that access control answers: who is it, and may they?

Rule: both are asked once for a request, before anything of its body is read. `identify` and `authorize`
return, or raise UNAUTHORIZED (401) or DENIED (403); `allows` only says.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from trioreg.auth.identity import Identity
from trioreg.oci.names import RepositoryName

Action: TypeAlias = Literal["pull", "push", "delete", "list", "admin"]


class Authorizer(Protocol):
    """`identity` None is anonymous; `repository` None is what concerns the whole registry."""

    async def identify(self, authorization: str | None) -> Identity | None:
        """Who sent this ``Authorization``. Raises UNAUTHORIZED for credentials that are wrong."""

    async def authorize(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> None: ...

    def allows(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> bool: ...


class AllowAll:
    """A registry without access control: for a lab, or behind a proxy that has it."""

    async def identify(self, authorization: str | None) -> Identity | None:
        return None

    async def authorize(
        self, identity: Identity | None, repository: RepositoryName | None, action: Action
    ) -> None:
        return None

    def allows(self, identity: Identity | None, repository: RepositoryName | None, action: Action) -> bool:
        return True

"""The one question that access control answers.

Rule: `authorize` is called once for a request, before anything of its body is read. It returns, or raises
UNAUTHORIZED (401) or DENIED (403).
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from trioreg.oci.names import RepositoryName

Action: TypeAlias = Literal["pull", "push", "delete", "list"]


class Authorizer(Protocol):
    async def authorize(
        self, identity: str | None, repository: RepositoryName | None, action: Action
    ) -> None:
        """`repository` is None for what concerns the whole registry; `identity` None is anonymous."""


class AllowAll:
    """A registry without access control: for a lab, or behind a proxy that has it."""

    async def authorize(
        self, identity: str | None, repository: RepositoryName | None, action: Action
    ) -> None:
        return None

"""Quotas: how many bytes and tags repositories may have.

A rule is a pattern of names and a number. A pattern that ends with ``/`` is a namespace: the number is for
all repositories below it together. Any other is for each repository by itself, and the first that matches
counts. Both kinds hold at once.

Rule: what counts is looked at and the link that adds to it is made in one lock between processes, so a quota
is never passed, not by a byte. What is looked at earlier only saves a client its time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, TypeAlias

from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName, Tag
from trioreg.oci.patterns import matches
from trioreg.storage import layout
from trioreg.storage.base import ObjectStore
from trioreg.storage.usage import Usage

Rules: TypeAlias = tuple[tuple[str, int], ...]


class Room(NamedTuple):
    """What a rule leaves: `scope` is a repository, or a namespace with its slash. Both numbers in bytes."""

    scope: str
    limit: int
    used: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    def exceeded(self, asked: int | None) -> RegistryError:
        """What says so to the client; `asked` bytes were to be added, None if only the end would tell."""
        detail = {"reason": "too many bytes", "for": self.scope, "limit": self.limit, "used": self.used}
        return RegistryError(
            ErrorCode.QUOTA_EXCEEDED, detail if asked is None else {**detail, "asked": asked}
        )


def nothing(_scope: str) -> int:
    return 0


class Quotas:
    """`sizes` and `tags` are rules in their order, with bytes and numbers; both may be replaced."""

    def __init__(self, objects: ObjectStore, usage: Usage, sizes: Rules = (), tags: Rules = ()):
        self._objects = objects
        self._usage = usage
        self.sizes = sizes
        self.tags = tags

    async def room(self, name: RepositoryName, on_the_way: Callable[[str], int] = nothing) -> Room | None:
        """The least that a rule leaves to a repository now; None where there is none.

        `on_the_way`: bytes in a repository or namespace that count as if they were linked.
        """
        rooms = []
        for scope, limit in _rules_for(self.sizes, name):
            used = await self._used(scope) + on_the_way(scope)
            rooms.append(Room(scope, limit, used))
        return min(rooms, key=lambda room: room.left, default=None)

    async def check(
        self, name: RepositoryName, size: int, on_the_way: Callable[[str], int] = nothing
    ) -> None:
        """Raises QUOTA_EXCEEDED unless `size` bytes more have room now. `on_the_way` as above."""
        room = await self.room(name, on_the_way)
        if room is not None and size > room.left:
            raise room.exceeded(size)

    @asynccontextmanager
    async def adding(self, name: RepositoryName, size: int, tag: Tag | None = None) -> AsyncIterator[None]:
        """Add `size` bytes, and a tag, to a repository in here. Raises QUOTA_EXCEEDED for want of room."""
        if not self.concern(name):
            yield
            return
        async with self._alone(name):
            if size:
                await self.check(name, size)
            if tag is not None:
                await self._check_tag(name, tag)
            yield

    def concern(self, name: RepositoryName) -> bool:
        """Whether there is a rule for a repository."""
        return bool(_rules_for(self.sizes, name) or _rules_for(self.tags, name))

    def _alone(self, name: RepositoryName) -> AbstractAsyncContextManager[None]:
        """Be the only one, in all processes, who adds to what counts for a repository.

        One lock, and not one for each rule: two names may share a file. The shortest namespace is that of all
        others that the repository is in, so whoever counts for the same rule takes the same lock.
        """
        scopes = [scope for scope, _ in _rules_for(self.sizes, name) if scope.endswith("/")]
        return self._objects.exclusive("quota", min(scopes, key=len, default=str(name)))

    async def _check_tag(self, name: RepositoryName, tag: Tag) -> None:
        """Raises QUOTA_EXCEEDED unless the repository has that tag, or may have one more."""
        rules = [limit for scope, limit in _rules_for(self.tags, name) if scope == name]
        if not rules or await self._objects.stamp(layout.tag_link(name, tag)) is not None:
            return
        tags = len(await self._objects.children(layout.tags(name)))
        if tags >= rules[0]:
            detail = {"reason": "too many tags", "repository": name, "limit": rules[0], "tags": tags}
            raise RegistryError(ErrorCode.QUOTA_EXCEEDED, detail)

    async def _used(self, scope: str) -> int:
        if scope.endswith("/"):
            return await self._usage.of_namespace(scope)
        return await self._usage.of_repository(RepositoryName(scope))


def _rules_for(rules: Rules, name: RepositoryName) -> list[tuple[str, int]]:
    """Every rule that holds for a repository: (its own name or a namespace, number)."""
    found = [(scope, limit) for scope, limit in rules if scope.endswith("/") and name.startswith(scope)]
    own = next((n for pattern, n in rules if not pattern.endswith("/") and matches(pattern, name)), None)
    return found if own is None else [(str(name), own), *found]

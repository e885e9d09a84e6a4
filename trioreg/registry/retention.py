"""Retention: remove tags that no reason keeps, by patterns of repositories and tags.

Rules: the first rule whose patterns match decides about a tag, and a tag without a rule stays. It stays
while one of the rule's reasons holds: it is among the `newest`, was set in the last `days`, or pulled in the
last `pulled` days. What `keep` matches stays whatever a rule says. Only tags are removed, never manifests;
and only a tag that is, under its lock, what it was when it was looked at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from heapq import heappush, heappushpop
from typing import NamedTuple, TypeAlias

import msgspec
import trio

from trioreg.logs import Log
from trioreg.oci.digest import Digest
from trioreg.oci.names import RepositoryName, Tag
from trioreg.oci.patterns import matches
from trioreg.registry.collected import Removed, tell_nobody
from trioreg.registry.immutable import TagPatterns, is_immutable
from trioreg.registry.pulls import DAY, last_pull, noted_since
from trioreg.storage import layout
from trioreg.storage.catalog import Catalog
from trioreg.storage.collecting import CollectableStorage
from trioreg.storage.links import Links

_log = Log(__name__)

# Of the tags that went, so many are named: about 1 MB.
_NAMED = 10_000


class Rule(NamedTuple):
    """Patterns of repositories and tags; how many are kept, and for how many days. 0 is no reason."""

    names: str
    tags: str
    newest: int = 0
    days: int = 0
    pulled: int = 0


# The same as settings give them.
RetentionRules: TypeAlias = tuple[tuple[str, str, int, int, int], ...]

# When a tag was set, and its name to tell those of one moment apart.
Age: TypeAlias = tuple[float, str]


def stays(rule: Rule, age: Age, pulled: float, newest: Age, now: float) -> bool:
    """Whether a reason keeps a tag. `newest`: the age of the oldest that is kept for being new."""
    if rule.newest and age >= newest:
        return True
    if rule.days and now - age[0] < rule.days * DAY:
        return True
    return bool(rule.pulled) and now - max(age[0], pulled) < rule.pulled * DAY


class Retained(msgspec.Struct):
    """`tags`: looked at in repositories with a rule; `removed`: those that went or, in a dry run, would go.

    `kept`: tags that a rule matches and a pattern keeps. `moved`: set anew while we looked, so they stay.
    `names`: the first 10,000 that went.
    """

    dry_run: bool
    started: float
    seconds: float = 0.0
    repositories: int = 0
    tags: int = 0
    kept: int = 0
    removed: int = 0
    moved: int = 0
    names: list[str] = []


class _Newest:
    """The `count` newest of what is added, in so much memory."""

    def __init__(self, count: int):
        self._count = count
        self._ages: list[Age] = []

    def add(self, age: Age) -> None:
        if len(self._ages) < self._count:
            heappush(self._ages, age)
        elif self._count:
            heappushpop(self._ages, age)

    @property
    def oldest(self) -> Age:
        return self._ages[0] if self._count and len(self._ages) == self._count else (-math.inf, "")


class Retention:
    """One run. `keep`: patterns of tags that stay, immutable ones among them.

    `dry_run` changes nothing and reports what would go. `watch` is called now and then with the report,
    `removed` with each tag when it is gone.
    """

    def __init__(
        self,
        store: CollectableStorage,
        rules: RetentionRules,
        *,
        keep: TagPatterns = (),
        dry_run: bool = False,
        now: Callable[[], float] = time.time,
        watch: Callable[[Retained], None] = lambda report: None,
        removed: Removed = tell_nobody,
    ):
        self._store = store
        self._catalog = Catalog(store)
        self._links = Links(store)
        self._rules = [Rule(*each) for each in rules]
        self._keep = keep
        self._now = now
        self._watch = watch
        self._removed = removed
        self._noted_since = math.inf
        self._steps = 0
        self.report = Retained(dry_run, now())

    async def run(self) -> Retained:
        """Raises UpkeepBusy when another run is going on here, StorageError. Cancelled it has done a part."""
        with self._store.alone("retain"):
            self._noted_since = await noted_since(self._store)
            async with aclosing(self._links.repositories()) as repositories:
                async for name in repositories:
                    rules = [rule for rule in self._rules if matches(rule.names, name)]
                    if rules:
                        await self._repository(name, rules)
        self.report.seconds = self._now() - self.report.started
        return self.report

    async def _repository(self, name: RepositoryName, rules: Sequence[Rule]) -> None:
        """Twice through the tags: however many there are, only the newest are held in memory."""
        self.report.repositories += 1
        newest = {rule: _Newest(rule.newest) for rule in rules}
        if any(rule.newest for rule in rules):
            async with aclosing(self._links.tags(name)) as tags:
                async for tag, digest in tags:
                    await self._breathe()
                    rule = self._rule(rules, name, tag)
                    set_at = await self._store.used(layout.tag_link(name, tag))
                    if rule is not None and digest is not None and set_at is not None:
                        newest[rule].add((set_at, tag))
        async with aclosing(self._links.tags(name)) as tags:
            async for tag, digest in tags:
                await self._breathe()
                self.report.tags += 1
                rule = self._rule(rules, name, tag, count=True)
                if rule is not None and digest is not None:
                    await self._judge(rule, name, tag, digest, newest[rule].oldest)
        if not self.report.dry_run:
            await self._forget_pulls(name)

    def _rule(
        self, rules: Sequence[Rule], name: RepositoryName, tag: Tag, *, count: bool = False
    ) -> Rule | None:
        """The rule that decides about a tag; None where none does, or where the tag is kept anyway."""
        rule = next((rule for rule in rules if matches(rule.tags, tag)), None)
        if rule is not None and is_immutable(self._keep, name, tag):
            self.report.kept += count
            return None
        return rule

    async def _judge(self, rule: Rule, name: RepositoryName, tag: Tag, digest: Digest, newest: Age) -> None:
        key = layout.tag_link(name, tag)
        stamp, set_at = await self._store.stamp(key), await self._store.used(key)
        if stamp is None or set_at is None:
            return
        now, pulled = self._now(), -math.inf
        if rule.pulled:
            # Before it was noted nobody knows who pulled.
            is_known = now - self._noted_since >= rule.pulled * DAY
            pulled = await last_pull(self._store, name, digest) if is_known else math.inf
        if stays(rule, (set_at, tag), pulled, newest, now):
            return
        if not self.report.dry_run:
            if not await self._catalog.delete_tag_if(name, tag, digest, stamp):
                self.report.moved += 1
                return
            _log.info("retention removed a tag", name=name, tag=tag, digest=str(digest))
            await self._removed(name, tag, digest)
        self.report.removed += 1
        if len(self.report.names) < _NAMED:
            self.report.names.append(f"{name}:{tag}")

    async def _forget_pulls(self, name: RepositoryName) -> None:
        """Remove the notes of manifests that are gone."""
        async with aclosing(self._links.pulled(name)) as pieces:
            async for digests in pieces:
                for digest in digests:
                    await self._breathe()
                    if not await self._catalog.has_manifest(name, digest):
                        await self._store.delete(layout.pulled(name, digest))

    async def _breathe(self) -> None:
        """Let others run, and whoever watches see: a look at a file takes a few microseconds."""
        self._steps += 1
        if self._steps % 64 == 0:
            self._watch(self.report)
            await trio.lowlevel.checkpoint()

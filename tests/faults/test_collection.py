"""No collection loses what a client relies on, however they interleave, call by call to the disk.

Clients and collections are processes of their own over one directory (`turns`), and the test says whose call
is next. One test takes pairs of moments of a client and a collection; one lets Hypothesis choose among many
processes; and mistakes that are planted here are found by the same search. How many interleavings were run
is printed at the end (`-s`).
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis.strategies as st
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from trioreg.oci.digest import Digest
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName
from trioreg.registry.garbage import Collector
from trioreg.storage.filesystem import FilesystemStorage

from .shop import GOODS, GRACE, REPOSITORIES, Shop
from .turns import Actor

HERE, THERE = REPOSITORIES

# More finds more: TRIOREG_TEST_MODEL=2000 for an evening.
EXAMPLES = int(os.environ.get("TRIOREG_TEST_MODEL", "25"))

# Of all pairs of moments CI takes one in so many: TRIOREG_TEST_PAIRS=1 takes them all.
EVERY = int(os.environ.get("TRIOREG_TEST_PAIRS", "401"))

COUNTED = {"pairs of moments": 0, "random runs": 0, "turns in them": 0, "collected in them": 0}


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    """Says how much was run."""
    yield
    print("\ninterleavings:", ", ".join(f"{count:,} {what}" for what, count in COUNTED.items()))  # noqa: T201


@contextmanager
def shop(
    storage: type[FilesystemStorage] = FilesystemStorage,
    collector: type[Collector] = Collector,
    begin: Path | None = None,
) -> Iterator[Shop]:
    """A shop, empty or as it is in a directory, on a disk in memory where there is one: nothing is synced."""
    memory = Path("/dev/shm")
    above = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    root = above / "root"
    if begin is not None:
        shutil.copytree(begin, root)
    made = Shop(root, storage, collector)
    try:
        yield made
    finally:
        made.abandon()
        shutil.rmtree(above)


def finish(made: Shop) -> None:
    made.end()
    trio.run(made.check)


# Every pair of moments.

Scene = Callable[[Shop], Actor]


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers in both repositories that no manifest needs, old enough to go."""
    root = tmp_path_factory.mktemp("stale")
    made = Shop(root)
    for name in REPOSITORIES:
        made.push(name, 1).run()
        made.delete(name, 1).run()
    made.age(2 * GRACE)
    return root


TO_THE_END = 1000
MORE = (TO_THE_END, 1, 2, 3)

SKIPPING: Scene = lambda made: made.push(HERE, 0)
SCENES: dict[str, Scene] = {
    "a client that skips what HEAD promised": SKIPPING,
    "an index": lambda made: made.push(HERE, 2),
    "a mount": lambda made: made.push(THERE, 0, mount=True),
    "a delete": lambda made: made.delete(THERE, 1),
}


def run_pair(
    made: Shop, scene: Scene, collection_steps: int, client_steps: int, more: int = TO_THE_END
) -> tuple[Actor, Actor]:
    """The collection to its step, the client to its own, then `more` of the collection, then all the rest."""
    collection = made.collect(batch=100)
    for _ in range(collection_steps):
        collection.step()
    client = scene(made)
    for _ in range(client_steps):
        client.step()
    for _ in range(more):
        collection.step()
    client.run()
    collection.run()
    finish(made)
    return collection, client


def pairs(
    begin: Path,
    scene: Scene,
    storage: type[FilesystemStorage] = FilesystemStorage,
    collector: type[Collector] = Collector,
    *,
    every: int = 1,
    stride: int = 1,
    more: tuple[int, ...] = MORE,
) -> Iterator[tuple[int, int, int]]:
    """Every pair of a step of the collection and one of the client, or one in `every`; raises at a loss.

    Between the two the client is overtaken by all that is left of the collection, or by some calls.
    """
    with shop(storage, collector, begin) as made:
        _, client = run_pair(made, scene, TO_THE_END, 0)  # Behind a collection it has the most to do.
    with shop(storage, collector, begin) as made:
        collection, _ = run_pair(made, scene, 0, 0)
    moments = itertools.product(range(collection.steps + 1), range(0, client.steps + 1, stride), more)
    for at in itertools.islice(moments, 0, None, every):
        with shop(storage, collector, begin) as made:
            run_pair(made, scene, *at)
        yield at


@pytest.mark.parametrize("scene", SCENES)
def test_any_two_moments(stale: Path, scene: str) -> None:
    """A client that comes at any moment of a collection and is overtaken at any of its own loses nothing."""
    for _ in pairs(stale, SCENES[scene], every=EVERY):
        COUNTED["pairs of moments"] += 1


# Mistakes that the search must find.


class NoSecondLook(Collector):
    """Drops what it has set aside without a look at the time."""

    async def _settle(self, key: str, digest: Digest, cutoff: float) -> bool:
        return await self._store.drop(key)


class NoTouch(FilesystemStorage):
    """HEAD, mount and manifests look, but do not touch."""

    async def touch(self, digest: Digest) -> int | None:
        return await self.size(digest)


class NoTakingBack(FilesystemStorage):
    """Whoever looks for a link that is aside is told that there is none."""

    async def take_back(self, key: str) -> bool:
        return await self.stamp(key) is not None


MISTAKES: dict[str, tuple[type[FilesystemStorage], type[Collector]]] = {
    "no second look": (FilesystemStorage, NoSecondLook),
    "no touch": (NoTouch, Collector),
    "no taking back": (NoTakingBack, Collector),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(stale: Path, mistake: str) -> None:
    """The same search fails for a collection, or a storage, that leaves out one of the rules."""
    storage, collector = MISTAKES[mistake]
    with pytest.raises((AssertionError, RegistryError)):
        for _ in pairs(stale, SKIPPING, storage, collector, stride=9, more=(TO_THE_END, 2)):
            pass


# Many at once, as Hypothesis chooses.


class Interleaved(RuleBasedStateMachine):
    """Up to three processes; whose turn it is, deaths, and time that passes, are chosen."""

    begin: Path

    def __init__(self) -> None:
        super().__init__()
        self._context = shop(begin=self.begin)
        self._shop = self._context.__enter__()
        COUNTED["random runs"] += 1

    def teardown(self) -> None:
        try:
            finish(self._shop)
        finally:
            COUNTED["collected in them"] += self._shop.collected
            self._context.__exit__(None, None, None)

    @property
    def _room(self) -> bool:
        self._shop.actors = [actor for actor in self._shop.actors if not self._ended(actor)]
        return len(self._shop.actors) < 3

    def _ended(self, actor: Actor) -> bool:
        if actor.ended:
            actor.run()  # Raises what it raised.
        return actor.ended

    @precondition(lambda self: self._room)
    @rule(name=st.sampled_from(REPOSITORIES), which=st.integers(0, len(GOODS) - 1), mount=st.booleans())
    def push(self, name: RepositoryName, which: int, mount: bool) -> None:
        self._shop.push(name, which, mount=mount)

    @precondition(lambda self: self._room)
    @rule(name=st.sampled_from(REPOSITORIES), which=st.integers(0, len(GOODS) - 1))
    def delete(self, name: RepositoryName, which: int) -> None:
        self._shop.delete(name, which)

    @precondition(lambda self: self._room)
    @rule(untagged=st.booleans(), batch=st.sampled_from([1, 2, 100]))
    def collect(self, untagged: bool, batch: int) -> None:
        self._shop.collect(untagged=untagged, batch=batch)

    @precondition(lambda self: self._shop.actors)
    @rule(turns=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 25)), min_size=4, max_size=20))
    def take_turns(self, turns: list[tuple[int, int]]) -> None:
        # The preconditions of other rules are asked after ours, and drop who has ended meanwhile.
        for who, steps in turns if self._shop.actors else ():
            actor = self._shop.actors[who % len(self._shop.actors)]
            for _ in range(steps):
                actor.step()
            COUNTED["turns in them"] += not actor.ended

    @precondition(lambda self: self._shop.actors)
    @rule(who=st.integers(0, 2))
    def die(self, who: int) -> None:
        if self._shop.actors:
            self._shop.kill(who % len(self._shop.actors))

    @rule()
    def all_end_and_everything_grows_old(self) -> None:
        finish(self._shop)
        self._shop.age(2 * GRACE)

    @precondition(lambda self: not any(actor.aged or actor.collects for actor in self._shop.actors))
    @rule()
    def time_passes_between_two_requests(self) -> None:
        """Less than half the grace period, once for each client; a collection has taken its time before."""
        for actor in self._shop.actors:
            actor.aged = True
        self._shop.age(0.4 * GRACE)


def test_any_interleaving(stale: Path) -> None:
    """Whatever Hypothesis thinks of, no promise is broken."""
    Interleaved.begin = stale
    run_state_machine_as_test(
        Interleaved,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

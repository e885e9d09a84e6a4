"""Notes of pulls: once a day, apart from the answer, and nothing at all where no rule asks for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioreg.config import load
from trioreg.oci.digest import digest_of
from trioreg.oci.names import Tag
from trioreg.registry.manifests import Manifests
from trioreg.registry.pulls import DAY, Pulls, ask_for_pulls, last_pull
from trioreg.storage import layout
from trioreg.storage.base import StorageError
from trioreg.storage.memory import MemoryStorage

from .conftest import HERE, House
from .test_garbage import index

ONE = index()
DIGEST = digest_of(ONE)
TAG = Tag("latest")


class Clock:
    """Seconds since 1970, which the test sets."""

    def __init__(self) -> None:
        self.now = 1000 * DAY

    def __call__(self) -> float:
        return self.now


class Counted(MemoryStorage):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []
        self.broken = False

    async def put(self, key: str, value: bytes) -> None:
        self.puts.append(key)
        if self.broken:
            raise StorageError("no")
        await super().put(key, value)


async def test_a_pull_is_noted_once_a_day(nursery: trio.Nursery) -> None:
    """By tag or digest, of one process or two; nothing is written before the answer."""
    storage, clock = Counted(), Clock()
    house = House(storage)
    await house.registry.manifests.put(HERE, TAG, None, ONE)
    storage.puts.clear()
    pulls = house.registry.manifests.pulls = Pulls(storage, clock)
    for reference in (TAG, DIGEST, TAG):
        await house.registry.manifests.get(HERE, reference, pull=True)
    assert storage.puts == []
    nursery.start_soon(pulls.run)
    await wait_all_tasks_blocked()
    assert storage.puts == [layout.pulled(HERE, DIGEST)]
    assert await last_pull(storage, HERE, DIGEST) == clock.now + DAY
    another = Pulls(storage, clock)
    nursery.start_soon(another.run)
    clock.now += DAY - 1
    for each in (pulls, another):
        await each.note(HERE, DIGEST)
    await wait_all_tasks_blocked()
    assert len(storage.puts) == 1
    clock.now += 1
    for each in (pulls, another):
        await each.note(HERE, DIGEST)
    await wait_all_tasks_blocked()
    assert len(storage.puts) == 2
    assert await last_pull(storage, HERE, DIGEST) == clock.now + DAY


async def test_what_waits_is_written_at_the_end(nursery: trio.Nursery) -> None:
    """More than there is room for makes pulls wait; `finish` waits for all that was noted."""
    storage = Counted()
    pulls = Pulls(storage)
    many = [digest_of(str(number).encode()) for number in range(1500)]

    async def pull() -> None:
        for each in many:
            await pulls.note(HERE, each)

    with trio.move_on_after(60):
        async with trio.open_nursery() as pulling:
            pulling.start_soon(pull)
            await wait_all_tasks_blocked()
            assert storage.puts == []
            nursery.start_soon(pulls.run)
        await pulls.finish()
    assert len(storage.puts) == 1500


async def test_a_disk_that_hangs_keeps_no_server_from_its_end(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`finish` gives up after some seconds."""
    storage, asked = Counted(), trio.Event()

    async def put(key: str, value: bytes) -> None:
        asked.set()
        await trio.sleep_forever()

    monkeypatch.setattr(storage, "put", put)
    pulls = Pulls(storage)
    nursery.start_soon(pulls.run)
    await pulls.note(HERE, DIGEST)
    await asked.wait()
    began = trio.current_time()
    await pulls.finish()
    assert 0 < trio.current_time() - began < 10


async def test_looks_of_our_own_are_no_pulls(nursery: trio.Nursery) -> None:
    """A registry that looks what a tag was, for a record of a push, has not pulled."""
    storage = Counted()
    house = House(storage)
    await house.registry.manifests.put(HERE, TAG, None, ONE)
    pulls = house.registry.manifests.pulls = Pulls(storage)
    nursery.start_soon(pulls.run)
    await house.registry.manifests.get(HERE, TAG)
    await wait_all_tasks_blocked()
    assert layout.pulled(HERE, DIGEST) not in storage.puts


async def test_a_note_that_fails_is_tried_again(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next pull; the pulls are answered all the same."""
    storage = Counted()
    house = House(storage)
    await house.registry.manifests.put(HERE, TAG, None, ONE)
    pulls = house.registry.manifests.pulls = Pulls(storage)
    nursery.start_soon(pulls.run)
    storage.broken = True
    assert (await house.registry.manifests.get(HERE, TAG, pull=True)).content == ONE
    await wait_all_tasks_blocked()
    assert "a pull is not noted" in caplog.text
    storage.broken = False
    await house.registry.manifests.get(HERE, TAG, pull=True)
    await wait_all_tasks_blocked()
    assert await storage.get(layout.pulled(HERE, DIGEST)) is not None


async def test_without_a_rule_a_pull_pays_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one attribute, for a manifest in the cache; and the storage is asked for nothing more."""
    storage = Counted()
    house = House(storage)
    manifests = house.registry.manifests
    await manifests.put(HERE, TAG, None, ONE)
    await manifests.get(HERE, DIGEST, pull=True)
    asked: list[str] = []
    looks: list[str] = []

    def ask(name: str, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def asking(*arguments: object) -> object:
            asked.append(name)
            return await call(*arguments)

        return asking

    for name in ("get", "put", "stamp", "take_back", "open_blob", "children"):
        monkeypatch.setattr(storage, name, ask(name, getattr(storage, name)))

    class Watched(Manifests):
        @property
        def pulls(self) -> None:  # type: ignore[override]  # in place of the attribute, to count looks
            looks.append("pulls")

    del manifests.pulls
    manifests.__class__ = Watched
    assert (await manifests.get(HERE, DIGEST, pull=True)).content == ONE
    assert looks == ["pulls"]
    assert asked == ["stamp"]


@pytest.mark.parametrize(
    ("rules", "expected"), [("", False), ("**=newest 2 days 3", False), ("a=days 1, b=pulled 2", True)]
)
def test_rules_that_ask(rules: str, expected: bool) -> None:
    """Only a rule that goes by pulls has them noted."""
    assert ask_for_pulls(load({"retention.rules": rules}, {}, None).retention_rules) is expected

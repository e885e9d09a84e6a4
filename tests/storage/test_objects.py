"""Small objects by key, in every driver."""

from __future__ import annotations

import pytest
import trio

from trioreg.registry import Storage
from trioreg.storage.base import Entry

KEY = "repositories/a/_manifests/tags/latest/current/link"


async def test_put_and_get(storage: Storage) -> None:
    """The last value that was put is the value."""
    for value in (b"one", b"", b"two\x00\xff\n", b"x" * 65535):
        await storage.put(KEY, value)
        assert await storage.get(KEY) == value


async def test_absent(storage: Storage) -> None:
    """A key without a value has none, and neither has one above or below a value's."""
    await storage.put(KEY, b"value")
    for key in ("repositories/b", f"{KEY}/below", KEY.rpartition("/")[0] + "/other"):
        assert await storage.get(key) is None
        assert await storage.stamp(key) is None
        assert await storage.delete(key) is False
    assert await storage.get(KEY) == b"value"


async def test_stamp(storage: Storage) -> None:
    """A stamp is the same while the value is, and another once it changes, even to the same bytes."""
    assert await storage.stamp(KEY) is None
    seen = []
    for value in (b"one", b"two", b"one"):
        await storage.put(KEY, value)
        seen.append(await storage.stamp(KEY))
        assert await storage.stamp(KEY) == seen[-1]
    assert None not in seen
    assert seen[0] != seen[1] != seen[2]
    await storage.delete(KEY)
    assert await storage.stamp(KEY) is None


async def test_put_if_absent(storage: Storage) -> None:
    """Only the first value is set; after a delete there is a first again."""
    assert await storage.put_if_absent(KEY, b"one") is True
    assert await storage.put_if_absent(KEY, b"two") is False
    assert await storage.get(KEY) == b"one"
    assert await storage.delete(KEY) is True
    assert await storage.put_if_absent(KEY, b"two") is True
    assert await storage.get(KEY) == b"two"


async def test_put_if_absent_at_once(storage: Storage) -> None:
    """Of several at once exactly one wins, and its value stands."""
    won: list[bytes] = []

    async def try_it(value: bytes) -> None:
        if await storage.put_if_absent(KEY, value):
            won.append(value)

    async with trio.open_nursery() as nursery:
        for at in range(10):
            nursery.start_soon(try_it, b"%d" % at)
    assert len(won) == 1
    assert await storage.get(KEY) == won[0]


async def test_put_in_order(storage: Storage) -> None:
    """All of it is set; what is to be put only where there is nothing stays as it was."""
    above, _, _ = KEY.rpartition("/")
    await storage.put(f"{above}/there", b"before")
    for value in (b"one", b"two"):
        await storage.put_in_order(
            [Entry(KEY, value), Entry("a/b", value)],
            [],
            [Entry(f"{above}/there", value, absent=True), Entry(f"{above}/new", value, absent=True)],
            [Entry(KEY, value + b" at last")],
        )
        assert await storage.get(KEY) == value + b" at last"
        assert await storage.get("a/b") == value
    assert await storage.get(f"{above}/there") == b"before"
    assert await storage.get(f"{above}/new") == b"one"
    await storage.put_in_order()


async def test_delete(storage: Storage) -> None:
    """A deleted value is gone; a second delete finds none."""
    await storage.put(KEY, b"value")
    assert await storage.delete(KEY) is True
    assert await storage.get(KEY) is None
    assert await storage.delete(KEY) is False


async def test_exclusive(storage: Storage) -> None:
    """One at a time with a key; another kind can be held inside, in any bucket."""
    inside: list[int] = []

    async def alone(number: int) -> None:
        async with storage.exclusive("manifest", KEY), storage.exclusive("tag", KEY):
            inside.append(number)
            await trio.testing.wait_all_tasks_blocked()
            assert inside[-1] == number
            inside.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(alone, number)
    assert inside[::2] == inside[1::2]


async def test_children(storage: Storage) -> None:
    """The names directly below a prefix, sorted, each once; none below what is not there."""
    for key in ("a/c/1", "a/b/1", "a/b/2", "a/B", "a/10", "a/9", "ab/x"):
        await storage.put(key, b"")
    assert list(await storage.children("a")) == ["10", "9", "B", "b", "c"]
    assert list(await storage.children("a/b")) == ["1", "2"]
    assert list(await storage.children("a/b/1")) == []
    assert list(await storage.children("absent")) == []
    await storage.delete("a/9")
    assert list(await storage.children("a")) == ["10", "B", "b", "c"]


async def test_children_after_the_last(storage: Storage) -> None:
    """Where the last value went, there is nothing to be found, and a value can come again."""
    await storage.put(KEY, b"value")
    prefix = KEY.partition("/latest")[0]
    for _ in range(2):
        assert list(await storage.children(prefix)) == ["latest"]
        assert await storage.delete(KEY) is True
        for name in await storage.children(prefix):
            assert await storage.children(f"{prefix}/{name}") == []
        await storage.put(KEY, b"value")
        assert await storage.get(KEY) == b"value"


@pytest.mark.parametrize("rounds", [30])
async def test_puts_and_deletes_at_once(storage: Storage, rounds: int) -> None:
    """Values that come and go in one place do not take each other, or their directories, away."""

    async def come_and_go(key: str) -> None:
        for at in range(rounds):
            await storage.put(key, b"%d" % at)
            assert await storage.get(key) == b"%d" % at
            assert await storage.delete(key) is True

    async with trio.open_nursery() as nursery:
        for at in range(4):
            nursery.start_soon(come_and_go, f"repositories/a/_manifests/tags/t{at % 2}/current/link{at}")
    assert list(await storage.children("repositories/a/_manifests/tags")) == []

"""Turns between clients."""

from __future__ import annotations

import pytest

from trioreg.pipeline.turns import Turns


def taken(turns: Turns[int], count: int) -> list[tuple[str, int]]:
    found = [turns.next() for _ in range(count)]
    return [each for each in found if each is not None]


def test_one_of_each_client() -> None:
    """However many a client has; its own in their order; and in the end all have had their turn."""
    turns: Turns[int] = Turns()
    for number, client in enumerate("aaaabbc"):
        turns.add(client, number)
    assert len(turns) == 7
    assert taken(turns, 3) == [("a", 0), ("b", 4), ("c", 6)]
    turns.add("d", 7)
    assert taken(turns, 9) == [("a", 1), ("b", 5), ("d", 7), ("a", 2), ("a", 3)]
    assert len(turns) == 0


def test_who_may_not_keeps_its_place() -> None:
    """It is passed over, and first when it may again."""
    turns: Turns[int] = Turns()
    for number, client in enumerate("abab"):
        turns.add(client, number)
    assert turns.next(lambda client: client != "a") == ("b", 1)
    assert turns.next(lambda client: False) is None
    assert taken(turns, 3) == [("a", 0), ("b", 3), ("a", 2)]


def test_removing() -> None:
    """Nothing is left of a client that has nobody waiting."""
    turns: Turns[int] = Turns()
    turns.add("a", 0)
    turns.add("a", 1)
    turns.remove("a", 0)
    assert taken(turns, 2) == [("a", 1)]
    with pytest.raises(KeyError):
        turns.remove("a", 1)
    assert turns._queues == {}

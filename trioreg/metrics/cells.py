"""Metrics as plain integers: families with a fixed number of cells, and the slots that hold them.

Every combination of labels that a family can have is known beforehand, so a value is one 64-bit integer at
a fixed place, to count is one addition, and nothing a client sends can make more of them. Times are kept
as whole nanoseconds.

A process writes into one slot. Workers have one each, in memory that all of them map (made before the
fork), so that whoever is asked adds all slots up. Rules: a slot outlives its worker, and the next one goes
on counting in it, so a counter never goes back; its gauges go with the worker (`forget_gauges`). Cells are
written by the Trio thread; who counts in another thread says so (`observe_in_thread`).
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Sequence
from itertools import product
from typing import Literal

NANOSECONDS = 10**9

families: list[Family] = []
_size = 0
# The cells of this process; read it anew each time, for `use_slot` changes it.
current = memoryview(bytearray(8)).cast("q")
_bases: list[int] = []
_slots: list[memoryview] = []
_number = 0
_lock = threading.Lock()


class Family:
    """One row of the table. `labels` are the names and all values of each, in order.

    `unit`: what a cell holds for one of the unit in the name: 1, or `NANOSECONDS` for seconds.
    """

    kind: Literal["counter", "gauge", "histogram"]

    def __init__(self, name: str, text: str, *, unit: int = 1, width: int = 1, **labels: tuple[str, ...]):
        global _size
        self.name = name
        self.text = text
        self.unit = unit
        self.width = width
        self.labels = tuple(labels)
        self.values: list[tuple[str, ...]] = list(product(*labels.values()))
        self.first = _size
        _size += width * len(self.values)
        families.append(self)

    def at(self, *values: str) -> int:
        """The place of a combination of label values, to be handed to `add` or `set`."""
        return self.values.index(values)

    def total(self, cell: int) -> int:
        """The sum of one cell of the family over all slots."""
        return sum(slot[self.first + cell] for slot in _slots)


class Counter(Family):
    kind = "counter"

    def add(self, count: int = 1, at: int = 0) -> None:
        current[self.first + at] += count

    def follow(self, count: int, at: int = 0) -> None:
        """Take over what somebody else counts since this process began."""
        current[self.first + at] = _bases[self.first + at] + count


class Gauge(Family):
    """`highest`: workers share the thing, so the highest of their values is the whole's, not the sum."""

    kind = "gauge"

    def __init__(
        self, name: str, text: str, *, unit: int = 1, highest: bool = False, **labels: tuple[str, ...]
    ):
        super().__init__(name, text, unit=unit, width=1, **labels)
        self.highest = highest

    def set(self, value: int, at: int = 0) -> None:
        current[self.first + at] = value

    def total(self, cell: int) -> int:
        if self.highest:
            return max(slot[self.first + cell] for slot in _slots)
        return super().total(cell)


class Histogram(Family):
    """Cells of a combination: one a bucket (up to each of `bounds`, and beyond), and the sum."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, bounds: Sequence[float], *, unit: int = 1, **labels: tuple[str, ...]
    ):
        super().__init__(name, text, unit=unit, width=len(bounds) + 2, **labels)
        self.bounds = tuple(bounds)

    def observe(self, value: float, at: int = 0) -> None:
        first = self.first + at * self.width
        current[first + bisect_left(self.bounds, value)] += 1
        current[first + self.width - 1] += int(value * self.unit)

    def observe_in_thread(self, value: float, at: int = 0) -> None:
        with _lock:
            self.observe(value, at)

    def follow(self, counts: Sequence[int], total: int, at: int = 0) -> None:
        """Take over what somebody else counts since this process began: each bucket, and the sum."""
        first = self.first + at * self.width
        for place, count in enumerate((*counts, total), start=first):
            current[place] = _bases[place] + count


def open_slots(count: int) -> None:
    """Make the slots of `count` workers; before they are forked. This process writes into the first."""
    size = 8 * _size
    if count == 1:
        memories = [memoryview(bytearray(size))]
    else:
        shared = memoryview(mmap.mmap(-1, size * count))  # anonymous and shared with every child
        memories = [shared[index * size : (index + 1) * size] for index in range(count)]
    _slots[:] = [memory.cast("q") for memory in memories]
    use_slot(0)


def use_slot(number: int) -> None:
    """Write into that slot, and go on from what it holds."""
    global current, _number
    _number = number
    current = _slots[number]
    _bases[:] = current


def slot_number() -> tuple[int, int]:
    """The slot that we write into, and how many there are."""
    return _number, len(_slots)


def forget_gauges(number: int) -> None:
    """The worker of that slot is gone, and what it held with it."""
    for family in families:
        if family.kind == "gauge":
            for cell in range(family.first, family.first + len(family.values)):
                _slots[number][cell] = 0

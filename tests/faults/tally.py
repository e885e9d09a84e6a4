"""How often a fault was tried and what came of it: what `make faults` sums up.

Rule: a moment counts as survived only when the code below `moment` came to its end, which is where the
promises are looked at. Sizes are small in `make test` and full with TRIOREG_TEST_FAULTS=1; one seed,
TRIOREG_TEST_SEED, repeats a run.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FULL = os.environ.get("TRIOREG_TEST_FAULTS", "0") == "1"
SEED = int(os.environ.get("TRIOREG_TEST_SEED", "20"))


def size(small: int, full: int) -> int:
    """How many: `small` in a test run, `full` in `make faults`."""
    return full if FULL else small


class Tally:
    """Counts by kind of fault. `lost` are the moments after which something was not as promised.

    `show` is told of each moment that begins: a run of minutes says where it is.
    """

    def __init__(self) -> None:
        self.show: Callable[[str], None] = lambda text: None
        self.tried: Counter[str] = Counter()
        self.survived: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def lost(self) -> int:
        return self.tried.total() - self.survived.total()

    @contextmanager
    def moment(self, fault: str, count: int = 1) -> Iterator[None]:
        """One fault (or `count` at once), from before it strikes until its consequences were checked."""
        with self._lock:
            self.tried[fault] += count
            self.show(f"{self.tried[fault]:,} of: {fault}")
        yield
        with self._lock:
            self.survived[fault] += count

    def rows(self) -> list[str]:
        """A line for each kind of fault."""
        return [
            f"{fault:<{max(map(len, self.tried))}}  {count:>6} tried  {self.survived[fault]:>6} survived"
            for fault, count in sorted(self.tried.items())
        ]

    def summary(self) -> str:
        tried, survived = self.tried.total(), self.survived.total()
        return f"faults: {tried} moments tried, {survived} faults survived, lost: {self.lost}"


TALLY = Tally()

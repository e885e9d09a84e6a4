"""How many requests a client may make: so many a second on average, and so many at once when it was quiet.

The generic cell rate algorithm (ITU-T I.371): of each client one number is kept, the time at which all that
it was given is paid for. Who is quiet for long enough owes nothing, and is forgotten.

Rule: the table is bounded. When it is full of clients that all owe something, the one that was seen longest
ago is forgotten: then it may have its burst again.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from trioreg.oci.errors import ErrorCode, RegistryError

# About 2 MB of names and numbers.
_MOST_CLIENTS = 10_000

# Those who owe nothing any more are looked for among so many, oldest first, for each newcomer.
_SWEEP = 2


@dataclass(frozen=True, slots=True)
class RateLimits:
    """`per_second` requests of one client, 0 is any number; `burst` at once."""

    per_second: float = 0.0
    burst: int = 100


@dataclass(frozen=True, slots=True)
class RateStatistics:
    clients: int
    refused: int


class Rates:
    """Of one process. `limits` may be replaced at any time. `clock` gives seconds that never go back."""

    def __init__(self, limits: RateLimits | None = None, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self.limits = limits or RateLimits()
        self._owes: OrderedDict[str, float] = OrderedDict()
        self._refused = 0

    @property
    def limits(self) -> RateLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: RateLimits) -> None:
        self._limits = limits
        self.active = limits.per_second > 0
        if not self.active:
            self._owes = OrderedDict()

    def check(self, client: str) -> None:
        """Raises TOOMANYREQUESTS with ``Retry-After`` if the next request would be one too many."""
        now = self._clock()
        wait = self._owes.get(client, now) - now - (self._limits.burst - 1) / self._limits.per_second
        # A client that comes when it was told to must not be late by a rounding.
        if wait > 1e-6:
            self._refused += 1
            detail = {"reason": "too many requests a second", "limit": self._limits.per_second}
            seconds = str(math.ceil(wait))
            raise RegistryError(ErrorCode.TOOMANYREQUESTS, detail, headers={"Retry-After": seconds})

    def count(self, client: str) -> None:
        """One more request."""
        now = self._clock()
        owes = max(now, self._owes.pop(client, now)) + 1 / self._limits.per_second
        self._owes[client] = owes
        self._sweep(now)

    def take(self, client: str) -> None:
        """Check, and count if it passes: who is refused does not owe more for asking."""
        self.check(client)
        self.count(client)

    def statistics(self) -> RateStatistics:
        return RateStatistics(len(self._owes), self._refused)

    def _sweep(self, now: float) -> None:
        for _ in range(_SWEEP):
            client, owes = next(iter(self._owes.items()))
            if owes > now and len(self._owes) <= _MOST_CLIENTS:
                return
            del self._owes[client]

"""What chance decides in a run: sizes, arrivals, popularity, shapes. All of it follows from a seed.

The rule: the same scenario, seed and repeat draw the same, whatever the server does meanwhile; no draw
depends on time.
"""

import math
from bisect import bisect
from collections.abc import Iterator, Mapping
from itertools import accumulate
from random import Random

from perf.harness.scenario import Arrivals, Sizes

POOL = 512  # different sizes a group of unknown length draws from: each costs the client a digest state
SMALLEST, LARGEST = 1, 100 * 10**9


def size_pool(sizes: Sizes, count: int, seed: str) -> list[int]:
    """At most POOL sizes in bytes; operation n takes number n modulo their count."""
    if sizes.fixed is not None:
        return [int(sizes.fixed)]
    chance = Random(f"sizes {seed}")
    return [one_size(sizes, chance) for _ in range(min(count, POOL))]


def one_size(sizes: Sizes, chance: Random) -> int:
    if sizes.recorded is not None:
        return int(chance.choice(sizes.recorded))
    smallest, largest = int(sizes.smallest or SMALLEST), int(sizes.largest or LARGEST)
    if sizes.median is None or sizes.sigma is None:
        return chance.randint(smallest, largest)
    drawn = round(chance.lognormvariate(math.log(sizes.median), sizes.sigma))
    return min(max(drawn, smallest), largest)


def arrival_times(arrivals: Arrivals | None, clients: int, seed: str) -> list[float]:
    """Seconds after the load began, one for each client, rising."""
    if arrivals is None:
        return [0.0] * clients
    if arrivals.ramp is not None:
        return [arrivals.ramp * number / clients for number in range(clients)]
    chance = Random(f"arrivals {seed}")
    return list(accumulate(chance.expovariate(arrivals.poisson or 1.0) for _ in range(clients)))


def popular(count: int, exponent: float, chance: Random) -> Iterator[int]:
    """Numbers below `count` for ever, number n with a weight of 1 / (n + 1) ** exponent (Zipf)."""
    totals = list(accumulate((number + 1) ** -exponent for number in range(count)))
    while True:
        yield min(bisect(totals, chance.random() * totals[-1]), count - 1)


def weighted(weights: Mapping[str, float], chance: Random) -> Iterator[str]:
    """Names for ever, each as often as its weight says."""
    names, values = list(weights), list(weights.values())
    while True:
        yield chance.choices(names, values)[0]

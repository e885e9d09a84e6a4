"""How long generated tests look: TRIOREG_TEST_FUZZ multiplies their examples, which are then random."""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("TRIOREG_TEST_FUZZ", "0"))


def examples(count: int) -> settings:
    """The settings for a generated test that tries `count` examples in CI."""
    return settings(
        max_examples=count * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

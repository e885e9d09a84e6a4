"""`make faults`: every fault, against real server processes where it can be, and one line that sums up.

The exit code is 0 only when faults were tried and all survived, and no test failed or was skipped.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_SAY_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--small", action="store_true", help="as many moments as `make test` tries")
    parser.add_argument("--seed", type=int, help="repeat the run that printed it (default: a new one)")
    parser.add_argument("-k", dest="only", metavar="NAME", default="", help="only tests of this name")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
    if not arguments.small:
        os.environ.setdefault("TRIOREG_TEST_FUZZ", "10")
    os.environ.update(TRIOREG_TEST_SEED=str(seed), TRIOREG_TEST_FAULTS="0" if arguments.small else "1")
    print(f"seed {seed}", flush=True)  # noqa: T201 (what to repeat)
    return run(arguments.only, seed)


def run(only: str, seed: int) -> int:
    # Here, because they read the sizes when they are imported.
    import pytest

    from .tally import TALLY

    progress = Progress()
    report = Report(progress)
    TALLY.show = progress.now
    here = Path(__file__).parent
    quiet = ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=1800"]  # a full test takes minutes
    chosen = [f"--hypothesis-seed={seed}", "-k", only]
    code = int(pytest.main([str(here), "-q", *quiet, *chosen], [report]))
    for row in [*TALLY.rows(), *report.longest(), *report.skipped]:
        print(row)  # noqa: T201 (the result)
    good = code == 0 and TALLY.tried.total() > 0 and TALLY.lost == 0 and not report.skipped
    doubt = "" if good else f" (not good: pytest exited with {code}, {len(report.skipped)} not tried)"
    print(TALLY.summary() + doubt, flush=True)  # noqa: T201 (the result)
    return 0 if good else 1


class Progress:
    """Where the run is, at most every ten seconds, past what pytest captures."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(2), "w")
        self._began = time.monotonic()
        self._said = self._began
        self.ended = self.all = 0

    def now(self, text: str) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_SECONDS:
            self._said = now
            self._out.write(f"{now - self._began:6.0f} s, {self.ended} of {self.all} tests, {text}\n")
            self._out.flush()


class Report:
    """A plugin of pytest that keeps what was not tried, and how long each test took."""

    def __init__(self, progress: Progress) -> None:
        self.skipped: list[str] = []
        self._progress = progress
        self._seconds: dict[str, float] = {}

    def longest(self) -> list[str]:
        """The tests that took most."""
        found = sorted(self._seconds.items(), key=lambda each: -each[1])[:5]
        return [f"{seconds:6.1f} s  {name}" for name, seconds in found]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._progress.all = len(session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped.append(f"not tried: {report.nodeid}")
        if report.when == "call":
            self._seconds[report.nodeid] = report.duration
            self._progress.ended += 1
            self._progress.now(report.nodeid)


if __name__ == "__main__":
    sys.exit(main())

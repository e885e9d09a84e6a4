"""`make faults`: every fault, against real server processes where it can be, and one line that sums up.

The exit code is 0 only when faults were tried and all survived, and no test failed or was skipped.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path


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
    return run(arguments.only)


def run(only: str) -> int:
    # Here, because they read the sizes when they are imported.
    import pytest

    from .tally import TALLY

    report = Report()
    here = Path(__file__).parent
    quiet = ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=1800"]  # a full test takes minutes
    code = int(pytest.main([str(here), "-q", *quiet, "-k", only], [report]))
    for row in [*TALLY.rows(), *report.skipped]:
        print(row)  # noqa: T201 (the result)
    good = code == 0 and TALLY.tried.total() > 0 and TALLY.lost == 0 and not report.skipped
    doubt = "" if good else f" (not good: pytest exited with {code}, {len(report.skipped)} not tried)"
    print(TALLY.summary() + doubt, flush=True)  # noqa: T201 (the result)
    return 0 if good else 1


class Report:
    """A plugin of pytest that keeps what was not tried."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        if getattr(report, "skipped", False):
            self.skipped.append(f"not tried: {getattr(report, 'nodeid', '')}")


if __name__ == "__main__":
    sys.exit(main())

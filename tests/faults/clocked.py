"""A server whose clock is as far off as a file says, in seconds: `python -m faults.clocked FILE serve …`.

Before anything of the server is loaded, `time.time`, `time.time_ns` and `datetime.now` are replaced, as a
machine whose clock is set replaces them; `time.monotonic` and the times of files stay.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

_time, _time_ns = time.time, time.time_ns


def off(file: Path) -> int:
    return int(file.read_text() or 0)


class Clocked(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Clocked:
        return cls.fromtimestamp(time.time(), tz)


def main() -> int:
    file = Path(sys.argv[1])
    time.time = lambda: _time() + off(file)
    time.time_ns = lambda: _time_ns() + off(file) * 10**9
    setattr(datetime, "datetime", Clocked)  # noqa: B010 (a type is not ours to assign)
    from trioreg.cli import main as trioreg

    return trioreg(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

"""What /proc says of the server, up to fifty times a second.

The rule: every figure is a sum over the server's processes. What costs the kernel little (stat, status) is
read each time; what walks page tables or lists of descriptors only once a second, so that looking does not
become the load (docs/harness.md states what it costs).
"""

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import Any

from perf.sampling import TICKS, descendants, parse_fields, read

CLOSE_SECONDS = 1.0  # between two close looks: smaps_rollup and /proc/PID/fd
COUNTED = ("rss", "anonymous", "file", "shmem", "minor_faults", "major_faults", "threads", "high_water")


@dataclass
class Outside:
    """The processes below `pid`, looked at again and again."""

    pid: int
    _pids: list[int] = field(default_factory=list)
    _closely: float = 0.0
    _cpu: dict[int, tuple[float, float]] = field(default_factory=dict)

    def look(self) -> dict[str, Any]:
        """One sample, in the names of the format (docs/harness.md)."""
        now = time.monotonic()
        closely = now >= self._closely
        if closely:
            self._closely = now + CLOSE_SECONDS
            self._pids = descendants(self.pid)
        sample: dict[str, Any] = dict.fromkeys(COUNTED, 0)
        for pid in self._pids:
            with contextlib.suppress(OSError, IndexError):
                self._add(sample, pid)
        sample["cpu_user"] = round(sum(user for user, _ in self._cpu.values()), 3)
        sample["cpu_system"] = round(sum(system for _, system in self._cpu.values()), 3)
        if closely:
            sample |= close_look(self._pids)
        return sample

    def _add(self, sample: dict[str, Any], pid: int) -> None:
        status = parse_fields(read(pid, "status"))
        stat = read(pid, "stat").rpartition(")")[2].split()
        sample["rss"] += status.get("VmRSS", 0)
        sample["high_water"] += status.get("VmHWM", 0)
        sample["anonymous"] += status.get("RssAnon", 0)
        sample["file"] += status.get("RssFile", 0)
        sample["shmem"] += status.get("RssShmem", 0)
        sample["threads"] += status.get("Threads", 0)
        sample["minor_faults"] += int(stat[7])
        sample["major_faults"] += int(stat[9])
        self._cpu[pid] = int(stat[11]) / TICKS, int(stat[12]) / TICKS


def close_look(pids: list[int]) -> dict[str, int]:
    """PSS, descriptors and how many of them are sockets."""
    found = {"pss": 0, "descriptors": 0, "sockets": 0}
    for pid in pids:
        with contextlib.suppress(OSError):
            found["pss"] += parse_fields(read(pid, "smaps_rollup")).get("Pss", 0)
            for name in os.listdir(f"/proc/{pid}/fd"):
                found["descriptors"] += 1
                with contextlib.suppress(OSError):
                    found["sockets"] += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return found

"""A process tree seen from outside, through /proc.

Owns reading /proc and the sampler thread. The rule: the memory figure is the sum of VmRSS over the
server's process and its descendants, and its peak is never below the sum of their high-water marks
(VmHWM), so that what happens between two samples is not missed.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

PERIOD = 1 / 30  # seconds between samples
EXPENSIVE_EVERY = 6  # smaps_rollup walks page tables and /proc/PID/fd lists: five times a second
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """Sums over a process tree: bytes, CPU seconds, counts. `at` is time.monotonic()."""

    at: float = 0.0
    rss: int = 0
    high_water: int = 0
    cpu: float = 0.0
    threads: int = 0
    pss: int = 0
    anonymous: int = 0
    file: int = 0
    descriptors: int = 0


def parse_fields(text: str) -> dict[str, int]:
    """`Name:  123 kB` lines of status and smaps_rollup, in bytes; lines without kB as they are."""
    fields: dict[str, int] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and words and words[0].isdecimal():
            fields[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return fields


def parse_cpu(stat: str) -> float:
    """Seconds of CPU from /proc/PID/stat: its own and those of children it has waited for."""
    fields = stat.rpartition(")")[2].split()  # the name may hold spaces and brackets
    return sum(int(ticks) for ticks in fields[11:15]) / TICKS


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += [int(child) for child in children.split()]
    return found


def look_at(pids: list[int], *, closely: bool) -> Sample:
    """A sample of these processes; those that have ended count nothing.

    Pss with its split and the descriptors are read only when asked to look `closely`.
    """
    total = Sample(at=time.monotonic())
    for pid in pids:
        with contextlib.suppress(OSError):
            status = parse_fields(read(pid, "status"))
            rollup = parse_fields(read(pid, "smaps_rollup")) if closely else {}
            total = replace(
                total,
                rss=total.rss + status.get("VmRSS", 0),
                high_water=total.high_water + status.get("VmHWM", 0),
                cpu=total.cpu + parse_cpu(read(pid, "stat")),
                threads=total.threads + status.get("Threads", 0),
                pss=total.pss + rollup.get("Pss", 0),
                anonymous=total.anonymous + rollup.get("Pss_Anon", 0),
                file=total.file + rollup.get("Pss_File", 0),
                descriptors=total.descriptors + (len(os.listdir(f"/proc/{pid}/fd")) if closely else 0),
            )
    return total


def read(pid: int, name: str) -> str:
    """/proc/PID/NAME. OSError when the process has ended."""
    return Path(f"/proc/{pid}/{name}").read_text()


def peak_of(samples: list[Sample]) -> Sample:
    """The highest value of each field; `cpu` and `at` are those of the last sample."""
    if not samples:
        return Sample()

    def highest(pick: Callable[[Sample], int]) -> int:
        return max(pick(sample) for sample in samples)

    return Sample(
        at=samples[-1].at,
        rss=highest(lambda sample: max(sample.rss, sample.high_water)),
        high_water=highest(lambda sample: sample.high_water),
        cpu=samples[-1].cpu,
        threads=highest(lambda sample: sample.threads),
        pss=highest(lambda sample: sample.pss),
        anonymous=highest(lambda sample: sample.anonymous),
        file=highest(lambda sample: sample.file),
        descriptors=highest(lambda sample: sample.descriptors),
    )


class Sampler:
    """A thread that samples the tree below `pid` until the context ends."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> Sample:
        """One close look, also kept."""
        sample = look_at(descendants(self._pid), closely=True)
        self._samples.append(sample)
        return sample

    def peak(self) -> Sample:
        """Highest values since the start or the last `forget`."""
        self.now()
        return peak_of(list(self._samples))

    def forget(self) -> None:
        """Start anew: drop the samples and set the kernel's high-water marks to the present."""
        for pid in descendants(self._pid):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._samples.clear()

    def rest(self, seconds: float) -> int:
        """Wait, then the median RSS (bytes) of the second half of the wait."""
        begin = time.monotonic()
        time.sleep(seconds)
        recent = [sample.rss for sample in self._samples if sample.at > begin + seconds / 2]
        return sorted(recent)[len(recent) // 2] if recent else self.now().rss

    @property
    def latest(self) -> Sample:
        """The last sample, as it is."""
        return self._samples[-1] if self._samples else Sample()

    @property
    def rate(self) -> float:
        """Samples per second that were really taken."""
        samples = list(self._samples)
        span = samples[-1].at - samples[0].at if len(samples) > 1 else 0.0
        return (len(samples) - 1) / span if span else 0.0

    def _run(self) -> None:
        pids: list[int] = []
        turn = 0
        begin = time.monotonic()
        while True:
            closely = turn % EXPENSIVE_EVERY == 0
            if closely:
                pids = descendants(self._pid)
            self._samples.append(look_at(pids, closely=closely))
            turn += 1
            late = time.monotonic() - begin - turn * PERIOD
            if late > PERIOD:  # do not catch up with a burst
                begin += late
            if self._stop.wait(max(-late, 0.0)):
                return

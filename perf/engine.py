"""The digest engine alone: gigabytes a second on one thread, streams × feed size.

``python -m perf.engine [--json]`` prints a Markdown table. Every cell is the median of five rounds,
and the ways take turns within a round, so that a busy machine slows all of them. Each stream has one
feed in flight at a time, as an upload whose next block arrives when the last one is done would; the
bytes come from a buffer larger than the last-level cache. `hashlib` updates the streams in turn.
CPU seconds per gigabyte are the reciprocal: one thread does all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import platform
import select
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from trioreg.pipeline._engine import Engine, State, capabilities

STREAMS = (1, 2, 3, 4, 8, 16, 40, 100)
FEEDS = (4 << 10, 64 << 10, 256 << 10, 1 << 20)
ROUNDS = 5
BUFFER_BYTES = 64 << 20
ROUND_BYTES = 48 << 20  # about 12 to 100 ms a round


class Case(NamedTuple):
    """So many streams, each fed pieces of so many bytes."""

    streams: int
    feed: int

    @property
    def feeds_each(self) -> int:
        return max(1, min(ROUND_BYTES, 400 * self.streams * self.feed) // (self.streams * self.feed))


def place(case: Case, stream: int, number: int) -> int:
    """Where a stream's feed begins: page-aligned, different streams far apart."""
    return (7 * number + 13 * stream) % (BUFFER_BYTES // case.feed) * case.feed


def run_hashlib(case: Case, data: memoryview) -> None:
    """The streams in turn, in this thread."""
    states = [hashlib.sha256() for _ in range(case.streams)]
    for number in range(case.feeds_each):
        for stream, state in enumerate(states):
            start = place(case, stream, number)
            state.update(data[start : start + case.feed])


def run_engine(engine: Engine, case: Case, data: memoryview) -> None:
    """Every stream has one job in flight; the next goes in when it comes back."""
    states = [State("sha256") for _ in range(case.streams)]
    fed = [0] * case.streams
    left = case.streams * case.feeds_each

    def feed(index: int) -> None:
        start = place(case, index, fed[index])
        fed[index] += 1
        engine.submit(states[index], data, start, start + case.feed, -1, 0, index)

    for index in range(case.streams):
        feed(index)
    while left:
        select.select([engine], [], [])
        for stream, _, _ in engine.completed():
            left -= 1
            assert isinstance(stream, int)
            if fed[stream] < case.feeds_each:
                feed(stream)


def timed(run: Callable[[], None]) -> float:
    before = time.perf_counter()
    run()
    return time.perf_counter() - before


def measure(case: Case, engines: dict[str, Engine], data: memoryview) -> dict[str, float]:
    """GB/s of every way: the median of the rounds."""
    ways: dict[str, Callable[[], None]] = {"hashlib": partial(run_hashlib, case, data)}
    for name, engine in engines.items():
        ways[name] = partial(run_engine, engine, case, data)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            seconds[name].append(timed(run))
    gigabytes = case.streams * case.feed * case.feeds_each / 1e9
    return {name: gigabytes / statistics.median(times) for name, times in seconds.items()}


def machine() -> str:
    """The processor, how many, and what the engine sees and chose."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    found = capabilities()
    ways = ", ".join(f"{name} {speed:.2f}" for name, (_, speed) in found["ways"].items())
    return (
        f"{model}, {os.cpu_count()} processors, Python {platform.python_version()}, "
        f"single stream {found['single']}\nself-measured GB/s: {ways}\n"
        f"chosen for 1 to 16 streams: {', '.join(found['choice'])}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m perf.engine", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a case, no table")
    arguments = parser.parse_args()
    data = memoryview(mmap.mmap(-1, BUFFER_BYTES))
    for start in range(0, BUFFER_BYTES, 1 << 20):
        data[start : start + (1 << 20)] = os.urandom(1 << 20)
    lanes = sorted(lanes for lanes, _ in capabilities()["ways"].values())
    engines = {f"lanes={count}": Engine(1, lanes=count) for count in lanes}
    engines["auto"] = Engine(1)
    names = ["hashlib", *engines]
    if not arguments.json:
        print(machine(), end="\n\n")
        print("| streams | feed | " + " | ".join(names) + " |")
        print("| ---: | ---: |" + " ---: |" * len(names))
    for streams in STREAMS:
        for feed in FEEDS:
            speeds = measure(Case(streams, feed), engines, data)
            if arguments.json:
                print(json.dumps({"streams": streams, "feed": feed, "gigabytes_per_second": speeds}))
            else:
                cells = " | ".join(f"{speeds[name]:.2f}" for name in names)
                print(f"| {streams} | {feed >> 10} KiB | {cells} |", flush=True)
    for engine in engines.values():
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Where the memory is: the kernel's view, the allocator's, Python's and ours; and giving back what is free.

Nothing here is done unless somebody asks. What takes more than a moment runs in a thread.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import tracemalloc
from dataclasses import asdict
from functools import partial
from typing import Any

import trio

from trioreg.server.inside.gauges import Gauges

_PAGE = os.sysconf("SC_PAGESIZE")


_MALLINFO2 = ["arena", "ordblks", "smblks", "hblks", "hblkhd"]
_MALLINFO2 += ["usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` (mallinfo(3), glibc 2.33)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO2]


async def look(gauges: Gauges) -> dict[str, Any]:
    """Everything that is known without tracing; sizes in bytes."""
    return {
        "rss": resident_bytes(),
        "kernel": await trio.to_thread.run_sync(_smaps),
        "allocator": _allocator(),
        "python": {
            "allocated_blocks": sys.getallocatedblocks(),
            "threads": len(sys._current_frames()),
            "gc": gc.get_stats(),
        },
        "budget": asdict(gauges.pump.budget.statistics()),
        "caches": {name: asdict(look) for name, look in gauges.caches().items()},
        "uploads": len(gauges.pump.transfers),
        "tracemalloc": _tracing(),
    }


async def trim(gauges: Gauges) -> dict[str, Any]:
    """Give back to the system all that is free: blocks, Python's garbage, the heap. Sizes in bytes."""
    before = resident_bytes()
    # The first call marks the free blocks, the second finds them untouched.
    gauges.pump.budget.trim()
    gauges.pump.budget.trim()
    unreachable = gc.collect()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    trimmed = malloc_trim is not None and bool(await trio.to_thread.run_sync(malloc_trim, 0))
    return {"before": before, "after": resident_bytes(), "unreachable_objects": unreachable, "heap": trimmed}


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def _smaps() -> dict[str, int]:
    """``/proc/self/smaps_rollup`` (proc(5)), in bytes: Rss, Pss, Anonymous …; walks all page tables."""
    try:
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            fields = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return {}
    return {name.rstrip(":").lower(): int(size) * 1024 for name, size, *_ in fields}


def _allocator() -> dict[str, int]:
    """What glibc's malloc holds: used and free in its arenas, and mapped by itself; {} elsewhere."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return {}
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return {
        "arenas": info.arena,
        "used": info.uordblks,
        "free": info.fordblks,
        "releasable": info.keepcost,
        "mapped": info.hblkhd,
    }


# Tracing of Python's own allocations.

# Whoever looks for a leak wants a few moments; each snapshot takes some 100 bytes for each block traced.
_MARKS = 8
_ROWS = 100
_marks: dict[str, tracemalloc.Snapshot] = {}


def _tracing() -> dict[str, Any]:
    traced, peak = tracemalloc.get_traced_memory()
    return {
        "tracing": tracemalloc.is_tracing(),
        "traced": traced,
        "peak": peak,
        "own": tracemalloc.get_tracemalloc_memory(),
        "marks": list(_marks),
    }


def start_tracing(frames: int) -> dict[str, Any]:
    """Trace every allocation from now on, with so many frames (1 to 25); costs time and memory."""
    _marks.clear()
    tracemalloc.stop()
    tracemalloc.start(max(1, min(25, frames)))
    return _tracing()


def stop_tracing() -> dict[str, Any]:
    _marks.clear()
    tracemalloc.stop()
    return _tracing()


async def mark(name: str) -> dict[str, Any]:
    """Keep a snapshot under that name, for `difference`; the oldest of more than eight goes."""
    if tracemalloc.is_tracing():
        _marks.pop(name, None)
        _marks[name] = await trio.to_thread.run_sync(_snapshot)
        while len(_marks) > _MARKS:
            del _marks[next(iter(_marks))]
    return _tracing()


async def allocations(since: str | None, by: str) -> dict[str, Any] | None:
    """The largest: of now, or grown most since a mark; None without that mark.

    `by`: "filename", "lineno" or "traceback". Rows are the place, bytes and blocks.
    """
    if not tracemalloc.is_tracing():
        return {**_tracing(), "rows": []}
    if since is not None and since not in _marks:
        return None
    before = _marks[since] if since is not None else None
    rows = await trio.to_thread.run_sync(partial(_rows, before, by))
    return {**_tracing(), "since": since, "by": by, "rows": rows}


def _snapshot() -> tracemalloc.Snapshot:
    ours = tracemalloc.Filter(False, tracemalloc.__file__)
    return tracemalloc.take_snapshot().filter_traces([ours])


def _rows(before: tracemalloc.Snapshot | None, by: str) -> list[list[Any]]:
    now = _snapshot()
    if before is None:
        return [[_place(each.traceback), each.size, each.count] for each in now.statistics(by)[:_ROWS]]
    grown = now.compare_to(before, by)[:_ROWS]
    return [[_place(each.traceback), each.size_diff, each.count_diff] for each in grown]


def _place(traceback: tracemalloc.Traceback) -> str | list[str]:
    places = [f"{_short(frame.filename)}:{frame.lineno}" for frame in traceback]
    return places[0] if len(places) == 1 else places


def _short(path: str) -> str:
    """From the package's own directory on: ``trioreg/pipeline/pump.py``."""
    for folder in ("/site-packages/", "/trioreg/"):
        if folder in path:
            return ("trioreg/" if folder == "/trioreg/" else "") + path.rpartition(folder)[2]
    return path

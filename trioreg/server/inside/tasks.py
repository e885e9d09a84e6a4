"""The tree of Trio's tasks: who waits where, in which nursery."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import trio

# Ten thousand connections are as many tasks: an answer has an end.
_TASKS = 2000
_FRAMES = 30


def look() -> dict[str, Any]:
    """Every task with where it waits, and its children by nursery; cut off after 2,000 tasks."""
    statistics = trio.lowlevel.current_statistics()
    root = trio.lowlevel.current_root_task()
    left = iter(range(_TASKS))
    return {
        "living": statistics.tasks_living,
        "runnable": statistics.tasks_runnable,
        "seconds_to_next_deadline": _finite(statistics.seconds_to_next_deadline),
        "io": _io(statistics.io_statistics),
        "threads": _limiter(trio.to_thread.current_default_thread_limiter()),
        "root": _task(root, left) if root is not None else None,
    }


def _limiter(limiter: trio.CapacityLimiter) -> dict[str, int | float]:
    """How many worker threads there may be, are at work, and are waited for."""
    look = limiter.statistics()
    return {"total": look.total_tokens, "busy": look.borrowed_tokens, "waiting": look.tasks_waiting}


def _task(task: trio.lowlevel.Task, left: Iterator[int]) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": task.name, "waits_at": list(islice(_frames(task), _FRAMES))}
    nurseries = []
    for nursery in task.child_nurseries:
        children = [_task(child, left) for child in nursery.child_tasks if next(left, None) is not None]
        nurseries.append({"cancelled": nursery.cancel_scope.cancel_called, "tasks": children})
    if nurseries:
        shown["nurseries"] = nurseries
    return shown


def _frames(task: trio.lowlevel.Task) -> Iterator[str]:
    """From the outermost call to the one that waits."""
    for frame, line in task.iter_await_frames():
        name = frame.f_globals.get("__name__", "?")
        yield f"{name}:{frame.f_code.co_name}:{line}"


def _finite(seconds: float) -> float | None:
    return seconds if seconds != float("inf") else None


def _io(statistics: Any) -> dict[str, Any]:
    """Of epoll; another backend counts other things."""
    names = ("backend", "tasks_waiting_read", "tasks_waiting_write")
    return {name: getattr(statistics, name) for name in names if hasattr(statistics, name)}

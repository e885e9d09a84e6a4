"""What Python holds at a marker of a run, by file, by layer of the house and by stage of the pipeline.

The figures are tracemalloc's, of the hundred files that hold most, asked for through the server's own page
(`debug.enabled`). The rule: a snapshot is of Python's allocations only; blocks of the budget are mappings,
which tracemalloc does not see.
"""

import json
from collections.abc import Iterable
from typing import Any

from perf.harness.folder import RunFolder
from perf.harness.inside import InsideView
from perf.run import CaseFailed

SECONDS = 60.0  # a snapshot of a busy server takes its time
TRACING = {"PYTHONTRACEMALLOC": "1"}  # in the environment of the server: from its first import on

Row = tuple[str, int, int]  # name, bytes, blocks

STAGES = {  # by the beginning of a path in the package, the first that fits
    "trioreg/pipeline/digests": "digest",
    "trioreg/pipeline/engine": "digest",
    "trioreg/pipeline/budget": "blocks",
    "trioreg/pipeline/": "pump",
    "trioreg/storage/": "write",
    "trioreg/server/": "receive",
    "trioreg/web/": "receive",
}


class Snapshots:
    """Of one run. Without `wanted` nothing is asked for."""

    def __init__(self, folder: RunFolder, port: int, *, wanted: bool) -> None:
        self._folder = folder
        self._view = InsideView(port, timeout=SECONDS) if wanted else None
        self._taken: dict[str, list[Row]] = {}

    def close(self) -> None:
        if self._view is not None:
            self._view.close()

    def take(self, marker: str) -> None:
        """Write one down, with the difference to the one at idle. CaseFailed when there is none to be had."""
        if self._view is None:
            return
        at = round(self._folder.now(), 4)
        text = self._view.fetch("/debug/tracemalloc?by=filename")
        answer = json.loads(text) if text is not None else {}
        if not answer.get("tracing"):
            raise CaseFailed(f"no snapshot at {marker}: the server does not trace its allocations")
        rows = [(short(place), size, blocks) for place, size, blocks in answer["rows"]]
        self._taken[marker] = rows
        snapshot: dict[str, Any] = {"at": at, "marker": marker, **grouped(rows)}
        if marker != "idle":
            before = [(name, -size, -blocks) for name, size, blocks in self._taken["idle"]]
            snapshot["since_idle"] = grouped([*rows, *before])
        self._folder.snapshot(marker, snapshot)

    def take_once(self, marker: str) -> None:
        if marker not in self._taken:
            self.take(marker)


def grouped(files: Iterable[Row]) -> dict[str, list[Row]]:
    """The three views of rows whose files are `short`, each the largest first."""
    rows = list(files)
    return {
        "by_file": summed(rows),
        "by_layer": summed((layer(name), size, blocks) for name, size, blocks in rows),
        "by_stage": summed((stage(name), size, blocks) for name, size, blocks in rows),
    }


def summed(rows: Iterable[Row]) -> list[Row]:
    totals: dict[str, tuple[int, int]] = {}
    for name, size, blocks in rows:
        before = totals.get(name, (0, 0))
        totals[name] = before[0] + size, before[1] + blocks
    ordered = sorted(totals.items(), key=lambda item: item[1][0], reverse=True)
    return [(name, size, blocks) for name, (size, blocks) in ordered]


def short(path: str) -> str:
    """`trioreg/pipeline/pump.py`, `trio/_core/_run.py`, `lib/ssl.py`: nothing of this machine."""
    path = path.removesuffix(":0")
    for root, name in (("/site-packages/", ""), ("/trioreg/", "trioreg/")):
        _, found, rest = path.rpartition(root)
        if found:
            return name + rest
    if not path.startswith("/"):
        return path
    parts = path.split("/")
    return f"lib/{'/'.join(parts[-2:] if parts[-2:-1] and 'python' not in parts[-2] else parts[-1:])}"


def layer(name: str) -> str:
    """The layer of ours, the package of others, `python` for the standard library."""
    top, *rest = name.split("/")
    if top == "trioreg":
        return f"trioreg/{rest[0].removesuffix('.py')}" if rest else "trioreg"
    return "python" if top in ("lib", "<frozen importlib._bootstrap>") or top.startswith("<") else top


def stage(name: str) -> str:
    """Of a block's way; `other` for what serves all stages."""
    return next((stage for start, stage in STAGES.items() if name.startswith(start)), "other")

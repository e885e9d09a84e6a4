"""What Python holds at a marker of a run, by file, by layer of the house and by stage of the pipeline.

The figures are tracemalloc's, asked for through the server's own /debug pages (`debug.enabled`). The rule: a
snapshot is of Python's allocations only; blocks are mappings, which tracemalloc does not see.
"""

import json
from collections.abc import Iterable

from perf.harness.folder import RunFolder
from perf.harness.inside import InsideView
from perf.run import CaseFailed

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
        self._view = InsideView(port) if wanted else None
        self._taken: set[str] = set()

    def start(self) -> None:
        """CaseFailed when the server cannot trace."""
        if self._view is not None and self._view.fetch("/debug/tracemalloc/start", "POST") is None:
            raise CaseFailed("the server cannot trace its allocations: has it debug.enabled?")

    def close(self) -> None:
        if self._view is not None:
            self._view.close()

    def take(self, marker: str) -> None:
        if self._view is None:
            return
        self._taken.add(marker)
        at = round(self._folder.now(), 4)
        text = self._view.fetch("/debug/tracemalloc?top=10000")
        if text is None:
            raise CaseFailed(f"no snapshot at {marker}: the server did not answer")
        files = [(row["file"], row["bytes"], row["blocks"]) for row in json.loads(text)["files"]]
        self._folder.snapshot(marker, {"at": at, "marker": marker, **grouped(files)})

    def take_once(self, marker: str) -> None:
        if marker not in self._taken:
            self.take(marker)


def grouped(files: Iterable[Row]) -> dict[str, list[Row]]:
    """The three views, each the largest first."""
    rows = [(short(name), size, blocks) for name, size, blocks in files]
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
    for root, name in (("/site-packages/", ""), ("/trioreg/", "trioreg/")):
        _, found, rest = path.rpartition(root)
        if found:
            return name + rest
    if path.startswith("<"):
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

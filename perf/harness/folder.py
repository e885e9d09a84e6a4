"""What a run leaves behind: run.json, samples.jsonl, events.jsonl and snapshots/, in a folder of its own.

The rule: samples and events are written as they come, so that a run that breaks has left what it saw, and
run.json comes last, so that a folder with one is complete. Moments are seconds since `began`.
docs/harness.md describes the format; `FORMAT` changes with it.
"""

import json
import time
from pathlib import Path
from typing import IO, Any

FORMAT = 1


class FolderTaken(Exception):
    """The folder holds a run already."""


class RunFolder:
    """An open folder. A context manager; each of the two streams belongs to one thread."""

    def __init__(self, path: Path) -> None:
        if (path / "run.json").exists():
            raise FolderTaken(f"{path} holds a run already")
        (path / "snapshots").mkdir(parents=True, exist_ok=True)
        self.path = path
        self.began = time.monotonic()
        self.started = time.time()
        self._samples: IO[str] = (path / "samples.jsonl").open("w")
        self._events: IO[str] = (path / "events.jsonl").open("w")

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._samples.close()
        self._events.close()

    def now(self) -> float:
        return time.monotonic() - self.began

    def sample(self, sample: dict[str, Any]) -> None:
        self._samples.write(json.dumps(sample, separators=(",", ":")) + "\n")

    def event(self, event: str, at: float | None = None, **details: Any) -> None:
        """`at` is of time.monotonic(), now by default."""
        moment = self.now() if at is None else at - self.began
        self._events.write(json.dumps({"t": round(moment, 4), "event": event, **details}) + "\n")

    def snapshot(self, name: str, content: dict[str, Any]) -> None:
        (self.path / "snapshots" / f"{name}.json").write_text(json.dumps(content))

    def finish(self, run: dict[str, Any]) -> None:
        """Write run.json: the last word."""
        whole = {"format": FORMAT, "started": self.started, "seconds": round(self.now(), 3), **run}
        (self.path / "run.json").write_text(json.dumps(whole, indent=1) + "\n")

"""One line on a terminal that says how far a long command is; nothing where stderr is no terminal."""

from __future__ import annotations

import shutil
import sys
import time

_EVERY_SECONDS = 0.1
_BAR = 24


class ProgressLine:
    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._started = self._drawn = time.monotonic()

    def show(self, text: str, done: float | None = None) -> None:
        """`done`: 0 to 1, where it is known. Draws at most ten times a second."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < _EVERY_SECONDS:
            return
        self._drawn = now
        line = f"{now - self._started:5.0f} s  {text}"
        if done is not None:
            full = round(done * _BAR)
            line = f"[{'#' * full}{'.' * (_BAR - full)}] {done:4.0%} {line}"
        sys.stderr.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

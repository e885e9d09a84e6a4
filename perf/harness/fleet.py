"""The client processes of a run, seen from the process that started them.

The rule: whatever they say goes to one bounded queue in the order it came, and a process that ends
without its last word is an error of the run, never a number that is missing.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from perf.harness.messages import Beat, Ended, Filled, Job, Operation, Ready, decode_said, encode
from perf.harness.scenario import Scenario
from perf.run import CaseFailed

LINES_WAITING = 10_000  # beyond them readers wait, and then clients: nothing is dropped
PREPARE_SECONDS = 600.0
GRACE = 30.0  # seconds for a last word after the scenario's own end

Line = tuple[int, bytes]


class Fleet:
    """Processes that run one scenario against a port. A context manager that ends them by their pids."""

    def __init__(self, scenario: Scenario, port: int, name: str, beats: float) -> None:
        self._scenario = scenario
        self._jobs = [Job(scenario, port, name, number, beats) for number in range(scenario.processes)]
        self._lines: queue.Queue[Line] = queue.Queue(LINES_WAITING)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._beats = [Beat() for _ in self._jobs]
        self._readers: list[threading.Thread] = []
        self._through: set[int] = set()
        self.ended: list[Ended] = []

    def __enter__(self) -> "Fleet":
        for number, job in enumerate(self._jobs):
            process = subprocess.Popen(
                [sys.executable, "-m", "perf.harness.client"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=Path(__file__).parent.parent.parent,
            )
            self._processes.append(process)
            self._readers.append(threading.Thread(target=self._read, args=(number, process), daemon=True))
            self._readers[-1].start()
            self._tell(process, encode(job))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for reader in self._readers:
            while reader.is_alive():  # it may wait for room in the queue
                with contextlib.suppress(queue.Empty):
                    self._lines.get(timeout=0.05)
            reader.join()

    @property
    def totals(self) -> Beat:
        """Of all processes, as of their last word."""
        beats = list(self._beats)
        return Beat(*(sum(getattr(beat, field) for beat in beats) for field in Beat.__struct_fields__))

    @property
    def running(self) -> bool:
        return len(self._through) < len(self._jobs)

    def prepare(self) -> None:
        """Until the catalog is filled and every process is ready. CaseFailed when one is not in time."""
        deadline = time.monotonic() + PREPARE_SECONDS
        ready = filled = 0
        while ready < len(self._jobs) or not filled:
            for said in self._take(deadline - time.monotonic()):
                ready += isinstance(said, Ready)
                filled += isinstance(said, Filled)
            if time.monotonic() > deadline:
                raise CaseFailed(f"the clients were not ready after {PREPARE_SECONDS:.0f} s")

    def go(self) -> None:
        """Let all begin."""
        self._deadline = time.monotonic() + self._scenario.seconds + GRACE
        for process in self._processes:
            self._tell(process, b"go\n")

    def operations(self, timeout: float) -> Iterator[Operation]:
        """What ended meanwhile, waiting at most `timeout` seconds. CaseFailed when a process died."""
        for said in self._take(timeout):
            if isinstance(said, Operation):
                yield said
        if self.running and time.monotonic() > self._deadline:
            raise CaseFailed("the clients did not end in time")

    def _take(self, timeout: float) -> Iterator[object]:
        """All that is there, or the first thing that comes within `timeout`."""
        wait = max(timeout, 0.0)
        while True:
            try:
                number, line = self._lines.get(timeout=wait) if wait else self._lines.get_nowait()
            except queue.Empty:
                return
            wait = 0.0
            if not line:
                self._gone(number)
                continue
            said = decode_said(line)
            if isinstance(said, Beat):
                self._beats[number] = said
            elif isinstance(said, Ended):
                self._beats[number] = said.totals
                self.ended.append(said)
                self._through.add(number)
            yield said

    def _gone(self, number: int) -> None:
        code = self._processes[number].wait()
        if code or number not in self._through:
            raise CaseFailed(f"client process {number} ended with exit code {code}")

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._lines.put((number, line))
        self._lines.put((number, b""))

    def _tell(self, process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        try:
            os.write(process.stdin.fileno(), line)
        except BrokenPipeError:
            raise CaseFailed("a client process ended before it was told what to do") from None

"""`python -m perf access`: the same requests with and without access control, and what is said of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from perf.__main__ import main
from perf.access import OPEN, Way, cpu_seconds, ratios, section
from perf.attempt import Figure
from perf.bodies import Digests, Source


def way(name: str, cpu: list[float], home: Path) -> Way:
    """One whose server does not run, with the CPU seconds of its rounds."""
    with Source() as source:
        made = Way(name, {}, home, (source, Digests(source)))
    made.figures["asked"] = [Figure(1.0, 2.0, server_cpu=each, peak_rss=40_000_000) for each in cpu]
    return made


def test_a_round_is_compared_with_itself(tmp_path: Path) -> None:
    """A round in which everything was slow moves no ratio."""
    plain, guarded = way(OPEN, [1.0, 2.0, 1.0], tmp_path), way("password", [1.1, 2.0, 1.2], tmp_path)
    assert ratios("asked", guarded, plain) == [1.1, 1.0, 1.2]
    text = section("asked", "1,000 requests", [plain, guarded])
    assert "| password | 0.6000 | 1.100 | 1.000 to 1.200 | 40.0 |" in text


def test_cpu_of_a_process() -> None:
    """It is what the process itself sees."""
    assert cpu_seconds(os.getpid()) == pytest.approx(time.process_time(), abs=0.05)


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients with a token get their answers; the exit code says whether it costs too much."""
    arguments = ["access", "--quick", "--way", "token", "--case", "images", "--storage-dir", str(tmp_path)]
    assert main([*arguments, "--most", "100000"]) == 0
    said = capsys.readouterr().out
    assert "| token |" in said and said.endswith("above 100000 %: nothing\n")

"""What `make audit` makes of pip-audit's answer: an audit of nothing is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parent.parent / ".ci" / "audit.py"
GOOD: dict[str, Any] = {"name": "good", "version": "1", "vulns": []}
BAD: dict[str, Any] = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1"}]}
SKIPPED: dict[str, Any] = {"name": "who", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([GOOD, GOOD], 0, "audit: 2 packages, no known vulnerability"),
        ([GOOD, BAD], 1, "audit: 1 known vulnerabilities"),
        ([SKIPPED, BAD], 1, "bad 2: CVE-1"),
        ([GOOD, SKIPPED], 3, "NOT AUDITED: 1 of 2 packages could not be looked up"),
        ([], 3, "NOT AUDITED: 0 of 0 packages could not be looked up"),
        (None, 3, "NOT AUDITED: pip-audit came to no result"),
    ],
)
def test_what_an_answer_means(
    tmp_path: Path, packages: list[dict[str, Any]] | None, code: int, says: str
) -> None:
    """0 only when every package was looked up and none has a known vulnerability."""
    answer = "" if packages is None else json.dumps({"dependencies": packages})
    program = tmp_path / "pip-audit"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    program.chmod(0o755)
    command = [sys.executable, str(AUDIT), str(program), "a.lock"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stdout) == (code, True), done

"""The audit log's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trioreg.events.audit import AuditLog
from trioreg.events.event import Event
from trioreg.metrics.table import AUDIT_FAILURES, AUDIT_LINES


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_line_is_json_with_a_readable_time(tmp_path: Path) -> None:
    """Fields that say nothing are left out; a client cannot break the line."""
    log = AuditLog(tmp_path / "audit", pulls=False, durable=True)
    event = Event(time=1.5, action="push", target="manifest", repository="a", agent='x"\n{')
    assert log.offer(event)
    await log.flush()
    log.close()
    assert lines(tmp_path / "audit") == [
        {
            "time": "1970-01-01T00:00:01.500Z",
            "action": "push",
            "target": "manifest",
            "repository": "a",
            "agent": 'x"\n{',
        }
    ]
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o600


async def test_pulls_only_on_request(tmp_path: Path) -> None:
    """They are many; who wants them says so."""
    for pulls in (False, True):
        log = AuditLog(tmp_path / "audit", pulls=pulls, durable=False)
        assert log.offer(Event(action="pull")) is pulls
        log.close()


async def test_a_file_that_was_moved_is_opened_anew(tmp_path: Path) -> None:
    """As logrotate does it: what comes later is in the new file, and nothing is lost."""
    path = tmp_path / "audit"
    log = AuditLog(path, pulls=False, durable=False)
    for number in range(4):
        if number == 2:
            path.rename(tmp_path / "audit.1")
        log.offer(Event(action="delete", tag=str(number)))
        await log.flush()
    log.close()
    assert [line["tag"] for line in lines(tmp_path / "audit.1")] == ["0", "1"]
    assert [line["tag"] for line in lines(path)] == ["2", "3"]


def counted() -> tuple[int, int, int]:
    """Lines written, lines lost, writes that failed."""
    written, lost = (AUDIT_LINES.total(AUDIT_LINES.at(each)) for each in ("written", "lost"))
    return written, lost, AUDIT_FAILURES.total(0)


async def test_lines_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is in the file, what was given up, and what the disk refused; also across a change of settings."""
    written, lost, failures = counted()
    full = AuditLog(tmp_path / "full", pulls=False, durable=False)
    (tmp_path / "full").unlink()
    (tmp_path / "full").symlink_to("/dev/full")
    event = Event(action="push", detail="x" * 400_000)
    assert [full.offer(event) for _ in range(3)] == [True, True, False]
    await full.flush()
    assert counted() == (written, lost + 1, failures + 1)
    full.close()
    for _ in range(2):
        log = AuditLog(tmp_path / "audit", pulls=False, durable=False)
        log.offer(event)
        log.offer(event)
        await log.flush()
        log.close()
    assert counted() == (written + 4, lost + 1, failures + 1)
    assert "events cannot be written" in caplog.text

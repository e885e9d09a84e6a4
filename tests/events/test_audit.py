"""The audit log's file."""

from __future__ import annotations

import json
from pathlib import Path

from trioreg.events.audit import AuditLog
from trioreg.events.event import Event


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

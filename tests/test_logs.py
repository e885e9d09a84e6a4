"""Logs: a record is one line that a client cannot forge, and writing it never hurts the server."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioreg.logs import AccessLog, Format, Handler, JsonFormatter, Level, Log, TextFormatter, configure
from trioreg.logs import request_id as current_request

log = Log("trioreg.tests")


class Sink:
    """A configured log that is read back; `lines` gives what came since the last call."""

    def __init__(self, level: Level, fmt: Format) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self.handler = configure(level, fmt, self.writer)

    def lines(self) -> list[str]:
        try:
            return os.read(self.reader, 1 << 20).decode("ascii").splitlines()
        except BlockingIOError:
            return []

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            os.close(descriptor)


@pytest.fixture(autouse=True)
def levels_as_before() -> Iterator[None]:
    """Logging is global to the process: what a test configures is undone."""
    root, ours = logging.getLogger(), logging.getLogger("trioreg")
    before = root.level, ours.level, root.handlers[:]
    yield
    ours.setLevel(before[1])
    root.handlers[:] = before[2]
    root.setLevel(before[0])  # the setter, because it also forgets which levels were cached


@pytest.fixture
def text() -> Iterator[Sink]:
    sink = Sink("info", "text")
    yield sink
    sink.close()


@pytest.fixture
def as_json() -> Iterator[Sink]:
    sink = Sink("info", "json")
    yield sink
    sink.close()


def test_a_text_record_has_time_level_logger_message_and_fields(text: Sink) -> None:
    """Plain values stand bare, others are quoted, None and numbers are as Python writes them."""
    log.info("blob published", digest="sha256:ab", size=12, tag=None, note="a b", empty="")
    [line] = text.lines()
    stamp, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == (
        'info    trioreg.tests blob published digest=sha256:ab size=12 tag=None note="a b" empty=""'
    )


def test_a_json_record_keeps_the_types_of_its_fields(as_json: Sink) -> None:
    """Numbers, booleans and null stay what they are; what JSON lacks becomes text."""
    log.info("done", size=12, ok=True, tag=None, seconds=0.5, ratio=float("nan"), path=os.sep)
    record = json.loads(as_json.lines()[0], parse_constant=pytest.fail)
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "info", "logger": "trioreg.tests", "message": "done", "size": 12, "ok": True,
        "tag": None, "seconds": 0.5, "ratio": "nan", "path": os.sep,
    }  # fmt: skip


def test_a_field_cannot_replace_what_the_record_says_of_itself(as_json: Sink) -> None:
    """Fields named as the record's own parts get an underscore."""
    log.info("true", level="forged", message="forged", time="forged")
    record = json.loads(as_json.lines()[0])
    assert (record["level"], record["message"], record["level_"]) == ("info", "true", "forged")


def test_the_request_id_is_on_every_record_of_its_context(text: Sink, as_json: Sink) -> None:
    """Set once, it is on our records and on those of other libraries; then it is gone."""
    for sink, wanted in ((as_json, '"request": "r-1"'), (text, "request=r-1")):
        logging.getLogger().handlers[:] = [sink.handler]
        token = current_request.set("r-1")
        log.info("ours")
        logging.getLogger("other.library").warning("theirs %s", "too")
        current_request.reset(token)
        log.info("outside")
        ours, theirs, outside = sink.lines()
        assert wanted in ours
        assert wanted in theirs
        assert "theirs too" in theirs
        assert "r-1" not in outside


FORGERIES = [
    "x\n2026-01-01T00:00:00.000Z info    trioreg forged",
    "x\r\nforged",
    "\x1b[2Kforged",
    "a\x00b\x7f\x9b",
    "line\u2028separator\u2029",
    "\u202eright to left",
    "lone \udcff surrogate",
    'quote" level=error',
    "back\\slash=",
]


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_client_cannot_forge_a_line(forgery: str, text: Sink, as_json: Sink) -> None:
    """Whatever a field, message or error carries: one visible line, and it reads back in JSON."""
    for sink in (text, as_json):
        logging.getLogger().handlers[:] = [sink.handler]
        log.info("request", path=forgery)
        log.info(forgery)
        lines = sink.lines()
        assert len(lines) == 2
        assert all(re.fullmatch(r"[ -~]+", line) for line in lines)
    assert json.loads(lines[0])["path"] == forgery
    assert json.loads(lines[1])["message"] == forgery


@given(st.text(), st.text())
def test_no_text_breaks_the_line(message: str, value: str) -> None:
    """Both formats give visible ASCII for any text, and JSON gives it back unchanged."""
    record = logging.LogRecord("trioreg", logging.INFO, "", 0, message, None, None)
    record.fields = {"value": value}
    for formatter in (TextFormatter(), JsonFormatter()):
        assert re.fullmatch(r"[ -~]+", formatter.format(record))
    back = json.loads(JsonFormatter().format(record))
    assert (back["message"], back["value"]) == (message, value)


def test_a_traceback_is_inside_the_json_object_and_indented_in_text(text: Sink, as_json: Sink) -> None:
    """JSON stays one line; in text no line of a traceback can pass for a record."""
    try:
        raise ValueError("first\n2026-01-01T00:00:00.000Z info    forged")
    except ValueError as error:
        cause = error
    for sink in (text, as_json):
        logging.getLogger().handlers[:] = [sink.handler]
        log.error("handler failed", cause=cause, status=500)
    [only] = as_json.lines()
    assert "ValueError: first" in json.loads(only)["traceback"]
    first, *others = text.lines()
    assert first.endswith("handler failed status=500")
    assert len(others) > 2
    assert all(line.startswith("    | ") for line in others)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["d", "i", "w", "e", "their w"]),
        ("info", ["i", "w", "e", "their w"]),
        ("warning", ["w", "e", "their w"]),
        ("error", ["e"]),
    ],
)
def test_the_level_is_ours_and_others_are_heard_from_warning_on(level: Level, expected: list[str]) -> None:
    """Below the level nothing is written; libraries never below warning."""
    sink = Sink(level, "json")
    for write in (log.debug, log.info, log.warning, log.error):
        write(write.__name__[0])
    other = logging.getLogger("other.library")
    other.info("their i")
    other.warning("their w")
    assert [json.loads(line)["message"] for line in sink.lines()] == expected
    sink.close()


def test_a_second_configure_replaces_the_first() -> None:
    """A record is written once, to the latest place."""
    first, second = Sink("info", "text"), Sink("info", "text")
    log.info("once")
    assert (len(first.lines()), len(second.lines())) == (0, 1)
    for sink in (first, second):
        sink.close()


def test_a_broken_stderr_is_counted_and_nothing_else(text: Sink) -> None:
    """Reader gone, descriptor closed, none at all, a full pipe: no exception, a count."""
    reader, writer = os.pipe()
    os.close(reader)
    broken = configure("info", "text", writer)
    log.info("to nobody")
    os.close(writer)
    log.info("to a closed descriptor")
    assert broken.dropped == 2

    nowhere = Handler(None)
    nowhere.handle(logging.LogRecord("trioreg", logging.INFO, "", 0, "m", None, None))
    assert nowhere.dropped == 1

    full = configure("info", "text", text.writer)
    os.set_blocking(text.writer, False)
    for _ in range(100):
        log.info("x" * 4096)
    assert full.dropped > 0


def test_a_value_that_cannot_be_shown_is_counted(text: Sink) -> None:
    """A `__str__` that raises costs the record, not the request."""

    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    log.info("fine", bad=Bad())
    log.info("still here")
    assert [line.split()[3] for line in text.lines()] == ["still"]
    assert text.handler.dropped == 1


def test_a_closed_stderr_is_never_written_to() -> None:
    """Started with stderr closed, descriptor 2 becomes the next file opened: it stays empty."""
    program = (
        "import os, sys, tempfile\n"
        "from trioreg.logs import Log, configure\n"
        "file = tempfile.TemporaryFile()\n"
        "handler = configure('info', 'text')\n"
        "Log('trioreg').info('lost')\n"
        "print(sys.stderr is None, file.fileno(), os.fstat(file.fileno()).st_size,"
        " handler.dropped)\n"
    )
    shell = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, program]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "2", "0", "1"]


def test_nothing_is_formatted_below_the_level(text: Sink) -> None:
    """A field of a record that is not written is never turned into text."""
    shown: list[Any] = []

    class Costly:
        def __str__(self) -> str:
            shown.append(self)
            return "costly"

    log.debug("hidden", value=Costly())
    assert shown == []
    log.info("seen", value=Costly())
    assert len(shown) == 1
    assert len(text.lines()) == 1


# The access log.


def record(access: AccessLog, path: str = "/v2/", method: str = "GET", client: str = "192.0.2.1") -> None:
    access.record(method, path, 200, received=1, sent=2, seconds=0.25, client=client, request="ab-1")


def test_an_access_line_in_text(text: Sink) -> None:
    """Nothing is written before `write`; then a line a request, in their order."""
    access = AccessLog(enabled=True)
    record(access, "/v2/a")
    record(access, "/v2/b")
    assert text.lines() == []
    access.write(access.take())
    first, second = text.lines()
    stamp, rest = first.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == (
        "info    trioreg.access request method=GET path=/v2/a status=200 received=1 sent=2"
        " seconds=0.250000 client=192.0.2.1 request=ab-1"
    )
    assert " path=/v2/b " in second


def test_an_access_line_in_json(as_json: Sink) -> None:
    """An object a request, with numbers as numbers."""
    access = AccessLog(enabled=True)
    record(access)
    access.write(access.take())
    [line] = as_json.lines()
    values = json.loads(line)
    assert values.pop("time").endswith("Z")
    assert values == {
        "level": "info", "logger": "trioreg.access", "message": "request", "request": "ab-1",
        "method": "GET", "path": "/v2/", "status": 200, "received": 1, "sent": 2, "seconds": 0.25,
        "client": "192.0.2.1",
    }  # fmt: skip


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_client_cannot_forge_an_access_line(forgery: str, text: Sink, as_json: Sink) -> None:
    """Quotes, line ends and the like are escaped in every value that a client chooses."""
    access = AccessLog(enabled=True)
    for sink in (text, as_json):
        logging.getLogger().handlers[:] = [sink.handler]
        record(access, forgery, forgery, forgery)
        access.write(access.take())
        [line] = sink.lines()
        assert re.fullmatch(r"[ -~]+", line)
        if sink is text:
            for name in ("method", "path", "client"):
                assert f" {name}={json.dumps(forgery)} " in line
        else:
            values = json.loads(line)
            assert [values[name] for name in ("method", "path", "client")] == [forgery] * 3


def test_what_is_taken_is_taken_once(text: Sink) -> None:
    """`take` empties the log, and what comes while somebody writes waits for the next."""
    access = AccessLog(enabled=True)
    record(access, "/v2/a")
    taken = access.take()
    record(access, "/v2/b")
    access.write(taken)
    assert ["path=/v2/a" in line for line in text.lines()] == [True]
    access.write(access.take())
    assert ["path=/v2/b" in line for line in text.lines()] == [True]
    assert access.take() == []
    access.write([])
    assert text.lines() == []


def test_an_access_log_that_nobody_takes_from_is_bounded(text: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first lines wait, the rest are counted; after a `take` there is room again."""
    monkeypatch.setattr(AccessLog, "LIMIT", 3)
    access = AccessLog(enabled=True)
    for number in range(5):
        record(access, f"/v2/{number}")
    assert access.dropped == 2
    waiting = access.take()
    record(access, "/v2/5")
    assert access.dropped == 2
    access.write(waiting)
    access.write(access.take())
    assert [line.split(" path=/v2/")[1][0] for line in text.lines()] == list("0125")


def test_no_access_log(text: Sink) -> None:
    """Disabled, it keeps nothing and writes nothing; above `info` nothing is written either."""
    silent = AccessLog(enabled=False)
    for _ in range(10):
        record(silent)
    assert (silent.take(), silent.dropped) == ([], 0)
    access = AccessLog(enabled=True)
    sink = Sink("warning", "text")
    record(access)
    access.write(access.take())
    assert (text.lines(), sink.lines()) == ([], [])
    sink.close()


def test_access_lines_that_cannot_be_written_are_counted() -> None:
    """Nobody reads any more: no exception, and a count for each line."""
    reader, writer = os.pipe()
    os.close(reader)
    broken = configure("info", "text", writer)
    access = AccessLog(enabled=True)
    record(access)
    record(access)
    access.write(access.take())
    assert broken.dropped == 2
    os.close(writer)

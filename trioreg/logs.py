"""Structured logging: one record is one event with named fields, as text or as JSON on stderr.

    log = Log(__name__)
    log.info("blob published", repository=name, digest=digest, size=size)

The rules:

1. A client cannot forge a line or hide in one: whatever is not plain ASCII is escaped, in messages,
   fields and tracebacks, so a record is one line (in text, the lines of a traceback are indented
   below it; in JSON they are inside the object).
2. Logging never raises into the server. A record that cannot be formatted or written is counted in
   `Handler.dropped`, nothing more.
3. A record below the level costs one comparison; nothing is formatted.

The request id (and a trace id) is a context variable: set it once where a request begins and every record
of its tasks and threads carries it, those of other libraries too. A leaf: imports nothing else of ours.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Literal, TypeAlias

request_id: ContextVar[str] = ContextVar("request_id", default="")
trace_id: ContextVar[str] = ContextVar("trace_id", default="")  # of OpenTelemetry, where that is on

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["text", "json"]

_PLAIN_VALUE = re.compile(r"""[!#-<>-\[\]-~]+""")  # visible ASCII without " = \
_PLAIN_MESSAGE = re.compile(r"[ -~]*")


class Log:
    """The records of one module; fields are keywords."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, **fields: object) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, /, *, cause: BaseException | None = None, **fields: object) -> None:
        """`cause` adds its traceback."""
        self._write(logging.ERROR, message, fields, cause)

    def _write(
        self,
        level: int,
        message: str,
        fields: dict[str, object],
        cause: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, exc_info=cause, extra={"fields": fields})


def configure(level: Level, fmt: Format, descriptor: int | None = None) -> Handler:
    """Send every record of the process to stderr (or to `descriptor`); a second call replaces it.

    `level` holds for trioreg; other libraries are heard from `warning` on.
    """
    handler = Handler(_stderr() if descriptor is None else descriptor)
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    ours = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(ours, logging.WARNING))
    logging.getLogger("trioreg").setLevel(ours)
    return handler


def _stderr() -> int | None:
    # A process started with stderr closed has no sys.stderr, and its descriptor 2 is the next file
    # that is opened: a blob, perhaps.
    try:
        return sys.stderr.fileno() if sys.stderr is not None else None
    except (OSError, ValueError):
        return None


class Handler(logging.Handler):
    """Writes a record with one `write` to a descriptor; counts what could not be written."""

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - rule 2
            self.dropped += 1

    def write(self, lines: str) -> None:
        """Write lines that are formatted already."""
        try:
            self._write(lines)
        except Exception:  # noqa: BLE001 - rule 2
            self.dropped += lines.count("\n")

    def _write(self, lines: str) -> None:
        if self._descriptor is None:
            raise OSError("no stderr")
        data = lines.encode("ascii", "backslashreplace")
        # Not through sys.stderr: its buffer would keep, and grow by, what cannot be written.
        while data:
            data = data[os.write(self._descriptor, data) :]


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message, request, the fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id.get():
            values["request"] = request
        if trace := trace_id.get():
            values["trace"] = trace
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        for name, value in _fields(record).items():
            values[f"{name}_" if name in values else name] = _plain(value)
        return json.dumps(values, default=str)


class TextFormatter(logging.Formatter):
    """`time level logger message name=value …`, values quoted where they need it."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if _PLAIN_MESSAGE.fullmatch(message) is None:
            message = json.dumps(message)
        line = f"{_time(record)} {record.levelname.lower():<7} {record.name} {message}"
        for name, value in _fields(record).items():
            line += f" {name}={_quote(value)}"
        if request := request_id.get():
            line += f" request={_quote(request)}"
        if trace := trace_id.get():
            line += f" trace={trace}"
        if record.exc_info:
            for part in self.formatException(record.exc_info).splitlines():
                line += f"\n    | {part if _PLAIN_MESSAGE.fullmatch(part) else json.dumps(part)}"
        return line


def _time(record: logging.LogRecord) -> str:
    return _utc(record.created)


def _utc(at: float) -> str:
    return f"{_second(int(at))}.{int(at % 1 * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return getattr(record, "fields", None) or {}


def _plain(value: object) -> object:
    """`value` as JSON can hold it: not NaN, which is no JSON; anything unknown as its text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _quote(value: object) -> str:
    text = str(value)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text)


_Entry: TypeAlias = tuple[float, str, str, int, int, int, float, str, str, str]


class AccessLog:
    """One line a request, written in batches: `record` costs an append, the rest is done in `write`.

    Whoever owns the log hands what `take` gives to `write`, from time to time and at the end; in a thread,
    because nobody may read what we write to. At most `LIMIT` lines wait, the rest are counted in `dropped`.
    """

    LIMIT = 20_000

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.dropped = 0
        self._waiting: list[_Entry] = []

    def record(
        self,
        method: str,
        path: str,
        status: int,
        *,
        received: int,
        sent: int,
        seconds: float,
        client: str,
        request: str,
    ) -> None:
        """`received` and `sent` are bytes of content; 499 means that the client left before an answer."""
        if not self.enabled:
            return
        if len(self._waiting) >= self.LIMIT:
            self.dropped += 1
            return
        now = time.time()
        trace = trace_id.get()
        self._waiting.append((now, method, path, status, received, sent, seconds, client, request, trace))

    def take(self) -> list[_Entry]:
        """What waits, for `write`."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def write(self, waiting: list[_Entry]) -> None:
        """Format and write; may block as long as nobody reads."""
        if not waiting or not _access_logger.isEnabledFor(logging.INFO):
            return
        for handler in logging.getLogger().handlers:
            if isinstance(handler, Handler):
                line = _access_json if isinstance(handler.formatter, JsonFormatter) else _access_text
                handler.write("".join([line(entry) for entry in waiting]))


_access_logger = logging.getLogger("trioreg.access")


def _access_text(entry: _Entry) -> str:
    at, method, path, status, received, sent, seconds, client, request, trace = entry
    traced = f" trace={trace}" if trace else ""
    return (
        f"{_utc(at)} info    trioreg.access request method={_quote(method)} path={_quote(path)}"
        f" status={status} received={received} sent={sent} seconds={seconds:.6f}"
        f" client={_quote(client)} request={request}{traced}\n"
    )


def _access_json(entry: _Entry) -> str:
    at, method, path, status, received, sent, seconds, client, request, trace = entry
    values = {
        "time": _utc(at),
        "level": "info",
        "logger": "trioreg.access",
        "message": "request",
        "request": request,
        "method": method,
        "path": path,
        "status": status,
        "received": received,
        "sent": sent,
        "seconds": round(seconds, 6),
        "client": client,
    }
    if trace:
        values["trace"] = trace
    return json.dumps(values) + "\n"

"""A receiver of webhooks on a port of its own: it keeps what it got and answers as it is told."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Delivery(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """`answers`: statuses for the first deliveries; then 204 for ever. None: say nothing until the end."""

    def __init__(self, *answers: int | None, port: int = 0) -> None:
        self._answers = list(answers)
        self._got: list[Delivery] = []
        self._news = threading.Condition()
        self._end = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver._take(Delivery(dict(self.headers.items()), body))
                if status is None:
                    receiver._end.wait()
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?a=b"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def got(self) -> list[Delivery]:
        with self._news:
            return list(self._got)

    def wait(self, count: int, seconds: float = 20.0) -> list[Delivery]:
        """The deliveries, once there are so many."""
        with self._news:
            assert self._news.wait_for(lambda: len(self._got) >= count, seconds), self._got
            return list(self._got)

    def _take(self, delivery: Delivery) -> int | None:
        with self._news:
            self._got.append(delivery)
            self._news.notify_all()
            return self._answers.pop(0) if self._answers else 204

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

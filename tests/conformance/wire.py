"""A raw connection: for what an HTTP library will not send, or not send half of.

Rule: `recv` has one time limit and it only fails a test, it never decides one.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Mapping
from email.parser import BytesHeaderParser
from http.client import HTTPMessage
from types import TracebackType
from typing import Self

from blackbox import Answer, Registry, path_of

ANSWER_LIMIT = 10.0


class Closed(Exception):
    """The server closed the connection where an answer was expected."""


class Wire:
    """One TCP connection to the server."""

    def __init__(self, server: Registry) -> None:
        self._address = f"{server.host}:{server.port}"
        self._socket = socket.create_connection((server.host, server.port), timeout=ANSWER_LIMIT)
        self._buffer = bytearray()

        self.sent_all = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def head(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> bytes:
        """The bytes of a request head; `target` may be a Location as it came."""
        lines = [f"{method} {path_of(target)} HTTP/1.1", f"Host: {self._address}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_until_answered(self, data: bytes) -> None:
        """Send until all is sent (`sent_all` tells), the server says something, or it closes."""
        view = memoryview(data)
        self.sent_all = False
        while view:
            both = [self._socket]
            readable, writable, _ = select.select(both, both, [], ANSWER_LIMIT)
            assert readable or writable, "the server neither reads nor answers"
            if readable:
                return
            try:
                view = view[self._socket.send(view[:65536]) :]
            except (BrokenPipeError, ConnectionResetError):
                return
        self.sent_all = True

    def reset(self) -> None:
        """Vanish with a TCP reset instead of a farewell."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def status(self) -> int:
        """The status of the next answer, which has no body (100)."""
        return int(self._until(b"\r\n\r\n").split()[1])

    def answer(self, method: str = "GET") -> Answer:
        """The next final answer (1xx are skipped). Raises Closed."""
        status = 100
        while 100 <= status < 200:
            first, _, rest = self._until(b"\r\n\r\n").partition(b"\r\n")
            status = int(first.split()[1])
        headers = BytesHeaderParser(_class=HTTPMessage).parsebytes(rest)
        if method == "HEAD" or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("Transfer-Encoding", "").lower() == "chunked":
            return Answer(status, headers, self._chunks())
        if "Content-Length" in headers:
            return Answer(status, headers, self._exactly(int(headers["Content-Length"])))
        return Answer(status, headers, self.rest())

    def rest(self) -> bytes:
        """All until the server closes the connection."""
        try:
            while self._receive():
                pass
        except ConnectionResetError:
            pass
        return self._take(len(self._buffer))

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            body += self._exactly(size)
            self._until(b"\r\n")
        self._until(b"\r\n")
        return body

    def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            self._more()
        return self._take(at + len(mark))

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _more(self) -> None:
        try:
            if self._receive():
                return
        except ConnectionResetError:
            pass
        raise Closed(bytes(self._buffer))

    def _receive(self) -> int:
        data = self._socket.recv(65536)
        self._buffer += data
        return len(data)

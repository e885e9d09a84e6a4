"""One blob on its way into a registry that may die at any moment: sent in chunks, resumed where GET says."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable, Iterator

from blackbox import digest_of, path_of, seeded_bytes, with_query

PIECE = 16 * 1024
SIZES = [100, 5000, 70_000, 700_000, 1_500_000]
CHUNKS = [9_999, 65_536, 300_000, 10**9]


class Wire:
    """A connection to a server; `did_one` is told of each request begun and each piece of a body sent."""

    def __init__(self, host: str, port: int, did_one: Callable[[], None]) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=60)
        self._did_one = did_one

    def request(
        self, method: str, location: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Raises what a connection that is cut raises: OSError or HTTPException."""
        self._did_one()
        sent = self._pieces(body) if len(body) > PIECE else body
        self._connection.request(method, path_of(location), sent, headers or {})
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        for at in range(0, len(body), PIECE):
            self._did_one()
            yield body[at : at + PIECE]

    def close(self) -> None:
        self._connection.close()


class Push:
    """How far the registry acknowledged a blob, and what it promised."""

    def __init__(self, name: str, seed: str, choose: random.Random):
        self.name = name
        self.content = seeded_bytes(seed, choose.choice(SIZES))
        self.digest = digest_of(self.content)
        self._chunk = choose.choice(CHUNKS)
        self._streamed = choose.random() < 0.5  # as docker: chunked transfer coding, no Content-Range
        self._location: str | None = None
        self._finishing = False
        self.acknowledged = 0

    def run(self, wire: Wire) -> None:
        """Go on until the blob is created."""
        offset = self._offset(wire)
        while offset < len(self.content):
            offset = self._append(wire, offset)
        assert self._location is not None
        self._finishing = True
        status, _, body = wire.request("PUT", with_query(self._location, f"digest={self.digest}"))
        assert status == 201, (status, body)

    def _offset(self, wire: Wire) -> int:
        """Where to go on, as GET says; a new session at the very beginning, or if it was being finished."""
        if self._location is not None:
            status, headers, _ = wire.request("GET", self._location)
            if status == 204:
                last = int(headers["Range"].removeprefix("0-"))
                offset = last + 1 if last else 0
                assert self.acknowledged <= offset <= len(self.content)
                self._finishing = False
                return offset
            # Only a session whose end was asked for may be gone: it was, and no answer reached us.
            assert (status, self._finishing) == (404, True)
        status, headers, body = wire.request("POST", f"/v2/{self.name}/blobs/uploads/")
        assert status == 202, (status, body)
        self._location, self.acknowledged, self._finishing = headers["Location"], 0, False
        return 0

    def _append(self, wire: Wire, offset: int) -> int:
        assert self._location is not None
        chunk = self.content[offset : offset + self._chunk]
        end = offset + len(chunk)
        headers = {} if self._streamed else {"Content-Range": f"{offset}-{end - 1}"}
        if not self._streamed or len(chunk) <= PIECE:
            headers["Content-Length"] = str(len(chunk))
        status, answer, body = wire.request("PATCH", self._location, chunk, headers)
        assert status == 202, (status, body)
        assert answer["Range"] == f"0-{end - 1}"
        self.acknowledged = end
        return end

"""One HTTP/1.1 POST on a connection of its own, by h11 over a Trio stream.

Rule: whatever goes wrong before there is a status is `NoAnswer`, and nothing of the answer but the status is
kept: at most `_ANSWER` bytes of it are read. Redirects are not followed. The caller sets the time limit.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult

import trio

_ANSWER = 64 * 1024


class NoAnswer(Exception):
    """The receiver could not be reached, or did not speak HTTP; the text says why."""


async def post(url: SplitResult, headers: Mapping[str, str], body: bytes, tls: ssl.SSLContext | None) -> int:
    """The status of the answer. `tls` is for https."""
    import h11  # here, because most registries tell nobody

    try:
        async with await _connect(url, tls) as stream:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_ANSWER)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            fields = {"Host": url.netloc, "Connection": "close", "Content-Length": str(len(body)), **headers}
            request = h11.Request(method="POST", target=target, headers=list(fields.items()))
            parts = [request, h11.Data(data=body), h11.EndOfMessage()]
            await stream.send_all(b"".join(connection.send(part) or b"" for part in parts))
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Response):
                    return event.status_code
                if event is h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some(_ANSWER)))
    except trio.BrokenResourceError as error:
        raise NoAnswer(str(error.__cause__ or "the connection broke")) from error
    except (OSError, UnicodeError, h11.RemoteProtocolError) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


async def _connect(url: SplitResult, tls: ssl.SSLContext | None) -> trio.abc.Stream:
    assert url.hostname is not None, "checked with the settings"
    port = url.port or (443 if url.scheme == "https" else 80)
    stream = await trio.open_tcp_stream(url.hostname, port)
    if tls is None:
        return stream
    return trio.SSLStream(stream, tls, server_hostname=url.hostname, https_compatible=True)

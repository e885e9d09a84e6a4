"""Sockets to accept on."""

from __future__ import annotations

import trio


async def open_listeners(host: str, port: int, backlog: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`; port 0 takes one free port. Raises OSError."""
    return await trio.open_tcp_listeners(port, host=host or None, backlog=backlog)


def bound_port(listener: trio.SocketListener) -> int:
    port: int = listener.socket.getsockname()[1]
    return port

"""Sockets to accept on, and TLS."""

from __future__ import annotations

import ssl
from pathlib import Path

import trio


async def open_listeners(host: str, port: int, backlog: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`; port 0 takes one free port. Raises OSError."""
    return await trio.open_tcp_listeners(port, host=host or None, backlog=backlog)


def bound_port(listener: trio.SocketListener) -> int:
    port: int = listener.socket.getsockname()[1]
    return port


def tls_context(certificate: Path, key: Path, *, http2: bool) -> ssl.SSLContext:
    """TLS 1.2 or later (RFC 9325). Raises OSError or ssl.SSLError for files that cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    return context

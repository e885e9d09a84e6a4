"""Whom limits count: the name that authentication found, else the address.

Rule: what one can have any number of is no client of its own. An address of IPv6 counts with its /64, which
is what a single host is given (RFC 4291, 2.5.4; RFC 6177).
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from trioreg.api.exchange import Exchange


def client_of(exchange: Exchange) -> str:
    """Names the client of an exchange; no identity has the name of an address."""
    identity = exchange.identity
    return f"identity {identity.name}" if identity is not None else address_of(exchange.peer)


def address_of(peer: str) -> str:
    """The address that counts for a peer."""
    return _network(peer) if ":" in peer else peer


@lru_cache(maxsize=1024)
def _network(peer: str) -> str:
    try:
        address = ipaddress.IPv6Address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))

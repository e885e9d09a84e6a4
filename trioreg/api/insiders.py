"""Who may see what the server shows of itself: the machine it runs on, and administrators."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from trioreg.api.access import require_admin
from trioreg.api.exchange import Exchange
from trioreg.api.service import Service
from trioreg.oci.errors import ErrorCode, RegistryError


def is_open(service: Service) -> bool:
    """Whether there is no access control."""
    return service.authorizer.visible(None) is None


async def insiders_only(service: Service, exchange: Exchange) -> None:
    """Raises DENIED, or UNAUTHORIZED, for who is neither on this machine nor an administrator.

    Without access control nobody is an administrator.
    """
    if is_from_here(exchange):
        return
    if is_open(service):
        raise RegistryError(ErrorCode.DENIED, {"reason": "only from the machine itself"})
    await require_admin(service, exchange)


def is_from_here(exchange: Exchange) -> bool:
    """Whether it came from this machine, and neither through a proxy nor from somebody's web page.

    A page elsewhere can make a browser ask us, under a name of its own that leads here (DNS rebinding): so
    the name that was asked for has to be ours.
    """
    headers = exchange.headers
    passed_on = any(name in headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    host = headers.get("host", "")
    # Not every browser says Sec-Fetch-Site over plain HTTP; Origin comes with every POST of a page.
    foreign |= "origin" in headers and headers["origin"].partition("://")[2].lower() != host.lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return (
        not (passed_on or foreign) and _is_local(exchange.peer) and (name == "localhost" or _is_local(name))
    )


def _is_local(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return parsed.is_loopback

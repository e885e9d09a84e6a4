"""Asks access control about an exchange: the one place of the API that does.

Rule: `identify` comes first and fills `exchange.identity`; everything after it trusts that field.
"""

from __future__ import annotations

from trioreg.api.clients import address_of, client_of
from trioreg.api.exchange import Exchange
from trioreg.api.service import Service
from trioreg.auth.authorizer import Action
from trioreg.oci.errors import RegistryError
from trioreg.oci.names import RepositoryName


async def identify(service: Service, exchange: Exchange) -> None:
    """Find out who asks. Raises UNAUTHORIZED for credentials that are wrong, TOOMANYREQUESTS."""
    authorization, rates = exchange.headers.get("authorization"), service.rates
    if not rates.active:
        exchange.identity = await service.authorizer.identify(authorization)
        return
    # Who it is costs more to find out than anything: an address that has used up its requests is not asked.
    address = address_of(exchange.peer)
    rates.check(address)
    try:
        exchange.identity = await service.authorizer.identify(authorization)
    except RegistryError:
        rates.count(address)
        raise
    rates.take(client_of(exchange))


async def authorize(
    service: Service, exchange: Exchange, repository: RepositoryName | None, action: Action
) -> None:
    """Raises UNAUTHORIZED or DENIED unless who asks may do `action`."""
    await service.authorizer.authorize(exchange.identity, repository, action)


async def require_admin(service: Service, exchange: Exchange) -> None:
    """For pages and commands outside the registry API: identify, then ask. Raises as both.

    Without access control everybody is an administrator.
    """
    await identify(service, exchange)
    await authorize(service, exchange, None, "admin")

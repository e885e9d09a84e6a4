"""Asks access control about an exchange: the one place of the API that does.

Rule: `identify` comes first and fills `exchange.identity`; everything after it trusts that field.
"""

from __future__ import annotations

from trioreg.api.exchange import Exchange
from trioreg.api.service import Service
from trioreg.auth.authorizer import Action
from trioreg.oci.names import RepositoryName


async def identify(service: Service, exchange: Exchange) -> None:
    """Find out who asks. Raises UNAUTHORIZED for credentials that are wrong."""
    exchange.identity = await service.authorizer.identify(exchange.headers.get("authorization"))


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

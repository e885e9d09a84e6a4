"""Asks access control about an exchange: the one place of the API that does.

Rules: `identify` comes first and fills `exchange.identity`; everything after it trusts that field. Who shows
nothing, or a token that was made for less, is challenged (401); who is known and may not is denied (403).
"""

from __future__ import annotations

from trioreg.api.clients import address_of, client_of
from trioreg.api.exchange import Exchange
from trioreg.api.service import Service
from trioreg.auth.authorizer import Action, BadCredentials, asker
from trioreg.logs import Log
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.oci.names import RepositoryName

_log = Log(__name__)


async def identify(
    service: Service, exchange: Exchange, repository: RepositoryName | None = None, action: Action = "list"
) -> None:
    """Find out who asks.

    Raises UNAUTHORIZED for credentials that are wrong, also where none are needed, and TOOMANYREQUESTS.
    """
    rates, authorization = service.rates, exchange.headers.get("authorization")
    if rates.active:
        # Who it is costs more to find out than anything: who has used up their requests is not asked.
        rates.check(address_of(exchange.peer))
    try:
        if authorization:
            exchange.identity = service.authorizer.remembered(authorization)
            if exchange.identity is None:
                asker.set(address_of(exchange.peer))
        if exchange.identity is None:
            exchange.identity = await service.authorizer.identify(authorization, exchange.certificate)
    except (BadCredentials, RegistryError) as refused:
        if rates.active:
            rates.count(address_of(exchange.peer))
        if isinstance(refused, RegistryError):
            raise
        _log.info("credentials refused", client=exchange.peer, reason=str(refused))
        raise _challenged(service, exchange, repository, action, "invalid_token") from None
    if rates.active:
        rates.take(client_of(exchange))


def authorize(
    service: Service, exchange: Exchange, repository: RepositoryName | None, action: Action
) -> None:
    """Raises UNAUTHORIZED or DENIED unless who asks may do `action`."""
    decision = service.authorizer.decide(exchange.identity, repository, action)
    if decision.allowed:
        # Docker and podman take from the answer to GET /v2/ whether to show credentials at all, for all
        # that follows: where anonymous clients may pull, those that log in must be challenged there.
        if action == "list" and exchange.identity is None and "authorization" not in exchange.headers:
            challenged = _challenged(service, exchange, None, action, None)
            if challenged.headers:
                raise challenged
        return
    if decision.closed or (exchange.identity is not None and not decision.narrow):
        raise RegistryError(ErrorCode.DENIED, {"reason": decision.why} if decision.closed else None)
    error = "insufficient_scope" if "authorization" in exchange.headers else None
    raise _challenged(service, exchange, repository, action, error)


async def require_admin(service: Service, exchange: Exchange) -> None:
    """For pages and commands outside the registry API: identify, then ask. Raises as both.

    Without access control everybody is an administrator.
    """
    await identify(service, exchange, None, "admin")
    authorize(service, exchange, None, "admin")


def may_pull(service: Service, exchange: Exchange, repository: RepositoryName | None) -> bool:
    """Whether who asks may know what `repository` holds; None is all repositories there are."""
    if repository is None:
        return service.authorizer.visible(exchange.identity) is None
    return service.authorizer.decide(exchange.identity, repository, "pull").allowed


def owner_of(exchange: Exchange) -> str | None:
    """Whom an upload session that is begun now belongs to; None is everybody who may push there."""
    return exchange.identity.name if exchange.identity is not None else None


def _challenged(
    service: Service,
    exchange: Exchange,
    repository: RepositoryName | None,
    action: Action,
    error: str | None,
) -> RegistryError:
    host = exchange.headers.get("host", "")
    challenge = service.authorizer.challenge(host, repository, action, error)
    headers = {"WWW-Authenticate": challenge} if challenge else {}
    return RegistryError(ErrorCode.UNAUTHORIZED, headers=headers)

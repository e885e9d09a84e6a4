"""Access control from settings. Nothing of it is loaded where nothing is configured."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trioreg.api import Service
from trioreg.auth.authorizer import AllowAll, Authorizer
from trioreg.config import Config, ConfigError

if TYPE_CHECKING:
    from trioreg.auth.guard import Sources
    from trioreg.auth.token import TokenIssuer

AUTH_DIRECTORY = "auth"


def build_authorizer(config: Config) -> Authorizer:
    """Raises ConfigError for a file that cannot be used or a package that is not installed."""
    if not (is_configured(config) or config.auth_read_only):
        return AllowAll()
    from trioreg.auth.guard import Guard

    return Guard(read_sources(config, tokens=config.auth_tokens), read_only=config.auth_read_only)


def is_configured(config: Config) -> bool:
    """Whether anybody can have credentials."""
    return bool(config.auth_htpasswd or config.auth_access or config.auth_tokens or config.http_tls_client_ca)


def read_sources(config: Config, *, tokens: bool) -> Sources:
    """What identities and rules come from. `tokens`: with the key that signs, which is made if need be."""
    from trioreg.auth.guard import Sources
    from trioreg.auth.policy import OPEN_MAY_ALL, SIGNED_IN_MAY_ALL

    if not is_configured(config):
        return Sources(OPEN_MAY_ALL)
    from trioreg.auth.access_file import parse_access_file
    from trioreg.auth.htpasswd import Htpasswd
    from trioreg.auth.robots import Robots
    from trioreg.auth.watched import Watched

    directory = config.auth_directory or config.storage_path / AUTH_DIRECTORY
    try:
        return Sources(
            SIGNED_IN_MAY_ALL,
            htpasswd=Htpasswd(config.auth_htpasswd) if config.auth_htpasswd else None,
            access=Watched(config.auth_access, parse_access_file) if config.auth_access else None,
            robots=Robots(directory / "robots"),
            tokens=_token_issuer(config, directory) if tokens else None,
            certificates=config.http_tls_client_ca is not None,
            service=config.auth_service,
            realm=config.auth_realm,
            scheme="https" if config.http_tls_certificate else "http",
        )
    except ModuleNotFoundError as error:
        raise ConfigError(f"access control needs the package {error.name}: install trioreg[auth]") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _token_issuer(config: Config, directory: Path) -> TokenIssuer:
    from trioreg.auth.token import TokenIssuer

    return TokenIssuer(
        directory / "token-key.pem",
        config.auth_token_algorithm,
        config.auth_service,
        int(config.auth_token_seconds),
    )


def add_token_page(service: Service) -> None:
    """Serve ``/auth/token``, on both fronts."""
    from trioreg.api.token import PATH, token

    service.pages = {**service.pages, PATH: partial(token, service)}

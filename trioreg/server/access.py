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
    from trioreg.auth.identity import Action
    from trioreg.auth.policy import Decision
    from trioreg.auth.robots import Robots
    from trioreg.auth.token import TokenIssuer

AUTH_DIRECTORY = "auth"
ANONYMOUS = "anonymous"


def build_authorizer(config: Config) -> Authorizer:
    """Raises ConfigError for a file that cannot be used or a package that is not installed."""
    if not (is_configured(config) or config.auth_read_only):
        return AllowAll()
    from trioreg.auth.guard import Guard

    return Guard(read_sources(config, tokens=config.auth_tokens), read_only=config.auth_read_only)


def change_access(service: Service, config: Config) -> None:
    """Put in force what can change while the server runs; the files that it names are watched anyway."""
    if not isinstance(service.authorizer, AllowAll):
        from trioreg.auth.guard import Guard

        assert isinstance(service.authorizer, Guard)
        service.authorizer.set_read_only(config.auth_read_only)
    elif config.auth_read_only:
        service.authorizer = build_authorizer(config)


def is_configured(config: Config) -> bool:
    """Whether anybody can have credentials."""
    return bool(config.auth_htpasswd or config.auth_access or config.auth_tokens or config.http_tls_client_ca)


def speaks_tls(config: Config) -> bool:
    return config.http_tls_certificate is not None or config.http_tls_self_signed


def read_sources(config: Config, *, tokens: bool) -> Sources:
    """What identities and rules come from. `tokens`: with the key that signs, which is made if need be."""
    from trioreg.auth.guard import Sources
    from trioreg.auth.policy import OPEN_MAY_ALL, SIGNED_IN_MAY_ALL

    if not is_configured(config):
        return Sources(OPEN_MAY_ALL)
    from trioreg.auth.access_file import parse_access_file
    from trioreg.auth.htpasswd import Htpasswd
    from trioreg.auth.watched import Watched

    directory = _directory(config)
    try:
        return Sources(
            SIGNED_IN_MAY_ALL,
            htpasswd=Htpasswd(config.auth_htpasswd) if config.auth_htpasswd else None,
            access=Watched(config.auth_access, parse_access_file) if config.auth_access else None,
            robots=robots(config),
            tokens=_token_issuer(config, directory) if tokens else None,
            certificates=config.http_tls_client_ca is not None,
            service=config.auth_service,
            realm=config.auth_realm,
            scheme="https" if speaks_tls(config) else "http",
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


def robots(config: Config) -> Robots:
    from trioreg.auth.robots import Robots

    return Robots(_directory(config) / "robots")


def _directory(config: Config) -> Path:
    return config.auth_directory or config.storage_path / AUTH_DIRECTORY


def explain(
    config: Config, user: str, action: Action, repository: str | None, groups: frozenset[str]
) -> Decision:
    """What a server with these settings would decide. ValueError for what is no repository or no robot."""
    from trioreg.auth.guard import Guard
    from trioreg.auth.identity import ROBOT_PREFIX, Identity
    from trioreg.oci.errors import RegistryError
    from trioreg.oci.names import parse_name

    guard = Guard(read_sources(config, tokens=False), read_only=config.auth_read_only)
    try:
        name = parse_name(repository) if repository is not None else None
    except RegistryError:
        raise ValueError(f"{repository!r} is not the name of a repository") from None
    identity: Identity | None = Identity(user, groups)
    if user == ANONYMOUS:
        identity = None
    elif user.startswith(ROBOT_PREFIX):
        robot = robots(config).get(user.removeprefix(ROBOT_PREFIX))
        if robot is None:
            raise ValueError(f"there is no {user}")
        identity = robot.identity()
    return guard.decide(identity, name, action)


def add_token_page(service: Service) -> None:
    """Serve ``/auth/token``, on both fronts."""
    from trioreg.api.token import PATH, token

    service.pages = {**service.pages, PATH: partial(token, service)}

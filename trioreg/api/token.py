"""``/auth/token``: tokens for who shows a password, a robot's token, a client certificate, or nothing.

GET is https://distribution.github.io/distribution/spec/auth/token/ (docker, podman, containerd, oras); POST
is the password grant of https://distribution.github.io/distribution/spec/auth/oauth/ (containerd asks so
first, and falls back on GET at 404 or 405).

Rule: a token is never made from a token, so that short lives stay short. It grants of what was asked for
what the policy allows now; nothing, if that is nothing, and that is no error (docker login asks for nothing).
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from trioreg.api.access import identify
from trioreg.api.exchange import Exchange, Reply, typed_reply
from trioreg.api.service import Service
from trioreg.auth.scopes import parse_scopes
from trioreg.oci.errors import ErrorCode, RegistryError

PATH = "/auth/token"

# A form holds a name, a password and a few scopes.
_FORM_BYTES = 16 * 1024
_FORM_FIELDS = 64
_NO_STORE = {"Cache-Control": "no-store"}  # RFC 6749, 5.1


async def token(service: Service, exchange: Exchange) -> Reply:
    """Raises UNAUTHORIZED for wrong credentials and for a token in place of them."""
    if exchange.method == "GET":
        form = _fields(exchange.query)
    elif exchange.method == "POST":
        form = _fields((await _body(service, exchange)).decode("utf-8", "replace"))
        refused = _password_grant(form, exchange)
        if refused is not None:
            return refused
    else:
        raise RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers={"Allow": "GET, POST"})
    await identify(service, exchange, None, "admin")
    identity = exchange.identity
    if exchange.headers.get("authorization", "").lower().startswith("bearer"):
        challenge = {"WWW-Authenticate": 'Basic realm="tokens"'}  # RFC 9110, 15.5.2: a 401 has one
        raise RegistryError(ErrorCode.UNAUTHORIZED, {"reason": "show a password, not a token"}, challenge)
    issued = service.authorizer.issue(identity, parse_scopes(form.get("scope", [])))
    if issued is None:
        raise RegistryError(ErrorCode.PATH_UNKNOWN)
    answer = {
        "token": issued.text,
        "access_token": issued.text,
        "expires_in": issued.seconds,
        "issued_at": datetime.fromtimestamp(issued.issued, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return _json(200, answer)


def _password_grant(form: dict[str, list[str]], exchange: Exchange) -> Reply | None:
    """Put name and password where `identify` looks; or the refusal of another grant (RFC 6749, 5.2)."""
    kind = form.get("grant_type", [""])[0]
    if kind != "password":
        return _json(400, {"error": "unsupported_grant_type" if kind else "invalid_request"})
    name, password = form.get("username", [""])[0], form.get("password", [""])[0]
    encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
    exchange.headers = {**exchange.headers, "authorization": f"Basic {encoded}"}
    return None


async def _body(service: Service, exchange: Exchange) -> bytes:
    body, data = exchange.body, bytearray()
    if (body.length or 0) > _FORM_BYTES:
        raise RegistryError(ErrorCode.UNSUPPORTED, {"reason": "the form is too large"})
    with service.arriving.one(service.manifest_seconds) as hold:
        while await body.ready():
            with memoryview(bytearray(4096)) as view:
                data += view[: body.fill(view)]
            if len(data) > _FORM_BYTES:
                raise RegistryError(ErrorCode.UNSUPPORTED, {"reason": "the form is too large"})
            hold(len(data))
    return bytes(data)


def _fields(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, max_num_fields=_FORM_FIELDS)
    except ValueError:
        raise RegistryError(ErrorCode.UNSUPPORTED, {"reason": "too many fields"}) from None


def _json(status: int, document: Any) -> Reply:
    return typed_reply(status, "application/json", msgspec.json.encode(document), _NO_STORE)

"""The application: one route for all of the API, because our own parser decides what a path means.

Quart's routing would answer in HTML, redirect ``//`` and unescape ``%2F``; so the connection sends every
path of the API to one rule, the raw path goes to `api.answer`, and errors of the framework itself are
written as the OCI envelope too.
"""

from __future__ import annotations

from typing import Any, cast

from quart import request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from trioreg import logs
from trioreg.api import Exchange, Service, answer
from trioreg.api.answer import error_reply
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.body import ClientDisconnected
from trioreg.pipeline.budget import Share
from trioreg.web.connection import (
    BODY,
    CERTIFICATE,
    EXCHANGE,
    OPERATIONS,
    RAW_PATH,
    REQUEST_ID,
    Connection,
    NoWebsocket,
    ReplyResponse,
)


class WebApp(QuartTrio):
    """`share` bounds what responses read at a time; `stall_timeout` in seconds. Both limits may change."""

    asgi_http_class = Connection
    asgi_websocket_class = NoWebsocket  # type: ignore[assignment]  # anything that is called like it
    service: Service
    share: Share
    stall_timeout: float
    max_head_bytes: int
    access: logs.AccessLog


def create_app(
    service: Service, share: Share, access: logs.AccessLog, *, stall_timeout: float, max_head_bytes: int
) -> WebApp:
    """An ASGI application for any server that runs on Trio."""
    app = WebApp("trioreg", static_folder=None)
    app.service, app.share, app.stall_timeout, app.access = service, share, stall_timeout, access
    app.max_head_bytes = max_head_bytes
    app.url_map.merge_slashes = False
    # Quart's total-time limits would cut off long transfers; the body's stall limit and the stream's hold.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)

    async def operation() -> ReplyResponse:
        if _head_bytes(request.scope) > app.max_head_bytes:
            return ReplyResponse(
                error_reply(RegistryError(ErrorCode.HEAD_TOO_LARGE, headers={"Connection": "close"}))
            )
        try:
            exchange = cast(dict[str, Any], request.scope)[EXCHANGE] = _exchange()
            return ReplyResponse(await answer(service, exchange))
        except ClientDisconnected:
            return ReplyResponse(None)

    # A rule without methods takes any; which ones an endpoint knows is the parser's to say.
    app.url_map.add(app.url_rule_class(OPERATIONS, endpoint="operation", methods=None))
    app.view_functions["operation"] = operation

    @app.errorhandler(HTTPException)
    async def framework_error(error: HTTPException) -> ReplyResponse:
        if error.code == 405:
            allow = {"Allow": ", ".join(sorted(getattr(error, "valid_methods", None) or []))}
            return ReplyResponse(error_reply(RegistryError(ErrorCode.METHOD_UNSUPPORTED, headers=allow)))
        return ReplyResponse(error_reply(RegistryError(ErrorCode.PATH_UNKNOWN)))

    return app


def _head_bytes(scope: Any) -> int:
    """Bytes of the target and the headers. A server's own limit may count only what came in pieces."""
    return (
        len(scope[RAW_PATH]) + len(scope["query_string"]) + sum(len(n) + len(v) for n, v in scope["headers"])
    )


def _exchange() -> Exchange:
    scope = cast(dict[str, Any], request.scope)
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Exchange(
        method=scope["method"],
        path=scope[RAW_PATH],
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=scope[BODY],
        request_id=scope[REQUEST_ID],
        peer=(scope.get("client") or ("",))[0],
        certificate=scope.get("state", {}).get(CERTIFICATE),
    )

"""The application: one route for all, because our own parser decides what a path means.

Quart's routing would answer in HTML, redirect ``//`` and unescape ``%2F``; so every path comes here raw,
goes to `api.answer`, and errors of the framework itself are written as the OCI envelope too.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

from quart import request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from trioreg.api import Exchange, Service, answer
from trioreg.api.answer import error_reply
from trioreg.oci.errors import ErrorCode, RegistryError
from trioreg.pipeline.body import ClientDisconnected
from trioreg.pipeline.budget import Share
from trioreg.web.connection import BODY, REQUEST_ID, Connection, ReplyResponse

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class WebApp(QuartTrio):
    """`share` bounds what responses read at a time; `stall_timeout` in seconds."""

    asgi_http_class = Connection
    share: Share
    stall_timeout: float
    access_log: bool


def create_app(service: Service, share: Share, *, stall_timeout: float, access_log: bool) -> WebApp:
    """An ASGI application for any server that runs on Trio."""
    app = WebApp("trioreg", static_folder=None)
    app.share, app.stall_timeout, app.access_log = share, stall_timeout, access_log
    app.url_map.merge_slashes = False
    # Quart's total-time limits would cut off long transfers; the body's stall limit and the stream's hold.
    app.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)

    @app.route("/", methods=_METHODS, provide_automatic_options=False)
    @app.route("/<path:_path>", methods=_METHODS, provide_automatic_options=False)
    async def everything(_path: str = "") -> ReplyResponse:
        try:
            return ReplyResponse(await answer(service, _exchange()))
        except ClientDisconnected:
            return ReplyResponse(None)

    @app.errorhandler(HTTPException)
    async def framework_error(error: HTTPException) -> ReplyResponse:
        code = ErrorCode.METHOD_UNSUPPORTED if error.code == 405 else ErrorCode.PATH_UNKNOWN
        return ReplyResponse(error_reply(RegistryError(code)))

    return app


def _exchange() -> Exchange:
    scope = cast(dict[str, Any], request.scope)
    raw_path = scope.get("raw_path") or quote(scope["path"]).encode()
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Exchange(
        method=scope["method"],
        path=raw_path.decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=scope[BODY],
        request_id=scope[REQUEST_ID],
    )

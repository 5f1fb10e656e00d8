"""Errors as application/problem+json (RFC 9457), whatever went wrong; nothing internal is told, all of it is logged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from relay import log
from relay.errors import ConfigError, Refused, Unavailable, Unreadable

#: Seconds after which a sender may try again when the database was away.
RETRY_AFTER = "2"


def register(app: Flask) -> None:
    """Have every error of the application answered here."""
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Refused, lambda error: response(error.status, error.detail))
    app.register_error_handler(Unreadable, lambda error: response(400, str(error)))
    app.register_error_handler(Unavailable, _unavailable)
    app.register_error_handler(ConfigError, _config)
    app.register_error_handler(Exception, _unexpected)


def response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document; `title` is the status in words."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Response(json.dumps(body) + "\n", status, headers, content_type="application/problem+json")


def too_large(limit: int) -> str:
    """The sentence for a body of more than `limit` bytes."""
    return f"the body is too large: at most {limit} bytes are taken here"


def _http(error: HTTPException) -> Response | HTTPException:
    """404, 405, 413 and their like; their own headers (such as Allow) stay."""
    if error.response is not None or error.code is None or error.code < 400:
        return error
    own = {name: value for name, value in error.get_headers() if name.lower() not in ("content-type", "content-length")}
    return response(error.code, _sentence(error, own), own)


def _sentence(error: HTTPException, headers: Mapping[str, str]) -> str:
    """What the raiser said; where nothing was said, our words instead of the framework's."""
    if error.description and error.description != type(error).description:
        return error.description
    if isinstance(error, NotFound):
        return "there is nothing at this address; GET /openapi.json lists what there is, /readyz tells how it is"
    if isinstance(error, MethodNotAllowed):
        return f"{request.method} is not taken here, but {headers.get('Allow', 'another method')}"
    if isinstance(error, RequestEntityTooLarge):
        return too_large(current_app.config["MAX_CONTENT_LENGTH"])
    return HTTPStatus(error.code or 500).phrase


def _unavailable(error: Unavailable) -> Response:
    log.get(path=request.path).error("unavailable", reason=str(error))
    return response(503, "the database is not available at the moment; ask again", {"Retry-After": RETRY_AFTER})


def _config(error: ConfigError) -> Response:
    log.get(path=request.path).error("relay.yaml refused", reason=str(error))
    return response(503, "the relay's configuration cannot be used; its log says why", {"Retry-After": RETRY_AFTER})


def _unexpected(error: Exception) -> Response:
    # A database driver's error is logged without the statement's values, which may be personal.
    cause = getattr(error, "orig", None) or error
    log.get(path=request.path, method=request.method).error(
        "unexpected error", error=f"{type(cause).__name__}: {cause}", exc_info=None if cause is not error else error
    )
    return response(500, "something went wrong here; the relay's log says what")

"""/hooks/<name>: where identity providers tell what happened. 2xx means that it is on disk.

An authenticated sender hears 2xx, 400 (unreadable), 413 or 503: Okta sends again after a 5xx, once, and never after a
4xx (https://developer.okta.com/docs/concepts/event-hooks/). So whatever may be our own mistake, a secret that is gone
or a source that has left relay.yaml, is answered 503.
"""

from __future__ import annotations

import gzip
import io
import traceback
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed, RequestEntityTooLarge

from relay import contracts, intake, log
from relay.errors import Refused, Unavailable
from relay.sources.base import Handshake, Source
from relay.web import metrics, problems
from relay.web.wiring import Relay, relay

bp = Blueprint("hooks", __name__, url_prefix="/hooks")

#: Bytes of a stranger's body that are read and thrown away, so that an ordinary client gets to reading the answer.
STRANGERS_BODY = 1 << 20
_PIECE = 1 << 16
_LONGEST_SHOWN = 100
_UNPACKED = ("gzip", "x-gzip")


@bp.route("/<name>", methods=["GET", "POST"], provide_automatic_options=False)
def hook(name: str) -> Response:
    here = relay()
    hook = here.hooks.get(name)
    if hook is None:
        return _unknown(here, name)
    if not hook.secrets():
        log.get(source=name).error("not accepted", reason="no secret of this source is there")
        return _not_now("the secret of this hook is not there at the moment; send again")
    return _serve(here, hook.source)


def _serve(here: Relay, source: Source) -> Response:
    headers = cast(Mapping[str, str], request.headers)
    handshake = source.handshake(request.method, headers, request.args if request.query_string else {})
    if handshake is not None:
        return _shaken(handshake)
    if request.method != "POST":
        raise MethodNotAllowed(["POST"])
    if not source.authenticate(headers):
        _discard(STRANGERS_BODY)
        log.get(source=source.name).warning("not authenticated", address=request.remote_addr)
        raise Refused(401, "the secret of this hook is missing or wrong")
    return _record(here, source)


def _unknown(here: Relay, name: str) -> Response:
    had = here.had_hook(name)
    shown = contracts.printable(name[:_LONGEST_SHOWN])
    log.get(name=shown).warning("no such hook", reason="gone from relay.yaml" if had else "not in relay.yaml")
    if had:
        return _not_now("this hook was in an earlier relay.yaml and is not in today's; send again")
    _discard(STRANGERS_BODY)
    return problems.response(404, "no source of relay.yaml that comes by hook has this name")


def _not_now(detail: str) -> Response:
    _discard(STRANGERS_BODY)
    return problems.response(503, detail, {"Retry-After": problems.RETRY_AFTER})


def _record(here: Relay, source: Source) -> Response:
    try:
        accepted = intake.accept(here.recorder, source, _body(source.max_body), _doubt())
    except (RequestEntityTooLarge, Unavailable):
        raise
    except Exception as error:
        log.get(source=source.name).error("could not be recorded", error=_told(error))
        raise Unavailable("this could not be recorded") from None
    if accepted.rejected:
        metrics.rejected(source.name, accepted.rejected)
    if accepted.unreadable is not None:
        raise Refused(400, accepted.unreadable)
    return Response(status=source.accepted)


@bp.after_request
def _count(response: Response) -> Response:
    name = (request.view_args or {}).get("name", "")
    metrics.answered(name if name in relay().hooks else "unknown", response.status_code)
    if response.status_code == 401:
        # RFC 9110 wants a challenge with every 401; no registered scheme stands for a bare secret
        response.headers["WWW-Authenticate"] = f'Secret realm="hooks/{name}"'
    return response


def _told(error: Exception) -> str:
    """What the log may hold: neither a statement's values nor a traceback with the body among its locals."""
    cause = getattr(error, "orig", None) or error
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(cause).__name__} at {Path(frame.filename).name}:{frame.lineno}: {cause}"


def _shaken(handshake: Handshake) -> Response:
    # nosniff: what is sent back came from outside and must not be taken for a page
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(handshake.body, handshake.status, headers, content_type=handshake.content_type)


def _body(limit: int) -> bytes:
    """The whole body, unpacked; at most `limit` bytes of it either way. Raises RequestEntityTooLarge."""
    request.max_content_length = limit + 1  # werkzeug may cut a chunked body at its limit without a word
    try:
        body = request.get_data(cache=False)
        if len(body) > limit:
            raise RequestEntityTooLarge()
    except RequestEntityTooLarge:
        _discard(limit)
        raise _too_large(limit) from None
    if _encoding() not in _UNPACKED:
        return body
    try:
        unpacked = gzip.GzipFile(fileobj=io.BytesIO(body)).read(limit + 1)
    except (OSError, EOFError, zlib.error):
        return body  # the source finds that it cannot be read, or that only the header was wrong
    if len(unpacked) > limit:
        raise _too_large(limit)
    return unpacked


def _encoding() -> str:
    return request.headers.get("Content-Encoding", "").strip().lower()


def _doubt() -> str:
    """What may be wrong with a body that cannot be read; one that can be is taken whatever its header says."""
    encoding = _encoding()
    if encoding in ("", "identity", *_UNPACKED):
        return ""
    return f"its Content-Encoding is {contracts.show(encoding)}, and only gzip is unpacked here"


def _too_large(limit: int) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(problems.too_large(limit))


def _discard(limit: int) -> None:
    """Read what is left of the body, at most `limit` bytes, keeping nothing."""
    if not request.environ.get("wsgi.input_terminated"):
        limit = min(limit, request.content_length or 0)
    while limit > 0:
        try:
            piece = request.environ["wsgi.input"].read(min(limit, _PIECE))
        except Exception:  # it breaks off or its chunks are not well formed, which changes nothing
            return
        if not piece:
            return
        limit -= len(piece)

"""/scim/<name>/v2: the SCIM 2.0 service provider of each SCIM source (RFC 7643, RFC 7644).

A client needs the source's bearer token. It hears SCIM's own answers and errors; while the database is away, or the
source is not in relay.yaml, 503 with Retry-After: an identity provider tries a failed change again only after such an
answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Protocol

from flask import Blueprint, Flask, Response, request
from scim2_flask import ScimServer
from scim2_flask.extension import METHODS
from scim2_models import Error, UnauthorizedException
from scim2_server.requests import ScimRequest
from scim2_server.responses import ScimResponse

from relay import log
from relay.config import Config
from relay.errors import Unavailable
from relay.settings import Settings
from relay.sources import base
from relay.store.database import Database
from relay.store.scim import ScimTables
from relay.web import scim_json
from relay.web.scim_handler import Handler
from relay.web.scim_service import Service, provider

#: Bytes of a body: a group of some 60,000 members, which some clients send whole.
MAX_BODY = 8 << 20
#: Seconds after which a client may try again.
RETRY_AFTER = 5


class Parts(Protocol):
    """What is needed of the web process's parts."""

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Database: ...

    def config(self) -> Config: ...


def register(app: Flask, relay: Parts) -> None:
    """Serve every SCIM source of relay.yaml as it is now; one that is added later is served after a restart.

    One that leaves relay.yaml is answered 503 from then on, as a hook is: its provider sends again what a mistake in
    the file would have lost.
    """
    for name, source in relay.config().sources.items():
        if source["type"] == "scim":
            storage = ScimTables(relay.database, name, provider(), source.get("attributes", {}))
            server = Server(name, storage, relay.settings.source_secret(name), partial(_is_there, relay, name))
            server.init_app(app)


def _is_there(relay: Parts, name: str) -> bool:
    return relay.config().sources.get(name, {}).get("type") == "scim"


class Server(ScimServer):
    """One source's SCIM endpoints.

    `secrets` gives the tokens that are valid now, `is_there` whether relay.yaml as it is now has the source.
    """

    def __init__(
        self, source: str, storage: ScimTables, secrets: Callable[[], Sequence[str]], is_there: Callable[[], bool]
    ) -> None:
        service = Service(provider())
        super().__init__(storage, provider(), service=service, url_prefix=f"/scim/{source}/v2", name=f"scim-{source}")
        self._source = source
        self._secrets = secrets
        self._is_there = is_there
        self.service = service
        self.handler = Handler(service, storage)

    def init_app(self, app: Flask) -> None:
        app.register_blueprint(self.create_blueprint())

    def create_blueprint(self) -> Blueprint:
        blueprint = super().create_blueprint()
        # the base URL as clients are given it: without this, Flask redirects whoever asks to the one with a slash
        blueprint.add_url_rule("", "base", self._fallback_view, methods=METHODS, defaults={"path": ""})
        blueprint.before_request(self._admit)
        blueprint.register_error_handler(Unavailable, self._unavailable)
        blueprint.register_error_handler(Exception, self._failed)
        return blueprint

    def read_request(self) -> ScimRequest:
        scim_request = super().read_request()
        for text in (scim_request.path, *scim_request.query.values()):
            scim_json.check_text(text)
        scim_json.check_filter(scim_request.query.get("filter", ""))
        return scim_request

    def read_body(self, scim_request: ScimRequest) -> bytes:
        request.max_content_length = MAX_BODY
        return super().read_body(scim_request)

    def _admit(self) -> Response | None:
        """Let the request pass, None, or answer it: before anything is read or written."""
        if not self._is_there():
            return self._not_accepted(
                "gone from relay.yaml", "this source is not in today's relay.yaml; send this again"
            )
        valid = self._secrets()
        if not valid:  # ours is missing, which says nothing about theirs: a 401 would have the source switched off
            return self._not_accepted(
                "no token of this source is there",
                "the token of this source is not there at the moment; send this again",
            )
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not base.is_secret(base.header_bytes(token.strip()), valid):
            log.get(source=self._source).warning("not authenticated", address=request.remote_addr)
            raise UnauthorizedException(detail="the bearer token is missing or wrong")
        return None

    def _not_accepted(self, reason: str, detail: str) -> Response:
        log.get(source=self._source).error("not accepted", reason=reason)
        return self._not_now(detail)

    def _unavailable(self, error: Unavailable) -> Response:
        log.get(source=self._source).error("database unavailable", reason=str(error))
        return self._not_now("the database is not available at the moment; send this again")

    def _not_now(self, detail: str) -> Response:
        body = Error(status=503, detail=detail).model_dump()
        answer = ScimResponse(HTTPStatus.SERVICE_UNAVAILABLE, body, {"Retry-After": str(RETRY_AFTER)})
        return self._to_response(answer)

    def _failed(self, error: Exception) -> Response:
        log.get(source=self._source).exception("a SCIM request failed", error=type(error).__name__)
        return self._to_response(self.service.error_response(error))

"""The HTTP side of tests/fake_okta.py: Okta's management API, System Log and token endpoint over loopback."""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError

if TYPE_CHECKING:
    from tests.fake_okta import FakeOkta, State

Query = Mapping[str, str]

SCOPES = {"users": "okta.users.read", "groups": "okta.groups.read", "apps": "okta.apps.read", "logs": "okta.logs.read"}
ERRORS = {
    "E0000001": (400, "Api validation failed"),
    "E0000006": (403, "You do not have permission to perform the requested action"),
    "E0000007": (404, "Not found: Resource not found"),
    "E0000009": (500, "Internal Server Error"),
    "E0000011": (401, "Invalid token provided"),
    "E0000022": (405, "The endpoint does not support the provided HTTP method"),
    "E0000047": (429, "API call exceeded rate limit due to too many requests."),
}


@dataclass(frozen=True)
class Answer:
    """One answer; `body` is sent as JSON unless it is bytes. A header may stand several times."""

    status: int
    body: Any = None
    headers: tuple[tuple[str, str], ...] = field(default=())


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]


def error(code: str, *headers: tuple[str, str], status: int | None = None) -> Answer:
    """Okta's error body with the status that belongs to the code."""
    usual, summary = ERRORS[code]
    body = {"errorCode": code, "errorSummary": summary, "errorLink": code, "errorId": "oae1", "errorCauses": []}
    return Answer(status or usual, body, headers)


def throttled(seconds: int = 7, limit: int = 600) -> Answer:
    """429, ending in so many seconds by this server's clock."""
    reset = int(time.time()) + seconds
    named = {"X-Rate-Limit-Limit": limit, "X-Rate-Limit-Remaining": 0, "X-Rate-Limit-Reset": reset}
    return error("E0000047", *((name, str(value)) for name, value in named.items()))


def answer(fake: FakeOkta, request: Request) -> Answer:
    """What Okta says to a request of the management API."""
    parts = request.path.removeprefix("/api/v1/").split("/")
    if parts[0] not in SCOPES:
        return error("E0000007")
    if request.method != "GET":
        return error("E0000022")
    refused = _refused(fake, request.headers.get("Authorization", ""), SCOPES[parts[0]])
    if refused:
        return refused
    if parts[0] == "logs":
        return _logs(fake, request.query)
    return _read(fake, fake.view(), parts, request)


def _refused(fake: FakeOkta, offered: str, scope: str) -> Answer | None:
    scheme, _, token = offered.partition(" ")
    if scheme == "SSWS":
        allowed = fake.scopes if token == fake.api_token else None
    else:
        allowed = fake.issued.get(token) if scheme == "Bearer" else None
    if allowed is None:
        return error("E0000011")
    if scope in allowed:
        return None
    return error("E0000006", ("WWW-Authenticate", f'Bearer error="insufficient_scope", scope="{scope}"'))


def _read(fake: FakeOkta, state: State, parts: list[str], request: Request) -> Answer:
    def page(things: Iterable[tuple[str, Any]], default: int = 200) -> Answer:
        return _page(fake, list(things), request, default)

    match parts:
        case ["users"]:
            gone = request.query.get("search") == 'status eq "DEPROVISIONED"'
            people = (person for person in state.users.values() if (person.status == "DEPROVISIONED") is gone)
            return page((person.id, person.as_okta()) for person in people)
        case ["users", name, *rest] if (found := state.person(name)) and rest in ([], ["groups"]):
            if not rest:
                return Answer(200, found.as_okta())
            # not paged by Okta, unless a test says so
            return page(((g, state.group(g)) for g, u in state.members if u == found.id), 10_000)
        case ["groups"]:
            return page((group, state.group(group)) for group in state.groups)
        case ["groups", group] if group in state.groups:
            return Answer(200, state.group(group))
        case ["groups", group, "users"] if group in state.groups:
            return page((u, state.users[u].as_okta()) for g, u in state.members if g == group)
        case ["apps", app] if app in state.apps:
            return Answer(200, {"id": app, "label": state.apps[app][0], "status": state.apps[app][1]})
        case ["apps", app, "users"] if app in state.apps:
            return page(((u, _app_user(u)) for a, u in state.assigned if a == app), 50)
        case ["apps", app, "users", user] if (app, user) in state.assigned:
            return Answer(200, _app_user(user))
    return error("E0000007")


def _app_user(user: str) -> dict[str, Any]:
    return {"id": user, "scope": "USER", "status": "ACTIVE", "credentials": {"userName": user}}


def _page(fake: FakeOkta, things: list[tuple[str, Any]], request: Request, default: int) -> Answer:
    """The things behind the cursor `after`, in the order of their ids, and a link to those behind these."""
    limit = min(int(request.query.get("limit", default)), fake.page_size)
    ahead = sorted(thing for thing in things if thing[0] > request.query.get("after", ""))
    links = [("Link", f'<{fake.url}{request.path}?{urlencode(request.query)}>; rel="self"')]
    if len(ahead) > limit:
        query = {**request.query, "after": ahead[limit - 1][0]}
        links.append(("Link", f'<{fake.url}{request.path}?{urlencode(query)}>; rel="next"'))
    return Answer(200, [body for _, body in ahead[:limit]], tuple(links))


def _logs(fake: FakeOkta, query: Query) -> Answer:
    """The form for polling: no `until`, ascending, by when an event was kept, always a link to the next page."""
    if query.get("sortOrder") != "ASCENDING" or "until" in query or not 1 <= int(query["limit"]) <= 1000:
        return error("E0000001")
    if "after" in query:
        age, _, place = query["after"].partition("_")
        if age != str(fake.cursor_age):
            return error("E0000001")
        start = int(place)
    elif not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", query["since"]):
        return error("E0000001")
    else:
        start = sum(entry["published"] < query["since"] for entry in fake.log)
    wanted = re.findall(r'eventType eq "([^"]+)"', query["filter"])
    found = [(i, entry) for i, entry in enumerate(fake.log) if i >= start and entry["eventType"] in wanted]
    found = found[: min(int(query["limit"]), fake.page_size)]
    after = found[-1][0] + 1 if found else start
    link = f"{fake.url}/api/v1/logs?{urlencode({**query, 'after': f'{fake.cursor_age}_{after}'}, quote_via=quote)}"
    return Answer(200, [entry for _, entry in found], (("Link", f'<{link}>; rel="next"'),))


def token(fake: FakeOkta, form: Query) -> Answer:
    """An access token for a service app that is known, signs with its key and asks for granted scopes only."""
    try:
        claims = _claims(fake, form)
    except (JoseError, KeyError, ValueError) as problem:
        return Answer(
            401, {"error": "invalid_client", "error_description": f"The client_assertion is bad: {problem!r}"}
        )
    if form["grant_type"] != "client_credentials" or not set(form["scope"].split()) <= fake.scopes:
        told = "One or more scopes are not configured for the authorization server resource."
        return Answer(400, {"error": "invalid_scope", "error_description": told})
    fake.used_assertions.add(claims["jti"])
    made = secrets.token_urlsafe(16)
    fake.issued[made] = set(form["scope"].split())
    body = {"token_type": fake.token_type, "expires_in": fake.token_seconds, "access_token": made}
    return Answer(200, {**body, "scope": form["scope"]})


def _claims(fake: FakeOkta, form: Query) -> dict[str, Any]:
    algorithms = ["RS256", "ES256", "ES384", "ES512"]
    signed = jwt.decode(form["client_assertion"], fake.client_key, algorithms=algorithms)
    claims, ahead = signed.claims, signed.claims["exp"] - time.time() - fake.skew
    if signed.header.get("kid") != fake.client_key_id:
        raise ValueError("the kid is not that of the key")
    if not claims["iss"] == claims["sub"] == fake.client_id:
        raise ValueError("iss and sub must be the client id")
    if claims["aud"] != f"{fake.url}/oauth2/v1/token":
        raise ValueError("aud must be the address of this endpoint")
    if not 0 < ahead <= 3600 or claims.get("iat", 0) > time.time() + fake.skew:
        raise ValueError("exp must lie within the next hour, iat in the past")
    if claims["jti"] in fake.used_assertions:
        raise ValueError("jti was used before")
    return claims


class Server(ThreadingHTTPServer):
    """Serves on loopback from a thread of its own until `stop`."""

    daemon_threads = False

    def __init__(self, respond: Callable[[Request, bytes], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        for connection in list(self.open):
            connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.server.respond(Request(self.command, parts.path, query, dict(self.headers)), content)
        body = given.body if isinstance(given.body, bytes) else json.dumps(given.body).encode()
        self.send_response(given.status)
        for name, value in (*given.headers, ("Content-Length", str(len(body))), ("Content-Type", "application/json")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

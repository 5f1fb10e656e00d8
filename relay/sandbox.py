"""A stand-in for Velt on this machine, to try the relay without an account and to test it against.

Answers POST /v2/auth/permissions/remove, /add and /get in the shapes that https://docs.velt.dev/api-reference/rest-apis
documents, remembers grants and calls in memory, and misbehaves on request. Where the documentation is silent it does
the plain thing: removing what is not there is a success.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from relay.answers import excerpt
from relay.contracts import first_problem
from relay.model import now, to_iso
from relay.sandbox_grants import ACCESS_TYPES, Grants

KEPT_CALLS = 10_000
MAX_BODY = 1 << 20

HELP = """A stand-in for Velt. Point VELT_BASE_URL here; any API key and auth token will do.

POST /v2/auth/permissions/remove | add | get   as Velt documents them
GET /calls                                     the removals that were asked for, newest last; DELETE forgets them
POST /behaviour                                {"answer": "unavailable", "times": 3, "user": "ada@example.com"}
                                               answer: %s
                                               times: null for until further notice; user: leave it out for everybody
GET /behaviour                                 what is set
POST /resources                                {"type": "document", "id": "roadmap", "organizationId": "acme",
                                                "accessType": "public", "folderId": "finance"}
                                               accessType: %s (restricted, when never set)
GET /resources                                 what exists: whatever was set or granted
"""


def _failure(code: int, status: str, message: str) -> tuple[int, dict[str, Any]]:
    return code, {"error": {"message": message, "status": status}}


#: What POST /behaviour can ask for. None: the truth.
ANSWERS: dict[str, tuple[int, dict[str, Any]] | None] = {
    "success": None,
    "unavailable": _failure(503, "UNAVAILABLE", "The service is unavailable."),
    "unauthorized": _failure(401, "UNAUTHENTICATED", "Invalid auth token."),
    "throttled": _failure(429, "RESOURCE_EXHAUSTED", "Rate limit exceeded."),
    "not_found": _failure(404, "NOT_FOUND", "User does not exist."),
    "refused": _failure(403, "PERMISSION_DENIED", "This resource is not yours to change."),
    "internal": _failure(500, "INTERNAL", "Something went wrong."),
}
RETRY_AFTER_THROTTLED = "5"

#: What a resource may carry besides its name: in a request to add it, and to POST /resources.
GRANT = ("accessRole", "expiresAt")
SETTINGS = ("accessType", "folderId")


class BadRequest(Exception):
    """The request cannot be served; the message says why."""


class Sandbox:
    """The state: who has what, what was asked, and how to misbehave. Safe to use from many threads."""

    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self._echo = echo
        self._lock = threading.Lock()
        self._grants = Grants()
        self._calls: deque[dict[str, Any]] = deque(maxlen=KEPT_CALLS)
        self._behaviours: dict[str | None, dict[str, Any]] = {}

    def calls(self) -> dict[str, Any]:
        with self._lock:
            return {"calls": list(self._calls)}

    def forget_calls(self) -> None:
        with self._lock:
            self._calls.clear()

    def behaviours(self) -> dict[str, Any]:
        with self._lock:
            return {"behaviours": list(self._behaviours.values())}

    def behave(self, wanted: Any) -> None:
        """Answer so from now on: `{"answer", "times": number or null, "user": id or null}`. Raises BadRequest."""
        answer, times, user = (_member(wanted, name) for name in ("answer", "times", "user"))
        if not isinstance(answer, str) or answer not in ANSWERS:
            raise BadRequest(f"answer must be one of {', '.join(ANSWERS)}")
        if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
            raise BadRequest("times must be a whole number from 1, or null for until further notice")
        if user is not None and not isinstance(user, str):
            raise BadRequest("user must be a Velt user id, or null for everybody")
        with self._lock:
            self._behaviours.pop(user, None)
            if ANSWERS[answer] is not None:
                self._behaviours[user] = {"answer": answer, "times": times, "user": user}

    def remove(self, request: Any) -> tuple[int, dict[str, Any]]:
        user, resources = _removal(request)
        with self._lock:
            forced = self._forced(user)
            if forced is None:
                for resource in resources:
                    self._grants.remove(user, resource)
            code, answer = forced or _success("Permissions removed successfully.")
            self._calls.append({"at": to_iso(now()), "userId": user, "resources": resources, "status": code})
        if self._echo:
            names = ", ".join(f"{item['type']} {item['id']}" for item in resources)
            self._echo(excerpt(f"{code} remove from {user}: {names}"))
        return code, answer

    def add(self, request: Any) -> tuple[int, dict[str, Any]]:
        data = _member(request, "data")
        user, given = _member(_member(data, "user"), "userId"), _member(_member(data, "permissions"), "resources")
        user, resources = _removal({"data": {"userId": user, "permissions": {"resources": _bare(given, GRANT)}}})
        roles = [item.get("accessRole") or "editor" for item in given]
        expiries = [item.get("expiresAt") for item in given]
        if any(role not in ("viewer", "editor") for role in roles):
            raise BadRequest("accessRole must be viewer or editor")
        if any(not isinstance(expiry, int | float | None) for expiry in expiries):
            raise BadRequest("expiresAt must be Unix seconds")
        with self._lock:
            for resource, role, expiry in zip(resources, roles, expiries, strict=True):
                self._grants.add(user, resource, role, expiry)
        return _success("Permissions added successfully.")

    def get(self, request: Any) -> tuple[int, dict[str, Any]]:
        data = _member(request, "data")
        organization = _member(data, "organizationId")
        users, documents, folders = (_ids(data, name) for name in ("userIds", "documentIds", "folderIds"))
        must_exist = _member(data, "skipResourceExistenceValidation") is not True
        if not isinstance(organization, str) or not users or not (documents or folders):
            raise BadRequest("organizationId, userIds and one of documentIds and folderIds are required")
        with self._lock:
            found = {user: self._grants.shown(user, organization, documents, folders, must_exist) for user in users}
            missing = must_exist and self._grants.missing(organization, documents, folders)
        if missing:
            code, answer = _failure(404, "NOT_FOUND", "Folder or document does not exist")
            return code, {"error": {**answer["error"], "details": found}}
        return _success("User permissions retrieved successfully.", found)

    def declare(self, wanted: Any) -> None:
        """Let a resource exist, with its accessType and the folder it is in. Raises BadRequest."""
        _removal({"data": {"userId": "anybody", "permissions": {"resources": _bare([wanted], SETTINGS)}}})
        if wanted.get("accessType", "restricted") not in ACCESS_TYPES:
            raise BadRequest(f"accessType must be one of {', '.join(ACCESS_TYPES)}")
        if not isinstance(wanted.get("folderId", ""), str):
            raise BadRequest("folderId must be the id of a folder")
        with self._lock:
            self._grants.declare(wanted)

    def resources(self) -> dict[str, Any]:
        with self._lock:
            return {"resources": self._grants.resources()}

    def _forced(self, user: str) -> tuple[int, dict[str, Any]] | None:
        """The misbehaviour that is due for this person, counted down."""
        who = user if user in self._behaviours else None
        behaviour = self._behaviours.get(who)
        if behaviour is None:
            return None
        if behaviour["times"] is not None:
            behaviour["times"] -= 1
            if behaviour["times"] == 0:
                del self._behaviours[who]
        return ANSWERS[behaviour["answer"]]


def _success(message: str, data: Any = None) -> tuple[int, dict[str, Any]]:
    result = {"status": "success", "message": message}
    return 200, {"result": result if data is None else {**result, "data": data}}


def _removal(request: Any) -> tuple[str, list[dict[str, str]]]:
    problem = first_problem("velt-remove-permissions", request)
    if problem is not None:
        raise BadRequest(str(problem))
    return request["data"]["userId"], request["data"]["permissions"]["resources"]


def _bare(resources: Any, extra: tuple[str, ...]) -> Any:
    """Resources that carry `extra` members, as a remove request has them."""
    if not isinstance(resources, list):
        return resources
    return [
        {name: value for name, value in item.items() if name not in extra} if isinstance(item, dict) else item
        for item in resources
    ]


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _ids(data: Any, name: str) -> list[str]:
    ids = _member(data, name) or []
    if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
        raise BadRequest(f"{name} must be a list of ids")
    return ids


class SandboxServer(ThreadingHTTPServer):
    """The HTTP server around one Sandbox."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet about clients that hang up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 75
    server: SandboxServer

    def do_GET(self) -> None:
        sandbox = self.server.sandbox
        pages = {"/calls": sandbox.calls, "/behaviour": sandbox.behaviours, "/resources": sandbox.resources}
        if self.path in pages:
            self._send(200, pages[self.path]())
        elif self.path == "/":
            self._send(200, HELP % (", ".join(ANSWERS), ", ".join(ACCESS_TYPES)))
        else:
            self._send(404, "Not here. GET / tells what is.\n")

    def do_DELETE(self) -> None:
        if self.path != "/calls":
            self._send(404, "Only /calls can be deleted.\n")
            return
        self.server.sandbox.forget_calls()
        self._send(200, {"calls": []})

    def do_POST(self) -> None:
        try:
            content = self._read()
        except BadRequest as error:
            self.close_connection = True
            self._send(*_failure(400, "INVALID_ARGUMENT", str(error)))
            return
        try:
            self._send(*self._serve(content))
        except BadRequest as error:
            self._send(*_failure(400, "INVALID_ARGUMENT", str(error)))

    def _serve(self, content: bytes) -> tuple[int, Any]:
        sandbox = self.server.sandbox
        if self.path == "/behaviour":
            sandbox.behave(_json(content))
            return 200, sandbox.behaviours()
        if self.path == "/resources":
            sandbox.declare(_json(content))
            return 200, sandbox.resources()
        prefix, _, verb = self.path.rpartition("/")
        serve = {"remove": sandbox.remove, "add": sandbox.add, "get": sandbox.get}.get(verb)
        if prefix != "/v2/auth/permissions" or serve is None:
            return 404, "Not here. GET / tells what is.\n"
        for header, name in (("x-velt-api-key", "API key"), ("x-velt-auth-token", "Auth Token")):
            if not self.headers.get(header):
                raise BadRequest(f"{name} not found in headers.")
        return serve(_json(content))

    def _read(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise BadRequest("a Content-Length is required; chunked bodies are not understood here")
        if len(length) > 9 or int(length) > MAX_BODY:
            raise BadRequest(f"the body is larger than {MAX_BODY} bytes")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise BadRequest("the body is shorter than its Content-Length")
        return content

    def _send(self, code: int, answer: Any) -> None:
        text = isinstance(answer, str)
        content = answer.encode() if text else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if text else "application/json")
        self.send_header("Content-Length", str(len(content)))
        if code == 429:
            self.send_header("Retry-After", RETRY_AFTER_THROTTLED)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: removals are echoed, the rest is noise."""


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON") from error


def make_server(port: int, host: str = "127.0.0.1", echo: Callable[[str], None] | None = None) -> SandboxServer:
    """A sandbox that listens (port 0: any free one, see `server_port`); `serve_forever` starts it."""
    return SandboxServer((host, port), Sandbox(echo))


def run(port: int, host: str = "127.0.0.1", echo: Callable[[str], None] | None = None) -> None:
    """Serve until Ctrl-C; one line to `echo` for each removal. Raises OSError when the port is taken."""
    with make_server(port, host, echo) as server, contextlib.suppress(KeyboardInterrupt):
        if echo:
            echo(f"Velt sandbox on http://{host}:{server.server_port}")
        server.serve_forever()

"""A made-up Entra tenant that speaks real HTTP on loopback: Microsoft's login and Graph v1.0, for one application.

    with FakeGraph() as graph:
        ada, _ = graph.tenant.add_user("ada@acme.example")     # see tests/fake_graph_tenant.py for what can happen
        eng, _ = graph.tenant.add_group("Engineering")
        items = graph.tenant.join(ada, eng)                    # the notifications that this would cause
        given = graph.source()                                 # the source for relay.yaml, its secrets by the names
        graph.tenant.lag(2)                                    # two answers from now on show today's state
        graph.throttle(1); graph.fail(1)                       # the next request gets 429, the one after it 503
        graph.expire_tokens()                                  # every deltaLink and nextLink is answered 410
        graph.page_size = 2; graph.repeat = True               # small pages; items come again on the next page
        graph.login.revoke(); graph.login.secret = "other"     # tokens end; the secret is another
        graph.subscriptions.lose(id)                           # silently gone
        graph.hook_body(*items)                                # what would be posted to the relay

`asked` has every request to Graph as (method, path with query). The state before an answer is made is locked, so that
tests may change things from any thread.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

from relay import model
from relay.model import Micros
from tests.fake_graph_login import CLIENT_ID, CONFIGURATION, TOKENS, Login
from tests.fake_graph_subscriptions import Subscriptions
from tests.fake_graph_tenant import TENANT, Item, Tenant, mangled, pieces, user_json

Answer = tuple[int, Any]
Query = dict[str, str]

_ONE = r"([^/]+)"
_GET: list[tuple[str, str]] = [
    (r"/users", "users"),
    (r"/users/delta", "users_delta"),
    (rf"/users/{_ONE}", "user"),
    (rf"/users/{_ONE}/transitiveMemberOf", "groups_of"),
    (r"/groups", "groups"),
    (r"/groups/delta", "groups_delta"),
    (rf"/groups/{_ONE}", "group"),
    (rf"/groups/{_ONE}/transitiveMembers", "members"),
    (rf"/directory/deletedItems/{_ONE}", "deleted_item"),
    (r"/subscriptions", "list_subscriptions"),
]


class FakeGraph:
    """See the module. `client_state`: as if somebody had made subscriptions by hand, with this one."""

    def __init__(self, clock: Callable[[], Micros] = model.now, client_state: str | None = None) -> None:
        self.tenant = Tenant(clock)
        self.login = Login(clock)
        self.subscriptions = Subscriptions(clock)
        self.tenant.subscribers = self.subscriptions.subscribers
        if client_state is not None:
            self.subscriptions.by_hand(client_state)
        self.page_size = 100
        self.repeat = False
        self.retry_after = 7
        self.gone_has_location = True
        self.asked: list[tuple[str, str]] = []
        self._throttled = 0
        self._failing: list[Answer] = []
        self._tokens: dict[str, dict[str, Any]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    # what a test does

    def source(self, **more: Any) -> dict[str, Any]:
        """The source for relay.yaml; `more` adds to it, such as public_url."""
        graph = {
            "tenant": TENANT,
            "client_id": CLIENT_ID,
            "client_secret": {"env": "ENTRA_CLIENT_SECRET"},
            "url": f"{self.url}/v1.0",
            "login_url": self.url,
        }
        return {"type": "entra", "client_state": {"env": "ENTRA_CLIENT_STATE"}, "graph": graph, **more}

    def throttle(self, answers: int, retry_after: int = 7) -> None:
        """The next requests to Graph get 429."""
        self._throttled, self.retry_after = answers, retry_after

    def fail(self, answers: int, status: int = 503, code: str = "serviceNotAvailable") -> None:
        """The next requests to Graph get this status and code."""
        self._failing = [(status, error(code, "Made up for a test."))] * answers

    def expire_tokens(self) -> None:
        """Links given so far lead nowhere any more; with `gone_has_location` the answer says where to begin."""
        self._tokens.clear()

    def hook_body(self, *items: Item) -> bytes:
        """What Graph posts: items of one delivery."""
        return json.dumps({"value": list(items)}).encode()

    # answers

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any, dict[str, str]]:
        parts = urlsplit(target)
        if parts.path == CONFIGURATION:
            return *self.login.configuration(headers["Host"]), {}
        if parts.path == TOKENS:
            return *self.login.token(dict(parse_qsl(body.decode())), headers["Host"]), {}
        self.asked.append((method, target))
        if not self.login.valid(headers.get("Authorization", "")):
            return 401, error("InvalidAuthenticationToken", "Access token has expired or is not yet valid."), {}
        if self._throttled:
            self._throttled -= 1
            return 429, error("TooManyRequests", "Too many requests."), {"Retry-After": str(self.retry_after)}
        if self._failing:
            return *self._failing.pop(), {}
        path = parts.path.removeprefix("/v1.0")
        if method == "GET":
            status, found = self._get(path, dict(parse_qsl(parts.query)))
        else:
            status, found = self._change(method, path, json.loads(body or b"{}"))
        gone = {"Location": f"{self.url}{parts.path}"} if status == 410 and self.gone_has_location else {}
        return status, found, gone

    def _get(self, path: str, query: Query) -> Answer:
        for pattern, name in _GET:
            match = re.fullmatch(pattern, path)
            if match:
                with self.tenant.lock:
                    answer: Answer = getattr(self, f"_{name}")(path, query, *match.groups())
                return answer
        return 400, error("BadRequest", f"Resource not found for the segment {path!r}.")

    def _change(self, method: str, path: str, given: dict[str, Any]) -> Answer:
        one = re.fullmatch(rf"/subscriptions/{_ONE}(/reauthorize)?", path)
        if method == "POST" and path == "/subscriptions":
            return self.subscriptions.create(given)
        if method == "POST" and one and one[2]:
            return self.subscriptions.reauthorize(one[1])
        if method == "PATCH" and one:
            return self.subscriptions.renew(one[1], given)
        if method == "DELETE" and one:
            return self.subscriptions.delete(one[1])
        return 405, error("Request_BadRequest", "Specified HTTP method is not allowed.")

    def _user(self, path: str, query: Query, user_id: str) -> Answer:
        person = self.tenant.seen().people.get(user_id)
        return missing() if person is None or person.deleted else (200, selected(user_json(person), query))

    def _groups_of(self, path: str, query: Query, user_id: str) -> Answer:
        state = self.tenant.seen()
        if not state.live(user_id):
            return missing()
        found = [
            {"@odata.type": "#microsoft.graph.group", "id": g.id, "displayName": g.name}
            for g in state.groups_of(user_id)
        ]
        role = {"@odata.type": "#microsoft.graph.directoryRole", "id": str(uuid4()), "displayName": "Directory Readers"}
        return self._listed(path, query, [role, *found])

    def _users(self, path: str, query: Query) -> Answer:
        people = self.tenant.seen().people.values()
        return self._listed(path, query, [user_json(person) for person in people if not person.deleted])

    def _group(self, path: str, query: Query, group_id: str) -> Answer:
        group = self.tenant.seen().groups.get(group_id)
        if group is None or group.deleted:
            return missing()
        return 200, selected({"id": group.id, "displayName": group.name}, query)

    def _groups(self, path: str, query: Query) -> Answer:
        groups = self.tenant.seen().groups.values()
        return self._listed(path, query, [{"id": g.id, "displayName": g.name} for g in groups if not g.deleted])

    def _members(self, path: str, query: Query, group_id: str) -> Answer:
        state = self.tenant.seen()
        if group_id not in state.groups or not state.live(group_id):
            return missing()
        found = [{"@odata.type": state.type_of(m), "id": m, "displayName": "x"} for m in state.closure(group_id)]
        return self._listed(path, query, found)

    def _deleted_item(self, path: str, query: Query, object_id: str) -> Answer:
        state = self.tenant.seen()
        person, group = state.people.get(object_id), state.groups.get(object_id)
        if person is not None and person.deleted:
            return 200, mangled(person)
        if group is not None and group.deleted:
            return 200, {"@odata.type": "#microsoft.graph.group", "id": group.id, "displayName": group.name}
        return missing()

    def _list_subscriptions(self, path: str, query: Query) -> Answer:
        return self._listed(path, query, self.subscriptions.live())

    def _users_delta(self, path: str, query: Query) -> Answer:
        return self._delta("user", path, query)

    def _groups_delta(self, path: str, query: Query) -> Answer:
        return self._delta("group", path, query)

    def _delta(self, kind: str, path: str, query: Query) -> Answer:
        if "$skiptoken" in query:
            return self._page(path, query["$skiptoken"])
        given: dict[str, Any] = {"since": None, "select": query.get("$select", "")}
        if "$deltatoken" in query:
            if query["$deltatoken"] not in self._tokens:
                return gone()
            given = self._tokens[query["$deltatoken"]]
        items = [i for item in self.tenant.delta(kind, given["since"]) for i in self._parts(item, given["select"])]
        following = self._token(since=len(self.tenant.history), select=given["select"])
        return self._first_page(path, items, self.page_size, f"$deltatoken={following}")

    def _parts(self, item: Item, select: str) -> list[Item]:
        """A group with many members comes in several parts, in any order; only what was selected is told."""
        kept = {k: v for k, v in item.items() if k.startswith("@") or k in ("id", *select.split(","))}
        members = item.get("members@delta")
        if not members or "members" not in select.split(","):
            return [kept]
        return [{**kept, "members@delta": part} for part in pieces(members, self.page_size)]

    def _listed(self, path: str, query: Query, found: list[Any]) -> Answer:
        if "$skiptoken" in query:
            return self._page(path, query["$skiptoken"])
        size = min(int(query.get("$top", 100)), self.page_size)
        return self._first_page(path, [selected(item, query) for item in found], size, None)

    def _first_page(self, path: str, items: list[Any], size: int, last: str | None) -> Answer:
        return self._page(path, self._token(pages=list(pieces(items, size)), last=last))

    def _page(self, path: str, token: str) -> Answer:
        """The first of the pages behind a token, which stays valid: a lost answer can be asked for again."""
        if token not in self._tokens:
            return gone()
        page, *rest = self._tokens[token]["pages"]
        last = self._tokens[token]["last"]
        body: dict[str, Any] = {"@odata.context": f"{self.url}/v1.0/$metadata{path}", "value": page}
        if rest:
            again = [page[-1]] if self.repeat and page else []
            following = self._token(pages=[again + rest[0], *rest[1:]], last=last)
            body["@odata.nextLink"] = f"{self.url}/v1.0{path}?$skiptoken={following}"
        elif last:
            body["@odata.deltaLink"] = f"{self.url}/v1.0{path}?{last}"
        return 200, body

    def _token(self, **what: Any) -> str:
        token = uuid4().hex
        self._tokens[token] = what
        return token


def selected(thing: Item, query: Query) -> Item:
    """What $select asks for, with the id and the type."""
    if "$select" not in query:
        return thing
    wanted = {"id", *query["$select"].split(",")}
    return {key: value for key, value in thing.items() if key in wanted or key.startswith("@")}


def missing() -> Answer:
    return 404, error("Request_ResourceNotFound", "Resource does not exist or one of its queried references does not.")


def gone() -> Answer:
    return 410, error("syncStateNotFound", "The sync state generation is not found; a full resync is required.")


def error(code: str, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": text, "innerError": {"request-id": str(uuid4())}}}


def _handler(graph: FakeGraph) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, found, headers = graph.answer(self.command, self.path, self.headers, body)
            content = b"" if found is None else json.dumps(found).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler

"""A load of SCIM requests over kept-alive loopback connections, in a process of its own.

    python -m bench.scim_load PORT SECONDS CONNECTIONS WHAT     -> requests a second

WHAT: `users` (PATCH active), `members:N` (PATCH that removes and adds a member of a group of N), `filter` (GET by
userName). Any answer but 2xx ends the run.
"""

from __future__ import annotations

import http.client
import json
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

TOKEN = "bench-scim-token"
_PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"

Request = tuple[str, str, dict[str, Any] | None]


class Client:
    """One connection to /scim/scim/v2."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/scim+json"}

    def send(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        body = None if document is None else json.dumps(document)
        self._connection.request(method, f"/scim/scim/v2{path}", body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content else None

    def user(self) -> tuple[str, str]:
        """A new user's id and userName."""
        name = f"{secrets.token_hex(6)}@acme.example"
        return str(self.send("POST", "/Users", {"userName": name, "active": True})["id"]), name

    def group(self, members: int) -> str:
        listed = [{"value": f"usr_{number}"} for number in range(members)]
        return str(self.send("POST", "/Groups", {"displayName": secrets.token_hex(6), "members": listed})["id"])


def _patch(path: str, operation: dict[str, Any]) -> Request:
    return "PATCH", path, {"schemas": [_PATCH], "Operations": [operation]}


def users(client: Client, _shared: str) -> Iterator[Request]:
    user_id, _ = client.user()
    while True:
        for active in (False, True):
            yield _patch(f"/Users/{user_id}", {"op": "replace", "path": "active", "value": active})


def members(client: Client, group_id: str) -> Iterator[Request]:
    user_id, _ = client.user()
    while True:
        yield _patch(f"/Groups/{group_id}", {"op": "add", "path": "members", "value": [{"value": user_id}]})
        yield _patch(f"/Groups/{group_id}", {"op": "remove", "path": f'members[value eq "{user_id}"]'})


def lookups(client: Client, _shared: str) -> Iterator[Request]:
    _, name = client.user()
    while True:
        yield "GET", f"/Users?filter=userName%20eq%20%22{name.replace('@', '%40')}%22", None


def run(port: int, seconds: float, connections: int, what: str) -> float:
    kind, _, size = what.partition(":")
    shared = Client(port).group(int(size)) if size else ""
    kinds: dict[str, Callable[[Client, str], Iterator[Request]]] = {
        "users": users,
        "members": members,
        "filter": lookups,
    }
    clients = [Client(port) for _ in range(connections)]
    requests = [kinds[kind](client, shared) for client in clients]
    first = [next(each) for each in requests]  # makes the users before the clock runs
    ends = time.monotonic() + seconds
    counts = [0] * connections
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            request = first[number]
            while time.monotonic() < ends and not failures:
                clients[number].send(*request)
                counts[number] += 1
                request = next(requests[number])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / seconds


if __name__ == "__main__":
    port, seconds, connections, what = sys.argv[1:]
    print(run(int(port), float(seconds), int(connections), what))

"""A load of POSTs over kept-alive loopback connections, in a process of its own.

    python bench/load.py PORT SECONDS CONNECTIONS EVENTS_PER_POST   -> {"posts": n, "seconds": s, "p50_ms":, "p99_ms":}

Every event is a realistic System Log record (about 3 KB) with an id of its own. Any answer but 204 ends the run.
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
import time
import uuid
from datetime import UTC, datetime

SECRET = "bench-okta-secret"


def event(user: str, group: str) -> dict[str, object]:
    """A group removal as Okta's hook sends it."""
    return {
        "uuid": str(uuid.uuid4()),
        "published": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "eventType": "group.user_membership.remove",
        "version": "0",
        "severity": "INFO",
        "displayMessage": "Remove user from group membership",
        "legacyEventType": "core.user_group_member.user_remove",
        "actor": {"id": "00uadmin", "type": "User", "alternateId": "admin@acme.example", "displayName": "Admin"},
        "client": {"userAgent": {"rawUserAgent": "Mozilla/5.0 " + "x" * 400, "os": "Linux"}, "zone": "null"},
        "outcome": {"result": "SUCCESS"},
        "target": [
            {"id": user, "type": "User", "alternateId": f"{user}@acme.example", "displayName": "Somebody"},
            {"id": f"00g{group}", "type": "UserGroup", "alternateId": "unknown", "displayName": group},
        ],
        "transaction": {"type": "WEB", "id": secrets.token_hex(12), "detail": {}},
        "debugContext": {"debugData": {"requestUri": "/api/v1/groups/x/users/y", "filler": "y" * 1400}},
    }


def hook(events: list[dict[str, object]]) -> bytes:
    """A whole hook body."""
    return json.dumps(
        {"eventType": "com.okta.event_hook", "eventId": str(uuid.uuid4()), "data": {"events": events}}
    ).encode()


def request(body: bytes) -> bytes:
    head = (
        "POST /hooks/okta HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def post(connection: socket.socket, body: bytes) -> None:
    """Send one POST and read the answer's head; raises unless it is a 204."""
    connection.sendall(request(body))
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 204"):
        raise RuntimeError(answer[:300].decode())


def templates(count: int) -> list[tuple[bytes, ...]]:
    """Bodies made beforehand, in pieces between which ids of the same length are put, so that making costs nothing."""
    body = hook([event(f"00u{'#' * 12}", "Engineering") for _ in range(count)])
    for record in json.loads(body)["data"]["events"]:
        body = body.replace(record["uuid"].encode(), b"@" * 36)
    return [tuple(body.split(b"@" * 36))]


def fill(pieces: tuple[bytes, ...]) -> bytes:
    ids = (str(uuid.uuid4()).encode() for _ in range(len(pieces) - 1))
    body = pieces[0]
    for identifier, piece in zip(ids, pieces[1:], strict=True):
        body += identifier + piece
    return body.replace(b"#" * 12, secrets.token_hex(6).encode())


def run(port: int, seconds: float, connections: int, count: int) -> dict[str, float]:
    pieces = templates(count)[0]
    ends = time.monotonic() + seconds
    times: list[float] = []
    failures: list[BaseException] = []

    def client() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while time.monotonic() < ends and not failures:
                    body = fill(pieces)
                    before = time.perf_counter()
                    post(connection, body)
                    times.append(time.perf_counter() - before)
        except BaseException as error:
            failures.append(error)

    started = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    times.sort()
    return {
        "posts": len(times),
        "seconds": time.monotonic() - started,
        "p50_ms": 1000 * times[len(times) // 2],
        "p99_ms": 1000 * times[int(len(times) * 0.99)],
    }


if __name__ == "__main__":
    port, seconds, connections, count = sys.argv[1:]
    print(json.dumps(run(int(port), float(seconds), int(connections), int(count))))

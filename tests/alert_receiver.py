"""An incoming webhook on loopback: keeps what is posted to it and answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """`posted` is each body in order; `statuses` are the next answers, 200 when there are no more."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self._arrived = threading.Condition()

    def take(self, content: bytes, headers: dict[str, str]) -> int:
        with self._arrived:
            self.posted.append(json.loads(content))
            self.headers.append(headers)
            self._arrived.notify_all()
            return self.statuses.pop(0) if self.statuses else 200

    def wait_for(self, number: int, seconds: float = 20) -> list[dict[str, Any]]:
        """The first so many bodies, as soon as they are there."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.posted) >= number, seconds), self.posted
            return self.posted[:number]

    def told(self) -> list[tuple[str, str]]:
        return [(body["key"], body["state"]) for body in self.posted]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(content, dict(self.headers)))
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/services/secret-path"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A scriptable, hostile Velt for tests, speaking real HTTP/1.1 over loopback.

    with FakeVelt() as fake:                       # answers success to everything until told otherwise
        fake.script(error("UNAVAILABLE", 503), reset())           # the next two calls, then the default again
        fake.always(error("NOT_FOUND", 404), user="ada")          # every call about ada
        ...                                        # point the client at fake.url
        calls = fake.wait_for(3)                   # the first three calls, or AssertionError after 5 s
        fake.down(); fake.up()                     # refuses connections, then listens on the same port again

A call counts when its whole request was read, before it is answered. An answer is a function that gets the socket and
the fake's `stopped` event, writes what it likes and returns whether the connection stays open; those of this module:
`success, error, answer, held, redirect, truncated, closed, reset, silence, endless_body, dripping_headers,
dripping_body`. Which answer a call gets: the person's script, everybody's script, the person's `always`, the default.

Questions (permissions/get) are apart from all that: they are in `asked`, and `shows(call)` gives each one's answer,
`access({})` unless it is set: nobody has anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from http.client import parse_headers
from io import BufferedReader
from types import MappingProxyType
from typing import NamedTuple, Self

from relay.model import Resource

Answer = Callable[[socket.socket, threading.Event], bool]


class Call(NamedTuple):
    """One request: who loses what, the headers (lower-case names) and the number of the connection it came on.

    Of a question `resources` are the documents and folders that it asks about.
    """

    user_id: str
    resources: frozenset[Resource]
    headers: dict[str, str]
    connection: int
    path: str


def answer(status: int, content: object, headers: Mapping[str, str] | None = None) -> Answer:
    """An ordinary answer; `content` is sent as it is if bytes, else as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return _write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body, keep=True)


def success() -> Answer:
    return answer(200, {"result": {"status": "success", "message": "Permissions removed successfully."}})


def error(status: str, code: int, message: str = "Made up for a test.", **headers: str) -> Answer:
    """Velt's error envelope; headers by keyword, `Retry_After="7"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(code, {"error": {"status": status, "message": message}}, named)


def access(
    call: Call, shown: Mapping[Resource, Mapping[str, str]] = MappingProxyType({}), organization: str = "acme"
) -> Answer:
    """What permissions/get says of the call's user: the entries `shown`, permission_denied for everything else."""
    everything = {*call.resources, Resource("organization", organization)}
    denied = {"error": "User does not have access", "errorCode": "permission_denied", "accessType": "restricted"}
    told: dict[str, dict[str, Mapping[str, str]]] = {"organization": {}, "documents": {}, "folders": {}}
    for resource in everything:
        kind = resource.type if resource.type == "organization" else f"{resource.type}s"
        told[kind][resource.id] = shown.get(resource, denied)
    return answer(200, {"result": {"status": "success", "message": "Found.", "data": {call.user_id: told}}})


def redirect(location: str, code: int = 302) -> Answer:
    return answer(code, b"", {"Location": location})


def held(event: threading.Event, then: Answer | None = None) -> Answer:
    """`then` (success), but only once `event` is set."""

    def wait(connection: socket.socket, stopped: threading.Event) -> bool:
        while not event.wait(0.01) and not stopped.is_set():
            pass
        return (then or success())(connection, stopped)

    return wait


def truncated() -> Answer:
    """The first half of a success, then the end of the connection."""
    return _write(b'HTTP/1.1 200 OK\r\nContent-Length: 72\r\n\r\n{"result": {"status": "succ', keep=False)


def closed() -> Answer:
    """No answer: the connection just ends."""
    return _write(b"", keep=False)


def reset() -> Answer:
    """No answer: the connection is reset (RST)."""

    def write(connection: socket.socket, stopped: threading.Event) -> bool:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return write


def silence() -> Answer:
    """The connection stays open and nothing ever comes."""
    return _repeat(b"", b"")


def endless_body() -> Answer:
    """A success that never ends, as fast as it is read."""
    return _repeat(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536, pause=0)


def dripping_headers() -> Answer:
    return _repeat(b"HTTP/1.1 200 OK\r\nX-Slow: ", b".")


def dripping_body(head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Answer:
    """A success of which one space comes every 20 ms."""
    return _repeat(head + b'{"result": {"status": "success"}}', b" ")


def _write(data: bytes, *, keep: bool) -> Answer:
    def write(connection: socket.socket, stopped: threading.Event) -> bool:
        connection.sendall(data)
        return keep

    return write


def _repeat(first: bytes, again: bytes, pause: float = 0.02) -> Answer:
    def write(connection: socket.socket, stopped: threading.Event) -> bool:
        connection.sendall(first)
        while not stopped.wait(pause):
            connection.sendall(again)
        return False

    return write


class FakeVelt:
    """See the module. `tls` makes it speak HTTPS."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.asked: list[Call] = []
        self.shows: Callable[[Call], Answer] = access
        self.stopped = threading.Event()
        self._tls = tls
        self._changed = threading.Condition()
        self._scripts: dict[str | None, deque[Answer]] = defaultdict(deque)
        self._always: dict[str | None, Answer] = {None: success()}
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self._listener: socket.socket | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        self.down()
        for thread in self._threads:
            thread.join(5)

    def script(self, *answers: Answer, user: str | None = None) -> None:
        """The answers to the next calls, about `user` or about anybody."""
        with self._changed:
            self._scripts[user].extend(answers)

    def always(self, given: Answer, user: str | None = None) -> None:
        """The answer to every call about `user` or, without one, to every call that nothing else is said about."""
        with self._changed:
            self._always[user] = given

    def wait_for(self, count: int, timeout: float = 5.0) -> list[Call]:
        """The first `count` calls, as soon as there are so many."""
        return self._wait_for(self.calls, count, timeout)

    def wait_for_questions(self, count: int, timeout: float = 15.0) -> list[Call]:
        """The first `count` questions, as soon as there are so many."""
        return self._wait_for(self.asked, count, timeout)

    def _wait_for(self, calls: list[Call], count: int, timeout: float) -> list[Call]:
        with self._changed:
            enough = self._changed.wait_for(lambda: len(calls) >= count, timeout)
            assert enough, f"{len(calls)} of {count} calls came within {timeout} s: {calls}"
            return calls[:count]

    def down(self) -> None:
        """Stop listening and end every connection."""
        listener, self._listener = self._listener, None
        with self._changed:
            open_now = list(self._open)
        for connection in [*([listener] if listener else []), *open_now]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if listener:
            listener.close()

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections += 1
            self._start(self._serve, connection, self._connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            stack.enter_context(self._listed(connection))
            reader = stack.enter_context(connection.makefile("rb"))
            while (call := _read_call(reader, number)) and self._record(call)(connection, self.stopped):
                pass

    @contextlib.contextmanager
    def _listed(self, connection: socket.socket) -> Iterator[None]:
        with self._changed:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._changed:
                self._open.discard(connection)

    def _record(self, call: Call) -> Answer:
        with self._changed:
            question = call.path == "/v2/auth/permissions/get"
            (self.asked if question else self.calls).append(call)
            self._changed.notify_all()
            if question:
                return self.shows(call)
            for user in (call.user_id, None):
                if self._scripts[user]:
                    return self._scripts[user].popleft()
            return self._always.get(call.user_id, self._always[None])


def _read_call(reader: BufferedReader, number: int) -> Call | None:
    line = reader.readline()
    if not line:
        return None
    headers = {name.lower(): value for name, value in parse_headers(reader).items()}
    data = json.loads(reader.read(int(headers["content-length"])))["data"]
    path = line.split()[1].decode()
    if path == "/v2/auth/permissions/get":
        (user,), organization = data["userIds"], data["organizationId"]
        asked = [Resource("document", name, organization) for name in data.get("documentIds", ())]
        asked += [Resource("folder", name, organization) for name in data.get("folderIds", ())]
        return Call(user, frozenset(asked), headers, number, path)
    resources = (
        Resource(item["type"], item["id"], item.get("organizationId")) for item in data["permissions"]["resources"]
    )
    return Call(data["userId"], frozenset(resources), headers, number, path)

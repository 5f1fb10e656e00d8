"""One kept-alive HTTP connection a thread, on which each call has a deadline that no server can stretch.

What the client of Velt (relay/velt.py) and those of the identity providers (relay/directories/http.py) stand on.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class Deadline:
    """Ends a call that takes too long by shutting its socket down, from a timer's thread.

    A read timeout alone does not: it starts anew with every byte, and a server may send one now and then for ever.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self.sent = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._socket = None

    def sending(self, connection: socket.socket) -> None:
        """Called just before bytes leave. Raises TimeoutError when it is too late for that."""
        with self._lock:
            if self.over:
                raise TimeoutError("no time was left to send the request")
            self._socket = connection
            self.sent = True

    def _end(self) -> None:
        with self._lock:
            self.over = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown: that takes the encryption away under the reading thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Line(HTTPAdapter):
    """One thread's kept-alive connection to one server, on which each call has a deadline.

    Used without a requests.Session on purpose: what that adds is redirects (read to the end even when they are not
    followed), cookies, and proxies and passwords from the environment.
    """

    def __init__(self) -> None:
        self.deadline = Deadline(0)
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _watched_pools(self)


def _watched_pools(line: Line) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3's pools, with connections that show their socket to the line's deadline before they send."""

    def show(connection: HTTPConnection) -> None:
        if connection.sock is None:
            connection.connect()
        line.deadline.sending(connection.sock)

    class Plain(HTTPConnection):
        def send(self, data: Any) -> None:
            show(self)
            super().send(data)

    class Encrypted(HTTPSConnection):
        def send(self, data: Any) -> None:
            show(self)
            super().send(data)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


class Lines:
    """The lines of all threads: `here` is the calling thread's own."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._all: list[Line] = []

    def here(self) -> Line:
        if not hasattr(self._here, "line"):
            self._here.line = Line()
            self._all.append(self._here.line)
        line: Line = self._here.line
        return line

    def close(self) -> None:
        """Close the connections of all threads."""
        for line in self._all:
            line.close()


def fits_a_header(key: str) -> bool:
    """Whether `key` is not empty and may be the value of an HTTP header."""
    try:
        key.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return key.isprintable() and key == key.strip() != ""


def read(response: requests.Response, most: int) -> bytes:
    """The whole body. Raises ValueError when it is larger than `most` bytes."""
    content = bytearray()
    for piece in response.iter_content(65536):
        content += piece
        if len(content) > most:
            raise ValueError(f"it is larger than {most} bytes")
    return bytes(content)


def root(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of wrapped errors."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error) or type(error).__name__

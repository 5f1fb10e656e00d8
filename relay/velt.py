"""The Velt client: one verb, `remove`, whose answer is an Outcome, whatever the network or Velt does.

The call is https://docs.velt.dev/api-reference/rest-apis/v2/auth/remove-permissions; relay/answers.py tells what comes
back. Here is the way there: keys, one connection a thread, and a deadline that nothing on the other side can stretch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from relay.answers import classify, excerpt, retry_after
from relay.contracts import first_problem
from relay.errors import RelayError
from relay.model import Answer, Outcome, Resource

PATH = "/v2/auth/permissions/remove"
SCHEMA = "velt-remove-permissions"

MAX_ANSWER = 1 << 20


def body(user_id: str, resources: Sequence[Resource]) -> dict[str, Any]:
    """The request that takes `resources` from `user_id`, in Velt's shape."""
    return {"data": {"userId": user_id, "permissions": {"resources": [item.as_velt() for item in resources]}}}


class _Deadline:
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


class _Line(HTTPAdapter):
    """One thread's kept-alive connection to Velt, on which each call has a deadline.

    Used without a requests.Session on purpose: what that adds is redirects (read to the end even when they are not
    followed), cookies, and proxies and passwords from the environment.
    """

    def __init__(self) -> None:
        self.deadline = _Deadline(0)
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _watched_pools(self)


def _watched_pools(line: _Line) -> dict[str, type[HTTPConnectionPool]]:
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


class Velt:
    """Velt's permissions API at `base_url`; use it from as many threads as you like.

    `keys` gives (API key, auth token) and is asked before every call, since both may change while the relay runs.
    A call takes `timeout` seconds at most, whatever the other side does. Resolving the name and connecting, at most
    `connect_timeout` seconds an address, may outlast it, but then nothing is sent. ValueError for an impossible URL.
    """

    def __init__(
        self, base_url: str, keys: Callable[[], tuple[str, str]], *, timeout: float = 15.0, connect_timeout: float = 3.0
    ) -> None:
        self._url = base_url.rstrip("/") + PATH
        self._host = urlsplit(base_url).hostname
        self._keys = keys
        self._timeout = timeout
        self._connect_timeout = min(connect_timeout, timeout)
        self._here = threading.local()
        self._lines: list[_Line] = []

    def __repr__(self) -> str:
        return f"Velt({self._host!r})"

    def remove(self, user_id: str, resources: Sequence[Resource]) -> Outcome:
        """Ask Velt to take `resources`, at most as many as the schema allows, from `user_id`.

        Never raises: whatever comes of it is an Outcome.
        """
        request_body = body(user_id, resources)
        problem = first_problem(SCHEMA, request_body)
        if problem is not None:
            return Outcome(Answer.REFUSED, f"The request would not be valid: {problem}")
        try:
            keys = self._keys()
        except (RelayError, OSError) as error:
            return Outcome(Answer.UNAUTHORIZED, f"The keys to Velt cannot be read: {error}")
        for name, key in zip(("API key", "auth token"), keys, strict=True):
            if not _fits_a_header(key):
                return Outcome(
                    Answer.UNAUTHORIZED,
                    f"The Velt {name} is empty or holds what no HTTP header may: a line break, a space at an end, "
                    "a control character or one outside Latin-1",
                )
        ids = {user_id}.union(*({item.id, item.organization_id or ""} for item in resources))
        return self._call(json.dumps(request_body).encode(), keys, ids)

    def key_digest(self) -> str:
        """16 hex digits that name the two keys in use without telling them. Raises what `keys` raises."""
        return hashlib.sha256("\n".join(self._keys()).encode()).hexdigest()[:16]

    def close(self) -> None:
        """Close the connections of all threads."""
        for line in self._lines:
            line.close()

    def _line(self) -> _Line:
        if not hasattr(self._here, "line"):
            self._here.line = _Line()
            self._lines.append(self._here.line)
        line: _Line = self._here.line
        return line

    def _call(self, content: bytes, keys: tuple[str, str], ids: set[str]) -> Outcome:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "velt-permission-relay",
            "x-velt-api-key": keys[0],
            "x-velt-auth-token": keys[1],
        }
        line = self._line()
        with _Deadline(self._timeout) as deadline:
            line.deadline = deadline
            try:
                request = requests.Request("POST", self._url, headers=headers, data=content).prepare()
                response = line.send(request, stream=True, timeout=(self._connect_timeout, self._timeout))
            except (OSError, HTTPError, ValueError) as error:
                return self._unanswered(deadline, error, keys)
            with response:
                outcome = _outcome(response, keys, ids)
        return replace(self._too_late(), http_status=response.status_code) if deadline.over else outcome

    def _unanswered(self, deadline: _Deadline, error: Exception, keys: tuple[str, str]) -> Outcome:
        cause = excerpt(_root(error), keys)
        if not deadline.sent:
            reason = f"Velt could not be reached at {self._host}: {cause}"
            return Outcome(Answer.RETRY, reason, down=True)
        if deadline.over:
            return self._too_late()
        return Outcome(Answer.RETRY, f"The connection to Velt broke before the answer: {cause}", down=True, unsure=True)

    def _too_late(self) -> Outcome:
        return Outcome(Answer.RETRY, f"Velt did not answer within {self._timeout:g} s", down=True, unsure=True)


def _fits_a_header(key: str) -> bool:
    try:
        key.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return key.isprintable() and key == key.strip() != ""


def _outcome(response: requests.Response, keys: Collection[str], ids: Collection[str]) -> Outcome:
    status = response.status_code
    try:
        content = _read(response)
    except (OSError, HTTPError, ValueError) as error:
        reason = f"Velt's answer, HTTP {status}, could not be read: {excerpt(_root(error), keys)}"
        return Outcome(Answer.RETRY, reason, http_status=status, unsure=True)
    outcome = classify(status, content, keys=keys, ids=ids)
    if outcome.answer is Answer.RETRY:
        return replace(outcome, retry_after=retry_after(response.headers.get("Retry-After")))
    return outcome


def _read(response: requests.Response) -> bytes:
    """The whole body. Raises ValueError when it is larger than any answer of Velt's."""
    content = bytearray()
    for piece in response.iter_content(65536):
        content += piece
        if len(content) > MAX_ANSWER:
            raise ValueError(f"it is larger than {MAX_ANSWER} bytes")
    return bytes(content)


def _root(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of wrapped errors."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return str(error) or type(error).__name__

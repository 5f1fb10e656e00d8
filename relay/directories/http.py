"""The HTTP client of all directories: JSON answers, or LookUpFailed with what to tell an operator.

Nothing of the environment is used (proxies, .netrc), redirects are not followed, and a token leaves for no other host
than the one that it is for. Use a client from as many threads as you like.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, TypeAlias
from urllib.parse import SplitResult, urlsplit

import requests
from requests.utils import parse_header_links
from urllib3.exceptions import HTTPError

from relay.answers import excerpt, retry_after
from relay.errors import LookUpFailed, Unreadable
from relay.line import Deadline, Lines, fits_a_header, read, root
from relay.sources.base import load_json

MAX_ANSWER = 32 << 20
#: Seconds for connecting, at most.
CONNECT_TIMEOUT = 3.0
DEFAULT_PORTS = {"http": 80, "https": 443}
REFUSED = (401, 403)

#: Gives the headers that prove who asks. It is told those that were just refused (None at first), to renew what it
#: can; when it gives the same ones again, nothing more is tried. May raise LookUpFailed.
Authorize: TypeAlias = Callable[[Mapping[str, str] | None], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer whose status is 2xx or one that the caller wanted to see.

    `body` is the JSON in it, None where it is empty. `headers` are looked up without regard to case.
    """

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def next(self) -> str | None:
        """The address of the next page, of a `Link` header with rel="next" (RFC 8288)."""
        links = parse_header_links(self.headers.get("Link", ""))
        return next((link["url"] for link in links if link.get("rel") == "next"), None)

    @property
    def code(self) -> str:
        """The provider's own code of an error, such as E0000007 or Request_ResourceNotFound; "" where none is."""
        return _told(self.body)[0]


def nobody(refused: Mapping[str, str] | None) -> Mapping[str, str]:
    """For calls that prove nothing by a header."""
    return {}


class Reader(Protocol):
    """What lists are read with: a Client, or one that asks again (relay/directories/again.py)."""

    def get(
        self,
        where: str,
        params: Mapping[str, str | int] | None = None,
        *,
        answers: Collection[int] = (404,),
        needs: str = "",
    ) -> Response:
        """What is at `where`; see `Client.call`."""


class Client:
    """The API at `base_url`, whose name in sentences is `who`.

    A pause of the answer takes `read_timeout` seconds at most, a request with its whole answer `deadline`; an answer is
    at most `most` bytes.
    """

    def __init__(
        self,
        who: str,
        base_url: str,
        authorize: Authorize = nobody,
        *,
        read_timeout: float = 15.0,
        deadline: float = 20.0,
        most: int = MAX_ANSWER,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._origin = urlsplit(self._base)
        self._who = f"{who} at {self._origin.hostname}"
        self._authorize = authorize
        self._timeouts = (CONNECT_TIMEOUT, read_timeout)
        self._deadline = deadline
        self._most = most
        self._lines = Lines()

    def get(
        self,
        where: str,
        params: Mapping[str, str | int] | None = None,
        *,
        answers: Collection[int] = (404,),
        needs: str = "",
    ) -> Response:
        """What is at `where`; see `call`."""
        return self.call("GET", where, params=params, answers=answers, needs=needs)

    def post(
        self,
        where: str,
        *,
        content: object = None,
        form: Mapping[str, str] | None = None,
        answers: Collection[int] = (),
        needs: str = "",
    ) -> Response:
        """The answer to `content` (sent as JSON) or `form`; see `call`."""
        return self.call("POST", where, content=content, form=form, answers=answers, needs=needs)

    def call(
        self,
        method: str,
        where: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        answers: Collection[int] = (),
        needs: str = "",
    ) -> Response:
        """The answer, if its status is 2xx or one of `answers`, and it is JSON or empty.

        `where` is a path behind the base URL or a whole address on the same host, such as a link to a next page.
        `needs` names the permission, for the sentence that says it is lacking. Raises LookUpFailed for all else:
        no connection, no answer in time, too large, not JSON, another status; with `retry_after` where that is told.
        """
        request = requests.Request(method, self._url(where), params=params, data=form, json=content)
        offered = self._authorize(None)
        answer = self._send(request, {**(headers or {}), **offered})
        if answer.status in REFUSED:
            renewed = self._authorize(offered)
            if renewed != offered:
                offered = renewed
                answer = self._send(request, {**(headers or {}), **offered})
        return self._judged(answer, answers, needs, _secrets(offered))

    def close(self) -> None:
        """Close the connections of all threads."""
        self._lines.close()

    def _url(self, where: str) -> str:
        """The address of a path; a whole address only with its path and query, behind our own scheme and host."""
        if where.startswith("/"):
            return self._base + where
        try:
            parts = urlsplit(where)
            same = _place(parts) == _place(self._origin)
        except ValueError:
            same = False
        if not same:
            told = f"{self._who} gave a link to another address, which is not followed: {excerpt(where)}"
            raise LookUpFailed(told, lasting=True)
        return parts._replace(scheme=self._origin.scheme, netloc=self._origin.netloc, fragment="").geturl()

    def _send(self, request: requests.Request, headers: Mapping[str, str]) -> _Answer:
        secrets = _secrets(headers)
        if not all(fits_a_header(value) for value in headers.values()):
            raise LookUpFailed(
                f"{self._who} was not asked: the credential is empty or holds what no HTTP header may, "
                "such as a line break or a space at an end",
                lasting=True,
            )
        request.headers = {**_HEADERS, **headers}
        line = self._lines.here()
        with Deadline(self._deadline) as deadline:
            line.deadline = deadline
            try:
                with line.send(request.prepare(), stream=True, timeout=self._timeouts) as response:
                    answer = _Answer(response.status_code, read(response, self._most), response.headers)
            except (OSError, HTTPError, ValueError) as error:
                if not (deadline.over and deadline.sent):
                    verb = "broke off" if deadline.sent else "could not be reached"
                    raise LookUpFailed(f"{self._who} {verb}: {excerpt(root(error), secrets)}") from None
            # an answer that the deadline has cut may look like a whole one
            if not deadline.over:
                return answer
        raise LookUpFailed(f"{self._who} did not answer within {self._deadline:g} s")

    def _judged(self, answer: _Answer, wanted: Collection[int], needs: str, secrets: Collection[str]) -> Response:
        status = answer.status
        body, readable = _parsed(answer.content)
        if readable and (200 <= status < 300 or status in wanted):
            return Response(status, body, answer.headers)
        told = excerpt(": ".join(part for part in _told(body) if part), secrets)
        sentence = f"{self._who} answered HTTP {status}" + (f", {told}" if told else "")
        if not readable:
            sentence += ", and not in JSON"
        raise LookUpFailed(sentence + _meaning(status, needs), _wait(status, answer.headers), lasting=_lasts(status))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    headers: Mapping[str, str]


_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "velt-permission-relay"}


def _place(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)


def _secrets(headers: Mapping[str, str]) -> set[str]:
    """What must not be quoted: the values, and the tokens behind their scheme."""
    return {*headers.values(), *(value.rpartition(" ")[2] for value in headers.values())}


def _parsed(content: bytes) -> tuple[Any, bool]:
    """The JSON value (None for nothing at all), and whether it could be read."""
    try:
        return (load_json(content) if content.strip() else None), True
    except (Unreadable, RecursionError):
        return None, False


def _told(body: Any) -> tuple[str, str]:
    """Code and text of an error, of Okta's shape, Graph's or OAuth's (RFC 6749 5.2)."""
    error = body.get("error", body) if isinstance(body, dict) else {}
    inner = error if isinstance(error, dict) else {"code": error, "message": body.get("error_description")}
    pairs = ((inner.get("errorCode"), inner.get("errorSummary")), (inner.get("code"), inner.get("message")))
    code, text = pairs[0] if isinstance(pairs[0][0], str) else pairs[1]
    return code if isinstance(code, str) else "", text if isinstance(text, str) else ""


def _lasts(status: int) -> bool:
    """Whether the answer would be the same in a minute; a 2xx that is not JSON comes from something in between."""
    return 300 <= status < 500 and status not in (408, 429)


def _meaning(status: int, needs: str) -> str:
    if status == 401:
        return ": the credential is refused; it is wrong, expired or was revoked"
    if status == 403:
        return ": the credential lacks a permission" + (f"; it needs {needs}" if needs else "")
    if 300 <= status < 400:
        return ": redirects are not followed; the url in relay.yaml must be the API's own"
    return ": too many requests" if status == 429 else ""


def _wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, of `Retry-After` or Okta's `X-Rate-Limit-Reset`: the second when the next window begins.

    https://developer.okta.com/docs/reference/rl-best-practices/ compares it with the answer's own `Date`, since the
    clock here may be another. Other answers than 429 have the window's header too, and ask nobody to wait.
    """
    told = retry_after(headers.get("Retry-After"))
    reset = headers.get("X-Rate-Limit-Reset", "").strip()
    if told is not None or status != 429 or not re.fullmatch(r"[0-9]{1,12}", reset):
        return told
    try:
        moment = parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        moment = time.time()
    return max(0.0, int(reset) - moment)

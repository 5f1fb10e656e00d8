"""What every source shares: the seam, JSON without surprises, clean strings, keys, compares that leak nothing."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from relay import contracts
from relay.errors import Unreadable
from relay.model import AccessEvent, EventState, Kind, Micros, from_iso

LONGEST_TEXT = 800
"""UTF-8 bytes of an id, login or name. Real ones stay under 300; index entries of a database end near 2,700."""

EARLIEST = from_iso("2000-01-01T00:00:00Z")
LATEST = from_iso("2100-01-01T00:00:00Z")

REMOVED_TEXT = "[removed]"


@dataclass(frozen=True, slots=True)
class Parsed:
    """The events of one payload, and how many items were dropped because they were not authentic."""

    events: list[AccessEvent] = field(default_factory=list)
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Handshake:
    """The answer that proves to an identity provider that this address is ours."""

    status: int
    body: str
    content_type: str


class Source(Protocol):
    """One identity provider's way of speaking: who may speak, and what was said.

    `name` is the key in relay.yaml and the last part of the URL. `accepted` is the HTTP status after the commit,
    `max_body` is in bytes. `keeps_unreadable`: a body that cannot be read comes from an authenticated sender and is
    worth keeping.
    """

    name: str
    accepted: int
    max_body: int
    keeps_unreadable: bool

    def handshake(self, method: str, headers: Mapping[str, str], args: Mapping[str, str]) -> Handshake | None:
        """The answer to a verification request, None for any other. Raises Refused (400, 401)."""

    def authenticate(self, headers: Mapping[str, str]) -> bool:
        """Whether these headers (looked up without regard to case) let the sender in."""

    def parse(self, body: bytes) -> Parsed:
        """The events of a request's body. Raises Unreadable, and nothing else, when none of it is understood."""

    def reparse(self, payload: bytes) -> Parsed:
        """The events of a payload that was stored as unreadable: a whole body or one element of it.

        Asks for no secret again: it is for what an authenticated sender sent. Raises Unreadable.
        """


def load_json(body: bytes) -> Any:
    """The JSON value in `body` (UTF-8).

    Raises Unreadable with what is wrong and what would be right, RecursionError where the nesting is too deep to
    follow: a later walk may find that too, so that it is caught once, around everything.
    """
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=no_constant, parse_float=finite, parse_int=whole)
    except UnicodeDecodeError:
        raise Unreadable("the body is not UTF-8; wanted is JSON in UTF-8") from None
    except ValueError as error:
        # `from None`: the parser's error holds the whole body, which may hold secrets
        raise Unreadable(f"the body is not JSON: {error}; wanted is a JSON object") from None


def too_deep() -> Unreadable:
    """The error for JSON that no walk can follow to its end."""
    return Unreadable("the body is nested too deeply; wanted is a JSON object of ordinary depth")


def no_constant(name: str) -> float:
    """For json.loads: refuse NaN and Infinity, which JSON does not have."""
    raise ValueError(f"{name} is not a JSON number")


def finite(digits: str) -> float:
    """For json.loads: a number that a float can hold."""
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def whole(digits: str) -> int:
    """For json.loads: a whole number of at most as many digits as Python reads."""
    try:
        return int(digits)
    except ValueError:
        raise ValueError("a number is too large") from None


def encode(value: object) -> bytes:
    """A JSON value as ASCII bytes, every `password` in it replaced: the form in which payloads are stored.

    The value itself loses its passwords too, so that nothing said about it later can tell one.
    """
    payload = _dump(value)
    if b'"password":' in payload.lower():
        _cut_passwords(value)
        payload = _dump(value)
    return payload


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _cut_passwords(value: object) -> None:
    ahead = [value]
    while ahead:
        node = ahead.pop()
        if isinstance(node, dict):
            for key in node:
                if key.lower() == "password":
                    node[key] = REMOVED_TEXT
            ahead.extend(node.values())
        elif isinstance(node, list):
            ahead.extend(node)


def check(schema_name: str, document: object) -> None:
    """Raise Unreadable with the first thing by which `document` breaks schemas/<schema_name>.schema.json."""
    problem = contracts.first_problem(schema_name, document)
    if problem is not None:
        raise Unreadable(str(problem))


def clean(value: object, what: str) -> str:
    """`value` when every database can keep it as text; raises Unreadable naming `what` otherwise."""
    if value is None or value == "":
        raise Unreadable(f"{what} is missing; wanted is a text that is not empty")
    if not isinstance(value, str):
        raise Unreadable(f"{what} is {contracts.show(value)}; wanted is a text")
    if "\0" in value:
        raise Unreadable(f"{what} holds the character U+0000, which no id or name has")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Unreadable(f"{what} holds half of a surrogate pair; wanted is whole Unicode text") from None
    if size > LONGEST_TEXT:
        raise Unreadable(f"{what} is {size} bytes long; at most {LONGEST_TEXT} are wanted")
    return value


def clean_or_none(value: object, what: str) -> str | None:
    """Like `clean`, and None for what is missing, null or empty."""
    return None if value is None or value == "" else clean(value, what)


def clean_or(value: object, otherwise: str) -> str:
    """`value` when it is clean, else `otherwise`: for naming a thing that could not be read."""
    try:
        return clean(value, "it")
    except Unreadable:
        return otherwise


def moment(value: object, what: str) -> Micros:
    """Microseconds of an ISO 8601 time of this century; raises Unreadable naming `what` otherwise."""
    try:
        at = from_iso(clean(value, what))
    except (ValueError, OverflowError):
        raise Unreadable(f"{what} is not a time; wanted is one like 2026-01-31T12:00:00.000Z") from None
    if not EARLIEST <= at < LATEST:
        raise Unreadable(f"{what} is outside of the years 2000 to 2099")
    return at


def moment_or_none(value: object) -> Micros | None:
    """Like `moment`, and None for whatever is not one."""
    try:
        return moment(value, "it")
    except Unreadable:
        return None


def digest(*parts: bytes) -> str:
    """`sha256:` and the hex digest of the parts: the key of an event to which its source gave no id."""
    return "sha256:" + hashlib.sha256(b"/".join(parts)).hexdigest()


def join_key(*parts: str | None) -> str:
    """One key of several ids, short enough for an index whatever the ids' length."""
    key = "/".join(part for part in parts if part)
    return key if len(key.encode()) <= LONGEST_TEXT else digest(key.encode())


def needs_look_up(kind: Kind) -> bool:
    """Whether an event of this kind says only that something changed, not what."""
    return kind in (Kind.ACCOUNT_CHANGED, Kind.GROUP_CHANGED)


def unreadable(source: str, type_: str, payload: bytes, key: str, reason: str, twin: bool = False) -> AccessEvent:
    """The event that keeps what was authenticated but not understood."""
    state = EventState.UNREADABLE
    return AccessEvent(source, Kind.UNKNOWN, type_, payload, key, twin, state=state, reason=reason)


def ignored(
    source: str, type_: str, payload: bytes, key: str, reason: str, twin: bool = False, at: Micros | None = None
) -> AccessEvent:
    """The event that is understood and takes nothing from anybody."""
    state = EventState.IGNORED
    return AccessEvent(source, Kind.UNKNOWN, type_, payload, key, twin, occurred_at=at, state=state, reason=reason)


def header_bytes(value: str | None) -> bytes:
    """The bytes that were sent as a header: WSGI shows them as Latin-1 (PEP 3333), whatever they mean."""
    if value is None:
        return b""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return text_bytes(value)


def text_bytes(value: str) -> bytes:
    """UTF-8, for any string that JSON can hold, lone surrogates included."""
    return value.encode("utf-8", "surrogatepass")


def is_secret(offered: bytes, valid: Sequence[str]) -> bool:
    """Whether `offered` is one of the valid secrets, in a time that does not tell which or how nearly."""
    found = False
    for secret in valid:
        # surrogateescape gives back the bytes of an environment variable that is not UTF-8
        same = hmac.compare_digest(offered, secret.encode("utf-8", "surrogateescape"))
        found |= same and secret != ""
    return found

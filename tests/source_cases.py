"""The sources, each with the makers of its payloads: what the suite that every source must pass is run with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relay.errors import Unreadable
from relay.model import AccessEvent
from relay.sources import Parsed, Source, build
from tests import payloads

SECRET = payloads.CLIENT_STATE


@dataclass(frozen=True)
class Case:
    """How one source's payloads are made: `item` is one removal from a group, `body` wraps items."""

    type: str
    item: Callable[[str], dict[str, Any]]
    body: Callable[[list[Any]], dict[str, Any]]
    lets_in: Callable[[Source, object], bool]
    list_of: Callable[[dict[str, Any]], tuple[dict[str, Any], str]]

    def make(self, *secrets: str) -> Source:
        return build("acme", {"type": self.type}, lambda: secrets or (SECRET,))

    def parse(self, *items: Any) -> Parsed:
        return self.make().parse(payloads.to_bytes(self.body(list(items))))

    def one(self, item: Any) -> AccessEvent:
        (event,) = self.parse(item).events
        return event


def okta_item(user_id: str) -> dict[str, Any]:
    return payloads.okta_event("group.user_membership.remove", payloads.okta_user(user_id), payloads.okta_group())


def okta_lets_in(source: Source, offered: object) -> bool:
    return source.authenticate({} if offered is None else {"Authorization": offered})  # type: ignore[dict-item]


def entra_item(user_id: str) -> dict[str, Any]:
    return payloads.entra_members("group-1", removed=[user_id])


def entra_lets_in(source: Source, offered: object) -> bool:
    """The header of WSGI is Latin-1; the state inside JSON is text: turn the former into the latter."""
    state = offered.encode("latin-1").decode("utf-8", "replace") if isinstance(offered, str) else offered
    item = payloads.entra_members("group-1", removed=["user-1"], client_state=state)
    if offered is None:
        del item["clientState"]
    parsed = source.parse(payloads.to_bytes(payloads.entra_body([item])))
    assert source.authenticate({})
    assert len(parsed.events) + parsed.rejected == 1
    return bool(parsed.events)


OKTA = Case("okta", okta_item, payloads.okta_hook, okta_lets_in, lambda root: (root["data"], "events"))
ENTRA = Case("entra", entra_item, payloads.entra_body, entra_lets_in, lambda root: (root, "value"))
CASES = [OKTA, ENTRA]


def attempt(read: Callable[[bytes], Parsed], body: bytes) -> Parsed | Unreadable:
    """What the body comes to; any other error fails the test."""
    try:
        return read(body)
    except Unreadable as problem:
        return problem


def is_clean(event: AccessEvent) -> bool:
    """Whether a database can keep it: no U+0000, no half surrogates, a payload of JSON in ASCII."""
    texts = [event.type, event.key, event.reason, event.subject, event.login, event.group_id, event.group_name]
    json.loads(event.payload.decode("ascii"))
    return all("\0" not in text and text.encode() is not None for text in texts if text is not None)

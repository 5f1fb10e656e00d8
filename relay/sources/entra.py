"""Microsoft Entra ID through Graph change notifications:
https://learn.microsoft.com/graph/change-notifications-delivery-webhooks.

The proof is a `clientState` inside each item, so the body is parsed before anybody is known. Items carry no id of their
own, no name and, but for members of groups, nothing of what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relay.errors import Refused, Unreadable
from relay.model import ACCOUNT_LOSSES, AccessEvent, EventState, Kind, Micros
from relay.sources import base
from relay.sources.base import Handshake, Parsed

SECRET_KEYS = ("clientState", "validationTokens")
MEMBERS = "members@delta"
GROUP = "#microsoft.graph.group"
OF_MEMBERS = (Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_MEMBER_ADDED)
TICKS_AT_1970 = 621_355_968_000_000_000
TICKS_A_MICROSECOND = 10

KINDS: Mapping[str, Kind] = {
    "User.deleted": Kind.ACCOUNT_DELETED,
    "User.created": Kind.ACCOUNT_CHANGED,
    "User.updated": Kind.ACCOUNT_CHANGED,
    "Group.deleted": Kind.GROUP_DELETED,
    "Group.created": Kind.GROUP_CHANGED,
    "Group.updated": Kind.GROUP_CHANGED,
}

# what an item about one person or one group can mean; members@delta is read apart
FITTING: Mapping[str, frozenset[Kind]] = {
    "User": ACCOUNT_LOSSES | {Kind.ACCOUNT_ACTIVATED, Kind.ACCOUNT_CHANGED},
    "Group": frozenset({Kind.GROUP_DELETED, Kind.GROUP_CHANGED}),
}

RESOURCES = {"user": "User", "users": "User", "group": "Group", "groups": "Group"}

# https://learn.microsoft.com/graph/change-notifications-lifecycle-events; relay/subscriptions.py obeys them
LIFECYCLE = {
    "reauthorizationRequired": "Microsoft wants the subscription reauthorized or renewed, else it stops sending",
    "subscriptionRemoved": "Microsoft removed the subscription: it has to be made anew, and what was missed found",
    "missed": "Microsoft could not deliver some notifications: what they said has to be found",
}

WITH_PUBLIC_URL = "the relay does that, since the source has a public_url"
WITHOUT_PUBLIC_URL = "the relay does that only for a source with graph and public_url"


@dataclass(frozen=True, slots=True)
class _Item:
    """One authentic item: the document and its bytes, both without secrets, and the key made of them."""

    document: Mapping[str, Any]
    payload: bytes
    key: str


class Entra:
    """The subscriptions of one Entra tenant."""

    accepted = 202
    max_body = 4 * 1024 * 1024
    keeps_unreadable = False

    def __init__(self, name: str, config: Mapping[str, Any], secret: Callable[[], Sequence[str]]) -> None:
        self.name = name
        self._secret = secret
        mapped = {type_: Kind(kind) for type_, kind in (config.get("kinds") or {}).items()}
        self._kinds = {**KINDS, **mapped}
        self._looks_up = config.get("graph") is not None
        self._keeps = config.get("public_url") is not None

    def handshake(self, method: str, headers: Mapping[str, str], args: Mapping[str, str]) -> Handshake | None:
        """Graph's validation: the token of the query, decoded once by the caller, back as plain text within 10 s."""
        token = args.get("validationToken")
        if method != "POST" or token is None:
            return None
        if not token:
            raise Refused(400, "this is where Microsoft Graph validates its subscription: validationToken is empty")
        return Handshake(200, token, "text/plain; charset=utf-8")

    def authenticate(self, headers: Mapping[str, str]) -> bool:
        """True: no header proves anything; each item of the body does (see `parse`)."""
        return True

    def parse(self, body: bytes) -> Parsed:
        """The events of the items whose clientState is right; the others are counted (Graph's rule: still 202)."""
        try:
            return self._body(base.load_json(body), self._secret())
        except RecursionError:
            raise base.too_deep() from None

    def reparse(self, payload: bytes) -> Parsed:
        """A stored item, from which the clientState was cut, or a whole body whose sender need not be proven."""
        try:
            root = base.load_json(payload)
            items = root["value"] if isinstance(root, dict) and isinstance(root.get("value"), list) else [root]
            return Parsed([event for item in items for event in self._item(item)])
        except RecursionError:
            raise base.too_deep() from None

    def _body(self, root: Any, valid: Sequence[str]) -> Parsed:
        base.check("entra-notifications", root)
        items = root.get("value") or []
        authentic = [item for item in items if _is_authentic(item, valid)]
        events = [event for item in authentic for event in self._item(item)]
        return Parsed(events, rejected=len(items) - len(authentic))

    def _item(self, given: Any) -> list[AccessEvent]:
        item = _without_secrets(given)
        try:
            base.check("entra-notification", item.document)
            if item.document.get("lifecycleEvent") is not None:
                return [self._lifecycle(item)]
            return self._change(item)
        except Unreadable as problem:
            return [base.unreadable(self.name, "unreadable", item.payload, item.key, str(problem), twin=True)]

    def _lifecycle(self, item: _Item) -> AccessEvent:
        name = base.clean(item.document["lifecycleEvent"], "lifecycleEvent")
        asked = LIFECYCLE.get(name)
        who = WITH_PUBLIC_URL if self._keeps else WITHOUT_PUBLIC_URL
        reason = f"{asked}; {who}" if asked else f"{name} is a lifecycle notification that asks for nothing"
        return base.ignored(self.name, f"lifecycle.{name}", item.payload, item.key, reason, twin=True)

    def _change(self, item: _Item) -> list[AccessEvent]:
        data = item.document.get("resourceData") or {}
        resource, object_id = _resource(item.document, data)
        change = base.clean(item.document.get("changeType"), "changeType").lower()
        type_ = f"{resource}.{change}"
        kind = self._kinds.get(type_, Kind.UNKNOWN)
        first = AccessEvent(self.name, kind, type_, item.payload, item.key, True, occurred_at=_occurred_at(data))
        members = data.get(MEMBERS)
        if resource == "Group" and members and change != "deleted":
            return self._members(item, replace(first, group_id=base.clean(object_id, "the id of the Group")), members)
        if kind not in FITTING.get(resource, ()):
            return [_ignored(first, f"{type_} is mapped to no kind that fits it: it changes nobody's access")]
        object_id = base.clean(object_id, f"the id of the {resource}")
        event = replace(first, subject=object_id) if resource == "User" else replace(first, group_id=object_id)
        return [self._if_it_can_be_asked(event)]

    def _members(self, item: _Item, group: AccessEvent, members: Sequence[Any]) -> list[AccessEvent]:
        """One event a member, each with its own entry only, so that a thousand do not store a thousand items.

        Where a member is said to be a group, its event names nobody: whom that is about a look-up tells.
        """
        events = [self._if_it_can_be_asked(_member(item, group, entry)) for entry in members]
        return list({event.key: event for event in events}.values())

    def _if_it_can_be_asked(self, event: AccessEvent) -> AccessEvent:
        """The event, ignored where it does not say what it means and there is no directory to tell it."""
        of_a_group = event.kind in OF_MEMBERS and event.subject is None
        if self._looks_up or not (of_a_group or base.needs_look_up(event.kind)):
            return event
        return _ignored(event, f"needs a look-up: configure sources.{self.name}.graph", event.kind)


def _ignored(event: AccessEvent, reason: str, kind: Kind = Kind.UNKNOWN) -> AccessEvent:
    return replace(event, kind=kind, state=EventState.IGNORED, reason=reason)


def _member(item: _Item, group: AccessEvent, entry: Any) -> AccessEvent:
    payload = base.encode(_with_members(item.document, [entry]))
    try:
        member_id = _member_id(entry)
    except Unreadable as problem:
        key = base.digest(item.key.encode(), base.encode(entry))
        return base.unreadable(group.source, group.type, payload, key, str(problem), twin=True)
    # a string in notifications, an object in delta answers
    removed = entry.get("@removed") is not None
    kind = Kind.GROUP_MEMBER_REMOVED if removed else Kind.GROUP_MEMBER_ADDED
    # of the item's key, not of the item: one of 4 MiB would be hashed once a member
    key = base.digest(item.key.encode(), base.text_bytes(member_id), kind.encode())
    subject = None if str(entry.get("@odata.type")).lower() == GROUP else member_id
    return replace(group, kind=kind, payload=payload, key=key, subject=subject)


def _without_secrets(given: Any) -> _Item:
    document = given
    if isinstance(given, dict):
        document = {key: value for key, value in given.items() if key not in SECRET_KEYS}
    payload = base.encode(document)
    return _Item(document, payload, base.digest(payload))


def _is_authentic(item: Any, valid: Sequence[str]) -> bool:
    state = item.get("clientState") if isinstance(item, dict) else None
    return isinstance(state, str) and base.is_secret(base.text_bytes(state), valid)


def _resource(document: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, str | None]:
    """("User", id), ("Group", id), or another resource's own name; spelling and slashes vary between deliveries."""
    path = (document.get("resource") or "").strip("/").split("/")
    object_id = data.get("id") or (path[-1] if len(path) > 1 else None)
    odata_type = data.get("@odata.type")
    if odata_type:
        name = base.clean(odata_type, "@odata.type").rsplit(".", 1)[-1].lstrip("#")
        return RESOURCES.get(name.lower(), name), object_id
    if len(path) == 2 and path[0].lower() in RESOURCES:
        return RESOURCES[path[0].lower()], object_id
    return base.clean("/".join(path[::2]), "resource"), object_id


def _with_members(document: Mapping[str, Any], members: Sequence[Any]) -> dict[str, Any]:
    return {**document, "resourceData": {**document["resourceData"], MEMBERS: members}}


def _member_id(entry: Any) -> str:
    if not isinstance(entry, dict):
        raise Unreadable(f"an entry of {MEMBERS} is not an object; wanted is one with the member's id")
    return base.clean(entry.get("id"), f"the id of a {MEMBERS} entry")


def _occurred_at(data: Mapping[str, Any]) -> Micros | None:
    """When it happened: eventTime, else the sequenceNumber, which is that time in .NET ticks; else None."""
    at = base.moment_or_none(data.get("eventTime"))
    ticks = data.get("sequenceNumber")
    if at is not None or not isinstance(ticks, int):
        return at
    at = (ticks - TICKS_AT_1970) // TICKS_A_MICROSECOND
    return at if base.EARLIEST <= at < base.LATEST else None

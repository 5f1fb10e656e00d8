"""Okta Event Hooks: https://developer.okta.com/docs/concepts/event-hooks/.

Okta signs nothing; a secret header is the whole proof. It sends several System Log events in one request, in any order,
at least once, and never again after a 4xx: hence each element stands for itself here, and a bad one is kept.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from relay.errors import Refused, Unreadable
from relay.model import AccessEvent, EventState, Kind, Micros
from relay.sources import base
from relay.sources.base import Handshake, Parsed

CHALLENGE = "X-Okta-Verification-Challenge"
LOCK = "user.account.lock"
IMPORTED_GROUPS = "app.user_management"
MOST_PAIRS = 1000
"""Persons times groups of one event; Okta names one of each. More is a payload made to hurt."""

# https://developer.okta.com/docs/reference/api/event-types/, those marked event-hook-eligible
KINDS: Mapping[str, Kind] = {
    "user.lifecycle.deactivate": Kind.ACCOUNT_DEACTIVATED,
    "user.lifecycle.suspend": Kind.ACCOUNT_SUSPENDED,
    "user.lifecycle.delete.initiated": Kind.ACCOUNT_DELETED,
    "user.lifecycle.activate": Kind.ACCOUNT_ACTIVATED,
    "user.lifecycle.unsuspend": Kind.ACCOUNT_ACTIVATED,
    "group.user_membership.remove": Kind.GROUP_MEMBER_REMOVED,
    "group.user_membership.add": Kind.GROUP_MEMBER_ADDED,
    "application.user_membership.remove": Kind.APP_ACCESS_REMOVED,
    "application.user_membership.add": Kind.APP_ACCESS_ADDED,
    "group.lifecycle.delete": Kind.GROUP_DELETED,
    "system.import.group.delete": Kind.GROUP_DELETED,
    "application.lifecycle.deactivate": Kind.APP_ACCESS_REMOVED,
    "application.lifecycle.delete": Kind.APP_ACCESS_REMOVED,
    "group.application_assignment.remove": Kind.APP_ACCESS_REMOVED,
}

# a User target of these is the administrator who did it, never the person who lost something
ABOUT_EVERYBODY = (
    "group.lifecycle.",
    "system.import.group.",
    "application.lifecycle.",
    "group.application_assignment.",
)

GROUP = "UserGroup"
APP = "AppInstance"
OBJECT_OF: Mapping[Kind, str] = {
    Kind.GROUP_MEMBER_REMOVED: GROUP,
    Kind.GROUP_MEMBER_ADDED: GROUP,
    Kind.GROUP_DELETED: GROUP,
    Kind.GROUP_CHANGED: GROUP,
    Kind.APP_ACCESS_REMOVED: APP,
    Kind.APP_ACCESS_ADDED: APP,
}

Element: TypeAlias = Mapping[str, Any]
Named: TypeAlias = tuple[str | None, str | None]
Pair: TypeAlias = tuple[Named, Named, Named]
NOBODY: Named = (None, None)


class Okta:
    """The hook of one Okta organization."""

    accepted = 204
    max_body = 32 * 1024 * 1024
    keeps_unreadable = True

    def __init__(self, name: str, config: Mapping[str, Any], secret: Callable[[], Sequence[str]]) -> None:
        self.name = name
        self._secret = secret
        self._header = config.get("header") or "Authorization"
        self._mapped = {type_: Kind(kind) for type_, kind in (config.get("kinds") or {}).items()}
        self._looks_up = config.get("api") is not None
        self.types = sorted({*KINDS, IMPORTED_GROUPS, *self._mapped})
        """The event types that may mean something, those of `kinds` in relay.yaml among them."""

    def handshake(self, method: str, headers: Mapping[str, str], args: Mapping[str, str]) -> Handshake | None:
        """Okta's one-time GET, which carries the secret header too and wants its challenge back in 3 s."""
        if method != "GET":
            return None
        if not self.authenticate(headers):
            raise Refused(401, f"the {self._header} header does not hold the secret of this hook")
        challenge = headers.get(CHALLENGE)
        if not challenge:
            raise Refused(400, f"this is where Okta verifies its hook: the {CHALLENGE} header is missing")
        return Handshake(200, json.dumps({"verification": challenge}), "application/json")

    def authenticate(self, headers: Mapping[str, str]) -> bool:
        """Whether the configured header holds a secret that is valid now; Okta sends it as it was typed in."""
        return base.is_secret(base.header_bytes(headers.get(self._header)), self._secret())

    def parse(self, body: bytes) -> Parsed:
        """Every element of `data.events[]`; missing, null and empty are the same (deliveries leave nulls out)."""
        try:
            return self._hook(base.load_json(body))
        except RecursionError:
            raise base.too_deep() from None

    def reparse(self, payload: bytes) -> Parsed:
        """A stored whole body, known by its `data`, or one element."""
        try:
            root = base.load_json(payload)
            if isinstance(root, dict) and "data" in root:
                return self._hook(root)
            return Parsed(self._element(root, None))
        except RecursionError:
            raise base.too_deep() from None

    def log_entry(self, element: Any) -> list[AccessEvent]:
        """The events of an element of a System Log answer: with the keys that a hook gives the same element."""
        try:
            return self._element(element, None)
        except RecursionError:
            reason = str(base.too_deep())
            return [base.unreadable(self.name, "unreadable", b"null", base.digest(b"too deep"), reason)]

    def _hook(self, root: Any) -> Parsed:
        base.check("okta-event-hook", root)
        sent = base.moment_or_none(root.get("eventTime"))
        elements = root["data"].get("events") or ()
        return Parsed([event for element in elements for event in self._element(element, sent)])

    def _element(self, element: Any, sent: Micros | None) -> list[AccessEvent]:
        payload = base.encode(element)
        try:
            base.check("okta-event", element)
            return self._events(element, payload, sent)
        except Unreadable as problem:
            given = element if isinstance(element, dict) else {}
            type_ = base.clean_or(given.get("eventType"), "unreadable")
            key = base.clean_or(given.get("uuid"), base.digest(payload))
            return [base.unreadable(self.name, type_, payload, key, str(problem))]

    def _events(self, element: Element, payload: bytes, sent: Micros | None) -> list[AccessEvent]:
        type_ = base.clean(element["eventType"], "eventType")
        key = base.clean_or_none(element.get("uuid"), "uuid") or base.digest(payload)
        published = element.get("published")
        at = sent if published is None else base.moment(published, "published")
        kind = self._kind(type_, element)
        idle = self._why_idle(type_, kind, element)
        if idle:
            return [base.ignored(self.name, type_, payload, key, idle, at=at)]
        pairs = _pairs(type_, kind, element)
        first = AccessEvent(self.name, kind, type_, payload, key, occurred_at=at)
        if base.needs_look_up(kind) and not self._looks_up:
            reason = f"needs a look-up: configure sources.{self.name}.api"
            first = replace(first, state=EventState.IGNORED, reason=reason)
        return [_about(first, pair, alone=len(pairs) == 1) for pair in pairs]

    def _kind(self, type_: str, element: Element) -> Kind:
        if type_ in self._mapped:
            return self._mapped[type_]
        if type_ == IMPORTED_GROUPS:
            return _imported_group_kind(element)
        return KINDS.get(type_, Kind.UNKNOWN)

    def _why_idle(self, type_: str, kind: Kind, element: Element) -> str | None:
        """Why this event takes nothing from anybody, None when it may."""
        if kind is Kind.UNKNOWN:
            legacy = base.clean_or(element.get("legacyEventType"), "") if type_ == IMPORTED_GROUPS else ""
            named = f"{type_} ({legacy})" if legacy else type_
            return f"{named} is mapped to no kind (sources.{self.name}.kinds can map {type_})"
        result = (element.get("outcome") or {}).get("result")
        if result in (None, "SUCCESS") or type_ == LOCK:  # a lock-out is by its nature a FAILURE, LOCKED_OUT
            return None
        return f"its outcome is {base.clean_or(result, 'unreadable')}: only SUCCESS changes anybody's access"


def _imported_group_kind(element: Element) -> Kind:
    """Members of groups that Okta imports (AD, LDAP): one event type for both directions and for failures too."""
    legacy = element.get("legacyEventType")
    if legacy:
        if legacy.endswith("delete_success"):
            return Kind.GROUP_MEMBER_REMOVED
        return Kind.GROUP_MEMBER_ADDED if legacy.endswith("insert_success") else Kind.UNKNOWN
    message = (element.get("displayMessage") or "").lower()
    if message.startswith("successfully deleted member"):
        return Kind.GROUP_MEMBER_REMOVED
    added = message.startswith(("successfully inserted member", "successfully added member"))
    return Kind.GROUP_MEMBER_ADDED if added else Kind.UNKNOWN


def _about(event: AccessEvent, pair: Pair, alone: bool) -> AccessEvent:
    person, group, app = pair
    return replace(
        event,
        key=event.key if alone else base.join_key(event.key, person[0], group[0], app[0]),
        subject=person[0],
        login=person[1],
        group_id=group[0],
        group_name=group[1],
        app_id=app[0],
        app_name=app[1],
    )


def _pairs(type_: str, kind: Kind, element: Element) -> list[Pair]:
    """(person, group, app) of every event that this element comes to. Raises Unreadable when one is missing.

    Targets are told by their type: Okta promises no order, and the AppUser beside a User is not the person.
    """
    everybody = type_.startswith(ABOUT_EVERYBODY) or kind in (Kind.GROUP_DELETED, Kind.GROUP_CHANGED)
    wanted = OBJECT_OF.get(kind)
    persons = [NOBODY] if everybody else _persons(type_, element)
    groups = _targets(element, GROUP, "displayName") if wanted == GROUP or (wanted and everybody) else []
    apps = _targets(element, APP, "displayName") if wanted == APP else []
    if wanted is None and everybody:
        raise Unreadable(f"{type_} is about everybody in a group or app, {kind} about one person")
    if wanted and not (groups if wanted == GROUP else apps):
        raise Unreadable(f"{type_} names no {'group' if wanted == GROUP else 'app'}: no target of type {wanted}")
    if len(persons) * max(1, len(groups)) * max(1, len(apps)) > MOST_PAIRS:
        raise Unreadable(f"{type_} names more than {MOST_PAIRS} pairs of person and group or app")
    return list(itertools.product(persons, groups or [NOBODY], apps or [NOBODY]))


def _persons(type_: str, element: Element) -> list[Named]:
    persons = _targets(element, "User", "alternateId")
    actor = element.get("actor")
    if not persons and type_ == LOCK and actor and actor.get("type") == "User":
        persons = [_named(actor, "actor", "alternateId")]
    if not persons:
        raise Unreadable(f"{type_} names no person: no target of type User")
    return persons


def _targets(element: Element, target_type: str, label: str) -> list[Named]:
    """(id, label) of the targets of one type, each id once."""
    targets = [target for target in element.get("target") or () if target.get("type") == target_type]
    named = [_named(target, f"the {target_type} target's", label) for target in targets]
    return list({target_id: (target_id, name) for target_id, name in named}.values())


def _named(thing: Mapping[str, Any], owner: str, label: str) -> Named:
    name = base.clean_or_none(thing.get(label), f"{owner} {label}")
    # Okta prints "unknown" for a missing name; a deleted person's login becomes <id>@deleted.invalid
    nameless = name is None or name.lower() == "unknown" or name.lower().endswith("@deleted.invalid")
    return base.clean(thing.get("id"), f"{owner} id"), None if nameless else name

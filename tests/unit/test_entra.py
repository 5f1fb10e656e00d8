"""Which Graph notification means what, and what is read out of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.model import AccessEvent, EventState, Kind, from_iso
from relay.sources import build
from relay.sources.base import Parsed
from tests.payloads import CLIENT_STATE, entra_body, entra_item, entra_lifecycle, entra_members, to_bytes

ADA = "0b6a4a0e-52b5-4c3f-8a3c-111111111111"
BOB = "0b6a4a0e-52b5-4c3f-8a3c-222222222222"
TEAM = "9d1c2f7a-aaaa-4c3f-8a3c-333333333333"
GRAPH = {"graph": {"tenant": "acme", "client_id": "x"}}


def parse(*items: Any, config: dict[str, Any] | None = None, **envelope: Any) -> Parsed:
    source = build("entra", {"type": "entra", **(config or {})}, lambda: [CLIENT_STATE])
    return source.parse(to_bytes(entra_body(items, **envelope)))


def one(item: Any, **more: Any) -> AccessEvent:
    (event,) = parse(item, **more).events
    return event


def without(item: dict[str, Any], *path: str) -> dict[str, Any]:
    """The item without the member at the path."""
    copy: dict[str, Any] = json.loads(json.dumps(item))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return copy


# the table of kinds


@pytest.mark.parametrize(
    ("resource", "change", "kind", "field"),
    [
        ("User", "deleted", Kind.ACCOUNT_DELETED, "subject"),
        ("Group", "deleted", Kind.GROUP_DELETED, "group_id"),
    ],
)
def test_losses_that_say_enough(resource: str, change: str, kind: Kind, field: str) -> None:
    event = one(entra_item(resource, change, "id-1"))
    assert (event.source, event.kind, event.type) == ("entra", kind, f"{resource}.{change}")
    assert (event.state, event.reason, event.twin) == (EventState.RECEIVED, None, True)
    assert {name for name in ("subject", "group_id", "login", "group_name", "app_id") if getattr(event, name)} == {
        field
    }
    assert getattr(event, field) == "id-1"


@pytest.mark.parametrize(
    ("item", "kind", "ids"),
    [
        (entra_item("User", "updated", ADA), Kind.ACCOUNT_CHANGED, (ADA, None)),
        (entra_item("User", "created", ADA), Kind.ACCOUNT_CHANGED, (ADA, None)),
        (entra_item("Group", "updated", TEAM), Kind.GROUP_CHANGED, (None, TEAM)),
        (entra_item("Group", "created", TEAM), Kind.GROUP_CHANGED, (None, TEAM)),
        (entra_members(TEAM), Kind.GROUP_CHANGED, (None, TEAM)),
        (entra_item("Group", "updated", TEAM, data={"members@delta": None}), Kind.GROUP_CHANGED, (None, TEAM)),
    ],
)
def test_changes_that_only_a_look_up_tells(
    item: dict[str, Any], kind: Kind, ids: tuple[str | None, str | None]
) -> None:
    blind, seeing = one(item), one(item, config=GRAPH)
    assert (blind.kind, blind.state) == (kind, EventState.IGNORED)
    assert blind.reason == "needs a look-up: configure sources.entra.graph"
    assert (seeing.kind, seeing.state, seeing.reason) == (kind, EventState.RECEIVED, None)
    assert (seeing.subject, seeing.group_id) == (blind.subject, blind.group_id) == ids


def test_members_are_one_event_each() -> None:
    events = parse(entra_members(TEAM, removed=[ADA], added=[BOB])).events
    assert [(event.kind, event.subject, event.group_id, event.type) for event in events] == [
        (Kind.GROUP_MEMBER_REMOVED, ADA, TEAM, "Group.updated"),
        (Kind.GROUP_MEMBER_ADDED, BOB, TEAM, "Group.updated"),
    ]
    assert all(event.twin and event.state is EventState.RECEIVED for event in events)
    assert len({event.key for event in events}) == 2


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("deleted", Kind.GROUP_MEMBER_REMOVED),
        ("", Kind.GROUP_MEMBER_REMOVED),
        ({"reason": "deleted"}, Kind.GROUP_MEMBER_REMOVED),
        ({}, Kind.GROUP_MEMBER_REMOVED),
        (None, Kind.GROUP_MEMBER_ADDED),
    ],
)
def test_removed_is_a_text_or_an_object(mark: Any, kind: Kind) -> None:
    entry = {"id": ADA, "@removed": mark}
    assert one(entra_item("Group", "updated", TEAM, data={"members@delta": [entry]})).kind is kind


@pytest.mark.parametrize(
    ("entry", "kind"),
    [({}, Kind.GROUP_MEMBER_ADDED), ({"@removed": "deleted"}, Kind.GROUP_MEMBER_REMOVED)],
)
def test_a_member_that_is_said_to_be_a_group_is_nobody(entry: dict[str, str], kind: Kind) -> None:
    inner = {"@odata.type": "#microsoft.graph.group", "id": BOB, **entry}
    item = entra_item("Group", "updated", TEAM, data={"members@delta": [inner, {"id": ADA}]})
    group, ada = parse(item, config=GRAPH).events
    assert (group.kind, group.subject, group.group_id, group.state) == (kind, None, TEAM, EventState.RECEIVED)
    assert json.loads(group.payload)["resourceData"]["members@delta"][0]["id"] == BOB
    assert ada.subject == ADA
    alone, _ = parse(item).events
    assert (alone.kind, alone.state) == (kind, EventState.IGNORED)
    assert alone.reason == "needs a look-up: configure sources.entra.graph"


def test_added_and_removed_at_once_are_both() -> None:
    kinds = [event.kind for event in parse(entra_members(TEAM, removed=[ADA], added=[ADA])).events]
    assert kinds == [Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_MEMBER_ADDED]


def test_the_same_entry_twice_is_once() -> None:
    assert len(parse(entra_members(TEAM, removed=[ADA, ADA])).events) == 1


def test_each_event_of_a_large_group_keeps_its_own_entry_only() -> None:
    events = parse(entra_members(TEAM, removed=[f"member-{number}" for number in range(1000)])).events
    assert len(events) == 1000
    assert max(len(event.payload) for event in events) < 700
    (again,) = reparse(events[7].payload)
    assert (again.subject, again.kind) == ("member-7", Kind.GROUP_MEMBER_REMOVED)


def reparse(payload: bytes) -> list[AccessEvent]:
    return build("entra", {"type": "entra"}, lambda: []).reparse(payload).events


@pytest.mark.parametrize("entry", [None, 5, "id", [], {}, {"id": None}, {"id": 5}, {"id": ""}, {"id": "a\0"}], ids=str)
def test_a_bad_member_stands_alone(entry: Any) -> None:
    data = {"members@delta": [{"id": ADA, "@removed": "deleted"}, entry, {"id": BOB}]}
    first, bad, last = parse(entra_item("Group", "updated", TEAM, data=data)).events
    assert (first.subject, last.subject) == (ADA, BOB)
    assert (bad.state, bad.kind, bad.subject, bad.twin) == (EventState.UNREADABLE, Kind.UNKNOWN, None, True)
    assert "members@delta" in (bad.reason or "")
    assert [event.state for event in reparse(bad.payload)] == [EventState.UNREADABLE]


def test_a_deleted_group_that_lists_members_is_deleted() -> None:
    item = entra_item("Group", "deleted", TEAM, data={"members@delta": [{"id": ADA}]})
    assert one(item).kind is Kind.GROUP_DELETED


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (entra_item("Message", "created", "m"), "Message.created"),
        (entra_item("User", "moved", ADA), "User.moved"),
        (
            without(entra_item("User", "updated", ADA, resource="users/u@t/messages/m"), "resourceData", "@odata.type"),
            "users/messages.updated",
        ),
        (
            without(entra_item("User", "updated", ADA, resource="chats/1"), "resourceData", "@odata.type"),
            "chats.updated",
        ),
    ],
)
def test_everything_else_is_ignored_by_name(item: dict[str, Any], name: str) -> None:
    event = one(item, config=GRAPH)
    assert (event.kind, event.state, event.type) == (Kind.UNKNOWN, EventState.IGNORED, name)
    assert name in (event.reason or "")


def test_kinds_changes_rows_and_only_sensibly() -> None:
    config = {
        "kinds": {"User.updated": "account.suspended", "Group.updated": "unknown", "Message.created": "account.deleted"}
    }
    assert one(entra_item("User", "updated", ADA), config=config).kind is Kind.ACCOUNT_SUSPENDED
    assert one(entra_item("Group", "updated", TEAM), config=config).state is EventState.IGNORED
    assert one(entra_members(TEAM, removed=[ADA]), config=config).kind is Kind.GROUP_MEMBER_REMOVED
    mail = one(entra_item("Message", "created", "m"), config=config)
    assert (mail.kind, mail.state, mail.subject) == (Kind.UNKNOWN, EventState.IGNORED, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reauthorizationRequired", "renewed"),
        ("subscriptionRemoved", "made anew"),
        ("missed", "has to be found"),
        ("somethingNew", "somethingNew"),
    ],
)
def test_lifecycle_items_are_explained(name: str, words: str) -> None:
    event = one(entra_lifecycle(name))
    assert (event.kind, event.type, event.state) == (Kind.UNKNOWN, f"lifecycle.{name}", EventState.IGNORED)
    assert words in (event.reason or "")
    assert CLIENT_STATE.encode() not in event.payload
    assert json.loads(event.payload)["subscriptionId"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "only for a source with graph and public_url"),
        ({"graph": {}, "public_url": "https://relay.acme.example.com"}, "the relay does that, since"),
    ],
)
def test_lifecycle_items_say_who_obeys(config: dict[str, Any], words: str) -> None:
    assert words in (one(entra_lifecycle("reauthorizationRequired"), config=config).reason or "")


# whose resource


@pytest.mark.parametrize(
    "odata_type", ["#Microsoft.Graph.User", "#microsoft.graph.user", "MICROSOFT.GRAPH.USER", None, "missing"]
)
@pytest.mark.parametrize("resource", ["Users/" + ADA, "users/" + ADA, "/Users/" + ADA])
@pytest.mark.parametrize("given_id", [ADA, None, "missing"])
def test_spelling_does_not_matter(odata_type: str | None, resource: str, given_id: str | None) -> None:
    item = entra_item("User", "deleted", ADA, resource=resource)
    item["resourceData"] |= {"@odata.type": odata_type, "id": given_id}
    item["resourceData"] = {key: value for key, value in item["resourceData"].items() if value != "missing"}
    event = one(item)
    assert (event.kind, event.type, event.subject) == (Kind.ACCOUNT_DELETED, "User.deleted", ADA)


@pytest.mark.parametrize("data", [None, {}])
def test_a_resource_alone_is_enough(data: Any) -> None:
    event = one(entra_item("Group", "deleted", TEAM, resourceData=data))
    assert (event.kind, event.group_id, event.occurred_at) == (Kind.GROUP_DELETED, TEAM, None)


BAD_ITEMS = [
    entra_item("User", "deleted", ADA, changeType=5),
    entra_item("User", "deleted", ADA, changeType=None),
    entra_item("User", "deleted", ADA, changeType="a\0"),
    entra_item("User", "deleted", ADA, resource=["x"]),
    entra_item("User", "deleted", ADA, resourceData="x"),
    entra_item("User", "deleted", ADA, data={"id": 5}),
    entra_item("User", "deleted", ADA, data={"id": "\ud800"}),
    entra_item("User", "deleted", ADA, data={"@odata.type": 5}),
    entra_item("User", "deleted", ADA, data={"@odata.type": "a\0.User"}),
    entra_item("Group", "updated", TEAM, data={"members@delta": {}}),
    entra_item("Group", "updated", "x" * 801, data={"members@delta": [{"id": ADA}]}),
    entra_item("User", "deleted", ADA, data={"id": None}, resource="Users"),
    without(entra_item("User", "deleted", ADA, resourceData=None), "resource"),
    entra_lifecycle("a\0"),
    entra_lifecycle(""),
    {"clientState": CLIENT_STATE},
]


@pytest.mark.parametrize("item", BAD_ITEMS, ids=str)
def test_an_authentic_item_that_is_not_understood_is_kept(item: dict[str, Any]) -> None:
    bad, good = parse(item, entra_item("User", "deleted", ADA)).events
    assert good.state is EventState.RECEIVED
    assert (bad.state, bad.kind, bad.twin) == (EventState.UNREADABLE, Kind.UNKNOWN, True)
    assert bad.reason
    assert b"clientState" not in bad.payload
    assert parse(item).events[0].key == bad.key


# who speaks


@pytest.mark.parametrize(
    "item", [None, 5, "x", [], [CLIENT_STATE], {}, {"clientState": None}, {"clientState": [CLIENT_STATE]}], ids=str
)
def test_what_is_not_authentic_is_counted_and_dropped(item: Any) -> None:
    parsed = parse(item, entra_item("User", "deleted", ADA), entra_item("User", "deleted", ADA, client_state="\ud800"))
    assert parsed.rejected == 2
    assert [event.subject for event in parsed.events] == [ADA]


def test_secrets_are_not_stored() -> None:
    parsed = parse(
        entra_item("User", "deleted", ADA, validationTokens=["eyJ"]),
        entra_members(TEAM, removed=[ADA]),
        entra_lifecycle("missed"),
        validationTokens=["eyJ"],
    )
    assert len(parsed.events) == 3
    for event in parsed.events:
        assert not {"clientState", "validationTokens"} & set(json.loads(event.payload))
        assert b"eyJ" not in event.payload


# twins


def test_a_key_is_made_of_the_item_without_its_secret() -> None:
    item = entra_members(TEAM, removed=[ADA])
    rotated = build("entra", {"type": "entra"}, lambda: ["new-state"])
    body = to_bytes(entra_body([item | {"clientState": "new-state"}]))
    assert rotated.parse(body).events[0].key == one(item).key
    assert (one(item).key or "").startswith("sha256:")
    later = entra_members(TEAM, removed=[ADA], subscriptionExpirationDateTime="2026-04-01T00:00:00Z")
    assert one(later).key != one(item).key


# time

TICKS = 639_080_406_001_234_567  # 2026-03-02T09:30:00.1234567Z


@pytest.mark.parametrize(
    ("data", "when"),
    [
        ({"eventTime": "2026-03-02T09:30:00.1234567Z"}, "2026-03-02T09:30:00.123456Z"),
        ({"eventTime": "2026-03-02T01:30:00-08:00", "sequenceNumber": 5}, "2026-03-02T09:30:00Z"),
        ({"sequenceNumber": TICKS}, "2026-03-02T09:30:00.123456Z"),
        ({"eventTime": None, "sequenceNumber": TICKS}, "2026-03-02T09:30:00.123456Z"),
        ({"eventTime": "soon", "sequenceNumber": TICKS}, "2026-03-02T09:30:00.123456Z"),
        ({}, None),
        ({"sequenceNumber": 0}, None),
        ({"sequenceNumber": 7}, None),
        ({"sequenceNumber": True}, None),
        ({"sequenceNumber": str(TICKS)}, None),
        ({"sequenceNumber": float(TICKS)}, None),
        ({"sequenceNumber": 630_822_815_999_999_999}, None),
        ({"sequenceNumber": 630_822_816_000_000_000}, "2000-01-01T00:00:00Z"),
        ({"sequenceNumber": 637_628_640_120_385_565}, "2021-07-26T02:40:12.038556Z"),
        ({"sequenceNumber": 10**30}, None),
        ({"eventTime": "9999-12-31T23:59:59Z"}, None),
    ],
    ids=str,
)
def test_when_it_happened(data: dict[str, Any], when: str | None) -> None:
    event = one(entra_item("User", "deleted", ADA, data=data))
    assert event.occurred_at == (None if when is None else from_iso(when))
    (member,) = parse(entra_item("Group", "updated", TEAM, data=data | {"members@delta": [{"id": ADA}]})).events
    assert member.occurred_at == event.occurred_at

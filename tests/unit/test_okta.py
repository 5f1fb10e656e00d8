"""Which Okta event means what, and what is read out of it."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import Unreadable
from relay.model import AccessEvent, EventState, Kind, from_iso
from relay.sources import build
from tests.payloads import (
    LEGACY_DELETE,
    LEGACY_INSERT,
    okta_app,
    okta_app_user,
    okta_event,
    okta_group,
    okta_hook,
    okta_user,
    to_bytes,
)

ADA, ENGINEERING, VELT = okta_user(), okta_group(), okta_app()
ADMIN = okta_user("00uAdmin", "admin@acme.example")
PUBLISHED = from_iso("2026-03-02T09:30:00.250Z")


def parse(*elements: Any, config: dict[str, Any] | None = None, **envelope: Any) -> list[AccessEvent]:
    source = build("okta", {"type": "okta", **(config or {})}, lambda: ["s"])
    parsed = source.parse(to_bytes(okta_hook(elements, **envelope)))
    assert parsed.rejected == 0
    return parsed.events


def one(element: Any, **more: Any) -> AccessEvent:
    (event,) = parse(element, **more)
    return event


ACCOUNT = {"subject": "00uAda", "login": "ada@acme.example"}
GROUP = {"group_id": "00gEng", "group_name": "Engineering"}
APP = {"app_id": "0oaVelt", "app_name": "Velt"}
FIELDS = ("subject", "login", "group_id", "group_name", "app_id", "app_name")

TABLE = [
    ("user.lifecycle.deactivate", [ADA], Kind.ACCOUNT_DEACTIVATED, ACCOUNT),
    ("user.lifecycle.suspend", [ADA], Kind.ACCOUNT_SUSPENDED, ACCOUNT),
    ("user.lifecycle.delete.initiated", [ADA], Kind.ACCOUNT_DELETED, ACCOUNT),
    ("user.lifecycle.activate", [ADA], Kind.ACCOUNT_ACTIVATED, ACCOUNT),
    ("user.lifecycle.unsuspend", [ADA], Kind.ACCOUNT_ACTIVATED, ACCOUNT),
    ("group.user_membership.remove", [ADA, ENGINEERING], Kind.GROUP_MEMBER_REMOVED, ACCOUNT | GROUP),
    ("group.user_membership.add", [ENGINEERING, ADA], Kind.GROUP_MEMBER_ADDED, ACCOUNT | GROUP),
    ("application.user_membership.remove", [okta_app_user(), VELT, ADA], Kind.APP_ACCESS_REMOVED, ACCOUNT | APP),
    ("application.user_membership.add", [ADA, okta_app_user(), VELT], Kind.APP_ACCESS_ADDED, ACCOUNT | APP),
    ("group.lifecycle.delete", [ADMIN, ENGINEERING], Kind.GROUP_DELETED, GROUP),
    ("system.import.group.delete", [ENGINEERING], Kind.GROUP_DELETED, GROUP),
    ("application.lifecycle.deactivate", [VELT, ADMIN], Kind.APP_ACCESS_REMOVED, APP),
    ("application.lifecycle.delete", [VELT], Kind.APP_ACCESS_REMOVED, APP),
    ("group.application_assignment.remove", [ADMIN, VELT, ENGINEERING], Kind.APP_ACCESS_REMOVED, APP | GROUP),
]


@pytest.mark.parametrize("printed_nulls", [False, True], ids=["hook", "system log"])
@pytest.mark.parametrize(("event_type", "targets", "kind", "fields"), TABLE, ids=[row[0] for row in TABLE])
def test_the_table_of_kinds(
    event_type: str, targets: list[dict[str, Any]], kind: Kind, fields: dict[str, str], printed_nulls: bool
) -> None:
    element = okta_event(event_type, *targets, event_id="e-1", printed_nulls=printed_nulls)
    event = one(element)
    assert (event.kind, event.type, event.state, event.reason) == (kind, event_type, EventState.RECEIVED, None)
    assert (event.key, event.twin, event.occurred_at) == ("e-1", False, PUBLISHED)
    assert {name: getattr(event, name) for name in FIELDS} == dict.fromkeys(FIELDS) | fields


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"legacyEventType": LEGACY_DELETE}, Kind.GROUP_MEMBER_REMOVED),
        ({"legacyEventType": LEGACY_INSERT}, Kind.GROUP_MEMBER_ADDED),
        ({"displayMessage": "Successfully deleted member of an app group"}, Kind.GROUP_MEMBER_REMOVED),
        ({"displayMessage": "Successfully inserted member of an app group"}, Kind.GROUP_MEMBER_ADDED),
        ({"legacyEventType": LEGACY_INSERT, "displayMessage": "Successfully deleted member"}, Kind.GROUP_MEMBER_ADDED),
    ],
)
def test_imported_groups_tell_the_direction_elsewhere(more: dict[str, str], kind: Kind) -> None:
    event = one(okta_event("app.user_management", ADA, ENGINEERING, VELT, **more))
    assert (event.kind, event.subject, event.group_name) == (kind, "00uAda", "Engineering")


@pytest.mark.parametrize(
    "more",
    [
        {"legacyEventType": LEGACY_DELETE.replace("success", "failure")},
        {"legacyEventType": "other", "displayMessage": "Successfully deleted member of an app group"},
        {"displayMessage": "Unsuccessfully deleted member of an app group"},
        {"displayMessage": None},
    ],
)
def test_other_news_of_imported_groups_is_ignored(more: dict[str, Any]) -> None:
    event = one(okta_event("app.user_management", ADA, ENGINEERING, **more))
    assert (event.kind, event.state) == (Kind.UNKNOWN, EventState.IGNORED)
    assert str(more.get("legacyEventType") or "app.user_management") in (event.reason or "")


@pytest.mark.parametrize(
    "event_type",
    [
        "user.account.lock",
        "user.session.start",
        "user.session.end",
        "user.account.privilege.revoke",
        "user.lifecycle.create",
        "user.lifecycle.reactivate",
        "application.lifecycle.create",
        "no.such.type",
    ],
)
def test_every_other_type_is_ignored_by_name(event_type: str) -> None:
    event = one(okta_event(event_type, ADA))
    assert (event.kind, event.type, event.state) == (Kind.UNKNOWN, event_type, EventState.IGNORED)
    assert event.reason == f"{event_type} is mapped to no kind (sources.okta.kinds can map {event_type})"


# outcome


@pytest.mark.parametrize("outcome", [None, {}, {"result": None}, {"result": "SUCCESS", "reason": "x"}])
def test_success_and_silence_count(outcome: Any) -> None:
    event = one(okta_event("user.lifecycle.deactivate", ADA, outcome=outcome))
    assert (event.kind, event.state) == (Kind.ACCOUNT_DEACTIVATED, EventState.RECEIVED)


@pytest.mark.parametrize("result", ["FAILURE", "SKIPPED", "DENY", "SCHEDULED", "success", ""])
def test_any_other_outcome_is_ignored_and_can_plan_nothing(result: str) -> None:
    event = one(okta_event("user.lifecycle.deactivate", ADA, outcome={"result": result}))
    assert (event.kind, event.state, event.occurred_at) == (Kind.UNKNOWN, EventState.IGNORED, PUBLISHED)
    assert event.reason == f"its outcome is {result or 'unreadable'}: only SUCCESS changes anybody's access"


# kinds:

LOCKED = {"result": "FAILURE", "reason": "LOCKED_OUT"}
MAP_LOCK = {"kinds": {"user.account.lock": "account.suspended"}}


def test_a_mapped_lock_out_counts_although_its_outcome_is_failure() -> None:
    event = one(okta_event("user.account.lock", ADA, outcome=LOCKED), config=MAP_LOCK)
    assert (event.kind, event.subject, event.state) == (Kind.ACCOUNT_SUSPENDED, "00uAda", EventState.RECEIVED)


@pytest.mark.parametrize("target", [None, [], "missing"])
def test_a_lock_out_without_target_is_about_its_actor(target: Any) -> None:
    element = okta_event("user.account.lock", outcome=LOCKED, actor=okta_user("00uBob", "bob@acme.example"))
    element["target"] = target
    if target == "missing":
        del element["target"]
    event = one(element, config=MAP_LOCK)
    assert (event.subject, event.login) == ("00uBob", "bob@acme.example")


@pytest.mark.parametrize("actor", [None, {"id": "sys", "type": "SystemPrincipal"}])
def test_a_lock_out_of_nobody_is_unreadable(actor: Any) -> None:
    event = one(okta_event("user.account.lock", actor=actor), config=MAP_LOCK)
    assert event.state is EventState.UNREADABLE
    assert event.reason == "user.account.lock names no person: no target of type User"


def test_kinds_adds_and_changes_rows() -> None:
    kinds = {
        "user.lifecycle.suspend": "unknown",
        "group.privilege.revoke": "group.member_removed",
        "app.user_management": "group.member_removed",
    }
    events = parse(
        okta_event("user.lifecycle.suspend", ADA),
        okta_event("group.privilege.revoke", ADA, ENGINEERING),
        okta_event("app.user_management", ADA, ENGINEERING),
        okta_event("user.lifecycle.deactivate", ADA),
        config={"kinds": kinds},
    )
    removed = Kind.GROUP_MEMBER_REMOVED
    assert [event.kind for event in events] == [Kind.UNKNOWN, removed, removed, Kind.ACCOUNT_DEACTIVATED]
    assert events[0].state is EventState.IGNORED


@pytest.mark.parametrize(
    ("event_type", "kind", "subject", "group_id"),
    [
        ("user.account.update_profile", Kind.ACCOUNT_CHANGED, "00uAda", None),
        ("group.profile.update", Kind.GROUP_CHANGED, None, "00gEng"),
    ],
)
def test_what_only_a_look_up_tells_needs_the_api(
    event_type: str, kind: Kind, subject: str | None, group_id: str | None
) -> None:
    element = okta_event(event_type, ADA, ENGINEERING)
    kinds = {"kinds": {event_type: str(kind)}}
    without, with_api = one(element, config=kinds), one(element, config=kinds | {"api": {"url": "x"}})
    assert (without.kind, without.state) == (kind, EventState.IGNORED)
    assert without.reason == "needs a look-up: configure sources.okta.api"
    assert (with_api.kind, with_api.state, with_api.reason) == (kind, EventState.RECEIVED, None)
    assert (with_api.subject, with_api.group_id) == (subject, group_id)


def test_a_type_about_everybody_cannot_mean_one_account() -> None:
    event = one(
        okta_event("application.lifecycle.update", VELT, ADMIN),
        config={"kinds": {"application.lifecycle.update": "account.deactivated"}},
    )
    assert (event.state, event.subject) == (EventState.UNREADABLE, None)
    assert (
        event.reason
        == "application.lifecycle.update is about everybody in a group or app, account.deactivated about one person"
    )


# targets


@pytest.mark.parametrize(
    ("event_type", "targets", "words"),
    [
        ("user.lifecycle.deactivate", [], "names no person"),
        ("user.lifecycle.deactivate", [okta_app_user()], "names no person"),
        ("group.user_membership.remove", [ENGINEERING], "names no person"),
        ("group.user_membership.remove", [ADA], "names no group"),
        ("application.user_membership.remove", [ADA, okta_app_user()], "names no app"),
        ("group.lifecycle.delete", [ADMIN], "names no group"),
        ("application.lifecycle.delete", [ADMIN], "names no app"),
        ("group.application_assignment.remove", [ENGINEERING], "names no app"),
    ],
)
def test_an_event_that_does_not_say_whom_is_unreadable(
    event_type: str, targets: list[dict[str, Any]], words: str
) -> None:
    event = one(okta_event(event_type, *targets, event_id="e-1"))
    assert (event.kind, event.state, event.type, event.key) == (
        Kind.UNKNOWN,
        EventState.UNREADABLE,
        event_type,
        "e-1",
    )
    assert f"{event_type} {words}" in (event.reason or "")


def test_several_persons_and_groups_are_one_event_a_pair() -> None:
    targets = [ADA, okta_user("00uBob", "bob@acme.example"), ENGINEERING, okta_group("00gOps", "Ops"), ADA]
    events = parse(okta_event("group.user_membership.remove", *targets, event_id="e-1"))
    assert {(event.key, event.subject, event.group_id) for event in events} == {
        (f"e-1/{person}/{group}", person, group) for person in ("00uAda", "00uBob") for group in ("00gEng", "00gOps")
    }
    assert len(events) == 4


def test_an_admin_is_no_reason_for_a_second_event() -> None:
    targets = [ADMIN, okta_group("00gOps", "Ops"), ENGINEERING]
    events = parse(okta_event("group.lifecycle.delete", *targets, event_id="e-1"))
    assert [(event.key, event.subject) for event in events] == [("e-1/00gOps", None), ("e-1/00gEng", None)]


def test_a_key_of_long_ids_stays_short() -> None:
    targets = [okta_user("u" * 800), okta_user("v" * 800), ENGINEERING]
    keys = [event.key or "" for event in parse(okta_event("group.user_membership.remove", *targets))]
    assert len(set(keys)) == 2
    assert all(key.startswith("sha256:") and len(key) < 100 for key in keys)


def test_a_payload_made_to_hurt_is_one_unreadable_event() -> None:
    persons = [okta_user(f"u{number}") for number in range(40)]
    groups = [okta_group(f"g{number}") for number in range(26)]
    assert one(okta_event("group.user_membership.remove", *persons, *groups)).state is EventState.UNREADABLE
    assert len(parse(okta_event("group.user_membership.remove", *persons, *groups[:25]))) == 1000


@pytest.mark.parametrize("login", [None, "", "unknown", "Unknown", "00uAda@deleted.invalid", "00uAda@DELETED.invalid"])
def test_a_login_that_is_none(login: str | None) -> None:
    event = one(okta_event("user.lifecycle.deactivate", okta_user(login=login)))
    assert (event.subject, event.login, event.state) == ("00uAda", None, EventState.RECEIVED)


def test_a_target_without_login_or_name() -> None:
    event = one(
        okta_event("group.user_membership.remove", {"id": "u", "type": "User"}, {"id": "g", "type": "UserGroup"})
    )
    assert (event.subject, event.login, event.group_id, event.group_name) == ("u", None, "g", None)


def test_an_unknown_name_is_none() -> None:
    assert one(okta_event("application.lifecycle.delete", okta_app(name="unknown"))).app_name is None


# bad elements

PERSON_TYPE = "user.lifecycle.deactivate"


@pytest.mark.parametrize(
    "element",
    [
        None,
        7,
        "user.lifecycle.deactivate",
        [],
        {},
        {"uuid": "e"},
        okta_event(PERSON_TYPE, ADA, eventType=None),
        okta_event(PERSON_TYPE, ADA, eventType=""),
        okta_event(PERSON_TYPE, ADA, eventType=["x"]),
        okta_event(PERSON_TYPE, ADA, eventType="a\0"),
        okta_event(PERSON_TYPE, ADA, eventType="\udfff"),
        okta_event(PERSON_TYPE, ADA, uuid=5),
        okta_event(PERSON_TYPE, ADA, uuid="\0"),
        okta_event(PERSON_TYPE, ADA, uuid="x" * 801),
        okta_event(PERSON_TYPE, ADA, target={}),
        okta_event(PERSON_TYPE, ADA, target="00uAda"),
        okta_event(PERSON_TYPE, ADA, target=[ADA, None]),
        okta_event(PERSON_TYPE, ADA, target=["00uAda"]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"id": 5}]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"id": None}]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"type": 5}]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"alternateId": 5}]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"alternateId": "a\0"}]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"alternateId": "\ud800@acme.example"}]),
        okta_event(PERSON_TYPE, ADA, target=[ADA | {"alternateId": "x" * 801}]),
        okta_event(PERSON_TYPE, ADA, outcome="SUCCESS"),
        okta_event(PERSON_TYPE, ADA, outcome={"result": True}),
        okta_event(PERSON_TYPE, ADA, actor="admin"),
        okta_event(PERSON_TYPE, ADA, published="yesterday"),
        okta_event(PERSON_TYPE, ADA, published=1_767_000_000),
        okta_event(PERSON_TYPE, ADA, published=""),
        okta_event(PERSON_TYPE, ADA, published="9999-12-31T23:59:59.999999Z"),
        okta_event(PERSON_TYPE, ADA, published="1999-12-31T23:59:59Z"),
        okta_event("group.user_membership.remove", ADA, okta_group(name="\0")),
    ],
)
def test_a_bad_element_is_kept_on_its_own(element: Any) -> None:
    good = okta_event("user.lifecycle.suspend", ADA)
    before, bad, after = parse(good, element, good)
    assert before == after
    assert before.state is EventState.RECEIVED
    assert (bad.kind, bad.state, bad.subject) == (Kind.UNKNOWN, EventState.UNREADABLE, None)
    assert bad.reason
    assert bad.key
    assert parse(element)[0].key == bad.key


def test_a_bad_element_goes_by_its_uuid_and_type_where_they_are_sane() -> None:
    bad = one(okta_event(PERSON_TYPE, event_id="e-1"))
    worse = one({"uuid": "\0", "eventType": 7})
    assert (bad.key, bad.type) == ("e-1", PERSON_TYPE)
    assert (worse.key or "").startswith("sha256:")
    assert worse.type == "unreadable"


def test_only_targets_that_are_used_can_spoil_an_element() -> None:
    event = one(okta_event("user.lifecycle.deactivate", ADA, okta_group("\0"), okta_app_user("x" * 900)))
    assert event.state is EventState.RECEIVED


def test_an_event_without_uuid_goes_by_its_digest() -> None:
    nameless = okta_event(PERSON_TYPE, ADA, uuid=None)
    other = okta_event(PERSON_TYPE, okta_user("00uBob"), uuid="")
    first, again, another = parse(nameless, nameless, other)
    assert (first.key or "").startswith("sha256:")
    assert first.key == again.key != another.key
    assert not first.twin


# time


@pytest.mark.parametrize("published", [None, "missing"])
def test_the_envelope_tells_the_time_that_the_element_does_not(published: str | None) -> None:
    element = okta_event(PERSON_TYPE, ADA, published=published)
    if published == "missing":
        del element["published"]
    assert one(element).occurred_at == from_iso("2026-03-02T09:30:10.500Z")
    assert one(element, eventTime="2026-03-02T09:30:10.500123Z").occurred_at == from_iso("2026-03-02T09:30:10.500123Z")
    for nonsense in (None, 5, "soon", "0001-01-01"):
        assert one(element, eventTime=nonsense).occurred_at is None


def test_the_envelope_needs_its_data() -> None:
    source = build("okta", {"type": "okta"}, lambda: ["s"])
    for root in ({}, {"data": None}, {"data": []}, {"eventType": "user.lifecycle.deactivate"}):
        with pytest.raises(Unreadable, match="data"):
            source.parse(to_bytes(root))


def test_the_payload_is_the_element_alone() -> None:
    element = okta_event(PERSON_TYPE, okta_user(login="ada@ümlaut.example"))
    other = okta_event(PERSON_TYPE, okta_user("00uBob"))
    events = parse(element, other)
    (again,) = build("okta", {"type": "okta"}, lambda: []).reparse(events[0].payload).events
    assert again == events[0]
    assert b"00uBob" not in events[0].payload
    assert events[0].payload.isascii()

"""Routing: whose event is it, said how often, and about how many people; on both databases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from relay import operate
from relay.model import Kind
from relay.store import desk, fan_out, tables
from relay.store.database import Database
from tests.people import (
    ACME,
    CHAT,
    D1,
    Clock,
    Relay,
    event,
    gain,
    group_deleted,
    left,
    loss,
    rules,
    small_rules,
)

BOTH = {ACME, D1}


# --- routing: whose event is it?


def test_a_new_subject_is_a_new_person(relay: Relay) -> None:
    [event_id] = relay.record(gain("00uAda", "eng", login="ada"))
    assert relay.route() == 1
    assert relay.velt_users() == {"00uAda": ["ada"]}
    assert relay.event(event_id).person_id is not None


def test_two_sources_meet_in_one_person(relay: Relay) -> None:
    relay.record(gain("1", "eng", login="ada"), gain("2", "eng", login="ada", source="entra"))
    relay.route()
    assert [row.velt_user_id for row in relay.rows(tables.people)] == ["ada"]


def test_an_event_that_tells_less_is_the_same_person(relay: Relay) -> None:
    relay.record(gain("1", "eng", 0, login="ada"), loss("1", "eng", 1))
    relay.route()
    assert relay.velt_users() == {"1": ["ada"]}


def test_a_changed_login_makes_a_history(relay: Relay) -> None:
    relay.record(gain("1", "eng", 0, login="ada"), gain("1", "sales", 5, login="ada.new"))
    relay.route()
    assert relay.velt_users() == {"1": ["ada.new", "ada"]}


def test_an_older_event_never_takes_the_present_login_away(relay: Relay) -> None:
    relay.record(gain("1", "eng", 5, login="ada.new"))
    relay.route()
    relay.record(gain("1", "sales", 0, login="ada"))
    relay.route()
    assert relay.velt_users() == {"1": ["ada.new", "ada"]}


def test_an_account_loss_reaches_every_velt_user_that_the_subject_was(relay: Relay) -> None:
    relay.record(gain("1", "eng", 0, login="ada"), gain("1", "eng", 5, login="ada.new"), left("1", 9))
    assert sorted(task.velt_user_id for task in relay.run()) == ["ada", "ada.new"]


def test_a_past_velt_user_of_another_active_subject_is_left_alone(relay: Relay) -> None:
    relay.record(gain("1", "eng", 0, login="ada"), gain("1", "eng", 5, login="ada.new"), gain("2", "x", 6, login="ada"))
    [event_id] = relay.record(left("1", 9))
    assert [task.velt_user_id for task in relay.run()] == ["ada.new"]
    retained = [row for row in relay.revocations(event_id) if row.state == "retained"]
    assert retained
    assert all("now 2 of okta" in row.reason for row in retained)
    assert relay.event(event_id).state == "done"


def nobody() -> Any:
    return rules(
        {"name": "engineering", "when": {"group.id": "eng"}, "revoke": [ACME.as_velt()]}, identity=["{user.email}"]
    )


def test_a_loss_of_nobody_fails_and_works_once_somebody_knows_who(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=nobody())
    [event_id] = relay.record(loss("1", "eng"))
    assert relay.run() == []
    assert relay.event(event_id).state == "failed"
    assert "wants {user.email}" in relay.event(event_id).reason
    relay.terms = replace(
        relay.terms, rules=replace(nobody(), identity=replace(nobody().identity, exceptions={"1": "ada"}))
    )
    with relay.database.write() as connection:
        again = update(tables.events).where(tables.events.c.id == event_id)
        connection.execute(again.values(state="received", replay=True))
    assert [task.velt_user_id for task in relay.run()] == ["ada"]
    assert relay.event(event_id).state == "done"


def test_a_gain_of_nobody_is_done_and_counts_later(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=nobody())
    [gained] = relay.record(gain("1", "eng", 5))
    relay.route()
    assert (relay.event(gained).state, relay.event(gained).reason) == ("done", "gain")
    [lost] = relay.record(loss("1", "eng", 4, email="ada"))
    assert relay.run() == []
    assert relay.states(lost) == ["superseded"]


@pytest.mark.parametrize("kind", [Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_MEMBER_ADDED])
def test_an_item_of_nobody_may_be_said_again(relay: Relay, kind: Kind) -> None:
    """Its digest holds duplicates off until it was dealt with, not for ever."""
    relay.terms = replace(relay.terms, rules=nobody())
    item = event(kind, "1", None, group_id="eng", key="digest", twin=True)
    relay.record(item, item)
    relay.route()
    relay.record(item)
    assert len(relay.rows(tables.events)) == 2


# --- twins: sources without event ids


def twin(kind: Kind = Kind.GROUP_MEMBER_REMOVED, key: str = "digest", when: float | None = None) -> Any:
    return event(kind, "ada", when, group_id="eng", key=key, twin=True)


def test_a_twin_is_dropped_until_planned_and_then_nothing_new(relay: Relay, clock: Clock) -> None:
    relay.record(twin(), twin())
    assert len(relay.rows(tables.events)) == 1
    assert len(relay.run()) == 1
    clock.advance(1)
    [again] = relay.record(twin())
    assert relay.run() == []
    assert (relay.event(again).state, relay.event(again).reason) == ("ignored", "nothing new")


def test_a_twin_so_late_that_a_gain_between_may_have_been_lost_takes_again(relay: Relay, clock: Clock) -> None:
    first = [twin(), replace(twin(Kind.ACCOUNT_DEACTIVATED, "account"), group_id=None)]
    relay.record(*first)
    relay.run()
    clock.advance(15 * 60 + 1)
    of_group, of_account = relay.record(*first)
    assert [set(task.resources) for task in relay.run()] == [BOTH]
    assert relay.states(of_group) == ["removed", "removed"]
    assert relay.event(of_account).reason == "nothing new"  # each change of such an account says so


def test_a_twin_after_a_gain_is_new(relay: Relay, clock: Clock) -> None:
    for item in (twin(), twin(Kind.GROUP_MEMBER_ADDED, "other"), twin()):
        relay.record(item)
        calls = relay.run()
        clock.advance(1)
    assert len(calls) == 1


def test_a_twin_that_tells_a_later_time_is_new(relay: Relay) -> None:
    relay.record(twin(when=1))
    relay.run()
    [again] = relay.record(twin(when=2))
    assert len(relay.run()) == 1
    assert relay.event(again).state == "done"


def test_the_same_loss_of_another_kind_is_news_to_the_rules(relay: Relay, clock: Clock) -> None:
    only_deleted = rules({"name": "r", "when": {"kind": "account.deleted"}, "revoke": [ACME.as_velt()]})
    relay.terms = replace(relay.terms, rules=only_deleted)
    relay.record(twin(Kind.ACCOUNT_DEACTIVATED, "one"))
    assert relay.run() == []
    clock.advance(1)
    relay.record(twin(Kind.ACCOUNT_DELETED, "two"))
    assert len(relay.run()) == 1


# --- fan-out


def test_somebody_whom_only_two_events_together_name(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=small_rules(identity=["{user.login} {user.external_id}", "{user.id}"]))
    relay.record(gain("ada", "x", 0, login="a"), gain("ada", "y", 1, external_id="7"))
    assert relay.route() == 2
    assert relay.velt_users() == {"ada": ["a 7", "ada"]}


def test_a_deleted_group_takes_from_each_member_in_chunks(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "BATCH", 3)
    relay.record(*[gain(f"u{n}", "eng", 0) for n in range(8)], gain("other", "sales", 0))
    relay.run()
    [parent] = relay.record(group_deleted("eng", 10))
    assert sorted(task.velt_user_id for task in relay.run()) == [f"u{n}" for n in range(8)]
    assert relay.event(parent).state == "done"
    assert relay.event(parent).reason.startswith("8 known members of group eng, one event each; ")


def test_a_group_of_more_than_500_is_no_single_transaction(timed: Database, relay: Relay) -> None:
    relay.record(*[gain(f"u{n:04}", "eng", 0) for n in range(501)], received=relay.now())
    [parent] = relay.record(group_deleted("eng", 10))
    with timed.write() as connection:
        members = [f"u{n:04}" for n in range(501)]
        assert (
            fan_out._members(
                connection,
                connection.execute(tables.events.select().where(tables.events.c.id == parent)).one(),
                "",
                fan_out.BATCH,
            )
            == members[:500]
        )
    relay.route()
    assert relay.event(parent).reason.startswith("501 known members of group eng, one event each; ")


def test_a_deleted_group_takes_from_members_who_are_not_planned_yet(relay: Relay) -> None:
    relay.record(gain("ada", "eng", 0), gain("bob", "eng", 20), group_deleted("eng", 10))
    assert [task.velt_user_id for task in relay.run()] == ["ada"]


def test_a_group_that_is_planned_again_is_planned_for_each_of_those_who_were_in_it(
    relay: Relay, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "CHUNK", 2)
    right = relay.terms
    typo = rules({"name": "eng", "when": {"kind": "group.deleted", "group.id": "engg"}, "revoke": [ACME.as_velt()]})
    relay.terms = replace(relay.terms, rules=typo)
    relay.record(*[gain(f"u{n}", "eng", 0) for n in range(5)])
    [parent] = relay.record(group_deleted("eng", 10))
    assert relay.run() == []
    relay.terms = right
    clock.advance(60)
    operate.retry(relay.database, {}, "ops", parent, {"replan": True, "reason": "the rule named another group"})
    assert sorted(task.velt_user_id for task in relay.run()) == [f"u{n}" for n in range(5)]
    assert relay.event(parent).reason.startswith("5 known members of group eng, one event each; ")
    [told] = [json.loads(row.detail) for row in relay.rows(tables.decisions) if row.event_id == parent]
    assert told["events"] == 5


def test_who_left_the_group_before_is_not_asked_again(relay: Relay) -> None:
    relay.record(gain("ada", "eng", 0), loss("ada", "eng", 1))
    relay.run()
    [parent] = relay.record(group_deleted("eng", 10))
    assert relay.run() == []
    assert relay.event(parent).state == "ignored"
    assert relay.event(parent).reason.startswith("no member of group eng is known")


def test_an_app_taken_from_everybody_or_from_a_group(relay: Relay) -> None:
    def had(subject: str) -> Any:
        return event(Kind.APP_ACCESS_ADDED, subject, 0, app_id="chat")

    relay.record(had("ada"), had("bob"), gain("bob", "eng", 0))
    relay.run()
    [of_group] = relay.record(event(Kind.APP_ACCESS_REMOVED, None, 5, app_id="chat", group_id="eng"))
    assert [(task.velt_user_id, set(task.resources)) for task in relay.run()] == [("bob", {CHAT})]
    relay.record(event(Kind.APP_ACCESS_REMOVED, None, 6, app_id="chat"))
    assert [task.velt_user_id for task in relay.run()] == ["ada"]
    assert relay.event(of_group).reason.startswith("1 known member of group eng")


def test_an_app_lost_with_a_group_is_given_back_by_the_app(relay: Relay) -> None:
    relay.record(event(Kind.APP_ACCESS_ADDED, "ada", 9, app_id="chat"))
    [lost] = relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", 5, app_id="chat", group_id="eng"))
    assert relay.run() == []
    assert relay.states(lost) == ["superseded"]

"""Groups inside groups: what no message tells of, on both databases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Row

from relay import operate
from relay.model import Account, Group, Guard, Kind, ObjectType, Status, to_iso
from relay.rules import RuleSet
from relay.store import answered, desk, found, look_ups, nested, preview, tables, turned
from relay.store.database import Database
from relay.store.decisions import Decision
from relay.store.facts import add_unknown
from relay.store.record import insert_events, row_of
from relay.web import metrics
from tests.directory_people import Directory, Looked, account, rules_with_directory
from tests.people import ACME, CHAT, D1, SMALL, TOLD, Clock, Relay, event, gain, group_deleted, group_fact, loss, rules

HOUR = 3600
MINUTE = 60
GROUP = Account("team", Status.GROUP, 0)


def nested_rules(**more: object) -> RuleSet:
    return replace(rules_with_directory(), terse=frozenset({"okta"}), **more)  # type: ignore[arg-type]


@pytest.fixture
def looked(timed: Database, directory: Directory) -> Looked:
    return Looked(Relay(timed, nested_rules()), directory)


@pytest.fixture
def relay(looked: Looked) -> Relay:
    return looked.relay


def removed(looked: Looked) -> set[tuple[str, object]]:
    return {(task.velt_user_id.split("@")[0], resource) for task in looked.run() for resource in task.resources}


def has(looked: Looked, subject: str, groups: Iterable[str]) -> None:
    looked.directory.accounts[subject] = account(subject, groups=groups)


def joined(looked: Looked, subject: str, *groups: str, told: str = "team") -> None:
    """Somebody joins a group and has these by that; the relay hears only of the one."""
    has(looked, subject, groups)
    looked.relay.record(gain(subject, told, None))
    looked.run()


def held(relay: Relay, subject: str) -> set[str]:
    return {f.object_id for f in relay.facts(subject) if f.present and f.object_type is ObjectType.GROUP}


def found_alone(relay: Relay, by: str = turned.LOOK_UP) -> int:
    with relay.database.read() as connection:
        return found.counts(connection, by).get("okta", 0)


def events(relay: Relay, kind: Kind, group: str | None) -> list[Row[Any]]:
    rows = [row for row in relay.rows(tables.events) if (row.kind, row.group_id) == (kind.value, group)]
    return sorted(rows, key=lambda row: row.id)


# somebody joins or leaves an inner group


def test_what_an_inner_group_brings_is_known_as_soon_as_somebody_joins_it(looked: Looked, relay: Relay) -> None:
    joined(looked, "ada", "team", "eng")
    assert held(relay, "ada") == {"team", "eng"}


def test_what_a_lagging_directory_did_not_list_of_it_is_asked_for_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada")
    assert held(relay, "ada") == {"team"}
    has(looked, "ada", ["team", "eng"])
    clock.advance(15 * MINUTE)
    looked.run()
    assert held(relay, "ada") == {"team", "eng"}


def test_who_leaves_an_inner_group_loses_what_the_outer_one_gave(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    assert removed(looked) == {("ada", ACME), ("ada", D1)}
    [outer] = events(relay, Kind.GROUP_MEMBER_REMOVED, "eng")
    assert (outer.state, outer.found_by, outer.group_name, outer.type) == ("done", "look-up", "Eng", "look-up.member")
    assert found_alone(relay) == 1
    assert found_alone(relay, found.RECONCILE) == 0


def test_the_answer_that_tells_it_is_enough(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    looked.run()  # what was to be asked later
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    relay.claim()
    [question] = look_ups.take(relay.database, ["okta"], 10)
    answer = looked.directory.look_up(question.object_id, question.groups)
    clock.advance(2)  # it was on its way for so long
    looked.directory.asked.clear()
    answered.keep(relay.database, relay.terms.rules, question, answer)
    assert len(removed(looked)) == 2
    assert looked.directory.asked == []


def test_what_another_group_gives_stays(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "team", "eng", "sales")
    clock.advance(HOUR)
    has(looked, "ada", ["sales"])
    relay.record(loss("ada", "team", None))
    assert removed(looked) == {("ada", ACME)}
    assert relay.states() == ["removed", "retained"]


def test_what_the_outer_group_gives_stays_while_another_inner_one_brings_it(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "team", "crew", "eng")
    clock.advance(HOUR)
    has(looked, "ada", ["crew", "eng"])
    relay.record(loss("ada", "team", None))
    assert removed(looked) == set()
    assert held(relay, "ada") == {"crew", "eng"}


def test_who_leaves_minutes_after_joining_loses_it_when_no_copy_can_lag(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(5 * MINUTE)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    assert removed(looked) == set()
    assert held(relay, "ada") == {"team", "eng"}
    clock.advance(10 * MINUTE + 1)
    assert removed(looked) == {("ada", ACME), ("ada", D1)}


def test_an_answer_of_a_copy_that_lags_takes_nothing_that_was_just_gained(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(MINUTE)
    has(looked, "ada", [])  # as it was before
    relay.record(loss("ada", "everyone", None))
    assert removed(looked) == set()
    has(looked, "ada", ["team", "eng"])
    for _ in range(10):
        clock.advance(10 * MINUTE)
        assert removed(looked) == set()
    assert held(relay, "ada") == {"team", "eng"}
    assert found_alone(relay) == 0


def test_a_late_loss_and_a_copy_that_lags_take_nothing_that_was_just_gained(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "eng", told="eng")
    gained_at = events(relay, Kind.GROUP_MEMBER_ADDED, "eng")[0].as_of
    has(looked, "ada", [])  # as it was before
    [late] = relay.record(loss("ada", "eng", None))  # of an earlier membership
    assert removed(looked) == set()
    assert f"the directory says not a member, but it may lag behind the news of {to_iso(gained_at)}" in (
        relay.event(late).reason or ""
    )
    has(looked, "ada", ["eng"])
    for _ in range(4):
        clock.advance(5 * MINUTE)
        assert removed(looked) == set()
    assert (relay.event(late).state, relay.event(late).reason) == ("ignored", "still a member")
    assert held(relay, "ada") == {"eng"}


def test_an_outer_group_that_a_lagging_answer_still_lists_is_asked_about_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", ["eng"])
    relay.record(loss("ada", "team", None))
    assert removed(looked) == set()
    has(looked, "ada", [])
    clock.advance(15 * MINUTE + 1)
    assert removed(looked) == {("ada", ACME), ("ada", D1)}


def test_a_message_that_tells_it_too_is_nothing_new(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    assert len(removed(looked)) == 2
    [late] = relay.record(loss("ada", "eng", None, key="digest", twin=True))
    assert removed(looked) == set()
    assert (relay.event(late).state, relay.event(late).reason) == ("ignored", "nothing new")


def test_a_message_that_waits_tells_it_alone(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None), loss("ada", "eng", None))
    assert len(removed(looked)) == 2
    assert len(events(relay, Kind.GROUP_MEMBER_REMOVED, "eng")) == 1
    assert found_alone(relay) == 0


def test_a_message_that_comes_just_before_it_is_planned_tells_it_once(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    relay.claim()
    looked.look_up()
    relay.record(loss("ada", "eng", 2 * HOUR - 5, group_name="Eng"))
    assert len(removed(looked)) == 2
    told = {row.found_by: row.state for row in events(relay, Kind.GROUP_MEMBER_REMOVED, "eng")}
    assert told == {None: "done", "look-up": "ignored"}
    assert len(relay.revocations()) == 2


def test_what_is_listed_and_young_is_asked_about_until_it_is_not(looked: Looked, relay: Relay, clock: Clock) -> None:
    """A listing has noted it minutes ago, and no message of a group comes."""
    noted = group_fact("ada", "eng", when=HOUR - 15 * MINUTE, event_id=None)
    with relay.database.write() as connection:
        add_unknown(connection, [noted])
    clock.advance(5 * MINUTE)
    has(looked, "ada", [])
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", 0))
    assert removed(looked) == set()
    clock.advance(10 * MINUTE + 1)
    assert removed(looked) == {("ada", ACME), ("ada", D1)}


def test_what_was_turned_over_is_asked_about_again(looked: Looked, relay: Relay, clock: Clock) -> None:
    """Between leaving one inner group and joining another a copy shows neither."""
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    looked.run()
    has(looked, "ada", [])
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR))
    assert len(removed(looked)) == 2
    has(looked, "ada", ["team", "eng"])
    clock.advance(15 * MINUTE + 1)
    assert removed(looked) == set()
    assert held(relay, "ada") == {"team", "eng"}
    assert all(row.needs_regrant for row in relay.revocations())


def test_the_end_of_an_inner_group_ends_what_the_outer_one_gave(looked: Looked, relay: Relay, clock: Clock) -> None:
    for subject in ("ada", "bob"):
        joined(looked, subject, "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    has(looked, "bob", ["eng"])
    relay.record(group_deleted("team", None))
    assert removed(looked) == {("ada", ACME), ("ada", D1)}
    assert held(relay, "bob") == {"eng"}


def test_what_was_taken_and_is_listed_again_later_is_to_be_granted_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    """The inner group's gain says only that; that the outer one came back with it only the look-up does."""
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    assert len(removed(looked)) == 2
    clock.advance(20 * MINUTE)
    joined(looked, "ada", "crew", "eng", told="crew")
    [back] = events(relay, Kind.GROUP_MEMBER_ADDED, "eng")
    assert (back.state, back.reason, back.found_by) == ("done", "gain", "look-up")
    assert all(row.needs_regrant for row in relay.revocations())


def test_the_guard_counts_people_whose_loss_only_look_ups_tell(looked: Looked, relay: Relay, clock: Clock) -> None:
    relay.terms = replace(relay.terms, rules=nested_rules(guard=Guard(1, 3600)))
    for subject in ("ada", "bob"):
        joined(looked, subject, "team", "eng")
    clock.advance(HOUR)
    for subject in ("ada", "bob"):
        has(looked, subject, [])
        relay.record(loss(subject, "team", None))
        removed(looked)
    assert sorted(row.state for row in events(relay, Kind.GROUP_MEMBER_REMOVED, "eng")) == ["done", "held"]


def test_a_source_whose_groups_are_flat_is_asked_no_more_than_before(
    timed: Database, directory: Directory, clock: Clock
) -> None:
    looked = Looked(Relay(timed, rules_with_directory()), directory)
    joined(looked, "ada", "team", "eng")
    assert len(directory.asked) == 1  # who she is
    clock.advance(HOUR)
    has(looked, "ada", [])
    looked.relay.record(loss("ada", "team", None))
    assert removed(looked) == set()
    clock.advance(HOUR)
    looked.run()
    assert len(directory.asked) == 2


# a group joins or leaves a group


def team(looked: Looked) -> None:
    """Ada has eng through team, bob by himself; team leaves eng."""
    joined(looked, "ada", "team", "eng")
    joined(looked, "bob", "eng", told="eng")
    looked.directory.accounts["team"] = GROUP
    looked.directory.members["eng"] = {"bob"}
    has(looked, "ada", ["team"])


def test_a_group_that_leaves_a_group_takes_it_from_those_who_were_in_it_only_through_that(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    team(looked)
    clock.advance(MINUTE)
    [event_id] = relay.record(loss("team", "eng", None))
    assert removed(looked) == {("ada", ACME), ("ada", D1)}
    row = relay.event(event_id)
    assert (row.subject, row.person_id, row.state) == (None, None, "received")
    assert (
        "a group left group eng; known members who are in it no more: 1, one event each, but it may lag" in row.reason
    )
    for wait in (30, 120, 600):
        clock.advance(wait)
        assert removed(looked) == set()
    row = relay.event(event_id)
    assert (row.state, row.reason) == (
        "done",
        "a group left group eng; known members who are in it no more: 1, one event each",
    )
    [child] = [one for one in events(relay, Kind.GROUP_MEMBER_REMOVED, "eng") if one.parent_id]
    assert (child.parent_id, child.subject, child.state) == (event_id, "ada", "done")


def test_a_list_of_members_that_lags_is_asked_for_again(looked: Looked, relay: Relay, clock: Clock) -> None:
    team(looked)
    looked.directory.members["eng"] = {"ada", "bob"}
    relay.record(loss("team", "eng", None))
    assert removed(looked) == set()
    looked.directory.members["eng"] = {"bob"}
    clock.advance(30)
    assert removed(looked) == {("ada", ACME), ("ada", D1)}


def test_who_is_still_in_the_outer_group_by_another_way_keeps_it(looked: Looked, relay: Relay, clock: Clock) -> None:
    team(looked)
    looked.directory.members["eng"] = {"ada", "bob"}
    [event_id] = relay.record(loss("team", "eng", None))
    for wait in (0, 30, 120, 600):
        clock.advance(wait)
        assert removed(looked) == set()
    assert relay.event(event_id).state == "ignored"
    assert (
        relay.event(event_id).reason == "a group left group eng; known members who are in it no more: 0, one event each"
    )


def test_who_gained_the_outer_group_after_that_is_not_concerned(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "bob", "eng", told="eng")
    looked.directory.accounts["team"] = GROUP  # and the list of members is one of before
    relay.record(loss("team", "eng", HOUR - 60))
    removed(looked)
    assert [row.subject for row in events(relay, Kind.GROUP_MEMBER_REMOVED, "eng")] == [None]


def test_people_of_a_group_that_joined_a_group_are_noted_and_those_who_had_lost_it_have_it_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "eng", told="eng")
    has(looked, "ada", ["team"])
    clock.advance(HOUR)
    relay.record(loss("ada", "eng", None))
    assert len(removed(looked)) == 2
    clock.advance(20 * MINUTE)
    looked.directory.accounts["team"] = GROUP
    looked.directory.members["eng"] = {"ada", "cyd"}
    has(looked, "ada", ["team", "eng"])
    [event_id] = relay.record(gain("team", "eng", None))
    for wait in (0, 30, 120, 600):
        clock.advance(wait)
        assert removed(looked) == set()
    assert held(relay, "cyd") == {"eng"}
    assert "eng" in held(relay, "ada")
    assert all(row.needs_regrant for row in relay.revocations())
    assert (relay.event(event_id).state, relay.event(event_id).subject) == ("done", None)


def test_people_of_a_group_that_joined_a_group_have_what_that_one_lies_in(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    """Team comes into crew, which is in eng: no message says so of eng."""
    looked.directory.accounts["team"] = GROUP
    looked.directory.members["crew"] = {"cyd"}
    has(looked, "cyd", ["team", "crew", "eng"])
    relay.record(gain("team", "crew", None))
    looked.run()
    assert held(relay, "cyd") == {"team", "crew", "eng"}
    clock.advance(HOUR)
    looked.run()
    looked.directory.members["crew"] = set()
    has(looked, "cyd", ["team"])
    relay.record(loss("team", "crew", None))
    assert removed(looked) == {("cyd", ACME), ("cyd", D1)}


def test_an_inner_group_that_is_gone_is_known_by_those_who_were_in_it(looked: Looked, relay: Relay) -> None:
    team(looked)
    del looked.directory.accounts["team"]
    relay.record(loss("team", "eng", None))
    assert removed(looked) == {("ada", ACME), ("ada", D1)}


def test_what_is_gone_and_was_no_group_needs_a_person_as_before(looked: Looked, relay: Relay, clock: Clock) -> None:
    [event_id] = relay.record(loss("phone", "eng", None))
    for wait in (0, 30, 120, 600):
        clock.advance(wait)
        assert removed(looked) == set()
    assert relay.event(event_id).state == "failed"
    assert "(the account is gone)" in relay.event(event_id).reason


def test_a_group_that_was_taken_for_somebody_is_told_anew(looked: Looked, relay: Relay, clock: Clock) -> None:
    """Where a Velt user id can be made without a look-up, a gain is planned before anybody is asked."""
    looked.directory.accounts["team"] = GROUP
    looked.directory.members["eng"] = {"cyd"}
    relay.record(gain("team", "eng", None, email="team@acme.example"))
    removed(looked)
    assert relay.facts("team") == ()
    assert held(relay, "cyd") == {"eng"}
    assert [row.type for row in events(relay, Kind.GROUP_MEMBER_ADDED, "eng") if row.subject is None] == [
        "look-up.group"
    ]


def test_a_group_whose_end_of_membership_concerns_many_is_held_whole(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    relay.terms = replace(relay.terms, rules=nested_rules(guard=Guard(1, 3600)))
    for subject in ("ada", "bob"):
        joined(looked, subject, "team", "eng")
        has(looked, subject, ["team"])
    looked.directory.accounts["team"] = GROUP
    [event_id] = relay.record(loss("team", "eng", None))
    assert removed(looked) == set()
    assert relay.event(event_id).state == "held"
    assert "up to 2 people" in relay.event(event_id).reason
    with relay.database.write() as connection:
        row = connection.execute(tables.events.select().where(tables.events.c.id == event_id)).one()
        desk.approve(connection, row, Decision("ada", "approve", None), clock.now)
    assert {user for user, _ in removed(looked)} == {"ada", "bob"}


def test_more_people_than_fit_into_one_transaction(
    looked: Looked, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nested, "BATCH", 2)
    people = [f"p{number}" for number in range(5)]
    for subject in people:
        joined(looked, subject, "team", "eng")
        has(looked, subject, ["team"])
    looked.directory.accounts["team"] = GROUP
    relay.record(loss("team", "eng", None))
    assert {user for user, _ in removed(looked)} == set(people)


def test_without_a_directory_it_says_what_is_needed(looked: Looked, relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=replace(nested_rules(), looked_up={}, terse=frozenset()))
    [event_id] = relay.record(loss("team", "eng", None))
    relay.record(replace(loss("", "eng", None), subject=None))
    relay.run()
    [failed] = [row for row in events(relay, Kind.GROUP_MEMBER_REMOVED, "eng") if row.subject is None]
    assert (failed.state, failed.reason) == ("failed", "needs a look-up: configure sources.okta.graph")
    assert relay.event(event_id).subject == "team"


def test_what_reconcile_tells_again_is_not_counted_as_found(looked: Looked, relay: Relay, clock: Clock) -> None:
    team(looked)
    told = replace(loss("team", "eng", None), subject=None, key=None, twin=True)
    with relay.database.write() as connection:
        insert_events(connection, [row_of(told, clock.now, found_by=found.RECONCILE)])
    assert len(removed(looked)) == 2
    clock.advance(HOUR)
    looked.run()
    assert found_alone(relay, found.RECONCILE) == 1
    with relay.database.write() as connection:
        insert_events(connection, [row_of(told, clock.now, found_by=found.RECONCILE)])
    for wait in (0, 30, 120, 600):
        clock.advance(wait)
        assert removed(looked) == set()
    assert found_alone(relay, found.RECONCILE) == 1


def test_explain_that_asks_says_that_the_member_is_a_group(looked: Looked, relay: Relay, clock: Clock) -> None:
    given = loss("team", "eng", None)
    shown = preview.preview(relay.database, relay.terms.rules, given, GROUP)
    assert (shown.state, shown.removals) == ("done", ())
    assert (shown.reason or "").startswith("the member is a group: ")


def test_the_metrics_count_what_only_look_ups_told(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "team", "eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "team", None))
    removed(looked)
    page = metrics.page(relay.database, False, ["okta", "scim"], ["okta"]).decode()
    assert 'relay_found_by_look_up{source="okta"} 1.0' in page
    assert 'relay_found_by_look_up{source="scim"} 0.0' in page
    [outer] = events(relay, Kind.GROUP_MEMBER_REMOVED, "eng")
    assert operate.show(relay.database, outer.id)["found_by"] == "look-up"


# --- accounts


def changed(looked: Looked) -> None:
    looked.relay.record(event(Kind.ACCOUNT_CHANGED, "ada", None, twin=True))


def test_an_account_that_is_out_of_force_by_one_answer_is_asked_for_again_and_comes_back(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "eng", told="eng")
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED)  # a copy that is older than the return
    changed(looked)
    assert removed(looked) == {("ada", ACME), ("ada", D1), ("ada", CHAT)}
    has(looked, "ada", ["eng"])
    clock.advance(16 * MINUTE)
    assert removed(looked) == set()
    assert [row.state for row in events(relay, Kind.ACCOUNT_ACTIVATED, None)] == ["done"]
    assert {row.resource_id for row in relay.revocations() if row.needs_regrant} == {"acme", "d1"}
    assert found_alone(relay) == 1


def test_an_account_that_only_a_look_up_shows_out_of_force_is_lost(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada@acme.example")
    changed(looked)
    removed(looked)
    has(looked, "ada", ["eng"])
    clock.advance(16 * MINUTE)
    removed(looked)
    clock.advance(HOUR)
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada@acme.example")
    relay.record(gain("ada", "sales", None))
    assert removed(looked) == {("ada", ACME), ("ada", D1), ("ada", CHAT)}
    assert "look-up" in {row.found_by for row in events(relay, Kind.ACCOUNT_DEACTIVATED, None)}


def test_what_was_taken_before_a_groups_name_was_told_is_listed_to_be_granted_again(
    timed: Database, directory: Directory, clock: Clock
) -> None:
    by_name = {
        "name": "sales by name",
        "when": {"kind": ["group.member_removed"], "group.name": ["Sales"]},
        "revoke": [D1.as_velt()],
    }
    rule_set = rules(*SMALL["rules"][:1], by_name, fills={"okta": TOLD}, identity=["{user.email}"])
    fields = {"okta": frozenset({"user.email", "group.name"})}
    relay = Relay(timed, replace(rule_set, looked_up=fields, terse=frozenset({"okta"})))
    looked = Looked(relay, directory)
    directory.accounts["ada"] = replace(account("ada"), groups=(Group("other", None),))
    relay.record(gain("ada", "other", None), loss("ada", "eng", HOUR - 1))
    clock.advance(HOUR)
    assert removed(looked) == {("ada", ACME), ("ada", D1)}
    clock.advance(HOUR)
    directory.accounts["ada"] = replace(account("ada"), groups=(Group("other", "Sales"),))
    relay.record(loss("ada", "everyone", None))
    looked.run()
    assert {row.resource_id for row in relay.revocations() if row.needs_regrant} == {"d1"}


def test_a_gain_that_comes_after_its_loss_and_is_not_so_any_more_takes_what_it_gave(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    joined(looked, "ada", "eng", told="eng")
    clock.advance(HOUR)
    has(looked, "ada", [])
    relay.record(loss("ada", "eng", None, twin=True))
    assert removed(looked) == {("ada", ACME), ("ada", D1)}
    clock.advance(10 * MINUTE)
    relay.record(loss("ada", "eng", None, twin=True))  # of a second membership, whose gain is still on its way
    assert removed(looked) == set()
    clock.advance(MINUTE)
    relay.record(gain("ada", "eng", None, twin=True))
    assert removed(looked) == set()
    clock.advance(HOUR)
    assert removed(looked) == {("ada", ACME), ("ada", D1)}


def test_a_group_of_an_account_out_of_force_is_kept_for_its_return(looked: Looked, relay: Relay, clock: Clock) -> None:
    joined(looked, "ada", "eng", told="eng")
    has(looked, "ada", [])
    [lost] = relay.record(loss("ada", "eng", None))
    removed(looked)
    clock.advance(HOUR)
    joined(looked, "ada", "eng", told="eng")
    clock.advance(HOUR)
    looked.directory.accounts["ada"] = account("ada", Status.DELETED)
    operate.retry(relay.database, {}, "ops", lost, {"replan": True, "reason": "to be sure"})
    removed(looked)
    assert relay.event(lost).state == "done"
    assert held(relay, "ada") == {"eng"}


# a group comes into another, and what it brings was taken, or goes with an account


DOCS = {
    "name": "docs",
    "when": {"kind": "group.member_removed", "group.name": {"regex": "(?P<doc>Doc-.+)"}},
    "revoke": [D1.as_velt()],
}


def settled(looked: Looked, clock: Clock) -> set[str]:
    """What is taken until every doubt about what a directory says is over."""
    taken = set()
    for _ in range(20):
        taken |= {resource.id for task in looked.run() for resource in task.resources}
        clock.advance(MINUTE)
    return taken


def come_into(looked: Looked, group: str, clock: Clock) -> set[str]:
    """`team`, which ada is in, comes into a group; what is taken of that."""
    looked.directory.accounts["team"] = GROUP
    looked.directory.members = {group: {"ada"}}
    looked.relay.record(gain("team", group, None, group_name=group))
    return settled(looked, clock)


@pytest.fixture
def in_team(looked: Looked, clock: Clock) -> Looked:
    """ada is in `team` and in Doc-0, and nothing is known of other sources."""
    leavers = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything"}
    template = DOCS | {"revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}]}
    made = rules(template, leavers, identity=["{user.email}"], fills={"okta": TOLD})
    made = replace(made, looked_up=nested_rules().looked_up, terse=frozenset({"okta"}))
    looked.relay.terms = replace(looked.relay.terms, rules=made)
    has(looked, "ada", ["Doc-0", "team"])
    looked.relay.record(gain("ada", "Doc-0", None, group_name="Doc-0"), gain("ada", "team", None, group_name="Team"))
    settled(looked, clock)
    return looked


def test_a_leaver_loses_what_a_group_gave_that_a_group_of_theirs_had_come_into(in_team: Looked, clock: Clock) -> None:
    looked = in_team
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["Doc-0", "team"])
    looked.relay.record(event(Kind.ACCOUNT_CHANGED, "ada", None, key=None, twin=True))
    assert settled(looked, clock) == {"Doc-0"}
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["Doc-0", "team", "Doc-1"])
    assert come_into(looked, "Doc-1", clock) == {"Doc-1"}


def test_what_was_taken_is_to_be_granted_again_for_a_group_that_a_group_of_theirs_had_come_into(
    in_team: Looked, clock: Clock
) -> None:
    looked, relay = in_team, in_team.relay
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, rules=rules(DOCS).rules))
    has(looked, "ada", ["team"])
    relay.record(loss("ada", "Doc-0", None, group_name="Doc-0"))
    assert settled(looked, clock) == {"d1"}
    has(looked, "ada", ["team", "Doc-1"])
    assert come_into(looked, "Doc-1", clock) == set()
    assert [row.needs_regrant for row in relay.revocations()] == [True]

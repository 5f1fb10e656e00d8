"""What somebody decided holds, whatever is told afterwards; on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from relay import operate
from relay.errors import LookUpFailed
from relay.model import Account, Guard, Kind, Status
from relay.rules import RuleSet
from relay.store import answered, delivery, tables
from relay.store.claim import Task
from relay.store.look_ups import ACCOUNT, Question
from tests.directory_people import ADDED, Looked, account, rules_with_directory
from tests.people import (
    CHAT,
    D1,
    REFUSED,
    REMOVED,
    SMALL,
    TOLD,
    Clock,
    Relay,
    event,
    gain,
    left,
    loss,
    rules,
)

HOUR = 3600
ADA = "ada@acme.example"
GUARD = Guard(1, 600)
TEAMS = {
    "name": "teams",
    "when": {"kind": "group.member_removed", "group.name": ["T1", "T2", "T3"]},
    "revoke": [{"type": "document", "id": "{group.id}", "organizationId": "acme"}],
}
LEAVERS = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything"}
TALKERS = {
    "name": "talkers",
    "when": {"kind": "group.member_removed", "group.id": "talkers"},
    "revoke": [CHAT.as_velt()],
}


def with_directory(*given: object) -> RuleSet:
    made = rules(*given, identity=["{user.email}", "{user.login}"], fills={"okta": TOLD})  # type: ignore[arg-type]
    return replace(made, looked_up={"okta": ADDED}, guard=GUARD)


def pause(relay: Relay, *, on: bool) -> None:
    with relay.database.write() as connection:
        delivery.pause(connection, "eve", None) if on else delivery.resume(connection)


# --- the end of an app that some have in another way


@pytest.mark.parametrize("verb", ["reject", "approve"])
@pytest.mark.parametrize("group", [{"group_id": "g"}, {}])
def test_the_end_of_an_app_that_people_still_have_takes_it_from_nobody(
    looked: Looked, clock: Clock, verb: str, group: dict[str, str]
) -> None:
    """Switched off and on again, or no more given by one group: only the directory tells who has it in another way."""
    directory, relay = looked.directory, looked.relay
    relay.terms = replace(relay.terms, rules=with_directory(*SMALL["rules"], TALKERS))
    directory.members, directory.apps = {"g": {"ada", "bob"}}, {"chat": {"ada", "bob"}}
    for who in ("ada", "bob"):
        directory.accounts[who] = account(who, groups=["g", "talkers"])
        has_app = event(Kind.APP_ACCESS_ADDED, who, 10, app_id="chat", email=f"{who}@acme.example")
        relay.record(has_app, gain(who, "g", 10), gain(who, "talkers", 10))
    looked.run()
    [end] = relay.record(event(Kind.APP_ACCESS_REMOVED, None, HOUR - 5, app_id="chat", **group))
    looked.run()
    assert relay.event(end).state == "held"
    operate.decide(relay.database, "eve", verb, end, {})
    for seconds in (1, 31, 121, 601, HOUR):
        looked.run()
        clock.advance(seconds)
    directory.accounts["ada"] = account("ada", groups=["g"])
    relay.record(loss("ada", "talkers", 2 * HOUR - 10))
    assert looked.run() == []


# --- the end of a group inside a group


def test_a_rejected_loss_through_an_inner_group_is_not_taken_by_the_next_answer(looked: Looked, clock: Clock) -> None:
    directory, relay = looked.directory, looked.relay
    relay.terms = replace(relay.terms, rules=replace(rules_with_directory(), terse=frozenset({"okta"}), guard=GUARD))
    directory.accounts["team"] = Account("team", Status.GROUP, 0)
    for who in ("ada", "bob"):
        directory.accounts[who] = account(who, groups=["team", "eng"])
        relay.record(gain(who, "team", None))
    looked.run()
    clock.advance(HOUR)
    looked.run()
    directory.members = {"eng": set(), "team": {"ada", "bob"}}
    for who in ("ada", "bob"):
        directory.accounts[who] = account(who, groups=["team"])
    [event_id] = relay.record(loss("team", "eng", None))
    looked.run()
    assert relay.event(event_id).state == "held"
    operate.decide(relay.database, "eve", "reject", event_id, {})
    clock.advance(HOUR)
    directory.accounts["ada"] = account("ada", groups=["team", "club"])
    relay.record(gain("ada", "club", None))
    assert looked.run() == []
    clock.advance(HOUR)
    assert looked.run() == []
    operate.retry(relay.database, {}, "eve", event_id, {"replan": True})
    taken = looked.run()
    clock.advance(HOUR)
    taken += looked.run()
    assert {task.velt_user_id for task in taken} == {"ada@acme.example", "bob@acme.example"}


# --- parts of a leaving


@pytest.fixture
def rejected(looked: Looked, clock: Clock) -> Relay:
    """What ada loses by leaving besides (t1 and t2) was more than the guard lets go, and was rejected."""
    directory, relay = looked.directory, looked.relay
    sales = TEAMS | {"name": "sales", "when": {"kind": "group.member_removed", "group.name": "Sales"}}
    relay.terms = replace(relay.terms, rules=with_directory(TEAMS, LEAVERS, sales))
    directory.accounts |= {"bob": account("bob"), "ada": account("ada", Status.DEACTIVATED, groups=["t1", "t2"])}
    relay.record(gain("ada", "x", 5, email="ada@acme.example"))
    looked.run()
    pause(relay, on=True)
    relay.record(gain("bob", "sales", 5, email="bob@acme.example", group_name="Sales"))
    looked.run()
    relay.record(loss("bob", "sales", HOUR - 1, group_name="Sales"))
    looked.run()
    [leaving] = relay.record(left("ada", HOUR - 1))
    looked.run()
    [part] = held(relay)
    assert relay.event(part).parent_id == leaving
    operate.decide(relay.database, "eve", "reject", part, {})
    looked.run()
    clock.advance(60)
    return relay


def held(relay: Relay) -> list[str]:
    return [row.id for row in relay.rows(tables.events) if row.state == "held"]


def test_a_rejected_part_of_a_leaving_stays_rejected_when_the_guard_has_room_again(
    looked: Looked, rejected: Relay
) -> None:
    looked.directory.accounts["bob"] = account("bob", groups=["sales"])
    rejected.record(gain("bob", "sales", HOUR + 30, group_name="Sales"))
    looked.run()
    rejected.record(gain("ada", "another", HOUR - 100, group_name="Other"))
    looked.run()
    pause(rejected, on=False)
    assert looked.run() == []


def test_what_was_never_part_of_what_was_rejected_waits_for_a_decision_of_its_own(
    looked: Looked, rejected: Relay
) -> None:
    rejected.record(gain("ada", "t3", HOUR - 100, group_name="T3"))
    looked.run()
    assert len(held(rejected)) == 1


def test_what_was_never_part_of_what_was_rejected_goes_where_the_guard_has_room(
    looked: Looked, rejected: Relay, clock: Clock
) -> None:
    rejected.terms = replace(rejected.terms, rules=replace(rejected.terms.rules, guard=None))
    rejected.record(gain("ada", "t3", HOUR - 100, group_name="T3"))
    looked.run()
    pause(rejected, on=False)
    taken = {resource.id for task in looked.run() for resource in task.resources}
    assert taken == {"sales", "t3"}


@pytest.mark.parametrize("again", [{}, {"replan": True}])
def test_a_decision_that_was_taken_back_counts_no_more(relay: Relay, again: dict[str, bool]) -> None:
    relay.terms = replace(relay.terms, rules=replace(rules(*SMALL["rules"], TEAMS), guard=GUARD))
    relay.record(gain("ada", "eng", 10), gain("bob", "eng", 10))
    relay.record(loss("bob", "eng", 3000))
    relay.run()
    [event_id] = relay.record(left("ada", 3001))
    relay.run()
    operate.decide(relay.database, "eve", "reject", event_id, {})
    operate.retry(relay.database, {}, "eve", event_id, again)
    relay.run()
    relay.record(gain("ada", "t1", 2900, group_name="T1"))
    assert [resource.id for task in relay.run() for resource in task.resources] == ["t1"]


@pytest.fixture
def leaving(looked: Looked) -> str:
    """ada leaves: t0 goes, and what the directory tells besides (t1 and t2) waits as a part."""
    relay = looked.relay
    teams = TEAMS | {"when": {"kind": "group.member_removed", "group.name": ["T0", "T1", "T2", "T3"]}}
    made = with_directory(teams, LEAVERS | {"max_resources": 1})
    relay.terms = replace(relay.terms, rules=replace(made, guard=None))
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["t0", "t1", "t2"], email=ADA)
    relay.record(gain("ada", "t0", 5, email=ADA, group_name="T0"))
    looked.run()
    [event_id] = relay.record(left("ada", HOUR - 1))
    assert ids(looked.run()) == {"t0"}
    return event_id


def ids(tasks: Iterable[Task]) -> set[str]:
    return {resource.id for task in tasks for resource in task.resources}


def named(relay: Relay, event_id: str) -> set[str]:
    """What an event is about by its plan."""
    rules_of = json.loads(relay.event(event_id).plan)["rules"]
    return {resource["id"] for rule in rules_of for resource in rule["resources"]}


def test_a_part_of_a_leaving_says_what_waits_in_it_and_nothing_else(looked: Looked, leaving: str) -> None:
    [part] = held(looked.relay)
    assert named(looked.relay, part) == {"t1", "t2"}


def test_a_new_address_loses_what_was_not_rejected(looked: Looked, leaving: str, clock: Clock) -> None:
    relay = looked.relay
    operate.decide(relay.database, "eve", "reject", held(relay)[0], {})
    clock.advance(60)
    told = account("ada", Status.DEACTIVATED, groups=["t0", "t1", "t2"], email="ada.new@acme.example")
    looked.directory.accounts["ada"] = told
    answered.keep(relay.database, relay.terms.rules, Question("okta", ACCOUNT, "ada"), looked.directory.look_up("ada"))
    taken = looked.run()
    assert {(task.velt_user_id, *ids([task])) for task in taken} == {("ada.new@acme.example", "t0")}


def test_approving_a_later_part_takes_nothing_that_was_rejected(looked: Looked, leaving: str) -> None:
    relay = looked.relay
    operate.decide(relay.database, "eve", "reject", held(relay)[0], {})
    relay.record(gain("ada", "t3", HOUR - 100, group_name="T3"))
    looked.run()
    [later] = held(relay)
    assert named(relay, later) == {"t3"}
    operate.decide(relay.database, "eve", "approve", later, {})
    assert ids(looked.run()) == {"t3"}


def test_an_approved_part_is_not_asked_about_again(looked: Looked, leaving: str) -> None:
    relay = looked.relay
    operate.decide(relay.database, "eve", "approve", held(relay)[0], {})
    assert ids(looked.run()) == {"t1", "t2"}
    relay.record(gain("ada", "another", HOUR - 100, group_name="Other"))
    assert looked.run() == []
    assert held(relay) == []


def test_what_waits_in_a_part_waits_although_the_guard_has_room(looked: Looked, leaving: str) -> None:
    relay = looked.relay
    [part] = held(relay)
    unguarded = with_directory(*(rule for rule in (TEAMS, LEAVERS)))
    relay.terms = replace(relay.terms, rules=replace(unguarded, guard=None))
    relay.record(gain("ada", "t3", HOUR - 100, group_name="T3"))
    assert ids(looked.run()) == {"t3"}
    operate.decide(relay.database, "eve", "reject", part, {})
    assert looked.run() == []


def test_a_leaving_is_planned_again_itself_and_not_its_part(looked: Looked, leaving: str) -> None:
    relay = looked.relay
    [part] = held(relay)
    assert operate.retry(relay.database, {}, "eve", leaving, {"replan": True})["id"] == leaving
    assert ids(looked.run()) == {"t0"}  # the rest waits still
    assert relay.event(leaving).replay
    operate.decide(relay.database, "eve", "reject", part, {})
    operate.retry(relay.database, {}, "eve", leaving, {"replan": True})
    assert ids(looked.run()) == {"t0"}
    operate.retry(relay.database, {}, "eve", part, {"replan": True})
    assert ids(looked.run()) == {"t1", "t2"}


def test_a_part_that_is_approved_late_takes_what_it_is_about_and_the_rest_is_asked_about(
    looked: Looked, leaving: str, clock: Clock
) -> None:
    relay = looked.relay
    clock.advance(2000)  # so late that the directory is asked first
    [part] = held(relay)
    operate.decide(relay.database, "eve", "approve", part, {})
    groups = ["t0", "t1", "t2", "t3"]
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=groups, email=ADA)
    assert ids(looked.run()) == {"t1", "t2"}
    assert [named(relay, later) for later in held(relay)] == [{"t3"}]


def test_an_approved_part_that_is_cancelled_before_it_is_planned_stays_out(
    looked: Looked, leaving: str, clock: Clock
) -> None:
    relay = looked.relay
    clock.advance(2000)
    [part] = held(relay)
    looked.directory.down = LookUpFailed("okta.example does not answer")
    operate.decide(relay.database, "eve", "approve", part, {})
    looked.run()
    operate.decide(relay.database, "eve", "cancel", part, {})
    relay.terms = replace(relay.terms, rules=replace(with_directory(TEAMS, LEAVERS), guard=None))
    relay.record(gain("ada", "t3", HOUR - 100, group_name="T3"))
    looked.run()
    clock.advance(HOUR)
    looked.directory.down = None
    looked.run()
    assert {row.resource_id for row in relay.revocations() if row.state == "removed"} == {"t0", "t3"}


def test_a_leaving_that_failed_for_want_of_a_field_ends_when_the_rest_is_held(looked: Looked) -> None:
    relay = looked.relay
    two = [{"type": "document", "id": name, "organizationId": "acme"} for name in ("e1", "e2")]
    when = {"kind": "account.deactivated", "user.external_id": ["E1"]}
    made = with_directory({"name": "partners", "when": when, "max_resources": 1, "revoke": two})
    relay.terms = replace(relay.terms, rules=replace(made, guard=None))
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, email=ADA, external_id="E1")
    [event_id] = relay.record(left("ada", HOUR - 1, email=ADA))
    looked.run()
    operate.decide(relay.database, "eve", "reject", held(relay)[0], {})
    assert relay.event(event_id).state == "ignored"
    assert looked.run() == []


def test_a_leaving_of_which_all_was_rejected_is_not_open_for_ever(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    made = with_directory(TEAMS, LEAVERS | {"max_resources": 1})
    relay.terms = replace(relay.terms, rules=replace(made, guard=None))
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["t1", "t2"], email=ADA)
    relay.record(gain("ada", "x", 5, email=ADA))
    looked.run()
    [event_id] = relay.record(left("ada", HOUR - 1))
    looked.run()
    operate.decide(relay.database, "eve", "reject", held(relay)[0], {})
    relay.record(gain("ada", "another", HOUR - 100, group_name="Other"))
    assert looked.run() == []
    assert relay.event(event_id).state == "ignored"


def test_a_new_address_loses_nothing_that_was_cancelled(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    relay.terms = replace(relay.terms, rules=replace(with_directory(*SMALL["rules"]), guard=None))
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["eng"], email=ADA)
    relay.record(gain("ada", "eng", 5, email=ADA))
    looked.run()
    [event_id] = relay.record(left("ada", HOUR - 1))
    [task] = relay.claim()
    looked.look_up()
    relay.settle(task, REFUSED)  # so that each goes alone
    [task] = relay.claim()
    relay.settle(task, REMOVED)
    operate.decide(relay.database, "eve", "cancel", event_id, {})
    clock.advance(60)
    told = account("ada", Status.DEACTIVATED, groups=["eng"], email="ada.new@acme.example")
    looked.directory.accounts["ada"] = told
    answered.keep(relay.database, relay.terms.rules, Question("okta", ACCOUNT, "ada"), looked.directory.look_up("ada"))
    assert ids(looked.run()) == ids([task])


# --- a group that left a group, of whose members nobody has told


@pytest.fixture
def direct(looked: Looked, clock: Clock) -> Relay:
    """bob is a direct member of eng, from which the group `team` is told to have gone."""
    relay = looked.relay
    relay.terms = replace(relay.terms, rules=replace(rules_with_directory(), terse=frozenset({"okta"})))
    looked.directory.accounts |= {
        "team": Account("team", Status.GROUP, 0),
        "bob": account("bob", groups=["eng", "sales"]),
    }
    relay.record(gain("bob", "eng", None), gain("bob", "sales", None))
    for _ in range(3):
        looked.run()
        clock.advance(HOUR)
    return relay


def test_cancelled_before_its_members_were_listed_it_is_nobodys_loss(
    looked: Looked, direct: Relay, clock: Clock
) -> None:
    [event_id] = direct.record(loss("team", "eng", None, twin=True))
    direct.claim()
    looked.look_up()
    direct.claim()
    assert direct.event(event_id).subject is None
    operate.decide(direct.database, "eve", "cancel", event_id, {})
    clock.advance(300)
    looked.directory.accounts["bob"] = account("bob", groups=["sales"])
    direct.record(loss("bob", "eng", None, twin=True))
    taken = looked.run()
    clock.advance(HOUR)
    assert "acme" in ids(taken + looked.run())


def test_cancelled_while_nobody_knows_that_it_is_a_group_it_takes_from_nobody(
    looked: Looked, direct: Relay, clock: Clock
) -> None:
    looked.directory.accounts["bob"], looked.directory.members = account("bob", groups=["sales"]), {"eng": set()}
    [event_id] = direct.record(loss("team", "eng", None, twin=True))
    direct.claim()
    operate.decide(direct.database, "eve", "cancel", event_id, {})
    clock.advance(1)
    assert looked.run() == []


def test_a_loss_that_is_denied_again_ends_no_operators_removal(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    looked.directory.accounts["ada"] = account("ada", groups=["sales"])
    relay.record(gain("ada", "sales", HOUR - 2000, email=ADA))
    looked.run()
    pause(relay, on=True)
    what = {"user": ADA, "resources": [D1.as_velt()], "reason": "a leak"}
    ordered = operate.remove(relay.database, relay.terms.rules, "eve", what)["id"]
    clock.advance(60)
    [event_id] = relay.record(loss("ada", "sales", HOUR + 50))
    for again in (False, True):
        if again:
            operate.retry(relay.database, {}, "eve", event_id, {"replan": True})
        for seconds in (31, 121, 601, 1):
            looked.run()
            clock.advance(seconds)
        assert relay.event(event_id).reason == "still a member"
    pause(relay, on=False)
    looked.run()
    assert relay.states(ordered) == ["removed"]


def test_a_new_name_that_is_planned_again_ends_no_operators_removal(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=rules(*SMALL["rules"], complete=["scim"]))
    relay.record(gain("ada", "sales", 10, group_name="Sales", source="scim"))
    relay.run()
    pause(relay, on=True)
    what = {"user": "ada", "resources": [D1.as_velt()], "reason": "a leak"}
    ordered = operate.remove(relay.database, relay.terms.rules, "eve", what)["id"]
    [renamed] = relay.record(gain("ada", "sales", HOUR, group_name="Sellers", source="scim"))
    relay.run()
    operate.retry(relay.database, {}, "eve", renamed, {"replan": True})
    relay.run()
    pause(relay, on=False)
    relay.run()
    assert relay.states(ordered) == ["removed"]

"""What somebody decided holds, whatever is told afterwards; on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay import operate
from relay.model import Account, Guard, Kind, Status
from relay.rules import RuleSet
from relay.store import delivery, tables
from tests.directory_people import ADDED, Looked, account, rules_with_directory
from tests.people import (
    CHAT,
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

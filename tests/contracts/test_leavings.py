"""Leavings that are told more than once, in parts, or before what they take; on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay import operate
from relay.errors import LookUpFailed
from relay.model import Kind, Status
from relay.store import answered
from relay.store.look_ups import ACCOUNT, Question
from tests.contracts.test_decisions_hold import ADA, LEAVERS, TEAMS, held, ids, named, pause, with_directory
from tests.contracts.test_decisions_hold import leaving as leaving  # a fixture
from tests.directory_people import Looked, account
from tests.people import ALL, REFUSED, REMOVED, TOLD, Clock, Relay, back, event, gain, left, rules

HOUR = 3600
NEW = "ada.new@acme.example"
PER_GROUP = {
    "name": "per group",
    "when": {"kind": "group.member_removed", "group.name": {"regex": "(?P<doc>Doc-.+)"}},
    "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
}


@pytest.fixture
def by_template(relay: Relay) -> Relay:
    """No directory is asked, and what a group gives only its name tells. Deletions are no business of the rules."""
    relay.terms = replace(relay.terms, rules=rules(PER_GROUP, LEAVERS, identity=["{user.email}", "{user.id}"]))
    return relay


def taken(relay: Relay) -> set[str]:
    return ids(relay.run())


def settled(looked: Looked, clock: Clock) -> set[str]:
    """What is taken until every doubt about what a directory says is over."""
    found = set()
    for _ in range(16):
        found |= ids(looked.run())
        clock.advance(60)
    return found


def say(looked: Looked, *groups: str, status: Status = Status.DEACTIVATED, email: str = ADA) -> None:
    looked.directory.accounts["ada"] = account("ada", status, groups=groups, email=email)


def asked(looked: Looked) -> None:
    """The directory is asked for ada by nobody in particular."""
    relay, answer = looked.relay, looked.directory.look_up("ada")
    answered.keep(relay.database, relay.terms.rules, Question("okta", ACCOUNT, "ada"), answer)


# --- told twice


def test_a_late_gain_goes_with_the_leaving_although_the_account_was_deleted_since(by_template: Relay) -> None:
    relay = by_template
    relay.record(gain("ada", "g0", 0, group_name="Doc-0"), left("ada", 100))
    assert taken(relay) == {"Doc-0"}
    relay.record(event(Kind.ACCOUNT_DELETED, "ada", 200))
    relay.run()
    relay.record(gain("ada", "g1", 50, group_name="Doc-1"))
    assert taken(relay) == {"Doc-1"}


def test_a_late_gain_goes_with_the_leaving_although_that_was_told_again(by_template: Relay, clock: Clock) -> None:
    relay = by_template
    for _ in range(2):
        [told] = relay.record(left("ada", None, key=None, twin=True))
        relay.run()
        clock.advance(5)
    assert relay.event(told).reason == "nothing new"
    relay.record(gain("ada", "g1", None, group_name="Doc-1"))
    assert taken(relay) == {"Doc-1"}


def test_a_late_gain_from_before_an_earlier_leaving_goes_with_the_last_one(by_template: Relay) -> None:
    relay = by_template
    [first] = relay.record(left("ada", 100))
    relay.run()
    relay.record(back("ada", 150))
    relay.run()
    [second] = relay.record(left("ada", 200))
    relay.run()
    relay.record(gain("ada", "g1", 50, group_name="Doc-1"))
    assert taken(relay) == {"Doc-1"}
    assert (len(relay.revocations(first)), len(relay.revocations(second))) == (0, 1)


def test_a_new_address_loses_what_the_leaving_took_although_the_account_was_suspended_since(
    looked: Looked, clock: Clock
) -> None:
    relay = looked.relay
    teams = TEAMS | {"when": {"kind": "group.member_removed", "group.name": ["T0"]}}
    relay.terms = replace(relay.terms, rules=replace(with_directory(teams, LEAVERS), guard=None))
    say(looked, "t0")
    relay.record(gain("ada", "t0", 5, email=ADA, group_name="T0"), left("ada", HOUR - 1))
    assert ids(looked.run()) == {"t0"}
    relay.record(event(Kind.ACCOUNT_SUSPENDED, "ada", HOUR))
    looked.run()
    for email in (ADA, NEW):
        clock.advance(2 * HOUR)
        say(looked, "t0", email=email)
        asked(looked)
    assert {(task.velt_user_id, *ids([task])) for task in looked.run()} == {(NEW, "t0")}


@pytest.mark.parametrize("late", [False, True])
def test_whoever_the_account_was_when_it_gained_loses_it(by_template: Relay, late: bool) -> None:
    relay = by_template
    gained = gain("ada", "g1", 10, group_name="Doc-1")
    relay.record(gain("ada", "x", 0, email=ADA, group_name="X"), *([] if late else [gained]))
    relay.run()
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", 20, email=NEW))
    relay.run()
    relay.record(left("ada", 30))
    calls = relay.run()
    if late:
        relay.record(gained)
    calls += relay.run()
    assert {(task.velt_user_id, *ids([task])) for task in calls} == {(ADA, "Doc-1"), (NEW, "Doc-1")}


BOTH = LEAVERS | {"when": {"kind": ["account.deactivated", "account.deleted"]}}


@pytest.fixture
def deleted(by_template: Relay) -> Relay:
    """ada was deactivated and then deleted, and rules are about both."""
    relay = by_template
    relay.terms = replace(relay.terms, rules=rules(PER_GROUP, BOTH, identity=["{user.email}", "{user.id}"]))
    relay.record(gain("ada", "g0", 0, group_name="Doc-0"), left("ada", 100))
    relay.run()
    relay.record(event(Kind.ACCOUNT_DELETED, "ada", 200))
    relay.run()
    return relay


def test_a_late_gain_goes_with_the_last_of_two_leavings_alone(deleted: Relay) -> None:
    relay = deleted
    pause(relay, on=True)
    relay.record(gain("ada", "g1", 50, group_name="Doc-1"))
    relay.run()
    [waits] = [row for row in relay.revocations() if row.state == "pending"]
    assert relay.event(waits.event_id).kind == "account.deleted"
    operate.decide(relay.database, "eve", "cancel", waits.event_id, {})
    relay.record(gain("ada", "g2", 50, group_name="Doc-2"))
    pause(relay, on=False)
    assert relay.run() == []


def test_what_waits_of_the_last_leaving_is_not_taken_with_the_one_before(deleted: Relay) -> None:
    relay = deleted
    relay.terms = replace(relay.terms, rules=rules(PER_GROUP, BOTH | {"max_resources": 1}, identity=["{user.id}"]))
    for number in (1, 2):
        relay.record(gain("ada", f"g{number}", 50, group_name=f"Doc-{number}"))
        relay.run()
    assert [named(relay, part) for part in held(relay)] == [{"Doc-1", "Doc-2"}]


def test_a_leaving_takes_nothing_from_who_its_account_never_was(by_template: Relay) -> None:
    """Her Entra account had another address once; her Okta account is switched off."""
    relay = by_template
    made = rules(PER_GROUP, LEAVERS, identity=["{user.email}"], accounts="same_source")
    relay.terms = replace(relay.terms, rules=made)
    relay.record(gain("e1", "g5", 0, source="entra", email=ADA, group_name="Doc-5"))
    relay.run()
    relay.record(event(Kind.ACCOUNT_CHANGED, "e1", 20, source="entra", email=NEW))
    relay.run()
    relay.record(gain("u1", "o1", 30, email=NEW, group_name="Doc-1"))
    relay.run()
    [leaving] = relay.record(left("u1", 100, email=NEW))
    relay.run()
    relay.record(gain("e1", "g9", None, source="entra", group_name="Doc-9"))
    relay.run()
    assert len({row.person_id for row in relay.revocations(leaving)}) == 1
    assert relay.states(leaving) == ["removed", "retained", "retained"]


def test_nor_does_that_of_who_has_a_former_address_now(by_template: Relay) -> None:
    relay = by_template
    relay.record(gain("u1", "x", 0, email=ADA, group_name="X"))
    relay.record(event(Kind.ACCOUNT_CHANGED, "u1", 20, email=NEW))
    relay.record(gain("u9", "g9", 30, email=ADA, group_name="Doc-9"))
    relay.run()
    [leaving] = relay.record(left("u9", 100, email=ADA))
    relay.run()
    relay.record(gain("u1", "g1", None, group_name="Doc-1"))
    relay.run()
    assert [row.resource_id for row in relay.revocations(leaving)] == ["Doc-9"]


# --- a return that is none


@pytest.fixture
def denied(looked: Looked, clock: Clock) -> Looked:
    """ada is disabled, and what came afterwards says that she is active; the directory denies it."""
    relay = looked.relay
    made = rules(PER_GROUP, LEAVERS, identity=["{user.email}"], fills={"okta": ALL})
    relay.terms = replace(relay.terms, rules=replace(made, looked_up={"okta": frozenset({"user.email"})}))
    say(looked, "doc-0", status=Status.ACTIVE)
    relay.record(gain("ada", "doc-0", 0, group_name="Doc-0"))
    looked.run()
    say(looked, "doc-0")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", None, key=None, twin=True))
    assert ids(looked.run()) == {"Doc-0"}
    clock.advance(30)
    [told] = relay.record(back("ada", None, key=None, twin=True))
    settled(looked, clock)
    assert (relay.event(told).state, relay.event(told).reason) == (
        "ignored",
        "gain, but by its directory the account is deactivated",
    )
    return looked


def test_a_return_that_the_directory_denies_leaves_nobody_a_late_gain(denied: Looked, clock: Clock) -> None:
    say(denied, "doc-0", "doc-1")
    denied.relay.record(gain("ada", "doc-1", None, group_name="Doc-1", key=None, twin=True))
    assert settled(denied, clock) == {"Doc-1"}


def test_nor_does_it_leave_a_new_address_anything(denied: Looked, clock: Clock) -> None:
    clock.advance(2 * HOUR)
    say(denied, "doc-0", email=NEW)
    asked(denied)
    assert {(task.velt_user_id, *ids([task])) for task in denied.run()} == {(NEW, "Doc-0")}


# --- in parts


@pytest.fixture
def gone_again(looked: Looked, leaving: str, clock: Clock) -> str:
    """ada was back and is out of force again, of which only the directory knows; the part of before is approved."""
    relay = looked.relay
    clock.advance(100)
    relay.record(back("ada", HOUR + 50))
    looked.run()
    clock.advance(2000)
    [part] = held(relay)
    say(looked, "t0", "t1", "t2")
    operate.decide(relay.database, "eve", "approve", part, {})
    assert settled(looked, clock) == {"t1", "t2"}
    return part


def test_an_approved_part_does_not_stand_for_another_leaving(looked: Looked, gone_again: str, clock: Clock) -> None:
    [again] = looked.relay.record(left("ada", None, key=None, twin=True))
    settled(looked, clock)
    assert looked.relay.event(again).state == "done"
    assert {row.resource_id for row in looked.relay.revocations(again)} == {"t0", "t1", "t2"}


def test_a_late_gain_adds_nothing_to_an_approved_part(looked: Looked, leaving: str, clock: Clock) -> None:
    relay = looked.relay
    clock.advance(2000)
    [part] = held(relay)
    say(looked, "t0", "t1", "t2", "t3")
    operate.decide(relay.database, "eve", "approve", part, {})
    assert ids(looked.run()) == {"t1", "t2"}
    assert [named(relay, waits) for waits in held(relay)] == [{"t3"}]
    relay.record(gain("ada", "another", HOUR - 100, group_name="Other"))
    assert looked.run() == []
    assert [named(relay, waits) for waits in held(relay)] == [{"t3"}]


def test_nor_when_the_part_is_all_that_is_known_of_another_leaving(
    looked: Looked, gone_again: str, clock: Clock
) -> None:
    looked.relay.record(gain("ada", "another", HOUR - 100, group_name="Other"))
    assert settled(looked, clock) == set()
    assert {row.resource_id for row in looked.relay.revocations(gone_again)} == {"t1", "t2"}


def test_an_approved_part_that_is_cancelled_stays_out_of_a_leaving_that_was_planned_again(
    looked: Looked, leaving: str, clock: Clock
) -> None:
    relay = looked.relay
    pause(relay, on=True)
    clock.advance(2000)
    [part] = held(relay)
    looked.directory.down = LookUpFailed("okta.example does not answer")
    operate.decide(relay.database, "eve", "approve", part, {})
    operate.retry(relay.database, {}, "eve", leaving, {"replan": True})
    looked.run()
    looked.directory.down = None
    clock.advance(60)
    looked.run()
    operate.decide(relay.database, "eve", "cancel", part, {})
    pause(relay, on=False)
    assert settled(looked, clock) == {"t0"}


def test_a_leaving_that_is_to_be_planned_again_is_although_its_part_is_completed_by_the_same_answer(
    looked: Looked, leaving: str, clock: Clock
) -> None:
    relay = looked.relay
    [part] = held(relay)
    clock.advance(600)
    operate.decide(relay.database, "eve", "approve", part, {})
    [task] = relay.claim()
    assert relay.event(part).completing
    relay.settle(task, REMOVED)
    clock.advance(400)
    operate.retry(relay.database, {}, "eve", leaving, {"replan": True})
    assert relay.claim() == ()
    say(looked, "t0", "t1", "t2", "t3")
    assert "t0" in settled(looked, clock)
    assert relay.event(leaving).planned_at is not None


def test_a_part_of_which_the_directory_denied_the_loss_is_still_about_the_same(
    looked: Looked, leaving: str, clock: Clock
) -> None:
    relay = looked.relay
    clock.advance(2000)
    [part] = held(relay)
    operate.decide(relay.database, "eve", "approve", part, {})
    say(looked, "t0", "t1", "t2", status=Status.ACTIVE)
    looked.run()
    assert relay.event(part).reason == "the account is active"
    say(looked, "t0", "t1", "t2")
    clock.advance(2000)
    operate.retry(relay.database, {}, "eve", part, {"replan": True})
    assert settled(looked, clock) == {"t1", "t2"}


# --- cancelled


def test_an_approved_part_takes_up_no_leaving_that_was_cancelled(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    teams = TEAMS | {"when": {"kind": "group.member_removed", "group.name": ["T0", "T1", "T2", "T3"]}}
    made = with_directory(teams, LEAVERS | {"max_resources": 1})
    relay.terms = replace(relay.terms, rules=replace(made, guard=None))
    say(looked, "t0", "t1", "t2")
    relay.record(gain("ada", "t0", 5, email=ADA, group_name="T0"))
    looked.run()
    pause(relay, on=True)
    [leaving] = relay.record(left("ada", HOUR - 1))
    looked.run()
    [part] = held(relay)
    operate.decide(relay.database, "eve", "cancel", leaving, {})
    pause(relay, on=False)
    clock.advance(5)
    operate.decide(relay.database, "eve", "approve", part, {})
    say(looked, "t0", "t1", "t2", "t3")
    assert ids(looked.run()) == {"t1", "t2"}
    assert held(relay) == []
    assert relay.event(leaving).reason == "cancelled by eve"


def cancelled(looked: Looked, *groups: str) -> tuple[str, set[str]]:
    """The leaving of ada, who is in these groups, and what it takes before the rest of it is cancelled."""
    relay = looked.relay
    say(looked, *groups)
    relay.record(*(gain("ada", group, 5, email=ADA, group_name=group.title()) for group in groups))
    looked.run()
    [leaving] = relay.record(left("ada", HOUR - 1))
    [both] = relay.claim()
    looked.look_up()
    relay.settle(both, REFUSED)  # so that each is asked for by itself
    [one] = relay.claim()
    relay.settle(one, REMOVED)
    operate.decide(relay.database, "eve", "cancel", leaving, {})
    return leaving, ids([one])


def taken_from_a_new_address(looked: Looked, clock: Clock, *groups: str) -> set[tuple[str, str]]:
    """What is taken, and from whom, once the directory says who ada is now."""
    clock.advance(60)
    say(looked, *groups, email=NEW)
    asked(looked)
    return {(task.velt_user_id, resource.id) for task in looked.run() for resource in task.resources}


def test_a_new_address_loses_only_what_a_cancelled_leaving_had_taken(looked: Looked, clock: Clock) -> None:
    teams = TEAMS | {"when": {"kind": "group.member_removed", "group.name": ["T0", "T1", "T3"]}}
    looked.relay.terms = replace(looked.relay.terms, rules=replace(with_directory(teams, LEAVERS), guard=None))
    _, [taken] = cancelled(looked, "t0", "t1")
    assert taken_from_a_new_address(looked, clock, "t0", "t1", "t3") == {(NEW, taken)}


def test_nor_what_it_had_left_to_them_for_another_reason(looked: Looked, clock: Clock) -> None:
    """t0 or t3 was removed and the other cancelled; t1 another source gives still."""
    relay = looked.relay
    teams = TEAMS | {"when": {"kind": "group.member_removed", "group.name": ["T0", "T1", "T3"]}}
    teams |= {"revoke": [{"type": "document", "id": "{group.name}", "organizationId": "acme"}]}
    made = replace(with_directory(teams, LEAVERS), guard=None, fills={"okta": TOLD, "entra": ALL})
    relay.terms = replace(relay.terms, rules=replace(made, accounts="same_source"))
    relay.record(gain("e1", "any", 1, source="entra", email=ADA, group_name="T1"))
    leaving, [taken] = cancelled(looked, "t0", "t1", "t3")
    assert relay.states(leaving) == ["cancelled", "removed", "retained"]
    assert taken_from_a_new_address(looked, clock, "t0", "t1", "t3") == {(NEW, taken)}

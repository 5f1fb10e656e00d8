"""Gains that become known when a removal is under way or may have happened unseen, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay import operate
from relay.errors import Refused
from relay.model import Account, Guard, Kind, Outcome, Status
from relay.store import answered, delivery, settling
from relay.store.claim import Task
from relay.store.look_ups import ACCOUNT, Question
from tests.directory_people import ADDED, Looked, account
from tests.people import (
    ABSENT,
    ALL,
    D1,
    DOWN,
    HUNG,
    REFUSED,
    REMOVED,
    SMALL,
    TOLD,
    Clock,
    Relay,
    back,
    event,
    gain,
    left,
    loss,
    rules,
    small_rules,
)

HOUR = 3600
ADA = "ada@acme.example"


def needs(relay: Relay) -> dict[str, bool]:
    return {row.resource_id: row.needs_regrant for row in relay.revocations()}


def say(looked: Looked, told: Account) -> None:
    """Have the directory say this now, asked by nobody in particular."""
    looked.directory.accounts["ada"] = told
    answer = looked.directory.look_up("ada")
    question = Question("okta", ACCOUNT, "ada")
    answered.keep(looked.relay.database, looked.relay.terms.rules, question, answer)


def prove_the_key(looked: Looked) -> None:
    """Before its first success a key may be the wrong one, and "there is none" means nothing."""
    looked.directory.accounts["bob"] = account("bob")
    looked.relay.record(loss("bob", "sales", HOUR - 10))
    assert len(looked.run()) == 1


def test_an_answer_that_comes_while_the_call_is_under_way_marks_what_the_call_takes(
    looked: Looked, clock: Clock
) -> None:
    relay = looked.relay
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 10))
    assert relay.claim() == ()
    looked.look_up()
    [task] = relay.claim()
    clock.advance(1)
    say(looked, account("ada", groups=["sales"]))  # gives d1, and nobody has told of it
    relay.settle(task, REMOVED)
    assert needs(relay) == {"acme": False, "d1": True}


@pytest.fixture
def under_way(looked: Looked, clock: Clock) -> Task:
    """A call that takes d1 from ada; before it ends the directory says that another group gives it."""
    relay = looked.relay
    prove_the_key(looked)
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "sales", HOUR - 10))
    assert relay.claim() == ()
    looked.look_up()
    [task] = relay.claim()
    clock.advance(1)
    say(looked, account("ada", groups=["eng"]))
    return task


@pytest.mark.parametrize(
    ("outcome", "state", "marked"),
    [
        (REMOVED, "removed", True),
        (DOWN, "retained", False),
        (HUNG, "retained", True),
        (REFUSED, "dead", False),
        (ABSENT, "absent", False),
    ],
)
def test_what_comes_of_a_call_decides_whether_it_needs_a_new_grant(
    looked: Looked, clock: Clock, under_way: Task, outcome: Outcome, state: str, marked: bool
) -> None:
    looked.relay.settle(under_way, outcome)
    clock.advance(HOUR)
    assert looked.relay.claim() == ()
    [row] = [row for row in looked.relay.revocations() if row.person_id == under_way.person_id]
    assert (row.state, row.needs_regrant) == (state, marked)


@pytest.mark.parametrize("outcome", [DOWN, HUNG])
def test_what_is_open_still_needs_nothing_yet(looked: Looked, under_way: Task, outcome: Outcome) -> None:
    looked.relay.settle(under_way, outcome)
    [row] = [row for row in looked.relay.revocations() if row.person_id == under_way.person_id]
    assert (row.state, row.needs_regrant) == ("pending", False)


def test_a_call_whose_worker_died_is_judged_again(looked: Looked, under_way: Task, clock: Clock) -> None:
    clock.advance(HOUR)
    assert looked.relay.claim() == ()
    [row] = [row for row in looked.relay.revocations() if row.person_id == under_way.person_id]
    assert (row.state, row.needs_regrant) == ("retained", True)


def hung_before(looked: Looked, clock: Clock, last: Outcome) -> str:
    """The event of a removal whose first call was not answered, and whose second came to this; a gain came late."""
    relay = looked.relay
    prove_the_key(looked)
    looked.directory.accounts["ada"] = account("ada")
    [event_id] = relay.record(loss("ada", "sales", HOUR - 10))
    assert relay.claim() == ()
    looked.look_up()
    for outcome in (HUNG, last):
        [task] = relay.claim()
        relay.settle(task, outcome)
        clock.advance(60)
    relay.record(gain("ada", "eng", HOUR - 20))
    looked.run()
    return event_id


@pytest.mark.parametrize(("last", "state"), [(ABSENT, "absent"), (REFUSED, "dead")])
def test_what_an_unanswered_call_may_have_taken_needs_a_new_grant(
    looked: Looked, clock: Clock, last: Outcome, state: str
) -> None:
    [row] = looked.relay.revocations(hung_before(looked, clock, last))
    assert (row.state, row.needs_regrant) == (state, True)


def test_what_is_lost_after_all_and_tried_again_needs_no_new_grant(looked: Looked, clock: Clock) -> None:
    event_id = hung_before(looked, clock, REFUSED)
    clock.advance(HOUR)
    say(looked, account("ada"))
    operate.retry(looked.relay.database, {}, "eve", event_id, {})
    assert len(looked.run()) == 1
    [row] = looked.relay.revocations(event_id)
    assert (row.state, row.needs_regrant) == ("removed", False)


def test_clocks_that_differ_by_seconds_hide_nothing(relay: Relay, clock: Clock) -> None:
    """The removal was settled at HOUR by the database's clock, which is behind the provider's."""
    relay.record(loss("ada", "eng", HOUR - 10))
    relay.run()
    clock.advance(60)
    relay.record(gain("ada", "sales", HOUR + 8))
    relay.run()
    assert needs(relay) == {"acme": False, "d1": True}


def test_what_is_gained_after_the_removal_needs_no_new_grant(relay: Relay, clock: Clock) -> None:
    relay.record(loss("ada", "eng", HOUR - 10))
    relay.run()
    clock.advance(60)
    relay.record(gain("ada", "sales", HOUR + 11))
    relay.run()
    assert needs(relay) == {"acme": False, "d1": False}


def test_what_was_held_all_along_is_to_be_granted_again_although_nothing_was_there_any_more(
    looked: Looked, clock: Clock
) -> None:
    """She lost one group twice, and had another one that gives the same, of which nobody had told."""
    relay = looked.relay
    prove_the_key(looked)
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "sales", HOUR - 10))
    looked.run()
    clock.advance(60)
    relay.record(gain("ada", "sales", HOUR + 20))
    looked.run()
    relay.record(loss("ada", "sales", HOUR + 30))
    assert relay.claim() == ()
    looked.look_up()
    [task] = relay.claim()
    clock.advance(1)
    say(looked, account("ada", groups=["eng"]))
    relay.settle(task, ABSENT)
    hers = [row for row in relay.revocations() if row.person_id == task.person_id]
    assert [(row.state, row.needs_regrant) for row in hers] == [("removed", True), ("absent", False)]


def test_a_call_that_was_never_made_needs_no_new_grant(looked: Looked, under_way: Task) -> None:
    relay = looked.relay
    settling.give_back(relay.database, under_way)
    operate.decide(relay.database, "eve", "cancel", under_way.event_ids[0], {})
    [row] = relay.revocations(under_way.event_ids[0])
    assert (row.state, row.needs_regrant) == ("cancelled", False)


def test_only_what_a_gain_gives_is_to_be_granted_again_by_it(relay: Relay, clock: Clock) -> None:
    """It may be up to four hours old; what was granted again by hand has nothing to do with it."""
    relay.record(gain("ada", "eng-2", 0), loss("ada", "eng-2", 10))
    relay.run()
    relay.record(gain("ada", "sales", 5))  # it came late
    relay.run()
    [marked] = [row for row in relay.revocations() if row.needs_regrant]
    operate.decide(relay.database, "eve", "regranted", marked.event_id, {})
    clock.advance(60)
    relay.record(gain("ada", "choir", None))
    relay.run()
    assert needs(relay) == {"acme": False, "d1": False}


def test_what_an_operator_removes_is_not_given_back_by_a_new_name(relay: Relay, clock: Clock) -> None:
    relay.terms = replace(relay.terms, rules=small_rules(complete=["scim"]))
    relay.record(gain("ada", "eng", 10, group_name="E", source="scim"))
    relay.run()
    what = {"user": "ada", "resources": [D1.as_velt()], "reason": "a leak"}
    operate.remove(relay.database, relay.terms.rules, "eve", what)
    [task] = relay.claim()
    clock.advance(1)
    relay.record(gain("ada", "eng", HOUR + 1, group_name="F", source="scim"))
    relay.settle(task, REMOVED)
    relay.run()
    assert needs(relay) == {"d1": False}


@pytest.fixture
def ordered(looked: Looked, clock: Clock) -> Relay:
    """An operator's removal of d1 waits; an hour and a minute after noon."""
    relay = looked.relay
    looked.directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "everyone", 10, email=ADA), gain("ada", "sales", 10, email=ADA))
    looked.run()
    with relay.database.write() as connection:
        delivery.pause(connection, "eve", None)
    what = {"user": ADA, "resources": [D1.as_velt()], "reason": "a leak"}
    operate.remove(relay.database, relay.terms.rules, "eve", what)
    looked.run()
    clock.advance(60)
    return relay


def resumed(looked: Looked) -> list[Task]:
    with looked.relay.database.write() as connection:
        delivery.resume(connection)
    return looked.run()


def test_a_gain_that_a_look_up_tells_first_ends_an_operators_removal(looked: Looked, ordered: Relay) -> None:
    say(looked, account("ada", groups=["everyone", "eng"]))
    ordered.record(gain("ada", "eng", HOUR + 50))
    assert resumed(looked) == []


def test_a_gain_that_comes_before_its_loss_ends_an_operators_removal(looked: Looked, ordered: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["everyone", "sales"])
    ordered.record(gain("ada", "sales", HOUR + 50))
    looked.run()
    ordered.record(loss("ada", "sales", HOUR + 10))
    assert resumed(looked) == []


def test_a_new_name_by_which_a_group_gives_it_is_a_gain(relay: Relay, clock: Clock) -> None:
    by_name = {"name": "t1", "when": {"kind": "group.member_removed", "group.name": ["T1"]}, "revoke": [D1.as_velt()]}
    relay.terms = replace(relay.terms, rules=rules(by_name, complete=["scim"]))
    relay.record(gain("ada", "g", 10, group_name="Other", source="scim"))
    relay.record(gain("ada", "h", 10, group_name="T1", source="scim"))
    relay.run()
    relay.record(loss("ada", "h", HOUR - 1, group_name="T1", source="scim"))
    [task] = relay.claim()
    clock.advance(1)
    relay.record(gain("ada", "g", HOUR + 1, group_name="T1", source="scim"))
    relay.settle(task, REMOVED)
    relay.run()
    assert needs(relay) == {"d1": True}


def test_an_account_in_the_place_of_a_lost_one_gives_back_what_other_sources_give(relay: Relay, clock: Clock) -> None:
    relay.terms = replace(relay.terms, rules=small_rules(accounts="any", complete=["okta", "scim"]))
    relay.record(gain("s1", "sales", 10, source="scim", login="ada"), gain("u1", "everyone", 10, login="ada"))
    relay.run()
    relay.record(left("u1", HOUR - 1, login="ada"))
    [task] = relay.claim()
    clock.advance(1)
    relay.record(gain("u2", "everyone", HOUR + 1, login="ada"))
    relay.settle(task, REMOVED)
    relay.run()
    assert needs(relay) == {"acme": False, "chat": False, "d1": True}


def test_a_return_during_the_call_is_to_be_granted_again_where_nobody_tells_what_there_was(
    relay: Relay, clock: Clock
) -> None:
    relay.record(left("ada", HOUR - 1))
    [task] = relay.claim()
    clock.advance(1)
    relay.record(back("ada", HOUR))
    relay.settle(task, REMOVED)
    relay.run()
    assert set(needs(relay).values()) == {True}


def test_a_return_gives_back_nothing_that_was_lost_before(relay: Relay, clock: Clock) -> None:
    """Without a directory a leaving takes all that there may be, also what was lost and taken long ago."""
    relay.record(gain("ada", "sales", 0), loss("ada", "sales", 10))
    relay.run()
    [leaving] = relay.record(left("ada", HOUR - 1))
    relay.run()
    relay.record(back("ada", HOUR))
    relay.run()
    assert {row.resource_id for row in relay.revocations(leaving) if row.needs_regrant} == {"acme", "chat"}


def test_a_gain_marks_nothing_that_was_gained_after_its_removal(relay: Relay, clock: Clock) -> None:
    """Somebody who was hired again: the account of before is lost."""
    relay.terms = replace(relay.terms, rules=small_rules(accounts="same_source"))
    relay.record(left("u1", 0, login="ada"), gain("u2", "sales", 10, login="ada"), loss("u2", "sales", 20, login="ada"))
    relay.run()
    clock.advance(HOUR)
    relay.record(gain("u2", "sales", HOUR + 1800, login="ada"), gain("u2", "choir", None, login="ada"))
    relay.run()
    assert not any(row.needs_regrant for row in relay.revocations() if row.resource_id == "d1")


@pytest.mark.parametrize("first", ["okta", "entra"])
def test_the_last_account_that_returns_gives_back_what_went_with_each_where_all_are_needed(
    relay: Relay, clock: Clock, first: str
) -> None:
    """Both returns are older than the removals and come after them; between the two she is entitled to nothing."""
    relay.terms = replace(relay.terms, rules=small_rules(accounts="any", fills={"okta": ALL, "entra": ALL}))
    second = "entra" if first == "okta" else "okta"
    for number, source in enumerate([first, second]):
        relay.record(left("ada", HOUR - 100 + number, source=source, login="ada"))
        relay.run()
    assert [row.state for row in relay.revocations()] == ["removed"] * 6
    relay.record(back("ada", HOUR - 80, login="ada"))
    relay.run()
    assert not any(row.needs_regrant for row in relay.revocations())
    relay.record(back("ada", HOUR - 70, source="entra", login="ada"))
    relay.run()
    assert all(row.needs_regrant for row in relay.revocations())


def regrant(relay: Relay) -> None:
    """Somebody grants again whatever is listed, and says so."""
    for event_id in {row.event_id for row in relay.revocations() if row.needs_regrant}:
        operate.decide(relay.database, "eve", "regranted", event_id, {})


def taken_and_listed(relay: Relay) -> None:
    """A removal of acme and d1, and a gain from before it that comes late and gives d1."""
    relay.record(gain("ada", "eng-2", 0), loss("ada", "eng-2", 10))
    relay.run()
    relay.record(gain("ada", "sales", 5))
    relay.run()
    assert needs(relay) == {"acme": False, "d1": True}


def test_what_was_granted_again_is_not_listed_anew_when_the_gain_is_told_once_more(relay: Relay, clock: Clock) -> None:
    taken_and_listed(relay)
    regrant(relay)
    clock.advance(60)
    relay.record(gain("ada", "sales", None, key=None, twin=True))
    relay.run()
    assert needs(relay) == {"acme": False, "d1": False}


def test_nor_when_a_return_is_told_once_more(relay: Relay, clock: Clock) -> None:
    relay.record(left("ada", None, key=None, twin=True))
    [task] = relay.claim()
    clock.advance(1)
    relay.record(back("ada", None, key=None, twin=True))
    relay.settle(task)
    relay.run()
    assert set(needs(relay).values()) == {True}
    regrant(relay)
    clock.advance(60)
    relay.record(back("ada", None, key=None, twin=True))
    relay.run()
    assert set(needs(relay).values()) == {False}


@pytest.mark.parametrize("accounts", ["same_source", "any"])
def test_nor_by_another_gain_of_somebody_who_was_hired_again(relay: Relay, clock: Clock, accounts: str) -> None:
    relay.terms = replace(relay.terms, rules=small_rules(accounts=accounts))
    relay.record(left("u1", 0, login="ada"), gain("u2", "eng-2", 10, login="ada"), loss("u2", "eng-2", 20, login="ada"))
    relay.run()
    relay.record(gain("u2", "sales", 15, login="ada"))
    relay.run()
    assert {row.resource_id for row in relay.revocations() if row.needs_regrant} == {"d1"}
    regrant(relay)
    clock.advance(60)
    relay.record(gain("u2", "choir", None, login="ada"))
    relay.run()
    assert not any(row.needs_regrant for row in relay.revocations())


def test_another_gain_gives_back_nothing_by_a_rule_that_is_new(relay: Relay, clock: Clock) -> None:
    """Of who was hired again too, only the gain of the very group gives back what it gives."""
    relay.terms = replace(relay.terms, rules=small_rules(accounts="same_source"))
    relay.record(left("u1", 0, login="ada"), gain("u2", "everyone", 10, login="ada"))
    relay.record(gain("u2", "sales", 10, login="ada"), loss("u2", "sales", 20, login="ada"))
    relay.run()
    everyone = {"name": "all", "when": {"kind": "group.member_removed", "group.id": "everyone"}}
    made = rules(*SMALL["rules"], everyone | {"revoke": [D1.as_velt()]}, accounts="same_source")
    relay.terms = replace(relay.terms, rules=made)
    relay.record(gain("u2", "choir", None, login="ada"))
    relay.run()
    assert not any(row.needs_regrant for row in relay.revocations() if row.resource_id == "d1")


def test_what_nobody_granted_again_is_listed_when_it_becomes_known(relay: Relay, clock: Clock) -> None:
    """What was said of the one resource of a removal is not said of the other."""
    taken_and_listed(relay)
    regrant(relay)
    relay.record(gain("ada", "eng", 6))
    relay.run()
    assert needs(relay) == {"acme": True, "d1": False}


def test_an_earlier_removal_of_what_was_granted_again_is_not_listed_either(relay: Relay, clock: Clock) -> None:
    relay.record(gain("ada", "eng-2", 0), loss("ada", "eng-2", 10))
    relay.run()
    clock.advance(HOUR)
    relay.record(gain("ada", "eng", HOUR + 100), loss("ada", "eng", HOUR + 200))
    relay.run()
    relay.record(gain("ada", "sales", HOUR + 150))
    relay.run()
    assert [(row.resource_id, row.needs_regrant) for row in relay.revocations() if row.needs_regrant] == [("d1", True)]
    regrant(relay)
    clock.advance(60)
    relay.record(gain("ada", "sales", None, key=None, twin=True))
    relay.run()
    assert not any(row.needs_regrant for row in relay.revocations())


def test_what_is_taken_after_it_was_granted_again_is_listed_as_ever(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    event_id = hung_before(looked, clock, REFUSED)
    regrant(relay)
    clock.advance(HOUR)
    say(looked, account("ada"))
    operate.retry(relay.database, {}, "eve", event_id, {})
    assert len(looked.run()) == 1
    clock.advance(60)
    relay.record(gain("ada", "sales", 2 * HOUR))  # before the second removal, and it comes after it
    say(looked, account("ada", groups=["sales"]))
    looked.run()
    [row] = relay.revocations(event_id)
    assert (row.state, row.needs_regrant) == ("removed", True)


def test_what_may_have_been_taken_unseen_and_was_granted_again_is_not_listed_when_its_event_is_cancelled(
    looked: Looked, clock: Clock
) -> None:
    relay = looked.relay
    event_id = hung_before(looked, clock, REFUSED)
    regrant(relay)
    operate.decide(relay.database, "eve", "cancel", event_id, {})
    [row] = relay.revocations(event_id)
    assert (row.state, row.needs_regrant) == ("cancelled", False)


def test_whoever_leaves_loses_what_was_granted_again_and_an_operator_let_them_keep(relay: Relay) -> None:
    known = small_rules(fills={"okta": ALL}, complete=["okta"])
    relay.terms = replace(relay.terms, rules=known)
    taken_and_listed(relay)
    regrant(relay)
    relay.terms = replace(relay.terms, rules=replace(known, guard=Guard(0, HOUR)))
    [kept] = relay.record(loss("ada", "sales", 20))
    assert relay.run() == []
    operate.decide(relay.database, "eve", "reject", kept, {})
    relay.terms = replace(relay.terms, rules=known)
    relay.record(left("ada", 30))
    assert [set(task.resources) for task in relay.run()] == [{D1}]


def test_what_is_being_taken_at_this_moment_nobody_can_have_granted_again(looked: Looked, under_way: Task) -> None:
    relay = looked.relay
    with pytest.raises(Refused, match="under way"):
        operate.decide(relay.database, "eve", "regranted", under_way.event_ids[0], {})
    relay.settle(under_way, REMOVED)
    assert [row.needs_regrant for row in relay.revocations(under_way.event_ids[0])] == [True]
    operate.decide(relay.database, "eve", "regranted", under_way.event_ids[0], {})


@pytest.mark.parametrize(("returned_at", "listed"), [(HOUR - 1, True), (HOUR + 1200, False)])
def test_the_last_return_gives_back_only_what_went_when_all_accounts_were_there(
    looked: Looked, clock: Clock, returned_at: int, listed: bool
) -> None:
    """One source has a directory and tells no times; the other, without, tells when its account was back."""
    relay = looked.relay
    made = small_rules(identity=["{user.email}", "{user.login}"], accounts="any", fills={"okta": TOLD, "entra": ALL})
    relay.terms = replace(relay.terms, rules=replace(made, looked_up={"okta": ADDED}))
    looked.directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "x", 0, email=ADA))
    looked.run()
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED)
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", None, key=None, twin=True))
    relay.record(left("e-ada", HOUR - 2, source="entra", email=ADA))
    for _ in range(20):
        looked.run()
        clock.advance(60)
    relay.record(back("e-ada", returned_at, source="entra", email=ADA))
    looked.run()
    assert not any(row.needs_regrant for row in relay.revocations())
    looked.directory.accounts["ada"] = account("ada")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", None, key=None, twin=True))
    for _ in range(20):
        looked.run()
        clock.advance(60)
    assert any(row.needs_regrant for row in relay.revocations()) == listed


def test_an_account_that_was_never_lost_hides_no_late_return_of_another(relay: Relay, clock: Clock) -> None:
    """It came after the removal, or was only told again: it made nobody inactive."""
    relay.terms = replace(relay.terms, rules=small_rules(accounts="any", fills={"okta": ALL, "scim": ALL}))
    relay.record(left("ada", HOUR - 100, login="ada"))
    relay.run()
    clock.advance(600)
    relay.record(back("s-ada", HOUR + 300, source="scim", login="ada"))
    relay.run()
    relay.record(back("ada", HOUR - 50, login="ada"))
    relay.run()
    assert set(needs(relay).values()) == {True}

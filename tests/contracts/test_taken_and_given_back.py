"""Gains that become known when a removal is under way or may have happened unseen, on both databases."""

from __future__ import annotations

import pytest

from relay import operate
from relay.model import Account, Outcome
from relay.store import answered
from relay.store.claim import Task
from relay.store.look_ups import ACCOUNT, Question
from tests.directory_people import Looked, account
from tests.people import ABSENT, DOWN, HUNG, REFUSED, REMOVED, Clock, Relay, gain, loss

HOUR = 3600


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

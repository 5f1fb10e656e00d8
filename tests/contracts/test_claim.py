"""Claiming and settling calls, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from relay import backoff
from relay.model import SECOND, Kind, Outcome, Resource
from relay.store import claim, look_ups, settling, tables
from tests.people import (
    ABSENT,
    ACME,
    CHAT,
    D1,
    REFUSED,
    REMOVED,
    RETRY,
    Clock,
    Relay,
    event,
    loss,
    rules,
)

BOTH = {ACME, D1}


def prove_key(relay: Relay) -> None:
    relay.record(loss("prover", "eng"))
    assert len(relay.run()) == 1


def give_many(relay: Relay, number: int, subject: str = "ada") -> str:
    """A loss that takes `number` documents; returns its event's id."""
    revoke = [Resource("document", f"m{n:03}", "acme").as_velt() for n in range(number)]
    relay.terms = replace(relay.terms, rules=rules({"name": "many", "when": {"group.id": "eng"}, "revoke": revoke}))
    return relay.record(loss(subject, "eng"))[0]


# --- claiming


def test_everything_that_is_due_is_one_call(relay: Relay) -> None:
    relay.record(loss("ada", "eng"), loss("ada", "sales"), event(Kind.APP_ACCESS_REMOVED, "ada", app_id="chat"))
    [task] = relay.claim()
    assert set(task.resources) == {ACME, D1, CHAT}
    assert len(task.revocation_ids) == 4
    assert len(task.event_ids) == 3
    relay.settle(task)
    assert relay.states() == ["removed"] * 4
    [attempt] = relay.rows(tables.attempts)
    assert (attempt.outcome, attempt.velt_user_id, attempt.http_status) == ("removed", "ada", 200)
    assert len(relay.rows(tables.attempt_revocations)) == 4


def test_a_call_has_at_most_30_resources(relay: Relay) -> None:
    give_many(relay, 65)
    assert [len(task.resources) for task in relay.run()] == [30, 30, 5]


def test_a_claim_is_for_so_many_people_and_says_when_there_are_more(relay: Relay) -> None:
    relay.record(*[loss(f"u{n}", "eng") for n in range(5)])
    first = claim.claim(relay.database, relay.terms, 3)
    second = claim.claim(relay.database, relay.terms, 3)
    third = claim.claim(relay.database, relay.terms, 3)
    assert [len(found.tasks) for found in (first, second, third)] == [3, 2, 0]
    assert (first.due_in, third.due_in) == (0, relay.terms.lease)


def test_a_claim_says_when_something_is_to_be_looked_up(relay: Relay, clock: Clock) -> None:
    with relay.database.write() as connection:
        later = clock.now + 5 * SECOND
        look_ups.want(connection, look_ups.About.account("okta", "ada"), answer_from=later, due_at=later)
    assert claim.claim(relay.database, relay.terms, 3) == claim.Claim((), look_up=False, due_in=5 * SECOND)
    clock.advance(5)
    assert claim.claim(relay.database, relay.terms, 3) == claim.Claim((), look_up=True, due_in=None)


def test_a_second_claim_takes_nothing_while_the_first_holds_the_lease(relay: Relay) -> None:
    relay.record(loss("ada", "eng"))
    assert len(relay.claim()) == 1
    relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", app_id="chat"))
    assert relay.claim() == ()
    assert relay.claim(worker="w2") == ()


def test_what_came_during_a_call_goes_with_the_next(relay: Relay) -> None:
    relay.record(loss("ada", "eng"))
    [task] = relay.claim()
    relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", app_id="chat"))
    relay.settle(task)
    assert [set(task.resources) for task in relay.run()] == [{CHAT}]


def test_a_lost_worker_is_noticed_and_its_call_made_again(relay: Relay, clock: Clock) -> None:
    relay.record(loss("ada", "eng"))
    [first] = relay.claim()
    clock.advance(59)
    assert relay.claim(worker="w2") == ()
    clock.advance(1)
    [second] = relay.claim(worker="w2")
    assert (set(second.resources), second.token != first.token) == (BOTH, True)
    [lost] = relay.rows(tables.attempts)
    assert (lost.outcome, lost.worker) == ("lost", "w2")
    assert all(row.unsure for row in relay.revocations())
    assert {row.attempts for row in relay.revocations()} == {0}


@pytest.mark.parametrize("sends", [True, False])
def test_a_lost_call_is_pending_again_even_while_nothing_may_be_sent(relay: Relay, clock: Clock, sends: bool) -> None:
    relay.record(loss("ada", "eng"))
    relay.claim()
    clock.advance(61)
    assert len(relay.claim(sends=sends)) == int(sends)
    assert relay.states() == (["sending"] * 2 if sends else ["pending"] * 2)


def test_what_a_late_worker_says_is_only_an_attempt(relay: Relay, clock: Clock) -> None:
    relay.record(loss("ada", "eng"))
    [first] = relay.claim()
    clock.advance(61)
    [second] = relay.claim(worker="w2")
    assert not relay.settle(first)
    assert relay.states() == ["sending", "sending"]
    assert relay.settle(second, RETRY)
    assert not relay.settle(first)
    assert relay.states() == ["pending", "pending"]
    assert sorted(row.outcome for row in relay.rows(tables.attempts)) == ["lost", "removed", "removed", "retry"]


def test_a_call_that_is_given_back_is_taken_at_once(relay: Relay) -> None:
    relay.record(loss("ada", "eng"))
    [task] = relay.claim()
    settling.give_back(relay.database, task)
    [again] = relay.claim(worker="w2")
    assert again.revocation_ids == task.revocation_ids
    assert not any(row.unsure for row in relay.revocations())
    assert relay.rows(tables.attempts) == []
    settling.give_back(relay.database, task)  # whose lease it is not any more
    assert relay.states() == ["sending", "sending"]


# --- outcomes


@pytest.mark.parametrize(("outcome", "state"), [(REMOVED, "removed"), (RETRY, "cancelled"), (REFUSED, "cancelled")])
def test_what_was_cancelled_during_its_call_stays_so_unless_removed(relay: Relay, outcome: Outcome, state: str) -> None:
    relay.record(loss("ada", "sales"))
    [task] = relay.claim()
    with relay.database.write() as connection:
        connection.execute(update(tables.revocations).values(state="cancelled", next_at=None))
    assert relay.settle(task, outcome)
    assert relay.states() == [state]
    assert relay.claim() == ()


@pytest.mark.parametrize("outcome", [REFUSED, ABSENT])
def test_a_call_for_several_that_is_refused_is_asked_one_by_one(relay: Relay, outcome: Outcome) -> None:
    prove_key(relay)
    give_many(relay, 3)
    [task] = relay.claim()
    relay.settle(task, outcome)
    singles = []
    for answer in (REMOVED, REFUSED, ABSENT):
        [task] = relay.claim()
        singles.append(len(task.resources))
        relay.settle(task, answer)
    assert singles == [1, 1, 1]
    assert relay.claim() == ()
    assert relay.states() == sorted(["removed", "removed", "removed", "dead", "absent"])
    [event_row] = [row for row in relay.rows(tables.events) if row.state == "failed"]
    assert event_row.reason == "1 of 3 revocations are dead"


def test_a_call_that_fails_twice_is_asked_one_by_one(relay: Relay, clock: Clock) -> None:
    give_many(relay, 3)
    sizes = []
    for _ in range(3):
        [task] = relay.claim()
        sizes.append(len(task.resources))
        relay.settle(task, RETRY)
        clock.advance(10)
    assert sizes == [3, 3, 1]


def test_a_success_of_one_resource_settles_every_loss_of_it(relay: Relay) -> None:
    relay.record(loss("ada", "eng"), loss("ada", "sales"))
    [task] = relay.claim()
    relay.settle(task, REFUSED)
    [first] = relay.claim()
    [second] = (relay.settle(first), relay.claim())[1]
    relay.settle(second)
    assert relay.claim() == ()
    assert relay.states() == ["removed"] * 3


def test_absent_is_final_only_for_a_key_that_had_a_success(relay: Relay, clock: Clock) -> None:
    [event_id] = relay.record(loss("ada", "sales"))
    [task] = relay.claim()
    relay.settle(task, ABSENT)
    [row] = relay.revocations(event_id)
    assert (row.state, row.attempts) == ("pending", 1)
    assert "may be the wrong key" in row.reason
    prove_key(relay)
    clock.advance(30)
    [task] = relay.claim()
    relay.settle(task, ABSENT, key_digest="k2")
    assert relay.states(event_id) == ["pending"]
    clock.advance(30)
    [task] = relay.claim()
    relay.settle(task, ABSENT)
    assert relay.states(event_id) == ["absent"]
    assert relay.event(event_id).state == "done"


def test_the_retry_schedule_ends_with_a_dead_letter(relay: Relay, clock: Clock) -> None:
    [event_id] = relay.record(loss("ada", "sales"))
    for number, wait in enumerate(backoff.SCHEDULE, 1):
        [task] = relay.claim()
        relay.settle(task, RETRY)
        [row] = relay.revocations(event_id)
        assert (row.state, row.attempts, row.reason) == ("pending", number, "too many")
        assert 0 <= row.next_at - relay.now() <= wait * SECOND
        assert relay.due_at() == row.next_at
        clock.now = row.next_at - 1
        assert relay.claim() == ()
        clock.now = row.next_at
    [task] = relay.claim()
    relay.settle(task, RETRY)
    [row] = relay.revocations(event_id)
    assert (row.state, row.reason) == ("dead", "given up after 20 attempts: too many")
    assert relay.event(event_id).state == "failed"
    assert relay.due_at() is None


def test_velt_may_ask_for_a_longer_wait(relay: Relay) -> None:
    relay.record(loss("ada", "sales"))
    [task] = relay.claim()
    relay.settle(task, replace(RETRY, retry_after=1000.0))
    assert relay.revocations()[0].next_at == relay.now() + 1000 * SECOND


def test_one_stuck_resource_holds_up_neither_person_nor_resource(relay: Relay, clock: Clock) -> None:
    give_many(relay, 2)
    [task] = relay.claim()
    relay.settle(task, REFUSED)
    [stuck] = relay.claim()
    relay.settle(stuck, replace(RETRY, retry_after=3600.0))
    relay.record(loss("bob", "eng"))
    assert sorted((task.velt_user_id, len(task.resources)) for task in relay.run()) == [("ada", 1), ("bob", 2)]


def test_observe_mode_plans_and_sends_nothing(relay: Relay) -> None:
    [event_id] = relay.record(loss("ada", "eng"))
    assert relay.claim(sends=False) == ()
    assert relay.states(event_id) == ["pending", "pending"]
    assert relay.event(event_id).state == "planned"
    assert relay.due_at(sends=False) is None
    assert len(relay.run()) == 1

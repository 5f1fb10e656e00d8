"""The guard: past so many people in a window events are held until a person says so; on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import update

from relay.model import SECOND, Guard
from relay.store import claim, desk, tables
from relay.store.desk import Decision
from tests.people import Clock, Relay, gain, group_deleted, left, loss

HOUR = 3600.0


@pytest.fixture
def relay(relay: Relay) -> Relay:
    """Two people may lose something within an hour."""
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(2, HOUR)))
    return relay


def decide(relay: Relay, verb: str, event_id: str) -> None:
    with relay.database.write() as connection:
        [row] = [row for row in relay.rows(tables.events) if row.id == event_id]
        now = relay.database.now(connection)
        getattr(desk, verb)(connection, row, Decision("ada", verb, "as agreed"), now)


def states(relay: Relay, ids: list[str]) -> list[str]:
    return [relay.event(event_id).state for event_id in ids]


def removed_from(relay: Relay) -> set[str]:
    return {task.velt_user_id for task in relay.run()}


def test_up_to_the_limit_everything_goes_on(relay: Relay) -> None:
    relay.record(loss("u1", "eng"), loss("u2", "eng"), loss("u2", "sales"))
    assert removed_from(relay) == {"u1", "u2"}


def test_the_person_past_the_limit_is_held_and_says_why(relay: Relay) -> None:
    ids = relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    assert len(removed_from(relay)) == 2
    assert sorted(states(relay, ids)) == ["done", "done", "held"]
    [held] = [row for row in relay.rows(tables.events) if row.state == "held"]
    assert held.reason == ("the guard: 3 people would lose something within 60 minutes, more than 2; approve or reject")


def test_a_held_event_waits_until_somebody_approves_it(relay: Relay, clock: Clock) -> None:
    ids = relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    relay.run()
    clock.advance(2 * HOUR)
    assert removed_from(relay) == set()
    [held] = [event_id for event_id in ids if relay.event(event_id).state == "held"]
    decide(relay, "approve", held)
    assert len(removed_from(relay)) == 1
    assert states(relay, ids) == ["done"] * 3


def test_an_approval_is_planned_by_what_the_person_has_by_then(relay: Relay) -> None:
    ids = relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    relay.run()
    [held] = [row for row in relay.rows(tables.events) if row.state == "held"]
    relay.record(gain(held.subject, "eng", 50))
    relay.run()
    decide(relay, "approve", held.id)
    assert removed_from(relay) == set()
    assert states(relay, ids) == ["done"] * 3


def test_a_rejected_event_removes_nothing(relay: Relay) -> None:
    relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    relay.run()
    [held] = [row.id for row in relay.rows(tables.events) if row.state == "held"]
    decide(relay, "reject", held)
    assert removed_from(relay) == set()
    assert (relay.event(held).state, relay.event(held).reason) == ("ignored", "rejected by ada: as agreed")


def test_what_was_approved_is_not_counted(relay: Relay) -> None:
    relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    relay.run()
    [held] = [row.id for row in relay.rows(tables.events) if row.state == "held"]
    with relay.database.write() as connection:  # as if the first two had come long ago
        connection.execute(update(tables.events).where(tables.events.c.id != held).values(received_at=0))
    decide(relay, "approve", held)
    relay.run()
    ids = relay.record(loss("u7", "eng"), loss("u8", "eng"))
    relay.run()
    assert states(relay, ids) == ["done", "done"]


def test_the_window_moves_on(relay: Relay, clock: Clock) -> None:
    relay.record(loss("u1", "eng"), loss("u2", "eng"))
    relay.run()
    clock.advance(HOUR + 1)
    [later] = relay.record(loss("u3", "eng", HOUR))
    relay.run()
    assert relay.event(later).state == "done"


def test_who_keeps_everything_is_not_counted(relay: Relay) -> None:
    relay.record(*[gain(f"u{n}", "sales") for n in range(5)])
    ids = relay.record(*[loss(f"u{n}", "ops" if n > 2 else "nothing", 5) for n in range(5)])
    relay.run()
    assert "held" not in states(relay, ids)


def test_a_group_larger_than_the_limit_is_held_whole_and_approved_whole(relay: Relay) -> None:
    relay.record(*[gain(f"u{n}", "eng") for n in range(4)])
    relay.run()
    [parent] = relay.record(group_deleted("eng", 9))
    assert removed_from(relay) == set()
    assert relay.event(parent).state == "held"
    assert "4 people" in relay.event(parent).reason
    decide(relay, "approve", parent)
    assert removed_from(relay) == {f"u{n}" for n in range(4)}


def test_account_losses_are_held_too(relay: Relay) -> None:
    ids = relay.record(*[left(f"u{n}", n) for n in range(4)])
    relay.run()
    assert sorted(states(relay, ids)) == ["done", "done", "held", "held"]


def test_without_a_guard_nobody_is_held(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=None))
    relay.record(*[loss(f"u{n}", "eng") for n in range(5)])
    assert len(removed_from(relay)) == 5


def test_two_workers_together_let_no_more_through(relay: Relay) -> None:
    relay.record(*[loss(f"u{n}", "eng") for n in range(12)])
    relay.route()
    barrier = threading.Barrier(4)

    def work(number: int) -> int:
        barrier.wait()
        terms = replace(relay.terms, worker=f"w{number}")
        return sum(len(claim.claim(relay.database, terms, 2).tasks) for _ in range(6))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 2
    assert sorted(row.state for row in relay.rows(tables.events)).count("held") == 10


def test_the_window_is_by_the_time_of_receiving(relay: Relay, clock: Clock) -> None:
    old = relay.now() - int((HOUR + 1) * SECOND)
    relay.record(loss("u1", "eng"), loss("u2", "eng"), received=old)
    [now] = relay.record(loss("u3", "eng"))
    relay.run()
    assert relay.event(now).state == "done"

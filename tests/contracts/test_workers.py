"""Several workers and what they leave behind, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text

from relay.model import Answer, Kind, Outcome
from relay.store import attempts, people, plan, tables, taking
from relay.store.claim import Task
from relay.store.database import Database
from tests.people import (
    ACME,
    CHAT,
    D1,
    Clock,
    Relay,
    at,
    event,
    gain,
    loss,
)

BOTH = {ACME, D1}


# --- several workers


def test_an_event_that_comes_while_a_person_is_claimed_is_not_forgotten(timed: Database, relay: Relay) -> None:
    relay.record(loss("ada", "sales"))
    relay.route()
    with ThreadPoolExecutor(1) as pool:
        with timed.write() as connection:
            [person] = connection.execute(select(tables.people).with_for_update()).all()
            plan.plan_event(
                connection, relay.terms.rules, plan.unplanned(connection, person.id)[0], timed.now(connection)
            )
            people.set_due(connection, person.id)
            if timed.is_sqlite:
                later = pool.submit(relay.record, event(Kind.APP_ACCESS_REMOVED, "ada", app_id="chat"))
            else:
                relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", app_id="chat"))
                later = pool.submit(relay.route)
            with pytest.raises(TimeoutError):
                later.result(0.2)
        later.result(5)
    assert [set(task.resources) for task in relay.run()] == [{D1, CHAT}]


ROUNDS = 12


def test_workers_at_the_same_people_never_both_keep_and_never_call_twice_at_once(database: Database) -> None:
    """Two groups give one document; both are lost at once, and two workers and a lost account are at it together."""
    relay = Relay(database)
    subjects = [f"u{n}" for n in range(4)]
    in_flight: dict[str, int] = dict.fromkeys(subjects, 0)
    twice: list[str] = []
    guard = threading.Lock()
    start = threading.Barrier(3)

    def work(worker: str) -> None:
        start.wait()
        for _ in range(6):
            for task in relay.claim(worker=worker):
                enter(task, +1)
                enter(task, -1)
                relay.settle(task)

    def enter(task: Task, change: int) -> None:
        with guard:
            in_flight[task.velt_user_id] += change
            if in_flight[task.velt_user_id] > 1:
                twice.append(task.velt_user_id)

    def tell(number: int) -> None:
        start.wait()
        for subject in subjects:
            relay.record(loss(subject, "eng", number * 10 + 5))
            relay.record(loss(subject, "sales", number * 10 + 6))

    with ThreadPoolExecutor(3) as pool:
        for number in range(ROUNDS):
            relay.record(*[gain(s, group, number * 10) for s in subjects for group in ("eng", "sales")])
            relay.run()
            before = len(relay.rows(tables.attempts))
            for done in [pool.submit(work, "w1"), pool.submit(work, "w2"), pool.submit(tell, number)]:
                done.result(30)
            relay.run()
            assert len(relay.rows(tables.attempts)) >= before + len(subjects)
            assert relay_keeps(relay, number) == []
    assert twice == []


def relay_keeps(relay: Relay, number: int) -> list[str]:
    """People from whom nobody removed the document in this round."""
    with relay.database.read() as connection:
        removed = set(
            connection.execute(
                select(tables.events.c.subject)
                .join(tables.revocations, tables.revocations.c.event_id == tables.events.c.id)
                .where(
                    tables.events.c.as_of >= at(number * 10),
                    tables.revocations.c.resource_id == "d1",
                    tables.revocations.c.state == "removed",
                )
            ).scalars()
        )
        everybody = set(connection.execute(select(tables.identities.c.subject)).scalars())
    return sorted(everybody - removed)


def test_nobody_is_due_when_nothing_waits_and_somebody_when_a_lease_ends(relay: Relay, clock: Clock) -> None:
    assert relay.due_at() is None
    relay.record(loss("ada", "eng"))
    relay.route()
    assert relay.due_at() == clock.now
    relay.claim()
    assert relay.due_at() == clock.now + relay.terms.lease


def test_a_mistake_in_one_persons_rules_holds_up_nobody_else(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> Any:
        if args[0].subject == "ada":
            raise KeyError("a mistake")
        return made(*args, **more)

    made = taking.losses.plan
    monkeypatch.setattr(taking.losses, "plan", broken)
    ada, bob = relay.record(loss("ada", "eng"), loss("bob", "eng"))
    assert [task.velt_user_id for task in relay.run()] == ["bob"]
    assert relay.event(ada).state == "failed"
    assert "a mistake" in relay.event(ada).reason
    assert relay.event(bob).state == "done"


def test_every_attempt_carries_the_digest_of_what_it_says(relay: Relay) -> None:
    relay.record(loss("ada", "eng"))
    [task] = relay.claim()
    relay.settle(task, Outcome(Answer.REMOVED, "success", 200, response=b"{}"))
    [attempt] = relay.rows(tables.attempts)
    told = {k: v for k, v in attempt._asdict().items() if k not in ("digest", "response")}
    said = told | {"response": b"{}".hex(), "revocations": sorted(task.revocation_ids)}
    assert attempt.digest == attempts.digest(said)


def test_a_clean_database_has_an_open_gate(database: Database) -> None:
    with database.read() as connection:
        assert connection.execute(text("SELECT state FROM delivery")).scalars().all() == ["closed"]

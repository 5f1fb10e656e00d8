"""Two transactions about the same people at the same moment never wait for each other in a ring, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from relay import operate
from relay.model import SECOND, AccessEvent, Account, Guard, Kind, Status
from relay.store import answered, found, look_ups, nested, plan, routing, tables
from relay.store import facts as known
from relay.store.database import Database
from relay.store.look_ups import Question
from relay.store.places import Place
from tests.directory_people import Looked, account
from tests.people import Clock, Relay, event, gain, group_deleted, group_fact, loss

HOUR = 3600
ADA, BOB = "ada@acme.example", "bob@acme.example"


@contextmanager
def meanwhile(module: Any, name: str, other: Callable[[], object]) -> Iterator[None]:
    """Have something else begin when a function of a module has returned for the first time, and get a moment.

    Both have to come to their end: PostgreSQL would end one of two who wait for each other.
    """
    real, begun = getattr(module, name), list[Future[object]]()

    def paused(*args: Any, **more: Any) -> Any:
        made = real(*args, **more)
        if not begun:
            begun.append(pool.submit(other))
            wait(begun, 0.3)
        return made

    with ThreadPoolExecutor(1) as pool, pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, name, paused)
        yield
        [ended] = begun
        ended.result(20)


def answer(looked: Looked, subject: str) -> None:
    """Take in what the directory says of somebody."""
    relay = looked.relay
    question = Question.account("okta", subject)
    answered.keep(relay.database, relay.terms.rules, question, looked.directory.look_up(subject))


def read_page(relay: Relay, *shown: AccessEvent) -> None:
    """Take in a page of a listing."""
    without_id = [replace(one, key=None, occurred_at=None) for one in shown]
    place = Place("okta", started_at=relay.now())
    found.keep(relay.database, relay.terms.rules, place, without_id, "c1", found.Listing(), last=False)


def listed(subject: str, email: str) -> AccessEvent:
    """An account in force, as a listing shows it."""
    return event(Kind.ACCOUNT_ACTIVATED, subject, email=email)


def now_are(relay: Relay) -> dict[str, str]:
    """Each subject's present Velt user."""
    return {subject: users[0] for subject, users in relay.velt_users().items()}


def test_who_somebody_is_by_an_event_and_by_an_answer(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    relay.record(gain("ada", "x", 0, email=ADA), gain("ada-too", "x", 0, source="entra", email=ADA))
    looked.run()
    relay.record(gain("ada", "y", 10, email="a@new.example"), gain("ada-too", "y", 20, source="entra", email=ADA))
    looked.directory.accounts["ada"] = account("ada", groups=["x", "y"], email="a@newest.example")
    with meanwhile(routing, "identify", lambda: answer(looked, "ada")):
        assert relay.route() == 2
    assert now_are(relay) == {"ada": "a@newest.example", "ada-too": ADA}


def test_who_people_are_by_events_and_by_a_listing(looked: Looked) -> None:
    relay = looked.relay
    relay.record(gain("ada", "x", 0, email=ADA), gain("bob", "x", 0, email=BOB))
    looked.run()
    relay.record(gain("ada", "y", 10, email="a@new.example"), gain("bob", "y", 20, email="b@new.example"))
    shown = listed("bob", "b@newest.example"), listed("ada", "a@newest.example")
    with meanwhile(routing, "identify", lambda: read_page(relay, *shown)):
        assert relay.route() == 2
    assert now_are(relay) == {"ada": "a@newest.example", "bob": "b@newest.example"}


def test_a_question_that_failed_and_what_waits_for_it(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    looked.directory.accounts["ada"] = account("ada", groups=["sales"])
    relay.record(gain("ada", "sales", 0))
    looked.run()
    clock.advance(1)
    [first] = relay.record(loss("ada", "sales", HOUR))
    relay.claim()
    clock.advance(relay.terms.rules.patience / SECOND + 1)
    [second] = relay.record(loss("ada", "eng", HOUR + 200))
    relay.route()
    [question] = look_ups.take(relay.database, ["okta"], 10)
    with meanwhile(plan, "plan_event", lambda: look_ups.failed(relay.database, question, "it is down", 5)):
        relay.claim()
    assert relay.event(first).state == "planned"
    assert relay.event(second).state == "received"


def test_who_is_in_a_group_by_a_group_that_came_into_it_and_by_a_listing(looked: Looked, clock: Clock) -> None:
    relay = looked.relay
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, terse=frozenset({"okta"})))
    looked.directory.accounts |= {"team": Account("team", Status.GROUP, 0)}
    looked.directory.accounts |= {subject: account(subject, groups=["x"]) for subject in ("ada", "bob")}
    looked.directory.members = {"sales": {"ada", "bob"}}
    relay.record(gain("ada", "x", None), gain("bob", "x", None))
    looked.run()
    clock.advance(HOUR)
    looked.run()
    relay.record(gain("team", "sales", None, twin=True))
    for _ in range(2):  # that it is a group, then who is in the other one
        relay.claim()
        looked.look_up()
    relay.record(gain("bob", "y", None))
    members = gain("ada", "sales"), gain("bob", "sales")
    with meanwhile(nested, "add_unknown", lambda: read_page(relay, *members)):
        relay.route()
    assert {fact.object_id for fact in relay.facts("ada") if fact.present} == {"x", "sales"}


def test_a_decision_on_the_end_of_a_group_and_what_is_planned_for_who_is_in_it(relay: Relay, clock: Clock) -> None:
    relay.record(gain("ada", "eng", 0), gain("bob", "eng", 0))
    relay.run()
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    [end] = relay.record(group_deleted("eng", 50))
    relay.run()
    for subject in ("bob", "ada"):  # planned in this order
        relay.record(gain(subject, "eng", 60))
        relay.route()
        clock.advance(1)
    with meanwhile(plan, "plan_event", lambda: operate.decide(relay.database, "eve", "reject", end, {})):
        relay.claim()
    assert relay.event(end).state == "ignored"
    assert [fact.present for subject in ("ada", "bob") for fact in relay.facts(subject)] == [True, True]


def test_memberships_that_two_note_in_another_order(database: Database) -> None:
    def note(*subjects: str) -> None:
        with database.write() as connection:
            known.add_unknown(connection, [group_fact(subject, "eng") for subject in subjects])

    with ThreadPoolExecutor(2) as pool:
        with database.write() as connection:
            known.add_unknown(connection, [group_fact("bob", "eng")])
            begun = [pool.submit(note, "ada", "bob", "cyd"), pool.submit(note, "cyd", "bob", "ada")]
            wait(begun, 0.3)
        assert [one.result(20) for one in begun] == [None, None]
    assert {fact.subject for fact in Relay(database).rows(tables.facts)} == {"ada", "bob", "cyd"}

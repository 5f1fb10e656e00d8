"""What only one of many workers does at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from relay.store import leases
from relay.store.database import Database
from tests.people import Clock


def test_one_owner_at_a_time(timed: Database) -> None:
    assert leases.take(timed, "reconcile okta", "w1", 60)
    assert not leases.take(timed, "reconcile okta", "w2", 60)
    assert leases.take(timed, "reconcile entra", "w2", 60), "each key is a lease of its own"
    leases.give_back(timed, "reconcile okta", "w1")
    assert leases.take(timed, "reconcile okta", "w2", 60)


def test_an_owner_may_go_on(timed: Database, clock: Clock) -> None:
    assert leases.take(timed, "k", "w1", 60)
    clock.advance(59)
    assert leases.take(timed, "k", "w1", 60)
    clock.advance(59)
    assert not leases.take(timed, "k", "w2", 60)


def test_a_lease_that_is_not_renewed_ends(timed: Database, clock: Clock) -> None:
    assert leases.take(timed, "k", "w1", 60)
    clock.advance(59.9)
    assert not leases.take(timed, "k", "w2", 60)
    clock.advance(0.1)
    assert leases.take(timed, "k", "w2", 60)
    assert not leases.take(timed, "k", "w1", 60)


def test_giving_back_what_another_has_changes_nothing(timed: Database, clock: Clock) -> None:
    leases.take(timed, "k", "w1", 60)
    clock.advance(61)
    leases.take(timed, "k", "w2", 60)
    leases.give_back(timed, "k", "w1")
    assert not leases.take(timed, "k", "w1", 60)


def test_of_many_at_once_one_gets_it(database: Database) -> None:
    url = database.url.render_as_string(hide_password=False)
    start = threading.Barrier(6)

    def try_it(number: int) -> bool:
        own = Database(url)
        try:
            start.wait(20)
            return leases.take(own, "k", f"w{number}", 60)
        finally:
            own.close()

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(try_it, range(6))) == 1

"""The breaker and the pause, through claim and settle, on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from relay.model import SECOND, Outcome
from relay.store import delivery, settling, tables
from relay.store.claim import Task
from relay.store.delivery import PROBE_LEASE, THRESHOLD, Delivery
from tests.people import ABSENT, DOWN, HUNG, REFUSED, REMOVED, RETRY, UNAUTHORIZED, Clock, Relay, gain, loss


def lose(relay: Relay, number: int, first: int = 0) -> None:
    """Losses of so many people, one call each."""
    relay.record(*[loss(f"u{n}", "sales") for n in range(first, first + number)])


def breaker(relay: Relay) -> Delivery:
    with relay.database.read() as connection:
        return delivery.read(connection)


def attempts(relay: Relay) -> list[int]:
    return sorted(row.attempts for row in relay.revocations())


def fail(relay: Relay, tasks: tuple[Task, ...], outcome: Outcome = DOWN) -> None:
    for task in tasks:
        relay.settle(task, outcome)


def open_by_down(relay: Relay) -> None:
    lose(relay, THRESHOLD)
    fail(relay, relay.claim())
    assert breaker(relay).state == "open"


def test_a_few_failures_are_their_calls_own(relay: Relay) -> None:
    lose(relay, THRESHOLD - 1)
    fail(relay, relay.claim())
    assert (breaker(relay).state, breaker(relay).failures) == ("closed", THRESHOLD - 1)
    assert attempts(relay) == [1] * (THRESHOLD - 1)


def test_failures_of_velt_as_a_whole_open_it_and_cost_nothing_from_then_on(relay: Relay) -> None:
    lose(relay, 10)
    fail(relay, relay.claim())
    state = breaker(relay)
    assert (state.state, state.why) == ("open", "Velt is down: unavailable")
    assert attempts(relay) == [0] * (10 - THRESHOLD + 1) + [1] * (THRESHOLD - 1)
    assert relay.claim() == ()
    assert relay.states() == ["pending"] * 10


@pytest.mark.parametrize("outcome", [REMOVED, ABSENT, REFUSED, RETRY], ids=lambda o: o.answer.value)
def test_any_answer_of_velt_starts_the_count_anew(relay: Relay, outcome: Outcome) -> None:
    lose(relay, THRESHOLD + 1)
    *first, last = relay.claim()
    fail(relay, tuple(first[: THRESHOLD - 1]))
    relay.settle(last, outcome)
    assert breaker(relay).failures == 0
    relay.settle(first[-1], DOWN)
    assert breaker(relay).state == "closed"


def test_one_person_whose_call_hangs_does_not_hold_up_the_others(relay: Relay, clock: Clock) -> None:
    lose(relay, 1)
    for _ in range(THRESHOLD + 2):
        [task] = relay.claim()
        relay.settle(task, HUNG)
        clock.advance(3600)
    assert breaker(relay).state == "closed"
    lose(relay, 1, first=1)
    for task in relay.claim():
        relay.settle(task, HUNG)
    assert breaker(relay).state == "open"


def test_a_refused_key_opens_it_at_once_and_costs_no_attempts(relay: Relay) -> None:
    lose(relay, 2)
    fail(relay, relay.claim(), UNAUTHORIZED)
    assert (breaker(relay).state, breaker(relay).why) == ("open", "the key is refused: bad key")
    assert attempts(relay) == [0, 0]
    assert relay.claim() == ()


def test_a_new_key_probes_at_once_and_closes_it(relay: Relay) -> None:
    lose(relay, 3)
    fail(relay, relay.claim(), UNAUTHORIZED)
    assert relay.claim() == ()
    [probe] = relay.claim(key_digest="k2")
    assert breaker(relay).state == "probing"
    relay.settle(probe, REMOVED, key_digest="k2")
    assert (breaker(relay).state, breaker(relay).proven_key) == ("closed", "k2")
    assert len(relay.claim(key_digest="k2")) == 2


def test_a_new_key_is_no_reason_to_probe_a_velt_that_is_down(relay: Relay) -> None:
    open_by_down(relay)
    assert relay.claim(key_digest="k2") == ()


def test_one_probe_goes_out_after_a_while_and_closes_it(relay: Relay, clock: Clock) -> None:
    open_by_down(relay)
    lose(relay, 5, first=100)
    clock.advance(4.9)
    assert relay.claim() == ()
    assert relay.due_at() == breaker(relay).probe_at
    clock.advance(0.1)
    [probe] = relay.claim()
    assert relay.claim(worker="w2") == ()
    clock.advance(10)
    assert relay.claim(worker="w2") == ()
    relay.settle(probe)
    state = breaker(relay)
    assert (state.state, state.why, state.failures, state.probes, state.probe_at) == ("closed", None, 0, 0, None)
    assert len(relay.claim()) == 7


def test_probes_that_fail_come_more_and_more_seldom(relay: Relay, clock: Clock) -> None:
    open_by_down(relay)
    waits = []
    for _ in range(6):
        probe_at = breaker(relay).probe_at
        assert probe_at is not None
        waits.append((probe_at - clock.now) // SECOND)
        clock.now = probe_at
        [probe] = relay.claim()
        relay.settle(probe, DOWN)
    assert waits == [5, 10, 20, 40, 60, 60]
    assert attempts(relay) == [0] + [1] * (THRESHOLD - 1)


def test_late_news_of_calls_from_before_puts_no_probe_off(relay: Relay) -> None:
    lose(relay, 10)
    tasks = relay.claim()
    fail(relay, tasks[:THRESHOLD])
    before = breaker(relay)
    fail(relay, tasks[THRESHOLD:])
    assert breaker(relay) == before


def test_a_probe_whose_worker_vanished_is_made_again(relay: Relay, clock: Clock) -> None:
    open_by_down(relay)
    clock.advance(5)
    assert len(relay.claim()) == 1
    clock.now += PROBE_LEASE - 1
    assert relay.claim() == ()
    clock.now += 1
    assert len(relay.claim()) == 1


def test_a_probe_that_is_given_back_is_made_by_the_next_worker(relay: Relay, clock: Clock) -> None:
    open_by_down(relay)
    clock.advance(5)
    [probe] = relay.claim()
    settling.give_back(relay.database, probe)
    assert len(relay.claim(worker="w2")) == 1


def test_a_probe_that_finds_nothing_to_send_is_still_to_be_made(relay: Relay, clock: Clock) -> None:
    open_by_down(relay)
    relay.record(*[gain(f"u{n}", "sales", 5) for n in range(THRESHOLD)])
    clock.advance(5)
    assert relay.claim() == ()
    assert breaker(relay).state == "open"
    lose(relay, 1, first=50)
    assert len(relay.claim()) == 1


def test_planning_goes_on_while_it_is_open(relay: Relay) -> None:
    open_by_down(relay)
    lose(relay, 1, first=50)
    assert relay.claim() == ()
    assert relay.rows(tables.events)[-1].state == "planned"


def test_of_many_workers_one_makes_the_probe(relay: Relay, clock: Clock) -> None:
    for number in range(3):
        lose(relay, 3, first=number * 10)
        fail(relay, relay.claim(), UNAUTHORIZED)
        clock.now = breaker(relay).probe_at or clock.now
        start = threading.Barrier(4)

        def take(worker: str, start: threading.Barrier = start) -> tuple[Task, ...]:
            start.wait()
            return relay.claim(worker=worker)

        with ThreadPoolExecutor(4) as pool:
            probes = [task for taken in pool.map(take, ["a", "b", "c", "d"]) for task in taken]
        assert len(probes) == 1
        relay.settle(probes[0])


def pause(relay: Relay) -> None:
    with relay.database.write() as connection:
        delivery.pause(connection, "ada", "maintenance")


def resume(relay: Relay) -> None:
    with relay.database.write() as connection:
        delivery.resume(connection)


def test_a_pause_plans_and_sends_nothing_until_resumed(relay: Relay) -> None:
    pause(relay)
    lose(relay, 2)
    assert relay.claim() == ()
    assert relay.states() == ["pending", "pending"]
    assert relay.due_at() is None
    assert (breaker(relay).paused_by, breaker(relay).paused_reason) == ("ada", "maintenance")
    resume(relay)
    assert len(relay.claim()) == 2
    assert breaker(relay).paused_by is None


def test_a_pause_is_beside_the_breaker(relay: Relay, clock: Clock) -> None:
    open_by_down(relay)
    pause(relay)
    clock.advance(3600)
    assert relay.claim(key_digest="k2") == ()
    resume(relay)
    assert len(relay.claim()) == 1


def test_calls_in_flight_at_a_pause_are_settled(relay: Relay) -> None:
    lose(relay, 1)
    [task] = relay.claim()
    pause(relay)
    assert relay.settle(task)
    assert relay.states() == ["removed"]

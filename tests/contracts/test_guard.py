"""The guard: past so many people in a window events are held until a person says so; on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import update

from relay import operate
from relay.model import SECOND, AccessEvent, Guard, Kind
from relay.rules import compile_rules
from relay.store import claim, desk, plan, preview, tables
from relay.store import facts as known
from relay.store.database import Database
from relay.store.decisions import Decision
from tests.people import ALL, Clock, Relay, back, event, gain, group_deleted, group_fact, left, loss, rules

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
    assert held.reason == "the guard: more than 2 people would lose something within 60 minutes; approve or reject"


@pytest.mark.parametrize(("users", "limit"), [(1, "1 person"), (2, "2 people")])
def test_the_reason_gives_no_number_that_leaves_out_the_others_that_are_held(
    relay: Relay, users: int, limit: str
) -> None:
    guarded(relay, users)
    relay.record(*[loss(f"u{n}", "eng", n) for n in range(6)])
    relay.run()
    told = {row.reason for row in relay.rows(tables.events) if row.state == "held"}
    assert told == {f"the guard: more than {limit} would lose something within 60 minutes; approve or reject"}


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


# --- the clauses, one by one


def guarded(relay: Relay, users: int, *given: dict[str, object], **more: object) -> None:
    """Let the relay work by these rules (by its own without any), with a guard of so many people an hour."""
    made = rules(*given) if given else relay.terms.rules
    relay.terms = replace(relay.terms, rules=replace(made, guard=Guard(users, HOUR, **more)))


def record_at(relay: Relay, minutes: Iterable[float]) -> list[str]:
    """A loss of another person received at each of these minutes from now; their ids in this order."""
    now = relay.now()
    return [
        relay.record(loss(f"m{n}", "eng", -60), received=now + int(minute * 60 * SECOND))[0]
        for n, minute in enumerate(minutes)
    ]


def plan_one_by_one(relay: Relay, ids: Iterable[str]) -> None:
    """Plan each event in a transaction of its own, in this order."""
    relay.route()
    for event_id in ids:
        with relay.database.write() as connection:
            plan.plan_event(connection, relay.terms.rules, relay.event(event_id), relay.now())


@pytest.mark.parametrize("reverse", [False, True])
def test_it_does_not_matter_in_which_order_people_are_planned(relay: Relay, reverse: bool) -> None:
    ids = record_at(relay, [-50, -40, -30, -20])
    plan_one_by_one(relay, reversed(ids) if reverse else ids)
    assert sorted(states(relay, ids)) == ["held", "held", "planned", "planned"]


def test_in_whatever_order_no_window_has_more_people_than_the_limit(relay: Relay) -> None:
    chance = random.Random(7)
    minutes = [chance.uniform(-300, 0) for _ in range(30)]
    ids = record_at(relay, minutes)
    order = list(ids)
    chance.shuffle(order)
    plan_one_by_one(relay, order)
    passed = sorted(m for m, state in zip(minutes, states(relay, ids), strict=True) if state == "planned")
    assert all(sum(end - 60 < minute <= end for minute in passed) <= 2 for end in passed)
    assert len(passed) > 4
    for minute in set(minutes) - set(passed):  # and nobody is held without need
        both = sorted([*passed, minute])
        assert any(sum(end - 60 < m <= end for m in both) > 2 for end in both if minute <= end < minute + 60)


def test_neighbours_on_both_sides_that_share_no_window_hold_nobody(relay: Relay) -> None:
    ids = record_at(relay, [-100, -50, -2])
    plan_one_by_one(relay, [ids[0], ids[2], ids[1]])
    assert states(relay, ids) == ["planned"] * 3


def test_the_fullest_window_that_holds_the_event_decides(relay: Relay) -> None:
    ids = record_at(relay, [-100, -50, -40, -5])
    plan_one_by_one(relay, [ids[0], ids[1], ids[3], ids[2]])
    assert states(relay, ids) == ["planned", "planned", "held", "planned"]


def test_two_who_plan_at_the_same_moment_do_not_both_slip_under_the_limit(relay: Relay) -> None:
    """The second waits for the lock until the first has committed, and then sees what it did."""
    guarded(relay, 1)
    first, second = record_at(relay, [-2, -1])
    relay.route()
    database = relay.database
    barrier = threading.Event()

    def plan_second() -> None:
        barrier.wait(10)
        with database.write() as connection:
            plan.plan_event(connection, relay.terms.rules, relay.event(second), relay.now())

    with ThreadPoolExecutor(1) as pool:
        row = relay.event(first)
        with database.write() as connection:
            plan.plan_event(connection, relay.terms.rules, row, database.now(connection))
            waiting = pool.submit(plan_second)
            barrier.set()
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        waiting.result(10)
    assert states(relay, [first, second]) == ["planned", "held"]


def test_a_person_is_counted_once_whatever_is_lost(relay: Relay) -> None:
    ids = relay.record(loss("u1", "eng", 1), loss("u1", "sales", 2), left("u1", 3), loss("u2", "eng", 1))
    relay.run()
    assert "held" not in states(relay, ids)


def test_who_only_keeps_what_was_planned_is_not_counted(relay: Relay) -> None:
    """A plan that ends `retained` took nothing: the next two people still fit."""
    guarded(relay, 2)
    relay.record(*[gain(f"u{n}", group) for n in range(4) for group in ("eng", "sales")])
    relay.run()
    kept = relay.record(*[loss(f"u{n}", "sales", 5) for n in range(4)])
    relay.run()
    assert states(relay, kept) == ["done"] * 4
    ids = relay.record(*[loss(f"x{n}", "eng", 6) for n in range(2)])
    relay.run()
    assert states(relay, ids) == ["done", "done"]


def test_a_single_event_that_exceeds_the_limit_alone_is_held_whole(relay: Relay) -> None:
    """One account loss that reaches three Velt users, because the account has been all of them."""
    for number in range(3):
        relay.record(gain("ada", "eng", number, login=f"ada{number}"))
        relay.run()
    [lost] = relay.record(left("ada", 10))
    relay.run()
    assert relay.event(lost).state == "held"
    assert relay.revocations(lost) == []
    assert "more than 2 people would lose something" in relay.event(lost).reason


def test_replayed_work_is_neither_held_nor_counted(relay: Relay) -> None:
    guarded(relay, 1)
    ids = relay.record(loss("u1", "eng"), loss("u2", "other"), loss("u3", "other"))
    relay.run()
    assert states(relay, ids) == ["done", "ignored", "ignored"]
    guarded(relay, 1, {"name": "all", "when": {"kind": ["group.member_removed"]}, "revoke": [ACME]})
    for event_id in ids[1:]:
        with relay.database.write() as connection:
            decision = Decision("ada", "retry", "the rule was missing")
            now = relay.database.now(connection)
            desk.retry(connection, relay.event(event_id), decision, now, parsed=None, replan=False)
    relay.run()
    assert states(relay, ids) == ["done"] * 3


def test_what_an_operator_removes_is_neither_held_nor_counted(relay: Relay) -> None:
    guarded(relay, 1)
    for user in ("u1", "u2"):
        operate.remove(relay.database, relay.terms.rules, "ada", {"user": user, "resources": [ACME]})
    ids = relay.record(loss("u3", "eng"))
    relay.run()
    assert [row.state for row in relay.rows(tables.events)] == ["done"] * 3
    assert states(relay, ids) == ["done"]


def test_a_source_called_operator_is_guarded_like_any_other(relay: Relay) -> None:
    guarded(relay, 1, {"name": "all", "when": {"kind": ["group.member_removed"]}, "revoke": [ACME]})
    ids = relay.record(*[loss(f"u{n}", "eng", n, source="operator") for n in range(3)])
    relay.run()
    assert sorted(states(relay, ids)) == ["done", "held", "held"]


def test_a_held_event_outlives_the_process(relay: Relay, clock: Clock) -> None:
    relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    relay.run()
    again = Relay(Database(relay.database.url.render_as_string(hide_password=False), clock), relay.terms.rules)
    try:
        [held] = [row.id for row in again.rows(tables.events) if row.state == "held"]
        assert removed_from(again) == set()
        decide(again, "approve", held)
        assert len(removed_from(again)) == 1
    finally:
        again.database.close()


# --- what was removed before


def one_leaver_an_hour(relay: Relay, clock: Clock, *users: str) -> None:
    """Each of them loses all by leaving, with nobody near in time."""
    for user in users:
        relay.record(left(user, 3600))
        relay.run()
        clock.advance(HOUR + 1)


def test_what_was_removed_before_is_removed_again_and_counts_for_nobody(relay: Relay, clock: Clock) -> None:
    one_leaver_an_hour(relay, clock, "u1", "u2", "u3")
    later = [event(Kind.ACCOUNT_DELETED, f"u{n}", 4 * HOUR) for n in (1, 2, 3)]
    ids = relay.record(*later)
    assert removed_from(relay) == {"u1", "u2", "u3"}
    new = relay.record(loss("x1", "eng", 4 * HOUR), loss("x2", "eng", 4 * HOUR), loss("x3", "eng", 4 * HOUR))
    relay.run()
    assert states(relay, ids) == ["done"] * 3
    assert sorted(states(relay, new)) == ["done", "done", "held"]


@pytest.mark.parametrize("between", [back("u3", 2 * HOUR), gain("u3", "choir", 2 * HOUR)])
def test_who_gained_anything_since_counts(relay: Relay, clock: Clock, between: AccessEvent) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    one_leaver_an_hour(relay, clock, "u3")
    relay.record(between)
    relay.run()
    clock.advance(HOUR + 1)
    relay.record(loss("x1", "eng", 4 * HOUR))
    relay.run()
    [held] = relay.record(left("u3", 4 * HOUR))
    relay.run()
    assert relay.event(held).state == "held"


def test_who_loses_something_new_besides_counts(relay: Relay, clock: Clock) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    relay.record(loss("u3", "sales", 0))
    relay.run()
    clock.advance(HOUR + 1)
    relay.record(loss("x1", "eng", 2 * HOUR))
    relay.run()
    known, held = relay.record(loss("u3", "sales", 2 * HOUR), loss("u3", "eng", 2 * HOUR))
    relay.run()
    assert states(relay, [known, held]) == ["done", "held"]


@pytest.mark.parametrize("came_to", [{"confirmation": "still has access"}, {"needs_regrant": True}])
def test_who_may_still_have_it_counts(relay: Relay, clock: Clock, came_to: dict[str, object]) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    one_leaver_an_hour(relay, clock, "u3")
    with relay.database.write() as connection:
        connection.execute(update(tables.revocations).values(**came_to))
    relay.record(loss("x1", "eng", 4 * HOUR))
    relay.run()
    [held] = relay.record(left("u3", 4 * HOUR))
    relay.run()
    assert relay.event(held).state == "held"


def test_what_only_a_look_up_had_seen_gained_counts(relay: Relay, clock: Clock) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    relay.record(loss("u3", "eng", 0))
    relay.run()
    clock.advance(HOUR + 1)
    with relay.database.write() as connection:
        known.learn(connection, group_fact("u3", "eng", when=5000, event_id=None))
    relay.record(loss("x1", "eng", 7200))
    relay.run()
    [held] = relay.record(loss("u3", "eng", 7200))
    relay.run()
    assert relay.event(held).state == "held"


def test_max_resources_does_not_count_what_was_removed_before(relay: Relay, clock: Clock) -> None:
    capped(relay, 2)
    [first] = relay.record(loss("ada", "eng"))
    relay.run()
    decide(relay, "approve", first)
    relay.run()
    clock.advance(10)
    shown = preview.preview(relay.database, relay.terms.rules, loss("ada", "eng", 3605))
    [again] = relay.record(loss("ada", "eng", 3605))
    assert removed_from(relay) == {"ada"}
    assert (shown.state, relay.event(again).state) == ("planned", "done")


# --- whole groups


def test_a_large_group_that_no_rule_is_about_is_not_held(relay: Relay) -> None:
    relay.record(*[gain(f"u{n}", "choir") for n in range(4)])
    relay.run()
    [parent] = relay.record(group_deleted("choir", 9))
    relay.run()
    assert relay.event(parent).state == "done"


@pytest.mark.parametrize("field", ["user.email", "group.name"])
def test_a_large_group_whose_rule_asks_for_what_only_a_member_tells_is_held(relay: Relay, field: str) -> None:
    when = {"kind": ["group.deleted"], field: [{"prefix": "u"}]}
    guarded(relay, 2, {"name": "some", "when": when, "revoke": [ACME]})
    relay.record(*[gain(f"u{n}", "eng") for n in range(4)])
    relay.run()
    [parent] = relay.record(group_deleted("eng", 9))
    relay.run()
    assert relay.event(parent).state == "held"


def test_a_group_is_held_before_its_first_member_or_not_at_all(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members who join while it is taken apart do not hold the half of it that is left."""
    monkeypatch.setattr("relay.store.fan_out.BATCH", 1)
    relay.record(*[gain(f"u{n}", "eng") for n in range(2)])
    relay.run()
    [parent] = relay.record(group_deleted("eng", 9))
    with relay.database.write() as connection:
        claim.routing.route(connection, relay.terms.rules, relay.now())
    relay.record(gain("u5", "eng", 8), gain("u6", "eng", 8))
    relay.run()
    assert relay.event(parent).state == "done"


# --- account_losses: exempt


def test_exempt_account_losses_are_not_held(relay: Relay) -> None:
    guarded(relay, 1, account_losses=False)
    ids = relay.record(*[left(f"u{n}", n) for n in range(4)])
    assert removed_from(relay) == {f"u{n}" for n in range(4)}
    assert states(relay, ids) == ["done"] * 4


def test_exempt_account_losses_go_on_where_the_limit_is_reached_by_others(relay: Relay) -> None:
    guarded(relay, 1, account_losses=False)
    relay.record(loss("x1", "eng", 1))
    relay.run()
    ids = relay.record(left("u1", 2), loss("u1", "eng", 3), loss("x2", "eng", 4))
    relay.run()
    assert states(relay, ids) == ["done", "done", "held"]


def test_exempt_account_losses_are_not_counted(relay: Relay) -> None:
    guarded(relay, 1, account_losses=False)
    relay.record(*[left(f"u{n}", n) for n in range(4)])
    relay.run()
    ids = relay.record(loss("x1", "eng", 9), loss("x2", "eng", 10))
    relay.run()
    assert sorted(states(relay, ids)) == ["done", "held"]


def test_a_group_that_goes_with_an_exempt_account_is_exempt_too(relay: Relay) -> None:
    """A SCIM client deletes a user: the account goes, then each group. That is one thing, not several."""
    guarded(relay, 1, account_losses=False)
    ids = relay.record(*[one for n in range(3) for one in (left(f"u{n}", 5), loss(f"u{n}", "eng", 6))])
    relay.run()
    assert "held" not in states(relay, ids)
    later = relay.record(loss("x1", "eng", 9))
    relay.run()
    assert states(relay, later) == ["done"]


def test_an_account_that_came_back_is_guarded_again(relay: Relay) -> None:
    guarded(relay, 1, account_losses=False)
    relay.record(left("u1", 1), event(Kind.ACCOUNT_ACTIVATED, "u1", 2), loss("x1", "eng", 3))
    relay.run()
    [held] = relay.record(loss("u1", "eng", 4))
    relay.run()
    assert relay.event(held).state == "held"


def test_everything_by_a_group_is_no_account_loss(relay: Relay) -> None:
    leaving = {"name": "all staff", "when": {"kind": ["group.member_removed"]}, "revoke": "everything"}
    fixed = {"name": "fixed", "when": {"kind": ["app.access_removed"]}, "revoke": [ACME]}
    guarded(relay, 1, leaving, fixed, account_losses=False)
    ids = relay.record(loss("u1", "staff"), loss("u2", "staff"))
    relay.run()
    assert sorted(states(relay, ids)) == ["done", "held"]


# --- max_resources

ACME = {"type": "organization", "id": "acme"}
MANY = [{"type": "document", "id": f"d{n}", "organizationId": "acme"} for n in range(3)]


def capped(relay: Relay, limit: int, **more: object) -> None:
    """No guard, and one rule that may take so many resources from one person."""
    given = {"name": "eng", "when": {"group.id": ["eng"]}, "revoke": [*MANY, MANY[0]], "max_resources": limit} | more
    other = {"name": "two", "when": {"group.id": ["two"]}, "revoke": MANY[:2]}
    document = {"identity": {"velt_user_id": ["{user.id}"]}, "rules": [given, other]}
    relay.terms = replace(relay.terms, rules=compile_rules(document, fills={"okta": ALL}))


def test_up_to_max_resources_an_event_goes_on(relay: Relay) -> None:
    capped(relay, 3)
    [event_id] = relay.record(loss("ada", "eng"))
    relay.run()
    assert relay.event(event_id).state == "done"


def test_past_max_resources_an_event_is_held_until_it_is_approved(relay: Relay) -> None:
    capped(relay, 2)
    first, second = relay.record(loss("ada", "eng"), loss("bob", "eng"))
    assert relay.run() == []
    assert relay.event(first).state == "held"
    assert relay.event(first).reason == (
        "the rule 'eng' would take 3 resources from one person, more than its max_resources of 2; approve or reject"
    )
    decide(relay, "approve", first)
    assert removed_from(relay) == {"ada"}
    decide(relay, "reject", second)
    assert removed_from(relay) == set()


def test_what_the_person_keeps_does_not_count_for_max_resources(relay: Relay) -> None:
    capped(relay, 2)
    relay.record(gain("ada", "eng"), gain("ada", "two"))
    [event_id] = relay.record(loss("ada", "eng", 5))
    relay.run()
    assert relay.event(event_id).state == "done"


def test_max_resources_counts_what_everything_takes(relay: Relay) -> None:
    capped(relay, 2, revoke="everything")
    relay.record(gain("ada", "two"), gain("bob", "eng"))
    ids = relay.record(loss("ada", "eng", 5))
    relay.run()
    assert states(relay, ids) == ["done"]
    capped(relay, 1, revoke="everything")
    ids = relay.record(loss("eve", "eng", 5))
    relay.run()
    assert states(relay, ids) == ["held"]


def test_a_preview_says_what_would_be_held(relay: Relay) -> None:
    capped(relay, 2)
    relay.record(*[gain(f"u{n}", "two") for n in range(3)])
    relay.run()
    found = preview.preview(relay.database, relay.terms.rules, loss("ada", "eng"))
    assert (found.state, "max_resources of 2" in (found.reason or "")) == ("held", True)
    guarded_rules = replace(relay.terms.rules, guard=Guard(2, HOUR))
    group = preview.preview(relay.database, guarded_rules, group_deleted("two", 5))
    assert (group.state, group.reason) == (
        "held",
        "the guard: up to 3 people would lose something at once, more than 2; approve or reject",
    )

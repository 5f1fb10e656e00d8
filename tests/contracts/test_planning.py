"""Planning: what an event takes, and that old never beats new; on both databases."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from relay import losses
from relay.model import SECOND, AccessEvent, Kind
from relay.store import claim, plan, routing, tables
from relay.store.database import Database
from tests.people import (
    ACME,
    D1,
    HUNG,
    RETRY,
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

BOTH = {ACME, D1}


# --- planning


def test_a_loss_without_a_rule_is_ignored(relay: Relay) -> None:
    [event_id] = relay.record(loss("ada", "nothing"))
    assert relay.run() == []
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("ignored", "no rule matches")


def test_a_leaver_who_had_nothing_is_told_so_in_a_sentence(timed: Database) -> None:
    relay = Relay(timed, small_rules(complete=["okta", "entra", "scim"]))
    [event_id] = relay.record(left("ada"))
    assert relay.claim() == ()
    told = "rule 'leavers' takes everything that any rule gives this person, and that is nothing"
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("ignored", told)


def test_a_change_takes_nothing_by_itself(relay: Relay) -> None:
    [event_id] = relay.record(event(Kind.ACCOUNT_CHANGED))
    assert relay.run() == []
    assert relay.event(event_id).state == "ignored"


def test_what_a_rule_could_not_decide_stays_failed_after_the_rest_is_done(relay: Relay) -> None:
    half = rules(
        {"name": "a", "when": {"user.email": "x"}, "revoke": [ACME.as_velt()]},
        {"name": "b", "when": {"group.id": "eng"}, "revoke": [D1.as_velt()]},
        identity=["{user.id}"],
        fills={},
    )
    relay.terms = replace(relay.terms, rules=half)
    [event_id] = relay.record(loss("ada", "eng"))
    assert [set(task.resources) for task in relay.run()] == [{D1}]
    assert relay.event(event_id).state == "failed"
    assert "user.email" in relay.event(event_id).reason


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("together", [True, False])
def test_a_later_gain_wins_in_every_order_of_arrival(relay: Relay, order: tuple[int, int], together: bool) -> None:
    """Arriving apart, the loss is planned but not sent when the gain comes."""
    both = (loss("ada", "eng", 1), gain("ada", "eng", 2))
    ids: dict[int, str] = {}
    for number in order:
        [ids[number]] = relay.record(both[number])
        if not together:
            assert relay.claim(sends=False) == ()
    assert relay.run() == []
    assert relay.states(ids[0]) == ["superseded", "superseded"]
    assert {row.superseded_by for row in relay.revocations()} == {ids[1]}
    assert relay.event(ids[0]).state == "done"


def test_the_later_of_what_came_together_wins_also_where_our_clock_is_behind(relay: Relay) -> None:
    """The database's clock says 3600 seconds after noon."""
    relay.record(loss("ada", "eng", 3602), gain("ada", "eng", 3605))
    relay.record(gain("bob", "eng", 3602), loss("bob", "eng", 3605))
    assert [task.velt_user_id for task in relay.run()] == ["bob"]


def test_a_later_loss_wins_over_an_earlier_gain_that_comes_after_it(relay: Relay) -> None:
    relay.record(loss("ada", "eng", 2))
    relay.record(gain("ada", "eng", 1))
    assert [set(task.resources) for task in relay.run()] == [BOTH]


def test_more_events_than_one_round_plans_are_all_known_before_a_call(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH", 3)
    relay.record(loss("ada", "eng", 1), *[gain("ada", f"x{n}", 2) for n in range(6)], gain("ada", "eng", 3))
    assert relay.run() == []
    for _ in range(3):
        assert relay.claim() == ()
    assert relay.states() == ["superseded", "superseded"]


def test_a_gain_of_the_time_under_an_old_login_counts(relay: Relay) -> None:
    """The subject was another Velt user when the gain was said: it tells all the same what the person has."""
    relay.record(gain("1", "sales", 1, login="ada"), gain("1", "eng", 2, login="ada.new"))
    [lost] = relay.record(loss("1", "eng", 3, login="ada.new"))
    relay.route()
    with relay.database.write() as connection:  # the person's turn comes first
        connection.execute(
            update(tables.people).where(tables.people.c.velt_user_id == "ada").values(plan_at=relay.now() + SECOND)
        )
    [task] = relay.claim(limit=1)
    assert (task.velt_user_id, set(task.resources)) == ("ada.new", {ACME})
    assert relay.states(lost) == ["retained", "sending"]


def test_an_event_that_is_not_routed_yet_holds_the_present_person_back(timed: Database, relay: Relay) -> None:
    relay.record(gain("1", "x", 2, login="ada.new"))
    relay.run()
    relay.record(gain("1", "sales", 1, login="ada"))
    with timed.read() as connection:
        assert routing.unrouted_people(connection, relay.terms.rules, timed.now(connection)) == {"ada", "ada.new"}


def test_whoever_takes_a_subjects_earlier_events_holds_their_earlier_user_too(timed: Database, relay: Relay) -> None:
    relay.record(gain("1", "sales", 1, login="ada"), gain("1", "eng", 2, login="ada.new"))
    relay.route()
    with timed.read() as connection:
        ids = {row.velt_user_id: row.id for row in connection.execute(select(tables.people))}
        rows = plan.unplanned(connection, ids["ada.new"])
        assert [row.group_id for row in rows] == ["sales", "eng"]
        assert plan.others_concerned(connection, rows, ids["ada.new"]) == {ids["ada"]}
        earlier = plan.unplanned(connection, ids["ada"])
        assert [row.group_id for row in earlier] == ["sales"]
        assert plan.others_concerned(connection, earlier, ids["ada"]) == {ids["ada.new"]}


def test_a_gain_that_arrives_after_the_routing_holds_its_person_back(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.record(loss("ada", "eng", 1), loss("bob", "eng", 1))
    relay.route()
    relay.record(gain("ada", "eng", 2))
    with monkeypatch.context() as patched:
        patched.setattr(claim, "route_all", lambda *_: 0)
        assert [task.velt_user_id for task in relay.claim()] == ["bob"]
    assert relay.claim() == ()
    assert "superseded" in relay.states()


# --- old never beats new


def test_a_retry_asks_again_whether_the_person_is_entitled(relay: Relay, clock: Clock) -> None:
    [lost] = relay.record(loss("ada", "eng"))
    [task] = relay.claim()
    relay.settle(task, RETRY)
    relay.record(gain("ada", "sales", 5))
    clock.advance(10)
    assert [set(task.resources) for task in relay.run()] == [{ACME}]
    assert relay.states(lost) == ["removed", "retained"]


def test_a_retry_that_was_gained_back_is_superseded_at_once(relay: Relay) -> None:
    [lost] = relay.record(loss("ada", "eng"))
    [task] = relay.claim()
    relay.settle(task, replace(RETRY, retry_after=3600.0))
    [gained] = relay.record(gain("ada", "eng", 5))
    assert relay.claim() == ()
    assert relay.states(lost) == ["superseded", "superseded"]
    assert {row.superseded_by for row in relay.revocations()} == {gained}
    assert not any(row.needs_regrant for row in relay.revocations())


def test_an_unsure_call_that_was_gained_back_may_need_a_regrant(relay: Relay, clock: Clock) -> None:
    [lost] = relay.record(loss("ada", "eng"))
    [task] = relay.claim()
    relay.settle(task, HUNG)
    relay.record(gain("ada", "eng", 5))
    clock.advance(10)
    assert relay.claim() == ()
    assert {(row.state, row.needs_regrant) for row in relay.revocations(lost)} == {("superseded", True)}


def test_a_gain_that_arrives_after_the_removal_was_sent_needs_a_regrant(relay: Relay) -> None:
    [lost] = relay.record(loss("ada", "eng", 1))
    relay.run()
    relay.record(gain("ada", "sales", 2))
    relay.run()
    assert {(row.resource_id, row.state, row.needs_regrant) for row in relay.revocations(lost)} == {
        ("acme", "removed", False),
        ("d1", "removed", True),
    }


def test_a_gain_during_a_call_needs_a_regrant(relay: Relay) -> None:
    [lost] = relay.record(loss("ada", "eng", 1))
    [task] = relay.claim()
    relay.record(gain("ada", "eng", 2))
    assert relay.claim() == ()
    relay.settle(task)
    assert relay.run() == []
    assert {(row.state, row.needs_regrant) for row in relay.revocations(lost)} == {("removed", True)}


def test_a_gain_that_happened_after_the_removal_needs_none(relay: Relay, clock: Clock) -> None:
    [lost] = relay.record(loss("ada", "eng", 1))
    relay.run()
    clock.advance(20)
    relay.record(gain("ada", "eng", 3611))
    relay.run()
    assert {row.needs_regrant for row in relay.revocations(lost)} == {False}


def test_an_activation_supersedes_the_account_loss(relay: Relay) -> None:
    relay.record(gain("ada", "eng", 0))
    [lost] = relay.record(left("ada", 1))
    [active] = relay.record(back("ada", 2))
    assert relay.run() == []
    assert {(row.state, row.superseded_by) for row in relay.revocations(lost)} == {("superseded", active)}


def test_an_activation_gives_back_no_group_that_was_lost_meanwhile(relay: Relay) -> None:
    relay.record(gain("ada", "eng", 0), left("ada", 1), loss("ada", "eng", 2), back("ada", 3))
    assert [set(task.resources) for task in relay.run()] == [BOTH]


def test_a_loss_while_the_account_is_inactive_is_not_retained(relay: Relay) -> None:
    relay.record(gain("ada", "eng", 0), gain("ada", "sales", 0), left("ada", 1, source="entra"))
    relay.run()
    [lost] = relay.record(loss("ada", "eng", 2))
    relay.run()
    assert relay.states(lost) == ["removed", "removed"]


# --- a mistake in a rule or in this program


def test_only_the_event_at_fault_fails_and_the_others_go_on(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    real = losses.plan

    def stumbling(event: AccessEvent, *more: Any, **options: Any) -> losses.Plan:
        if event.group_id == "eng":
            raise RuntimeError("a hole in a rule")
        return real(event, *more, **options)

    good, bad, other = relay.record(loss("ada", "sales", 1), loss("ada", "eng", 2), loss("bob", "sales", 1))
    with monkeypatch.context() as patched:
        patched.setattr(losses, "plan", stumbling)
        assert {task.velt_user_id for task in relay.run()} == {"ada", "bob"}
    assert [relay.event(event_id).state for event_id in (good, bad, other)] == ["done", "failed", "done"]
    assert relay.event(bad).reason == "could not be planned: RuntimeError: a hole in a rule"


def test_a_call_that_was_cancelled_when_its_worker_died_is_on_record(relay: Relay, clock: Clock) -> None:
    relay.record(loss("ada", "sales"))
    [task] = relay.claim()
    with relay.database.write() as connection:
        connection.execute(update(tables.revocations).values(state="cancelled", next_at=None))
    clock.advance(61)
    assert relay.claim() == ()
    [attempt] = relay.rows(tables.attempts)
    assert (attempt.outcome, attempt.request) == ("lost", json.dumps([r.as_velt() for r in task.resources]))
    assert {row.revocation_id for row in relay.rows(tables.attempt_revocations)} == set(task.revocation_ids)
    assert relay.states() == ["cancelled"] * len(task.revocation_ids)

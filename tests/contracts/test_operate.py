"""The operators' verbs, on both databases."""

from __future__ import annotations

import itertools
import json
import threading
from typing import Any

import pytest
from sqlalchemy import func, select, update

from relay import explaining, model, operate
from relay.config_checks import FIELDS_BY_SOURCE
from relay.errors import Refused, Unavailable
from relay.model import SECOND, Answer, Outcome
from relay.rules import compile_rules
from relay.store import attempts, desk, heartbeat, settling, vitals
from relay.store.database import Database
from relay.store.tables import decisions, events, facts, people, revocations
from tests import desk_cases, payloads
from tests.desk_cases import DOCUMENT, REFUSED, SOURCES, deliver, event, gained, lost, plan, record, rules, states


def planned(database: Database, *elements: object) -> list[str]:
    ids = record(database, *elements)
    plan(database)
    return ids


def decided(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(decisions).order_by(decisions.c.at, decisions.c.id)).all())


def retry(database: Database, event_id: str, **body: Any) -> dict[str, Any]:
    return operate.retry(database, SOURCES, "ada", event_id, body)


def refused(status: int, text: str, call: Any, *arguments: Any, **keywords: Any) -> None:
    with pytest.raises(Refused, match=text) as caught:
        call(*arguments, **keywords)
    assert caught.value.status == status


def test_the_list_shows_events_latest_first_with_counts(database: Database) -> None:
    first, second = planned(database, lost(), lost("bob@acme.example", "Other"))
    found = operate.events(database, {})
    assert {e["id"] for e in found["events"]} == {first, second}
    assert found["next"] is None
    one = next(e for e in found["events"] if e["id"] == first)
    assert one["state"] == "planned"
    assert one["revocations"] == {"pending": 2}
    assert one["user"]["velt_user_id"] == "ada@acme.example"
    assert one["group"] == {"id": "00gEngineering", "name": "Engineering"}
    assert one["app"] is None
    assert one["received_at"].endswith("Z")


def test_pages_go_on_where_the_last_one_ended_even_at_equal_times(database: Database) -> None:
    ids = record(database, *[lost(f"u{n}@acme.example") for n in range(7)], received_at=model.now())
    seen: list[str] = []
    cursor = None
    while True:
        answer = operate.events(database, {}, 3, cursor)
        seen += [e["id"] for e in answer["events"]]
        cursor = answer["next"]
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "", "ä", "MTIz", "MS9ldnRfAA"])
def test_a_made_up_cursor_is_refused(database: Database, cursor: str) -> None:
    refused(400, "cursor", operate.events, database, {}, 5, cursor)


@pytest.mark.parametrize("limit", [0, -1, 501])
def test_limit_has_bounds(database: Database, limit: int) -> None:
    refused(400, "from 1 to 500", operate.events, database, {}, limit)


@pytest.mark.parametrize(
    ("wanted", "logins"),
    [
        ({"state": "planned"}, ["ada"]),
        ({"state": "ignored"}, ["bob"]),
        ({"kind": "group.member_removed"}, ["ada", "bob"]),
        ({"kind": "group.deleted"}, []),
        ({"source": "okta"}, ["ada", "bob"]),
        ({"source": "entra"}, []),
        ({"user": "ada@acme.example"}, ["ada"]),
        ({"user": "00ubob@acme.example"}, ["bob"]),
        ({"group": "Engineering"}, ["ada"]),
        ({"group": "00gOther"}, ["bob"]),
        ({"since": "1h"}, ["ada", "bob"]),
        ({"until": "1h"}, []),
        ({"until": "2999-01-01"}, ["ada", "bob"]),
        ({"since": "2999-01-01T00:00:00Z"}, []),
        ({"since": "999999999d"}, ["ada", "bob"]),
        ({"state": "planned", "user": "bob@acme.example"}, []),
    ],
)
def test_filters(database: Database, wanted: dict[str, str], logins: list[str]) -> None:
    planned(database, lost(), lost("bob@acme.example", "Other"))
    found = operate.events(database, wanted)["events"]
    assert sorted(e["user"]["login"].split("@")[0] for e in found) == logins


def test_a_velt_user_id_finds_events_that_name_somebody_by_another_name(database: Database) -> None:
    exceptions = operate_rules_with_exception()
    (event_id,) = record(database, lost())
    plan(database, exceptions)
    assert [e["id"] for e in operate.events(database, {"user": "velt-7"})["events"]] == [event_id]


def operate_rules_with_exception() -> Any:
    return compile_rules(DOCUMENT, exceptions={"ada@acme.example": "velt-7"}, fills=FIELDS_BY_SOURCE)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"state": "fail"}, 'did you mean "failed".*possible: "received", "planned", "done"'),
        ({"state": "zzz"}, "possible: "),
        ({"kind": "account.delete"}, 'did you mean "account.deleted".*possible: "account.deactivated"'),
        ({"sate": "failed"}, 'unknown key "sate"; did you mean "state"'),
        ({"since": "yesterday"}, "since: .*wanted is a time"),
        ({"user": ""}, "user"),
        ({"user": "a\0b"}, "U\\+0000"),
        ({"group": "a\ud800b"}, "surrogate"),
        ({"user": 5}, "user"),
    ],
)
def test_a_wrong_filter_is_told(database: Database, wanted: dict[str, Any], text: str) -> None:
    refused(400, text, operate.events, database, wanted)


def test_show_tells_everything(database: Database) -> None:
    (event_id,) = planned(database, lost())
    deliver(database)
    found = operate.show(database, event_id)
    assert found["state"] == "done"
    assert found["plan"]["rules"][0]["rule"] == "engineering"
    assert [r["state"] for r in found["revocations"]] == ["removed", "removed"]
    (attempt,) = found["attempts"]
    assert attempt["outcome"] == "removed"
    assert sorted(attempt["revocations"]) == sorted(r["id"] for r in found["revocations"])
    assert {"type": "organization", "id": "acme"} in attempt["resources"]
    assert found["payload"]["eventType"] == "group.user_membership.remove"
    assert found["decisions"] == []
    json.dumps(found)


def test_an_unreadable_payload_is_shown_as_cut_text(database: Database) -> None:
    (event_id,) = record(database, {"eventType": 5})
    with database.write() as connection:
        connection.execute(update(events).values(payload=b"\xff" + b"x" * 20_000))
    shown = operate.show(database, event_id)["payload"]
    assert shown.startswith("\ufffdxxx")
    assert len(shown) == 10_000


@pytest.mark.parametrize("event_id", ["evt_0", "x", "evt_\0", "evt_ä", ""])
def test_an_event_that_is_not_there(database: Database, event_id: str) -> None:
    refused(404, "no event", operate.show, database, event_id)
    refused(404, "no event", retry, database, event_id)
    refused(404, "no event", operate.decide, database, "ada", "cancel", event_id, {})


def test_retry_sends_open_revocations_now_with_all_attempts_before_them(database: Database) -> None:
    (event_id,) = planned(database, lost())
    with database.write() as connection:
        later = model.now() + 3600 * SECOND
        connection.execute(update(revocations).values(next_at=later, attempts=7, solo=True))
        connection.execute(update(people).values(send_at=later))
    assert deliver(database) == 0
    assert retry(database, event_id, reason="fixed")["state"] == "planned"
    with database.read() as connection:
        rows = connection.execute(select(revocations)).all()
    assert {(row.attempts, row.solo) for row in rows} == {(0, False)}
    assert deliver(database) == 1
    (row,) = decided(database)
    assert (row.actor, row.action, row.event_id, row.reason) == ("ada", "retry", event_id, "fixed")
    assert json.loads(row.detail)["revocations"] == 2
    values = row._asdict()
    assert values.pop("digest") == attempts.digest(values)


def test_retry_revives_the_dead(database: Database) -> None:
    (event_id,) = planned(database, lost())
    deliver(database, REFUSED)
    assert event(database, event_id).state == "failed"
    assert states(database, event_id) == ["dead", "dead"]
    assert retry(database, event_id)["state"] == "planned"
    assert states(database, event_id) == ["pending", "pending"]
    deliver(database)
    assert event(database, event_id).state == "done"
    assert len(operate.show(database, event_id)["attempts"]) == 4


def test_retry_leaves_a_call_in_flight_alone(database: Database) -> None:
    (event_id,) = planned(database, lost())
    (task,) = desk_cases.take(database)
    assert retry(database, event_id)["state"] == "planned"
    assert states(database, event_id) == ["sending", "sending"]
    refused(409, "under way", retry, database, event_id, replan=True)
    assert settling.settle(database, desk_cases.terms(), task, desk_cases.REMOVED, 0, 0)
    assert event(database, event_id).state == "done"


def test_retry_plans_what_was_ignored_again(database: Database) -> None:
    (event_id,) = planned(database, lost(group="Design"))
    assert event(database, event_id).state == "ignored"
    assert retry(database, event_id)["state"] == "received"
    row = event(database, event_id)
    assert (row.replay, row.planned_at, row.person_id) == (True, None, None)
    wider = json.loads(json.dumps(DOCUMENT))
    wider["rules"][0]["when"]["group.name"].append("Design")
    plan(database, rules(wider))
    assert event(database, event_id).state == "planned"


def test_retry_plans_again_what_could_not_be_decided(database: Database) -> None:
    (event_id,) = planned(database, lost(group="Mail"))
    assert event(database, event_id).state == "failed"
    assert retry(database, event_id)["state"] == "received"
    plan(database)
    assert "user.email" in event(database, event_id).reason


def test_done_is_retried_only_with_replan(database: Database) -> None:
    (event_id,) = planned(database, lost())
    deliver(database)
    refused(409, "replan", retry, database, event_id)
    assert retry(database, event_id, replan=True)["state"] == "received"
    plan(database)
    assert states(database, event_id) == ["removed", "removed", "pending", "pending"]
    assert deliver(database) == 1
    assert event(database, event_id).state == "done"


def test_replan_cancels_what_was_open(database: Database) -> None:
    (event_id,) = planned(database, lost())
    retry(database, event_id, replan=True)
    assert states(database, event_id) == ["cancelled", "cancelled"]
    with database.read() as connection:
        assert connection.execute(select(revocations.c.reason)).scalars().first() == "planned again by ada"
        assert connection.execute(select(people.c.send_at)).scalar() is None
    plan(database)
    assert states(database, event_id) == ["cancelled", "cancelled", "pending", "pending"]


def test_a_replay_is_judged_by_what_the_person_has_today(database: Database) -> None:
    (old,) = planned(database, lost(published="2026-03-02T09:00:00Z"))
    deliver(database)
    planned(database, gained(published="2026-03-02T10:00:00Z"))
    retry(database, old, replan=True)
    plan(database)
    assert deliver(database) == 0
    assert states(database, old)[2:] == ["superseded", "superseded"]


def test_received_cannot_be_retried(database: Database) -> None:
    (event_id,) = record(database, lost())
    refused(409, "not planned yet", retry, database, event_id)


def test_what_was_unreadable_is_parsed_again(database: Database) -> None:
    (event_id,) = record(database, {"uuid": "u-1", "eventType": 5})
    assert event(database, event_id).state == "unreadable"
    still = retry(database, event_id)
    assert still["state"] == "unreadable"
    with database.write() as connection:
        connection.execute(update(events).values(payload=payloads.to_bytes(lost(event_id="u-1"))))
    again = retry(database, event_id)
    assert again["state"] == "done"
    (child,) = operate.show(database, event_id)["children"]
    assert again["reason"] == f"parsed again as {child}"
    before, after = event(database, event_id), event(database, child)
    assert (after.state, after.dedup_key, after.parent_id) == ("received", "u-1", event_id)
    assert after.received_at == before.received_at
    record(database, lost(event_id="u-1"))
    assert len(operate.events(database, {})["events"]) == 2
    plan(database)
    assert event(database, child).state == "planned"


def test_a_whole_body_is_parsed_again_without_what_came_meanwhile(database: Database) -> None:
    record(database, lost(event_id="u-1"))
    (event_id,) = record(database, {"uuid": "other", "eventType": 5})
    body = payloads.to_bytes(payloads.okta_hook([lost(event_id="u-1")]))
    with database.write() as connection:
        connection.execute(update(events).where(events.c.id == event_id).values(payload=body))
    assert retry(database, event_id)["reason"] == "parsed again: all of it was recorded already"


def test_an_event_of_an_unmapped_type_is_read_anew_by_todays_kinds(database: Database) -> None:
    locked = payloads.okta_event("user.account.lock", payloads.okta_user())
    (event_id,) = record(database, locked)
    assert event(database, event_id).state == "ignored"
    assert retry(database, event_id)["state"] == "ignored"
    mapped = {"okta": desk_cases.okta(kinds={"user.account.lock": "account.suspended"})}
    assert operate.retry(database, mapped, "ada", event_id, {})["state"] == "done"
    (child,) = operate.show(database, event_id)["children"]
    assert event(database, child).kind == "account.suspended"


def test_what_can_no_longer_be_read_is_refused(database: Database) -> None:
    (event_id,) = record(database, {"uuid": "u-1", "eventType": 5})
    refused(409, "no source okta", operate.retry, database, {}, "ada", event_id, {})
    with database.write() as connection:
        connection.execute(update(events).values(payload=b""))
    refused(409, "no longer kept", retry, database, event_id)


def test_cancel_ends_what_is_open_and_says_who(database: Database) -> None:
    (event_id,) = planned(database, lost())
    answer = operate.decide(database, "ada", "cancel", event_id, {"reason": "wrong group"})
    assert answer == {"id": event_id, "state": "ignored", "reason": "cancelled by ada: wrong group"}
    assert states(database, event_id) == ["cancelled", "cancelled"]
    assert deliver(database) == 0
    refused(409, "nothing left", operate.decide, database, "ada", "cancel", event_id, {})
    assert [row.action for row in decided(database)] == ["cancel"]
    retry(database, event_id)
    plan(database)
    assert deliver(database) == 1


def test_cancel_of_a_part_leaves_the_rest_as_it_is(database: Database) -> None:
    (event_id,) = planned(database, lost())
    with database.write() as connection:
        first = connection.execute(select(revocations.c.id).order_by(revocations.c.id)).scalars().first()
        connection.execute(
            update(revocations).where(revocations.c.id == first).values(state="removed", next_at=None, settled_at=1)
        )
        connection.execute(update(revocations).where(revocations.c.id != first).values(unsure=True))
    answer = operate.decide(database, "ada", "cancel", event_id, {})
    assert (answer["state"], answer["reason"]) == ("done", "1 cancelled, 1 removed")
    assert [r["needs_regrant"] for r in operate.show(database, event_id)["revocations"]] == [False, True]


@pytest.mark.parametrize(("outcome", "left"), [(desk_cases.REMOVED, "removed"), (REFUSED, "cancelled")])
def test_cancel_while_a_call_is_under_way(database: Database, outcome: Any, left: str) -> None:
    (event_id,) = planned(database, lost())
    (task,) = desk_cases.take(database)
    assert operate.decide(database, "ada", "cancel", event_id, {})["state"] == "ignored"
    assert settling.settle(database, desk_cases.terms(), task, outcome, 0, 0)
    assert states(database, event_id) == [left, left]
    assert [r["needs_regrant"] for r in operate.show(database, event_id)["revocations"]] == [True, True]
    assert deliver(database) == 0


def test_what_was_cancelled_before_planning_may_be_said_again(database: Database) -> None:
    (event_id,) = record(database, lost())
    with database.write() as connection:
        connection.execute(update(events).values(twin=True, dedup_key="digest"))
    operate.decide(database, "ada", "cancel", event_id, {})
    assert event(database, event_id).dedup_key is None


def test_what_was_cancelled_waits_for_no_answer_any_more(database: Database) -> None:
    (event_id,) = record(database, lost())
    with database.write() as connection:
        connection.execute(update(events).values(look_at=1, wait_until=model.now()))
    operate.decide(database, "ada", "cancel", event_id, {})
    assert event(database, event_id).wait_until is None


def test_cancel_before_planning_keeps_what_was_said_of_access(database: Database) -> None:
    planned(database, gained(published="2026-03-02T09:00:00Z"))
    (event_id,) = record(database, lost(published="2026-03-02T10:00:00Z"))
    assert operate.decide(database, "ada", "cancel", event_id, {})["state"] == "ignored"
    plan(database)
    assert event(database, event_id).state == "ignored"
    with database.read() as connection:
        assert connection.execute(select(facts.c.present)).scalar_one() is False


def test_a_gain_cannot_be_cancelled(database: Database) -> None:
    (event_id,) = record(database, gained())
    refused(409, "gain", operate.decide, database, "ada", "cancel", event_id, {})


def test_cancel_acknowledges_what_failed_or_was_unreadable(database: Database) -> None:
    unreadable, undecided = planned(database, {"eventType": 5}, lost(group="Mail"))
    assert event(database, undecided).state == "failed"
    for event_id in (unreadable, undecided):
        assert operate.decide(database, "ada", "cancel", event_id, {})["state"] == "ignored"
    assert operate.show(database, undecided)["unresolved"] is None
    assert retry(database, unreadable)["state"] == "unreadable"


def hold(database: Database, event_id: str) -> None:
    with database.write() as connection:
        connection.execute(update(events).where(events.c.id == event_id).values(state="held", reason="guard"))


def test_what_is_held_is_approved_or_rejected(database: Database) -> None:
    yes, no = record(database, lost(), lost("bob@acme.example"))
    hold(database, yes)
    hold(database, no)
    refused(409, "approve or reject", retry, database, yes)
    refused(409, "approve or reject", operate.decide, database, "ada", "cancel", yes, {})
    assert operate.decide(database, "ada", "approve", yes, {})["state"] == "received"
    rejected = operate.decide(database, "ada", "reject", no, {"reason": "a mistake"})
    assert (rejected["state"], rejected["reason"]) == ("ignored", "rejected by ada: a mistake")
    assert event(database, yes).replay
    plan(database)
    assert deliver(database) == 1
    refused(409, "only what is held can be approved", operate.decide, database, "ada", "approve", no, {})


def test_bulk_retry_counts_and_changes(database: Database) -> None:
    ids = planned(database, *[lost(f"u{n}@acme.example") for n in range(120)], lost(group="Design"))
    deliver(database, REFUSED)
    body: dict[str, Any] = {"filter": {"state": "failed"}, "reason": "Velt was told wrong"}
    dry = operate.retry_all(database, SOURCES, "ada", {**body, "dry_run": True})
    assert dry == {"matched": 120, "possible": 120, "passed_over": {}, "retried": 0, "more": False, "next": None}
    assert decided(database) == []
    assert operate.retry_all(database, SOURCES, "ada", body) == dry | {"retried": 120}
    assert len(decided(database)) == 120
    assert json.loads(decided(database)[0].detail)["filter"] == {"state": "failed"}
    assert states(database, ids[0]) == ["pending", "pending"]
    again = operate.retry_all(database, SOURCES, "ada", {"filter": {"source": "okta"}})
    assert (again["matched"], again["possible"], again["retried"]) == (121, 121, 121)


def test_bulk_retry_passes_over_what_cannot_be_retried(database: Database) -> None:
    (event_id,) = planned(database, lost())
    deliver(database)
    answer = operate.retry_all(database, SOURCES, "ada", {"filter": {"source": "okta"}})
    assert (answer["matched"], answer["possible"], answer["retried"]) == (1, 0, 0)
    assert answer["passed_over"] == {"done": 1}
    replan = {"filter": {"source": "okta"}, "replan": True}
    assert operate.retry_all(database, SOURCES, "ada", replan)["retried"] == 1
    assert event(database, event_id).state == "received"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, '"filter" is missing'),
        ({"filter": {}}, "an empty filter would mean every event"),
        ({"filter": {"state": "failed"}, "dryrun": True}, 'did you mean "dry_run"'),
        ({"filter": {"sate": "failed"}}, 'did you mean "state"'),
        ({"filter": []}, "filter"),
        (5, "an object"),
    ],
)
def test_bulk_wants_a_filter(database: Database, body: Any, text: str) -> None:
    refused(400, text, operate.retry_all, database, SOURCES, "ada", body)


def test_bulk_goes_on_call_by_call_each_event_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operate, "MOST_AT_ONCE", 3)
    moment = model.now()
    ids = record(database, *[lost(f"u{n}@acme.example") for n in range(7)], received_at=moment)
    plan(database)
    body: dict[str, Any] = {"filter": {"source": "okta"}}
    numbers, cursor = [], None
    for _ in range(3):
        answer = operate.retry_all(database, SOURCES, "ada", body | ({"cursor": cursor} if cursor else {}))
        numbers.append((answer["matched"], answer["retried"], answer["more"]))
        cursor = answer["next"]
    assert numbers == [(7, 3, True), (7, 3, True), (7, 1, False)]
    assert cursor is None
    assert sorted(row.event_id for row in decided(database)) == sorted(ids)
    refused(400, "cursor", operate.retry_all, database, SOURCES, "ada", body | {"cursor": "x"})


def test_a_failure_half_way_says_how_many_were_changed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.desk.CHUNK", 2)
    planned(database, *[lost(f"u{n}@acme.example") for n in range(5)])
    real, calls = database.write, []

    def write() -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Unavailable("the disk is full")
        return real()

    monkeypatch.setattr(database, "write", write)
    body = {"filter": {"state": "planned"}}
    refused(503, "4 events were cancelled", operate.decide_all, database, "ada", "cancel", body)
    calls[:] = [1, 1]
    with pytest.raises(Unavailable):
        operate.decide_all(database, "ada", "cancel", body)


def given_to_another(monkeypatch: pytest.MonkeyPatch, *moving: str) -> None:
    """Have these events be routed between the look at them and the lock."""
    real = desk._concerned
    looks = itertools.count()

    def concerned(connection: Any, ids: Any) -> set[int]:
        return real(connection, ids) | ({next(looks) + 10_000} if set(moving) & set(ids) else set())

    monkeypatch.setattr(desk, "_concerned", concerned)


def test_an_event_that_is_being_planned_is_a_conflict(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    moving, still = planned(database, lost(), lost("bob@acme.example"))
    given_to_another(monkeypatch, moving)
    refused(409, "being planned at this moment", operate.decide, database, "ada", "cancel", moving, {})
    answer = operate.decide_all(database, "ada", "cancel", {"filter": {"state": "planned"}})
    assert (answer["possible"], answer["cancelled"]) == (2, 1)
    assert [event(database, event_id).state for event_id in (moving, still)] == ["planned", "ignored"]


def test_bulk_cancel_approve_reject(database: Database) -> None:
    first, second = planned(database, lost(), lost("bob@acme.example"))
    by_user = {"filter": {"user": "ada@acme.example"}}
    answer = operate.decide_all(database, "ada", "cancel", by_user)
    assert (answer["matched"], answer["possible"], answer["cancelled"]) == (1, 1, 1)
    hold(database, second)
    held = {"filter": {"state": "held"}}
    assert operate.decide_all(database, "ada", "reject", {**held, "dry_run": True})["rejected"] == 0
    assert operate.decide_all(database, "ada", "approve", held)["approved"] == 1
    assert event(database, first).state == "ignored"


def test_bulk_passes_over_what_cannot_take_the_decision(database: Database) -> None:
    gain, waiting = record(database, gained("bob@acme.example"), lost("cleo@acme.example"))
    answer = operate.decide_all(database, "ada", "cancel", {"filter": {"source": "okta"}})
    assert (answer["matched"], answer["possible"], answer["cancelled"]) == (2, 2, 1)
    assert [event(database, event_id).state for event_id in (gain, waiting)] == ["received", "ignored"]


def test_an_account_loss_that_reaches_two_velt_users_is_cancelled_for_both(database: Database) -> None:
    user = "00uada@acme.example"
    planned(
        database,
        gained("old@acme.example") | {"target": [payloads.okta_user(user, "old@acme.example"), payloads.okta_group()]},
    )
    gone = payloads.okta_event(
        "user.lifecycle.deactivate", payloads.okta_user(user, "new@acme.example"), published="2026-04-01T00:00:00Z"
    )
    (event_id,) = planned(database, gone)
    assert len(states(database, event_id)) == 4
    operate.decide(database, "ada", "cancel", event_id, {})
    assert states(database, event_id) == ["cancelled"] * 4
    with database.read() as connection:
        waiting = connection.execute(select(func.count()).select_from(people).where(people.c.send_at.is_not(None)))
        assert waiting.scalar_one() == 0


def test_remove_by_hand(database: Database) -> None:
    wanted = [{"type": "document", "id": f"d{n}", "organizationId": "acme"} for n in range(40)]
    body = {"user": "eve@acme.example", "resources": wanted, "reason": "asked by phone"}
    event_id = operate.remove(database, rules(), "ada", body)["id"]
    found = operate.show(database, event_id)
    assert (found["source"], found["kind"], found["state"]) == ("operator", "operator.remove", "planned")
    assert found["user"]["velt_user_id"] == found["user"]["id"] == "eve@acme.example"
    assert found["payload"] == body
    assert found["plan"]["rules"][0]["because"] == "asked for by ada: asked by phone"
    assert [d["action"] for d in found["decisions"]] == ["remove"]
    assert deliver(database) == 2
    assert event(database, event_id).state == "done"
    assert operate.events(database, {"source": "operator"})["events"][0]["id"] == event_id


def test_remove_everything_is_what_rules_give_and_gave(database: Database) -> None:
    planned(database, gained())
    event_id = operate.remove(database, rules(), "ada", {"user": "ada@acme.example", "resources": "everything"})["id"]
    found = operate.show(database, event_id)
    assert [r["resource"]["id"] for r in found["revocations"]] == ["acme", "roadmap"]
    assert found["incomplete"] == ["by mail"]
    # an operator's word stands although the group still gives it
    assert deliver(database) == 1


def test_a_failed_removal_by_hand_is_tried_again_but_never_planned(database: Database) -> None:
    body = {"user": "eve@acme.example", "resources": [{"type": "organization", "id": "acme"}]}
    event_id = operate.remove(database, rules(), "ada", body)["id"]
    deliver(database, REFUSED)
    assert retry(database, event_id)["state"] == "planned"
    deliver(database)
    refused(409, "ask for a new removal", retry, database, event_id, replan=True)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "user"),
        ({"user": "x"}, "resources"),
        ({"user": " ", "resources": "everything"}, "not blank"),
        ({"user": "x ", "resources": "everything"}, "without blanks at its ends"),
        ({"user": "\nx", "resources": "everything"}, "without blanks at its ends"),
        ({"user": "x", "resources": "all"}, "everything"),
        ({"user": "x", "resources": []}, "resources"),
        ({"user": "x", "resources": [{"type": "document", "id": "d"}]}, "organizationId"),
        ({"user": "x", "resources": [{"type": "organization", "id": "a", "organizationId": "a"}]}, "organizationId"),
        ({"user": "x", "resources": [{"type": "file", "id": "a"}]}, "did you mean"),
        ({"user": "x\0", "resources": "everything"}, "U\\+0000"),
        ({"user": "x", "resources": "everything", "why": "y"}, "unknown key"),
    ],
)
def test_a_wrong_removal_is_told(database: Database, body: dict[str, Any], text: str) -> None:
    refused(400, text, operate.remove, database, rules(), "ada", body)


def test_remove_says_whether_anybody_is_known_by_that_id(database: Database) -> None:
    record(database, lost())
    plan(database)
    known = [
        operate.remove(database, rules(), "ada", {"user": user, "resources": "everything"})["known"]
        for user in ("ada@acme.example", "adda@acme.example", "adda@acme.example")
    ]
    assert known == [True, False, False]


def waits_for(database: Database, event_id: str, mode: str = "enforce") -> str | None:
    """What the event says, which must be what its first revocation to be sent says."""
    (listed,) = operate.events(database, {"user": "ada@acme.example"}, mode=mode)["events"]
    shown = operate.show(database, event_id, mode=mode)["revocations"]
    assert listed["waits_for"] == min(shown, key=lambda one: one["next_attempt_at"] or "")["waits_for"]
    found: str | None = listed["waits_for"]
    return found


def test_it_says_why_a_revocation_is_open(database: Database) -> None:
    (event_id,) = planned(database, lost())
    assert waits_for(database, event_id) == "no worker is alive"
    heartbeat.beat(database, "w1", "v1")
    assert (
        waits_for(database, event_id)
        == "it is due: a worker takes it next, or once a look-up of this person is answered"
    )
    assert waits_for(database, event_id, "observe") == "mode is observe: nobody is called"
    operate.pause(database, "ada", {"reason": "moving"})
    assert waits_for(database, event_id) == "delivery is paused by ada: moving"
    operate.resume(database, "ada", {})
    (task,) = desk_cases.take(database)
    assert waits_for(database, event_id) == "a call to Velt is under way"
    slow = Outcome(Answer.RETRY, "HTTP 429", 429, retry_after=60)
    settling.settle(database, desk_cases.terms(), task, slow, model.now(), model.now())
    assert (waits_for(database, event_id) or "").startswith("the next attempt is at 20")
    retry(database, event_id)
    (task,) = desk_cases.take(database)
    key = Outcome(Answer.UNAUTHORIZED, "UNAUTHENTICATED", 401)
    settling.settle(database, desk_cases.terms(), task, key, model.now(), model.now())
    told = waits_for(database, event_id) or ""
    assert "UNAUTHENTICATED" in told
    assert "the next probe is at 20" in told


def test_another_call_for_the_same_person_is_told(database: Database) -> None:
    wanted = [{"type": "organization", "id": f"o{n}"} for n in range(31)]
    event_id = operate.remove(database, rules(), "ada", {"user": "eve", "resources": wanted})["id"]
    heartbeat.beat(database, "w1", "v1")
    desk_cases.take(database)
    told = [one["waits_for"] for one in operate.show(database, event_id)["revocations"]]
    assert told == ["a call to Velt is under way"] * 30 + ["another call for this person is under way"]
    assert operate.events(database, {})["events"][0]["waits_for"] == "a call to Velt is under way"


def test_what_is_settled_waits_for_nothing(database: Database) -> None:
    (event_id,) = planned(database, lost())
    deliver(database)
    assert waits_for(database, event_id) is None


def test_everything_of_rules_that_name_nothing_is_refused(database: Database) -> None:
    empty = rules({**DOCUMENT, "lists": {}, "rules": []})
    refused(409, "names no resource", operate.remove, database, empty, "ada", {"user": "x", "resources": "everything"})
    assert operate.events(database, {})["events"] == []


def test_pause_stops_and_resume_starts_delivery(database: Database) -> None:
    planned(database, lost())
    assert operate.pause(database, "ada", {"reason": "Velt moves house"}) == {"paused": True}
    assert deliver(database) == 0
    told = operate.stats(database, "enforce")["delivery"]
    assert (told["paused"], told["paused_by"], told["paused_reason"]) == (True, "ada", "Velt moves house")
    assert operate.resume(database, "bob", {}) == {"paused": False}
    assert deliver(database) == 1
    assert [(row.actor, row.action) for row in decided(database)] == [("ada", "pause"), ("bob", "resume")]


def test_stats(database: Database) -> None:
    empty = operate.stats(database, "observe")
    assert empty["time_to_revoke_seconds"] == {"p50": None, "p95": None, "p99": None, "count": 0}
    assert empty["oldest_pending_seconds"] is None
    assert empty["delivery"]["since"] is None
    start = model.now()
    record(database, *[lost(f"u{n}@acme.example") for n in range(4)], received_at=start - 100 * SECOND)
    plan(database)
    deliver(database)
    record(database, lost("late@acme.example"), received_at=start - 50 * SECOND)
    with database.write() as connection:
        ids = list(connection.execute(select(revocations.c.id).order_by(revocations.c.id)).scalars())
        for number, name in enumerate(ids, start=1):
            settled = start - 100 * SECOND + number * SECOND
            connection.execute(update(revocations).where(revocations.c.id == name).values(settled_at=settled))
        connection.execute(update(revocations).where(revocations.c.id == ids[0]).values(needs_regrant=True))
    heartbeat.beat(database, "w1", "v1")
    found = operate.stats(database, "enforce")
    assert found["events"] == {"done": 4, "received": 1}
    assert found["revocations"] == {"removed": 8}
    assert found["time_to_revoke_seconds"] == {"p50": 4.0, "p95": 8.0, "p99": 8.0, "count": 8}
    assert 50 <= found["oldest_pending_seconds"] < 80
    assert found["needs_regrant"] == 1
    assert found["delivery"]["mode"] == "enforce"
    assert [worker["alive"] for worker in found["workers"]] == [True]
    assert found["people"] == 4


def test_stats_and_metrics_count_the_same(database: Database) -> None:
    start = model.now()
    (held,) = record(database, lost(), received_at=start - 500 * SECOND)
    hold(database, held)
    assert operate.stats(database, "enforce")["oldest_pending_seconds"] is None
    assert vitals.read(database).oldest_pending_seconds == 0
    record(database, lost("bob@acme.example"), received_at=start - 100 * SECOND)
    plan(database)
    record(database, lost("cleo@acme.example"), received_at=start - 50 * SECOND)
    told, read = operate.stats(database, "enforce"), vitals.read(database)
    assert 100 <= told["oldest_pending_seconds"] <= read.oldest_pending_seconds < 150
    assert told["events"] == {"received": 1, "planned": 1, "held": 1}
    assert told["events"] == {state: number for state, number in read.events.items() if number}


def rows_of(database: Database) -> list[Any]:
    with database.read() as connection:
        return [connection.execute(select(table)).all() for table in (events, facts, people, revocations, decisions)]


def explain(database: Database, document: object) -> list[dict[str, Any]]:
    before = rows_of(database)
    answer = explaining.explain(database, rules(), SOURCES["okta"], payloads.to_bytes(document))
    assert rows_of(database) == before
    found: list[dict[str, Any]] = answer["events"]
    return found


def test_explain_says_what_would_go_and_why(database: Database) -> None:
    (one,) = explain(database, lost())
    assert (one["state"], one["user"]["velt_user_id"]) == ("planned", "ada@acme.example")
    assert [(rule["rule"], rule["verdict"]) for rule in one["rules"]] == [
        ("engineering", "applies"),
        ("by mail", "does not apply"),
        ("leavers", "does not apply"),
    ]
    assert {removal["state"] for removal in one["removals"]} == {"pending"}
    (call,) = one["velt"]
    assert call["data"]["userId"] == "ada@acme.example"
    assert call["data"]["permissions"]["resources"][0] == {"type": "organization", "id": "acme"}


@pytest.mark.parametrize("element", [lost(), lost(group="Design"), lost(group="Mail")])
def test_explain_foretells_what_planning_does(database: Database, element: dict[str, Any]) -> None:
    planned(database, gained(group="Platform", published="2026-03-01T00:00:00Z"))
    (told,) = explain(database, element)
    (event_id,) = planned(database, element)
    done = operate.show(database, event_id)
    assert [removal["resource"] for removal in told["removals"]] == [r["resource"] for r in done["revocations"]]
    assert [removal["state"] for removal in told["removals"]] == [r["state"] for r in done["revocations"]]
    assert [removal["reason"] for removal in told["removals"]] == [r["reason"] for r in done["revocations"]]
    assert (told["state"], told["reason"]) == (done["state"], done["reason"])
    assert [rule for rule in told["rules"] if rule["verdict"] != "does not apply"] == done["plan"]["rules"]
    assert told["recorded_as"] is None
    assert explain(database, element)[0]["recorded_as"] == event_id


def test_explain_sees_a_newer_gain(database: Database) -> None:
    (gain,) = planned(database, gained(published="2026-03-03T00:00:00Z"))
    (one,) = explain(database, lost(published="2026-03-02T00:00:00Z"))
    assert [(r["state"], r["superseded_by"]) for r in one["removals"]] == [("superseded", gain)] * 2
    assert one["velt"] == []


def test_explain_of_a_leaver_reaches_every_id_they_had(database: Database) -> None:
    planned(database, gained())
    gone = payloads.okta_event(
        "user.lifecycle.deactivate", payloads.okta_user("00uada@acme.example", "a.new@acme.example")
    )
    (one,) = explain(database, gone)
    assert {r["velt_user_id"] for r in one["removals"]} == {"ada@acme.example", "a.new@acme.example"}
    assert {r["state"] for r in one["removals"]} == {"pending"}
    assert one["incomplete"] == ["by mail"]


def test_explain_of_a_whole_group_shows_its_members(database: Database) -> None:
    planned(database, *[gained(f"u{n:02}@acme.example", published="2026-03-01T00:00:00Z") for n in range(12)])
    deleted = payloads.okta_event("group.lifecycle.delete", payloads.okta_group("00gEngineering", "Engineering"))
    (one,) = explain(database, deleted)
    assert (one["state"], one["members"], len(one["people"])) == ("done", 12, 10)
    assert len(one["velt"]) == 10
    (nobody,) = explain(database, payloads.okta_event("group.lifecycle.delete", payloads.okta_group("00gX", "X")))
    assert (nobody["state"], nobody["members"]) == ("ignored", 0)


def test_explain_of_what_takes_nothing(database: Database) -> None:
    assert explain(database, payloads.okta_event("user.session.start"))[0]["state"] == "ignored"
    nameless = payloads.okta_event("user.lifecycle.suspend", payloads.okta_user("00u1", None))
    assert "no Velt user id" in explain(database, nameless)[0]["reason"]
    refused(400, "not JSON", explaining.explain, database, rules(), SOURCES["okta"], b"{")


@pytest.mark.parametrize(
    "element",
    [
        gained(),
        payloads.okta_event("user.lifecycle.suspend", payloads.okta_user("00u1", None)),
        payloads.okta_event("group.lifecycle.delete", payloads.okta_group("00gX", "X")),
        payloads.okta_event("group.lifecycle.delete", payloads.okta_group("00gPlatform", "Platform")),
        lost(group="Empty"),
    ],
)
def test_explain_says_it_in_the_words_of_planning(database: Database, element: dict[str, Any]) -> None:
    ruled = rules(
        {
            **DOCUMENT,
            "rules": [
                {
                    "name": "by app",
                    "when": {"group.name": ["Empty"]},
                    "revoke": [{"type": "document", "id": "{app.name}", "organizationId": "acme"}],
                }
            ],
        }
    )
    planned(database, gained("bob@acme.example", "Platform", published="2026-02-01T00:00:00Z"))
    (told,) = explaining.explain(database, ruled, SOURCES["okta"], payloads.to_bytes(element))["events"]
    (event_id,) = record(database, element)
    plan(database, ruled)
    done = operate.show(database, event_id)
    assert (told["state"], told["reason"]) == (done["state"], done["reason"])


def test_explain_takes_a_whole_delivery(database: Database) -> None:
    assert len(explain(database, payloads.okta_hook([lost(), gained()]))) == 2


def test_a_decision_waits_for_who_works_for_the_person_and_sees_what_they_did(database: Database) -> None:
    (event_id,) = planned(database, lost())
    said: list[str] = []

    def cancel() -> None:
        try:
            operate.decide(database, "ada", "cancel", event_id, {})
        except Refused as error:
            said.append(error.detail)

    other = threading.Thread(target=cancel)
    with database.write() as connection:
        connection.execute(select(people).with_for_update()).all()
        other.start()
        other.join(0.3)
        assert other.is_alive()
        connection.execute(update(revocations).values(state="removed", next_at=None, settled_at=1))
        connection.execute(update(events).values(state="done"))
    other.join(20)
    assert said == ["it is done: there is nothing left to cancel"]

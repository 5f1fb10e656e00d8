"""What was taken too much: found by filter, and settled by whoever granted it again; on both databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select, update

from relay import operate
from relay.errors import Refused
from relay.store.database import Database
from relay.store.tables import decisions, revocations
from tests.desk_cases import deliver, event, lost, plan, record


@pytest.fixture
def taken(database: Database) -> list[str]:
    """Three events; of the first two something needs a new grant."""
    ids = record(database, lost(), lost("bob@acme.example"), lost("eve@acme.example"))
    plan(database)
    deliver(database)
    with database.write() as connection:
        connection.execute(update(revocations).where(revocations.c.event_id.in_(ids[:2])).values(needs_regrant=True))
    return ids


def listed(database: Database, **wanted: Any) -> set[str]:
    return {one["id"] for one in operate.events(database, wanted)["events"]}


def decided(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(decisions).order_by(decisions.c.event_id)).all())


def test_the_filter_finds_them_and_the_others(database: Database, taken: list[str]) -> None:
    assert listed(database, needs_regrant=True) == set(taken[:2])
    assert listed(database, needs_regrant=False) == {taken[2]}
    assert listed(database) == set(taken)
    assert listed(database, needs_regrant=True, user="bob@acme.example") == {taken[1]}


def test_the_list_says_how_much_and_stats_count_it(database: Database, taken: list[str]) -> None:
    found = {one["id"]: one["needs_regrant"] for one in operate.events(database, {})["events"]}
    assert found == {taken[0]: 2, taken[1]: 2, taken[2]: 0}
    assert operate.stats(database, "enforce")["needs_regrant"] == 4


@pytest.mark.parametrize("value", ["true", 1, None])
def test_it_is_true_or_false(database: Database, value: object) -> None:
    with pytest.raises(Refused, match=r"needs_regrant: .*true or false") as caught:
        operate.events(database, {"needs_regrant": value})
    assert caught.value.status == 400


def test_whoever_granted_it_again_says_so(database: Database, taken: list[str]) -> None:
    before = event(database, taken[0])
    answer = operate.decide(database, "ada", "regranted", taken[0], {"reason": "back on the roadmap"})
    assert answer == {"id": taken[0], "state": "done", "reason": before.reason}
    assert listed(database, needs_regrant=True) == {taken[1]}
    [row] = decided(database)
    assert (row.actor, row.action, row.event_id, row.reason) == ("ada", "regranted", taken[0], "back on the roadmap")
    assert json.loads(row.detail) == {"state": "done", "revocations": 2}
    shown = operate.show(database, taken[0])
    assert [one["needs_regrant"] for one in shown["revocations"]] == [False, False]
    assert [one["state"] for one in shown["revocations"]] == ["removed", "removed"]


def test_where_nothing_needs_a_grant_there_is_nothing_to_say(database: Database, taken: list[str]) -> None:
    operate.decide(database, "ada", "regranted", taken[0], {})
    for event_id in (taken[0], taken[2]):
        with pytest.raises(Refused, match="nothing of it needs a new grant") as caught:
            operate.decide(database, "ada", "regranted", event_id, {})
        assert caught.value.status == 409
    assert len(decided(database)) == 1


def test_by_filter_only_those_that_need_it(database: Database, taken: list[str]) -> None:
    body = {"filter": {"source": "okta"}}
    dry = operate.decide_all(database, "ada", "regranted", body | {"dry_run": True})
    assert (dry["matched"], dry["possible"], dry["passed_over"], dry["regranted"]) == (2, 2, {}, 0)
    assert listed(database, needs_regrant=True) == set(taken[:2])
    assert operate.decide_all(database, "ada", "regranted", body)["regranted"] == 2
    assert listed(database, needs_regrant=True) == set()
    assert [row.event_id for row in decided(database)] == sorted(taken[:2])


def test_a_filter_for_the_others_changes_nothing(database: Database, taken: list[str]) -> None:
    answer = operate.decide_all(database, "ada", "regranted", {"filter": {"needs_regrant": False}})
    assert answer["regranted"] == 0
    assert listed(database, needs_regrant=True) == set(taken[:2])
    assert decided(database) == []

"""A preview says what recording and planning the same event then really does, and leaves nothing behind."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Row, select

from relay import operate
from relay.errors import Unavailable
from relay.model import AccessEvent, Account, Status
from relay.store import claim, preview, revocations, tables
from relay.store.database import Database
from tests import postgres
from tests.directory_people import Looked
from tests.people import Clock, Relay, gain, loss
from tests.preview_cases import ANSWERED, FIRST, GROUPS, PLAIN, WITHOUT_ANSWER, Case, decide

#: Seconds for which an event waits for an answer.
PATIENCE = 900


@pytest.fixture
def plain(timed: Database, looked: Looked) -> Looked:
    """A relay whose source has no directory."""
    return Looked(Relay(timed), looked.directory)


def everything(relay: Relay) -> dict[str, list[Row[Any]]]:
    found = {table.name: relay.rows(table) for table in tables.metadata.sorted_tables}
    return {name: sorted(rows, key=repr) for name, rows in found.items()}


def previewed(relay: Relay, given: AccessEvent, answer: Account | None = None) -> preview.Preview:
    before = everything(relay)
    found = preview.preview(relay.database, relay.terms.rules, given, answer)
    assert everything(relay) == before
    return found


def work(looked: Looked, *, asks: bool) -> None:
    """Route and plan, and ask where somebody waits for an answer; send nothing."""
    while True:
        looked.relay.claim(limit=50, sends=False)
        seen = claim.look(looked.relay.database)
        open_ones = seen.unrouted or (seen.plan_at is not None and seen.plan_at <= seen.now)
        if not open_ones and not (asks and looked.look_up()):
            return


def told(found: preview.Preview) -> dict[str, Any]:
    """What a preview says, in the shape of `came_of`."""
    shown = preview.as_json(found)
    mattered = [step for step in shown["rules"] if step["verdict"] != "does not apply"]
    return alike(shown, mattered, shown["removals"])


def came_of(relay: Relay, event_id: str) -> dict[str, Any]:
    """What became of a recorded event."""
    shown = operate.show(relay.database, event_id)
    return alike(shown, (shown["plan"] or {}).get("rules", []), shown["revocations"])


def alike(shown: dict[str, Any], steps: list[dict[str, Any]], taken: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("velt_user_id", "resource", "state", "reason", "superseded_by")
    removals = sorted(({name: one[name] for name in names} for one in taken), key=repr)
    same = {name: shown[name] for name in ("kind", "state", "reason", "group", "app", "incomplete")}
    user = shown["user"]["id"], shown["user"]["velt_user_id"]
    return same | {"user": user, "rules": steps, "removals": removals}


def check(case: Case, found: preview.Preview) -> None:
    assert (found.state, (found.reason or "").startswith(case.reason)) == (case.state, True), found.reason


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_told_comes(plain: Looked, name: str) -> None:
    case, relay = PLAIN[name], plain.relay
    case.before(plain)
    found = previewed(relay, case.given)
    check(case, found)
    [event_id] = relay.record(case.given)
    work(plain, asks=False)
    if case.state == "held":
        shown = came_of(relay, event_id)
        assert {**told(found), "removals": []} == shown
        decide(relay, event_id, "approve")
        work(plain, asks=False)
        assert told(found)["removals"] == came_of(relay, event_id)["removals"] != []
    else:
        assert told(found) == came_of(relay, event_id)


@pytest.mark.parametrize("name", GROUPS)
def test_what_is_told_of_a_whole_group_comes(plain: Looked, name: str) -> None:
    case, relay = GROUPS[name], plain.relay
    case.before(plain)
    found = previewed(relay, case.given)
    check(case, found)
    [event_id] = relay.record(case.given)
    work(plain, asks=False)
    row = relay.event(event_id)
    assert (found.state, found.reason) == (row.state, row.reason)
    if case.state == "held":
        decide(relay, event_id, "approve")
        work(plain, asks=False)
    children = {row.subject: row.id for row in relay.rows(tables.events) if row.parent_id == event_id}
    assert found.members == len(children)
    assert [one.event.subject for one in found.people] == sorted(children)[: preview.SHOWN_MEMBERS]
    for one in found.people:
        assert told(one) == came_of(relay, children[one.event.subject or ""])


@pytest.mark.parametrize("name", WITHOUT_ANSWER)
def test_without_an_answer_it_tells_what_comes_when_patience_ends(looked: Looked, clock: Clock, name: str) -> None:
    case, relay = WITHOUT_ANSWER[name], looked.relay
    case.before(looked)
    found = previewed(relay, case.given)
    check(case, found)
    [event_id] = relay.record(case.given)
    work(looked, asks=False)
    clock.advance(PATIENCE)
    work(looked, asks=False)
    reason = (found.reason or "").removeprefix(FIRST).removeprefix("; ") or None
    assert told(replace(found, reason=reason)) == came_of(relay, event_id)


@pytest.mark.parametrize("name", ANSWERED)
def test_with_an_answer_it_tells_what_that_answer_makes_of_it(looked: Looked, name: str) -> None:
    case, relay = ANSWERED[name], looked.relay
    case.before(looked)
    named = ([case.given.group_id] if case.given.group_id else [], [case.given.app_id] if case.given.app_id else [])
    found = previewed(relay, case.given, looked.directory.look_up("ada", *named))
    check(case, found)
    [event_id] = relay.record(case.given)
    work(looked, asks=True)
    assert told(found) == came_of(relay, event_id)


def test_a_group_among_the_members_is_told_as_such(looked: Looked) -> None:
    terse = replace(looked.relay.terms.rules, terse=frozenset({"okta"}))
    looked.relay.terms = replace(looked.relay.terms, rules=terse)
    unnamed = replace(loss("team", "eng", 5), subject=None)
    for given, answer in ((unnamed, None), (loss("team", "eng", 5), Account("team", Status.GROUP, looked.relay.now()))):
        found = previewed(looked.relay, given, answer)
        assert (found.state, found.members, found.removals) == ("done", None, ())
        assert (found.reason or "").startswith("the member is a group: ")


def test_nobody_is_woken(plain: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr(plain.relay.database.waker, "wake", lambda: woken.append("all"))
    assert previewed(plain.relay, loss("ada", "eng")).state == "planned"
    assert woken == []


def test_what_goes_wrong_on_the_way_leaves_nothing_behind(plain: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(*_: object) -> None:
        raise LookupError("a mistake")

    before = everything(plain.relay)
    with monkeypatch.context() as broken:
        broken.setattr(revocations, "judge_open", judge)
        with pytest.raises(LookupError):
            previewed(plain.relay, loss("ada", "eng"))
    assert everything(plain.relay) == before
    assert previewed(plain.relay, loss("ada", "eng")).state == "planned"


def test_it_gives_way_to_who_works_for_the_person(postgres_server: postgres.Server) -> None:
    database = Database(postgres_server.new_database())
    relay = Relay(database)
    relay.record(gain("ada", "eng"))
    relay.run()
    with database.write() as connection:
        connection.execute(select(tables.people).with_for_update()).all()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="lock timeout"):
            previewed(relay, loss("ada", "eng", 5))
        assert time.monotonic() - began < 5  # half of what everybody else waits
    assert previewed(relay, loss("ada", "eng", 5)).state == "planned"
    database.close()

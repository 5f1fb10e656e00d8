"""The worker's questions, asked of a made-up Okta over HTTP, and what comes of them in the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from relay.directories.okta import OktaDirectory
from relay.look_up import LookUps
from relay.model import SECOND, AccessEvent, Kind, now
from relay.reconcile import Reconciler
from relay.rules import compile_rules
from relay.sources.okta import Okta
from relay.store import look_ups, tables
from relay.store.database import Database
from tests.directory_people import ADDED
from tests.fake_okta import Event, FakeOkta
from tests.fake_okta_api import error, throttled
from tests.people import TOLD, Relay

DOCUMENT: dict[str, Any] = {
    "identity": {"velt_user_id": ["{user.email}"]},
    "rules": [
        {
            "name": "engineering",
            "when": {"kind": "group.member_removed", "group.name": "Engineering"},
            "revoke": [{"type": "organization", "id": "acme"}],
        },
        {
            "name": "chat",
            "when": {"kind": "app.access_removed", "app.name": "Chat"},
            "revoke": [{"type": "folder", "id": "chat", "organizationId": "acme"}],
        },
    ],
}


@pytest.fixture
def okta() -> Iterator[FakeOkta]:
    with FakeOkta() as made:
        yield made


@pytest.fixture
def relay(database: Database) -> Relay:
    rules = compile_rules(DOCUMENT, fills={"okta": TOLD}, looked_up={"okta": ADDED})
    return Relay(database, rules)


@pytest.fixture
def directory(okta: FakeOkta) -> Iterator[OktaDirectory]:
    made = OktaDirectory(
        "okta", {"type": "okta", "api": {"url": okta.url, "token": {"env": "TOKEN"}}}, lambda: "acme-okta-api-token"
    )
    yield made
    made.close()


def events(*delivered: Event) -> list[AccessEvent]:
    source = Okta("okta", {"type": "okta", "api": {}}, tuple)
    return [event for element in delivered for event in source.log_entry(element)]


def run(relay: Relay, directory: OktaDirectory) -> set[tuple[str, str]]:
    """Claim, ask and settle until nothing is due; return what was removed."""
    gone = set()
    while True:
        tasks = relay.run()
        gone |= {(task.velt_user_id, str(resource)) for task in tasks for resource in task.resources}
        with relay.database.read() as connection:
            at = relay.database.now(connection)
            due = connection.execute(select(look_ups.next_due(at))).scalar()
        if due is None or due > at:
            if not tasks:
                return gone
            continue
        asking = LookUps(relay.database, lambda: relay.terms.rules)
        asking.turn({"okta": directory})
        asking.seats.close(time.monotonic() + 20)


def test_a_departure_is_looked_up_and_removed(relay: Relay, okta: FakeOkta, directory: OktaDirectory) -> None:
    ada, eng = okta.add_user("a.lovelace", email="ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    relay.record(*events(*okta.leave(ada, eng)), received=now())
    assert run(relay, directory) == {("ada@acme.example", "organization acme")}
    assert okta.asked("/api/v1/users") == [f"/api/v1/users/{ada}", f"/api/v1/users/{ada}/groups"]


def test_an_app_of_somebody_who_is_deleted_is_asked_about_once(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory
) -> None:
    ada, chat = okta.add_user("a.lovelace", email="ada@acme.example"), okta.add_app("Chat")
    given = replace(events(*okta.assign(ada, chat))[0], email="ada@acme.example")
    relay.record(given, received=now() - SECOND)
    lost = events(*okta.unassign(ada, chat))
    okta.deactivate(ada)
    okta.delete(ada)
    [event_id, *_] = relay.record(*lost, received=now())
    relay.claim()
    asking = LookUps(relay.database, lambda: relay.terms.rules)
    asking.turn({"okta": directory})
    asking.seats.close(time.monotonic() + 20)
    assert {str(resource) for task in relay.run() for resource in task.resources} == {"folder chat in acme"}
    assert relay.event(event_id).state == "done"
    assert okta.asked("/api/v1/users") == [f"/api/v1/users/{ada}"]


def test_a_burst_about_one_person_is_one_look_up(relay: Relay, okta: FakeOkta, directory: OktaDirectory) -> None:
    ada = okta.add_user("ada@acme.example")
    groups = [okta.add_group(f"Group {number}") for number in range(20)]
    gone = [event for group in groups for event in (*okta.join(ada, group), *okta.leave(ada, group))]
    relay.record(*events(*gone), received=now())
    run(relay, directory)
    assert okta.asked("/api/v1/users") == [f"/api/v1/users/{ada}", f"/api/v1/users/{ada}/groups"]
    assert okta.asked("/api/v1/groups") == []  # the events tell the names themselves


def test_a_lagging_okta_is_asked_again_and_nothing_goes_meanwhile(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory
) -> None:
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    gone = okta.leave(ada, eng)
    okta.lag(2)
    [event_id] = relay.record(*events(*gone), received=now())
    assert run(relay, directory) == set()
    row = relay.event(event_id)
    assert (row.state, row.looks) == ("received", 1)
    assert row.reason.startswith("waiting for a look-up: the directory says still a member, but it may lag behind")


def test_a_throttled_look_up_waits_as_long_as_okta_asks(relay: Relay, okta: FakeOkta, directory: OktaDirectory) -> None:
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    okta.script(throttled(600))
    [event_id] = relay.record(*events(*okta.leave(ada, eng)), received=now())
    assert run(relay, directory) == set()
    assert relay.event(event_id).reason.startswith("waiting for a look-up: ")
    with relay.database.read() as connection:
        state = look_ups.state_of(connection, look_ups.About.account("okta", ada))
        assert state is not None
        assert state.failures == 1
        assert state.due_at > relay.database.now(connection) + 500_000_000
        assert [(one["source"], one["number"]) for one in look_ups.failing(connection)] == [("okta", 1)]


def test_a_refused_token_is_told(relay: Relay, okta: FakeOkta, directory: OktaDirectory) -> None:
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    okta.api_token = "another"
    [event_id] = relay.record(*events(*okta.leave(ada, eng)), received=now())
    run(relay, directory)
    reason = relay.event(event_id).reason
    assert "127.0.0.1" in reason
    assert "acme-okta-api-token" not in reason


def test_an_id_that_is_none_is_never_asked_about(relay: Relay, okta: FakeOkta, directory: OktaDirectory) -> None:
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    [given] = events(*okta.leave(ada, eng))
    known = replace(given, kind=Kind.GROUP_MEMBER_ADDED, subject="../groups", email="ada@acme.example", key="1")
    relay.record(known, replace(known, subject="../apps", key="2"), received=now() - SECOND)
    run(relay, directory)
    changed = replace(given, kind=Kind.ACCOUNT_CHANGED, subject="../apps", key="3")
    ids = relay.record(replace(given, subject="../groups"), changed, received=now() - SECOND)
    stranger, *_ = relay.record(replace(given, subject="../users", key="4"), received=now() - SECOND)
    assert run(relay, directory) == set()
    assert okta.requests == []
    for event_id, subject in zip([*ids, stranger], ("../groups", "../apps", "../users"), strict=True):
        row = relay.event(event_id)
        assert (row.state, row.reason) == (
            "failed",
            f'its provider cannot be asked about the id "{subject}": an id has letters, digits, _ and -, '
            "64 of them at most",
        )
    with relay.database.read() as connection:
        assert look_ups.failing(connection) == []


def test_an_event_with_a_group_id_that_is_none_fails_alone(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.backoff.look_up_delay", lambda failures, wait: 0.0)
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    [given] = events(*okta.leave(ada, eng))
    bad, gained = replace(given, group_id="a/b", group_name=None, key="1"), replace(given, group_id="c/d", key="2")
    gained = replace(gained, kind=Kind.GROUP_MEMBER_ADDED, group_name=None)
    failed, gain, good = relay.record(bad, gained, given, received=now() - SECOND)
    assert run(relay, directory) == {("ada@acme.example", "organization acme")}
    assert [relay.event(event_id).state for event_id in (failed, gain, good)] == ["failed", "done", "done"]
    assert '"a/b"' in relay.event(failed).reason
    assert relay.event(gain).reason.startswith('gain; its provider cannot be asked about the id "c/d"')


def test_the_end_of_an_app_with_an_id_that_is_none_fails(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory
) -> None:
    [given] = events(*okta.deactivate_app(okta.add_app("Chat")))
    [event_id] = relay.record(replace(given, app_id="a b"), received=now() - SECOND)
    run(relay, directory)
    assert (relay.event(event_id).state, okta.requests) == ("failed", [])


def test_the_end_of_an_app_reaches_those_whom_okta_lists(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory
) -> None:
    chat = okta.add_app("Chat")
    for login in ("ada@acme.example", "bob@acme.example"):
        okta.assign(okta.add_user(login), chat)
    relay.record(*events(*okta.deactivate_app(chat)), received=now())
    assert run(relay, directory) == {
        ("ada@acme.example", "folder chat in acme"),
        ("bob@acme.example", "folder chat in acme"),
    }


def test_what_no_hook_told_is_read_from_the_log_and_comes_once(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory
) -> None:
    reconciler = Reconciler(relay.database, "w1", lambda: {"okta": directory}, lambda: relay.terms.rules, lambda: 600)
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    reconciler.run("okta")
    okta.page_size = 1
    told = okta.leave(ada, eng)
    assert reconciler.run("okta").found == 1
    relay.record(*events(*told), received=now())
    assert run(relay, directory) == {("ada@acme.example", "organization acme")}
    assert reconciler.run("okta").found == 0


def test_a_broken_answer_is_a_failure_that_comes_back(relay: Relay, okta: FakeOkta, directory: OktaDirectory) -> None:
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    okta.script(error("E0000009"))
    [event_id] = relay.record(*events(*okta.leave(ada, eng)), received=now())
    assert run(relay, directory) == set()
    with relay.database.write() as connection:  # the wait is over
        connection.execute(look_ups.look_ups.update().values(due_at=0))
    assert run(relay, directory) == {("ada@acme.example", "organization acme")}
    assert relay.event(event_id).state == "done"


@pytest.mark.parametrize(("seconds", "others"), [(600, 0), (0, 2)])
def test_a_provider_that_asks_to_wait_is_not_asked_about_anybody_meanwhile_and_no_longer(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory, seconds: int, others: int
) -> None:
    people = [okta.add_user(f"{name}@acme.example") for name in ("ada", "bob")]
    eng = okta.add_group("Engineering")
    gone = [event for person in people for event in (*okta.join(person, eng), *okta.leave(person, eng))]
    relay.record(*events(gone[1]), received=now())
    relay.run()
    with relay.database.write() as connection:  # a question that waits for long by itself
        connection.execute(look_ups.look_ups.update().values(failures=6))
    okta.script(throttled(seconds))
    asking = LookUps(relay.database, lambda: relay.terms.rules)
    asking.turn({"okta": directory})
    deadline = time.monotonic() + 20
    while not any("Okta" in (row.reason or "") for row in relay.rows(tables.look_ups)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    relay.record(*events(gone[3]), received=now())
    relay.run()
    asked = len(okta.requests)
    asking.turn({"okta": directory})
    asking.seats.close(time.monotonic() + 20)
    assert (asked, len(okta.requests)) == (1, 1 + others)


def test_questions_to_a_directory_that_relay_yaml_has_no_more_end_and_their_events_go_on(
    relay: Relay, okta: FakeOkta, directory: OktaDirectory
) -> None:
    ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, eng)
    [given] = events(*okta.leave(ada, eng))
    relay.record(
        replace(given, kind=Kind.GROUP_MEMBER_ADDED, email="ada@acme.example", key="1"), received=now() - SECOND
    )
    run(relay, directory)
    okta.script(*[error("E0000009")] * 3)
    ids = relay.record(given, replace(given, subject="stranger", key="2"), received=now() - SECOND)
    [app] = relay.record(*events(*okta.deactivate_app(okta.add_app("Chat"))), received=now() - SECOND)
    run(relay, directory)
    assert [relay.event(event_id).state for event_id in (*ids, app)] == ["received"] * 3
    asking = LookUps(relay.database, lambda: relay.terms.rules)
    asking.turn({"okta": directory, "other": directory})
    with relay.database.read() as connection:
        assert look_ups.failing(connection)
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, looked_up={}))
    asking.turn({"other": directory})
    asking.seats.close(time.monotonic() + 20)
    with relay.database.read() as connection:
        assert look_ups.failing(connection) == []
        assert connection.execute(select(look_ups.next_due(relay.database.now(connection)))).scalar() is None
    assert [task.velt_user_id for task in relay.run()] == ["ada@acme.example"]
    assert [relay.event(event_id).state for event_id in (*ids, app)] == ["done", "failed", "ignored"]

"""Alerts: raised once, told once, told when over; on both databases and over real HTTP."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, update

from relay import operate
from relay.alerts import Alerts
from relay.model import SECOND, EventState, Guard, Micros
from relay.store import alerts, delivery, desk, heartbeat, look_ups, standing, tables
from relay.store import found as reading
from relay.store.database import Database
from relay.store.decisions import Decision
from relay.store.places import Place
from relay.store.standing import Problem
from tests.alert_receiver import Receiver, receiving
from tests.people import DOWN, REFUSED, UNAUTHORIZED, Clock, Relay, gain, loss


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


class Trouble:
    """Problems that a test makes up."""

    def __init__(self, **problems: str) -> None:
        self.now = problems

    def __call__(self, _connection: Connection, _now: Micros) -> Iterator[Problem]:
        yield from self.now.items()


@pytest.fixture
def trouble() -> Trouble:
    return Trouble()


@pytest.fixture
def watch(timed: Database, receiver: Receiver, trouble: Trouble) -> Alerts:
    return Alerts(timed, lambda: receiver.url, [trouble])


def listed(database: Database) -> list[tuple[str, str]]:
    return [(alert["key"], alert["text"]) for alert in operate.alerts(database)["alerts"]]


def write(database: Database, change: Callable[..., Any], *given: Any) -> Any:
    with database.write() as connection:
        return change(connection, *given, database.now(connection))


def test_an_alert_is_told_once_while_it_holds(watch: Alerts, trouble: Trouble, receiver: Receiver) -> None:
    trouble.now = {"held": "2 events are held"}
    for _ in range(3):
        watch.look()
    [body] = receiver.posted
    assert body == {
        "text": "Velt Permission Relay: 2 events are held",
        "key": "held",
        "state": "raised",
        "raised_at": body["raised_at"],
    }
    assert body["raised_at"].endswith("Z")


def test_its_text_may_change_and_it_is_not_told_again(
    watch: Alerts, trouble: Trouble, receiver: Receiver, timed: Database
) -> None:
    trouble.now = {"held": "2 events are held"}
    watch.look()
    trouble.now = {"held": "3 events are held"}
    watch.look()
    assert listed(timed) == [("held", "3 events are held")]
    assert receiver.told() == [("held", "raised")]


def test_it_is_told_when_it_is_over_and_again_when_it_comes_back(
    watch: Alerts, trouble: Trouble, receiver: Receiver, timed: Database
) -> None:
    for problems in ({"held": "some"}, {}, {}, {"held": "some"}):
        trouble.now = problems
        watch.look()
    assert receiver.told() == [("held", "raised"), ("held", "cleared"), ("held", "raised")]
    assert receiver.posted[1]["text"] == "Velt Permission Relay: over now: some"
    assert listed(timed) == [("held", "some")]


def test_each_key_is_an_alert_of_its_own(
    watch: Alerts, trouble: Trouble, receiver: Receiver, timed: Database, clock: Clock
) -> None:
    trouble.now = {"subscription:entra": "a", "subscription:other": "b"}
    watch.look()
    clock.advance(1)
    trouble.now = {"subscription:other": "b", "held": "c"}
    watch.look()
    assert receiver.told() == [
        ("subscription:entra", "raised"),
        ("subscription:other", "raised"),
        ("held", "raised"),
        ("subscription:entra", "cleared"),
    ]
    with timed.read() as connection:
        assert alerts.count(connection) == {"held": 1, "subscription": 1}


@pytest.mark.parametrize("status", [500, 404, 307])
def test_what_was_not_taken_is_told_again_later_and_later(
    watch: Alerts, trouble: Trouble, receiver: Receiver, clock: Clock, timed: Database, status: int
) -> None:
    trouble.now = {"held": "some"}
    receiver.statuses = [status] * 8
    waits = []
    while not operate.alerts(timed)["alerts"] or operate.alerts(timed)["alerts"][0]["told_at"] is None:
        before = len(receiver.posted)
        watch.look()
        waits.append(len(receiver.posted) - before)
        clock.advance(5)
    assert len(receiver.posted) == 9
    # After 5, 10, 20, 40 s, then every minute: in looks every 5 s, so many without a post between two posts.
    posts = [index for index, number in enumerate(waits) if number]
    assert [later - earlier for earlier, later in itertools.pairwise(posts)] == [1, 2, 4, 8, 12, 12, 12, 12]


def test_a_redirect_is_not_followed(
    watch: Alerts, trouble: Trouble, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is taken from the environment on the way: no proxy, no password."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    trouble.now = {"held": "some"}
    receiver.statuses = [307]
    watch.look()
    assert len(receiver.posted) == 1
    assert "Authorization" not in receiver.headers[0]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/services/secret-path", "http://[secret-path", "secret-path", "http://exa mple\n/x"]
)
def test_an_address_that_cannot_be_reached_is_never_in_the_log(
    timed: Database, trouble: Trouble, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble.now = {"held": "some"}
    Alerts(timed, lambda: url, [trouble]).look()
    told = capsys.readouterr().out
    assert "could not be reached" in told
    assert "secret-path" not in told
    assert listed(timed) == [("held", "some")]


def test_without_an_address_alerts_are_listed_all_the_same(
    timed: Database, trouble: Trouble, receiver: Receiver, clock: Clock
) -> None:
    url = [""]
    watch = Alerts(timed, lambda: url[0], [trouble])
    trouble.now = {"held": "some", "failed": "others"}
    watch.look()
    trouble.now = {"failed": "others"}
    watch.look()
    assert listed(timed) == [("failed", "others")]
    url[0] = receiver.url
    watch.look()
    assert receiver.told() == [("failed", "raised")]  # still true; what is over by now concerns nobody
    url[0] = ""
    trouble.now = {}
    watch.look()
    clock.advance(3600)
    url[0] = receiver.url
    trouble.now = {"failed": "yet others"}
    watch.look()
    assert receiver.told() == [("failed", "raised"), ("failed", "raised")]


def test_what_was_over_before_anybody_heard_of_it_is_not_told(timed: Database) -> None:
    write(timed, alerts.raise_alert, "held", "some")
    assert write(timed, alerts.clear_alert, "held") is True
    assert write(timed, alerts.clear_alert, "held") is False
    with timed.write() as connection:
        assert alerts.take_due(connection, timed.now(connection), timed.now(connection) + SECOND) is None


def take(database: Database) -> alerts.Alert | None:
    with database.write() as connection:
        now = database.now(connection)
        return alerts.take_due(connection, now, now + 60 * SECOND)


def test_what_ends_while_it_is_told_is_told_to_be_over_afterwards(timed: Database) -> None:
    write(timed, alerts.raise_alert, "held", "some")
    telling = take(timed)
    assert telling is not None
    write(timed, alerts.clear_alert, "held")
    assert take(timed) is None  # not while the other one is under way
    write(timed, alerts.mark_told, telling)
    over = take(timed)
    assert over is not None
    assert over.cleared_at is not None
    write(timed, alerts.mark_told, over)
    assert take(timed) is None


def test_what_comes_back_while_it_is_told_to_be_over_is_told_anew(timed: Database) -> None:
    write(timed, alerts.raise_alert, "held", "some")
    raised = take(timed)
    assert raised is not None
    write(timed, alerts.mark_told, raised)
    write(timed, alerts.clear_alert, "held")
    over = take(timed)
    assert over is not None
    write(timed, alerts.raise_alert, "held", "again")
    assert take(timed) is None
    write(timed, alerts.mark_told, over)
    again = take(timed)
    assert again is not None
    assert (again.text, again.cleared_at) == ("again", None)


def test_what_comes_back_before_its_end_was_told_is_still_the_same_alert(timed: Database) -> None:
    write(timed, alerts.raise_alert, "held", "some")
    raised = take(timed)
    assert raised is not None
    write(timed, alerts.mark_told, raised)
    write(timed, alerts.clear_alert, "held")
    write(timed, alerts.raise_alert, "held", "again")
    assert take(timed) is None
    assert listed(timed) == [("held", "again")]


def test_who_dies_while_telling_leaves_it_to_another(timed: Database, clock: Clock) -> None:
    write(timed, alerts.raise_alert, "held", "some")
    assert take(timed) is not None
    assert take(timed) is None
    clock.advance(61)
    again = take(timed)
    assert again is not None
    assert again.attempts == 1


def test_many_workers_tell_once(timed: Database, receiver: Receiver) -> None:
    trouble = Trouble(held="some", failed="others")
    barrier = threading.Barrier(4)

    def look(_number: int) -> None:
        watch = Alerts(timed, lambda: receiver.url, [trouble])
        barrier.wait()
        for _ in range(3):
            watch.look()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(4)))
    assert sorted(receiver.told()) == [("failed", "raised"), ("held", "raised")]


def test_a_look_that_finds_nothing_new_writes_nothing(
    watch: Alerts, trouble: Trouble, timed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble.now = {"held": "some"}
    watch.look()

    def no_write() -> None:
        raise AssertionError("it wrote")

    monkeypatch.setattr(timed, "write", no_write)
    watch.look()


# --- what is looked for


def found(relay: Relay) -> dict[str, str]:
    with relay.database.read() as connection:
        now = relay.database.now(connection)
        return dict(problem for find in standing.FINDERS for problem in find(connection, now))


def test_all_is_well(relay: Relay) -> None:
    relay.record(loss("ada", "eng"), gain("bob", "eng"))
    relay.run()
    assert found(relay) == {}


def test_what_the_guard_holds(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, 3600.0)))
    relay.record(*[loss(f"u{n}", "eng", n) for n in range(3)])
    relay.run()
    held = [row.id for row in relay.rows(tables.events) if row.state == "held"]
    text = found(relay)["held"]
    assert text.startswith("2 events are held (the latest is evt_")
    assert any(event_id in text for event_id in held)
    assert "approve" in text
    for event_id in held:
        operate.decide(relay.database, "ada", "approve", event_id, {})
    relay.run()
    assert found(relay) == {}


def test_velt_is_down_for_more_than_a_minute(relay: Relay, clock: Clock) -> None:
    for user in ("ada", "bob", "eve"):
        relay.record(loss(user, "eng"))
    for task in relay.claim():
        relay.settle(task, DOWN)
    assert found(relay) == {}
    clock.advance(61)
    assert found(relay)["delivery"].startswith("nothing is removed since 20")
    assert "Velt is down: unavailable" in found(relay)["delivery"]
    relay.run()
    assert found(relay) == {}


def test_the_keys_are_refused(relay: Relay) -> None:
    relay.record(loss("ada", "eng"))
    for task in relay.claim():
        relay.settle(task, UNAUTHORIZED)
    assert "the key is refused: bad key" in found(relay)["delivery"]


def test_an_operators_pause_is_no_alert(relay: Relay, clock: Clock) -> None:
    with relay.database.write() as connection:
        delivery.pause(connection, "ada", "holidays")
    clock.advance(3600)
    assert found(relay) == {}


def test_what_needs_a_new_grant(relay: Relay, clock: Clock) -> None:
    [event_id] = relay.record(loss("ada", "eng", 0))
    relay.run()
    relay.record(gain("ada", "eng", 3599))
    relay.run()
    text = found(relay)["needs-regrant"]
    assert text.startswith(f"2 removals of 1 event (the latest is {event_id})")
    operate.decide(relay.database, "ada", "regranted", event_id, {})
    assert found(relay) == {}


def test_what_failed_and_what_is_dead(relay: Relay) -> None:
    [event_id] = relay.record(loss("ada", "eng"))
    while tasks := relay.claim():
        for task in tasks:
            relay.settle(task, REFUSED)
    assert found(relay)["failed"].startswith(f"1 event is failed (the latest is {event_id}) and 2 removals are dead:")
    with relay.database.write() as connection:  # as while other removals of the same event are still open
        connection.execute(update(tables.events).values(state="planned"))
    assert found(relay)["failed"].startswith("2 removals are dead:")
    with relay.database.write() as connection:
        desk.cancel(connection, relay.event(event_id), Decision("ada", "cancel"), relay.database.now(connection))
    assert found(relay) == {}


def test_what_was_not_understood(relay: Relay) -> None:
    [cancelled, retried] = relay.record(
        *[replace(loss(f"bob{n}", "eng"), state=EventState.UNREADABLE, reason="it names no person") for n in range(2)]
    )
    text = found(relay)["unreadable"]
    assert text.startswith("2 events are unreadable (the latest is evt_")
    assert "bob" not in text
    operate.decide(relay.database, "ada", "cancel", cancelled, {})
    assert found(relay)["unreadable"].startswith(f"1 event is unreadable (the latest is {retried})")
    understood = SimpleNamespace(reparse=lambda payload: SimpleNamespace(events=[loss("bob1", "eng", key="new")]))
    operate.retry(relay.database, {"okta": understood}, "ada", retried, {})  # type: ignore[dict-item]
    assert found(relay) == {}


def test_a_relay_yaml_that_workers_refused(relay: Relay, clock: Clock) -> None:
    heartbeat.beat(relay.database, "a:1", "v1", 2)
    heartbeat.beat(relay.database, "b:2", "v2")
    told = "relay.yaml has 2 mistakes and was refused by 1 worker, so that older rules are in force: "
    assert found(relay) == {"config-refused": told + "`python -m relay check` names each"}
    heartbeat.beat(relay.database, "a:1", "v2")
    assert found(relay) == {}
    heartbeat.beat(relay.database, "a:1", "v2", 1)
    clock.advance(heartbeat.SILENT // SECOND)
    assert found(relay) == {}, "a worker that is gone works by no rules"


def test_no_alert_names_a_person(relay: Relay, clock: Clock) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, 3600.0)))
    relay.record(*[loss(f"lovelace{n}", "eng", n) for n in range(3)])
    relay.run(REFUSED)
    told = " ".join(found(relay).values())
    assert "held" in told
    assert "failed" in told
    assert "lovelace" not in told  # no hex digits, as in the ids of events


def test_a_directory_that_does_not_answer_for_more_than_a_minute(relay: Relay, clock: Clock) -> None:
    with relay.database.write() as connection:
        look_ups.want(connection, look_ups.About.account("okta", "ada"), answer_from=relay.now(), due_at=relay.now())
    [question] = look_ups.take(relay.database, ["okta"], 1)
    look_ups.failed(relay.database, question, "acme.okta.example does not answer", 5)
    assert found(relay) == {}
    clock.advance(61)
    text = found(relay)["look-ups:okta"]
    assert text.startswith("the directory of okta does not answer since 20")
    assert text.endswith("1 question waiting: acme.okta.example does not answer")
    [question] = look_ups.take(relay.database, ["okta"], 1)
    with relay.database.write() as connection:
        look_ups.answered(connection, question, relay.now(), [], relay.now())
    assert found(relay) == {}


def test_a_source_that_could_not_be_read(relay: Relay) -> None:
    stopped = Place("okta", started_at=relay.now(), ended_at=relay.now(), error="Okta refuses the token")
    with relay.database.write() as connection:
        reading.write_place(connection, stopped, relay.now())
    assert found(relay) == {"reconcile:okta": "what okta missed is not known: Okta refuses the token"}
    with relay.database.write() as connection:
        reading.write_place(connection, replace(stopped, error=None), relay.now())
    assert found(relay) == {}


def test_access_that_velt_still_shows(relay: Relay) -> None:
    relay.record(loss("ada", "sales"))
    relay.run()
    assert found(relay) == {}
    with relay.database.write() as connection:
        connection.execute(
            update(tables.revocations).values(confirmation="still has access", confirmation_reason="it is public")
        )
    assert found(relay)["still-has-access"].startswith("1 removal left access in place by what Velt shows")
    [first] = relay.revocations()
    relay.record(gain("ada", "sales", 1), loss("ada", "sales", 2))
    relay.run()
    assert "still-has-access" in found(relay)
    later = update(tables.revocations).where(tables.revocations.c.id != first.id)
    told = {"confirmation": "confirmed", "confirmation_reason": "it is gone", "settled_at": first.settled_at + 1}
    with relay.database.write() as connection:
        connection.execute(later.values(**told, resource_id="another"))
    assert "still-has-access" in found(relay)
    with relay.database.write() as connection:
        connection.execute(later.values(resource_id=first.resource_id, settled_at=first.settled_at - 1))
    assert "still-has-access" in found(relay)
    with relay.database.write() as connection:
        connection.execute(later.values(settled_at=first.settled_at + 1))
    assert found(relay) == {}

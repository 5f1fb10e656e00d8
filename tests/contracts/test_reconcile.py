"""What the messages missed and reconcile found, on both databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import structlog

from relay import model, operate, reconcile
from relay.directories.base import Changes
from relay.errors import LookUpFailed, Refused, Unavailable
from relay.model import SECOND, AccessEvent, Guard, Kind, Micros, to_iso
from relay.reconcile import Reconciler
from relay.store import answered, delivery, found, leases, tables
from relay.store.database import Database
from relay.store.look_ups import ACCOUNT, Question
from relay.store.places import Place, place_of
from tests.directory_people import account, rules_with_directory
from tests.people import ACME, ALL, D1, TOLD, Clock, Relay, at, event, gain, left, loss, rules

HOUR = 3600
BY_NAME = {
    "name": "by name",
    "when": {"kind": "group.member_removed", "group.name": {"regex": "(?P<doc>Doc-.+)"}},
    "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
}
LEAVERS = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything"}


class Log:
    """A directory that only tells of changes: one list of pages for each pass; an error in it is raised there."""

    def __init__(self, name: str = "okta") -> None:
        self.name = name
        self.passes: list[list[Changes | LookUpFailed | Callable[[], None]]] = []
        self.asked: list[tuple[str | None, Micros]] = []

    def changes(self, cursor: str | None, since: Micros) -> Iterator[Changes]:
        self.asked.append((cursor, since))
        for page in self.passes.pop(0) if self.passes else [Changes((), f"{cursor}+", last=True)]:
            if isinstance(page, LookUpFailed):
                raise page
            if isinstance(page, Changes):
                yield page
            else:
                page()


@pytest.fixture
def directory() -> Log:
    return Log()


@pytest.fixture
def relay(timed: Database) -> Relay:
    return Relay(timed, replace(rules_with_directory(), looked_up={}))


@pytest.fixture
def reconciler(timed: Database, directory: Log, relay: Relay) -> Reconciler:
    return Reconciler(timed, "w1", lambda: {"okta": directory}, lambda: relay.terms.rules, lambda: 600)  # type: ignore[dict-item]


def page(*events: AccessEvent, cursor: str = "c1", last: bool = True, snapshot: bool = False) -> Changes:
    return Changes(events, cursor, last, snapshot)


def without_id(given: AccessEvent) -> AccessEvent:
    """As Graph's changes are: without an id and without a time."""
    return replace(given, key=None, occurred_at=None)


def place(relay: Relay) -> Place:
    with relay.database.read() as connection:
        return place_of(connection, "okta")


def counts(relay: Relay) -> dict[str, int]:
    with relay.database.read() as connection:
        return found.counts(connection)


def test_the_first_pass_begins_now_and_the_next_where_it_ended(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    directory.passes = [[page(cursor="c1")]]
    begun = clock.now
    reconciler.run("okta")
    clock.advance(60)
    reconciler.run("okta")
    assert directory.asked == [(None, begun), ("c1", begun)]


def test_what_no_hook_told_goes_the_same_way(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    missed = loss("ada", "eng", HOUR - 60, email="ada@acme.example")
    directory.passes = [[page(missed)]]
    assert reconciler.run("okta").found == 1
    assert [(task.velt_user_id, set(task.resources)) for task in relay.run()] == [("ada@acme.example", {ACME, D1})]
    assert counts(relay) == {"okta": 1}


def test_what_a_hook_told_is_not_found_again(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    told = loss("ada", "eng", HOUR - 60, email="ada@acme.example")
    relay.record(told)
    relay.run()
    directory.passes = [[page(told)]]
    done = reconciler.run("okta")
    assert (done.read, done.found) == (1, 0)
    assert relay.run() == []


def test_what_a_hook_tells_later_was_not_found_by_reconcile_alone(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    told = loss("ada", "eng", HOUR - 60, email="ada@acme.example")
    directory.passes = [[page(told)]]
    reconciler.run("okta")
    assert counts(relay) == {"okta": 1}
    relay.record(told)
    assert counts(relay) == {}
    assert len(relay.run()) == 1


def test_a_pass_that_breaks_off_keeps_what_it_read_and_goes_on_from_there(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    first = loss("ada", "eng", HOUR - 60, email="ada@acme.example")
    directory.passes = [[page(first, cursor="c1", last=False), LookUpFailed("okta.example does not answer")]]
    with structlog.testing.capture_logs() as lines:
        broken = reconciler.run("okta")
    assert [line["event"] for line in lines] == ["reconcile started", "reconcile stopped"]
    assert (broken.error, broken.cursor) == ("okta.example does not answer", "c1")
    reconciler.run("okta")
    assert directory.asked[1][0] == "c1"
    assert place(relay).error is None
    assert len(relay.run()) == 1


@pytest.mark.parametrize("since", [-1000, HOUR - 1])
def test_since_reads_from_there_too_and_leaves_nothing_out_that_was_not_read_yet(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock, since: int
) -> None:
    directory.passes = [[page(cursor="c1")], [page(loss("ada", "eng", 5), cursor="c2")], [page(cursor="c3")]]
    reconciler.run("okta")
    begun = clock.now
    clock.advance(1)
    assert reconciler.run("okta", since=at(since)).found == 1
    assert directory.asked[1:] == [("c1", begun), (None, at(since))]
    assert place(relay).cursor == "c3"


def test_nothing_is_read_from_a_time_that_is_still_to_come() -> None:
    with pytest.raises(Refused, match=r"since: .* is still to come; wanted is a time that has been, such as 24h"):
        reconcile.chosen({"okta": "okta"}, None, model.now() + 60 * SECOND)


def test_since_is_asked_for_over_http_and_counts_once(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    reconcile.ask(relay.database, "ada", None, ["okta"], at(-1000))
    clock.advance(1)
    reconciler.turn()  # the first reading of all
    clock.advance(1)
    reconcile.ask(relay.database, "ada", "the outage of yesterday", ["okta"], at(-2000))
    directory.passes = [[LookUpFailed("okta.example does not answer")]]
    clock.advance(1)
    reconciler.turn()
    clock.advance(60)
    reconciler.turn()
    clock.advance(600)
    reconciler.turn()
    left = ("None+", at(-1000))  # where it was left, which is read again after the failure
    assert directory.asked == [(None, at(-1000)), left, left, (None, at(-2000)), ("None+", at(-2000))]
    assert [json.loads(row.detail) for row in relay.rows(tables.decisions)][1] == {"since": to_iso(at(-2000))}


def test_since_counts_for_no_source_that_comes_later(relay: Relay, clock: Clock) -> None:
    first, second, later = Log("first"), Log("second"), Log("later")
    there = {"first": first, "second": second}
    reconciler = Reconciler(relay.database, "w1", lambda: there, lambda: relay.terms.rules, lambda: 600)  # type: ignore[arg-type,return-value]
    reconcile.ask(relay.database, "ada", "the outage of yesterday", list(there), at(-1000))
    reconciler.turn()
    there["later"] = later
    begun = clock.now
    reconciler.turn()
    assert [log.asked for log in (first, second, later)] == [[(None, at(-1000))], [(None, at(-1000))], [(None, begun)]]


def test_since_counts_although_somebody_reads_before_the_workers_do(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    begun = clock.now
    reconciler.run("okta")
    reconcile.ask(relay.database, "ada", None, ["okta"], at(-1000))
    reconciler.run("okta", since=at(-10))
    reconciler.turn()
    reconciler.turn()
    assert directory.asked[1:] == [("None+", begun), (None, at(-1000))]


def test_one_worker_at_a_time_reads_a_source(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    assert leases.take(relay.database, "reconcile okta", "w2", 60)
    assert reconciler.run("okta") is None
    assert directory.asked == []
    leases.give_back(relay.database, "reconcile okta", "w2")
    assert reconciler.run("okta") is not None


def test_it_is_due_at_first_by_the_timer_and_when_somebody_asks(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    reconciler.turn()
    assert len(directory.asked) == 1
    clock.advance(599)
    reconciler.turn()
    assert len(directory.asked) == 1
    clock.advance(1)
    reconciler.turn()
    assert len(directory.asked) == 2
    clock.advance(1)
    assert reconcile.ask(relay.database, "ada", None) == {"asked": True}
    reconciler.turn()
    reconciler.turn()
    assert len(directory.asked) == 3


def test_after_a_gap_it_is_due_at_once(relay: Relay, directory: Log, clock: Clock) -> None:
    lost_at: dict[str, Micros] = {}
    reconciler = Reconciler(
        relay.database,
        "w1",
        lambda: {"okta": directory},  # type: ignore[dict-item]
        lambda: relay.terms.rules,
        lambda: 600,
        lambda: lost_at,
    )
    reconciler.turn()
    lost_at["okta"] = clock.now - SECOND
    reconciler.turn()
    assert len(directory.asked) == 1  # that pass has found what was lost
    lost_at["okta"] = clock.now + SECOND
    clock.advance(2)
    reconciler.turn()
    reconciler.turn()
    assert len(directory.asked) == 2


def test_after_a_failure_it_is_tried_again_in_a_minute(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    directory.passes = [[LookUpFailed("no")]]
    reconciler.turn()
    clock.advance(59)
    reconciler.turn()
    assert len(directory.asked) == 1
    clock.advance(1)
    reconciler.turn()
    assert len(directory.asked) == 2


def test_a_change_without_id_that_is_known_is_left_out(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    relay.record(gain("ada", "sales", 10, email="a"), loss("ada", "eng", 20, email="a"))
    relay.run()
    directory.passes = [[page(without_id(gain("ada", "sales")), without_id(loss("ada", "eng")))]]
    assert reconciler.run("okta").found == 0


def test_a_change_without_id_that_nothing_told_is_recorded_once(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    relay.record(gain("ada", "eng", 10, email="a"))
    relay.run()
    lost = without_id(loss("ada", "eng"))
    directory.passes = [[page(lost, lost, last=False), page(lost)], [page(lost)]]
    assert reconciler.run("okta").found == 1
    assert [set(task.resources) for task in relay.run()] == [{ACME, D1}]
    assert reconciler.run("okta").found == 0
    assert relay.run() == []


@pytest.fixture
def held(relay: Relay) -> str:
    """A loss that the guard holds."""
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    relay.record(without_id(loss("bob", "eng", email="bob@acme.example")))
    relay.run()
    [event_id] = relay.record(without_id(loss("ada", "eng", email="ada@acme.example")))
    relay.run()
    assert relay.event(event_id).state == "held"
    return event_id


@pytest.mark.usefixtures("held")
def test_a_loss_that_is_held_is_not_found_again(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    directory.passes = [[page(without_id(loss("ada", "eng")))]]
    assert reconciler.run("okta").found == 0


def test_an_account_loss_that_is_held_is_not_found_again(
    relay: Relay, directory: Log, reconciler: Reconciler, held: str
) -> None:
    [event_id] = relay.record(without_id(left("eve", email="eve@acme.example")))
    relay.run()
    assert relay.event(event_id).state == "held"
    directory.passes = [[page(without_id(left("eve")))]]
    assert reconciler.run("okta").found == 0


def test_a_loss_after_a_gain_is_found_although_an_older_one_is_held(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock, held: str
) -> None:
    clock.advance(60)
    relay.record(without_id(gain("ada", "eng")))
    relay.run()
    clock.advance(2 * HOUR)
    directory.passes = [[page(without_id(loss("ada", "eng")))]]
    assert reconciler.run("okta").found == 1
    assert [(task.velt_user_id, set(task.resources)) for task in relay.run()] == [("ada@acme.example", {ACME, D1})]
    assert relay.event(held).state == "held"


def test_a_disabled_account_is_news_until_an_event_has_told_it(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    relay.record(gain("ada", "eng", 10, email="a"))
    relay.run()
    directory.passes = [[page(without_id(left("ada")))], [page(without_id(left("ada")))]]
    assert reconciler.run("okta").found == 1
    relay.run()
    assert reconciler.run("okta").found == 0


def test_an_account_that_is_deleted_after_it_was_disabled_is_news(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    relay.record(left("ada", 10, email="a"))
    relay.run()
    directory.passes = [[page(without_id(event(Kind.ACCOUNT_DELETED, "ada")))]]
    assert reconciler.run("okta").found == 1


def test_an_active_account_is_news_only_where_it_was_lost(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    relay.record(left("ada", 10, email="a"))
    relay.run()
    active = [without_id(event(Kind.ACCOUNT_ACTIVATED, subject)) for subject in ("ada", "bob")]
    directory.passes = [[page(*active)]]
    assert reconciler.run("okta").found == 1


def test_a_deleted_group_is_news_while_somebody_is_known_to_be_in_it(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    relay.record(gain("ada", "eng", 10, email="a"))
    relay.run()
    deleted = [without_id(event(Kind.GROUP_DELETED, None, group_id=group)) for group in ("eng", "sales")]
    directory.passes = [[page(*deleted)]]
    assert reconciler.run("okta").found == 1
    assert [set(task.resources) for task in relay.run()] == [{ACME, D1}]


def test_a_group_that_left_another_is_news_while_somebody_is_known_in_that_and_one_that_came_always(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    relay.record(gain("ada", "eng", 10, email="a"))
    relay.run()
    left_by = [without_id(event(Kind.GROUP_MEMBER_REMOVED, None, group_id=group)) for group in ("eng", "sales")]
    joined_by = without_id(event(Kind.GROUP_MEMBER_ADDED, None, group_id="new"))
    directory.passes = [[page(*left_by, joined_by)]]
    assert reconciler.run("okta").found == 2


def test_a_listing_notes_members_and_takes_what_is_missing_only_at_its_end(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    relay.record(gain("ada", "eng", 10, email="a"), gain("bob", "eng", 10, email="b"), gain("cy", "eng", 10, email="c"))
    relay.run()
    users = [without_id(event(Kind.ACCOUNT_ACTIVATED, subject)) for subject in ("ada", "bob", "dee")]
    first = page(*users, cursor="c1", last=False, snapshot=True)
    members = page(
        without_id(gain("ada", "eng")), without_id(gain("dee", "sales")), cursor="c2", last=True, snapshot=True
    )
    directory.passes = [[first, LookUpFailed("no")], [first, members]]
    assert reconciler.run("okta").found == 0
    assert relay.run() == []
    assert place(relay).cursor is None
    assert reconciler.run("okta").found == 2
    told = {task.velt_user_id: set(task.resources) for task in relay.run()}
    assert told == {"b": {ACME, D1}, "c": {ACME, D1, *told["c"]}}
    assert [fact.object_id for fact in relay.facts("dee")] == ["sales"]
    assert place(relay).cursor == "c2"


def listed(subject: str, email: str) -> AccessEvent:
    """An account in force, as a listing shows it."""
    return without_id(event(Kind.ACCOUNT_ACTIVATED, subject, login=f"{subject}@login.example", email=email))


def test_a_listing_tells_who_people_are_so_that_what_they_have_there_is_kept(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    directory.passes = [[page(listed("ada", "a"), without_id(gain("ada", "eng")), snapshot=True)]]
    reconciler.run("okta")
    relay.record(loss("ada-too", "eng", HOUR - 1, source="entra", email="a"))
    assert relay.run() == []
    assert [row.state for row in relay.revocations()] == ["retained", "retained"]


def shows(*groups: str) -> list[Changes]:
    """A listing in which ada is in these groups."""
    members = (without_id(gain("ada", group)) for group in groups)
    return [page(listed("ada", "a"), cursor="c1", last=False, snapshot=True), page(*members, snapshot=True)]


def needs_regrant(relay: Relay) -> set[str]:
    return {row.resource_id for row in relay.revocations() if row.needs_regrant}


def test_what_was_taken_is_to_be_granted_again_for_a_group_that_only_a_listing_tells(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    relay.record(loss("ada-too", "eng", HOUR - 1, source="entra", email="a"))
    assert [task.resources for task in relay.run()] == [(ACME, D1)]
    clock.advance(HOUR)
    directory.passes = [shows("sales")]  # gives d1, and nobody has told of it
    assert reconciler.run("okta").found == 1
    relay.run()
    assert needs_regrant(relay) == {"d1"}


def test_so_is_what_is_being_taken_while_the_listing_is_kept(
    relay: Relay, directory: Log, reconciler: Reconciler
) -> None:
    relay.record(loss("ada-too", "eng", HOUR - 1, source="entra", email="a"))
    [task] = relay.claim()
    directory.passes = [shows("sales")]
    reconciler.run("okta")
    relay.settle(task)
    relay.run()
    assert needs_regrant(relay) == {"d1"}


@pytest.mark.parametrize("hours", [1, 50])
def test_a_leaver_loses_what_a_group_gave_that_only_the_first_listing_tells(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock, hours: int
) -> None:
    relay.terms = replace(relay.terms, rules=rules(BY_NAME, LEAVERS, identity=["{user.email}"], accounts="any"))
    relay.record(left("ada-too", HOUR - 1, source="entra", email="a"))
    assert relay.run() == []
    clock.advance(hours * HOUR)
    told = without_id(gain("ada", "g1", group_name="Doc-1"))
    directory.passes = [[page(listed("ada", "a"), cursor="c1", last=False, snapshot=True), page(told, snapshot=True)]]
    reconciler.run("okta")
    assert [resource.id for task in relay.run() for resource in task.resources] == ["Doc-1"]


def test_what_a_listing_tells_only_now_is_no_gain_after_an_operators_removal(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    directory.passes = [[page(listed("ada", "a"), snapshot=True)]]
    reconciler.run("okta")
    what = {"user": "a", "resources": [D1.as_velt()], "reason": "a leak"}
    operate.remove(relay.database, relay.terms.rules, "eve", what)
    relay.run()
    with relay.database.write() as connection:
        delivery.pause(connection, "eve", None)
    operate.remove(relay.database, relay.terms.rules, "eve", what)
    relay.run()
    clock.advance(60)
    directory.passes = [shows("sales")]
    assert reconciler.run("okta").found == 1
    relay.run()
    with relay.database.write() as connection:
        delivery.resume(connection)
    relay.run()
    assert [(row.state, row.needs_regrant) for row in relay.revocations()] == 2 * [("removed", False)]


def test_what_a_look_up_tells_before_the_first_reading_after_hours_may_be_as_old(
    timed: Database, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    relay = Relay(timed, replace(rules_with_directory(), fills={"okta": TOLD, "entra": ALL}))
    directory.passes = [[page(listed("ada", "a"))]]
    reconciler.run("okta")

    def say(*groups: str) -> None:
        answer = replace(account("ada", groups=groups, email="a"), fetched_at=clock.now)
        answered.keep(timed, relay.terms.rules, Question("okta", ACCOUNT, "ada"), answer)

    relay.record(loss("ada-too", "eng", HOUR - 1, source="entra", email="a"))
    assert relay.run() == []  # nobody has asked yet what she has there
    say()
    assert len(relay.run()) == 1
    clock.advance(10 * HOUR)
    say("sales")
    relay.run()
    assert needs_regrant(relay) == {"d1"}


def test_a_gain_that_waits_may_be_as_old_although_the_next_reading_has_begun(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    directory.passes = [[page(listed("ada", "a"))]]
    reconciler.run("okta")
    relay.record(loss("ada-too", "eng", HOUR - 1, source="entra", email="a"))
    relay.run()
    clock.advance(6 * HOUR)
    directory.passes = [[page(without_id(gain("ada", "sales", email="a")))], [page()]]
    assert reconciler.run("okta").found == 1
    clock.advance(600)
    reconciler.run("okta")
    relay.run()
    assert needs_regrant(relay) == {"d1"}


@pytest.mark.parametrize(("told_by", "marked"), [("reconcile", {"d1"}), ("message", set())])
def test_after_hours_without_reading_a_gain_may_be_as_old_as_the_last_whole_reading(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock, told_by: str, marked: set[str]
) -> None:
    """A message is tried for four hours, and not longer."""
    directory.passes = [[page(listed("ada", "a"))]]
    reconciler.run("okta")
    relay.record(loss("ada-too", "eng", HOUR - 1, source="entra", email="a"))
    relay.run()
    for _ in range(6):
        clock.advance(HOUR)
        directory.passes = [[LookUpFailed("down")]]
        reconciler.run("okta")
    gained = without_id(gain("ada", "sales", email="a"))
    if told_by == "message":
        relay.record(replace(gained, key="m1"))
    directory.passes = [[page(gained)]]
    reconciler.run("okta")
    relay.run()
    assert needs_regrant(relay) == marked


def test_who_is_listed_no_more_has_left_even_if_nothing_else_was_ever_told_of_them(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    directory.passes = [
        [page(listed("ada", "a"), listed("bob", "b"), snapshot=True)],
        [page(listed("bob", "b"), snapshot=True)],
    ]
    reconciler.run("okta")
    clock.advance(HOUR)
    assert reconciler.run("okta", since=at(0)).found == 1
    assert {task.velt_user_id for task in relay.run()} == {"a"}


def test_a_change_tells_a_new_address_and_an_event_that_told_a_newer_one_stands(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    relay.record(gain("ada", "eng", 10, email="a"), gain("bob", "eng", HOUR - 1, email="b"))
    relay.run()
    directory.passes = [[page(listed("ada", "a.new"), listed("bob", "b.old"))]]
    reconciler.run("okta")
    assert relay.velt_users() == {"ada": ["a.new", "a"], "bob": ["b", "b.old"]}


def test_a_listing_says_nothing_of_those_nobody_knows(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    directory.passes = [[page(without_id(left("eve")), cursor="c1", snapshot=True)]]
    assert reconciler.run("okta").found == 0


def test_what_was_gained_while_a_listing_was_read_is_not_missing(
    relay: Relay, directory: Log, reconciler: Reconciler, clock: Clock
) -> None:
    relay.record(gain("ada", "eng", HOUR - 1, email="a"))
    relay.run()
    ada = without_id(event(Kind.ACCOUNT_ACTIVATED, "ada"))
    directory.passes = [[page(ada, cursor="c1", snapshot=True)]]
    assert reconciler.run("okta").found == 0


def test_many_that_are_missing_are_recorded_some_at_a_time_and_what_breaks_off_doubles_nothing(
    relay: Relay, directory: Log, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found, "CHUNK", 2)
    relay.record(*[gain(f"u{n}", "eng", 10, email=f"u{n}") for n in range(5)])
    relay.run()
    directory.passes = [[page(snapshot=True)], [page(snapshot=True)]]
    record, recorded = found._record, []

    def breaks_off(*given: object) -> int:
        if recorded:
            raise Unavailable("the disk is full")
        recorded.append(record(*given))  # type: ignore[arg-type]
        return recorded[-1]

    with monkeypatch.context() as patched:
        patched.setattr(found, "_record", breaks_off)
        with pytest.raises(Unavailable):
            reconciler.run("okta")
    assert counts(relay) == {"okta": 2}
    assert reconciler.run("okta").found == 3
    assert len(relay.run()) == 5
    lost = [row.subject for row in relay.rows(tables.events) if row.kind == Kind.ACCOUNT_DELETED.value]
    assert sorted(lost) == [f"u{n}" for n in range(5)]


def test_progress_is_told_after_each_page(relay: Relay, directory: Log, reconciler: Reconciler) -> None:
    seen: list[int] = []
    directory.passes = [[page(loss("ada", "eng", email="a"), last=False), page(loss("bob", "eng", email="b"))]]
    reconciler.run("okta", progress=lambda place: seen.append(place.read))
    assert seen == [1, 2]


def test_entra_is_read_whole_so_that_no_time_is_too_long_ago() -> None:
    types = {"entra": "entra", "okta": "okta"}
    long_ago = model.now() - 200 * 86_400 * SECOND
    assert reconcile.chosen(types, "entra", long_ago) == ["entra"]
    with pytest.raises(Refused, match='"okta" keeps what it tells for 90 days'):
        reconcile.chosen(types, None, long_ago)

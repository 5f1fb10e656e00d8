"""Questions whether a removal shows: which are due, who asks them, what is written down. On both databases."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Row, update

from relay import backoff
from relay.access import Access, Permissions
from relay.model import SECOND, Answer, Outcome, Resource
from relay.store import confirm, delivery, results, tables
from relay.store.confirm import Question
from relay.store.database import Database
from tests.people import (
    ACME,
    D1,
    REFUSED,
    REMOVED,
    RETRY,
    UNAUTHORIZED,
    Clock,
    Relay,
    gain,
    loss,
    rules,
    small_rules,
)

DENIED = Access(error_code="permission_denied", error="no access")
PUBLIC = Access("editor", "public")
SUCCESS = Outcome(Answer.REMOVED, "Found.", 200, response=b"{}")
ABSENT = Outcome(Answer.ABSENT, "NOT_FOUND", 404, "NOT_FOUND")


@pytest.fixture
def asking(relay: Relay) -> Relay:
    """A relay whose velt.confirm is true."""
    relay.terms = replace(relay.terms, confirms=True)
    return relay


def remove(relay: Relay, subject: str = "ada", group: str = "eng", outcome: Outcome = REMOVED) -> str:
    """A loss that is removed; its event."""
    [event_id] = relay.record(loss(subject, group))
    relay.run(outcome)
    return event_id


def many(number: int, kind: str = "document") -> list[Resource]:
    return [Resource(kind, f"m{n:03}", "acme") for n in range(number)]


def taking(relay: Relay, resources: list[Resource]) -> None:
    """From now on the group eng gives exactly these."""
    revoke = [resource.as_velt() for resource in resources]
    rule_set = rules({"name": "many", "when": {"group.id": "eng"}, "revoke": revoke})
    relay.terms = replace(relay.terms, rules=rule_set)


def take(relay: Relay, limit: int = 16, **terms: Any) -> tuple[Question, ...]:
    return confirm.take(relay.database, replace(relay.terms, **terms), limit)


def answer(
    relay: Relay, question: Question, shown: Mapping[Resource, Access] | None = None, outcome: Outcome = SUCCESS
) -> None:
    """Write down an answer; without `shown` everything is denied."""
    entries = dict.fromkeys((*question.resources, ACME), DENIED) if shown is None else shown
    told = Permissions(outcome, {question.velt_user_id: entries})
    confirm.record(relay.database, relay.terms, question, told, relay.now(), relay.now())


def fail(relay: Relay, question: Question, outcome: Outcome) -> None:
    answer(relay, question, {}, outcome)


def ids_of(question: Question, kind: str) -> list[str]:
    return [resource.id for resource in question.asked if resource.type == kind]


def row_of(relay: Relay, resource: Resource = D1) -> Row[Any]:
    [row] = [row for row in relay.revocations() if row.resource_id == resource.id]
    return row


def counted(relay: Relay) -> dict[str, int]:
    with relay.database.read() as connection:
        return {name: number for name, number in results.counts(connection).items() if number}


# --- what is asked, and when


def test_a_removal_is_asked_about_five_seconds_later(asking: Relay, clock: Clock) -> None:
    remove(asking)
    assert {row.confirm_at for row in asking.revocations()} == {clock.now + 5 * SECOND}
    assert counted(asking) == {"waiting": 2}
    clock.advance(4.9)
    assert take(asking) == ()
    clock.advance(0.1)
    [question] = take(asking)
    assert (question.velt_user_id, question.organization_id, set(question.resources)) == ("ada", "acme", {ACME, D1})
    assert (ids_of(question, "document"), ids_of(question, "folder")) == (["d1"], ["chat"])
    assert len(question.revocation_ids) == 2


def test_nothing_is_asked_unless_it_is_wanted(relay: Relay, clock: Clock) -> None:
    remove(relay)
    assert {row.confirm_at for row in relay.revocations()} == {None}
    clock.advance(3600)
    assert take(relay, confirms=True) == ()
    assert counted(relay) == {}


@pytest.mark.parametrize("outcome", [RETRY, REFUSED], ids=lambda given: given.answer.value)
def test_only_what_was_removed_is_asked_about(asking: Relay, clock: Clock, outcome: Outcome) -> None:
    asking.record(loss("ada", "sales"))
    [task] = asking.claim()
    asking.settle(task, outcome)
    clock.advance(3600)
    assert row_of(asking).confirm_at is None
    assert take(asking) == ()


def test_turned_off_it_stops_and_turned_on_it_goes_on(asking: Relay, clock: Clock) -> None:
    remove(asking)
    clock.advance(5)
    assert take(asking, confirms=False) == ()
    assert counted(asking) == {"waiting": 2}
    clock.advance(86_400)
    assert len(take(asking)) == 1


def test_people_and_organizations_are_asked_about_apart(asking: Relay, clock: Clock) -> None:
    taking(asking, [D1, Resource("folder", "plans", "other"), Resource("organization", "third")])
    remove(asking, "ada")
    remove(asking, "bob")
    clock.advance(5)
    asked = {(question.velt_user_id, question.organization_id): question for question in take(asking)}
    assert set(asked) == {(user, name) for user in ("ada", "bob") for name in ("acme", "other", "third")}
    assert ids_of(asked["ada", "other"], "folder") == ["plans"]
    assert asked["ada", "third"].resources == (Resource("organization", "third"),)


def test_a_question_has_at_most_30_resources_and_a_look_so_many_questions(asking: Relay, clock: Clock) -> None:
    taking(asking, many(65))
    remove(asking)
    clock.advance(5)
    sizes = [[len(question.resources) for question in take(asking, 2)] for _ in range(3)]
    assert sizes == [[30, 30], [5], []]


def test_the_oldest_are_asked_about_first(asking: Relay, clock: Clock) -> None:
    for subject in ("bob", "ada"):
        remove(asking, subject, "sales")
        clock.advance(1)
    clock.advance(5)
    assert [take(asking, 1)[0].velt_user_id for _ in range(2)] == ["bob", "ada"]


def test_one_resource_of_several_events_is_one_question(asking: Relay, clock: Clock) -> None:
    asking.record(loss("ada", "eng"), loss("ada", "sales"))
    asking.run()
    clock.advance(5)
    [question] = take(asking)
    assert len(question.resources) == 2
    assert len(question.revocation_ids) == 3
    answer(asking, question)
    assert {row.confirmation for row in asking.revocations()} == {"confirmed"}
    assert counted(asking) == {"confirmed": 3}


def test_folders_from_which_a_role_may_come_are_asked_along(asking: Relay, clock: Clock) -> None:
    plans = Resource("folder", "plans", "acme")
    rule = {"name": "plans", "when": {"group.id": ["plans", "writers"]}, "revoke": [plans.as_velt()]}
    sales = {"name": "sales", "when": {"group.id": ["sales"]}, "revoke": [D1.as_velt()]}
    asking.terms = replace(asking.terms, rules=rules(rule, sales))
    asking.record(gain("ada", "writers"), loss("ada", "plans", 1), loss("ada", "sales", 1))
    asking.run()
    assert asking.states() == ["removed", "retained"]
    clock.advance(5)
    [question] = take(asking)
    assert question.resources == (D1,)
    assert ids_of(question, "folder") == ["plans"]
    answer(asking, question, {D1: Access("editor"), plans: Access("editor"), ACME: DENIED})
    assert "inherited from folder plans in acme" in row_of(asking).confirmation_reason


def test_folders_of_the_rules_are_asked_along_as_many_as_there_is_room_for(asking: Relay, clock: Clock) -> None:
    others = {"name": "other", "when": {"group.id": ["other"]}, "revoke": [r.as_velt() for r in many(40, "folder")]}
    elsewhere = {"type": "folder", "id": "elsewhere", "organizationId": "other"}
    mine = {"name": "eng", "when": {"group.id": ["eng"]}, "revoke": [D1.as_velt(), *others["revoke"][:4], elsewhere]}
    asking.terms = replace(asking.terms, rules=rules(others, mine))
    remove(asking)
    clock.advance(5)
    acme, other = sorted(take(asking), key=lambda question: question.organization_id)
    folders = ids_of(acme, "folder")
    assert (len(folders), len(set(folders)), folders[:4]) == (26, 26, ["m000", "m001", "m002", "m003"])
    assert ids_of(other, "folder") == ["elsewhere"]
    assert {resource.id for resource in acme.resources} == {"d1", "m000", "m001", "m002", "m003"}


# --- several workers, dead workers


def test_what_is_taken_is_nobody_elses_until_its_worker_is_lost(asking: Relay, clock: Clock) -> None:
    remove(asking)
    clock.advance(5)
    [first] = take(asking)
    assert take(asking, worker="w2") == ()
    clock.advance(59)
    assert take(asking, worker="w2") == ()
    clock.advance(1)
    [second] = take(asking, worker="w2")
    assert second.revocation_ids == first.revocation_ids
    answer(asking, first, {D1: PUBLIC, ACME: DENIED})
    assert {row.confirmation for row in asking.revocations()} == {None}, "what a lost worker says counts no more"
    answer(asking, second)
    answer(asking, first, {D1: PUBLIC, ACME: DENIED})
    assert {row.confirmation for row in asking.revocations()} == {"confirmed"}
    assert {row.confirm_tries for row in asking.revocations()} == {1}
    outcomes = sorted(row.outcome for row in asking.rows(tables.attempts))
    assert outcomes == ["confirmed", "removed", "still has access", "still has access"]


def test_workers_at_once_never_ask_twice(database: Database) -> None:
    clock = Clock()
    timed = Database(database.url.render_as_string(hide_password=False), clock)
    relay = Relay(timed, small_rules(), confirms=True)
    subjects = [f"u{n}" for n in range(12)]
    relay.record(*[loss(subject, "sales") for subject in subjects])
    relay.run()
    clock.advance(5)
    start = threading.Barrier(3)

    def work(worker: str) -> list[str]:
        start.wait()
        asked = []
        for _ in range(12):
            for question in take(relay, 3, worker=worker):
                asked.append(question.velt_user_id)
                answer(relay, question)
        return asked

    with ThreadPoolExecutor(3) as pool:
        asked = [user for done in [pool.submit(work, f"w{n}") for n in range(3)] for user in done.result(30)]
    assert len(asked) == len(set(asked))
    while left := take(relay):  # whom another worker's lock had passed over
        for question in left:
            asked.append(question.velt_user_id)
            answer(relay, question)
    assert sorted(asked) == sorted(subjects)
    timed.close()


# --- what is written down


def test_a_confirmation_with_its_evidence(asking: Relay, clock: Clock) -> None:
    remove(asking)
    clock.advance(5)
    [question] = take(asking)
    answer(asking, question)
    row = row_of(asking)
    assert (row.state, row.confirmation, row.confirm_at, row.confirm_tries) == ("removed", "confirmed", None, 1)
    assert "permission_denied: no access" in row.confirmation_reason
    assert counted(asking) == {"confirmed": 2}
    [attempt] = [found for found in asking.rows(tables.attempts) if found.outcome == "confirmed"]
    assert (attempt.velt_user_id, attempt.http_status, attempt.response) == ("ada", 200, b"{}")
    assert "permission_denied" in attempt.reason
    links = [link for link in asking.rows(tables.attempt_revocations) if link.attempt_id == attempt.id]
    assert {link.revocation_id for link in links} == {found.id for found in asking.revocations()}
    clock.advance(86_400)
    assert take(asking) == ()


def test_an_attempt_tells_the_worst_of_its_verdicts_and_each_ones_why(asking: Relay, clock: Clock) -> None:
    remove(asking)
    clock.advance(5)
    [question] = take(asking)
    answer(asking, question, {D1: PUBLIC, ACME: DENIED})
    assert (row_of(asking, ACME).confirmation, row_of(asking).confirmation) == ("confirmed", "still has access")
    [attempt] = [found for found in asking.rows(tables.attempts) if found.outcome != "removed"]
    assert attempt.outcome == "still has access"
    assert "organization acme: Velt says permission_denied" in attempt.reason
    assert "document d1 in acme: the document is public" in attempt.reason


def test_velt_may_lag_before_it_is_final_that_somebody_has_access(asking: Relay, clock: Clock) -> None:
    remove(asking, group="sales")
    removed_at = clock.now
    for seconds in (5, 65, 665):
        clock.now = removed_at + seconds * SECOND - 1
        assert take(asking) == ()
        clock.advance(1e-6)
        assert counted(asking) == {"waiting": 1}
        [question] = take(asking)
        answer(asking, question, {D1: PUBLIC})
        row = row_of(asking)
        assert (row.confirmation, row.confirmation_reason[:22]) == ("still has access", "the document is public")
    assert row.confirm_at is None
    assert counted(asking) == {"still_has_access": 1}
    clock.advance(86_400)
    assert take(asking) == ()


def test_what_shows_no_more_the_second_time_is_confirmed(asking: Relay, clock: Clock) -> None:
    remove(asking, group="sales")
    clock.advance(5)
    answer(asking, take(asking)[0], {D1: Access("editor")})
    clock.advance(60)
    answer(asking, take(asking)[0])
    assert (row_of(asking).confirmation, counted(asking)) == ("confirmed", {"confirmed": 1})


def test_what_was_given_back_is_no_failure(asking: Relay, clock: Clock) -> None:
    remove(asking, group="sales")
    asking.record(gain("ada", "eng", 10))
    asking.run()
    clock.advance(5)
    [question] = take(asking)
    answer(asking, question, {D1: Access("editor")})
    row = row_of(asking)
    assert (row.confirmation, row.confirm_at) == (None, None)
    assert row.confirmation_reason.startswith("given back since the removal, by group eng (okta)")
    assert counted(asking) == {"unconfirmed": 1}


def test_a_later_removal_is_asked_about_anew(asking: Relay, clock: Clock) -> None:
    remove(asking, group="sales")
    clock.advance(5)
    answer(asking, take(asking)[0])
    asking.record(gain("ada", "sales", 10), loss("ada", "sales", 20))
    asking.run()
    clock.advance(5)
    [question] = take(asking)
    answer(asking, question, {D1: PUBLIC})
    assert [row.confirmation for row in asking.revocations()] == ["confirmed", "still has access"]


# --- trouble


@pytest.mark.parametrize("outcome", [RETRY, UNAUTHORIZED], ids=lambda given: given.answer.value)
def test_trouble_is_retried_by_the_list_and_ends_with_the_reason(asking: Relay, clock: Clock, outcome: Outcome) -> None:
    remove(asking, group="sales")
    clock.advance(5)
    for number, wait in enumerate(backoff.SCHEDULE, 1):
        [question] = take(asking)
        fail(asking, question, outcome)
        row = row_of(asking)
        assert (row.confirmation, row.confirm_tries, row.confirmation_reason) == (None, number, outcome.reason)
        assert 0 <= row.confirm_at - clock.now <= wait * SECOND
        clock.now = row.confirm_at
    fail(asking, take(asking)[0], outcome)
    row = row_of(asking)
    assert {found.outcome for found in asking.rows(tables.attempts)} == {"removed", "unconfirmed"}
    assert (row.state, row.confirmation, row.confirm_at) == ("removed", None, None)
    assert row.confirmation_reason == f"could not be confirmed: {outcome.reason}"
    assert counted(asking) == {"unconfirmed": 1}


def test_trouble_does_not_move_the_breaker(asking: Relay, clock: Clock) -> None:
    for subject in ("ada", "bob", "cy", "di"):
        remove(asking, subject, "sales")
    clock.advance(5)
    down = Outcome(Answer.RETRY, "unavailable", 503, "UNAVAILABLE", down=True)
    for question in take(asking):
        fail(asking, question, replace(UNAUTHORIZED) if question.velt_user_id == "ada" else down)
    with asking.database.read() as connection:
        assert delivery.read(connection).state == "closed"


def test_velt_may_ask_for_a_longer_wait(asking: Relay, clock: Clock) -> None:
    remove(asking, group="sales")
    clock.advance(5)
    fail(asking, take(asking)[0], replace(RETRY, retry_after=1000.0))
    assert row_of(asking).confirm_at == clock.now + 1000 * SECOND


@pytest.mark.parametrize("outcome", [REFUSED, ABSENT, SUCCESS], ids=lambda given: given.reason)
def test_what_a_question_for_several_does_not_tell_is_asked_alone(
    asking: Relay, clock: Clock, outcome: Outcome
) -> None:
    remove(asking)
    clock.advance(5)
    [question] = take(asking)
    fail(asking, question, outcome)
    clock.advance(60)
    alone = take(asking)
    assert {question.resources: question.folders for question in alone} == {(ACME,): (), (D1,): ()}
    for question in alone:
        answer(asking, question, {D1: DENIED})
    assert (row_of(asking).confirmation, row_of(asking, ACME).confirmation) == ("confirmed", None)
    clock.advance(600)
    [question] = take(asking)
    answer(asking, question, {})
    assert row_of(asking, ACME).confirmation_reason == (
        "could not be confirmed: Velt's answer says nothing about organization acme"
    )
    assert counted(asking) == {"confirmed": 1, "unconfirmed": 1}


def test_what_velt_showed_before_trouble_still_stands(asking: Relay, clock: Clock) -> None:
    remove(asking, group="sales")
    clock.advance(5)
    answer(asking, take(asking)[0], {D1: PUBLIC})
    clock.advance(60)
    fail(asking, take(asking)[0], RETRY)
    row = row_of(asking)
    assert (row.confirmation, row.confirmation_reason[:22]) == ("still has access", "the document is public")
    assert row.confirm_at is not None


def test_a_removal_one_by_one_is_confirmed_together(asking: Relay, clock: Clock) -> None:
    asking.record(loss("ada", "eng"))
    [task] = asking.claim()
    asking.settle(task, REFUSED)
    while tasks := asking.claim():
        asking.settle(tasks[0])
    clock.advance(5)
    assert [len(question.resources) for question in take(asking)] == [2]


# --- while calls do not go out


def test_nobody_is_asked_in_observe_mode_or_while_paused(asking: Relay, clock: Clock) -> None:
    remove(asking)
    clock.advance(5)
    assert take(asking, sends=False) == ()
    with asking.database.write() as connection:
        delivery.pause(connection, "ada", None)
    assert take(asking) == ()
    with asking.database.write() as connection:
        delivery.resume(connection)
    assert len(take(asking)) == 1


@pytest.mark.parametrize("state", ["open", "probing"])
def test_nobody_is_asked_while_the_breaker_is_not_closed(asking: Relay, clock: Clock, state: str) -> None:
    remove(asking)
    with asking.database.write() as connection:
        # Its time has come: a removal may be the probe, a question may not.
        connection.execute(update(tables.delivery).values(state=state, probe_at=clock.now))
    clock.advance(5)
    assert take(asking) == ()
    assert counted(asking) == {"waiting": 2}


def test_a_question_is_no_call_of_the_person(asking: Relay, clock: Clock) -> None:
    remove(asking)
    clock.advance(5)
    asking.record(loss("ada", "eng-2", 10))
    [task] = asking.claim()
    assert len(take(asking)) == 1
    assert asking.settle(task)


def test_asking_leaves_the_event_as_it_is(asking: Relay, clock: Clock) -> None:
    event_id = remove(asking)
    before = asking.event(event_id)
    clock.advance(5)
    answer(asking, take(asking)[0], {D1: PUBLIC, ACME: DENIED})
    assert asking.event(event_id) == before
    assert asking.due_at() is None

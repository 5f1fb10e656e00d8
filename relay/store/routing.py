"""Routing: each recorded event is given its person, the row of `people` that planning and claiming lock.

It holds one lock of its own and is short. Who only a look-up can tell waits for it; what cannot be given a person (no
Velt user id can be made) ends `failed` with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, and_, bindparam, or_, select, update
from sqlalchemy.exc import DBAPIError

from relay import truth
from relay.model import ACCOUNT_LOSSES, GAINS, LOSSES, SECOND, Account, EventState, Kind, Micros, Status
from relay.rules import RuleSet
from relay.store import look_ups, nested, verify
from relay.store.database import lock_routing
from relay.store.ending import end, learn_from
from relay.store.fan_out import fan_out
from relay.store.identities import (
    Key,
    Known,
    Profile,
    answers_for,
    held_identities,
    identify,
    identities_of,
    velt_user_id_of,
)
from relay.store.look_ups import About
from relay.store.people import due_for_planning, lock_people, people_for, person_for
from relay.store.tables import events

#: Events introduced in one transaction.
BATCH = 500

#: Recorded events that have no person yet.
UNROUTED = and_(events.c.state == EventState.RECEIVED.value, events.c.person_id.is_(None))

#: Microseconds after which it is looked again whether an event without a person still has to wait for a look-up.
PERSON_WAIT: Micros = 600 * SECOND


def to_route(now: Micros | BindParameter[int]) -> ColumnElement[bool]:
    """Events without a person that can be given one now: those that do not wait for a look-up."""
    return and_(UNROUTED, or_(events.c.wait_until.is_(None), events.c.wait_until <= now))


def route(connection: Connection, rules: RuleSet, now: Micros) -> int:
    """Give the oldest unrouted events their person; return how many events were dealt with."""
    lock_routing(connection)
    waiting = select(events).where(to_route(now)).order_by(events.c.as_of, events.c.id).limit(BATCH)
    rows = _together(connection.execute(waiting).all())
    route_these(connection, rules, rows, now)
    return len(rows)


def _together(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """The first of these events that one transaction can route. That a group came into another, once it is told who is
    in it, is one by itself: it holds these people, and they have to be all who are held.
    """
    first = next((number for number, row in enumerate(rows) if nested.may_hold_people(row)), len(rows))
    return rows[: first or 1]


def route_these(connection: Connection, rules: RuleSet, rows: Sequence[Row[Any]], now: Micros) -> None:
    """Give these events their person."""
    known = identities_of(connection, rows)
    work = _Routing(connection, rules, now, known, answers_for(connection, rules, known))
    work.hold_people([row for row in rows if row.subject is not None])
    for row in rows:
        try:
            work.route(row)
        except DBAPIError:
            raise
        except Exception as error:  # a mistake in this program must not hold up the other events
            reason = f"could not be given a person: {type(error).__name__}: {error}"
            end(connection, [row.id], EventState.FAILED, reason, now)
    work.assign()


class _Routing:
    """One transaction's routing: what all its events need is read and written once."""

    def __init__(
        self, connection: Connection, rules: RuleSet, now: Micros, known: Known, answers: Mapping[Key, Account]
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._now = now
        self._known = known
        self._answers = answers
        self._people: dict[str, int] = {}
        self._assigned: dict[str, int] = {}

    def hold_people(self, rows: Sequence[Row[Any]]) -> None:
        """Find or make the rows of `people` for all Velt users that the events are about, and hold them.

        That is before anything else is written, as for whoever works for one of them.
        """
        made = set()
        for row in rows:
            with suppress(Exception):  # told when the row's own turn comes
                made.add(self._velt_user_id_of(row)[0])
        self._people = people_for(self._connection, {name for name in made if name})
        self._known = held_identities(self._connection, rows, self._known, self._people.values())

    def route(self, row: Row[Any]) -> None:
        if row.subject is None:
            spread = nested.spread if nested.is_about_group(row) else fan_out
            spread(self._connection, self._rules, row, self._now)
            return
        before = self._known[row.source, row.subject]
        velt_user_id, reason = self._velt_user_id_of(row)
        answer = self._answers.get((row.source, row.subject))
        if velt_user_id is None and row.source in self._rules.looked_up and self._waits(row, answer, reason):
            return
        if velt_user_id is None:
            _without_person(self._connection, self._rules, row, answer, _unnamed(reason, answer), self._now)
            return
        person_id = self._people.get(velt_user_id) or self._latecomer(velt_user_id)
        if identify(self._connection, Profile.of_event(row, answer), person_id, before):
            self._known |= identities_of(self._connection, [row])
        self._assigned[row.id] = person_id

    def _latecomer(self, velt_user_id: str) -> int:
        """Somebody whom only several of these events together name, so that nobody could hold them before."""
        person_id = person_for(self._connection, velt_user_id)
        lock_people(self._connection, [person_id])
        return person_id

    def _velt_user_id_of(self, row: Row[Any]) -> tuple[str | None, str]:
        key = row.source, row.subject
        return velt_user_id_of(self._rules, row, self._known[key], self._answers.get(key))

    def _waits(self, row: Row[Any], answer: Account | None, reason: str) -> bool:
        """Have an event wait where a look-up that has not been made yet may tell who this is.

        An account that is not there while the news of it is young may be one that no copy of the directory has yet.
        """
        about, asked_at = About.of_account(row), look_ups.counts_from(row)
        if answer is None or answer.fetched_at < asked_at:
            until = max(self._now, asked_at) + PERSON_WAIT
            told = None if row.look_at else f"{look_ups.WAITING}: {reason}"
            due_at = asked_at if row.wait_until is None else max(asked_at, self._now + look_ups.PAUSE)
            look_ups.wait(
                self._connection,
                row,
                about,
                answer_from=asked_at,
                until=until,
                due_at=due_at,
                reason=told,
                looks=row.looks,
            )
            return True
        if answer.status is not Status.GONE or row.kind in ACCOUNT_LOSSES:
            return False
        gone = truth.Finding(None, "there is no such account", denies=row.as_of)
        doubt = verify.Doubt(gone, answer.fetched_at, row.looks)
        return verify.waits_again(self._connection, row, about, doubt, patience=PERSON_WAIT, now=self._now)

    def assign(self) -> None:
        """Write whose the events are, and have their people planned."""
        if not self._assigned:
            return
        due_for_planning(self._connection, set(self._assigned.values()), self._now)
        self._connection.execute(
            update(events)
            # An answer may have told meanwhile that it is about a group, and not about this person.
            .where(events.c.id == bindparam("event"), events.c.subject.is_not(None))
            .values(person_id=bindparam("person"), wait_until=None, reason=None),
            [{"event": event_id, "person": person_id} for event_id, person_id in self._assigned.items()],
        )


def _unnamed(reason: str, answer: Account | None) -> str:
    """Why nobody can be named, and what to do where the directory was asked in vain."""
    if answer is None:
        return reason
    return (
        f"{reason}: its directory does not tell it (the account is {answer.status}); "
        "name them in identity.map, or remove by hand"
    )


def unrouted_people(connection: Connection, rules: RuleSet, now: Micros) -> set[str]:
    """The Velt user ids of events that are recorded but not routed yet: their people are not to be claimed now.

    Both the user that the event names and the one that its subject is: what the subject gains counts for the latter.
    """
    told = (events.c.source, events.c.subject, events.c.login, events.c.email, events.c.external_id)
    rows = connection.execute(select(*told).where(to_route(now))).all()
    known = identities_of(connection, rows)
    answers = answers_for(connection, rules, known)
    found = {i.velt_user_id for before in known.values() for i in before if i.current}
    keys = {(row.source, row.subject): row for row in rows if row.subject is not None}
    named = {velt_user_id_of(rules, row, known[key], answers.get(key))[0] for key, row in keys.items()}
    return found | {velt_user_id for velt_user_id in named if velt_user_id}


def _without_person(
    connection: Connection, rules: RuleSet, row: Row[Any], answer: Account | None, reason: str, now: Micros
) -> None:
    """Keep what the event says; a loss waits as `failed` for somebody to say who this is.

    So does a change of an account that is not there any more; any other change is `ignored`.
    """
    event = learn_from(connection, row)
    lost = event.kind is Kind.ACCOUNT_CHANGED and answer is not None and answer.status is not Status.ACTIVE
    state = EventState.FAILED if event.kind in LOSSES or lost else EventState.IGNORED
    if event.kind in GAINS:
        state, reason = EventState.DONE, "gain"
    end(connection, [row.id], state, reason, now, rules_version=rules.version)

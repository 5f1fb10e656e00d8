"""Claiming: plan what is recorded for some people and take one call for each, in one transaction.

A lease is one call in flight for one person. It is fenced by its token: when it has run out, another worker takes the
person over, and what the first one still says of it changes nothing any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from relay import model
from relay.errors import Unavailable
from relay.model import MAX_RESOURCES, SECOND, Answer, Micros, Outcome, Resource, RevocationState
from relay.rules import RuleSet
from relay.store import attempts, delivery, giving_up, look_ups, plan, routing
from relay.store import people as persons
from relay.store.attempts import Call
from relay.store.database import Database
from relay.store.delivery import Delivery, Gate
from relay.store.revocations import judge_open, reopen, resource_of
from relay.store.sendable import sendable
from relay.store.tables import people, revocations

#: What is due waits for a look-up: when to see again. The answer itself has the person looked at at once.
HELD_UP: Micros = 5 * SECOND
#: Seconds that a claim may route: while events keep coming there is always another one, and calls must go out.
ROUTING = 0.5

_NOW = bindparam("now", type_=BigInteger)
_FREE = people.c.lease_until.is_(None)
#: What waits. Made once: making a statement costs more than asking it.
_LOOK = select(
    *delivery.COLUMNS,
    exists().where(routing.to_route(_NOW)).label("unrouted"),
    look_ups.next_due(_NOW).label("look_up_at"),
    select(func.min(people.c.plan_at)).where(_FREE).scalar_subquery().label("plan_at"),
    select(func.min(people.c.send_at)).where(_FREE).scalar_subquery().label("send_at"),
    select(func.min(people.c.lease_until)).scalar_subquery().label("lease_until"),
)


@dataclass(frozen=True, slots=True)
class Task:
    """One call to make: these resources of this Velt user, under this lease."""

    person_id: int
    velt_user_id: str
    resources: tuple[Resource, ...]
    revocation_ids: tuple[str, ...]
    event_ids: tuple[str, ...]
    token: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim came to: calls to make, whether something is to be looked up, and how long until more is due.

    `due_in` is reckoned by the database's clock; None: until somebody says so.
    """

    tasks: tuple[Task, ...]
    look_up: bool
    due_in: Micros | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker works by: `sends` false in observe mode, `lease` in microseconds, the key by its digest.

    `confirms`: Velt is asked afterwards whether what was removed is gone.
    """

    rules: RuleSet
    worker: str
    key_digest: str
    lease: Micros
    sends: bool = True
    confirms: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What waits, in one statement: it is asked every second, and after every event."""

    now: Micros
    unrouted: bool
    look_up_at: Micros | None
    plan_at: Micros | None
    send_at: Micros | None
    lease_until: Micros | None
    delivery: Delivery

    def due_at(self, terms: Terms) -> Micros | None:
        """When the next person is due, None when nobody waits for anything but an operator."""
        send_at = self.send_at if terms.sends and not self.delivery.paused else None
        if send_at is not None and self.delivery.gate(self.now, terms.key_digest) is Gate.SHUT:
            send_at = max(send_at, self.delivery.probe_at or self.now)
        return min((time for time in (self.plan_at, send_at, self.lease_until) if time is not None), default=None)


def look(database: Database) -> Look:
    """What waits now. Raises Unavailable."""
    with database.read() as connection:
        now = database.now(connection)
        row = connection.execute(_LOOK, {"now": now}).one()
        times = (row.look_up_at, row.plan_at, row.send_at, row.lease_until)
        return Look(now, row.unrouted, *times, delivery.from_row(row))


def route_all(database: Database, rules: RuleSet, seconds: float = math.inf) -> int:
    """Give every recorded event its person, for so many seconds at the most; return how many were dealt with."""
    total = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with database.write() as connection:
            routed = routing.route(connection, rules, database.now(connection))
        total += routed
        if routed < routing.BATCH and not look(database).unrouted:
            break
    return total


def claim(database: Database, terms: Terms, limit: int) -> Claim:
    """Plan for at most `limit` people who are due and take a call for each that has one. Raises Unavailable."""
    seen = look(database)
    if seen.unrouted:
        route_all(database, terms.rules, ROUTING)
    else:
        due_at = seen.due_at(terms)
        if due_at is None or due_at > seen.now:
            return _nothing_now(seen, due_at)
    try:
        return _claim(database, terms, limit, _work_on)
    except Unavailable:
        raise
    except Exception as error:  # once more, so that it stays with whom it is about: that costs two statements a person
        if _is_of_the_database(error):
            raise
        return _claim(database, terms, limit, _work_on_alone)


def _nothing_now(seen: Look, due_at: Micros | None) -> Claim:
    """A claim without calls. What could be looked up now and is not counts no more: it waits for a thread or for its
    provider, and whoever has either wakes us.
    """
    look_up = seen.look_up_at is not None and seen.look_up_at <= seen.now
    times = (due_at, None if look_up else seen.look_up_at)
    return Claim((), look_up, min((time - seen.now for time in times if time is not None), default=None))


def _is_of_the_database(error: Exception) -> bool:
    """Whether the database is in trouble; what it refuses to keep is a mistake about one person."""
    return isinstance(error, DBAPIError) and not isinstance(error, (IntegrityError, DataError))


_Work = Callable[[Connection, Terms, Row[Any], Micros, bool], Task | None]


def _claim(database: Database, terms: Terms, limit: int, work_on: _Work) -> Claim:
    with database.write() as connection:
        now = database.now(connection)
        gate = _gate(connection, terms, now)
        if gate is Gate.PROBE and not delivery.start_probe(connection, now):
            gate = Gate.SHUT
        due = _due(connection, now, gate, limit)
        late = routing.unrouted_people(connection, terms.rules, now) if due else set()
        tasks: list[Task] = []
        for person in due:
            if person.velt_user_id in late:
                continue  # still due, once its newest event is routed
            may_send = gate is Gate.OPEN or (gate is Gate.PROBE and not tasks)
            task = work_on(connection, terms, person, now, may_send)
            if task is not None:
                tasks.append(task)
        if gate is Gate.PROBE and not tasks:
            delivery.give_back_probe(connection, now)
        return Claim(tuple(tasks), True, 0)


def _gate(connection: Connection, terms: Terms, now: Micros) -> Gate:
    return delivery.read(connection).gate(now, terms.key_digest) if terms.sends else Gate.SHUT


def _due(connection: Connection, now: Micros, gate: Gate, limit: int) -> Sequence[Row[Any]]:
    """People with something to plan or, where the gate lets calls out, to send, and no live lease."""
    # Whoever's lease ran out is due whatever the gate: their worker is gone.
    due = or_(people.c.plan_at <= now, people.c.lease_until <= now)
    if gate is not Gate.SHUT:
        due = or_(due, people.c.send_at <= now)
    free = or_(people.c.lease_until.is_(None), people.c.lease_until <= now)
    # A probe goes to anybody, so that one person whose call always fails cannot be every probe.
    order: Any = func.random() if gate is Gate.PROBE else func.coalesce(people.c.plan_at, people.c.send_at)
    statement = select(people).where(and_(due, free)).order_by(order).limit(limit)
    return connection.execute(statement.with_for_update(skip_locked=True)).all()


def _work_on_alone(connection: Connection, terms: Terms, person: Row[Any], now: Micros, may_send: bool) -> Task | None:
    """Work on one person so that whatever goes wrong stays with that person: it ends `failed`, visibly."""
    try:
        with connection.begin_nested():
            return _work_on(connection, terms, person, now, may_send)
    except Exception as error:  # a mistake in a rule or in this program must not hold up anybody else
        if _is_of_the_database(error):
            raise
        giving_up.give_up(connection, terms.rules, person.id, error, now)
        return None


def _work_on(connection: Connection, terms: Terms, person: Row[Any], now: Micros, may_send: bool) -> Task | None:
    if person.lease_token is not None:
        _take_over(connection, terms, person, now)
    rows = plan.unplanned(connection, person.id)
    others = plan.others_concerned(connection, rows, person.id)
    if others and not _lock_too(connection, others):
        return None  # still due: somebody is working for one of the others at this moment
    waiting = [row for row in rows if not plan.plan_event(connection, terms.rules, row, now)]
    staying = judge_open(connection, terms.rules, person.id, now)
    if others and len(waiting) < len(rows):
        persons.due_for_planning(connection, others, now)
    due = [row for row in staying if row.next_at <= now]
    free = sendable(connection, terms.rules, person.id, due, waiting, now)
    task = _take(connection, terms, person, free, now) if free and may_send and len(rows) < plan.BATCH else None
    held_up = {"send_at": now + HELD_UP} if due and not free else {}
    persons.set_due(connection, person.id, **held_up)
    return task


def _lock_too(connection: Connection, others: set[int]) -> bool:
    statement = select(people.c.id).where(people.c.id.in_(others)).with_for_update(skip_locked=True)
    return len(connection.execute(statement).all()) == len(others)


def _take(connection: Connection, terms: Terms, person: Row[Any], due: Sequence[Row[Any]], now: Micros) -> Task:
    together = [row for row in due if not row.solo]
    if together:
        chosen = list(dict.fromkeys(resource_of(row) for row in together))[:MAX_RESOURCES]
        rows = [row for row in together if resource_of(row) in set(chosen)]
    else:
        chosen = [resource_of(due[0])]
        rows = [row for row in due if resource_of(row) == chosen[0]]
    token = model.new_id("lease")
    ids = tuple(row.id for row in rows)
    connection.execute(
        update(revocations)
        .where(revocations.c.id.in_(ids))
        .values(state=RevocationState.SENDING.value, sent_at=now, next_at=None, needs_regrant=False)
    )
    connection.execute(
        update(people)
        .where(people.c.id == person.id)
        .values(lease_token=token, lease_from=now, lease_until=now + terms.lease)
    )
    event_ids = tuple(dict.fromkeys(row.event_id for row in rows))
    return Task(person.id, person.velt_user_id, tuple(chosen), ids, event_ids, token)


def _take_over(connection: Connection, terms: Terms, person: Row[Any], now: Micros) -> None:
    """End a lease that ran out: its worker died or was too slow, and its call may have reached Velt."""
    # By the time of sending, not by the state: what was cancelled meanwhile went out all the same.
    rows = connection.execute(
        select(revocations).where(revocations.c.person_id == person.id, revocations.c.sent_at == person.lease_from)
    ).all()
    lost = Outcome(
        Answer.RETRY, "the worker that held this call did not come back; it may have reached Velt", unsure=True
    )
    resources = tuple(dict.fromkeys(resource_of(row) for row in rows))
    ids = tuple(row.id for row in rows)
    call = Call(terms.worker, person.id, person.velt_user_id, resources, ids, person.lease_from, now)
    attempts.add(connection, call, lost, name="lost")
    reopen(connection, person.id, now, unsure=True)
    persons.end_lease(connection, person.id)

"""People: who an event is about, and what is known about them.

Routing gives each recorded event its person: the row of `people` that planning and claiming lock. It holds one lock
of its own and is short; what it cannot give a person (no Velt user id can be made) ends `failed` with the reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from relay import entitlement
from relay.entitlement import Knowledge
from relay.model import GAINS, LOSSES, AccessEvent, Basis, EventState, Fact, Micros, ObjectType, Subject
from relay.rules import Fields, RuleSet
from relay.store.database import lock_routing
from relay.store.fan_out import fan_out
from relay.store.record import KEY_ONCE_PLANNED, event_of
from relay.store.tables import events, facts, identities, people

#: Events introduced in one transaction.
BATCH = 500

#: Recorded events that have no person yet.
UNROUTED = and_(events.c.state == EventState.RECEIVED.value, events.c.person_id.is_(None))


def route(connection: Connection, rules: RuleSet, now: Micros) -> int:
    """Give the oldest unrouted events their person; return how many events were dealt with."""
    lock_routing(connection)
    rows = connection.execute(select(events).where(UNROUTED).order_by(events.c.as_of, events.c.id).limit(BATCH)).all()
    work = _Routing(connection, rules, now, identities_of(connection, rows))
    work.make_people(row for row in rows if row.subject is not None)
    for row in rows:
        try:
            work.route(row)
        except DBAPIError:
            raise
        except Exception as error:  # a mistake in this program must not hold up the other events
            _fail(connection, row, f"could not be given a person: {type(error).__name__}: {error}", now)
    work.assign()
    return len(rows)


class _Routing:
    """One transaction's routing: what all its events need is read and written once."""

    def __init__(self, connection: Connection, rules: RuleSet, now: Micros, known: _Known) -> None:
        self._connection = connection
        self._rules = rules
        self._now = now
        self._known = known
        self._people: dict[str, int] = {}
        self._assigned: dict[str, int] = {}

    def make_people(self, rows: Iterable[Row[Any]]) -> None:
        """Find or make the rows of `people` for all Velt users that the events are about."""
        made = set()
        for row in rows:
            with suppress(Exception):  # told when the row's own turn comes
                made.add(velt_user_id_of(self._rules, row, self._known[row.source, row.subject])[0])
        names = sorted(name for name in made if name)
        if names:
            dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
            new = dialect.insert(people).on_conflict_do_nothing()
            self._connection.execute(new, [{"velt_user_id": name} for name in names])
            found = select(people.c.velt_user_id, people.c.id).where(people.c.velt_user_id.in_(names))
            self._people = {row.velt_user_id: row.id for row in self._connection.execute(found)}

    def route(self, row: Row[Any]) -> None:
        if row.subject is None:
            fan_out(self._connection, self._rules, row, self._now)
            return
        before = self._known[row.source, row.subject]
        velt_user_id, reason = velt_user_id_of(self._rules, row, before)
        if velt_user_id is None:
            _without_person(self._connection, self._rules, row, reason, self._now)
            return
        person_id = self._people.get(velt_user_id) or person_for(self._connection, velt_user_id)
        if _identify(self._connection, row, person_id, before):
            self._known |= identities_of(self._connection, [row])
        self._assigned[row.id] = person_id

    def assign(self) -> None:
        """Write whose the events are, and have their people planned."""
        if not self._assigned:
            return
        self._connection.execute(
            update(events).where(events.c.id == bindparam("event")).values(person_id=bindparam("person")),
            [{"event": event_id, "person": person_id} for event_id, person_id in self._assigned.items()],
        )
        due_for_planning(self._connection, set(self._assigned.values()), self._now)


def _fail(connection: Connection, row: Row[Any], reason: str, now: Micros) -> None:
    values = {
        "state": EventState.FAILED.value,
        "reason": reason,
        "planned_at": now,
        "dedup_key": KEY_ONCE_PLANNED,
    }
    connection.execute(update(events).where(events.c.id == row.id).values(**values))


def unrouted_people(connection: Connection, rules: RuleSet) -> set[str]:
    """The Velt user ids of events that are recorded but not routed yet: their people are not to be claimed now.

    Both the user that the event names and the one that its subject is: what the subject gains counts for the latter.
    """
    told = (events.c.source, events.c.subject, events.c.login, events.c.email, events.c.external_id)
    rows = connection.execute(select(*told).where(UNROUTED)).all()
    known = identities_of(connection, rows)
    found = {i.velt_user_id for before in known.values() for i in before if i.current}
    named = {velt_user_id_of(rules, row, known[row.source, row.subject])[0] for row in rows if row.subject is not None}
    return found | {velt_user_id for velt_user_id in named if velt_user_id}


def knowledge_of(connection: Connection, person_id: int) -> Knowledge:
    """The subjects that are this person now, and all their facts."""
    rows = connection.execute(select(identities).where(identities.c.person_id == person_id, identities.c.current)).all()
    subjects = tuple(Subject(row.source, row.subject, row.login, row.email, row.external_id) for row in rows)
    return Knowledge(subjects, facts_of(connection, [(subject.source, subject.id) for subject in subjects]))


def facts_of(connection: Connection, subjects: Iterable[tuple[str, str]]) -> tuple[Fact, ...]:
    """All facts of these (source, subject)s."""
    keys = list(subjects)
    if not keys:
        return ()
    wanted = or_(*(and_(facts.c.source == source, facts.c.subject == subject) for source, subject in keys))
    return tuple(_fact(row) for row in connection.execute(select(facts).where(wanted)))


def learn(connection: Connection, fact: Fact) -> tuple[Fact | None, bool]:
    """Keep a fact if it is newer than what is known; return the old one and whether the new one was kept."""
    key = and_(
        facts.c.source == fact.source,
        facts.c.subject == fact.subject,
        facts.c.object_type == fact.object_type.value,
        facts.c.object_id == fact.object_id,
    )
    found = connection.execute(select(facts).where(key)).one_or_none()
    old = _fact(found) if found is not None else None
    if not entitlement.newer(old, fact):
        return old, False
    told = {
        "present": fact.present,
        "as_of": fact.as_of,
        "basis": fact.basis.value,
        "name": fact.name or (old.name if old else None),
        "event_id": fact.event_id,
    }
    if old is not None:
        connection.execute(update(facts).where(key).values(**told))
    else:
        named = {"source": fact.source, "subject": fact.subject, "object_id": fact.object_id}
        connection.execute(facts.insert().values(object_type=fact.object_type.value, **named, **told))
    return old, True


def people_of(connection: Connection, source: str, subject: str) -> list[int]:
    """Every person (Velt user) that this subject is or has been, the present one first."""
    return list(
        connection.execute(
            select(identities.c.person_id)
            .where(identities.c.source == source, identities.c.subject == subject)
            .order_by(identities.c.current.desc(), identities.c.person_id)
        ).scalars()
    )


def person_for(connection: Connection, velt_user_id: str) -> int:
    """The id of the row of `people` for this Velt user, made where there is none."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(people).values(velt_user_id=velt_user_id).on_conflict_do_nothing())
    return int(connection.execute(select(people.c.id).where(people.c.velt_user_id == velt_user_id)).scalar_one())


def due_for_planning(connection: Connection, person_ids: Collection[int], now: Micros) -> None:
    """Have these people's events planned, as soon as somebody can."""
    connection.execute(
        update(people)
        .where(people.c.id.in_(sorted(person_ids)), or_(people.c.plan_at.is_(None), people.c.plan_at > now))
        .values(plan_at=now)
    )


def with_known_names(event: AccessEvent, knowledge: Iterable[Subject], known: Iterable[Fact]) -> AccessEvent:
    """The event with what the source told about the same person and group before, where it does not say itself."""
    subject = next((s for s in knowledge if (s.source, s.id) == (event.source, event.subject)), None)
    group = _name(known, event.source, ObjectType.GROUP, event.group_id)
    app = _name(known, event.source, ObjectType.APP, event.app_id)
    return replace(
        event,
        login=event.login or (subject.login if subject else None),
        email=event.email or (subject.email if subject else None),
        external_id=event.external_id or (subject.external_id if subject else None),
        group_name=event.group_name or group,
        app_name=event.app_name or app,
    )


def _name(known: Iterable[Fact], source: str, object_type: ObjectType, object_id: str | None) -> str | None:
    return next(
        (
            f.name
            for f in known
            if (f.source, f.object_type, f.object_id) == (source, object_type, object_id) and f.name
        ),
        None,
    )


_Known = dict[tuple[str, str], list[Row[Any]]]


def identities_of(connection: Connection, rows: Iterable[Any]) -> _Known:
    """The identities of the rows' subjects, by (source, subject)."""
    keys = {(row.source, row.subject) for row in rows if row.subject is not None}
    known: _Known = {key: [] for key in keys}
    if keys:
        statement = (
            select(identities, people.c.velt_user_id)
            .join(people, people.c.id == identities.c.person_id)
            # Two lists rather than pairs: SQLite finds pairs only by reading the whole table.
            .where(
                identities.c.source.in_({source for source, _ in keys}),
                identities.c.subject.in_({subject for _, subject in keys}),
            )
        )
        for row in connection.execute(statement):
            if (row.source, row.subject) in known:
                known[row.source, row.subject].append(row)
    return known


def velt_user_id_of(rules: RuleSet, row: Any, known: list[Row[Any]]) -> tuple[str | None, str]:
    """The Velt user id for an event; what the event does not tell is taken from what the source told before."""
    now = next((identity for identity in known if identity.current), None)
    fields: Fields = {
        "source": row.source,
        "user.id": row.subject,
        "user.login": row.login or (now.login if now else None),
        "user.email": row.email or (now.email if now else None),
        "user.external_id": row.external_id or (now.external_id if now else None),
    }
    made, reason = rules.identity.velt_user_id(fields)
    if made is None and now is not None:
        return now.velt_user_id, ""
    return made, reason


def _identify(connection: Connection, row: Row[Any], person_id: int, before: list[Row[Any]]) -> bool:
    """Note that the subject is this person; whether anything changed. An older event never takes the present away."""
    current = next((identity for identity in before if identity.current), None)
    newest = current is None or row.as_of >= current.since
    told = {name: value for name in ("login", "email", "external_id") if (value := getattr(row, name)) is not None}
    mine = next((identity for identity in before if identity.person_id == person_id), None)
    same = mine is not None and mine.current and all(getattr(mine, name) == value for name, value in told.items())
    if same and (len(before) == 1 or not newest):
        return False
    if mine is not None and not newest:
        return False
    subject = and_(identities.c.source == row.source, identities.c.subject == row.subject)
    if newest:
        connection.execute(update(identities).where(subject).values(current=False))
    if mine is not None:
        connection.execute(
            update(identities)
            .where(subject, identities.c.person_id == person_id)
            .values(current=True, since=row.as_of, **told)
        )
    else:
        inherited = {name: getattr(current, name) for name in ("login", "email", "external_id")} if current else {}
        connection.execute(
            identities.insert().values(
                source=row.source,
                subject=row.subject,
                person_id=person_id,
                current=newest,
                since=row.as_of,
                **(inherited | told),
            )
        )
    return True


def _without_person(connection: Connection, rules: RuleSet, row: Row[Any], reason: str, now: Micros) -> None:
    """Keep what the event says; a loss waits as `failed` for somebody to say who this is, a change is `ignored`."""
    event = event_of(row._asdict())
    fact = entitlement.fact_of(event, row.id, row.received_at)
    if fact is not None:
        learn(connection, fact)
    state = EventState.FAILED if event.kind in LOSSES else EventState.IGNORED
    if event.kind in GAINS:
        state, reason = EventState.DONE, "gain"
    connection.execute(
        update(events)
        .where(events.c.id == row.id)
        .values(
            state=state.value,
            reason=reason,
            planned_at=now,
            rules_version=rules.version,
            dedup_key=KEY_ONCE_PLANNED,
        )
    )


def _fact(row: Row[Any]) -> Fact:
    return Fact(
        source=row.source,
        subject=row.subject,
        object_type=ObjectType(row.object_type),
        object_id=row.object_id,
        present=row.present,
        as_of=row.as_of,
        basis=Basis(row.basis),
        name=row.name,
        event_id=row.event_id,
    )


def count_known(connection: Connection) -> Mapping[str, int]:
    """How many people and facts are known, for the statistics."""
    return {
        "people": connection.execute(select(func.count()).select_from(people)).scalar_one(),
        "facts": connection.execute(select(func.count()).select_from(facts)).scalar_one(),
    }

"""People: the rows of Velt users, which are locked and fall due, and what is known of somebody's access."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import BigInteger, Connection, Select, and_, bindparam, func, or_, select, update

from relay.entitlement import Knowledge
from relay.model import (
    TOLD,
    AccessEvent,
    EventState,
    Fact,
    Micros,
    ObjectType,
    RevocationState,
    Subject,
)
from relay.store import look_ups
from relay.store.database import insert_into
from relay.store.facts import facts_of
from relay.store.tables import events, facts, identities, people, revocations
from relay.store.tables import look_ups as look_ups_table

#: What is asked of each person again and again. Made once: making a statement costs more than asking it.
_WHOSE = bindparam("whose", type_=BigInteger)
_SUBJECTS = (
    select(identities, look_ups_table.c.status)
    .outerjoin(
        look_ups_table,
        and_(
            look_ups_table.c.source == identities.c.source,
            look_ups_table.c.object_type == look_ups.ACCOUNT,
            look_ups_table.c.object_id == identities.c.subject,
        ),
    )
    .where(identities.c.person_id == _WHOSE, identities.c.current)
)
_PLAN_AT = select(func.min(func.coalesce(events.c.wait_until, events.c.received_at))).where(
    events.c.state == EventState.RECEIVED.value, events.c.person_id == _WHOSE
)
_SEND_AT = select(func.min(revocations.c.next_at)).where(
    revocations.c.person_id == _WHOSE, revocations.c.state == RevocationState.PENDING.value
)
_SET_DUE = (
    update(people)
    .where(people.c.id == _WHOSE)
    .values(plan_at=_PLAN_AT.scalar_subquery(), send_at=_SEND_AT.scalar_subquery())
)
_END_LEASE = _SET_DUE.values(lease_token=None, lease_from=None, lease_until=None)


def knowledge_of(connection: Connection, person_id: int) -> Knowledge:
    """The subjects that are this person now, and all their facts."""
    rows = connection.execute(_SUBJECTS, {"whose": person_id}).all()
    subjects = tuple(
        Subject(row.source, row.subject, row.login, row.email, row.external_id, looked_up=row.status in TOLD)
        for row in rows
    )
    return Knowledge(subjects, facts_of(connection, [(subject.source, subject.id) for subject in subjects]))


def person_for(connection: Connection, velt_user_id: str) -> int:
    """The id of the row of `people` for this Velt user, made where there is none."""
    connection.execute(insert_into(connection, people).values(velt_user_id=velt_user_id).on_conflict_do_nothing())
    return int(connection.execute(select(people.c.id).where(people.c.velt_user_id == velt_user_id)).scalar_one())


def people_for(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """The ids of the rows of `people` for these Velt users, made where there are none."""
    if not names:
        return {}
    ordered = sorted(names)
    new = insert_into(connection, people).on_conflict_do_nothing()
    connection.execute(new, [{"velt_user_id": name} for name in ordered])
    found = select(people.c.velt_user_id, people.c.id).where(people.c.velt_user_id.in_(ordered))
    return {row.velt_user_id: row.id for row in connection.execute(found)}


def lock_people(connection: Connection, person_ids: Iterable[int] | Select[Any]) -> None:
    """Hold the rows of these people until the transaction ends (on SQLite every write is alone anyway).

    That is before anything is written that others write for them, all at once and in ascending order: so two who do so
    never wait for each other in a ring.
    """
    if connection.dialect.name == "postgresql":
        theirs = people.c.id.in_(person_ids if isinstance(person_ids, Select) else list(person_ids))
        connection.execute(select(people.c.id).where(theirs).order_by(people.c.id).with_for_update()).all()


def due_for_planning(connection: Connection, person_ids: Collection[int], now: Micros) -> None:
    """Have these people's events planned, as soon as somebody can.

    The caller holds them: who works on one of them at this moment ends with a time of their own, and must have ended.
    """
    connection.execute(
        update(people)
        .where(people.c.id.in_(sorted(person_ids)), or_(people.c.plan_at.is_(None), people.c.plan_at > now))
        .values(plan_at=now)
    )


def set_due(connection: Connection, person_id: int, **more: Any) -> None:
    """Note when the person's next event or revocation is to be looked at, and `more` columns of `people`."""
    connection.execute(_SET_DUE.values(**more) if more else _SET_DUE, {"whose": person_id})


def end_lease(connection: Connection, person_id: int) -> None:
    """Note that the person's call has ended, and when the next is due."""
    connection.execute(_END_LEASE, {"whose": person_id})


def with_known_names(event: AccessEvent, knowledge: Iterable[Subject], known: Iterable[Fact]) -> AccessEvent:
    """The event with what was told about the same person and group before, where it does not say itself."""
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


def count_known(connection: Connection) -> Mapping[str, int]:
    """How many people and facts are known, for the statistics."""
    return {
        "people": connection.execute(select(func.count()).select_from(people)).scalar_one(),
        "facts": connection.execute(select(func.count()).select_from(facts)).scalar_one(),
    }

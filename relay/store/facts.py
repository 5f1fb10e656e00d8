"""Facts: what the sources and their directories last said of each access, and how a new word meets an old one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    literal,
    or_,
    select,
    true,
    update,
)

from relay import entitlement
from relay.model import Basis, Fact, ObjectType, from_iso
from relay.store.database import insert_into
from relay.store.tables import events, facts

#: Made once: making a statement costs more than asking it.
_OF_ACCOUNT = select(facts).where(facts.c.source == bindparam("source"), facts.c.subject == bindparam("subject"))


def facts_of(connection: Connection, subjects: Iterable[tuple[str, str]]) -> tuple[Fact, ...]:
    """All facts of these (source, subject)s, which are few."""
    asked = (connection.execute(_OF_ACCOUNT, {"source": source, "subject": subject}) for source, subject in subjects)
    return tuple(_fact(row) for rows in asked for row in rows)


def all_facts(connection: Connection) -> dict[tuple[str, str], list[Fact]]:
    """Every fact there is, by (source, subject)."""
    found: dict[tuple[str, str], list[Fact]] = {}
    for row in connection.execute(select(facts)):
        found.setdefault((row.source, row.subject), []).append(_fact(row))
    return found


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
        if old is not None and old.event_id is None and old.present == fact.present:
            # A look-up knew it first: from now on this event stands for it.
            connection.execute(update(facts).where(key).values(event_id=fact.event_id))
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


def learn_lost(connection: Connection, lost: Fact, subjects: Select[Any] | CompoundSelect[Any]) -> None:
    """Keep a loss for each of these subjects (a column `subject`) as `learn` keeps it for one; whose `lost` is does not
    matter. It is one statement, as there may be 100,000.
    """
    theirs = subjects.subquery()
    told = {
        "source": lost.source,
        "object_type": lost.object_type.value,
        "object_id": lost.object_id,
        "present": False,
        "as_of": lost.as_of,
        "basis": lost.basis.value,
        "name": lost.name,
        "event_id": lost.event_id,
    }
    dated = facts.c.basis == Basis.ARRIVAL.value if lost.basis is Basis.SOURCE else false()
    is_newer = or_(facts.c.as_of < lost.as_of, and_(facts.c.present, or_(facts.c.as_of == lost.as_of, dated)))
    looked_up_first = and_(~facts.c.present, facts.c.event_id.is_(None))
    rest = (literal(value, facts.c[name].type) for name, value in told.items())
    rows = select(theirs.c.subject, *rest).where(true())  # without a WHERE, SQLite takes ON CONFLICT for a join's ON
    added = insert_into(connection, facts).from_select(["subject", *told], rows)
    connection.execute(
        added.on_conflict_do_update(
            index_elements=["source", "subject", "object_type", "object_id"],
            set_={
                "present": False,
                "as_of": case((is_newer, lost.as_of), else_=facts.c.as_of),
                "basis": case((is_newer, lost.basis.value), else_=facts.c.basis),
                "name": case((is_newer, func.coalesce(added.excluded.name, facts.c.name)), else_=facts.c.name),
                "event_id": lost.event_id,
            },
            where=or_(is_newer, looked_up_first),
        )
    )


def dated_by_gain(connection: Connection, known: Iterable[Fact]) -> tuple[Fact, ...]:
    """The same facts, those that were only told again (a group was renamed, a directory confirmed it) with the time
    from which on they were so: events that tell again keep it as `held_since` of their plan."""
    found = tuple(known)
    told = select(events.c.id, events.c.plan).where(
        events.c.id.in_({fact.event_id for fact in found if fact.present}), events.c.plan.is_not(None)
    )
    plans = {event_id: json.loads(plan) for event_id, plan in connection.execute(told)}
    since = {event_id: plan["held_since"] for event_id, plan in plans.items() if "held_since" in plan}
    return tuple(
        replace(fact, as_of=from_iso(since[fact.event_id])) if fact.event_id in since else fact for fact in found
    )


def add_unknown(connection: Connection, added: Iterable[Fact]) -> None:
    """Keep facts of which nothing is known; one that is there already stays as it is.

    They are written in order, as somebody else may be writing the same ones of people whom nobody could hold before.
    """
    rows = [
        {
            "source": fact.source,
            "subject": fact.subject,
            "object_type": fact.object_type.value,
            "object_id": fact.object_id,
            "present": fact.present,
            "as_of": fact.as_of,
            "basis": fact.basis.value,
            "name": fact.name,
        }
        for fact in sorted(added, key=lambda fact: (fact.source, fact.subject, fact.object_type, fact.object_id))
    ]
    if rows:
        connection.execute(insert_into(connection, facts).on_conflict_do_nothing(), rows)


def rename_group(connection: Connection, source: str, group_id: str, name: str, subject: str | None = None) -> None:
    """Note a group's name, for everybody in it or for one person."""
    theirs = facts.c.subject == subject if subject is not None else true()
    connection.execute(update(facts).where(is_of_group(source, group_id), theirs).values(name=name))


def is_of_group(source: str, group_id: str | None) -> ColumnElement[bool]:
    """The condition on `facts` that they are about this group."""
    return and_(
        facts.c.source == source,
        facts.c.object_type == ObjectType.GROUP.value,
        facts.c.object_id == group_id,
    )


_NAME = (
    select(facts.c.name)
    .where(
        facts.c.source == bindparam("source"),
        facts.c.object_type == ObjectType.GROUP.value,
        facts.c.object_id == bindparam("group_id"),
        facts.c.name.is_not(None),
    )
    .order_by(facts.c.as_of.desc())
    .limit(1)
)


def group_name(connection: Connection, source: str, group_id: str | None) -> str | None:
    """The name that was told last of a group, of whichever of its people."""
    if group_id is None:
        return None
    return connection.execute(_NAME, {"source": source, "group_id": group_id}).scalar()


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

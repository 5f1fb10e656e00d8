"""Revocations: one row for each resource that an event takes from a person, and what they make of the event."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Update,
    and_,
    bindparam,
    exists,
    func,
    select,
    update,
)

from relay import entitlement, model
from relay.entitlement import Cause
from relay.model import OPEN, Confirmation, EventState, Kind, Micros, Resource, RevocationState
from relay.rules import RuleSet
from relay.store.facts import dated_by_gain
from relay.store.people import knowledge_of
from relay.store.tables import events, revocations


def _is_same_resource(other: FromClause) -> ColumnElement[bool]:
    mine = revocations.c
    return and_(
        other.c.resource_type == mine.resource_type,
        other.c.resource_id == mine.resource_id,
        other.c.organization_id.is_not_distinct_from(mine.organization_id),
    )


def _lost_again() -> Update:
    now_gone, before = revocations.alias("now_gone"), revocations.c
    ids: BindParameter[str] = bindparam("ids", expanding=True)
    same = exists().where(now_gone.c.id.in_(ids), _is_same_resource(now_gone))
    marked = and_(before.person_id == _WHOSE, before.needs_regrant, before.id.not_in(ids), same)
    return update(revocations).where(marked).values(needs_regrant=False)


#: What is asked of each removal. Made once: making a statement costs more than asking it.
_WHOSE = bindparam("whose", type_=BigInteger)
_LOST_AGAIN = _lost_again()
_OPEN = (
    select(
        revocations,
        events.c.kind,
        events.c.source,
        events.c.subject,
        events.c.group_id,
        events.c.app_id,
        events.c.as_of,
        events.c.received_at,
        events.c.look_at,
    )
    .join(events, events.c.id == revocations.c.event_id)
    .where(revocations.c.person_id == _WHOSE, revocations.c.state == RevocationState.PENDING.value)
    .order_by(revocations.c.id)
)
_EVENT = (
    select(events.c.state, events.c.reason, events.c.unresolved)
    .where(events.c.id == bindparam("event_id"))
    .with_for_update()
)
_COUNTS = (
    select(revocations.c.state, func.count())
    .where(revocations.c.event_id == bindparam("of_event"))
    .group_by(revocations.c.state)
)


def add_revocations(
    connection: Connection,
    event_id: str,
    person_id: int,
    resources: Mapping[Resource, Iterable[str]],
    now: Micros,
    before: Collection[Resource] = (),
) -> None:
    """Write the revocations of an event; the caller has the person looked at (`set_due` or `due_for_planning`).

    `before`: what was removed before and not gained since.
    """
    rows = [
        {
            "id": model.new_id("rev"),
            "event_id": event_id,
            "person_id": person_id,
            "resource_type": resource.type,
            "resource_id": resource.id,
            "organization_id": resource.organization_id,
            "rules": ", ".join(rules),
            "state": RevocationState.PENDING.value,
            "again": resource in before,
            "next_at": now,
            "created_at": now,
        }
        for resource, rules in resources.items()
    ]
    if rows:
        connection.execute(revocations.insert(), rows)


def taken_at(connection: Connection, person_id: int) -> dict[Resource, Micros]:
    """What was removed from a person and stays removed as far as is known, and when that was planned last."""
    named = (revocations.c.resource_type, revocations.c.resource_id, revocations.c.organization_id)
    gone = and_(
        revocations.c.person_id == person_id,
        revocations.c.state.in_([RevocationState.REMOVED.value, RevocationState.ABSENT.value]),
        revocations.c.needs_regrant.is_(False),
        revocations.c.confirmation.is_distinct_from(Confirmation.STILL.value),
        ~was_regranted(),
    )
    latest = select(*named, func.max(revocations.c.created_at)).where(gone).group_by(*named)
    return {Resource(*resource): at for *resource, at in connection.execute(latest)}


def judge_open(connection: Connection, rules: RuleSet, person_id: int, now: Micros) -> Sequence[Row[Any]]:
    """Check every pending revocation against what the person has today; return those that may still go."""
    rows = connection.execute(_OPEN, {"whose": person_id}).all()
    if not rows:
        return rows
    knowledge = knowledge_of(connection, person_id).of(rules.fills)
    entitled = entitlement.grants(rules, knowledge)
    gained = entitled
    if any(row.kind == Kind.OPERATOR_REMOVE.value for row in rows):
        gained = entitlement.grants(rules, replace(knowledge, facts=dated_by_gain(connection, knowledge.facts)))
    staying, touched = [], set()
    for row in rows:
        has = gained if row.kind == Kind.OPERATOR_REMOVE.value else entitled
        verdict = entitlement.judge(resource_of(row), cause_of(row), knowledge, has)
        if verdict.state is RevocationState.PENDING:
            staying.append(row)
            continue
        touched.add(row.event_id)
        connection.execute(
            update(revocations)
            .where(revocations.c.id == row.id)
            .values(
                state=verdict.state.value,
                reason=verdict.reason,
                superseded_by=verdict.superseded_by,
                next_at=None,
                settled_at=now,
                needs_regrant=row.unsure,  # an earlier call may have taken effect unseen
            )
        )
    refresh_events(connection, touched)
    return staying


def reopen(connection: Connection, person_id: int, now: Micros, *, unsure: bool) -> None:
    """Have what is being sent for a person open again, to be judged anew; `unsure`: it may have reached Velt."""
    values: dict[str, Any] = {"state": RevocationState.PENDING.value, "next_at": now, "needs_regrant": False}
    if unsure:
        values["unsure"] = True
    connection.execute(
        update(revocations)
        .where(revocations.c.person_id == person_id, revocations.c.state == RevocationState.SENDING.value)
        .values(**values)
    )


def lost_again(connection: Connection, person_id: int, ids: Sequence[str]) -> None:
    """Of what these have taken nothing earlier needs to be granted again any more: the person has lost it since."""
    connection.execute(_LOST_AGAIN, {"whose": person_id, "ids": ids})


def was_regranted() -> ColumnElement[bool]:
    """The condition on `revocations` that somebody has said, since they were settled, that what they took was granted
    to the person again: whichever removal of it that was said of.
    """
    said = revocations.alias("said")
    since = said.c.regranted_at >= revocations.c.settled_at
    return exists().where(said.c.person_id == revocations.c.person_id, since, _is_same_resource(said))


def cause_of(row: Row[Any]) -> Cause:
    """The loss that an event tells of; the row has the event's columns."""
    kind = Kind(row.kind)
    return Cause(kind, row.source, row.subject or "", model.thing_of(kind, row.group_id, row.app_id), row.as_of)


def refresh_events(connection: Connection, event_ids: Iterable[str]) -> None:
    """Bring events to the state that their revocations make: planned, failed or done."""
    for event_id in sorted(event_ids):
        event = connection.execute(_EVENT, {"event_id": event_id}).one()
        counted = connection.execute(_COUNTS, {"of_event": event_id})
        counts: dict[str, int] = {name: count for name, count in counted}  # noqa: C416 - typed rows, no plain tuples
        values = _state_from(counts, event.unresolved)
        if event.state == values["state"] == EventState.IGNORED.value:
            continue  # cancelled while a call was under way: the reason says by whom
        if (event.state, event.reason) != (values["state"], values["reason"]):
            connection.execute(update(events).where(events.c.id == event_id).values(**values))


def _state_from(counts: Mapping[str, int], unresolved: str | None) -> dict[str, Any]:
    if any(counts.get(state.value) for state in OPEN):
        return {"state": EventState.PLANNED.value, "reason": unresolved}
    dead = counts.get(RevocationState.DEAD.value, 0)
    if dead:
        return {"state": EventState.FAILED.value, "reason": f"{dead} of {sum(counts.values())} revocations are dead"}
    if unresolved:
        return {"state": EventState.FAILED.value, "reason": unresolved}
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    if counts.keys() == {RevocationState.CANCELLED.value}:
        return {"state": EventState.IGNORED.value, "reason": told}
    return {"state": EventState.DONE.value, "reason": told or None}


def resource_of(row: Row[Any]) -> Resource:
    """The resource of a row of `revocations`."""
    return Resource(row.resource_type, row.resource_id, row.organization_id)

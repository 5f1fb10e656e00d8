"""Parts of a leaving: what the guard holds of the loss of an account waits as an event of its own.

The plan of a part names what waits in it and nothing else. What somebody decided of it holds for the whole leaving.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update

from relay.losses import Plan
from relay.model import ACCOUNT_LOSSES, EventState, Micros, Resource, RevocationState
from relay.store.decisions import is_decided_against, was_decided_against
from relay.store.plan_json import plan_as_json, resources_in
from relay.store.record import event_of, insert_events, row_of
from relay.store.revocations import resource_of
from relay.store.tables import events, revocations

#: Parts that wait for somebody to approve or reject them.
HELD = events.c.state == EventState.HELD.value
#: Parts that are to be planned, as somebody has decided.
APPROVED = events.c.state == EventState.RECEIVED.value


def begun(connection: Connection, row: Row[Any], person_id: int) -> set[Resource]:
    """What an event, or a part of it that was approved, takes from a person already."""
    parts = select(events.c.id).where(events.c.parent_id == row.id)
    mine = or_(revocations.c.event_id == row.id, revocations.c.event_id.in_(parts))
    has = select(revocations).where(mine, revocations.c.person_id == person_id)
    return {resource_of(one) for one in connection.execute(has)}


def refused(connection: Connection, row: Row[Any]) -> set[Resource]:
    """What somebody decided that the loss of an account is not to take: that is not asked about anew.

    That is what its rejected parts were about and what was cancelled of it. `row`: the loss, or a part of it.
    """
    row = whole_of(connection, row)
    found = about(connection, row, was_decided_against())
    cancelled = (
        select(revocations)
        .join(events, events.c.id == revocations.c.event_id)
        .where(events.c.id == row.id, revocations.c.state == RevocationState.CANCELLED.value, was_decided_against())
    )
    return found.union(resource_of(one) for one in connection.execute(cancelled))


def may_take(connection: Connection, row: Row[Any], plan: Plan) -> Plan:
    """The plan of a loss without what was refused of it; of one that was decided against, what it has taken already."""
    out = refused(connection, row)
    if is_decided_against(connection, row):
        out |= plan.resources.keys() - _taken(connection, row)
    return plan.only(plan.resources.keys() - out)


def _taken(connection: Connection, row: Row[Any]) -> set[Resource]:
    """What an event takes, or has taken, of whomever."""
    kept = (RevocationState.CANCELLED.value, RevocationState.RETAINED.value, RevocationState.SUPERSEDED.value)
    mine = select(revocations).where(revocations.c.event_id == row.id, revocations.c.state.not_in(kept))
    return {resource_of(one) for one in connection.execute(mine)}


def left_of(connection: Connection, row: Row[Any], plan: Plan) -> Plan:
    """The plan of a leaving without what was refused of it and what waits in a part; of a part, what it is about."""
    if row.kind not in ACCOUNT_LOSSES:
        return plan
    whole = whole_of(connection, row)
    out = refused(connection, row) | about(connection, whole, HELD)
    if whole is row:
        out |= about(connection, row, APPROVED)
    elif row.plan is not None:
        out |= plan.resources.keys() - resources_in(row.plan)
    return plan.only(plan.resources.keys() - out) if out else plan


def kept_of(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """The plan of a part, which tells what it is about; of any other event nothing."""
    plan: dict[str, Any] = json.loads(row.plan or "{}")
    return plan if is_part(connection, row) else {}


def is_part(connection: Connection, row: Row[Any]) -> bool:
    """Whether an event is a part of a leaving."""
    return whole_of(connection, row) is not row


def whole_of(connection: Connection, row: Row[Any]) -> Row[Any]:
    """The leaving that an event is a part of, or the event itself."""
    if row.parent_id is None or row.kind not in ACCOUNT_LOSSES:
        return row
    whole = connection.execute(select(events).where(events.c.id == row.parent_id)).one()
    return whole if whole.subject == row.subject and whole.kind in ACCOUNT_LOSSES else row


def about(connection: Connection, row: Row[Any], which: ColumnElement[bool]) -> set[Resource]:
    """What parts of a leaving are about, by their plans."""
    mine = and_(events.c.parent_id == row.id, events.c.subject == row.subject, events.c.plan.is_not(None))
    plans = connection.execute(select(events.c.plan).where(mine, which)).scalars()
    return {resource for plan in plans for resource in resources_in(plan)}


def hold(
    connection: Connection, row: Row[Any], reason: str, part: Plan, said: Mapping[str, Any] | None, now: Micros
) -> None:
    """Have what is more than a person may lose unasked wait as an event of its own: the rest is planned already.

    There is one that waits: what is found besides is added to it.
    """
    kept = json.dumps(plan_as_json(part, said))
    mine = and_(events.c.parent_id == row.id, events.c.subject == row.subject, HELD)
    if connection.execute(update(events).where(mine).values(reason=reason, plan=kept)).rowcount:
        return
    event = replace(event_of(row._asdict()), key=None, payload=b"", state=EventState.HELD, reason=reason)
    waits = row_of(event, row.received_at, parent_id=row.id)
    insert_events(
        connection, [{**waits, "as_of": row.as_of, "person_id": row.person_id, "planned_at": now, "plan": kept}]
    )

"""Ending: an event comes to its state, and what it says of access is kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, case, null, update

from relay import entitlement
from relay.model import AccessEvent, EventState, Micros
from relay.store.facts import learn
from relay.store.record import event_of
from relay.store.tables import events

#: A digest tells duplicates apart only until the first is planned: from then on the same item is a new event.
_KEY_ONCE_PLANNED = case((events.c.twin, null()), else_=events.c.dedup_key)


def end(
    connection: Connection, ids: Collection[str], state: str, reason: str | None, planned_at: Micros | None, **more: Any
) -> None:
    """Bring events to the state (one of EventState) that planning, or whoever decides in its place, gives them.

    `planned_at` is None for what was never planned. `more` columns of `events` are written with it.
    """
    values = {
        "state": EventState(state).value,
        "reason": reason,
        "planned_at": planned_at,
        "dedup_key": _KEY_ONCE_PLANNED,
        "wait_until": None,
        **more,
    }
    connection.execute(update(events).where(events.c.id.in_(ids)).values(**values))


def learn_from(connection: Connection, row: Row[Any]) -> AccessEvent:
    """Keep what an event says of access, whatever becomes of it; return the event."""
    event = event_of(row._asdict())
    fact = entitlement.fact_of(event, row.id, row.as_of)
    if fact is not None:
        learn(connection, fact)
    return event

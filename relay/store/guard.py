"""The guard: a mass removal asks first.

It counts distinct people from whom something is to be removed, by the time their events were received, in a window
that ends with the event in question. Past the limit the event is `held`: its facts are known, nothing is removed, and a
person approves or rejects it. What an operator approved, replayed or ordered is neither held nor counted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, func, select

from relay.model import SECOND, Guard, RevocationState
from relay.store.database import lock_guard
from relay.store.tables import events, revocations

#: What was never going to be removed.
_KEPT = (RevocationState.RETAINED.value, RevocationState.SUPERSEDED.value)


def holds(connection: Connection, guard: Guard | None, row: Row[Any], people: Collection[int]) -> str | None:
    """Why an event that takes something from these people has to wait, None when it may go on."""
    if guard is None or row.replay or not people:
        return None
    lock_guard(connection)
    counted = (
        select(revocations.c.person_id)
        .join(events, events.c.id == revocations.c.event_id)
        .where(
            events.c.received_at > row.received_at - int(guard.within_seconds * SECOND),
            events.c.received_at <= row.received_at,
            events.c.replay.is_(False),
            events.c.source != "operator",
            revocations.c.state.not_in(_KEPT),
        )
        .distinct()
    )
    others = counted.where(revocations.c.person_id.not_in(people)).subquery()
    total = connection.execute(select(func.count()).select_from(others)).scalar_one() + len(people)
    return _reason(guard, total) if total > guard.users else None


def holds_group(guard: Guard | None, row: Row[Any], members: int) -> str | None:
    """Why an event about a whole group or app has to wait: it alone would take from more people than the limit."""
    if guard is None or row.replay or members <= guard.users:
        return None
    return _reason(guard, members)


def _reason(guard: Guard, people: int) -> str:
    minutes = guard.within_seconds / 60
    return (
        f"the guard: {people} people would lose something within {minutes:g} minutes, more than {guard.users}; "
        "approve or reject"
    )

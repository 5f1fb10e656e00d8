"""How the relay is doing, in numbers: what monitoring reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Column, Connection, func, select

from relay.model import SECOND, EventState, RevocationState
from relay.store import delivery, heartbeat
from relay.store.database import Database
from relay.store.delivery import Delivery
from relay.store.tables import events, revocations

_UNSETTLED = (EventState.RECEIVED.value, EventState.PLANNED.value)


@dataclass(frozen=True, slots=True)
class Vitals:
    """`events` and `revocations`: how many are in each state, those without any included."""

    events: Mapping[str, int]
    revocations: Mapping[str, int]
    oldest_pending_seconds: float
    needs_regrant: int
    delivery: Delivery
    workers_alive: int


def read(database: Database) -> Vitals:
    """The numbers as they are now. Raises Unavailable."""
    with database.read() as connection:
        now = database.now(connection)
        oldest = connection.execute(
            select(func.min(events.c.received_at)).where(events.c.state.in_(_UNSETTLED))
        ).scalar()
        regrants = select(func.count()).select_from(revocations).where(revocations.c.needs_regrant)
        return Vitals(
            events=_counts(connection, events.c.state, EventState),
            revocations=_counts(connection, revocations.c.state, RevocationState),
            oldest_pending_seconds=max(0, now - oldest) / SECOND if oldest is not None else 0.0,
            needs_regrant=connection.execute(regrants).scalar_one(),
            delivery=delivery.read(connection),
            workers_alive=sum(worker["alive"] for worker in heartbeat.workers(connection, now)),
        )


def _counts(connection: Connection, column: Column[str], states: type[StrEnum]) -> dict[str, int]:
    rows = connection.execute(select(column, func.count()).group_by(column))
    found = {row[0]: row[1] for row in rows}
    return {state.value: found.get(state.value, 0) for state in states}

"""How the relay is doing, in numbers: the one reader behind /metrics and the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, func, select

from relay.model import SECOND, EventState, Micros, RevocationState, to_iso
from relay.store import alerts, delivery, found, heartbeat, results, turned
from relay.store.database import Database
from relay.store.delivery import Delivery
from relay.store.people import count_known
from relay.store.tables import events, revocations

#: Work that is left for the relay; what is held waits for a person.
_PENDING = (EventState.RECEIVED.value, EventState.PLANNED.value)
_DAY: Micros = 86_400 * SECOND


@dataclass(frozen=True, slots=True)
class Vitals:
    """`events` and `revocations`: how many are in each state, `confirmations`: what asking came to; zeros included.

    `alerts`: how many stand, by what they are about. `found_alone`: events that only reconcile found, by source,
    `looked_up_alone`: that only a look-up did.
    `oldest_pending_seconds` is 0 where nothing is pending; `workers` as `heartbeat.workers` gives them.
    """

    events: Mapping[str, int]
    revocations: Mapping[str, int]
    oldest_pending_seconds: float
    needs_regrant: int
    confirmations: Mapping[str, int]
    delivery: Delivery
    alerts: Mapping[str, int]
    found_alone: Mapping[str, int]
    looked_up_alone: Mapping[str, int]
    workers: Sequence[Mapping[str, Any]]

    @property
    def workers_alive(self) -> int:
        return sum(worker["alive"] for worker in self.workers)

    @property
    def pending(self) -> int:
        return sum(self.events[state] for state in _PENDING)


def read(database: Database) -> Vitals:
    """The numbers as they are now. Raises Unavailable."""
    with database.read() as connection:
        return _read(connection, database.now(connection))


def stats(database: Database) -> dict[str, Any]:
    """The numbers as people get them, with how long revoking took and how much is known. Raises Unavailable."""
    with database.read() as connection:
        now = database.now(connection)
        found = _read(connection, now)
        return _as_json(found) | {
            "time_to_revoke_seconds": _time_to_revoke(connection, now),
            **count_known(connection),
        }


def _read(connection: Connection, now: Micros) -> Vitals:
    oldest = connection.execute(select(func.min(events.c.received_at)).where(events.c.state.in_(_PENDING))).scalar()
    regrants = select(func.count()).select_from(revocations).where(revocations.c.needs_regrant)
    return Vitals(
        events=_counts(connection, events.c.state, EventState),
        revocations=_counts(connection, revocations.c.state, RevocationState),
        oldest_pending_seconds=max(0, now - oldest) / SECOND if oldest is not None else 0.0,
        needs_regrant=connection.execute(regrants).scalar_one(),
        confirmations=results.counts(connection),
        delivery=delivery.read(connection),
        alerts=alerts.count(connection),
        found_alone=found.counts(connection),
        looked_up_alone=found.counts(connection, turned.LOOK_UP),
        workers=heartbeat.workers(connection, now),
    )


def _as_json(found: Vitals) -> dict[str, Any]:
    """Counts without the zeros; nothing pending is None, and so is the time of a breaker that never moved."""
    row = found.delivery
    return {
        "events": {state: number for state, number in found.events.items() if number},
        "revocations": {state: number for state, number in found.revocations.items() if number},
        "oldest_pending_seconds": found.oldest_pending_seconds if found.pending else None,
        "needs_regrant": found.needs_regrant,
        "alerts": sum(found.alerts.values()),
        "confirmations": dict(found.confirmations),
        "delivery": {
            "state": row.state,
            "why": row.why,
            "since": to_iso(row.since or None),
            "paused": row.paused,
            "paused_by": row.paused_by,
            "paused_reason": row.paused_reason,
        },
        "workers": [{**worker, "at": to_iso(worker["at"])} for worker in found.workers],
    }


def _counts(connection: Connection, column: Column[str], states: type[StrEnum]) -> dict[str, int]:
    rows = connection.execute(select(column, func.count()).group_by(column))
    found = {row[0]: row[1] for row in rows}
    return {state.value: found.get(state.value, 0) for state in states}


def _time_to_revoke(connection: Connection, now: Micros) -> dict[str, Any]:
    """From an event's arrival to Velt's success, of the last 24 hours; seconds by nearest rank."""
    waited = (revocations.c.settled_at - events.c.received_at).label("waited")
    recent = (
        select(waited)
        .join(events, events.c.id == revocations.c.event_id)
        .where(revocations.c.state == RevocationState.REMOVED.value, revocations.c.settled_at >= now - _DAY)
    )
    number = connection.execute(select(func.count()).select_from(recent.subquery())).scalar_one()

    def rank(percent: int) -> float | None:
        if not number:
            return None
        place = (number * percent + 99) // 100 - 1
        found = connection.execute(recent.order_by(waited).offset(place).limit(1)).scalar_one()
        return float(found / SECOND)

    return {"p50": rank(50), "p95": rank(95), "p99": rank(99), "count": number}

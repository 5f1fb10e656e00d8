"""The ledger: what people read. Events with their plan, revocations, attempts and decisions; statistics."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select, true, tuple_

from relay.model import SECOND, EventState, Micros, RevocationState, to_iso
from relay.store import delivery, heartbeat
from relay.store.people import count_known
from relay.store.tables import attempt_revocations, attempts, decisions, events, people, revocations

#: Bytes of a payload that cannot be shown as JSON.
_SHOWN_BYTES = 10_000
_CURSOR = re.compile(r"([0-9]{1,18})/(evt_[0-9a-f]+)")
_DAY: Micros = 86_400 * SECOND
_WAITING = (EventState.RECEIVED.value, EventState.HELD.value, EventState.PLANNED.value)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events; None asks nothing. `since` is included, `until` is not; both are of the arrival.

    `user` is a subject, login, email or Velt user id, `group` a group's id or name; both are compared as they are.
    """

    state: str | None = None
    kind: str | None = None
    source: str | None = None
    user: str | None = None
    group: str | None = None
    since: Micros | None = None
    until: Micros | None = None


def condition(wanted: Filter) -> ColumnElement[bool]:
    """The filter as a condition on `events`."""
    parts: list[ColumnElement[bool]] = [true()]
    for column, value in ((events.c.state, wanted.state), (events.c.kind, wanted.kind)):
        if value is not None:
            parts.append(column == value)
    if wanted.source is not None:
        parts.append(events.c.source == wanted.source)
    if wanted.user is not None:
        same = select(people.c.id).where(people.c.velt_user_id == wanted.user)
        told = [column == wanted.user for column in (events.c.subject, events.c.login, events.c.email)]
        parts.append(or_(*told, events.c.person_id.in_(same)))
    if wanted.group is not None:
        parts.append(or_(events.c.group_id == wanted.group, events.c.group_name == wanted.group))
    if wanted.since is not None:
        parts.append(events.c.received_at >= wanted.since)
    if wanted.until is not None:
        parts.append(events.c.received_at < wanted.until)
    return and_(*parts)


def page(connection: Connection, wanted: Filter, limit: int, cursor: str | None) -> tuple[list[dict[str, Any]], Any]:
    """At most `limit` events, the latest first, and the cursor of the next page or None. Raises ValueError (cursor)."""
    where = condition(wanted)
    if cursor is not None:
        where = and_(where, tuple_(events.c.received_at, events.c.id) < _position(cursor))
    rows = connection.execute(
        _events().where(where).order_by(events.c.received_at.desc(), events.c.id.desc()).limit(limit + 1)
    ).all()
    shown = rows[:limit]
    counts = _counts(connection, [row.id for row in shown])
    more = _cursor(shown[-1]) if len(rows) > limit else None
    return [_event(row) | {"revocations": counts.get(row.id, {})} for row in shown], more


def show(connection: Connection, event_id: str) -> dict[str, Any] | None:
    """Everything about one event, None where there is none."""
    row = connection.execute(_events().where(events.c.id == event_id)).one_or_none()
    if row is None:
        return None
    rows = connection.execute(
        select(revocations, people.c.velt_user_id)
        .join(people, people.c.id == revocations.c.person_id)
        .where(revocations.c.event_id == event_id)
        .order_by(revocations.c.id)
    ).all()
    children = connection.execute(select(events.c.id).where(events.c.parent_id == event_id).order_by(events.c.id))
    return _event(row) | {
        "plan": json.loads(row.plan) if row.plan else None,
        "unresolved": row.unresolved,
        "children": list(children.scalars()),
        "revocations": [_revocation(revocation) for revocation in rows],
        "attempts": _attempts(connection, event_id),
        "decisions": _decisions(connection, event_id),
        "payload": _payload(row.payload),
    }


def count(connection: Connection, wanted: Filter, states: Iterable[str] | None = None) -> int:
    """How many events a filter lets through; where states are given, of those that are in one of them."""
    where = condition(wanted)
    if states is not None:
        where = and_(where, events.c.state.in_(list(states)))
    return int(connection.execute(select(func.count()).select_from(events).where(where)).scalar_one())


def recorded_as(connection: Connection, source: str, key: str | None) -> str | None:
    """The id of the event that was recorded with this key of its source."""
    same = and_(events.c.source == source, events.c.dedup_key == key)
    found: str | None = connection.execute(select(events.c.id).where(same)).scalar() if key is not None else None
    return found


def stats(connection: Connection, now: Micros) -> dict[str, Any]:
    """The numbers that tell how the relay is doing."""
    oldest = connection.execute(select(func.min(events.c.received_at)).where(events.c.state.in_(_WAITING))).scalar()
    regrants = select(func.count()).select_from(revocations).where(revocations.c.needs_regrant)
    row = delivery.read(connection)
    return {
        "events": _by_state(connection, events.c.state),
        "revocations": _by_state(connection, revocations.c.state),
        "oldest_pending_seconds": None if oldest is None else max(0.0, (now - oldest) / SECOND),
        "time_to_revoke_seconds": _time_to_revoke(connection, now),
        "needs_regrant": connection.execute(regrants).scalar_one(),
        "delivery": {
            "state": row.state,
            "why": row.why,
            "since": to_iso(row.since),
            "paused": row.paused,
            "paused_by": row.paused_by,
            "paused_reason": row.paused_reason,
        },
        "workers": [worker | {"at": to_iso(worker["at"])} for worker in heartbeat.workers(connection, now)],
        **count_known(connection),
    }


def _events() -> Any:
    return select(events, people.c.velt_user_id).select_from(
        events.outerjoin(people, people.c.id == events.c.person_id)
    )


def _cursor(row: Row[Any]) -> str:
    return base64.urlsafe_b64encode(f"{row.received_at}/{row.id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[Micros, str]:
    found = _CURSOR.fullmatch(base64.urlsafe_b64decode(cursor.encode("ascii") + b"==").decode("ascii"))
    if found is None:
        raise ValueError("it names no place in the list")
    return int(found[1]), found[2]


def _event(row: Row[Any]) -> dict[str, Any]:
    plan = json.loads(row.plan) if row.plan else {}
    return {
        "id": row.id,
        "source": row.source,
        "kind": row.kind,
        "type": row.type,
        "state": row.state,
        "reason": row.reason,
        "user": {
            "id": row.subject,
            "login": row.login,
            "email": row.email,
            "external_id": row.external_id,
            "velt_user_id": row.velt_user_id,
        },
        "group": _named(row.group_id, row.group_name),
        "app": _named(row.app_id, row.app_name),
        "occurred_at": to_iso(row.occurred_at),
        "received_at": to_iso(row.received_at),
        "planned_at": to_iso(row.planned_at),
        "rules_version": row.rules_version,
        "parent": row.parent_id,
        "incomplete": plan.get("incomplete", []),
    }


def _named(identifier: str | None, name: str | None) -> dict[str, str | None] | None:
    return {"id": identifier, "name": name} if identifier or name else None


def _counts(connection: Connection, ids: Iterable[str]) -> dict[str, dict[str, int]]:
    """How many revocations in which state, by event."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for event_id, state, number in connection.execute(
        select(revocations.c.event_id, revocations.c.state, func.count())
        .where(revocations.c.event_id.in_(list(ids)))
        .group_by(revocations.c.event_id, revocations.c.state)
    ):
        found[event_id][state] = number
    return found


def _revocation(row: Row[Any]) -> dict[str, Any]:
    resource = {"type": row.resource_type, "id": row.resource_id}
    if row.organization_id is not None:
        resource["organizationId"] = row.organization_id
    return {
        "id": row.id,
        "resource": resource,
        "velt_user_id": row.velt_user_id,
        "rules": row.rules,
        "state": row.state,
        "reason": row.reason,
        "superseded_by": row.superseded_by,
        "next_attempt_at": to_iso(row.next_at),
        "attempts": row.attempts,
        "needs_regrant": row.needs_regrant,
        "sent_at": to_iso(row.sent_at),
        "settled_at": to_iso(row.settled_at),
    }


def _attempts(connection: Connection, event_id: str) -> list[dict[str, Any]]:
    """Every call to Velt that carried a revocation of this event; `revocations` names those of this event."""
    mine: dict[str, list[str]] = defaultdict(list)
    for attempt_id, revocation_id in connection.execute(
        select(attempt_revocations.c.attempt_id, attempt_revocations.c.revocation_id)
        .join(revocations, revocations.c.id == attempt_revocations.c.revocation_id)
        .where(revocations.c.event_id == event_id)
        .order_by(attempt_revocations.c.revocation_id)
    ):
        mine[attempt_id].append(revocation_id)
    rows = connection.execute(
        select(attempts).where(attempts.c.id.in_(list(mine))).order_by(attempts.c.started_at, attempts.c.id)
    )
    return [
        {
            "id": row.id,
            "started_at": to_iso(row.started_at),
            "finished_at": to_iso(row.finished_at),
            "outcome": row.outcome,
            "reason": row.reason,
            "http_status": row.http_status,
            "velt_status": row.velt_status,
            "velt_user_id": row.velt_user_id,
            "resources": json.loads(row.request),
            "revocations": mine[row.id],
            "worker": row.worker,
            "digest": row.digest,
        }
        for row in rows
    ]


def _decisions(connection: Connection, event_id: str) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(decisions).where(decisions.c.event_id == event_id).order_by(decisions.c.at, decisions.c.id)
    )
    return [
        {
            "id": row.id,
            "at": to_iso(row.at),
            "actor": row.actor,
            "action": row.action,
            "detail": json.loads(row.detail),
            "reason": row.reason,
            "digest": row.digest,
        }
        for row in rows
    ]


def _payload(stored: bytes) -> Any:
    """What the source sent: its JSON, else the beginning of it as text, None where nothing is kept."""
    if not stored:
        return None
    try:
        return json.loads(stored.decode("utf-8-sig"), parse_constant=lambda name: name)
    except (ValueError, RecursionError):
        return stored[:_SHOWN_BYTES].decode("utf-8", "replace")


def _by_state(connection: Connection, column: ColumnElement[str]) -> dict[str, int]:
    rows = connection.execute(select(column, func.count()).group_by(column).order_by(column))
    return {state: number for state, number in rows}  # noqa: C416 - typed rows, no plain tuples


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

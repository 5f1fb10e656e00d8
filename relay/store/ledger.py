"""The ledger: what people read. Events with their plan, revocations, attempts and decisions."""

from __future__ import annotations

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, not_, or_, select, true, tuple_

from relay.model import Micros, to_iso
from relay.store import results
from relay.store.revocations import resource_of
from relay.store.tables import attempt_revocations, attempts, decisions, events, people, revocations
from relay.store.waiting import Brakes

#: Bytes of a payload that cannot be shown as JSON.
_SHOWN_BYTES = 10_000
_NO_REVOCATIONS: dict[str, Any] = {"revocations": {}, "needs_regrant": 0, "waits_for": None}
_CURSOR = re.compile(r"([0-9]{1,18})/(evt_[0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events; None asks nothing. `since` is included, `until` is not; both are of the arrival.

    `user` is a subject, login, email or Velt user id, `group` a group's id or name; both are compared as they are.
    `needs_regrant`: whether anything of the event is to be granted again.
    `confirmation`: what asking about one of the event's removals came to, one of results.NAMES.
    """

    state: str | None = None
    kind: str | None = None
    source: str | None = None
    user: str | None = None
    group: str | None = None
    needs_regrant: bool | None = None
    since: Micros | None = None
    until: Micros | None = None
    confirmation: str | None = None


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
    if wanted.needs_regrant is not None:
        regrants = events.c.id.in_(select(revocations.c.event_id).where(revocations.c.needs_regrant))
        parts.append(regrants if wanted.needs_regrant else not_(regrants))
    if wanted.since is not None:
        parts.append(events.c.received_at >= wanted.since)
    if wanted.until is not None:
        parts.append(events.c.received_at < wanted.until)
    if wanted.confirmation is not None:
        asked = and_(revocations.c.event_id == events.c.id, results.is_result(wanted.confirmation))
        parts.append(exists().where(asked))
    return and_(*parts)


def page(
    connection: Connection, wanted: Filter, limit: int, cursor: str | None, brakes: Brakes
) -> tuple[list[dict[str, Any]], str | None]:
    """At most `limit` events, the latest first, and the cursor of the next page or None. Raises ValueError (cursor)."""
    where = condition(wanted)
    if cursor is not None:
        where = and_(where, tuple_(events.c.received_at, events.c.id) < position(cursor))
    rows = connection.execute(
        _events().where(where).order_by(events.c.received_at.desc(), events.c.id.desc()).limit(limit + 1)
    ).all()
    shown = rows[:limit]
    found = _counts(connection, [row.id for row in shown], brakes)
    more = cursor_at(shown[-1]) if len(rows) > limit else None
    return [_event(row) | found.get(row.id, _NO_REVOCATIONS) for row in shown], more


def show(connection: Connection, event_id: str, brakes: Brakes) -> dict[str, Any] | None:
    """Everything about one event, None where there is none."""
    row = connection.execute(_events().where(events.c.id == event_id)).one_or_none()
    if row is None:
        return None
    rows = connection.execute(
        select(revocations, people.c.velt_user_id, people.c.lease_until)
        .join(people, people.c.id == revocations.c.person_id)
        .where(revocations.c.event_id == event_id)
        .order_by(revocations.c.id)
    ).all()
    children = connection.execute(select(events.c.id).where(events.c.parent_id == event_id).order_by(events.c.id))
    return _event(row) | {
        "plan": json.loads(row.plan) if row.plan else None,
        "unresolved": row.unresolved,
        "children": list(children.scalars()),
        "revocations": [_revocation(revocation, brakes) for revocation in rows],
        "attempts": _attempts(connection, event_id),
        "decisions": _decisions(connection, event_id),
        "payload": _payload(row.payload),
    }


def count(connection: Connection, wanted: Filter) -> dict[str, int]:
    """How many events a filter lets through, by state."""
    rows = connection.execute(
        select(events.c.state, func.count()).where(condition(wanted)).group_by(events.c.state).order_by(events.c.state)
    )
    return {state: number for state, number in rows}  # noqa: C416 - typed rows, no plain tuples


def recorded_as(connection: Connection, source: str, key: str | None) -> str | None:
    """The id of the event that was recorded with this key of its source."""
    same = and_(events.c.source == source, events.c.dedup_key == key)
    found: str | None = connection.execute(select(events.c.id).where(same)).scalar() if key is not None else None
    return found


def _events() -> Any:
    return select(events, people.c.velt_user_id).select_from(
        events.outerjoin(people, people.c.id == events.c.person_id)
    )


def cursor_at(row: Row[Any]) -> str:
    """The place of an event in a list, as a text for whoever asks for what comes after it."""
    return base64.urlsafe_b64encode(f"{row.received_at}/{row.id}".encode()).decode().rstrip("=")


def position(cursor: str) -> tuple[Micros, str]:
    """When the event of a cursor arrived, and its id. Raises ValueError."""
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
        "found_by": row.found_by,
        "incomplete": plan.get("incomplete", []),
    }


def _named(identifier: str | None, name: str | None) -> dict[str, str | None] | None:
    return {"id": identifier, "name": name} if identifier or name else None


def _counts(connection: Connection, ids: Iterable[str], brakes: Brakes) -> dict[str, dict[str, Any]]:
    """By event: how many revocations are in which state, how many need a new grant, what the open ones wait for."""
    rows = connection.execute(
        select(
            revocations.c.event_id,
            revocations.c.state,
            func.count().label("number"),
            func.min(revocations.c.next_at).label("next_at"),
            func.max(people.c.lease_until).label("lease_until"),
            func.count().filter(revocations.c.needs_regrant).label("needs_regrant"),
        )
        .join(people, people.c.id == revocations.c.person_id)
        .where(revocations.c.event_id.in_(list(ids)))
        .group_by(revocations.c.event_id, revocations.c.state)
        .order_by(revocations.c.state)
    )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:  # `sending` after `pending`: a call that is under way is what there is to say
        one = found.setdefault(row.event_id, {**_NO_REVOCATIONS, "revocations": {}})
        one["revocations"][row.state] = row.number
        one["needs_regrant"] += row.needs_regrant
        one["waits_for"] = brakes.why(row.state, row.next_at, row.lease_until) or one["waits_for"]
    return found


def _revocation(row: Row[Any], brakes: Brakes) -> dict[str, Any]:
    return {
        "id": row.id,
        "resource": resource_of(row).as_velt(),
        "velt_user_id": row.velt_user_id,
        "rules": row.rules,
        "state": row.state,
        "reason": row.reason,
        "superseded_by": row.superseded_by,
        "waits_for": brakes.why(row.state, row.next_at, row.lease_until),
        "next_attempt_at": to_iso(row.next_at),
        "attempts": row.attempts,
        "needs_regrant": row.needs_regrant,
        "confirmation": row.confirmation,
        "confirmation_reason": row.confirmation_reason,
        "confirmation_due_at": to_iso(row.confirm_at),
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

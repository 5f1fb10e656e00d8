"""Decisions: who did what, when and why, as one row each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, select

from relay import model
from relay.model import Micros
from relay.store.attempts import digest
from relay.store.tables import decisions, events

#: Decisions that an event takes nothing, or nothing more; and those that take that back.
_AGAINST = ("reject", "cancel")
_AFTER_ALL = ("approve", "retry")


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decides what, and why; `detail` goes into the row of `decisions` as it is."""

    actor: str
    action: str
    reason: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def told(self, what: str) -> str:
        """`cancelled by ada: wrong group`."""
        return f"{what} by {self.actor}" + (f": {self.reason}" if self.reason else "")


def note(
    connection: Connection,
    decision: Decision,
    now: Micros,
    event_id: str | None = None,
    found: Mapping[str, Any] | None = None,
) -> None:
    """Add the row that says who decided this, with the SHA-256 of what it says."""
    row: dict[str, Any] = {
        "id": model.new_id("dec"),
        "at": now,
        "actor": decision.actor,
        "action": decision.action,
        "event_id": event_id,
        "detail": json.dumps({**(found or {}), **decision.detail}, sort_keys=True),
        "reason": decision.reason,
    }
    connection.execute(decisions.insert().values(**row, digest=digest(row)))


def was_decided_against() -> ColumnElement[bool]:
    """The condition on `events` that the last decision on what they take was that it is nothing, or nothing more."""
    mine = and_(decisions.c.event_id == events.c.id, decisions.c.action.in_([*_AGAINST, *_AFTER_ALL]))
    last = select(decisions.c.action).where(mine).order_by(decisions.c.at.desc(), decisions.c.id.desc()).limit(1)
    return func.coalesce(last.scalar_subquery(), "").in_(_AGAINST)


def is_decided_against(connection: Connection, row: Row[Any]) -> bool:
    """Whether that is so of this event."""
    against = select(events.c.id).where(events.c.id == row.id, was_decided_against())
    return connection.execute(against).first() is not None

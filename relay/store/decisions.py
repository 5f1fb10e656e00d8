"""Decisions: who did what, when and why, as one row each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from relay import model
from relay.model import Micros
from relay.store.attempts import digest
from relay.store.tables import decisions


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

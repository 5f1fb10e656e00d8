"""Attempts: one row for each call to Velt, linked to the revocations that it was for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from relay import model
from relay.model import Micros, Outcome, Resource
from relay.store.tables import attempt_revocations, attempts


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was made: by which worker, for whom, about what, and when."""

    worker: str
    person_id: int
    velt_user_id: str
    resources: tuple[Resource, ...]
    revocation_ids: tuple[str, ...]
    started: Micros
    finished: Micros


def add(connection: Connection, call: Call, outcome: Outcome, name: str | None = None) -> None:
    """Add the row of a call, with the SHA-256 of what it says; `name` stands for the outcome where it says more."""
    row: dict[str, Any] = {
        "id": model.new_id("att"),
        "person_id": call.person_id,
        "velt_user_id": call.velt_user_id,
        "worker": call.worker,
        "started_at": call.started,
        "finished_at": call.finished,
        "request": json.dumps([resource.as_velt() for resource in call.resources]),
        "outcome": name or outcome.answer.value,
        "reason": outcome.reason,
        "http_status": outcome.http_status,
        "velt_status": outcome.velt_status,
    }
    row["digest"] = digest(row | {"response": outcome.response.hex(), "revocations": sorted(call.revocation_ids)})
    connection.execute(attempts.insert().values(**row, response=outcome.response))
    links = [{"attempt_id": row["id"], "revocation_id": revocation_id} for revocation_id in call.revocation_ids]
    if links:
        connection.execute(attempt_revocations.insert(), links)


def digest(row: dict[str, Any]) -> str:
    """SHA-256 (hex) over a row as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

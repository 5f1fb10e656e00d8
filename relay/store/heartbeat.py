"""Heartbeats: which workers are alive, told to /readyz and to the operators."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, delete, select

from relay.model import SECOND, Micros
from relay.store.database import Database
from relay.store.tables import state

_PREFIX = "worker "
#: A worker that was silent for this long is gone.
SILENT: Micros = 30 * SECOND
#: After this long it is forgotten.
_FORGET: Micros = 3600 * SECOND


def beat(database: Database, worker: str, rules_version: str) -> None:
    """Say that this worker lives and by which rules it works."""
    with database.write() as connection:
        now = database.now(connection)
        key = _PREFIX + worker
        old = state.c.key.like(f"{_PREFIX}%") & (state.c.at < now - _FORGET)
        connection.execute(delete(state).where((state.c.key == key) | old))
        connection.execute(state.insert().values(key=key, value=json.dumps({"rules": rules_version}), at=now))


def end(database: Database, worker: str) -> None:
    """Say that this worker has stopped on purpose: nobody has to wonder where it is."""
    with database.write() as connection:
        connection.execute(delete(state).where(state.c.key == _PREFIX + worker))


def workers(connection: Connection, now: Micros) -> list[dict[str, Any]]:
    """Every worker heard of in the last hour: name, rules version, last beat, whether it counts as alive."""
    rows = connection.execute(select(state).where(state.c.key.like(f"{_PREFIX}%")).order_by(state.c.key))
    return [
        {
            "worker": row.key.removeprefix(_PREFIX),
            "rules": json.loads(row.value)["rules"],
            "at": row.at,
            "alive": now - row.at < SILENT,
        }
        for row in rows
    ]

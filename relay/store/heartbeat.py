"""Heartbeats: which workers are alive, told to /readyz and to the operators."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection

from relay.model import SECOND, Micros
from relay.store import states
from relay.store.database import Database

_PREFIX = "worker "
#: A worker that was silent for this long is gone.
SILENT: Micros = 30 * SECOND
#: After this long it is forgotten.
_FORGET: Micros = 3600 * SECOND


def beat(database: Database, worker: str, rules_version: str, mistakes: int = 0) -> None:
    """Say that this worker lives and by which rules it works.

    `mistakes`: how many relay.yaml has as it is now, for which it was refused and older rules are in force.
    """
    with database.write() as connection:
        now = database.now(connection)
        states.drop_older(connection, _PREFIX, now - _FORGET)
        states.put(connection, _PREFIX + worker, json.dumps({"rules": rules_version, "mistakes": mistakes}), now)


def end(database: Database, worker: str) -> None:
    """Say that this worker has stopped on purpose: nobody has to wonder where it is."""
    with database.write() as connection:
        states.drop(connection, [_PREFIX + worker])


def refusals(connection: Connection, now: Micros) -> list[int]:
    """Of each worker that is alive and has refused relay.yaml as it is now, how many mistakes it found."""
    alive = [row for row in states.under(connection, _PREFIX) if now - row.at < SILENT]
    told = [json.loads(row.value).get("mistakes", 0) for row in alive]  # a worker before this one told none
    return [mistakes for mistakes in told if mistakes]


def workers(connection: Connection, now: Micros) -> list[dict[str, Any]]:
    """Every worker heard of in the last hour: name, rules version, last beat, whether it counts as alive."""
    return [
        {
            "worker": row.key.removeprefix(_PREFIX),
            "rules": json.loads(row.value)["rules"],
            "at": row.at,
            "alive": now - row.at < SILENT,
        }
        for row in states.under(connection, _PREFIX)
    ]

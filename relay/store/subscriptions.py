"""What is known of the subscriptions it keeps, one row of `state` a source, and what Microsoft says of them.

The row is written by the worker that keeps them (relay/subscriptions.py) and read by everybody who shows them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from relay.model import SECOND, EventState, Micros, to_iso
from relay.store import states
from relay.store.database import Database
from relay.store.tables import events

_PREFIX = "subscriptions "

#: What is subscribed to; https://learn.microsoft.com/graph/api/resources/subscription.
RESOURCES = ("/users", "/groups")

DAY: Micros = 86_400 * SECOND
#: With less than this left something is wrong: it should have been renewed long ago.
ALARM: Micros = 3 * DAY


@dataclass(frozen=True, slots=True)
class Live:
    """A subscription as it was when last seen. `proof` is a digest of the address and clientState it was made with."""

    id: str
    resource: str
    expires_at: Micros
    proof: str


@dataclass(frozen=True, slots=True)
class Record:
    """One source's row. `proof` is a digest of the address and clientState that the last look was for.

    `error` is why Graph did not tell at the last look what there is, None when it did; `errors`, by resource, what
    failed of what was to be done then. `next_at`: when to look again. `heard`: the events of Microsoft's lifecycle that
    are known already. `asked`: the subscriptions that are still to be reauthorized.
    `gap_at`, `gap`: until when notifications may have been lost last, and why.
    """

    source: str
    proof: str = ""
    live: tuple[Live, ...] = ()
    error: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    looked_at: Micros = 0
    next_at: Micros = 0
    heard: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    gap_at: Micros | None = None
    gap: str | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """A lifecycle notification: `name` such as reauthorizationRequired, and the subscription that it names."""

    event_id: str
    source: str
    name: str
    subscription: str | None


def records(connection: Connection) -> list[Record]:
    """Every source's row, by name."""
    return [_record(row.value) for row in states.under(connection, _PREFIX)]


def write(database: Database, record: Record) -> None:
    """Keep this as the source's row. Raises Unavailable."""
    key, value = _PREFIX + record.source, json.dumps(asdict(record))
    with database.write() as connection:
        states.put(connection, key, value, record.looked_at)


def forget(database: Database, sources: Collection[str]) -> None:
    """Drop the rows of sources whose subscriptions are not kept any more. Raises Unavailable."""
    with database.write() as connection:
        states.drop(connection, [_PREFIX + source for source in sources])


def lifecycle(connection: Connection, since: Micros) -> list[Heard]:
    """What Microsoft said of the subscriptions themselves after `since`; read by the index on state and arrival."""
    wanted = select(events.c.id, events.c.source, events.c.type, events.c.payload).where(
        events.c.state == EventState.IGNORED.value,
        events.c.received_at > since,
        events.c.type.like("lifecycle.%"),
    )
    return [
        Heard(row.id, row.source, row.type.removeprefix("lifecycle."), _subscription(row.payload))
        for row in connection.execute(wanted.order_by(events.c.received_at))
    ]


def lost(database: Database) -> dict[str, Micros]:
    """By source, until when notifications may have been lost: a reconcile that begins later finds them.

    Raises Unavailable.
    """
    with database.read() as connection:
        return {one.source: one.gap_at for one in records(connection) if one.gap_at is not None}


def problems(connection: Connection, now: Micros) -> Iterator[tuple[str, str]]:
    """(key, sentence) for each subscription that is missing or ends in less than 3 days."""
    for one in _all_shown(connection, now):
        if one["state"] != "live":
            yield f"subscription:{one['source']}:{one['resource']}", _sentence(one)


def seconds_left(database: Database) -> dict[tuple[str, str], float]:
    """By source and resource, how long the subscription lives on; 0 for a missing one. Raises Unavailable."""
    with database.read() as connection:
        now, found = database.now(connection), records(connection)
    return {
        (record.source, resource): max((_left(one, now) for one in record.live if one.resource == resource), default=0)
        / SECOND
        for record in found
        for resource in RESOURCES
    }


def shown(database: Database) -> dict[str, Any]:
    """What the API and the command line show: the subscriptions of each source as last seen. Raises Unavailable."""
    with database.read() as connection:
        return {"subscriptions": list(_all_shown(connection, database.now(connection)))}


def _all_shown(connection: Connection, now: Micros) -> Iterator[dict[str, Any]]:
    for record in records(connection):
        yield from _shown(record, now)


def _shown(record: Record, now: Micros) -> Iterator[dict[str, Any]]:
    for resource in RESOURCES:
        here = [one for one in record.live if one.resource == resource]
        for one in (*here,) or (None,):
            left = _left(one, now) if one else 0
            yield {
                "source": record.source,
                "resource": resource,
                "id": one.id if one else None,
                "state": "missing" if not left else "ending" if left < ALARM else "live",
                "expires_at": to_iso(one.expires_at) if one else None,
                "days_left": round(left / DAY, 1),
                "error": record.error or record.errors.get(resource),
                "looked_at": to_iso(record.looked_at),
                "gap_at": to_iso(record.gap_at),
                "gap": record.gap,
            }


def _left(one: Live, now: Micros) -> Micros:
    return max(0, one.expires_at - now)


def _sentence(one: Mapping[str, Any]) -> str:
    lacks = "is missing" if one["state"] == "missing" else f"ends in {one['days_left']} days and was not renewed"
    why = one["error"] or "the next look at Graph will make it"
    return f"the Graph subscription of {one['source']} for {one['resource']} {lacks}: {why}"


def _record(value: str) -> Record:
    found = json.loads(value)
    return Record(
        **{
            **found,
            "live": tuple(Live(**one) for one in found["live"]),
            "heard": tuple(found["heard"]),
            "asked": tuple(found["asked"]),
        }
    )


def _subscription(payload: bytes) -> str | None:
    named = json.loads(payload or b"{}").get("subscriptionId")
    return named if isinstance(named, str) else None

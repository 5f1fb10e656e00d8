"""Alerts: what somebody has to know, as one row a key for as long as it holds.

    raise_alert --> stands, to be told --> stands, told --clear_alert--> over, to be told --> gone
                          clear_alert before anybody may have heard of it --> gone

Whoever tells takes the alert for a while first (`take_due`), so that two workers never tell the same one at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, update

from relay.model import Micros, to_iso
from relay.store.database import insert_into
from relay.store.tables import alerts


@dataclass(frozen=True, slots=True)
class Alert:
    """One row. `told_at` None: nobody was told yet that it stands. `cleared_at`: since when it is over.

    `attempts`: how often somebody began to tell what is to be told now.
    """

    key: str
    text: str
    raised_at: Micros
    told_at: Micros | None
    attempts: int
    cleared_at: Micros | None


_COLUMNS = tuple(alerts.c[name.name] for name in fields(Alert))
_STANDS = alerts.c.cleared_at.is_(None)


def raise_alert(connection: Connection, key: str, text: str, now: Micros) -> bool:
    """Have an alert stand, and told once; whether it is new. While it stands already, only its text may change."""
    found = _locked(connection, key)
    if found is None:
        new = insert_into(connection, alerts).values(key=key, text=text, raised_at=now, next_at=now)
        return connection.execute(new.on_conflict_do_nothing()).rowcount == 1
    values: dict[str, object] = {"text": text}
    if found.cleared_at is not None:  # over, and that is not told yet: who was told that it stands is right again
        values |= {"raised_at": now, "cleared_at": None}
        if found.told_at is not None:
            values |= {"next_at": None, "attempts": 0}
    _change(connection, key, **values)
    return found.cleared_at is not None


def clear_alert(connection: Connection, key: str, now: Micros) -> bool:
    """End an alert; whether it stood. It is told that it is over where anybody may have heard of it."""
    found = _locked(connection, key)
    if found is None or found.cleared_at is not None:
        return False
    if found.told_at is None and found.attempts == 0:
        _forget(connection, key)
    elif found.told_at is None:  # somebody tells it right now, or failed to: not before that has ended
        _change(connection, key, cleared_at=now)
    else:
        _change(connection, key, cleared_at=now, next_at=now, attempts=0)
    return True


def open_alerts(connection: Connection) -> list[Alert]:
    """The alerts that stand, the oldest first."""
    rows = connection.execute(select(*_COLUMNS).where(_STANDS).order_by(alerts.c.raised_at, alerts.c.key))
    return [_alert(row) for row in rows]


def listed(connection: Connection) -> list[dict[str, Any]]:
    """The alerts that stand as people get them, the oldest first."""
    return [
        {
            "key": alert.key,
            "text": alert.text,
            "raised_at": to_iso(alert.raised_at),
            "told_at": to_iso(alert.told_at),
        }
        for alert in open_alerts(connection)
    ]


def align(connection: Connection, problems: Mapping[str, str], now: Micros) -> tuple[list[str], list[str]]:
    """Have exactly these problems (key -> text) stand; return the keys that are new and those that are over."""
    standing = {alert.key for alert in open_alerts(connection)}
    raised = [key for key, text in sorted(problems.items()) if raise_alert(connection, key, text, now)]
    return raised, [key for key in sorted(standing - problems.keys()) if clear_alert(connection, key, now)]


def take_due(connection: Connection, now: Micros, until: Micros) -> Alert | None:
    """What is to be told next, taken until then: whoever dies meanwhile leaves it to another. None: nothing is due."""
    due = select(*_COLUMNS).where(alerts.c.next_at <= now).order_by(alerts.c.next_at, alerts.c.key).limit(1)
    row = connection.execute(due.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    taken = _alert(row)
    _change(connection, taken.key, next_at=until, attempts=taken.attempts + 1)
    return taken


def mark_told(connection: Connection, told: Alert, now: Micros) -> None:
    """Note that this was told, as it was when it was taken."""
    found = _locked(connection, told.key)
    if found is None:
        return
    if told.cleared_at is None:
        over = found.cleared_at is not None  # meanwhile, and that is to be told next
        _change(connection, told.key, told_at=now, next_at=now if over else None, attempts=0)
    elif found.cleared_at is not None:
        _forget(connection, told.key)
    else:  # it stands again: whoever has just heard that it is over has to hear so
        _change(connection, told.key, told_at=None, next_at=now, attempts=0)


def put_off(connection: Connection, alert: Alert, next_at: Micros) -> None:
    """Have an alert that could not be told tried again then."""
    connection.execute(
        update(alerts).where(alerts.c.key == alert.key, alerts.c.next_at.is_not(None)).values(next_at=next_at)
    )


def forget_cleared(connection: Connection) -> None:
    """Drop what is over: there is nobody to be told."""
    connection.execute(delete(alerts).where(alerts.c.cleared_at.is_not(None)))


def count(connection: Connection) -> dict[str, int]:
    """How many alerts stand, by the part of their key before the first colon."""
    counted: dict[str, int] = {}
    for key in connection.execute(select(alerts.c.key).where(_STANDS).order_by(alerts.c.key)).scalars():
        name = key.partition(":")[0]
        counted[name] = counted.get(name, 0) + 1
    return counted


def is_aligned(connection: Connection, problems: Mapping[str, str]) -> bool:
    """Whether exactly these problems stand: asking first spares a transaction that writes nothing."""
    return {alert.key: alert.text for alert in open_alerts(connection)} == dict(problems)


def anything_to_tell(connection: Connection, now: Micros) -> bool:
    """Whether anything is due to be told."""
    return bool(connection.execute(select(func.count()).where(alerts.c.next_at <= now)).scalar_one())


def _locked(connection: Connection, key: str) -> Alert | None:
    row = connection.execute(select(*_COLUMNS).where(alerts.c.key == key).with_for_update()).one_or_none()
    return None if row is None else _alert(row)


def _change(connection: Connection, key: str, **values: object) -> None:
    connection.execute(update(alerts).where(alerts.c.key == key).values(**values))


def _forget(connection: Connection, key: str) -> None:
    connection.execute(delete(alerts).where(alerts.c.key == key))


def _alert(row: Row[tuple[object, ...]]) -> Alert:
    return Alert(**row._mapping)

"""Gaps: until when messages of the providers may have been lost, because no process of ours could take them.

Whoever was away says so as soon as it is back; a reconcile that begins later finds what was lost.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from relay.model import Micros
from relay.store.database import insert_into
from relay.store.tables import state

_KEY = "gap"
_SINCE = "reconcile since"


def note(connection: Connection, now: Micros) -> None:
    """Say that messages may have been lost until now."""
    new = insert_into(connection, state).values(key=_KEY, value="", at=now)
    connection.execute(new.on_conflict_do_update(index_elements=["key"], set_={"at": now}))


def until(connection: Connection) -> Micros:
    """Until when messages may have been lost, 0 for never."""
    return connection.execute(select(state.c.at).where(state.c.key == _KEY)).scalar() or 0


def ask_from(connection: Connection, since: Micros, now: Micros) -> None:
    """Have the changes since then read again, of every source."""
    new = insert_into(connection, state).values(key=_SINCE, value=str(since), at=now)
    connection.execute(new.on_conflict_do_update(index_elements=["key"], set_={"value": str(since), "at": now}))


def asked_from(connection: Connection) -> tuple[Micros, Micros] | None:
    """From when somebody wanted the changes read last, and when they asked; None where nobody ever did."""
    row = connection.execute(select(state).where(state.c.key == _SINCE)).one_or_none()
    return None if row is None else (int(row.value), row.at)

"""The rows of `state`: what the processes have to remember between them, one text and a time for each name.

Names are a prefix, such as `worker `, and whose row it is. Leases are kept there too, by rules of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from relay.model import Micros
from relay.store.database import insert_into
from relay.store.tables import state


def put(connection: Connection, name: str, value: str, at: Micros) -> None:
    """Keep this under the name, in the place of what was there."""
    new = insert_into(connection, state).values(key=name, value=value, at=at)
    connection.execute(new.on_conflict_do_update(index_elements=["key"], set_={"value": value, "at": at}))


def get(connection: Connection, name: str) -> Row[Any] | None:
    """The row of this name (key, value, at), None where there is none."""
    return connection.execute(select(state).where(state.c.key == name)).one_or_none()


def under(connection: Connection, prefix: str) -> Sequence[Row[Any]]:
    """The rows whose names begin so, by name."""
    theirs = state.c.key.startswith(prefix, autoescape=True)
    return connection.execute(select(state).where(theirs).order_by(state.c.key)).all()


def drop(connection: Connection, names: Iterable[str]) -> None:
    """Forget these."""
    connection.execute(delete(state).where(state.c.key.in_(list(names))))


def drop_older(connection: Connection, prefix: str, before: Micros) -> None:
    """Forget the rows whose names begin so, and that were kept before that time."""
    theirs = state.c.key.startswith(prefix, autoescape=True)
    connection.execute(delete(state).where(theirs, state.c.at < before))

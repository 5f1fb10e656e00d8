"""Leases: what one of many workers does at a time. By the database's clock; a lease that is not renewed ends."""

from __future__ import annotations

from sqlalchemy import delete

from relay.model import SECOND
from relay.store.database import Database, insert_into
from relay.store.tables import state

_PREFIX = "lease "


def take(database: Database, key: str, owner: str, seconds: float) -> bool:
    """Take, or renew, the lease `key` for so many seconds; False while another owner has it. Raises Unavailable."""
    with database.write() as connection:
        now = database.now(connection)
        new = insert_into(connection, state).values(key=_PREFIX + key, value=owner, at=now + int(seconds * SECOND))
        free = (state.c.value == owner) | (state.c.at <= now)
        values = {"value": new.excluded.value, "at": new.excluded.at}
        taken = new.on_conflict_do_update(index_elements=["key"], set_=values, where=free).returning(state.c.key)
        return connection.execute(taken).first() is not None


def give_back(database: Database, key: str, owner: str) -> None:
    """End the lease; nothing happens where it is no longer the owner's. Raises Unavailable."""
    with database.write() as connection:
        connection.execute(delete(state).where(state.c.key == _PREFIX + key, state.c.value == owner))

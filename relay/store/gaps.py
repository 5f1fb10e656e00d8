"""Gaps: until when messages of the providers may have been lost, because no process of ours could take them.

Whoever was away says so as soon as it is back; a reconcile that begins later finds what was lost.
"""

from __future__ import annotations

from sqlalchemy import Connection

from relay.model import Micros
from relay.store import states

_KEY = "gap"
_SINCE = "reconcile since"


def note(connection: Connection, now: Micros) -> None:
    """Say that messages may have been lost until now."""
    states.put(connection, _KEY, "", now)


def until(connection: Connection) -> Micros:
    """Until when messages may have been lost, 0 for never."""
    row = states.get(connection, _KEY)
    return 0 if row is None else int(row.at)


def ask_from(connection: Connection, since: Micros, now: Micros) -> None:
    """Have the changes since then read again, of every source."""
    states.put(connection, _SINCE, str(since), now)


def asked_from(connection: Connection) -> tuple[Micros, Micros] | None:
    """From when somebody wanted the changes read last, and when they asked; None where nobody ever did."""
    row = states.get(connection, _SINCE)
    return None if row is None else (int(row.value), row.at)

"""Gaps: until when messages of the providers may have been lost, because no process of ours could take them.

Whoever was away says so as soon as it is back; a reconcile that begins later finds what was lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from relay.model import Micros
from relay.store import states

_KEY = "gap"
_SINCE = "reconcile since "


def note(connection: Connection, now: Micros) -> None:
    """Say that messages may have been lost until now."""
    states.put(connection, _KEY, "", now)


def until(connection: Connection) -> Micros:
    """Until when messages may have been lost, 0 for never."""
    row = states.get(connection, _KEY)
    return 0 if row is None else int(row.at)


def ask_from(connection: Connection, sources: Iterable[str], since: Micros, now: Micros) -> None:
    """Have the changes since then, or since when they are asked for already, read again, once, of these sources."""
    before = asked(connection)
    for source in sources:
        states.put(connection, _SINCE + source, str(min(since, before.get(source, since))), now)


def asked(connection: Connection) -> dict[str, Micros]:
    """From when somebody wants the changes of a source read that was not read so yet, by source."""
    return {row.key.removeprefix(_SINCE): int(row.value) for row in states.under(connection, _SINCE)}


def take_asked(connection: Connection, source: str) -> Micros | None:
    """From when somebody wants this source read, None where nobody does. It is given once: whoever takes it reads."""
    row = states.get(connection, _SINCE + source)
    states.drop(connection, [_SINCE + source])
    return None if row is None else int(row.value)

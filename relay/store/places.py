"""Places: how far the changes of each source are read (`reconcile`), kept under `cursor SOURCE` in `states`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from relay.model import Micros
from relay.store import states

_CURSOR = "cursor "


@dataclass(frozen=True, slots=True)
class Place:
    """How far a source's changes are read. `since`: when reading began; the rest tells of the last pass.

    `read` changes, of which `found` were new; `error`: why it stopped. `whole_at`: when the last pass before this one
    began that came to its end. `unread_from` to `unread_until`: the last long time without one (0: never before).
    Times are None while there was none.
    """

    source: str
    cursor: str | None = None
    since: Micros | None = None
    started_at: Micros | None = None
    ended_at: Micros | None = None
    read: int = 0
    found: int = 0
    error: str | None = None
    whole_at: Micros | None = None
    unread_from: Micros | None = None
    unread_until: Micros | None = None

    @property
    def last_whole_at(self) -> Micros | None:
        """When the last pass began that came to its end, be it this one."""
        ended = self.ended_at is not None and self.error is None
        return self.started_at if ended else self.whole_at

    def begin(self, now: Micros, long: Micros) -> Place:
        """The same place as a new pass begins; `long`: how long is a long time without a whole one."""
        whole_at = self.last_whole_at
        since = now if self.since is None else self.since
        begun = Place(self.source, self.cursor, since, started_at=now, whole_at=whole_at)
        if whole_at is None or now - whole_at > long:
            return replace(begun, unread_from=whole_at or 0, unread_until=now)
        return replace(begun, unread_from=self.unread_from, unread_until=self.unread_until)


def place_of(connection: Connection, source: str) -> Place:
    """How far a source is."""
    return all_places(connection).get(source, Place(source))


def all_places(connection: Connection) -> dict[str, Place]:
    """How far every source is that was ever read."""
    told = (Place(**json.loads(row.value)) for row in states.under(connection, _CURSOR))
    return {place.source: place for place in told}


def write_place(connection: Connection, place: Place, now: Micros) -> None:
    """Keep how far a source is; in the transaction of what was found there."""
    value = json.dumps({name: getattr(place, name) for name in Place.__slots__})
    states.put(connection, _CURSOR + place.source, value, now)

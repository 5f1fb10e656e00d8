"""Reconciling: what the messages missed is read from the provider itself, and goes the same way as they do.

On a timer, at once after messages may have been lost, and when somebody asks. One worker at a time reads a source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from relay import log, model
from relay.contracts import did_you_mean, show
from relay.directories.base import Directory
from relay.errors import LookUpFailed, Refused
from relay.model import SECOND, Micros, to_iso
from relay.rules import RuleSet
from relay.store import found, gaps, leases, regrants
from relay.store.database import Database
from relay.store.decisions import Decision, note
from relay.store.found import Listing
from relay.store.places import Place, all_places, place_of, write_place

#: Seconds for one page and its writing; the lease is taken anew for each.
LEASE = 300.0
#: Days for which a provider keeps what it is asked for afterwards, by the type of source. Graph lists all there is.
#: https://developer.okta.com/docs/reference/system-log-query/
KEPT_DAYS: Mapping[str, int] = {"okta": 90}
#: After a failure a source is read again so much later.
AGAIN: Micros = 60 * SECOND
_DAY: Micros = 86_400 * SECOND
#: Told what a pass has come to, after each page.
Progress = Callable[[Place], None]


class Reconciler:
    """Reads the sources that have a directory.

    `rules` say who accounts are; `lost` gives until when a source's own messages may have been lost.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        directories: Callable[[], Mapping[str, Directory]],
        rules: Callable[[], RuleSet],
        every: Callable[[], float],
        lost: Callable[[], Mapping[str, Micros]] = dict,
    ) -> None:
        self._database = database
        self._owner = owner
        self._directories = directories
        self._rules = rules
        self._every = every
        self._lost = lost

    def turn(self) -> None:
        """Read what is due. Raises Unavailable."""
        for source in self._due():
            self.run(source)

    def run(self, source: str, since: Micros | None = None, progress: Progress = lambda place: None) -> Place | None:
        """Read one source to its end; None: another worker reads it.

        It is read from where it was left, and from `since` or when somebody has asked for (`ask`). What goes wrong at
        the provider is in the `error` of how far it came; what was read before it is kept. Raises
        Unavailable.
        """
        if not leases.take(self._database, f"reconcile {source}", self._owner, LEASE):
            return None
        try:
            return self._read(self._directories()[source], since, progress)
        finally:
            leases.give_back(self._database, f"reconcile {source}", self._owner)

    def _due(self) -> list[str]:
        """The sources to read now."""
        directories = self._directories()
        if not directories:
            return []
        lost = self._lost()
        with self._database.read() as connection:
            now = self._database.now(connection)
            places = all_places(connection)
            gap = gaps.until(connection)
            asked = gaps.asked(connection)
        every = int(self._every() * SECOND)
        of_each = [places.get(source, Place(source)) for source in sorted(directories)]
        return [
            place.source
            for place in of_each
            if _is_due(place, place.source in asked, max(gap, lost.get(place.source, 0)), every, now)
        ]

    def _read(self, directory: Directory, since: Micros | None, progress: Progress) -> Place:
        """Read from where it was left, then from when somebody has asked for: the former may be the earlier one."""
        source = directory.name
        with self._database.write() as connection:
            now = self._database.now(connection)
            if since is not None:
                gaps.ask_from(connection, [source], since, now)
            asked = source in gaps.asked(connection)
            before = place_of(connection, source)
            place = before.begin(now, regrants.LATE)
            write_place(connection, place, now)
        log.get(source=source).info("reconcile started")
        if before.since is not None or not asked:
            place = self._take_in(directory, place, progress)
        if asked and place.error is None:
            place = self._take_in(directory, self._asked_place(place), progress)
        with self._database.write() as connection:
            now = self._database.now(connection)
            place = replace(place, ended_at=now)
            write_place(connection, place, now)
        self._database.waker.wake()
        if place.error is None:
            log.get(source=source).info("reconciled", read=place.read, found=place.found)
        return place

    def _asked_place(self, place: Place) -> Place:
        """The place to go on from that somebody has asked for; it is given once."""
        with self._database.write() as connection:
            now = self._database.now(connection)
            since = gaps.take_asked(connection, place.source)
            place = place if since is None else replace(place, cursor=None, since=since)
            write_place(connection, place, now)
        return place

    def _take_in(self, directory: Directory, place: Place, progress: Progress) -> Place:
        """Keep what the directory tells from a place on; how far that came, with the error that ended it."""
        begun, listing, rules = place, Listing(), self._rules()
        try:
            for page in directory.changes(begun.cursor, begun.since or 0):
                # A listing that breaks off begins anew: its cursor counts only when it has ended.
                cursor = page.cursor if page.last or not page.snapshot else begun.cursor
                shown = listing if page.snapshot else None
                place = found.keep(self._database, rules, place, page.events, cursor, shown, page.last)
                leases.take(self._database, f"reconcile {place.source}", self._owner, LEASE)
                progress(place)
        except LookUpFailed as error:
            place = replace(place, error=str(error))
            told = {"reason": str(error), "read": place.read, "found": place.found}
            log.get(source=place.source).error("reconcile stopped", **told)
        return place


def _is_due(place: Place, asked: bool, lost_at: Micros, every: Micros, now: Micros) -> bool:
    if place.started_at is None:
        return True
    if place.error is not None:
        return now >= place.started_at + AGAIN
    return asked or now >= place.started_at + every or lost_at > place.started_at


def chosen(types: Mapping[str, str], name: str | None, since: Micros | None = None) -> list[str]:
    """The sources to read: the one of this name, or all that can be.

    `types`: of each source that can be read its type in relay.yaml. Raises Refused: 409 where there is none, 400 for
    a wrong name and for a time that is still to come or from which a provider has nothing any more.
    """
    if since is not None and since > model.now():
        raise Refused(400, f"since: {to_iso(since)} is still to come; wanted is a time that has been, such as 24h")
    without = "credentials for its provider's API in relay.yaml (`api` or `graph`)"
    if not types:
        raise Refused(409, f"no source has {without}")
    if name is not None and name not in types:
        raise Refused(400, f"{show(name)} is no source that has {without}{did_you_mean(name, types)}")
    names = sorted(types) if name is None else [name]
    for one in names:
        kept = KEPT_DAYS.get(types[one])
        if since is not None and kept is not None and model.now() - since >= (kept + 1) * _DAY:
            told = f"the provider of {show(one)} keeps what it tells for {kept} days; wanted is a time since then"
            raise Refused(400, f"since: {told}, such as {kept}d")
    return names


def ask(
    database: Database, actor: str, reason: str | None, sources: Iterable[str] = (), since: Micros | None = None
) -> dict[str, Any]:
    """Have every source read as soon as a worker can: from where it was left, or from `since`. Raises Unavailable.

    `since` counts for `sources`, those that can be read now, and for none that relay.yaml names later: what happened
    before a source was there is not its news. It is written down who asked.
    """
    with database.write() as connection:
        now = database.now(connection)
        gaps.note(connection, now)
        if since is not None:
            gaps.ask_from(connection, sources, since, now)
        detail = {} if since is None else {"since": to_iso(since)}
        note(connection, Decision(actor, "reconcile", reason, detail), now)
    return {"asked": True}


def shown(database: Database) -> dict[str, Any]:
    """How far each source is read: what the API and the command line show. Raises Unavailable.

    `read` and `found` are of the last reading, `found_alone` are all the events that no message has ever told.
    """
    with database.read() as connection:
        places, alone = all_places(connection), found.counts(connection)
    return {"sources": [_shown(place, alone.get(place.source, 0)) for _, place in sorted(places.items())]}


def _shown(place: Place, alone: int) -> dict[str, Any]:
    return {
        "source": place.source,
        "since": to_iso(place.since),
        "started_at": to_iso(place.started_at),
        "ended_at": to_iso(place.ended_at),
        "read": place.read,
        "found": place.found,
        "found_alone": alone,
        "error": place.error,
    }

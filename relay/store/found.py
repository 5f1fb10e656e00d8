"""What reconcile found: events that no message told.

A provider whose changes have ids (Okta) is compared by them. Where they have none (Graph), by what is known: a change
that says what is known already, or what an event that waits says too, is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any

from sqlalchemy import Connection, Row, func, select

from relay.model import ACCOUNT_LOSSES, GAINS, AccessEvent, Basis, EventState, Fact, Kind, Micros, ObjectType
from relay.rules import RuleSet
from relay.store import regrants, taking
from relay.store.database import CHUNK, Database, chunks
from relay.store.facts import add_unknown, is_of_group
from relay.store.identities import note_listed
from relay.store.people import due_for_planning
from relay.store.places import Place, write_place
from relay.store.record import insert_events, rows_of
from relay.store.tables import events, facts, identities
from relay.truth import YOUNG

RECONCILE = "reconcile"

Member = tuple[str, str]


@dataclass(slots=True)
class Listing:
    """What a pass that lists everything has shown so far: users, and who is in each group."""

    users: set[str] = field(default_factory=set)
    members: dict[str, set[str]] = field(default_factory=dict)

    def add(self, changes: Iterable[AccessEvent]) -> None:
        for event in changes:
            subject = intern(event.subject or "")  # one string for all groups of a person: there may be millions
            if event.group_id is None:
                self.users.add(subject)
            elif event.kind is Kind.GROUP_MEMBER_ADDED:
                self.members.setdefault(event.group_id, set()).add(subject)

    def has(self, subject: str, group_id: str) -> bool:
        """Whether somebody was shown in a group."""
        return subject in self.members.get(group_id, ())


def keep(
    database: Database,
    rules: RuleSet,
    place: Place,
    changes: Collection[AccessEvent],
    cursor: str | None,
    listing: Listing | None,
    last: bool,
) -> Place:
    """Write down one page of changes, who its people are, and how far the source is with it. Raises Unavailable.

    `listing` is that of a pass that lists everything: what is missing at its last page is lost.
    """
    if listing is not None:
        listing.add(changes)
        place = _keep_missing(database, place, listing) if last else place
    with database.write() as connection:
        now = database.now(connection)
        listed = [event for event in changes if event.kind is Kind.ACCOUNT_ACTIVATED and event.key is None]
        due_for_planning(connection, note_listed(connection, rules, listed, _safely_before(place)), now)
        number, news = 0, changes
        if listing is not None:
            shown = _shown(connection, place, changes)
            number = _record(connection, place.source, shown, now, as_of=_safely_before(place))
            news = _listed(connection, place, changes)
        number += _record(connection, place.source, news, now)
        kept = replace(place, cursor=cursor, read=place.read + len(changes), found=place.found + number)
        write_place(connection, kept, now)
    database.waker.wake()
    return kept


def _keep_missing(database: Database, place: Place, listing: Listing) -> Place:
    """Record what a listing has not shown, some at a time: nobody else can write meanwhile.

    Where it breaks off, the next listing finds the rest: what is recorded or known to be lost already is no news.
    """
    with database.read() as connection:
        missing = _missing(connection, place, listing)
    for start in range(0, len(missing), CHUNK):
        with database.write() as connection:
            number = _record(connection, place.source, missing[start : start + CHUNK], database.now(connection))
        place = replace(place, found=place.found + number)
    return place


def counts(connection: Connection, by: str = RECONCILE) -> dict[str, int]:
    """How many events only reconcile (or what else is named by) has found, by source."""
    rows = connection.execute(
        select(events.c.source, func.count()).where(events.c.found_by == by).group_by(events.c.source)
    )
    return {source: number for source, number in rows}  # noqa: C416 - typed rows, no plain tuples


def _news(connection: Connection, source: str, changes: Collection[AccessEvent]) -> list[AccessEvent]:
    """Changes without an id that say something new of somebody."""
    if not changes:
        return []
    subjects = {event.subject or "" for event in changes}
    known, waiting = _known(connection, source, subjects), _waiting(connection, source, subjects)
    fresh: dict[tuple[str, str, str], AccessEvent] = {}
    for event in changes:
        key = (event.subject or "", event.group_id or "", event.kind.value)
        if key not in waiting and _is_news(event, known.get((key[0], key[1]))):
            fresh[key] = event
    return list(fresh.values())


def _is_news(event: AccessEvent, fact: Row[Any] | None) -> bool:
    """A gain is news unless it is known, or where it is of an account nothing else was ever known.

    A loss is news unless an event has told it: one that only a look-up has seen was never planned.
    """
    if event.kind in GAINS:
        return not fact.present if fact is not None else event.kind is not Kind.ACCOUNT_ACTIVATED
    if fact is None or fact.present or fact.event_id is None:
        return True
    return event.group_id is None and fact.kind not in (None, event.kind.value)


def _known(connection: Connection, source: str, subjects: Collection[str]) -> Mapping[Member, Row[Any]]:
    """The facts of these people, by subject and group ("" for the account), with the kind of event that told each."""
    found: dict[Member, Row[Any]] = {}
    for chunk in chunks(subjects):
        rows = connection.execute(
            select(facts.c.subject, facts.c.object_id, facts.c.present, facts.c.event_id, events.c.kind)
            .outerjoin(events, events.c.id == facts.c.event_id)
            .where(
                facts.c.source == source,
                facts.c.subject.in_(chunk),
                facts.c.object_type != ObjectType.APP.value,
            )
        )
        found |= {(row.subject, row.object_id): row for row in rows}
    return found


def _waiting(connection: Connection, source: str, subjects: Collection[str]) -> set[tuple[str, str, str]]:
    """What recorded events of these people say that are not planned yet.

    Those that are held are not among them: what they say is in the facts already, and may have changed since.
    """
    found: set[tuple[str, str, str]] = set()
    for chunk in chunks(subjects):
        rows = connection.execute(
            select(events.c.subject, events.c.group_id, events.c.kind).where(
                events.c.source == source,
                events.c.state == EventState.RECEIVED.value,
                events.c.subject.in_(chunk),
            )
        )
        found |= {(row.subject, row.group_id or "", row.kind) for row in rows}
    return found


def _is_known_group(connection: Connection, event: AccessEvent) -> bool:
    """Whether a change of a whole group concerns anybody: somebody is known to be in it, or people came into it."""
    if event.kind in GAINS:
        return True
    member = select(facts.c.subject).where(is_of_group(event.source, event.group_id), facts.c.present)
    return connection.execute(member.limit(1)).first() is not None


def _listed(connection: Connection, place: Place, changes: Collection[AccessEvent]) -> list[AccessEvent]:
    """The changes among what a listing shows. Memberships of which nothing was known are only noted."""
    gains = [event for event in changes if event.kind is Kind.GROUP_MEMBER_ADDED]
    lost = {event.subject or "" for event in changes if event.kind in ACCOUNT_LOSSES}
    unknown = _strangers(connection, place.source, lost)
    add_unknown(connection, (_membership(event, _safely_before(place)) for event in gains))
    return [event for event in changes if event.kind not in ACCOUNT_LOSSES or event.subject not in unknown]


def _shown(connection: Connection, place: Place, changes: Collection[AccessEvent]) -> list[AccessEvent]:
    """Memberships in a listing, of which nothing was known, of people from whom something was taken lately: they may
    give that back, or go with an account.
    """
    gains = [event for event in changes if event.kind is Kind.GROUP_MEMBER_ADDED]
    known = _known(connection, place.source, {event.subject or "" for event in gains})
    fresh = [event for event in gains if (event.subject or "", event.group_id or "") not in known]
    since = regrants.may_be_from(connection, place.source, _safely_before(place)) - regrants.CLOCKS
    losers = taking.losers(connection, place.source, {event.subject or "" for event in fresh}, since)
    return [event for event in fresh if event.subject in losers]


def _membership(gain: AccessEvent, as_of: Micros) -> Fact:
    """What a listing shows of one member of a group."""
    told = (gain.source, gain.subject or "", ObjectType.GROUP, gain.group_id or "")
    return Fact(*told, present=True, as_of=as_of, basis=Basis.SOURCE, name=gain.group_name)


def _missing(connection: Connection, place: Place, listing: Listing) -> list[AccessEvent]:
    """Losses of what was known before the listing began and is not in it."""
    before = _safely_before(place)
    people = _identified(connection, place.source)  # what is not a person, such as a device, is in groups too
    gone = _in_force(connection, place.source, before) - listing.users
    groups = []
    for subject, group_id, name in _held(connection, place.source, before):
        if subject not in people:
            continue
        if subject not in listing.users:
            gone.add(subject)
        elif not listing.has(subject, group_id):
            groups.append((subject, group_id, name))
    payload = b'{"missing":"it is not among what the directory lists"}'
    lost = AccessEvent(place.source, Kind.GROUP_MEMBER_REMOVED, "missing.member", payload)
    told = [replace(lost, kind=Kind.ACCOUNT_DELETED, type="missing.user", subject=subject) for subject in sorted(gone)]
    return told + [
        replace(lost, subject=subject, group_id=group_id, group_name=name) for subject, group_id, name in groups
    ]


def _safely_before(place: Place) -> Micros:
    """A time before the pass began by which what was so then shows everywhere."""
    return (place.started_at or 0) - YOUNG


def _record(
    connection: Connection,
    source: str,
    changes: Collection[AccessEvent],
    now: Micros,
    *,
    as_of: Micros | None = None,
) -> int:
    """Record what is new of these changes; how many that were. `as_of`: since when at least it is so, if known."""
    keyed = [event for event in changes if event.key is not None]
    news = [event for event in changes if event.key is None and event.subject is None]
    news += _news(connection, source, [event for event in changes if event.key is None and event.subject is not None])
    news = [event for event in news if event.subject is not None or _is_known_group(connection, event)]
    rows = rows_of([*keyed, *(replace(event, twin=True) for event in news)], now, found_by=RECONCILE)
    if as_of is not None:
        rows = [row | {"as_of": as_of} for row in rows]
    return len(rows) - len(insert_events(connection, rows)) if rows else 0


def _strangers(connection: Connection, source: str, subjects: Collection[str]) -> set[str]:
    """Of these the subjects of whom nothing is known at all."""
    known: set[str] = set()
    for chunk in chunks(subjects):
        for table in (facts, identities):
            named = select(table.c.subject).where(table.c.source == source, table.c.subject.in_(chunk)).distinct()
            known.update(connection.execute(named).scalars())
    return set(subjects) - known


def _held(connection: Connection, source: str, before: Micros) -> Iterator[tuple[str, str, str | None]]:
    """Every membership known to hold since before that time: subject, group and name."""
    held = select(facts.c.subject, facts.c.object_id, facts.c.name).where(
        facts.c.source == source,
        facts.c.object_type == ObjectType.GROUP.value,
        facts.c.present,
        facts.c.as_of < before,
    )
    for row in connection.execute(held.execution_options(yield_per=CHUNK)):
        yield row.subject, row.object_id, row.name


def _identified(connection: Connection, source: str) -> set[str]:
    """Every account of which it is known who it is."""
    return set(connection.execute(select(identities.c.subject).where(identities.c.source == source)).scalars())


def _in_force(connection: Connection, source: str, before: Micros) -> set[str]:
    """Every account that is somebody since before that time, and whose loss nobody has told."""
    lost = (
        select(facts.c.subject)
        .where(facts.c.source == source, facts.c.object_type == ObjectType.ACCOUNT.value, ~facts.c.present)
        .scalar_subquery()
    )
    known = select(identities.c.subject).where(
        identities.c.source == source,
        identities.c.current,
        identities.c.since < before,
        identities.c.subject.not_in(lost),
    )
    return set(connection.execute(known).scalars())

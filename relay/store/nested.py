"""Groups that come into other groups or leave them: whom that is about only the directory's list of members tells.

A message names the member by its id alone. That it is a group a look-up tells; then the event is about everybody in it
and names nobody (`subject` None). The members of the outer group are listed, and who gained or lost it by that gets a
child, 500 at a time, which is looked up like any other event of a person.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, or_, select, update

from relay import truth
from relay.model import AccessEvent, Account, Basis, EventState, Fact, Kind, Micros, ObjectType, Status
from relay.rules import RuleSet
from relay.store import guard, look_ups, regrants, taking, turned, verify
from relay.store.decisions import was_decided_against
from relay.store.ending import end
from relay.store.facts import add_unknown, is_of_group, learn_lost
from relay.store.fan_out import BATCH, add_children, hold, listed_for, loss_of, what
from relay.store.look_ups import About, Question
from relay.store.record import insert_events, row_of
from relay.store.tables import events, facts
from relay.truth import YOUNG

_OF_MEMBERS = (Kind.GROUP_MEMBER_REMOVED.value, Kind.GROUP_MEMBER_ADDED.value)


def is_one(connection: Connection, rules: RuleSet, question: Question, account: Account) -> bool:
    """Whether what was looked up as an account is a group: the directory says so, or somebody was known to be in it."""
    if question.source not in rules.terse or account.status not in (Status.GROUP, Status.GONE):
        return False
    member = select(facts.c.subject).where(is_of_group(question.source, question.object_id))
    return account.status is Status.GROUP or connection.execute(member.limit(1)).first() is not None


def tell_of_people(
    connection: Connection, question: Question, waiting: Iterable[Row[Any]], now: Micros
) -> list[Row[Any]]:
    """Make the events that take a group for a member into events about the people in it; return the others.

    Those that wait lose their subject; what was planned already, and is kept as if of somebody, is told anew, unless
    somebody decided that it takes nothing.
    """
    rows = list(waiting)
    ids = [row.id for row in rows if row.kind in _OF_MEMBERS]
    nobody = dict.fromkeys(("subject", "person_id", "look_at", "wait_until", "reason", "dedup_key"))
    still = and_(events.c.id.in_(ids), events.c.state == EventState.RECEIVED.value)
    connection.execute(update(events).where(still).values(**nobody, looks=0))
    theirs = and_(facts.c.source == question.source, facts.c.subject == question.object_id)
    known = connection.execute(select(facts).where(theirs, facts.c.object_type == ObjectType.GROUP.value)).all()
    told_by = select(events.c.id).where(events.c.id.in_([fact.event_id for fact in known]), was_decided_against())
    over = {*ids, *connection.execute(told_by).scalars()}
    told = [row_of(_anew(fact), now) for fact in known if fact.event_id not in over]
    if told:
        insert_events(connection, told)
    connection.execute(delete(facts).where(theirs))
    return [row for row in rows if row.id not in ids]


def _anew(fact: Row[Any]) -> AccessEvent:
    kind = Kind.GROUP_MEMBER_ADDED if fact.present else Kind.GROUP_MEMBER_REMOVED
    payload = b'{"look-up":"the member of this group that a message told of is a group itself"}'
    group = {"group_id": fact.object_id, "group_name": fact.name}
    return AccessEvent(fact.source, kind, "look-up.group", payload, twin=True, **group)


def is_about_group(row: Row[Any]) -> bool:
    """Whether an event without a subject is about a group's coming into or leaving another."""
    return row.kind in _OF_MEMBERS


def may_hold_people(row: Row[Any]) -> bool:
    """Whether spreading an event may hold people: it has asked who they are, who may have gained what they lost."""
    return row.subject is None and is_about_group(row) and not _is_lost(row) and row.look_at is not None


def spread(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> None:
    """Make one child for each person who gained or lost a group because another group came into it or left it.

    The list of members is asked for again while it may lag behind.
    """
    if row.source not in rules.looked_up:
        _end(connection, row, EventState.FAILED, f"needs a look-up: configure sources.{row.source}.graph", now)
        return
    told = listed_for(connection, rules, row, now)
    if told is None:
        return
    if told.unanswered is not None:
        why = f"the members of {what(row)} could not be listed: {told.unanswered['error']}"
        look_ups.drop(connection, About.of_event(row))
        _end(connection, row, EventState.FAILED, why, now)
        return
    if _is_lost(row):
        number = _tell_losers(connection, rules, row, told.people, now)
    else:
        number = _tell_winners(connection, row, told.people, told.fetched_at)
    if number is not None:
        _end_or_ask_again(connection, rules, row, told.fetched_at, number, now)


def _tell_losers(
    connection: Connection, rules: RuleSet, row: Row[Any], listed: Collection[str], now: Micros
) -> int | None:
    """Make the children of those who lost the group; how many there are, None where that is not the end of it."""
    made = _told(connection, row)
    ahead = sorted(_losers(connection, row, listed) - made)
    held = None if made else guard.holds_group(rules, row, len(ahead))
    if held is not None:
        hold(connection, row, held, now)
        return None
    return _add(connection, row, made, ahead)


def _tell_winners(connection: Connection, row: Row[Any], listed: Collection[str], fetched_at: Micros) -> int | None:
    """Make the children of those who have the group again; how many there are, None where more are to come."""
    if _note_newcomers(connection, row, listed, fetched_at) == BATCH:
        return None  # the rest in the next transaction
    made = _told(connection, row)
    return _add(connection, row, made, sorted(_winners(connection, row, listed) - made))


def _told(connection: Connection, row: Row[Any]) -> set[str]:
    """Who has a child of the event already."""
    return set(connection.execute(select(events.c.subject).where(events.c.parent_id == row.id)).scalars())


def _add(connection: Connection, row: Row[Any], made: Collection[str], ahead: Sequence[str]) -> int | None:
    """Make a BATCH of the children that are ahead; how many there are then, None where more are to come."""
    add_children(connection, row, ahead[:BATCH])
    return None if len(ahead) > BATCH else len(made) + len(ahead)


def _end_or_ask_again(
    connection: Connection, rules: RuleSet, row: Row[Any], fetched_at: Micros, number: int, now: Micros
) -> None:
    """End an event with so many children, or ask again for the list while it may lag behind."""
    said = _said(row, number)
    doubt = verify.Doubt(truth.Finding(None, said, denies=row.as_of), fetched_at, row.looks)
    if verify.waits_again(connection, row, About.of_event(row), doubt, patience=rules.patience):
        return
    state = EventState.IGNORED if _is_lost(row) and not number else EventState.DONE
    _end(connection, row, state, said, now, found=number > 0)


def learn_losers(connection: Connection, row: Row[Any]) -> None:
    """Keep, for whoever has lost a group because another one left it, that it is so, although somebody decided that it
    takes nothing. Or the next answer about each of them would be news.
    """
    state = look_ups.state_of(connection, About.of_event(row))
    if row.subject is not None or not _is_lost(row) or state is None or state.fetched_at is None:
        return  # also where nobody has told who is in it: its own members may all be
    ahead = sorted(_losers(connection, row, look_ups.people_in(state)) - _told(connection, row))
    for start in range(0, len(ahead), BATCH):
        theirs = and_(is_of_group(row.source, row.group_id), facts.c.subject.in_(ahead[start : start + BATCH]))
        learn_lost(connection, loss_of(row, ""), select(facts.c.subject).where(theirs))


def _losers(connection: Connection, row: Row[Any], listed: Collection[str]) -> set[str]:
    """Who is known to have had the group when it was told, and is not listed; or to have lost it by this."""
    had = or_(and_(facts.c.present, facts.c.as_of <= row.as_of), and_(~facts.c.present, facts.c.event_id == row.id))
    in_it = select(facts.c.subject).where(is_of_group(row.source, row.group_id), had)
    return set(connection.execute(in_it).scalars()) - set(listed)


def _note_newcomers(connection: Connection, row: Row[Any], listed: Collection[str], fetched_at: Micros) -> int:
    """Note a BATCH of those listed of whom nothing was known; how many that were.

    They are looked up, too: the group may lie in others, and they have those as well. For who has lately lost something
    it is an event: it may give that back, or go with an account.
    """
    known = connection.execute(select(facts.c.subject).where(is_of_group(row.source, row.group_id))).scalars()
    fresh = sorted(set(listed).difference(known))[:BATCH]
    fact = Fact(row.source, "", ObjectType.GROUP, row.group_id, True, fetched_at - YOUNG, Basis.SOURCE, row.group_name)
    since = min(row.as_of, fact.as_of) - regrants.LATE - regrants.CLOCKS
    losers = taking.losers(connection, row.source, fresh, since)  # before anything is written: it holds their people
    add_unknown(connection, (replace(fact, subject=subject) for subject in fresh))
    for subject in fresh:
        turned.ask_soon_and_later(connection, row, subject, due_at=fetched_at)
    add_children(connection, row, sorted(losers))
    return len(fresh)


def _winners(connection: Connection, row: Row[Any], listed: Collection[str]) -> set[str]:
    """Who is listed and known to have lost the group before."""
    known = connection.execute(select(facts).where(is_of_group(row.source, row.group_id))).all()
    return {one.subject for one in known if not one.present and one.as_of <= row.as_of}.intersection(listed)


def _is_lost(row: Row[Any]) -> bool:
    return bool(row.kind == Kind.GROUP_MEMBER_REMOVED.value)


def _said(row: Row[Any], people: int) -> str:
    if _is_lost(row):
        return f"a group left {what(row)}; known members who are in it no more: {people}, one event each"
    told = "members who had lost it, or lately something else"
    return f"gain: a group came into {what(row)}; {told}: {people}, one event each"


def _end(
    connection: Connection, row: Row[Any], state: EventState, reason: str, now: Micros, found: bool = True
) -> None:
    """End the event; one that came to nothing is not counted among what reconcile found."""
    counted = {} if found else {"found_by": None}
    end(connection, [row.id], state, reason, now, **counted)

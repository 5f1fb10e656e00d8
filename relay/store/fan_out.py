"""Fanning out: an event about a whole group or app becomes one child for each person known to have it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from sqlalchemy import CompoundSelect, Connection, Row, Select, and_, func, or_, select, update

from relay import entitlement
from relay.model import EventState, Fact, Kind, Micros, ObjectType
from relay.rules import RuleSet
from relay.store import guard, look_ups
from relay.store.decisions import was_decided_against
from relay.store.ending import end
from relay.store.facts import group_name, learn, learn_lost
from relay.store.look_ups import About
from relay.store.record import event_of, insert_events, row_of
from relay.store.tables import events, facts, identities

#: Children made in one transaction.
BATCH = 500

#: The kinds that, without a subject, end a group or app for everybody who has it.
ENDS = frozenset({Kind.GROUP_DELETED.value, Kind.APP_ACCESS_REMOVED.value})

#: Of these the directory is asked: who has the app now, whether the group is still there. Who was in a group that is
#: gone nobody can tell any more.
_ASKED = frozenset({Kind.APP_ACCESS_REMOVED.value, Kind.GROUP_CHANGED.value})

#: Who came into a deleted group before the relay, and of whom nothing was told since, nobody can name any more.
_OTHERS = "; who was in it before the relay knew of it is not told: `python -m relay audit` compares"


@dataclass(frozen=True, slots=True)
class Listed:
    """Who has the group or app of an event by its directory, in order, and when that was asked (0: never).

    `unanswered` says why there was no answer in time, None where there was or nobody asked.
    """

    people: Sequence[str] = ()
    fetched_at: Micros = 0
    unanswered: dict[str, str | None] | None = None


def fan_out(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> None:
    """Turn an event about a whole group or app into one child for each person known or told to have it.

    That is a BATCH at a time; the event stays `received` while there may be more.
    """
    fan_out_some(connection, rules, row, now, BATCH)


def fan_out_some(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros, batch: int) -> None:
    """The same for at most so many people."""
    asked = row.source in rules.looked_up and row.kind in _ASKED
    told = listed_for(connection, rules, row, now) if asked else Listed()
    if told is None:
        return
    listed = told.people
    begins = row.plan is None
    count = count_members(connection, row, listed) if rules.guard and begins else 0
    held = guard.holds_group(rules, row, count) if count else None
    if held is not None:
        hold(connection, row, held, now)
        return
    progress: dict[str, Any] = json.loads(row.plan) if row.plan else {"people": 0, "after": "", "listed": 0}
    next_listed = listed[progress["listed"] :][:batch]
    known = _members(connection, row, progress["after"], batch) if len(next_listed) < batch else []
    children = dict.fromkeys([*next_listed, *(member for member in known if member not in set(listed))])
    add_children(connection, row, children)
    progress = {
        "people": progress["people"] + len(children),
        "after": known[-1] if known else progress["after"],
        "listed": progress["listed"] + len(next_listed),
    }
    made = {"plan": json.dumps(progress | {"directory": told.unanswered})}
    if len(next_listed) == batch or len(known) == batch:  # the rest in the next transaction
        connection.execute(update(events).where(events.c.id == row.id).values(**made))
        return
    name = row.group_name or group_name(connection, row.source, row.group_id)
    end(connection, [row.id], planned_at=now, **made, **fanned_out(rules, row, progress["people"]), group_name=name)


def add_children(connection: Connection, row: Row[Any], members: Iterable[str]) -> None:
    """Make one child of an event for each of these people."""
    event = replace(event_of(row._asdict()), state=EventState.RECEIVED, reason=None)
    children = [
        row_of(
            replace(event, subject=member, key=f"{row.id}/{member}", twin=False, payload=b""),
            row.received_at,
            parent_id=row.id,
            replay=row.replay,
        )
        | {"as_of": row.as_of}
        for member in members
    ]
    if children:
        insert_events(connection, children)


def tell_latecomer(connection: Connection, gains: Iterable[Fact]) -> None:
    """Make the children of the ends of groups and apps for somebody of whom it was told only afterwards that they had
    these. `gains` are facts of one account.

    An end that is being fanned out has to be told, too: its batches may be past this person. Of one that somebody has
    decided against only the loss is kept.
    """
    had = {fact.thing: fact for fact in gains}
    if not had:
        return
    source, subject = next((fact.source, fact.subject) for fact in had.values())
    groups = [object_id for object_type, object_id in had if object_type is ObjectType.GROUP]
    apps = [object_id for object_type, object_id in had if object_type is ObjectType.APP]
    of_group = and_(events.c.kind == Kind.GROUP_DELETED.value, events.c.group_id.in_(groups))
    of_app = and_(
        events.c.kind == Kind.APP_ACCESS_REMOVED.value, events.c.app_id.in_(apps), events.c.group_id.is_(None)
    )
    ended = events.c.state.in_([EventState.DONE.value, EventState.IGNORED.value])
    begun = and_(events.c.state == EventState.RECEIVED.value, events.c.plan.is_not(None))
    ends = select(events, was_decided_against().label("decided_against")).where(
        or_(of_group, of_app), events.c.source == source, events.c.subject.is_(None), or_(ended, begun)
    )
    for row in connection.execute(ends.order_by(events.c.as_of)).all():
        thing = (ObjectType.GROUP, row.group_id) if row.group_id is not None else (ObjectType.APP, row.app_id)
        if thing not in had or row.as_of < had[thing].as_of:
            continue
        if not row.decided_against:
            add_children(connection, row, [subject])
        elif _says_who_lost(connection, row):
            learn(connection, loss_of(row, subject))
            del had[thing]  # it was lost then, so that later ends of it do not concern them


def learn_end(connection: Connection, row: Row[Any]) -> None:
    """Keep, for everybody who has it, that a group or app ended, although somebody decided that it takes nothing.

    That holds for those whose gain is not planned yet, too: it came before the end, and is over when it is planned.
    Who has a child of the event already learns it from that.
    """
    if row.subject is None and row.kind in ENDS and _says_who_lost(connection, row):
        after = json.loads(row.plan)["after"] if row.plan else ""
        learn_lost(connection, loss_of(row, ""), _having(row, after))


def people_having(row: Row[Any]) -> Select[Any]:
    """The ids of the people who have, or are to have, the group or app of an event."""
    theirs = and_(identities.c.source == row.source, identities.c.subject.in_(_having(row)))
    return select(identities.c.person_id).where(theirs)


def _says_who_lost(connection: Connection, row: Row[Any]) -> bool:
    """Whether everybody has lost it by this end. An app people may have in another way still: where a directory tells
    that, it is asked for each, and where nothing is taken nobody asks.
    """
    return row.kind == Kind.GROUP_DELETED.value or not look_ups.was_ever_asked(connection, row.source)


def loss_of(row: Row[Any], subject: str) -> Fact:
    """What the end of a group or app says of one person who had it."""
    event = replace(event_of(row._asdict()), subject=subject)
    return cast(Fact, entitlement.fact_of(event, row.id, row.as_of))  # each kind in ENDS is a loss


def listed_for(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> Listed | None:
    """What the directory says an event is about; None while the event waits for that.

    Who has an app or a group is waited for once; whether a group is still there, without an end.
    """
    state = look_ups.state_of(connection, About.of_event(row))
    if state is not None and state.fetched_at is not None and state.fetched_at >= look_ups.counts_from(row):
        return Listed(look_ups.people_in(state), state.fetched_at)
    if row.wait_until is not None and row.kind != Kind.GROUP_CHANGED.value:
        return Listed(unanswered=look_ups.no_answer(state))
    look_ups.wait(
        connection,
        row,
        About.of_event(row),
        answer_from=look_ups.counts_from(row),
        until=now + rules.patience,
        due_at=state.due_at if state is not None else None,  # by an answer that was too old it is asked again already
        reason=row.reason or f"{look_ups.WAITING}: {what(row)}",
        looks=row.looks,
    )
    return None


def hold(connection: Connection, row: Row[Any], reason: str, now: Micros) -> None:
    """Have an event about many wait for somebody to approve or reject it."""
    end(connection, [row.id], EventState.HELD, reason, now)


def fanned_out(rules: RuleSet, row: Row[Any], count: int) -> dict[str, Any]:
    """The state, with its reason, of an event that was turned into so many."""
    if count:
        may_be_more = row.kind == Kind.GROUP_DELETED.value and row.source not in rules.complete
        members = f"{count} known member{'' if count == 1 else 's'} of {what(row)}, one event each"
        return {"state": EventState.DONE.value, "reason": members + (_OTHERS if may_be_more else "")}
    return {
        "state": EventState.IGNORED.value,
        "reason": f"no member of {what(row)} is known, and no directory names any",
    }


def what(row: Row[Any]) -> str:
    """The group or app that an event is about, in words."""
    return f"group {row.group_name or row.group_id}" if row.group_id else f"app {row.app_name or row.app_id}"


def _members(connection: Connection, row: Row[Any], after: str, limit: int) -> list[str]:
    """The next subjects that have the group (or the app, where no group is named), in order."""
    statement = _having(row, after).order_by("subject").limit(limit)
    return list(connection.execute(statement).scalars())


def count_members(connection: Connection, row: Row[Any], listed: Sequence[str] = ()) -> int:
    """How many people are known to have the group or app of an event, or are listed."""
    if listed:
        return len({*listed, *connection.execute(_having(row)).scalars()})
    return int(connection.execute(select(func.count()).select_from(_having(row).subquery())).scalar_one())


def _having(row: Row[Any], after: str = "") -> CompoundSelect[Any]:
    """The subjects that have the group (or the app, where no group is named), those behind `after`.

    Who gained it by an event that is recorded but not planned yet has it too. Who has it no more by an answer alone has
    lost it by this: the directory knew of the end before its message came, and no other message tells it. So has who
    lost it when somebody decided against this, should it be planned after all.
    """
    if row.group_id:
        object_type, gain, named = ObjectType.GROUP, Kind.GROUP_MEMBER_ADDED, events.c.group_id == row.group_id
    else:
        object_type, gain, named = ObjectType.APP, Kind.APP_ACCESS_ADDED, events.c.app_id == row.app_id
    told_by_it = or_(facts.c.event_id.is_(None), facts.c.event_id == row.id)
    held = select(facts.c.subject).where(
        facts.c.source == row.source,
        facts.c.object_type == object_type.value,
        facts.c.object_id == (row.group_id or row.app_id or ""),
        or_(and_(facts.c.present, facts.c.as_of <= row.as_of), and_(~facts.c.present, told_by_it)),
        facts.c.subject > after,
    )
    coming = select(events.c.subject).where(
        events.c.state == EventState.RECEIVED.value,
        events.c.source == row.source,
        events.c.kind == gain.value,
        named,
        events.c.as_of <= row.as_of,
        events.c.subject > after,
    )
    return held.union(coming)

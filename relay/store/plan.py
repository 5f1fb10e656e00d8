"""Planning: from a person's recorded events to revocations, inside the transaction that holds the person's row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, CompoundSelect, Connection, Row, and_, bindparam, select, union_all, update

from relay.model import (
    GAINS,
    LOSSES,
    EventState,
    Fact,
    Micros,
    to_iso,
)
from relay.rules import RuleSet
from relay.store import completing, parts, regrants, taking, twins, verify
from relay.store.ending import end
from relay.store.facts import dated_by_gain, group_name, learn
from relay.store.fan_out import tell_latecomer
from relay.store.identities import people_of
from relay.store.plan_json import outcome_of, plan_as_json
from relay.store.revocations import add_revocations
from relay.store.tables import events, identities
from relay.store.verify import Seen

#: Events of one person planned in one transaction; the rest follow in the next.
BATCH = 200

#: How the reason of a gain begins of which its directory says something else.
_DENIED_GAIN = "gain, but by its directory "


def _unplanned() -> CompoundSelect[Any]:
    person_id = bindparam("person_id", type_=BigInteger)
    waiting = events.c.state == EventState.RECEIVED.value
    theirs = select(events).where(waiting, events.c.person_id == person_id)
    subjects = and_(identities.c.source == events.c.source, identities.c.subject == events.c.subject)
    mine = and_(identities.c.person_id == person_id, identities.c.current, events.c.person_id != person_id)
    # By the subjects, which are few; an index by state would read everything that waits, of whomever.
    still_waiting = events.c.state.concat("") == EventState.RECEIVED.value
    brought = select(events).join(identities, subjects).where(mine, still_waiting)
    order = (events.c.as_of, events.c.received_at, events.c.id)
    # Each part on its own first, so that each goes by its own index.
    return union_all(*(select(part.order_by(*order).limit(BATCH).subquery()) for part in (theirs, brought)))


#: Made once: making a statement costs more than asking it.
_UNPLANNED = _unplanned()


def unplanned(connection: Connection, person_id: int) -> Sequence[Row[Any]]:
    """The next BATCH of the person's recorded events by the time they happened.

    What their subjects brought while they still were another Velt user is among them: it tells what they have.
    """
    found = connection.execute(_UNPLANNED, {"person_id": person_id})
    return sorted(found, key=lambda row: (row.as_of, row.received_at, row.id))[:BATCH]


def others_concerned(connection: Connection, rows: Iterable[Row[Any]], person_id: int) -> set[int]:
    """People whom these events concern too: whose they are, and every Velt user that their accounts have been."""
    others: set[int] = set()
    for row in rows:
        others |= {row.person_id, *people_of(connection, row.source, row.subject)}
    return others - {person_id}


def plan_event(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> bool:
    """Take an event into the facts and write the revocations it asks for; false when it waits for a look-up."""
    seen = verify.see(connection, rules, row, now)
    if seen is None:
        return False
    row, event, fact = seen.row, seen.event, seen.fact
    old, kept = learn(connection, fact) if fact is not None else (None, False)
    again = _held_since(connection, rules, row, fact, old) if kept else _told_before(row, old)
    values: dict[str, Any] = {"rules_version": rules.version}
    if event.kind in GAINS and fact is not None:
        said = {"directory": seen.evidence} if seen.reason is not None else {}
        plan = json.dumps(said | again) if said | again else None
        connection.execute(update(events).where(events.c.id == row.id).values(plan=plan))  # what follows goes by it
        values |= _gain(connection, rules, row, fact, old, now, kept=kept)
        if seen.reason is not None:
            values["reason"] = _DENIED_GAIN + seen.reason
    elif seen.reason is not None:
        plan = json.dumps(parts.kept_of(connection, row) | {"directory": seen.evidence} | again)
        reason = (_DENIED_GAIN if event.kind in GAINS else "") + seen.reason
        values |= {"state": EventState.IGNORED.value, "reason": reason, "plan": plan}
    elif event.kind not in LOSSES:
        values |= {"state": EventState.IGNORED.value, "reason": f"{event.kind.value} takes nothing by itself"}
    elif fact is not None and not row.replay and twins.says_again(connection, row, fact, old):
        values |= {"state": EventState.IGNORED.value, "reason": "nothing new"}
    else:
        gained_at = old.as_of if old is not None and old.present else 0
        values |= _loss(connection, rules, row, seen, gained_at, now)
    if row.group_id is not None and row.group_name is None:  # for whoever looks for it by name
        values["group_name"] = event.group_name or (old.name if old is not None else None)
        if event.kind in LOSSES and values["group_name"] is None:
            values["group_name"] = group_name(connection, row.source, row.group_id)
    end(connection, [row.id], planned_at=now, **values)
    return True


def _held_since(
    connection: Connection, rules: RuleSet, row: Row[Any], fact: Fact | None, old: Fact | None
) -> dict[str, str | None]:
    """What an event keeps that only tells again of something held: since when that is so. Its own time is no gain's.

    Those are losses that the directory denies, and gains at a source whose every change is known: a SCIM group has
    another name. Elsewhere a gain of what is held is one after a loss that was not told, or not yet.
    """
    if fact is None or old is None or not (fact.present and old.present):
        return {}
    if row.kind in GAINS and row.source not in rules.complete:
        return {}
    [gained] = dated_by_gain(connection, [old])
    return {"held_since": to_iso(gained.as_of)}


def _told_before(row: Row[Any], old: Fact | None) -> dict[str, str | None]:
    """The same of an event that is planned again, and by which the fact is known already."""
    since = json.loads(row.plan or "{}").get("held_since")
    return {"held_since": since} if since is not None and old is not None and old.event_id == row.id else {}


def _gain(
    connection: Connection,
    rules: RuleSet,
    row: Row[Any],
    fact: Fact,
    old: Fact | None,
    now: Micros,
    *,
    kept: bool,
) -> dict[str, Any]:
    if not kept and old is not None and not old.present and old.as_of <= fact.as_of:
        return {
            "state": EventState.DONE.value,
            "reason": "gain; it came without a time of its own, so the dated loss stands until a look-up",
        }
    if kept and (row.group_id is not None or row.app_id is not None):
        tell_latecomer(connection, [fact])
    if kept or _was_looked_up_first(row, old):
        happened_from = _happened_from(connection, row, fact)
        people = taking.targets_of(connection, row)
        for person_id in people:
            regrants.note(connection, rules, person_id, [fact], happened_from)
        if fact.object_id:
            completing.take_gained_before(connection, rules, row.source, row.subject, happened_from, now)
    return {"state": EventState.DONE.value, "reason": "gain"}


def _happened_from(connection: Connection, row: Row[Any], fact: Fact) -> Micros:
    """The earliest time at which what an event tells may have been gained."""
    told_at: Micros = min(row.as_of, fact.as_of)
    if row.occurred_at is not None:
        return told_at
    by_message = row.found_by is None
    return told_at - regrants.LATE if by_message else regrants.may_be_from(connection, row.source, told_at)


def _was_looked_up_first(row: Row[Any], old: Fact | None) -> bool:
    """Whether a look-up had told the gain before the event came: when it was, only the event says."""
    return old is not None and old.present and old.event_id is None and not row.replay


def _loss(
    connection: Connection, rules: RuleSet, row: Row[Any], seen: Seen, gained_at: Micros, now: Micros
) -> dict[str, Any]:
    """`gained_at`: when what is lost had been gained, 0 where it was not known to be there."""
    plan = taking.plan_of(connection, rules, row, seen.event, complete=seen.complete)
    plan = parts.left_of(connection, row, plan)
    held, before = taking.held_by_guard(connection, rules, row, plan, gained_at=gained_at)
    if held is not None:
        return {"state": EventState.HELD.value, "reason": held, "plan": json.dumps(plan_as_json(plan, seen.evidence))}
    for person_id in taking.targets_of(connection, row):
        add_revocations(connection, row.id, person_id, plan.resources, now, before.get(person_id, ()))
    values: dict[str, Any] = {"plan": json.dumps(plan_as_json(plan, seen.evidence)), **outcome_of(plan)}
    if seen.may_complete:
        verify.want_the_rest(connection, row, now)
        values["completing"] = True
    return values

"""Planning: from a person's recorded events to revocations, inside the transaction that holds the person's row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, union_all, update

from relay import entitlement, losses
from relay.losses import Plan
from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    LOSSES,
    SECOND,
    AccessEvent,
    EventState,
    Fact,
    Kind,
    Micros,
    Resource,
    RevocationState,
)
from relay.rules import RuleSet
from relay.store import guard, twins, verify
from relay.store.ending import end
from relay.store.facts import facts_of, group_name, learn
from relay.store.fan_out import tell_latecomer
from relay.store.identities import people_of
from relay.store.people import knowledge_of, with_known_names
from relay.store.plan_json import outcome_of, plan_as_json
from relay.store.revocations import add_revocations, cause_of, resource_of, taken_at
from relay.store.tables import events, identities, revocations
from relay.store.verify import Seen

#: Events of one person planned in one transaction; the rest follow in the next.
BATCH = 200

#: A gain that comes without a time may have happened so long before it came: Microsoft Graph tries for 4 hours.
#: https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
LATE: Micros = 4 * 3600 * SECOND

#: So far may a provider's clock be before the database's.
CLOCKS: Micros = 10 * SECOND

#: States in which a removal ends that may have happened by an earlier call, whose answer was not seen.
_MAYBE_REMOVED = (RevocationState.ABSENT.value, RevocationState.DEAD.value)

#: What an event takes from each person already: nothing.
_NONE_BEGUN: Mapping[int, Collection[Resource]] = {}


def unplanned(connection: Connection, person_id: int) -> Sequence[Row[Any]]:
    """The next BATCH of the person's recorded events by the time they happened.

    What their subjects brought while they still were another Velt user is among them: it tells what they have.
    """
    waiting = select(events).where(events.c.state == EventState.RECEIVED.value)
    order = (events.c.as_of, events.c.received_at, events.c.id)
    theirs = waiting.where(events.c.person_id == person_id)
    brought = waiting.join(
        identities, and_(identities.c.source == events.c.source, identities.c.subject == events.c.subject)
    ).where(identities.c.person_id == person_id, identities.c.current, events.c.person_id != person_id)
    # Each part on its own first, so that each goes by its own index.
    both = union_all(*(select(part.order_by(*order).limit(BATCH).subquery()) for part in (theirs, brought)))
    return sorted(connection.execute(both), key=lambda row: (row.as_of, row.received_at, row.id))[:BATCH]


def others_concerned(connection: Connection, rows: Iterable[Row[Any]], person_id: int) -> set[int]:
    """People whom these events concern too: whose they are, and every Velt user that a lost account has been."""
    others: set[int] = set()
    for row in rows:
        others |= {row.person_id, *targets_of(connection, row)}
    return others - {person_id}


def targets_of(connection: Connection, row: Row[Any]) -> list[int]:
    """The people from whom a loss takes: the one the event names and the one its subject is now.

    An account loss reaches every Velt user that the subject has been.
    """
    whole = row.kind in ACCOUNT_LOSSES or row.kind == Kind.ACCOUNT_CHANGED.value
    if row.kind not in LOSSES and not whole:
        return [row.person_id]
    been = people_of(connection, row.source, row.subject)
    return list(dict.fromkeys([row.person_id, *(been if whole else been[:1])]))


def plan_event(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> bool:
    """Take an event into the facts and write the revocations it asks for; false when it waits for a look-up."""
    seen = verify.see(connection, rules, row, now)
    if seen is None:
        return False
    row, event, fact = seen.row, seen.event, seen.fact
    old, kept = learn(connection, fact) if fact is not None else (None, False)
    values: dict[str, Any] = {"rules_version": rules.version}
    if seen.reason is not None:
        state = EventState.DONE if event.kind in GAINS else EventState.IGNORED
        told = f"gain, but by its directory {seen.reason}" if event.kind in GAINS else seen.reason
        values |= {"state": state.value, "reason": told, "plan": json.dumps({"directory": seen.evidence})}
    elif event.kind in GAINS:
        values |= _gain(connection, rules, row, fact, old, kept)
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


def _gain(
    connection: Connection, rules: RuleSet, row: Row[Any], fact: Fact | None, old: Fact | None, kept: bool
) -> dict[str, Any]:
    if fact is None or (not kept and old is not None and not old.present and old.as_of <= fact.as_of):
        return {
            "state": EventState.DONE.value,
            "reason": "gain; it came without a time of its own, so the dated loss stands until a look-up",
        }
    if kept and (row.group_id is not None or row.app_id is not None):
        tell_latecomer(connection, [fact])
    if kept or _was_looked_up_first(row, old):
        happened_from = min(row.as_of, fact.as_of) - (0 if row.occurred_at is not None else LATE)
        for person_id in dict.fromkeys([row.person_id, *people_of(connection, row.source, row.subject)[:1]]):
            note_regrants(connection, rules, person_id, happened_from)
    return {"state": EventState.DONE.value, "reason": "gain"}


def _was_looked_up_first(row: Row[Any], old: Fact | None) -> bool:
    """Whether a look-up had told the gain before the event came: when it was, only the event says."""
    return old is not None and old.present and old.event_id is None and not row.replay


def note_regrants(connection: Connection, rules: RuleSet, person_id: int, happened_from: Micros) -> None:
    """Mark what may have been removed after the person had gained it again: the relay removes, it never grants.

    `happened_from` is the earliest time at which that was. What is being sent at this moment is marked too; what
    comes of the call decides.
    """
    unseen = and_(revocations.c.state.in_(_MAYBE_REMOVED), revocations.c.unsure)
    settled = and_(
        or_(revocations.c.state == RevocationState.REMOVED.value, unseen),
        revocations.c.settled_at >= happened_from - CLOCKS,
    )
    sending = revocations.c.state == RevocationState.SENDING.value
    sent = connection.execute(
        select(revocations).where(revocations.c.person_id == person_id, or_(settled, sending))
    ).all()
    if not sent:
        return
    entitled = entitlement.grants(rules, knowledge_of(connection, person_id))
    ids = [row.id for row in sent if resource_of(row) in entitled]
    if ids:
        connection.execute(update(revocations).where(revocations.c.id.in_(ids)).values(needs_regrant=True))


def _loss(
    connection: Connection, rules: RuleSet, row: Row[Any], seen: Seen, gained_at: Micros, now: Micros
) -> dict[str, Any]:
    """`gained_at`: when what is lost had been gained, 0 where it was not known to be there."""
    plan = plan_of(connection, rules, row, seen.event, complete=seen.complete)
    held, before = held_by_guard(connection, rules, row, plan, gained_at=gained_at)
    if held is not None:
        return {"state": EventState.HELD.value, "reason": held, "plan": json.dumps(plan_as_json(plan, seen.evidence))}
    for person_id in targets_of(connection, row):
        add_revocations(connection, row.id, person_id, plan.resources, now, before.get(person_id, ()))
    values: dict[str, Any] = {"plan": json.dumps(plan_as_json(plan, seen.evidence)), **outcome_of(plan)}
    if seen.may_complete:
        verify.want_the_rest(connection, row, now)
        values["completing"] = True
    return values


def held_by_guard(
    connection: Connection,
    rules: RuleSet,
    row: Row[Any],
    plan: Plan,
    *,
    gained_at: Micros = 0,
    begun: Mapping[int, Collection[Resource]] = _NONE_BEGUN,
) -> tuple[str | None, Mapping[int, Collection[Resource]]]:
    """Why a plan has to wait for an operator, None if not; and of each person what was taken before.

    `begun`: what the same event takes from each person already.
    """
    going = _going(connection, rules, row, plan)
    before = {person_id: guard.taken_before(connection, person_id, gained_at) for person_id in going}
    news = {person_id: new for person_id, all_of in going.items() if (new := all_of - before[person_id])}
    whole = {person_id: new.union(begun.get(person_id, ())) for person_id, new in news.items()}
    return guard.holds(connection, rules, row, plan, whole), before


def plan_of(
    connection: Connection,
    rules: RuleSet,
    row: Row[Any],
    event: AccessEvent,
    *,
    complete: bool,
    person_id: int | None = None,
) -> Plan:
    """What a loss takes by what is known now; `complete`: of this person's groups everything is.

    `person_id`: whom its subject is, where that is not the person of the event any more.
    """
    whose = row.person_id if person_id is None else person_id
    knowledge = knowledge_of(connection, whose)
    past = facts_of(connection, [(row.source, row.subject)])
    told = with_known_names(event, knowledge.subjects, [*knowledge.facts, *past])
    if told.group_name is None:
        told = replace(told, group_name=group_name(connection, row.source, row.group_id))
    taken = taken_at(connection, whose) if event.kind in ACCOUNT_LOSSES else losses.NOTHING
    return losses.plan(told, rules, knowledge, past, complete=complete, taken=taken)


def _going(connection: Connection, rules: RuleSet, row: Row[Any], plan: Plan) -> dict[int, set[Resource]]:
    """What each person would lose by this plan, by what they have today; only asked where a guard wants to know."""
    if not guard.watches(rules) or not plan.resources:
        return {}
    found = {}
    cause = cause_of(row)
    for person_id in targets_of(connection, row):
        knowledge = knowledge_of(connection, person_id).of(rules.fills)
        entitled = entitlement.grants(rules, knowledge)
        going = {
            resource
            for resource in plan.resources
            if entitlement.judge(resource, cause, knowledge, entitled).state is RevocationState.PENDING
        }
        if going:
            found[person_id] = going
    return found

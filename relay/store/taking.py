"""What a loss takes, from whom, and whether the guard lets it; inside the transaction that holds the people's rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select

from relay import entitlement, losses
from relay.losses import Plan
from relay.model import ACCOUNT_LOSSES, GAINS, LOSSES, AccessEvent, Kind, Micros, ObjectType, Resource, RevocationState
from relay.rules import RuleSet
from relay.store import guard
from relay.store.database import chunks
from relay.store.facts import facts_of, group_name
from relay.store.identities import people_of
from relay.store.people import knowledge_of, lock_people, with_known_names
from relay.store.revocations import cause_of, taken_at
from relay.store.tables import facts, identities, revocations

#: What an event takes from each person already: nothing.
_NONE_BEGUN: Mapping[int, Collection[Resource]] = {}


def targets_of(connection: Connection, row: Row[Any]) -> list[int]:
    """The people whom a loss or gain concerns: the one the event names and the one its subject is now.

    An account loss reaches every Velt user that the subject has been.
    """
    whole = row.kind in ACCOUNT_LOSSES or row.kind == Kind.ACCOUNT_CHANGED.value
    if row.kind not in LOSSES | GAINS and not whole:
        return [row.person_id]
    been = people_of(connection, row.source, row.subject)
    return list(dict.fromkeys([row.person_id, *(been if whole else been[:1])]))


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


def losers(connection: Connection, source: str, subjects: Collection[str], since: Micros) -> set[str]:
    """Those of these accounts whose people may have lost since then, to a call or with an account, what they turn out
    to have.

    All of their people are held, so that no call begins before what is found is kept.
    """
    mine: dict[str, int] = {}
    for chunk in chunks(subjects):
        theirs = select(identities.c.subject, identities.c.person_id).where(
            identities.c.source == source, identities.c.subject.in_(chunk), identities.c.current
        )
        mine |= {row.subject: row.person_id for row in connection.execute(theirs)}
    lock_people(connection, set(mine.values()))
    lost = {person_id for chunk in chunks(set(mine.values())) for person_id in _lost(connection, chunk, since)}
    return {subject for subject, person_id in mine.items() if person_id in lost}


def _lost(connection: Connection, people: Collection[int], since: Micros) -> set[int]:
    """Those of these people from whom something is being taken or was since then, or who lost an account since then."""
    sending = revocations.c.state == RevocationState.SENDING.value
    taken = select(revocations.c.person_id).where(
        revocations.c.person_id.in_(people), or_(sending, revocations.c.settled_at >= since)
    )
    account = and_(facts.c.object_type == ObjectType.ACCOUNT.value, ~facts.c.present, facts.c.as_of >= since)
    theirs = and_(identities.c.source == facts.c.source, identities.c.subject == facts.c.subject)
    left = select(identities.c.person_id).join(facts, theirs).where(identities.c.person_id.in_(people), account)
    return set(connection.execute(taken.union(left)).scalars())


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

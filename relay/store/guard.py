"""The guard: a mass removal asks first.

It counts distinct people from whom something is to be removed, by the time their events were received. Where more than
the limit would come together in any window that holds the event in question, the event is `held`: its facts are known,
nothing is removed, and a person approves or rejects it. Any window, not only the one that ends with the event: people
are planned in the order in which workers come to them, and that must not matter.

A rule's own `max_resources` holds an event that takes too much from one person.

What an operator approved, replayed or ordered is neither held nor counted, and neither is what was removed before and
not gained since: providers say again and again that an account is disabled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, func, not_, select

from relay.entitlement import fields_of_event
from relay.losses import Plan
from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    SECOND,
    Guard,
    Kind,
    Micros,
    ObjectType,
    Resource,
    RevocationState,
)
from relay.rules import RuleSet
from relay.store.database import lock_guard
from relay.store.revocations import taken_at
from relay.store.tables import events, facts, identities, revocations

#: What was never going to be removed.
_KEPT = (RevocationState.RETAINED.value, RevocationState.SUPERSEDED.value)
#: The place of the event in question among those of people, whose ids are from 1.
_NOBODY = 0


def watches(rules: RuleSet) -> bool:
    """Whether anything is ever held by these rules."""
    return rules.guard is not None or any(rule.max_resources is not None for rule in rules.rules)


def holds(
    connection: Connection, rules: RuleSet, row: Row[Any], plan: Plan, taken: Mapping[int, Collection[Resource]]
) -> str | None:
    """Why an event that takes these resources from these people has to wait, None when it may go on."""
    if row.replay or not taken:
        return None
    return _too_much(rules, plan, taken.values()) or _too_many(connection, rules.guard, row, set(taken))


def _too_much(rules: RuleSet, plan: Plan, taken: Collection[Collection[Resource]]) -> str | None:
    """Why a plan that takes these resources from each person is more than one of its rules allows, None if not."""
    limits = {rule.name: rule.max_resources for rule in rules.rules}
    for step in plan.steps:
        limit = limits[step.rule]
        most = max((len(set(step.resources).intersection(going)) for going in taken), default=0)
        if limit is not None and most > limit:
            return (
                f"the rule {step.rule!r} would take {most} resources from one person, more than its max_resources of "
                f"{limit}; approve or reject"
            )
    return None


def taken_before(connection: Connection, person_id: int, gained_at: Micros) -> set[Resource]:
    """What was removed from a person already, and nothing that they gained since can have given back.

    `gained_at`: when, besides, something was gained of which no event and no fact tells any more.
    """
    found = taken_at(connection, person_id)
    since = max(gained_at, _last_gain(connection, person_id)) if found else 0
    return {resource for resource, at in found.items() if at > since}


def _last_gain(connection: Connection, person_id: int) -> Micros:
    """When this person gained something last, as far as events and what directories said tell; 0 for never."""
    gains = (
        select(func.max(events.c.received_at))
        .join(identities, and_(identities.c.source == events.c.source, identities.c.subject == events.c.subject))
        .where(identities.c.person_id == person_id, events.c.kind.in_([kind.value for kind in GAINS]))
    )
    has = (
        select(func.max(facts.c.as_of))
        .join(identities, and_(identities.c.source == facts.c.source, identities.c.subject == facts.c.subject))
        .where(identities.c.person_id == person_id, facts.c.present)
    )
    return max(connection.execute(statement).scalar() or 0 for statement in (gains, has))


def _too_many(connection: Connection, guard: Guard | None, row: Row[Any], people: Collection[int]) -> str | None:
    if guard is None or (not guard.account_losses and _of_lost_account(connection, row)):
        return None
    lock_guard(connection)
    window = int(guard.within_seconds * SECOND)
    near = and_(
        _counted(guard),
        events.c.received_at > row.received_at - window,
        events.c.received_at < row.received_at + window,
        revocations.c.person_id.not_in(people),
    )
    joined = revocations.join(events, events.c.id == revocations.c.event_id)
    number = select(func.count(revocations.c.person_id.distinct())).select_from(joined).where(near)
    room = guard.users - len(people)
    if connection.execute(number).scalar_one() <= room:  # nearly always, and it spares the rest
        return None
    seen = select(events.c.received_at, revocations.c.person_id).select_from(joined).where(near).distinct()
    most = _most_in_a_window([(at, person) for at, person in connection.execute(seen)], window, row.received_at)
    if most <= room:
        return None
    # No number: those of other events that are held, or still to come, are not counted and would make it larger.
    limit = f"more than {guard.users} {'person' if guard.users == 1 else 'people'}"
    return f"the guard: {limit} would lose something within {_length(guard)}; approve or reject"


def _counted(guard: Guard) -> ColumnElement[bool]:
    """The revocations whose people the guard counts, with the columns of their events."""
    counted = and_(
        events.c.replay.is_(False),
        events.c.kind != Kind.OPERATOR_REMOVE.value,
        revocations.c.state.not_in(_KEPT),
        revocations.c.again.is_(False),
    )
    if guard.account_losses:
        return counted
    return and_(
        counted, events.c.kind.not_in([kind.value for kind in ACCOUNT_LOSSES]), not_(_account_is_gone(events.c))
    )


def _of_lost_account(connection: Connection, row: Row[Any]) -> bool:
    """Whether an event is the loss of an account, or a group's or app's loss that goes with it."""
    if Kind(row.kind) in ACCOUNT_LOSSES:
        return True
    return bool(connection.execute(select(_account_is_gone(row))).scalar_one())


def _account_is_gone(event: Any) -> ColumnElement[bool]:
    """Whether the source of an event says that the account of its subject is gone."""
    return exists().where(
        facts.c.source == event.source,
        facts.c.subject == event.subject,
        facts.c.object_type == ObjectType.ACCOUNT.value,
        facts.c.present.is_(False),
    )


def _most_in_a_window(seen: Iterable[tuple[Micros, int]], window: Micros, moment: Micros) -> int:
    """The most distinct people in any window of this length that holds the moment."""
    arrivals = sorted([*seen, (moment, _NOBODY)])
    inside: Counter[int] = Counter()
    first = most = 0
    for end, person in arrivals:
        inside[person] += 1
        while arrivals[first][0] <= end - window:
            gone = arrivals[first][1]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            first += 1
        if end >= moment:
            most = max(most, len(inside) - 1)
    return most


def holds_group(rules: RuleSet, row: Row[Any], members: int) -> str | None:
    """Why an event about a whole group or app has to wait: it alone may take from more people than the limit."""
    guard = rules.guard
    if guard is None or row.replay or members <= guard.users or not _concerns_any_rule(rules, row):
        return None
    return f"the guard: up to {members} people would lose something at once, more than {guard.users}; approve or reject"


def _concerns_any_rule(rules: RuleSet, row: Any) -> bool:
    """Whether any rule may take something by this event from somebody, whoever that is."""
    anybody = fields_of_event(row, None, frozenset())
    return any(rule.match(Kind(row.kind), anybody).verdict is not False for rule in rules.rules)


def _length(guard: Guard) -> str:
    return f"{guard.within_seconds / 60:g} minutes"

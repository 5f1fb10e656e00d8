"""What is to be granted again: it was removed, or may have been, after it had been gained. The relay never grants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, update

from relay import entitlement
from relay.entitlement import Grant, Knowledge
from relay.model import ACCOUNT_LOSSES, SECOND, Fact, Kind, Micros, ObjectType, RevocationState
from relay.rules import RuleSet
from relay.store.facts import dated_by_gain
from relay.store.people import knowledge_of
from relay.store.revocations import cause_of, resource_of
from relay.store.tables import events, revocations

#: A gain that comes without a time may have happened so long before it came: Microsoft Graph tries for 4 hours.
#: https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
LATE: Micros = 4 * 3600 * SECOND

#: So far may a provider's clock be before the database's.
CLOCKS: Micros = 10 * SECOND

#: States in which a removal ends that may have happened by an earlier call, whose answer was not seen.
_MAYBE_REMOVED = (RevocationState.ABSENT.value, RevocationState.DEAD.value)


def note(
    connection: Connection, rules: RuleSet, person_id: int, gained: Collection[Fact], happened_from: Micros
) -> None:
    """Mark what may have been removed after the person had gained it again by what is `gained`.

    `happened_from` is the earliest time at which that was. What is being sent at this moment is marked too; what
    comes of the call decides.
    """
    unseen = and_(revocations.c.state.in_(_MAYBE_REMOVED), revocations.c.unsure)
    settled = and_(
        or_(revocations.c.state == RevocationState.REMOVED.value, unseen),
        revocations.c.settled_at >= happened_from - CLOCKS,
    )
    sending = revocations.c.state == RevocationState.SENDING.value
    causes = (events.c.kind, events.c.source, events.c.subject, events.c.group_id, events.c.app_id, events.c.as_of)
    sent = connection.execute(
        select(revocations, *causes)
        .join(events, events.c.id == revocations.c.event_id)
        .where(revocations.c.person_id == person_id, or_(settled, sending))
    ).all()
    if not sent:
        return
    knowledge = knowledge_of(connection, person_id)
    dated = replace(knowledge, facts=dated_by_gain(connection, knowledge.facts))
    given = {
        resource: by
        for resource, grants in entitlement.grants(rules, dated).items()
        if (by := [grant for grant in grants if _is_by(grant, gained, knowledge)])
    }
    ids = [row.id for row in sent if _is_back(rules, row, given.get(resource_of(row), ()), gained)]
    if ids:
        connection.execute(update(revocations).where(revocations.c.id.in_(ids)).values(needs_regrant=True))


def _is_back(rules: RuleSet, row: Row[Any], given: Collection[Grant], gained: Collection[Fact]) -> bool:
    """Whether what a revocation took is given again.

    What an operator took only a gain after that gives back; what went with an account, the account's return alone where
    no directory tells what else it has.
    """
    cause = cause_of(row)
    if cause.kind is Kind.OPERATOR_REMOVE:
        return any(grant.fact.as_of > cause.at for grant in given)
    is_return = cause.kind in ACCOUNT_LOSSES and any(cause.is_about(fact) for fact in gained)
    return bool(given) or (is_return and cause.source not in rules.complete | rules.looked_up.keys())


def _is_by(grant: Grant, gained: Collection[Fact], knowledge: Knowledge) -> bool:
    """Whether somebody is entitled by what is gained. An account gives back all that its person has; so does one in the
    place of another that is gone, of which any gain tells.
    """
    return any(
        fact.object_type is ObjectType.ACCOUNT
        or fact.key == grant.fact.key
        or any(source == fact.source and subject != fact.subject for source, subject in knowledge.lost_accounts)
        for fact in gained
    )

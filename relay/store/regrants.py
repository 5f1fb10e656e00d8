"""What is to be granted again: it was removed, or may have been, after it had been gained. The relay never grants."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, and_, or_, select, update

from relay import entitlement
from relay.model import SECOND, Fact, Micros, ObjectType, RevocationState
from relay.rules import RuleSet
from relay.store.people import knowledge_of
from relay.store.revocations import resource_of
from relay.store.tables import revocations

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
    sent = connection.execute(
        select(revocations).where(revocations.c.person_id == person_id, or_(settled, sending))
    ).all()
    if not sent:
        return
    entitled = entitlement.grants(rules, knowledge_of(connection, person_id))
    given = {resource for resource, grants in entitled.items() if any(_is_by(grant, gained) for grant in grants)}
    ids = [row.id for row in sent if resource_of(row) in given]
    if ids:
        connection.execute(update(revocations).where(revocations.c.id.in_(ids)).values(needs_regrant=True))


def _is_by(grant: entitlement.Grant, gained: Collection[Fact]) -> bool:
    """Whether somebody is entitled by what is gained; an account gives back all that it has."""
    return any(fact.object_type is ObjectType.ACCOUNT or fact.key == grant.fact.key for fact in gained)

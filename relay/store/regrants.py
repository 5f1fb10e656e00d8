"""What is to be granted again: it was removed, or may have been, after it had been gained. The relay never grants."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, and_, false, or_, select, update

from relay import entitlement, truth
from relay.entitlement import Cause, Grant, Knowledge
from relay.model import ACCOUNT_LOSSES, SECOND, Basis, Fact, Kind, Micros, ObjectType, Resource, RevocationState
from relay.rules import RuleSet
from relay.store.facts import dated_by_gain
from relay.store.people import knowledge_of
from relay.store.places import place_of
from relay.store.revocations import cause_of, resource_of, was_regranted
from relay.store.tables import events, revocations

#: A gain whose message comes without a time may have happened so long before: Microsoft Graph tries for 4 hours.
#: https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
LATE: Micros = 4 * 3600 * SECOND

#: So far may a provider's clock be before the database's.
CLOCKS: Micros = 10 * SECOND

#: States in which a removal ends that may have happened by an earlier call, whose answer was not seen.
_MAYBE_REMOVED = (RevocationState.ABSENT.value, RevocationState.DEAD.value)
_ACCOUNT_LOSSES = tuple(kind.value for kind in ACCOUNT_LOSSES)


def may_be_from(connection: Connection, source: str, told_at: Micros) -> Micros:
    """The earliest time at which something may have been gained that a source has shown only now, when asked.

    The message of it may be late still, or may have been lost while the source's changes could not be read.
    """
    late, place = told_at - LATE, place_of(connection, source)
    unread_from, whole_at = place.unread_from, place.last_whole_at
    if whole_at is not None and late > whole_at:  # it has not been read since
        return whole_at - truth.YOUNG
    if unread_from is None or place.unread_until is None or late > place.unread_until:
        return late
    return min(late, unread_from - truth.YOUNG)


def note(
    connection: Connection, rules: RuleSet, person_id: int, gained: Collection[Fact], happened_from: Micros
) -> None:
    """Mark what may have been removed after the person had gained it again by what is `gained`.

    `happened_from` is the earliest time at which that was. What is being sent at this moment is marked too; what
    comes of the call decides. What somebody has said to be granted again is not marked another time.
    """
    unseen = and_(revocations.c.state.in_(_MAYBE_REMOVED), revocations.c.unsure)
    settled = and_(
        or_(revocations.c.state == RevocationState.REMOVED.value, unseen),
        revocations.c.settled_at >= happened_from - CLOCKS,
        ~was_regranted(),
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
    known = _Known(rules, dated, entitlement.grants(rules, dated), gained, _sources_of_losses(connection, dated))
    ids = [row.id for row in sent if known.is_back(row)]
    if ids:
        connection.execute(update(revocations).where(revocations.c.id.in_(ids)).values(needs_regrant=True))


def _sources_of_losses(connection: Connection, knowledge: Knowledge) -> set[str]:
    """The sources that have ever told that an account of the person's was lost."""
    theirs = (and_(events.c.source == one.source, events.c.subject == one.id) for one in knowledge.subjects)
    told = select(events.c.source).where(events.c.kind.in_(_ACCOUNT_LOSSES), or_(false(), *theirs)).distinct()
    return set(connection.execute(told).scalars())


class _Known:
    """What is known of a person once something is gained."""

    def __init__(
        self,
        rules: RuleSet,
        knowledge: Knowledge,
        entitled: Mapping[Resource, Collection[Grant]],
        gained: Collection[Fact],
        were_lost: Collection[str],
    ) -> None:
        self._entitled = entitled
        self._gained = gained
        accounts = (fact for fact in knowledge.facts if fact.object_type is ObjectType.ACCOUNT and fact.present)
        self._present = [fact for fact in accounts if fact.key not in {one.key for one in gained}]
        #: What was never lost made nobody inactive, whenever it was told last.
        self._returned = [fact for fact in self._present if fact.source in were_lost]
        self._any_ends_all = rules.accounts == "any"
        known, gone = knowledge.of(rules.fills), knowledge.lost_accounts
        self._is_inactive = self._any_ends_all and entitlement.some_source_says_inactive(known, known.lost_accounts)
        left = {source for source, _ in gone} if self._any_ends_all else set()
        #: Accounts in the place of others that are gone: without them the person is inactive.
        self._in_place = {one.key for one in knowledge.subjects if one.source in left and one.key not in gone}
        self._untold = rules.fills.keys() - rules.complete - rules.looked_up.keys()
        lost = (fact for fact in knowledge.facts if not fact.present)
        self._lost = {resource for fact in lost for resource, _ in entitlement.gives(rules, knowledge, fact)}

    def is_back(self, row: Row[Any]) -> bool:
        """Whether what a revocation took is given again.

        What an operator took only a gain after that gives back; what went with an account, the account's return alone
        where no directory tells what else it has, and nothing has told that it was lost.
        """
        cause, resource = cause_of(row), resource_of(row)
        given = [grant for grant in self._entitled.get(resource, ()) if self._is_by(grant, row)]
        if cause.kind is Kind.OPERATOR_REMOVE:
            return any(grant.fact.as_of > cause.at for grant in given)
        untold = cause.source in self._untold and resource not in self._lost
        return bool(given) or (untold and self._is_return(cause, row))

    def _is_by(self, grant: Grant, row: Row[Any]) -> bool:
        """Whether somebody is entitled by what is gained. An account gives back all that its person has; so does one
        in the place of another, of which any gain tells, where what gives it was there when it was taken.
        """
        was_there = row.settled_at is None or grant.fact.as_of < row.settled_at
        return any(
            fact.object_type is ObjectType.ACCOUNT
            or fact.key == grant.fact.key
            or (was_there and fact.whose in self._in_place)
            for fact in self._gained
        )

    def _is_return(self, cause: Cause, row: Row[Any]) -> bool:
        """Whether the account is back whose loss took it. Where each source has to say so (`accounts: any`), all were
        there when it was taken, and what is gained is one of them, or what was missing.
        """
        if cause.kind not in ACCOUNT_LOSSES or self._is_inactive:
            return False
        if self._any_ends_all and not all(_was_there(fact, row) for fact in self._returned):
            return False
        if any(cause.is_about(fact) for fact in self._gained):
            return True
        missed = any(fact.object_type is ObjectType.ACCOUNT or fact.whose in self._in_place for fact in self._gained)
        return self._any_ends_all and missed and any(cause.is_about(fact) for fact in self._present)


def _was_there(fact: Fact, row: Row[Any]) -> bool:
    """Whether what is known to be there may have been when a revocation was settled."""
    late = LATE if fact.basis is Basis.ARRIVAL else CLOCKS
    return row.settled_at is None or fact.as_of - late <= row.settled_at

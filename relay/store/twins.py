"""Twins: items of a source whose messages have no id, so that nothing tells a repetition from something new."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from relay.model import GAINS, Basis, EventState, Fact, Kind, Micros
from relay.store.tables import events
from relay.truth import YOUNG

#: The same loss of a group or app later than this may be another one, after a gain whose message was lost. To take once
#: more what is not there does no harm; an account that is out of force is told again with each change of it.
REPEATED: Micros = YOUNG


def says_again(connection: Connection, row: Row[Any], fact: Fact, old: Fact | None) -> bool:
    """Whether a loss says only what is known: it was there, and no later time is told.

    The same loss of another kind (a suspended account is deleted) is news to the rules, and so is what could not be
    planned the first time, and a loss after a gain, even one that has not been looked up yet.
    """
    if not row.twin or old is None or old.present or (fact.basis is Basis.SOURCE and fact.as_of > old.as_of):
        return False
    if (row.group_id or row.app_id) and row.as_of > old.as_of + REPEATED:
        return False
    said = select(events.c.id).where(
        events.c.id == old.event_id, events.c.kind == row.kind, events.c.state != EventState.FAILED.value
    )
    return connection.execute(said).first() is not None and not _gained_between(connection, row, old)


def _gained_between(connection: Connection, row: Row[Any], old: Fact) -> bool:
    """Whether a gain, or a change that may have been one, was told after the loss that is known and before this one."""
    gains = [kind.value for kind in GAINS]
    changes = [] if row.group_id or row.app_id else [Kind.ACCOUNT_CHANGED.value]
    told = select(events.c.id).where(
        events.c.source == row.source,
        events.c.subject == row.subject,
        events.c.kind.in_(gains + changes),
        events.c.group_id.is_not_distinct_from(row.group_id),
        events.c.app_id.is_not_distinct_from(row.app_id),
        events.c.as_of >= old.as_of,
        events.c.as_of <= row.as_of,
        events.c.id.not_in([row.id, old.event_id]),
    )
    return connection.execute(told.limit(1)).first() is not None

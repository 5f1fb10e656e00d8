"""What asking Velt about removals came to, in one word each, and how often."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, case, exists, func, select

from relay.model import Confirmation
from relay.store.tables import revocations

#: The words: three ends, and `waiting` for those that are still to be asked about, or asked about again.
NAMES = ("confirmed", "still_has_access", "unconfirmed", "waiting")

#: The word for a row of `revocations`; NULL where nobody asked or asks.
RESULT: ColumnElement[Any] = case(
    (revocations.c.confirm_at.is_not(None), "waiting"),
    (revocations.c.confirmation == Confirmation.CONFIRMED.value, "confirmed"),
    (revocations.c.confirmation == Confirmation.STILL.value, "still_has_access"),
    (revocations.c.confirmation_reason.is_not(None), "unconfirmed"),
)


def is_result(name: str) -> ColumnElement[bool]:
    """The condition on `revocations` that asking came to this."""
    return RESULT.in_([name])


def counts(connection: Connection) -> dict[str, int]:
    """How many revocations came to what, those words that none came to included."""
    waiting = select(func.count()).select_from(revocations).where(revocations.c.confirm_at.is_not(None))
    ended = (
        select(revocations.c.confirmation, func.count())
        .where(revocations.c.confirmation_reason.is_not(None), revocations.c.confirm_at.is_(None))
        .group_by(revocations.c.confirmation)
    )
    found = {row[0]: row[1] for row in connection.execute(ended)}
    return {
        "confirmed": found.get(Confirmation.CONFIRMED.value, 0),
        "still_has_access": found.get(Confirmation.STILL.value, 0),
        "unconfirmed": found.get(None, 0),
        "waiting": connection.execute(waiting).scalar_one(),
    }


def left_open(connection: Connection) -> int:
    """How many left access in place, and no later one of the same resource and person is confirmed."""
    later = revocations.alias("later")
    confirmed = exists().where(
        later.c.person_id == revocations.c.person_id,
        later.c.resource_type == revocations.c.resource_type,
        later.c.resource_id == revocations.c.resource_id,
        later.c.organization_id.is_not_distinct_from(revocations.c.organization_id),
        later.c.settled_at > revocations.c.settled_at,
        later.c.confirmation == Confirmation.CONFIRMED.value,
    )
    left = (revocations.c.confirmation == Confirmation.STILL.value, revocations.c.confirm_at.is_(None))
    asked = revocations.c.confirmation_reason.is_not(None)
    wanted = select(func.count()).select_from(revocations).where(asked, *left, ~confirmed)
    return int(connection.execute(wanted).scalar_one())

"""Which open removals may be sent: those that nothing which is still to be heard may give back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, select

from relay.model import ACCOUNT_LOSSES, GAINS, SECOND, Kind, Micros, Status
from relay.rules import RuleSet
from relay.store import look_ups
from relay.store.look_ups import ACCOUNT, About
from relay.store.tables import identities
from relay.store.tables import look_ups as questions

#: So long a change of an account holds up removals, as it may be the account's return. A change whose look-up fails
#: waits without an end, and whoever was disabled must not keep everything as long.
BRIEFLY: Micros = 30 * SECOND

#: These wait for no directory.
_AT_ONCE = ACCOUNT_LOSSES | {Kind.OPERATOR_REMOVE}


def sendable(
    connection: Connection,
    rules: RuleSet,
    person_id: int,
    due: Iterable[Row[Any]],
    waiting: Sequence[Row[Any]],
    now: Micros,
) -> list[Row[Any]]:
    """Of the due revocations of a person, as `judge_open` gives them, those that may be sent.

    `waiting` are the person's events that are not planned yet. What only one source has told as lost another one may
    give since before the relay: a directory that has never told what the person has there is asked first. Where it
    does not answer within `look_up.patience`, nothing waits for it any longer.
    """
    open_ones = [row for row in due if not any(_may_give_back(connection, one, row, now) for one in waiting)]
    patient = [row for row in open_ones if row.kind not in _AT_ONCE and now - row.created_at < rules.patience]
    losers = {About.of_account(row) for row in patient}  # these were asked about, or in vain
    asked_of = rules.looked_up if patient else ()
    unasked = [one for one in _never_asked(connection, asked_of, person_id) if one not in losers]
    if not unasked:
        return open_ones
    for about in unasked:
        look_ups.want(connection, about, answer_from=min(row.created_at for row in patient), due_at=now)
    return [row for row in open_ones if row not in patient]


def _may_give_back(connection: Connection, waiting: Row[Any], removal: Row[Any], now: Micros) -> bool:
    """Whether an event that is not planned yet may be what ends the loss behind a removal.

    What an account lost by being out of force only its return gives back, whichever groups it gains meanwhile.
    """
    same_account = (waiting.source, waiting.subject) == (removal.source, removal.subject)
    if waiting.kind == Kind.ACCOUNT_CHANGED:
        return same_account and _may_be_back(connection, waiting, now)
    if same_account and removal.kind in ACCOUNT_LOSSES:
        return bool(waiting.kind == Kind.ACCOUNT_ACTIVATED)
    return waiting.kind in GAINS


def _may_be_back(connection: Connection, change: Row[Any], now: Micros) -> bool:
    """Whether a change may be its account's return: while it is new, unless a newer answer says something else."""
    if now - change.received_at >= BRIEFLY:
        return False
    state = look_ups.state_of(connection, About.of_account(change))
    is_answered = state is not None and state.fetched_at is not None and state.fetched_at >= change.received_at
    return state is None or not is_answered or state.status == Status.ACTIVE


def _never_asked(connection: Connection, sources: Collection[str], person_id: int) -> list[About]:
    """The accounts of a person that their directory has never told about."""
    if not sources:
        return []
    told = exists().where(
        questions.c.source == identities.c.source,
        questions.c.object_type == ACCOUNT,
        questions.c.object_id == identities.c.subject,
        questions.c.fetched_at.is_not(None),
    )
    theirs = and_(identities.c.person_id == person_id, identities.c.current, identities.c.source.in_(sorted(sources)))
    found = connection.execute(select(identities.c.source, identities.c.subject).where(theirs, ~told))
    return [About.account(row.source, row.subject) for row in found]

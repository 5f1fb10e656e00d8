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
    coming = [one for one in waiting if one.kind in GAINS] + _returns(connection, waiting, now)
    open_ones = [row for row in due if not any(_may_give_back(rules, one, row) for one in coming)]
    patient = [row for row in open_ones if row.kind not in _AT_ONCE and now < _patient_until(rules, row)]
    losers = {About.of_account(row) for row in patient}  # these were asked about, or in vain
    asked_of = rules.looked_up if patient else ()
    unasked = [one for one in _never_asked(connection, asked_of, person_id) if one not in losers]
    if not unasked:
        return open_ones
    for about in unasked:
        look_ups.want(connection, about, answer_from=min(row.created_at for row in patient), due_at=now)
    return [row for row in open_ones if row not in patient]


def _patient_until(rules: RuleSet, removal: Row[Any]) -> Micros:
    """Until when a removal waits for directories: patience is reckoned from when its event began to wait, and who could
    not be asked before it was planned gets a moment.
    """
    began = removal.look_at or removal.received_at
    return max(int(began) + rules.patience, int(removal.created_at) + BRIEFLY)


def _may_give_back(rules: RuleSet, coming: Row[Any], removal: Row[Any]) -> bool:
    """Whether an event that is not planned yet may be what ends the loss behind a removal.

    What an account lost by being out of force only its return gives back, whichever groups it gains meanwhile; where
    that is all access (`accounts: any`), so does no group of another source.
    """
    same_account = (coming.source, coming.subject) == (removal.source, removal.subject)
    if coming.kind == Kind.ACCOUNT_CHANGED:
        return same_account
    if removal.kind in ACCOUNT_LOSSES and (same_account or rules.accounts == "any"):
        return bool(same_account and coming.kind == Kind.ACCOUNT_ACTIVATED)
    return True


def _returns(connection: Connection, waiting: Iterable[Row[Any]], now: Micros) -> list[Row[Any]]:
    """The last change of each account that may be its return: while the first that waits is new, unless an answer that
    is newer than the last says something else.
    """
    changes: dict[tuple[str, str], list[Row[Any]]] = {}
    for one in sorted(waiting, key=lambda row: int(row.received_at)):
        if one.kind == Kind.ACCOUNT_CHANGED:
            changes.setdefault((one.source, one.subject), []).append(one)
    young = [of_one[-1] for of_one in changes.values() if now - of_one[0].received_at < BRIEFLY]
    return [one for one in young if _may_be_back(connection, one)]


def _may_be_back(connection: Connection, change: Row[Any]) -> bool:
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

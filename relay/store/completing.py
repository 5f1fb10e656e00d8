"""Completing: what a loss takes besides, once its directory has told all that the person had, or who it is.

An explicit loss of an account is planned at once, by what is known then. The answer that comes after adds to it, as
revocations of the same event.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update

from relay import truth
from relay.model import ACCOUNT_LOSSES, LOSSES, Account, EventState, Micros, ObjectType, Resource, Status, to_iso
from relay.rules import RuleSet
from relay.store import look_ups, plan
from relay.store.identities import person_now
from relay.store.look_ups import About, Question
from relay.store.people import due_for_planning
from relay.store.plan_json import outcome_of, plan_as_json
from relay.store.record import event_of, insert_events, row_of
from relay.store.revocations import add_revocations, refresh_events, resource_of
from relay.store.tables import events, facts, revocations

_LOSSES = tuple(kind.value for kind in LOSSES)
#: Events that were planned, and that nobody has called off.
_TAKEN = (EventState.PLANNED.value, EventState.DONE.value, EventState.FAILED.value)


def complete(
    connection: Connection,
    rules: RuleSet,
    question: Question,
    account: Account,
    *,
    new_since: Micros | None,
    now: Micros,
) -> None:
    """Complete the losses of an account that this answer is the first to tell enough about.

    `new_since`: the account has become somebody else, of which nothing could be heard since then; None where it is who
    it was. The caller holds everybody concerned.
    """
    for row in _incomplete(connection, question, account, new_since):
        _complete(connection, rules, row, account, now)


def _incomplete(
    connection: Connection, question: Question, account: Account, new_since: Micros | None
) -> list[Row[Any]]:
    """Losses of the account that were planned before anybody could be asked what else the person has.

    Whom an account has become is to lose what it lost before: by the loss of the account whenever that was, and by
    losses of which no answer of before has told whose they are by a copy that could know.
    """
    mine = (events.c.source == question.source, events.c.subject == question.object_id)
    known = (events.c.received_at <= account.fetched_at, events.c.person_id.is_not(None))
    open_ones: ColumnElement[bool] = events.c.completing
    if new_since is not None:
        last = select(facts.c.event_id).where(
            facts.c.source == question.source,
            facts.c.subject == question.object_id,
            facts.c.object_type == ObjectType.ACCOUNT.value,
            ~facts.c.present,
        )
        since = and_(events.c.kind.in_(_LOSSES), events.c.as_of >= new_since - 2 * truth.YOUNG)
        open_ones = or_(open_ones, and_(or_(events.c.id.in_(last), since), events.c.state.in_(_TAKEN)))
    return list(connection.execute(select(events).where(*mine, *known, open_ones)).all())


def _complete(connection: Connection, rules: RuleSet, row: Row[Any], account: Account, now: Micros) -> None:
    """Add what a loss takes besides, now that the directory has told all that the person had, or who it is."""
    event = event_of(row._asdict())
    whole = event.kind in ACCOUNT_LOSSES
    if whole and _asks_again(connection, row, account):
        return
    is_now = person_now(connection, row.source, row.subject)
    found = plan.plan_of(connection, rules, row, event, complete=truth.knows_all(event, account), person_id=is_now)
    questions = "; ".join(found.open_questions) or None
    # What a group's loss was planned by stays: this answer tells of it only whose it is.
    said = _said(account) if whole else json.loads(row.plan or "{}").get("directory")
    kept = json.dumps(plan_as_json(found, said))
    begun = {person_id: _begun(connection, row, person_id) for person_id in plan.targets_of(connection, row)}
    held, _ = plan.held_by_guard(connection, rules, row, found, begun=begun)
    if held is not None:
        _hold(connection, row, held, kept, now)
        return
    values: dict[str, Any] = {"completing": False, "plan": kept, "unresolved": questions}
    for person_id, planned in begun.items():
        missing = {resource: names for resource, names in found.resources.items() if resource not in planned}
        add_revocations(connection, row.id, person_id, missing, now)
        due_for_planning(connection, {person_id}, now)
    taken = connection.execute(select(revocations.c.id).where(revocations.c.event_id == row.id).limit(1)).first()
    if taken is None:
        values |= outcome_of(found)
    elif not found.resources:
        values = {"completing": False}
    connection.execute(update(events).where(events.c.id == row.id).values(**values))
    if taken is not None:
        refresh_events(connection, [row.id])


def _begun(connection: Connection, row: Row[Any], person_id: int) -> set[Resource]:
    """What an event takes from a person already."""
    has = select(revocations).where(revocations.c.event_id == row.id, revocations.c.person_id == person_id)
    return {resource_of(one) for one in connection.execute(has)}


def _hold(connection: Connection, row: Row[Any], reason: str, kept: str, now: Micros) -> None:
    """Have what is more than a person may lose unasked wait as an event of its own: the rest is planned already."""
    event = replace(event_of(row._asdict()), key=None, payload=b"", state=EventState.HELD, reason=reason)
    waits = row_of(event, row.received_at, parent_id=row.id)
    insert_events(
        connection, [{**waits, "as_of": row.as_of, "person_id": row.person_id, "planned_at": now, "plan": kept}]
    )
    connection.execute(update(events).where(events.c.id == row.id).values(completing=False))


def _said(account: Account) -> dict[str, str | None]:
    told = {"said": f"the account is {account.status}", "status": account.status}
    return {**told, "asked_at": to_iso(account.fetched_at)}


def _asks_again(connection: Connection, row: Row[Any], account: Account) -> bool:
    """Whether an answer that does not know of the account's loss yet is too old, so that another one is waited for."""
    if account.status is not Status.ACTIVE:
        return False
    finding = truth.Finding(None, "the account is active", denies=row.as_of)
    again_at = truth.ask_again_at(finding, account.fetched_at, row.looks)
    if again_at is None:
        return False
    look_ups.want(connection, About.of_account(row), answer_from=again_at, due_at=again_at)
    waits = update(events).where(events.c.id == row.id)
    connection.execute(waits.values(completing=True, looks=row.looks + 1))
    return True

"""Completing: what a loss takes besides, once its directory has told all that the person had, or who it is.

An explicit loss of an account is planned at once, by what is known then. The answer that comes after adds to it, as
revocations of the same event.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_, select, update

from relay import truth
from relay.losses import Plan
from relay.model import (
    ACCOUNT_LOSSES,
    LOSSES,
    Account,
    EventState,
    Micros,
    ObjectType,
    Resource,
    RevocationState,
    Status,
    to_iso,
)
from relay.rules import RuleSet
from relay.store import look_ups, taking
from relay.store.decisions import was_decided_against
from relay.store.identities import person_now
from relay.store.look_ups import About, Question
from relay.store.people import due_for_planning
from relay.store.plan_json import outcome_of, plan_as_json, resources_in
from relay.store.record import event_of, insert_events, row_of
from relay.store.revocations import add_revocations, refresh_events, resource_of
from relay.store.tables import events, facts, identities, revocations

_LOSSES = tuple(kind.value for kind in LOSSES)
_ACCOUNT_LOSSES = tuple(kind.value for kind in ACCOUNT_LOSSES)
#: Events that were planned, and that nobody has called off.
_TAKEN = (EventState.PLANNED.value, EventState.DONE.value, EventState.FAILED.value)
#: The same with those of which nothing was found to take.
_PLANNED = (*_TAKEN, EventState.IGNORED.value)
_HELD = events.c.state == EventState.HELD.value
#: Of parts of a leaving: to be planned by what somebody decided.
_APPROVED = events.c.state == EventState.RECEIVED.value


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
    found = [(row, _whole(connection, row)) for row in _incomplete(connection, question, account, new_since)]
    parts = [row.id for row, whole in found if whole is not row]
    connection.execute(update(events).where(events.c.id.in_(parts)).values(completing=False))
    for row in {whole.id: whole for _, whole in found}.values():
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


def take_gained_before(
    connection: Connection, rules: RuleSet, people: Collection[int], happened_from: Micros, now: Micros
) -> None:
    """Have losses of accounts of these people take what was gained before them, and is told only now.

    `happened_from`: the earliest time of that gain. The caller holds the people.
    """
    theirs = and_(identities.c.source == facts.c.source, identities.c.subject == facts.c.subject)
    lost = (
        select(facts.c.event_id)
        .join(identities, theirs)
        .where(
            identities.c.person_id.in_(people),
            facts.c.object_type == ObjectType.ACCOUNT.value,
            ~facts.c.present,
            facts.c.as_of >= happened_from,
        )
    )
    planned = and_(events.c.kind.in_(_ACCOUNT_LOSSES), events.c.plan.is_not(None), events.c.state.in_(_PLANNED))
    for row in connection.execute(select(events).where(events.c.id.in_(lost), planned, ~was_decided_against())).all():
        said = json.loads(row.plan or "{}").get("directory")
        complete = row.source in rules.looked_up and not row.completing
        _add(connection, rules, row, people, now, said=said, complete=complete)


def _complete(connection: Connection, rules: RuleSet, row: Row[Any], account: Account, now: Micros) -> None:
    """Add what a loss takes besides, now that the directory has told all that the person had, or who it is."""
    event = event_of(row._asdict())
    whole = event.kind in ACCOUNT_LOSSES
    if whole and _asks_again(connection, row, account):
        return
    connection.execute(update(events).where(events.c.id == row.id).values(completing=False))
    # What a group's loss was planned by stays: this answer tells of it only whose it is.
    said = _said(account) if whole else json.loads(row.plan or "{}").get("directory")
    targets = taking.targets_of(connection, row)
    _add(connection, rules, row, targets, now, said=said, complete=truth.knows_all(event, account))


def _add(
    connection: Connection,
    rules: RuleSet,
    row: Row[Any],
    people: Collection[int],
    now: Micros,
    *,
    said: Mapping[str, Any] | None,
    complete: bool,
) -> None:
    """Add what a loss takes from these people besides, by what is known now. `said`: by its directory, if at all."""
    is_now = person_now(connection, row.source, row.subject)
    event = event_of(row._asdict())
    everything = taking.plan_of(connection, rules, row, event, complete=complete, person_id=is_now)
    decided = refused(connection, row)
    found = _only(everything, everything.resources.keys() - decided)
    begun = {person_id: _begun(connection, row, person_id) for person_id in people}
    in_part, approved = _about(connection, row, _HELD), _about(connection, row, _APPROVED)
    waiting = in_part | approved
    news = {person_id: found.resources.keys() - planned - waiting for person_id, planned in begun.items()}
    held, _ = taking.held_by_guard(connection, rules, row, found, begun=begun)
    if held is not None and any(news.values()):
        _hold(connection, row, held, _only(found, in_part.union(*news.values())), said, now)
        waiting, news = waiting.union(*news.values()), {}
    found = _only(found, found.resources.keys() - waiting)
    values: dict[str, Any] = {"plan": json.dumps(plan_as_json(found, said))}
    values["unresolved"] = "; ".join(found.open_questions) or None
    for person_id, resources in news.items():
        missing = {resource: names for resource, names in found.resources.items() if resource in resources}
        add_revocations(connection, row.id, person_id, missing, now)
        due_for_planning(connection, {person_id}, now)
    taken = connection.execute(select(revocations.c.id).where(revocations.c.event_id == row.id).limit(1)).first()
    if taken is None:
        values |= outcome_of(_only(found, ()))
    if taken is None or found.resources:
        connection.execute(update(events).where(events.c.id == row.id).values(**values))
    if taken is not None:
        refresh_events(connection, [row.id])


def _only(plan: Plan, wanted: Collection[Resource]) -> Plan:
    """What of a plan takes these resources."""
    resources = {resource: names for resource, names in plan.resources.items() if resource in wanted}
    steps = (replace(step, resources=tuple(one for one in step.resources if one in wanted)) for step in plan.steps)
    return replace(plan, resources=resources, steps=tuple(steps))


def _begun(connection: Connection, row: Row[Any], person_id: int) -> set[Resource]:
    """What an event, or a part of it that was approved, takes from a person already."""
    parts = select(events.c.id).where(events.c.parent_id == row.id)
    mine = or_(revocations.c.event_id == row.id, revocations.c.event_id.in_(parts))
    has = select(revocations).where(mine, revocations.c.person_id == person_id)
    return {resource_of(one) for one in connection.execute(has)}


def refused(connection: Connection, row: Row[Any]) -> set[Resource]:
    """What somebody decided that the loss of an account is not to take: that is not asked about anew.

    That is what its rejected parts were about and what was cancelled of it. `row`: the loss, or a part of it.
    """
    row = _whole(connection, row)
    found = _about(connection, row, was_decided_against())
    cancelled = (
        select(revocations)
        .join(events, events.c.id == revocations.c.event_id)
        .where(events.c.id == row.id, revocations.c.state == RevocationState.CANCELLED.value, was_decided_against())
    )
    return found.union(resource_of(one) for one in connection.execute(cancelled))


def without_refused(connection: Connection, row: Row[Any], plan: Plan) -> Plan:
    """The plan of a leaving without what was refused of it and what waits in a part; of a part, what it is about."""
    if row.kind not in ACCOUNT_LOSSES:
        return plan
    whole = _whole(connection, row)
    out = refused(connection, row) | _about(connection, whole, _HELD)
    if whole is not row and row.plan is not None:
        out |= plan.resources.keys() - resources_in(row.plan)
    return _only(plan, plan.resources.keys() - out) if out else plan


def _whole(connection: Connection, row: Row[Any]) -> Row[Any]:
    """The leaving that an event is a part of, or the event itself."""
    if row.parent_id is None or row.kind not in ACCOUNT_LOSSES:
        return row
    whole = connection.execute(select(events).where(events.c.id == row.parent_id)).one()
    return whole if whole.subject == row.subject and whole.kind in ACCOUNT_LOSSES else row


def _about(connection: Connection, row: Row[Any], which: ColumnElement[bool]) -> set[Resource]:
    """What parts of a leaving are about, by their plans."""
    mine = and_(events.c.parent_id == row.id, events.c.subject == row.subject, events.c.plan.is_not(None))
    plans = connection.execute(select(events.c.plan).where(mine, which)).scalars()
    return {resource for plan in plans for resource in resources_in(plan)}


def _hold(
    connection: Connection, row: Row[Any], reason: str, part: Plan, said: Mapping[str, Any] | None, now: Micros
) -> None:
    """Have what is more than a person may lose unasked wait as an event of its own: the rest is planned already.

    There is one that waits: what is found besides is added to it.
    """
    kept = json.dumps(plan_as_json(part, said))
    mine = and_(events.c.parent_id == row.id, events.c.subject == row.subject, _HELD)
    if connection.execute(update(events).where(mine).values(reason=reason, plan=kept)).rowcount:
        return
    event = replace(event_of(row._asdict()), key=None, payload=b"", state=EventState.HELD, reason=reason)
    waits = row_of(event, row.received_at, parent_id=row.id)
    insert_events(
        connection, [{**waits, "as_of": row.as_of, "person_id": row.person_id, "planned_at": now, "plan": kept}]
    )


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

"""Completing: what a loss takes besides, once its directory has told all that the person had, or who it is.

An explicit loss of an account is planned at once, by what is known then. The answer that comes after adds to it, as
revocations of the same event.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Set
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, or_, select, update

from relay import truth
from relay.losses import Plan
from relay.model import (
    ACCOUNT_LOSSES,
    LOSSES,
    Account,
    EventState,
    Kind,
    Micros,
    ObjectType,
    Resource,
    Status,
    to_iso,
)
from relay.rules import RuleSet
from relay.store import look_ups, parts, taking
from relay.store.decisions import is_decided_against
from relay.store.identities import people_of, person_now
from relay.store.look_ups import About, Question
from relay.store.people import due_for_planning
from relay.store.plan_json import outcome_of, plan_as_json
from relay.store.record import event_of
from relay.store.revocations import add_revocations, refresh_events
from relay.store.tables import events, facts, identities, revocations

_LOSSES = tuple(kind.value for kind in LOSSES)
_ACCOUNT_LOSSES = tuple(kind.value for kind in ACCOUNT_LOSSES)
#: Events that were planned, and that nobody has called off.
_TAKEN = (EventState.PLANNED.value, EventState.DONE.value, EventState.FAILED.value)
#: The same with those of which nothing was found to take.
_PLANNED = (*_TAKEN, EventState.IGNORED.value)


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
    found = [(row, parts.whole_of(connection, row)) for row in _incomplete(connection, question, account, new_since)]
    no_wholes = [row.id for row, whole in found if whole is not row]
    connection.execute(update(events).where(events.c.id.in_(no_wholes)).values(completing=False))
    for row in {whole.id: whole for _, whole in found}.values():
        if row.state != EventState.RECEIVED.value:  # else it is to be planned again, which completes it
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
        lost_account = and_(events.c.kind.in_(_ACCOUNT_LOSSES), _stands())
        since = and_(events.c.kind.in_(_LOSSES), events.c.as_of >= new_since - 2 * truth.YOUNG)
        open_ones = or_(open_ones, and_(or_(lost_account, since), events.c.state.in_(_TAKEN)))
    return list(connection.execute(select(events).where(*mine, *known, open_ones)).all())


def _stands() -> ColumnElement[bool]:
    """The condition on account losses that the account is lost, and was not back since as far as is believed."""
    of_account = and_(
        facts.c.source == events.c.source,
        facts.c.subject == events.c.subject,
        facts.c.object_type == ObjectType.ACCOUNT.value,
    )
    is_lost = exists().where(of_account, ~facts.c.present)
    by_this = exists().where(of_account, facts.c.event_id == events.c.id)
    later = events.alias("later")
    back = exists().where(
        later.c.source == events.c.source,
        later.c.subject == events.c.subject,
        later.c.kind == Kind.ACCOUNT_ACTIVATED.value,
        later.c.state == EventState.DONE.value,
        later.c.as_of > events.c.as_of,
    )
    return and_(is_lost, or_(by_this, ~back))


def take_gained_before(
    connection: Connection, rules: RuleSet, source: str, subject: str, happened_from: Micros, now: Micros
) -> None:
    """Have leavings take what an account had gained before them, and is told only now.

    Those are its own, which concern everybody it has been, and those of other accounts of whom it is now.
    `happened_from`: the earliest time of that gain. The caller holds everybody the account has been.
    """
    been = people_of(connection, source, subject)
    accounts = select(identities.c.source, identities.c.subject).where(identities.c.person_id.in_(been[:1])).distinct()
    for account in connection.execute(accounts).all():
        people = been if (account.source, account.subject) == (source, subject) else been[:1]
        named: set[Resource] = set()
        for row in _leavings(connection, account.source, account.subject, happened_from):
            if row.state == EventState.HELD.value or is_decided_against(connection, row):
                break  # what an operator decides of the last one holds for those before it, too
            if row.state in _PLANNED and "rules" in json.loads(row.plan or "{}"):
                named |= _add_gained(connection, rules, row, people, named, now)


def _leavings(connection: Connection, source: str, subject: str, since: Micros) -> list[Row[Any]]:
    """The losses of an account that stand, the last one first."""
    mine = (events.c.source == source, events.c.subject == subject, events.c.kind.in_(_ACCOUNT_LOSSES))
    lost = select(events).where(*mine, events.c.as_of >= since, _stands())
    found = connection.execute(lost.order_by(events.c.as_of.desc(), events.c.id.desc())).all()
    return list({whole.id: whole for whole in (parts.whole_of(connection, row) for row in found)}.values())


def _add_gained(
    connection: Connection,
    rules: RuleSet,
    row: Row[Any],
    people: Collection[int],
    named: Collection[Resource],
    now: Micros,
) -> Set[Resource]:
    """Add what a leaving takes besides and no later one (`named`) does; return all that it is about."""
    said = json.loads(row.plan)["directory"]
    complete = row.source in rules.looked_up and not row.completing
    everything = _everything(connection, rules, row, complete=complete)
    besides = everything.resources.keys() - set(named)
    if any(besides - parts.begun(connection, row, person_id) for person_id in people):
        _add(connection, rules, row, people, now, everything, said=said, without=named)
    return everything.resources.keys()


def _complete(connection: Connection, rules: RuleSet, row: Row[Any], account: Account, now: Micros) -> None:
    """Add what a loss takes besides, now that the directory has told all that the person had, or who it is."""
    event = event_of(row._asdict())
    is_leaving = event.kind in ACCOUNT_LOSSES
    if is_leaving and _asks_again(connection, row, account):
        return
    connection.execute(update(events).where(events.c.id == row.id).values(completing=False))
    # What a group's loss was planned by stays: this answer tells of it only whose it is.
    said = _said(account) if is_leaving else json.loads(row.plan or "{}").get("directory")
    targets = taking.targets_of(connection, row)
    everything = _everything(connection, rules, row, complete=truth.knows_all(event, account))
    _add(connection, rules, row, targets, now, everything, said=said)


def _everything(connection: Connection, rules: RuleSet, row: Row[Any], *, complete: bool) -> Plan:
    """What a loss takes by what is known now, whoever its account is."""
    is_now = person_now(connection, row.source, row.subject)
    event = event_of(row._asdict())
    return taking.plan_of(connection, rules, row, event, complete=complete, person_id=is_now)


def _add(
    connection: Connection,
    rules: RuleSet,
    row: Row[Any],
    people: Collection[int],
    now: Micros,
    everything: Plan,
    *,
    said: Mapping[str, Any] | None,
    without: Collection[Resource] = (),
) -> None:
    """Add what a loss takes from these people besides, of `everything` but what is `without`.

    `said`: by its directory, if at all.
    """
    found = parts.may_take(connection, row, everything)
    begun = {person_id: parts.begun(connection, row, person_id) for person_id in people}
    in_part = parts.about(connection, row, parts.HELD)
    waiting = in_part | parts.about(connection, row, parts.APPROVED)
    out = waiting.union(without)
    news = {person_id: found.resources.keys() - planned - out for person_id, planned in begun.items()}
    held, _ = taking.held_by_guard(connection, rules, row, found, begun=begun)
    if held is not None and any(news.values()):
        parts.hold(connection, row, held, found.only(in_part.union(*news.values())), said, now)
        waiting, news = waiting.union(*news.values()), {}
    found = found.only(found.resources.keys() - waiting)
    values: dict[str, Any] = {"plan": json.dumps(plan_as_json(found, said))}
    values["unresolved"] = "; ".join(found.open_questions) or None
    for person_id, resources in news.items():
        missing = {resource: names for resource, names in found.resources.items() if resource in resources}
        add_revocations(connection, row.id, person_id, missing, now)
        due_for_planning(connection, {person_id}, now)
    taken = connection.execute(select(revocations.c.id).where(revocations.c.event_id == row.id).limit(1)).first()
    if taken is None:
        values |= outcome_of(found.only(()))
    if taken is None or found.resources:
        connection.execute(update(events).where(events.c.id == row.id).values(**values))
    if taken is not None:
        refresh_events(connection, [row.id])


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

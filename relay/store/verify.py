"""Verifying: what an event comes to by its source's directory, before it is planned.

Without a directory the event is taken at its word. With one, an event that needs it waits for an answer that is not
older than the event; when none comes within `look_up.patience`, it is taken at its word after all: late is worse than
generous here. Only what says nothing by itself (a change) waits on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from relay import entitlement, truth
from relay.model import ACCOUNT_LOSSES, GAINS, AccessEvent, Account, Fact, Kind, Micros, ObjectType, to_iso
from relay.rules import RuleSet
from relay.store import look_ups, parts, turned
from relay.store.facts import facts_of, group_name
from relay.store.look_ups import About
from relay.store.record import event_of
from relay.store.tables import events


@dataclass(frozen=True, slots=True)
class Seen:
    """An event that can be planned: its row and what it is by now, and the fact to keep of it.

    `reason` is set where there is nothing to take. `complete`: the directory has told all groups of this person since
    the event came. `may_complete`: it has not, and could. `evidence`: what the directory said, or why it said
    nothing in time; None where it was not asked.
    """

    row: Row[Any]
    event: AccessEvent
    fact: Fact | None
    reason: str | None = None
    complete: bool = False
    may_complete: bool = False
    evidence: dict[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """A finding that may not be believed yet: when its answer was fetched, and how many have denied the same before."""

    finding: truth.Finding
    fetched_at: Micros
    looks: int


def see(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> Seen | None:
    """What is to be planned of an event, None while it waits for a look-up."""
    event = event_of(row._asdict())
    said = entitlement.fact_of(event, row.id, row.as_of)
    if row.source not in rules.looked_up:
        return Seen(row, event, said)
    own = _own_fact(connection, event)
    state = look_ups.state_of(connection, About.of_account(row))
    answer = look_ups.answer_in(state)
    answer_from = look_ups.counts_from(row)
    if answer is not None and not _serves(answer, event, answer_from):
        answer = None
    if not truth.is_wanted(event, row.as_of, own, now):
        event = _with_name(connection, event, answer)
        if answer is None and _lacks_name(rules, event) and _is_patient(row, event, now):
            _wait(connection, rules, row, answer_from, state, now)
            return None
        turned.ask_later(connection, rules, row, event.kind, answer, now)
        said = entitlement.fact_of(event, row.id, row.as_of)
        complete = answer is not None and truth.knows_all(event, answer)
        return Seen(row, event, said, complete=complete, may_complete=event.kind in ACCOUNT_LOSSES and answer is None)
    if answer is None:
        if _is_patient(row, event, now):
            _wait(connection, rules, row, answer_from, state, now)
            return None
        turned.ask_later(connection, rules, row, event.kind, answer, now)
        may_complete = event.kind in ACCOUNT_LOSSES
        return Seen(row, event, said, may_complete=may_complete, evidence=look_ups.no_answer(state))
    finding = truth.find(event, row.as_of, answer, own)
    looks = truth.denials(finding, row.look_at, row.looks)
    doubt = Doubt(finding, answer.fetched_at, looks)
    if waits_again(connection, row, About.of_account(row), doubt, patience=rules.patience):
        return None
    turned.ask_later(connection, rules, row, finding.kind or event.kind, answer, now)
    turned.tell_ended(connection, rules, row, finding, answer, now)
    return _by(connection, row, event, said, answer, finding)


def _with_name(connection: Connection, event: AccessEvent, answer: Account | None) -> AccessEvent:
    """The event with its group's name, where an answer tells it or it was told of anybody."""
    if event.group_id is None or event.group_name is not None:
        return event
    told = truth.names_of(answer).get(event.group_id) if answer is not None else None
    return replace(event, group_name=told or group_name(connection, event.source, event.group_id))


def _lacks_name(rules: RuleSet, event: AccessEvent) -> bool:
    """Whether what a gained group gives cannot be told without its name, which a look-up tells."""
    asked = event.kind in GAINS and event.group_id is not None and event.group_name is None
    return asked and "group.name" in rules.looked_up[event.source] and rules.reads("group.name")


def _own_fact(connection: Connection, event: AccessEvent) -> Fact | None:
    """What is known of the very object that an event is about."""
    known = facts_of(connection, [(event.source, event.subject or "")])
    return next((fact for fact in known if fact.thing == event.thing), None)


def want_the_rest(connection: Connection, row: Row[Any], now: Micros) -> None:
    """Have it looked up what else an account's loss takes."""
    look_ups.want(connection, About.of_account(row), answer_from=row.received_at, due_at=now)


def _serves(answer: Account, event: AccessEvent, answer_from: Micros) -> bool:
    """Whether an answer is new enough, and tells of the group or app that the event names."""
    if answer.fetched_at < answer_from:
        return False
    object_type, object_id = event.thing
    if object_type is ObjectType.APP:
        return object_id in answer.apps
    return event.group_id is None or event.group_name is not None or event.group_id in truth.asked_names(answer)


def _is_patient(row: Row[Any], event: AccessEvent, now: Micros) -> bool:
    return row.wait_until is None or now < row.wait_until or event.kind is Kind.ACCOUNT_CHANGED


def _wait(
    connection: Connection, rules: RuleSet, row: Row[Any], answer_from: Micros, state: Row[Any] | None, now: Micros
) -> None:
    waits = row.wait_until is not None and now < row.wait_until
    if waits and state is not None and _is_asked(state, max(now, answer_from)):
        return  # else its answer was new enough, but did not tell of the group or app of this event
    told = f"{look_ups.WAITING}: {state.reason}" if state is not None and state.reason else look_ups.WAITING
    until = row.wait_until if waits else max(now, answer_from) + rules.patience
    due_at = answer_from if row.wait_until is None else max(answer_from, now + look_ups.PAUSE)
    about, looks = About.of_account(row), row.looks
    look_ups.wait(connection, row, about, answer_from=answer_from, until=until, due_at=due_at, reason=told, looks=looks)


def _is_asked(state: Row[Any], soon: Micros) -> bool:
    """Whether a question is being put, or is as soon as it can be; it may be put later for another reason."""
    trying = state.asked_until is not None or state.failures > 0
    return state.due_at is not None and (trying or state.due_at <= soon + look_ups.PAUSE)


def waits_again(
    connection: Connection, row: Row[Any], about: About, doubt: Doubt, *, patience: Micros, now: Micros = 0
) -> bool:
    """Have an event wait for another answer where this one is not believed yet; whether it does.

    It waits no longer than `patience` after the question is put again, or after `now` where that is later.
    """
    finding = doubt.finding
    at = truth.ask_again_at(finding, doubt.fetched_at, doubt.looks)
    if at is None or finding.denies is None:
        return False
    lags = f"it may lag behind the news of {to_iso(finding.denies)}"
    said = f"the directory says {finding.said}, but {lags}; asked again at {to_iso(at)}"
    until, reason = max(at, now) + patience, f"{look_ups.WAITING}: {said}"
    look_ups.wait(connection, row, about, answer_from=at, until=until, reason=reason, looks=doubt.looks + 1)
    return True


def _by(
    connection: Connection,
    row: Row[Any],
    event: AccessEvent,
    said: Fact | None,
    answer: Account,
    finding: truth.Finding,
) -> Seen:
    """The event by an answer that is believed."""
    fact = said
    if finding.has is not None:
        at = truth.believed_at(finding, row.as_of, answer.fetched_at)
        told = truth.fact_of(row.source, answer, *event.thing, finding.has, at=at)
        # A part tells only of what it is about: if this is another leaving, whoever else tells of it is to be heard.
        fact = replace(told, event_id=None if parts.is_part(connection, row) else row.id)
    names = truth.names_of(answer)
    event = replace(event, group_name=event.group_name or names.get(event.group_id or ""))
    complete = truth.knows_all(event, answer)
    evidence = {"said": finding.said, "status": answer.status.value, "asked_at": to_iso(answer.fetched_at)}
    if finding.kind is None:
        return Seen(row, event, fact if finding.has is not False else None, finding.said, complete, evidence=evidence)
    if finding.kind is not event.kind:
        connection.execute(update(events).where(events.c.id == row.id).values(kind=finding.kind.value))
        row = connection.execute(select(events).where(events.c.id == row.id)).one()
        event = replace(event, kind=finding.kind)
    return Seen(row, event, fact, complete=complete, evidence=evidence)

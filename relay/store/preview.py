"""Previews: what an event would do, by the stored facts and the rules of today. Reads, writes nothing.

Planning itself decides, by the functions that it shares; what is here is only how the facts would look then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Row, func, select

from relay import entitlement, losses, truth
from relay.entitlement import Knowledge, Verdict
from relay.losses import Plan
from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    LOSSES,
    AccessEvent,
    Account,
    EventState,
    Fact,
    Micros,
    Resource,
    RevocationState,
    Status,
    Subject,
    to_iso,
)
from relay.rules import RuleSet
from relay.store import guard, look_ups, verify
from relay.store.facts import facts_of, group_name
from relay.store.fan_out import fanned_out, having
from relay.store.identities import identities_of, people_of, velt_user_id_of
from relay.store.ledger import recorded_as
from relay.store.people import knowledge_of, with_known_names
from relay.store.plan_json import outcome_of, step_as_json
from relay.store.record import row_of
from relay.store.revocations import cause_of
from relay.store.tables import people

#: Members of a group, or people of an app, who are shown one by one.
SHOWN_MEMBERS = 10

_OF_A_GROUP = "the member is a group: those who are known to gain or lose something by that get one event each"


@dataclass(frozen=True, slots=True)
class Removal:
    """One resource that the event names for one Velt user, and whether it would go."""

    velt_user_id: str
    resource: Resource
    rules: tuple[str, ...]
    verdict: Verdict

    @property
    def goes(self) -> bool:
        return self.verdict.state is RevocationState.PENDING


@dataclass(frozen=True, slots=True)
class Preview:
    """What an event would come to. `members`: how many people it is about, None where it names one person."""

    event: AccessEvent
    state: EventState
    reason: str | None = None
    velt_user_id: str | None = None
    plan: Plan | None = None
    removals: tuple[Removal, ...] = ()
    recorded: str | None = None
    members: int | None = None
    people: tuple[Preview, ...] = ()


def preview(connection: Connection, rules: RuleSet, event: AccessEvent, answer: Account | None, now: Micros) -> Preview:
    """What this event would do if it came now. How many other people lose something is not asked.

    `answer` is what the source's directory says now of the event's account, None where it was not asked.
    """
    recorded = recorded_as(connection, event.source, event.key)
    if event.state is not EventState.RECEIVED:
        return Preview(event, event.state, event.reason, recorded=recorded)
    if event.subject is None:
        return replace(_of_members(connection, rules, event, now), recorded=recorded)
    if answer is not None and answer.status is Status.GROUP:
        return Preview(event, EventState.DONE, _OF_A_GROUP, recorded=recorded)
    return replace(_of_person(connection, rules, event, now, answer), recorded=recorded)


def _of_members(connection: Connection, rules: RuleSet, event: AccessEvent, now: Micros) -> Preview:
    row = _row(event, now)
    known = having(row)
    number = connection.execute(select(func.count()).select_from(known.subquery())).scalar_one()
    first = connection.execute(known.order_by("subject").limit(SHOWN_MEMBERS))
    shown = tuple(
        _of_person(connection, rules, replace(event, subject=subject, twin=False), now)
        for subject in first.scalars().all()
    )
    held = guard.holds_group(rules, row, number)
    end = fanned_out(number, row) if held is None else {"state": EventState.HELD, "reason": held}
    return Preview(event, EventState(end["state"]), end["reason"], members=number, people=shown)


def _of_person(
    connection: Connection, rules: RuleSet, event: AccessEvent, now: Micros, answer: Account | None = None
) -> Preview:
    if answer is not None:
        event = _as_told(event, answer)
    row = _row(event, now)
    known = identities_of(connection, [row])[row.source, row.subject]
    velt_user_id, why_none = velt_user_id_of(rules, row, known, answer)
    own = verify.own_fact(connection, event)
    wanted = event.source in rules.looked_up and truth.is_wanted(event, row.as_of, own)
    if answer is None and event.source in rules.looked_up:
        if velt_user_id is None:
            return Preview(event, EventState.RECEIVED, f"{look_ups.WAITING}: {why_none}")
        if wanted and event.kind not in LOSSES:
            return Preview(event, EventState.RECEIVED, look_ups.WAITING, velt_user_id)
    if answer is not None and wanted:
        finding = truth.find(event, row.as_of, answer, own)
        if finding.kind is None or truth.ask_again_at(finding, answer.fetched_at, 0) is not None:
            return _ended(event, finding, answer, velt_user_id)
        event = replace(event, kind=finding.kind)
    if event.kind in GAINS:
        return Preview(event, EventState.DONE, "gain", velt_user_id)
    if velt_user_id is None:
        return Preview(event, EventState.FAILED, why_none)
    if event.kind not in LOSSES:
        return Preview(event, EventState.IGNORED, f"{event.kind.value} takes nothing by itself", velt_user_id)
    planned = _of_loss(connection, rules, event, now, known, velt_user_id, answer)
    if wanted and answer is None:
        told = f"; {planned.reason}" if planned.reason else ""
        return replace(planned, reason=f"as the event says; its directory would be asked first{told}")
    return planned


def _of_loss(
    connection: Connection,
    rules: RuleSet,
    event: AccessEvent,
    now: Micros,
    known: Sequence[Row[Any]],
    velt_user_id: str,
    answer: Account | None,
) -> Preview:
    """What a loss takes from the Velt user that it names and from those that its subject has been."""
    row = _row(event, now)
    past = facts_of(connection, [(event.source, event.subject or "")])
    fact = entitlement.fact_of(event, "", now)
    if answer is not None:
        for news in truth.facts_of(event.source, answer, past, {event.thing}):
            past = _applied(past, news)
    person = next((identity.person_id for identity in known if identity.velt_user_id == velt_user_id), None)
    if person is None:
        person = connection.execute(select(people.c.id).where(people.c.velt_user_id == velt_user_id)).scalar()
    before = knowledge_of(connection, person) if person is not None else Knowledge()
    knowledge = _with(before, event, known, past, fact, looked_up=answer is not None)
    past = _applied(past, fact)
    told = with_known_names(event, knowledge.subjects, [*knowledge.facts, *past])
    if told.group_name is None:
        told = replace(told, group_name=group_name(connection, event.source, event.group_id))
    complete = answer is not None and truth.knows_all(event, answer)
    plan = losses.plan(told, rules, knowledge, past, complete=complete)
    targets = {velt_user_id: knowledge} | _other_targets(connection, event, velt_user_id, fact)
    removals = tuple(
        removal for target, known_of in targets.items() for removal in _removals(rules, row, plan, target, known_of)
    )
    held = guard.too_much(rules, plan, _news(connection, removals, past, fact))
    end = outcome_of(plan) if held is None else {"state": EventState.HELD, "reason": held}
    return Preview(told, EventState(end["state"]), end["reason"], velt_user_id, plan, removals)


def _news(
    connection: Connection, removals: Iterable[Removal], known: Iterable[Fact], fact: Fact | None
) -> list[set[Resource]]:
    """What would go from each person and was not removed before. `known`: the subject's facts, without the event's."""
    old = next((one for one in known if fact is not None and one.key == fact.key and one.present), None)
    going: dict[str, set[Resource]] = {}
    for removal in removals:
        if removal.goes:
            going.setdefault(removal.velt_user_id, set()).add(removal.resource)
    rows = connection.execute(select(people).where(people.c.velt_user_id.in_(going))).all()
    before = {row.velt_user_id: guard.taken_before(connection, row.id, old.as_of if old else 0) for row in rows}
    return [resources - before.get(user, set()) for user, resources in going.items()]


def _as_told(event: AccessEvent, answer: Account) -> AccessEvent:
    """The event with what its directory adds to it."""
    return replace(
        event,
        login=event.login or answer.login,
        email=event.email or answer.email,
        external_id=event.external_id or answer.external_id,
        group_name=event.group_name or truth.names_of(answer).get(event.group_id or ""),
    )


def _ended(event: AccessEvent, finding: truth.Finding, answer: Account, velt_user_id: str | None) -> Preview:
    """The preview of an event that the directory's answer ends, or has wait for another answer."""
    if truth.ask_again_at(finding, answer.fetched_at, 0) is not None:
        told = f"{look_ups.WAITING}: the directory says {finding.said}, but it may lag behind and would be asked again"
        return Preview(event, EventState.RECEIVED, told, velt_user_id)
    return Preview(event, EventState.DONE if event.kind in GAINS else EventState.IGNORED, finding.said, velt_user_id)


def _row(event: AccessEvent, now: Micros) -> Any:
    """What planning would read of this event, had it been recorded now."""
    return SimpleNamespace(**row_of(event, now))


def _other_targets(
    connection: Connection, event: AccessEvent, velt_user_id: str, fact: Fact | None
) -> dict[str, Knowledge]:
    """The Velt users that the subject has been: an account loss reaches them too."""
    if event.kind not in ACCOUNT_LOSSES:
        return {}
    ids = people_of(connection, event.source, event.subject or "")
    rows = connection.execute(select(people).where(people.c.id.in_(ids), people.c.velt_user_id != velt_user_id))
    found = {}
    for row in rows.all():
        knowledge = knowledge_of(connection, row.id)
        # Whom the subject is now is `velt_user_id`, whatever was stored.
        subjects = tuple(s for s in knowledge.subjects if (s.source, s.id) != (event.source, event.subject))
        mine = {(s.source, s.id) for s in subjects}
        kept = tuple(f for f in _applied(knowledge.facts, fact) if (f.source, f.subject) in mine)
        found[row.velt_user_id] = Knowledge(subjects, kept)
    return found


def _removals(rules: RuleSet, row: Any, plan: Plan, velt_user_id: str, knowledge: Knowledge) -> Iterable[Removal]:
    cause = cause_of(row)
    entitled = entitlement.grants(rules, knowledge)
    for resource, names in plan.resources.items():
        yield Removal(velt_user_id, resource, names, entitlement.judge(resource, cause, knowledge, entitled))


def _with(
    knowledge: Knowledge,
    event: AccessEvent,
    known: Sequence[Row[Any]],
    past: tuple[Fact, ...],
    fact: Fact | None,
    *,
    looked_up: bool,
) -> Knowledge:
    """The person's knowledge as routing and learning this event would make it."""
    current = next((row for row in known if row.current), None)
    subject = Subject(
        event.source,
        event.subject or "",
        event.login or (current.login if current else None),
        event.email or (current.email if current else None),
        event.external_id or (current.external_id if current else None),
        looked_up,
    )
    others = tuple(s for s in knowledge.subjects if (s.source, s.id) != (subject.source, subject.id))
    every = tuple(dict.fromkeys([*knowledge.facts, *past]))
    return Knowledge((*others, subject), _applied(every, fact))


def _applied(known: tuple[Fact, ...], fact: Fact | None) -> tuple[Fact, ...]:
    """The facts with the event's own one in them, where it is newer."""
    if fact is None:
        return known
    old = next((f for f in known if f.key == fact.key), None)
    if not entitlement.newer(old, fact):
        return known
    new = replace(fact, name=fact.name or (old.name if old else None))
    return (*(f for f in known if f is not old), new)


def as_json(found: Preview) -> dict[str, Any]:
    """The preview as people get it; `removals[].state` is `pending` where the resource would be removed."""
    event = found.event
    return {
        "kind": event.kind.value,
        "type": event.type,
        "state": found.state.value,
        "reason": found.reason,
        "user": {
            "id": event.subject,
            "login": event.login,
            "email": event.email,
            "external_id": event.external_id,
            "velt_user_id": found.velt_user_id,
        },
        "group": {"id": event.group_id, "name": event.group_name} if event.group_id or event.group_name else None,
        "app": {"id": event.app_id, "name": event.app_name} if event.app_id or event.app_name else None,
        "occurred_at": to_iso(event.occurred_at),
        "recorded_as": found.recorded,
        "rules": [step_as_json(step) for step in found.plan.steps] if found.plan else [],
        "incomplete": list(found.plan.incomplete) if found.plan else [],
        "removals": [
            {
                "velt_user_id": removal.velt_user_id,
                "resource": removal.resource.as_velt(),
                "rules": list(removal.rules),
                "state": removal.verdict.state.value,
                "reason": removal.verdict.reason or None,
                "superseded_by": removal.verdict.superseded_by or None,
            }
            for removal in found.removals
        ],
        "members": found.members,
        "people": [as_json(person) for person in found.people],
    }

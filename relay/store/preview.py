"""Previews: what an event would do, by the stored facts and the rules of today. Reads, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, func, select

from relay import entitlement
from relay.entitlement import Cause, Knowledge, Plan, Verdict
from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    LOSSES,
    AccessEvent,
    EventState,
    Fact,
    Kind,
    Micros,
    ObjectType,
    Resource,
    Subject,
    to_iso,
)
from relay.rules import Fields, RuleSet
from relay.store.ledger import recorded_as
from relay.store.people import facts_of, knowledge_of, people_of, with_known_names
from relay.store.tables import facts, identities, people

#: Members of a group, or people of an app, who are shown one by one.
SHOWN_MEMBERS = 10

_PLANNED, _IGNORED, _DONE, _FAILED = EventState.PLANNED, EventState.IGNORED, EventState.DONE, EventState.FAILED


@dataclass(frozen=True, slots=True)
class Removal:
    """One resource that the event names for one Velt user, and whether it would go."""

    velt_user_id: str
    resource: Resource
    rules: tuple[str, ...]
    verdict: Verdict


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


def preview(connection: Connection, rules: RuleSet, event: AccessEvent, now: Micros) -> Preview:
    """What this event would do if it came now."""
    recorded = recorded_as(connection, event.source, event.key)
    if event.state is not EventState.RECEIVED:
        return Preview(event, event.state, event.reason, recorded=recorded)
    if event.subject is None:
        return replace(_of_members(connection, rules, event, now), recorded=recorded)
    return replace(_of_person(connection, rules, event, now), recorded=recorded)


def _of_members(connection: Connection, rules: RuleSet, event: AccessEvent, now: Micros) -> Preview:
    object_type, object_id = (ObjectType.GROUP, event.group_id) if event.group_id else (ObjectType.APP, event.app_id)
    known = and_(
        facts.c.source == event.source,
        facts.c.object_type == object_type.value,
        facts.c.object_id == (object_id or ""),
        facts.c.present,
        facts.c.as_of <= min(event.occurred_at or now, now),
    )
    number = connection.execute(select(func.count()).select_from(facts).where(known)).scalar_one()
    first = connection.execute(select(facts.c.subject).where(known).order_by(facts.c.subject).limit(SHOWN_MEMBERS))
    shown = tuple(
        _of_person(connection, rules, replace(event, subject=subject, twin=False), now)
        for subject in first.scalars().all()
    )
    if not number:
        return Preview(event, _IGNORED, "no member of it is known", members=0)
    return Preview(event, _DONE, f"{number} known members, one event each", members=number, people=shown)


def _of_person(connection: Connection, rules: RuleSet, event: AccessEvent, now: Micros) -> Preview:
    known = _identities(connection, event)
    velt_user_id, why_none = _velt_user_id(rules, event, known)
    if event.kind in GAINS:
        return Preview(event, _DONE, "gain: it takes nothing away", velt_user_id)
    if event.kind not in LOSSES:
        return Preview(event, _IGNORED, f"{event.kind.value} takes nothing by itself", velt_user_id)
    if velt_user_id is None:
        return Preview(event, _FAILED, why_none)
    fact = entitlement.fact_of(event, "", now)
    past = facts_of(connection, [(event.source, event.subject or "")])
    person = next((row.person_id for row in known if row.velt_user_id == velt_user_id), None)
    if person is None:
        person = connection.execute(select(people.c.id).where(people.c.velt_user_id == velt_user_id)).scalar()
    knowledge = _with(knowledge_of(connection, person) if person is not None else Knowledge(), event, known, past, fact)
    past = _applied(past, fact)
    told = with_known_names(event, knowledge.subjects, [*knowledge.facts, *past])
    plan = entitlement.plan(told, rules, knowledge, past)
    targets = {velt_user_id: knowledge} | _other_targets(connection, event, velt_user_id, fact)
    removals = tuple(
        removal
        for target, known_of in targets.items()
        for removal in _removals(rules, event, plan, target, known_of, now)
    )
    state, reason = _state(plan)
    return Preview(told, state, reason, velt_user_id, plan, removals)


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


def _removals(
    rules: RuleSet, event: AccessEvent, plan: Plan, velt_user_id: str, knowledge: Knowledge, now: Micros
) -> Iterable[Removal]:
    at = min(event.occurred_at if event.occurred_at is not None else now, now)
    # As in planning: an event may name both, such as a group that lost its app.
    object_id = event.app_id if event.kind is Kind.APP_ACCESS_REMOVED else event.group_id
    named = "" if event.kind in ACCOUNT_LOSSES else object_id or ""
    cause = Cause(event.kind, event.source, event.subject or "", named, at, "")
    entitled = entitlement.grants(rules, knowledge)
    for resource, names in plan.resources.items():
        yield Removal(velt_user_id, resource, names, entitlement.judge(resource, cause, knowledge, entitled))


def _state(plan: Plan) -> tuple[EventState, str | None]:
    questions = "; ".join(plan.open_questions) or None
    if plan.resources:
        return _PLANNED, questions
    if questions:
        return _FAILED, questions
    return _IGNORED, "no rule takes anything"


def _with(
    knowledge: Knowledge, event: AccessEvent, known: Sequence[Row[Any]], past: tuple[Fact, ...], fact: Fact | None
) -> Knowledge:
    """The person's knowledge as routing and learning this event would make it."""
    current = next((row for row in known if row.current), None)
    subject = Subject(
        event.source,
        event.subject or "",
        event.login or (current.login if current else None),
        event.email or (current.email if current else None),
        event.external_id or (current.external_id if current else None),
    )
    others = tuple(s for s in knowledge.subjects if (s.source, s.id) != (subject.source, subject.id))
    every = tuple(dict.fromkeys([*knowledge.facts, *past]))
    return Knowledge((*others, subject), _applied(every, fact))


def _applied(known: tuple[Fact, ...], fact: Fact | None) -> tuple[Fact, ...]:
    """The facts with the event's own one in them, where it is newer."""
    if fact is None:
        return known
    old = next((f for f in known if _key(f) == _key(fact)), None)
    if not entitlement.newer(old, fact):
        return known
    new = replace(fact, name=fact.name or (old.name if old else None))
    return (*(f for f in known if f is not old), new)


def _key(fact: Fact) -> tuple[str, str, ObjectType, str]:
    return fact.source, fact.subject, fact.object_type, fact.object_id


def _identities(connection: Connection, event: AccessEvent) -> Sequence[Row[Any]]:
    return connection.execute(
        select(identities, people.c.velt_user_id)
        .join(people, people.c.id == identities.c.person_id)
        .where(identities.c.source == event.source, identities.c.subject == event.subject)
    ).all()


def _velt_user_id(rules: RuleSet, event: AccessEvent, known: Sequence[Row[Any]]) -> tuple[str | None, str]:
    current = next((row for row in known if row.current), None)
    fields: Fields = {
        "source": event.source,
        "user.id": event.subject,
        "user.login": event.login or (current.login if current else None),
        "user.email": event.email or (current.email if current else None),
        "user.external_id": event.external_id or (current.external_id if current else None),
    }
    made, why_none = rules.identity.velt_user_id(fields)
    if made is None and current is not None:
        return current.velt_user_id, ""
    return made, why_none


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
        "rules": [_step(step) for step in found.plan.steps] if found.plan else [],
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


def _step(step: entitlement.Step) -> dict[str, Any]:
    return {
        "rule": step.rule,
        "verdict": {True: "applies", False: "does not apply", None: "undecided"}[step.verdict],
        "because": step.because,
        "resources": [resource.as_velt() for resource in step.resources],
    }

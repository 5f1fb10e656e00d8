"""Previews: what an event would do if it came now, read from a rehearsal that was rolled back.

What else is recorded and not planned yet is not looked at, and of an event about many only the first are rehearsed,
each alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select

from relay.entitlement import Knowledge, Verdict
from relay.model import AccessEvent, Account, EventState, Resource, RevocationState, Subject, to_iso
from relay.rules import RuleSet
from relay.store import fan_out, nested, taking
from relay.store.database import Database
from relay.store.facts import facts_of
from relay.store.identities import person_now
from relay.store.ledger import recorded_as
from relay.store.people import knowledge_of, with_known_names
from relay.store.plan_json import step_as_json
from relay.store.record import event_of
from relay.store.rehearsal import Rehearsal
from relay.store.revocations import resource_of
from relay.store.tables import people, revocations

#: Members of a group, or people of an app, who are shown one by one.
SHOWN_MEMBERS = 10

_OF_A_GROUP = "the member is a group: those who are known to gain or lose something by that get one event each"
_ASKED_FIRST = "as the event says; its directory would be asked first"


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
    """What an event would come to. `members`: how many people it is about, None where it names one person.

    `rules`: what each rule makes of it, as `step_as_json` tells it; none where rules are not asked. What is held is
    shown with what an approval would let go.
    """

    event: AccessEvent
    state: EventState
    reason: str | None = None
    velt_user_id: str | None = None
    rules: tuple[Mapping[str, Any], ...] = ()
    incomplete: tuple[str, ...] = ()
    removals: tuple[Removal, ...] = ()
    recorded: str | None = None
    members: int | None = None
    people: tuple[Preview, ...] = ()


def preview(database: Database, rules: RuleSet, event: AccessEvent, answer: Account | None = None) -> Preview:
    """What this event would do if it came now; nothing of that is kept. Raises Unavailable.

    `answer` is what the source's directory says now of the event's account, None where it was not asked: then it is
    told what would come of the event if no answer came in time.
    """
    with database.read() as connection:
        recorded = recorded_as(connection, event.source, event.key)
    if event.state is not EventState.RECEIVED:
        return Preview(event, event.state, event.reason, recorded=recorded)
    return replace(_rehearsed(database, rules, event, answer), recorded=recorded)


def _rehearsed(
    database: Database, rules: RuleSet, event: AccessEvent, answer: Account | None = None, *, approved: bool = False
) -> Preview:
    with database.rehearse() as connection:
        on_trial = Rehearsal(connection, rules, database.now(connection), SHOWN_MEMBERS)
        on_trial.play(event, answer, approved=approved)
        row = on_trial.row
        if on_trial.waits and row.subject is None and nested.is_about_group(row):
            return Preview(event, EventState.DONE, _OF_A_GROUP)
        asked_first = on_trial.waits and answer is None
        if asked_first:
            on_trial.run_out_of_patience()
        end = on_trial.row
        reason = end.reason
        if asked_first and not on_trial.waits:
            reason = f"{_ASKED_FIRST}; {reason}" if reason else _ASKED_FIRST
        held = end.state == EventState.HELD.value
        if held:
            on_trial.approve()
        found = replace(_outcome(connection, rules, on_trial.row, answer), state=EventState(end.state), reason=reason)
        children = on_trial.children()
    return replace(found, people=tuple(_rehearsed(database, rules, child, approved=held) for child in children))


def _outcome(connection: Connection, rules: RuleSet, row: Row[Any], answer: Account | None) -> Preview:
    """What came of an event."""
    kept = json.loads(row.plan) if row.plan else {}
    steps = _steps(connection, rules, row, kept["rules"]) if "rules" in kept else ()
    whose = select(people.c.velt_user_id).where(people.c.id == row.person_id)
    return Preview(
        _event(connection, row, answer),
        EventState(row.state),
        row.reason,
        connection.execute(whose).scalar(),
        steps,
        tuple(kept.get("incomplete", ())),
        tuple(_removals(connection, row, steps)),
        members=None if _names_one(row) else fan_out.count_members(connection, row),
    )


def _names_one(row: Row[Any]) -> bool:
    return row.subject is not None or nested.is_about_group(row)


def _event(connection: Connection, row: Row[Any], answer: Account | None) -> AccessEvent:
    """The event with what is known by then of its person and group."""
    event = event_of(row._asdict())
    if event.subject is None:
        return event
    person_id = person_now(connection, row.source, row.subject)
    knowledge = Knowledge() if person_id is None else knowledge_of(connection, person_id)
    told = [Subject(row.source, row.subject, answer.login, answer.email, answer.external_id)] if answer else []
    return with_known_names(event, [*knowledge.subjects, *told], facts_of(connection, [(row.source, row.subject)]))


def _steps(
    connection: Connection, rules: RuleSet, row: Row[Any], kept: Iterable[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """What each rule made of the event: those that are kept, and those that do not apply."""
    mattered = {step["rule"]: step for step in kept}
    again = taking.plan_of(connection, rules, row, event_of(row._asdict()), complete=False)
    return tuple(mattered.get(step.rule) or step_as_json(step) for step in again.steps)


def _removals(connection: Connection, row: Row[Any], steps: Iterable[Mapping[str, Any]]) -> Iterable[Removal]:
    named: dict[Resource, list[str]] = {}
    for step in steps:
        for velt in step["resources"]:
            resource = Resource(velt["type"], velt["id"], velt.get("organizationId"))
            named.setdefault(resource, []).append(step["rule"])
    of_event = select(revocations, people.c.velt_user_id).join(people, people.c.id == revocations.c.person_id)
    found = connection.execute(of_event.where(revocations.c.event_id == row.id).order_by(revocations.c.id))
    for one in found:
        resource = resource_of(one)
        verdict = Verdict(RevocationState(one.state), one.reason or "", one.superseded_by)
        yield Removal(one.velt_user_id, resource, tuple(named.get(resource, (one.rules,))), verdict)


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
        "rules": list(found.rules),
        "incomplete": list(found.incomplete),
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

"""Asking Velt whether what it removed is gone: which questions are due, and what came of them.

A removal is asked about by `revocations.confirm_at`. Taking a question pushes that time ahead, so that nobody else asks
meanwhile and a killed worker's question comes back; the pushed time is also the token by which an answer is taken.
Whatever Velt answers here moves neither the breaker nor the removal: `removed` stays `removed`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from relay import confirmation, entitlement
from relay.access import Permissions
from relay.confirmation import Verdict
from relay.model import MAX_RESOURCES, Confirmation, Micros, Resource
from relay.rules import RuleSet
from relay.store import attempts, delivery
from relay.store.attempts import Call
from relay.store.claim import Terms
from relay.store.database import Database
from relay.store.delivery import Gate
from relay.store.people import knowledge_of
from relay.store.revocations import resource_of
from relay.store.tables import people, revocations

Folders = dict[str, set[str]]


@dataclass(frozen=True, slots=True)
class Question:
    """One call of permissions/get: these removed resources of one Velt user in one organization.

    `folders`: others of the organization, of the rules or once this person's, from which a role may be inherited.
    """

    person_id: int
    velt_user_id: str
    organization_id: str
    resources: tuple[Resource, ...]
    revocation_ids: tuple[str, ...]
    folders: tuple[str, ...]
    token: Micros

    @property
    def asked(self) -> tuple[Resource, ...]:
        """What to ask about: the resources, and the folders beside them."""
        beside = (Resource("folder", folder, self.organization_id) for folder in self.folders)
        return tuple(dict.fromkeys([*self.resources, *beside]))


def take(database: Database, terms: Terms, limit: int) -> tuple[Question, ...]:
    """At most `limit` questions that are due; none while calls to Velt do not go out. Raises Unavailable."""
    with database.read() as connection:
        now = database.now(connection)
        if not _may_ask(connection, terms, now) or not _due_people(connection, now, 1):
            return ()
    with database.write() as connection:
        now = database.now(connection)
        if not _may_ask(connection, terms, now):
            return ()
        due = _due_people(connection, now, limit)
        named = _folders_of(terms.rules)
        found: list[Question] = []
        # As for whoever changes revocations: their people's rows first, in ascending order.
        locked = select(people).where(people.c.id.in_(due)).order_by(people.c.id)
        for person in connection.execute(locked.with_for_update(skip_locked=True)).all():
            found += _questions(connection, person, named, now, now + terms.lease, limit - len(found))
        return tuple(found)


def record(
    database: Database, terms: Terms, asked: Question, told: Permissions, started: Micros, finished: Micros
) -> Mapping[Resource, Verdict]:
    """Write down what an answer says of each resource, with the call as an attempt."""
    with database.write() as connection:
        now = database.now(connection)
        connection.execute(select(people.c.id).where(people.c.id == asked.person_id).with_for_update()).one()
        verdicts = {item: confirmation.judge(item, asked.velt_user_id, told) for item in asked.resources}
        _add_attempt(connection, terms, asked, told, verdicts, started, finished)
        rows = connection.execute(
            select(revocations).where(
                revocations.c.id.in_(asked.revocation_ids), revocations.c.confirm_at == asked.token
            )
        ).all()
        given_back = _given_back(connection, terms, asked, verdicts)
        for row in rows:
            resource = resource_of(row)
            if resource in given_back:
                values: dict[str, Any] = {"confirmation": None, "confirm_at": None}
                values["confirmation_reason"] = f"given back since the removal, by {given_back[resource]}"
            else:
                values = _columns(row, verdicts[resource], len(asked.resources), told.outcome.retry_after, now)
            connection.execute(
                update(revocations)
                .where(revocations.c.id == row.id)
                .values(confirm_tries=row.confirm_tries + 1, **values)
            )
        return verdicts


def _may_ask(connection: Connection, terms: Terms, now: Micros) -> bool:
    if not terms.sends or not terms.confirms:
        return False
    return delivery.read(connection).gate(now, terms.key_digest) is Gate.OPEN


def _folders_of(rules: RuleSet) -> Folders:
    """The folders that the rules name, by their organization."""
    found: Folders = {}
    for resource in rules.fixed:
        if resource.type == "folder" and resource.organization_id is not None:
            found.setdefault(resource.organization_id, set()).add(resource.id)
    return found


def _due_people(connection: Connection, now: Micros, limit: int) -> list[int]:
    due = (
        select(revocations.c.person_id)
        .where(revocations.c.confirm_at <= now)
        .group_by(revocations.c.person_id)
        .order_by(func.min(revocations.c.confirm_at))
        .limit(limit)
    )
    return list(connection.execute(due).scalars())


def _questions(
    connection: Connection, person: Row[Any], named: Folders, now: Micros, token: Micros, limit: int
) -> Iterable[Question]:
    """At most `limit` questions about one person, taken by pushing their time to `token`."""
    rows = connection.execute(
        select(revocations)
        .where(revocations.c.person_id == person.id, revocations.c.confirm_at <= now)
        .order_by(revocations.c.id)
    ).all()
    for organization_id, group in _calls(rows)[:limit]:
        resources = tuple(dict.fromkeys(resource_of(row) for row in group))
        ids = tuple(row.id for row in group)
        connection.execute(update(revocations).where(revocations.c.id.in_(ids)).values(confirm_at=token))
        alone = group[0].solo  # then nothing beside it may be why there is no answer
        room = 0 if alone else MAX_RESOURCES - sum(resource.type == "folder" for resource in resources)
        folders = sorted(named.get(organization_id, set()) | _dealt_with(connection, person.id, organization_id))
        yield Question(person.id, person.velt_user_id, organization_id, resources, ids, tuple(folders[:room]), token)


def _calls(rows: Sequence[Row[Any]]) -> list[tuple[str, list[Row[Any]]]]:
    """The rows by organization, at most MAX_RESOURCES resources together; what was no use together is alone."""
    together: defaultdict[tuple[str, Resource | None], dict[Resource, list[Row[Any]]]] = defaultdict(dict)
    for row in rows:
        resource = resource_of(row)
        key = (resource.organization.id, resource if row.solo else None)
        together[key].setdefault(resource, []).append(row)
    found = []
    for (organization_id, _), by_resource in together.items():
        groups = list(by_resource.values())
        for start in range(0, len(groups), MAX_RESOURCES):
            chunk = groups[start : start + MAX_RESOURCES]
            found.append((organization_id, [row for group in chunk for row in group]))
    return found


def _dealt_with(connection: Connection, person_id: int, organization_id: str) -> set[str]:
    """Folders of the organization that the relay ever removed or kept for this person."""
    theirs = select(revocations.c.resource_id).where(
        revocations.c.person_id == person_id,
        revocations.c.organization_id == organization_id,
        revocations.c.resource_type == "folder",
    )
    return set(connection.execute(theirs).scalars())


def _given_back(
    connection: Connection, terms: Terms, asked: Question, verdicts: Mapping[Resource, Verdict]
) -> Mapping[Resource, str]:
    """What the person has again by the facts, and through what: that Velt shows it is then no failure."""
    if not any(verdict.confirmation is Confirmation.STILL for verdict in verdicts.values()):
        return {}
    entitled = entitlement.grants(terms.rules, knowledge_of(connection, asked.person_id))
    return {
        resource: str(entitled[resource][0])
        for resource, verdict in verdicts.items()
        if verdict.confirmation is Confirmation.STILL and entitled.get(resource)
    }


def _columns(row: Row[Any], verdict: Verdict, together: int, retry_after: float | None, now: Micros) -> dict[str, Any]:
    again = confirmation.next_ask(verdict, row.confirm_tries + 1, row.settled_at, now, retry_after)
    if verdict.confirmation is not None:
        return {"confirmation": verdict.confirmation.value, "confirmation_reason": verdict.reason, "confirm_at": again}
    values: dict[str, Any] = {"confirm_at": again, "solo": row.solo or (together > 1 and not verdict.failed)}
    if row.confirmation is None:  # else what Velt showed before still stands
        values["confirmation_reason"] = verdict.reason if again else f"could not be confirmed: {verdict.reason}"
    return values


def _add_attempt(
    connection: Connection,
    terms: Terms,
    asked: Question,
    told: Permissions,
    verdicts: Mapping[Resource, Verdict],
    started: Micros,
    finished: Micros,
) -> None:
    """The row of the call: the worst of its verdicts, and why for each."""
    said: dict[Verdict, list[Resource]] = defaultdict(list)
    for resource, verdict in verdicts.items():
        said[verdict].append(resource)
    named = len(said) > 1
    reason = "; ".join(
        f"{', '.join(map(str, resources))}: {verdict.reason}" if named else verdict.reason
        for verdict, resources in said.items()
    )
    about = (asked.person_id, asked.velt_user_id, asked.resources, asked.revocation_ids)
    call = Call(terms.worker, *about, started, finished)
    attempts.add(connection, call, replace(told.outcome, reason=reason), name=_worst(verdicts.values()))


def _worst(verdicts: Iterable[Verdict]) -> str:
    found = {verdict.confirmation for verdict in verdicts}
    if Confirmation.STILL in found:
        return Confirmation.STILL.value
    return "unconfirmed" if None in found else Confirmation.CONFIRMED.value

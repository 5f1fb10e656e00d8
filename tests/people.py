"""Made-up people of Acme for the tests of the heart: rules, facts, events, and a relay reduced to its store.

relay = Relay(database)                                  # rules of SMALL, a clock that stands still
relay.record(gain("ada", "eng"), loss("ada", "eng"))
[task] = relay.claim()
relay.settle(task, REMOVED)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, select, update

from relay.model import (
    SECOND,
    AccessEvent,
    Answer,
    Basis,
    Fact,
    Kind,
    Micros,
    ObjectType,
    Outcome,
    Resource,
    Subject,
)
from relay.rules import RuleSet, compile_rules
from relay.store import claim, settling, tables
from relay.store import facts as known
from relay.store.claim import Task, Terms
from relay.store.database import Database
from relay.store.record import insert_events, rows_of

#: The fields that Okta's events carry without a look-up, and all that there are.
TOLD = frozenset({"source", "kind", "user.id", "user.login", "group.id", "group.name", "app.id", "app.name"})
ALL = TOLD | {"user.email", "user.external_id"}

#: Noon of a day in the past; tests count seconds from it.
NOON: Micros = 1_790_000_000 * SECOND

REMOVED = Outcome(Answer.REMOVED, "success", 200)
ABSENT = Outcome(Answer.ABSENT, "nothing there", 404, "NOT_FOUND")
REFUSED = Outcome(Answer.REFUSED, "not understood", 400, "INVALID_ARGUMENT")
RETRY = Outcome(Answer.RETRY, "too many", 429, "RESOURCE_EXHAUSTED")
DOWN = Outcome(Answer.RETRY, "unavailable", 503, "UNAVAILABLE", down=True)
HUNG = Outcome(Answer.RETRY, "no answer", down=True, unsure=True)
UNAUTHORIZED = Outcome(Answer.UNAUTHORIZED, "bad key", 401, "UNAUTHENTICATED")

SMALL = {
    "identity": {"velt_user_id": ["{user.login}", "{user.id}"]},
    "rules": [
        {
            "name": "engineering",
            "when": {"kind": ["group.member_removed", "group.deleted"], "group.id": ["eng", "eng-2"]},
            "revoke": [
                {"type": "organization", "id": "acme"},
                {"type": "document", "id": "d1", "organizationId": "acme"},
            ],
        },
        {
            "name": "sales",
            "when": {"kind": ["group.member_removed", "group.deleted"], "group.id": ["sales"]},
            "revoke": [{"type": "document", "id": "d1", "organizationId": "acme"}],
        },
        {
            "name": "chat",
            "when": {"kind": ["app.access_removed"], "app.id": ["chat"]},
            "revoke": [{"type": "folder", "id": "chat", "organizationId": "acme"}],
        },
        {"name": "leavers", "when": {"kind": ["account.deactivated", "account.deleted"]}, "revoke": "everything"},
    ],
}

ACME = Resource("organization", "acme")
D1 = Resource("document", "d1", "acme")
CHAT = Resource("folder", "chat", "acme")

_numbers = itertools.count(1)


def rules(*given: Mapping[str, Any], identity: Iterable[str] = ("{user.login}", "{user.id}"), **more: Any) -> RuleSet:
    """Compiled rules; every source fills every field unless `fills` says otherwise."""
    options = {name: more.pop(name) for name in ("exceptions", "fills", "version") if name in more}
    complete = frozenset(more.pop("complete", ()))
    options.setdefault("fills", dict.fromkeys(("okta", "entra", "scim"), ALL))
    document = {"identity": {"velt_user_id": list(identity)}, "rules": list(given), **more}
    return replace(compile_rules(document, **options), complete=complete)


def small_rules(**more: Any) -> RuleSet:
    """The rules of SMALL."""
    return rules(*SMALL["rules"], **more)


def at(seconds: float) -> Micros:
    """So many seconds after noon."""
    return NOON + int(seconds * SECOND)


def event(kind: Kind, subject: str | None = "ada", when: float | None = 0, **more: Any) -> AccessEvent:
    """An event `when` seconds after noon (None: the source gives no time), with a key of its own."""
    source = more.pop("source", "okta")
    occurred_at = None if when is None else at(when)
    more.setdefault("key", f"key-{next(_numbers)}")
    return AccessEvent(source, kind, kind.value, b"{}", subject=subject, occurred_at=occurred_at, **more)


def gain(subject: str, group: str, when: float | None = 0, **more: Any) -> AccessEvent:
    return event(Kind.GROUP_MEMBER_ADDED, subject, when, group_id=group, **more)


def loss(subject: str, group: str, when: float | None = 0, **more: Any) -> AccessEvent:
    return event(Kind.GROUP_MEMBER_REMOVED, subject, when, group_id=group, **more)


def left(subject: str, when: float | None = 0, **more: Any) -> AccessEvent:
    return event(Kind.ACCOUNT_DEACTIVATED, subject, when, **more)


def back(subject: str, when: float | None = 0, **more: Any) -> AccessEvent:
    return event(Kind.ACCOUNT_ACTIVATED, subject, when, **more)


def group_deleted(group: str, when: float | None = 0, **more: Any) -> AccessEvent:
    return event(Kind.GROUP_DELETED, None, when, group_id=group, **more)


def group_fact(subject: str, group: str, present: bool = True, when: float = 0, **more: Any) -> Fact:
    return _fact(subject, ObjectType.GROUP, group, present, when, **more)


def app_fact(subject: str, app: str, present: bool = True, when: float = 0, **more: Any) -> Fact:
    return _fact(subject, ObjectType.APP, app, present, when, **more)


def account_fact(subject: str, present: bool, when: float = 0, **more: Any) -> Fact:
    return _fact(subject, ObjectType.ACCOUNT, "", present, when, **more)


def _fact(subject: str, kind: ObjectType, object_id: str, present: bool, when: float, **more: Any) -> Fact:
    more = {"source": "okta", "basis": Basis.SOURCE, "event_id": f"evt_{object_id or 'account'}"} | more
    return Fact(subject=subject, object_type=kind, object_id=object_id, present=present, as_of=at(when), **more)


def person(subject: str = "ada", source: str = "okta", **more: Any) -> Subject:
    return Subject(source, subject, **({"login": f"{subject}@acme.example"} | more))


def begin_anew(database: Database) -> None:
    """Forget everything: for tests that live through many histories on one database."""
    with database.write() as connection:
        for table in reversed(tables.metadata.sorted_tables):  # whatever refers to another first
            if table is not tables.delivery:
                connection.execute(delete(table))
        closed = {"state": "closed", "failures": 0, "failed_person": None, "probes": 0, "probe_at": None}
        connection.execute(update(tables.delivery).values(**closed, proven_key=None, paused=False))


class Clock:
    """A clock that moves only when told to; it starts an hour after noon."""

    def __init__(self) -> None:
        self.now = at(3600)

    def __call__(self) -> Micros:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


class Relay:
    """The store as web and worker use it, without either: records, claims and settles by hand."""

    def __init__(self, database: Database, rule_set: RuleSet | None = None, **terms: Any) -> None:
        self.database = database
        self.terms = Terms(
            **({"rules": rule_set or small_rules(), "worker": "w1", "key_digest": "k1", "lease": 60 * SECOND} | terms)
        )

    def now(self) -> Micros:
        with self.database.read() as connection:
            return self.database.now(connection)

    def record(self, *given: AccessEvent, received: Micros | None = None) -> list[str]:
        """Record events that are received now; return their rows' ids."""
        rows = rows_of(given, self.now() if received is None else received)
        with self.database.write() as connection:
            insert_events(connection, rows)
        return [row["id"] for row in rows]

    def claim(self, limit: int = 16, **terms: Any) -> tuple[Task, ...]:
        return claim.claim(self.database, replace(self.terms, **terms), limit).tasks

    def due_at(self, **terms: Any) -> Micros | None:
        """When the next person is due, None when nobody waits."""
        return claim.look(self.database).due_at(replace(self.terms, **terms))

    def settle(self, task: Task, outcome: Outcome = REMOVED, **terms: Any) -> bool:
        now = self.now()
        return settling.settle(self.database, replace(self.terms, **terms), task, outcome, now, now)

    def run(self, outcome: Outcome = REMOVED) -> list[Task]:
        """Claim and settle until nothing is due now; return the calls."""
        made: list[Task] = []
        while tasks := self.claim():
            for task in tasks:
                self.settle(task, outcome)
            made += tasks
        return made

    def route(self) -> int:
        return claim.route_all(self.database, self.terms.rules)

    def event(self, event_id: str) -> Row[Any]:
        with self.database.read() as connection:
            return connection.execute(select(tables.events).where(tables.events.c.id == event_id)).one()

    def revocations(self, event_id: str | None = None) -> list[Row[Any]]:
        """The revocations of an event, or all, in the order in which they were made."""
        statement = select(tables.revocations).order_by(tables.revocations.c.id)
        if event_id is not None:
            statement = statement.where(tables.revocations.c.event_id == event_id)
        with self.database.read() as connection:
            return list(connection.execute(statement))

    def states(self, event_id: str | None = None) -> list[str]:
        return sorted(row.state for row in self.revocations(event_id))

    def rows(self, table: Any) -> list[Row[Any]]:
        with self.database.read() as connection:
            return list(connection.execute(select(table)))

    def velt_users(self) -> dict[str, list[str]]:
        """Each subject's Velt users, the present one first."""
        statement = (
            select(tables.identities.c.subject, tables.people.c.velt_user_id)
            .join(tables.people, tables.people.c.id == tables.identities.c.person_id)
            .order_by(tables.identities.c.current.desc(), tables.people.c.velt_user_id)
        )
        found: dict[str, list[str]] = {}
        with self.database.read() as connection:
            for subject, velt_user_id in connection.execute(statement):
                found.setdefault(subject, []).append(velt_user_id)
        return found

    def facts(self, subject: str, source: str = "okta") -> tuple[Fact, ...]:
        with self.database.read() as connection:
            return known.facts_of(connection, [(source, subject)])

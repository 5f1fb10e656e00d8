"""A small relay without processes: an Okta source, rules, and what workers do, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from relay import model
from relay.config_checks import FIELDS_BY_SOURCE
from relay.model import Answer, Outcome
from relay.rules import RuleSet, compile_rules
from relay.sources.base import Source
from relay.sources.okta import Okta
from relay.store import claim, settling
from relay.store.claim import Terms
from relay.store.database import Database
from relay.store.record import insert_events, row_of
from relay.store.tables import events, revocations
from tests import payloads

DOCUMENT: dict[str, Any] = {
    "sources": {},
    "identity": {"velt_user_id": ["{user.login}"]},
    "lists": {
        "all": [
            {"type": "organization", "id": "acme"},
            {"type": "document", "id": "roadmap", "organizationId": "acme"},
        ]
    },
    "rules": [
        {"name": "engineering", "when": {"group.name": ["Engineering", "Platform"]}, "revoke": [{"list": "all"}]},
        {
            "name": "by mail",
            "when": {"group.name": ["Mail"]},
            "revoke": [{"type": "document", "id": "{user.email}", "organizationId": "acme"}],
        },
        {"name": "leavers", "when": {"kind": ["account.deactivated"]}, "revoke": "everything"},
    ],
}
REMOVED = Outcome(Answer.REMOVED, "Permissions removed successfully.", 200)
REFUSED = Outcome(Answer.REFUSED, "INVALID_ARGUMENT: no such thing", 400, "INVALID_ARGUMENT")


def okta(**config: Any) -> Okta:
    return Okta("okta", {"type": "okta", **config}, lambda: ("s3cret",))


SOURCES: Mapping[str, Source] = {"okta": okta()}


def rules(document: Mapping[str, Any] = DOCUMENT) -> RuleSet:
    return compile_rules(document, version="v1", fills=FIELDS_BY_SOURCE)


def lost(login: str = "ada@acme.example", group: str = "Engineering", **more: Any) -> dict[str, Any]:
    user = payloads.okta_user(f"00u{login}", login)
    return payloads.okta_event("group.user_membership.remove", user, payloads.okta_group(f"00g{group}", group), **more)


def gained(login: str = "ada@acme.example", group: str = "Engineering", **more: Any) -> dict[str, Any]:
    return lost(login, group, **more) | {"eventType": "group.user_membership.add"}


def record(database: Database, *elements: object, received_at: int | None = None) -> list[str]:
    """Store what a hook with these elements says; the new events' ids."""
    found = SOURCES["okta"].parse(payloads.to_bytes(payloads.okta_hook(elements))).events
    rows = [row_of(event, received_at or model.now()) for event in found]
    with database.write() as connection:
        insert_events(connection, rows)
    return [row["id"] for row in rows]


def terms(ruleset: RuleSet | None = None, **more: Any) -> Terms:
    return Terms(ruleset or rules(), "test-worker", "key", 60 * model.SECOND, **more)


def plan(database: Database, ruleset: RuleSet | None = None) -> None:
    """Plan everything that is recorded; send nothing."""
    while claim.claim(database, terms(ruleset, sends=False), 50).due_in is not None:
        pass


def take(database: Database) -> Sequence[claim.Task]:
    return claim.claim(database, terms(), 50).tasks


def deliver(database: Database, outcome: Outcome = REMOVED) -> int:
    """Have every call that is due come to this outcome; how many there were."""
    calls = 0
    while tasks := take(database):
        for task in tasks:
            settling.settle(database, terms(), task, outcome, model.now(), model.now())
            calls += 1
    return calls


def event(database: Database, event_id: str) -> Any:
    with database.read() as connection:
        return connection.execute(select(events).where(events.c.id == event_id)).one()


def states(database: Database, event_id: str) -> list[str]:
    """The states of an event's revocations."""
    statement = select(revocations.c.state).where(revocations.c.event_id == event_id).order_by(revocations.c.id)
    with database.read() as connection:
        return list(connection.execute(statement).scalars())

"""Explaining: what a payload would do, rule by rule. Nothing is kept."""

from __future__ import annotations

from typing import Any

from relay import velt
from relay.directories.base import Directory
from relay.errors import Refused, Unreadable
from relay.model import MAX_RESOURCES, AccessEvent, Account, EventState, Resource
from relay.rules import RuleSet
from relay.sources.base import Source
from relay.store import preview
from relay.store.database import Database

Answer = dict[str, Any]


def explain(
    database: Database, rules: RuleSet, source: Source, payload: bytes, directory: Directory | None = None
) -> Answer:
    """What a payload would do and why, rule by rule, and what would be sent to Velt. Changes nothing.

    `payload` is a whole delivery or one element of it. `directory` is asked about each person where it is given.
    Raises Refused (400) when the payload cannot be read, LookUpFailed, Unavailable.
    """
    try:
        parsed = source.reparse(payload).events
    except Unreadable as error:
        raise Refused(400, f"payload: {error}") from None
    answers = [_asked(directory, event) for event in parsed]
    found = [preview.preview(database, rules, *pair) for pair in zip(parsed, answers, strict=True)]
    told = [preview.as_json(one) | {"velt": _calls(one)} for one in found]
    return {"source": source.name, "rules_version": rules.version, "events": told}


def _asked(directory: Directory | None, event: AccessEvent) -> Account | None:
    if directory is None or event.subject is None or event.state is not EventState.RECEIVED:
        return None
    named = ((event.group_id,) if event.group_id else (), (event.app_id,) if event.app_id else ())
    return directory.look_up(event.subject, *named)


def _calls(found: preview.Preview) -> list[Answer]:
    """The bodies that would be sent to Velt."""
    going: dict[str, list[Resource]] = {}
    for person in (found, *found.people):
        for removal in person.removals:
            if removal.goes:
                going.setdefault(removal.velt_user_id, []).append(removal.resource)
    return [
        velt.body(user, resources[start : start + MAX_RESOURCES])
        for user, resources in going.items()
        for start in range(0, len(resources), MAX_RESOURCES)
    ]

"""`python -m relay audit`: asks the directories and Velt about everybody, and tells where they differ.

Both are only read, and so is the database. Either all of it is told or nothing: a list of who should lose access must
not be wrong because somebody did not answer.
"""

from __future__ import annotations

import json
import shlex
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from relay import audit, backoff, roll_call
from relay.access import Access, Permissions
from relay.allowance import Allowance
from relay.audit import Comparison, Extra, Person, Scope
from relay.directories.again import Wait
from relay.directories.base import Directory
from relay.errors import Refused
from relay.model import MAX_RESOURCES, Answer, Resource, now, to_iso
from relay.roll_call import Progress, Roll
from relay.rules import RuleSet
from relay.store import roster
from relay.store.database import Database
from relay.store.scim_events import Paths
from relay.velt import Velt

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Terms:
    """What relay.yaml says to an audit.

    `conditions` are the `when` of each rule. `scim`: the sources of that type, each with its `attributes`.
    """

    rules: RuleSet
    conditions: Sequence[Mapping[str, object]]
    scim: Mapping[str, Paths]
    rate: float


def run(
    database: Database,
    terms: Terms,
    directories: Mapping[str, Directory],
    velt: Velt,
    progress: Progress,
    wait: Wait = time.sleep,
) -> Document:
    """Everything that differs, as JSON. Raises Refused (409, 503), LookUpFailed and Unavailable."""
    if not directories and not terms.scim:
        raise Refused(
            409,
            "no source of relay.yaml can be listed, so there is nobody to compare with: give one the credentials of "
            "its API, or provision by SCIM",
        )
    started = now()
    apps, unlisted = audit.apps_of(terms.rules, terms.conditions)
    roll = roll_call.call(database, terms.rules, directories, terms.scim, apps, progress, wait)
    scope = Scope(terms.rules, roll.things, unlisted)
    comparison = Comparison(scope)
    asker = _Asker(velt, terms.rate, wait)
    for start in range(0, len(roll.people), MAX_RESOURCES):
        _compare(asker, scope, comparison, roll.people[start : start + MAX_RESOURCES])
        progress(f"Velt was asked about {min(start + MAX_RESOURCES, len(roll.people))} of {len(roll.people)} people")
    asker.check_keys()
    with database.read() as connection:
        planned, held = roster.open_removals(connection), roster.held_events(connection)
    return {
        "started_at": to_iso(started),
        "rules_version": terms.rules.version,
        "people": len(roll.people),
        "sources": sorted({*directories, *terms.scim}),
        **_found(comparison, planned, held),
        **_not_compared(roll, unlisted),
    }


def _compare(asker: _Asker, scope: Scope, comparison: Comparison, people: Sequence[Person]) -> None:
    names = [person.velt_user_id for person in people]
    access, failed = asker.ask(names, scope.shared)
    for person in people:
        name, own = person.velt_user_id, scope.own(person)
        mine, my_failures = asker.ask([name], own) if own else ({}, {})
        comparison.add(
            person,
            scope.shared | own,
            access.get(name, {}) | mine.get(name, {}),
            failed.get(name, {}) | my_failures.get(name, {}),
        )


class _Asker:
    """Puts questions to Velt: as many at once as it takes, no faster than allowed, again when it had trouble."""

    def __init__(self, velt: Velt, rate: float, wait: Wait) -> None:
        self._velt = velt
        self._rate = rate
        self._wait = wait
        self._allowance = Allowance()
        self._successes = 0
        self._not_found = ""

    def ask(
        self, users: Sequence[str], resources: Iterable[Resource]
    ) -> tuple[dict[str, dict[Resource, Access]], dict[str, dict[Resource, str]]]:
        """By user: what Velt says of each resource, and about which ones it refused to say anything, and why."""
        access: defaultdict[str, dict[Resource, Access]] = defaultdict(dict)
        failed: defaultdict[str, dict[Resource, str]] = defaultdict(dict)
        for asked in _questions(resources):
            for told_users, told in self._answers(users, asked):
                for user in told_users:
                    access[user] |= told.access.get(user, {})
                    if told.outcome.answer is Answer.REFUSED:
                        failed[user] |= dict.fromkeys(asked, told.outcome.reason)
        return access, failed

    def check_keys(self) -> None:
        """Raise Refused where Velt knew nobody at all: a wrong API key can look like that."""
        if self._not_found and not self._successes:
            raise Refused(503, f"Velt knows none of these people, look at VELT_API_KEY: {self._not_found}")

    def _answers(self, users: Sequence[str], asked: Sequence[Resource]) -> Iterator[tuple[Sequence[str], Permissions]]:
        """One answer, or more where Velt does not take all of these users together: then who is at fault is found."""
        told = self._answer(users, asked)
        is_whole = told.outcome.answer is Answer.REMOVED or all(user in told.access for user in users)
        if is_whole or len(users) == 1:
            yield users, told
            return
        middle = len(users) // 2
        yield from self._answers(users[:middle], asked)
        yield from self._answers(users[middle:], asked)

    def _answer(self, users: Sequence[str], asked: Sequence[Resource]) -> Permissions:
        for wait in (*backoff.WATCHED, None):
            while not self._allowance.take(self._rate, 1):
                self._wait(1 / self._rate)
            told = self._velt.permissions(users, asked)
            outcome = told.outcome
            if outcome.answer is not Answer.RETRY:
                break
            if wait is None:
                raise Refused(503, f"Velt could not be asked, so nothing is told: {outcome.reason}")
            self._wait(backoff.watched_delay(wait, outcome.retry_after))
        if outcome.answer is Answer.UNAUTHORIZED:
            raise Refused(503, f"VELT_API_KEY or VELT_AUTH_TOKEN is refused: {outcome.reason}")
        self._successes += outcome.answer is Answer.REMOVED
        if outcome.answer is Answer.ABSENT:
            self._not_found = outcome.reason
        return told


def _questions(resources: Iterable[Resource]) -> Iterator[list[Resource]]:
    """Resources of one organization each, as many as one question takes; the organization itself in the first one."""
    by_organization: defaultdict[Resource, dict[str, list[Resource]]] = defaultdict(lambda: defaultdict(list))
    for resource in sorted(resources, key=str):
        by_organization[resource.organization][resource.type].append(resource)
    for found in by_organization.values():
        longest = max(len(found["document"]), len(found["folder"]), 1)
        for start in range(0, longest, MAX_RESOURCES):
            inner = [*found["document"][start : start + MAX_RESOURCES], *found["folder"][start : start + MAX_RESOURCES]]
            yield [*inner, *(found["organization"] if start == 0 else [])]


def _found(comparison: Comparison, planned: Mapping[tuple[str, Resource], str], held: Mapping[str, str]) -> Document:
    return {
        "extra": [_extra(one, planned, held) for one in comparison.extra],
        "missing": [{**_who(one.person, one.resource), "because": one.because} for one in comparison.missing],
        "unanswered": [{**_who(one.person, one.resource), "why": one.why} for one in comparison.unanswered],
        "resources": [
            {"resource": resource.as_velt(), **asdict(tally)}
            for resource, tally in sorted(comparison.tallies.items(), key=lambda item: str(item[0]))
        ],
    }


def _not_compared(roll: Roll, unlisted: Sequence[str]) -> Document:
    return {
        "nameless": [{"source": one.source, "id": one.subject, "why": one.why} for one in roll.nameless],
        "rules_not_listed": list(unlisted),
        "by_messages_only": sorted({source for person in roll.people for source in person.unlisted}),
    }


def _who(person: Person, resource: Resource) -> Document:
    accounts = [
        {"source": one.source, "id": one.id, "login": one.login, "email": one.email}
        for one in person.knowledge.subjects
    ]
    return {"user": person.velt_user_id, "resource": resource.as_velt(), "accounts": accounts}


def _extra(one: Extra, planned: Mapping[tuple[str, Resource], str], held: Mapping[str, str]) -> Document:
    """`remove` is the command that takes it, None where it may be right, or its removal is planned or held already."""
    event, waits = planned.get((one.person.velt_user_id, one.resource)), held.get(one.person.velt_user_id)
    certain = one.doubt is None and event is None and waits is None
    return {
        **_who(one.person, one.resource),
        "role": one.role,
        "why": one.why,
        "doubt": one.doubt,
        "planned": event,
        "held": waits,
        "remove": command(one.person.velt_user_id, one.resource) if certain else None,
    }


def command(user: str, resource: Resource) -> str:
    """The command that removes one resource from a person, for a shell."""
    verb, reason, whom = ["python", "-m", "relay", "remove"], ["--reason", "audit"], [user, _word(resource)]
    return shlex.join([*verb, *reason, "--", *whom] if user.startswith("-") else [*verb, *whom, *reason])


def _word(resource: Resource) -> str:
    """The resource as the command line takes it."""
    if "/" in (resource.organization_id or resource.id):
        return json.dumps(resource.as_velt())
    if resource.organization_id is None:
        return f"{resource.type}:{resource.id}"
    return f"{resource.type}:{resource.organization_id}/{resource.id}"

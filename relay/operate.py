"""What people do with the relay: read, explain, try again, cancel, approve, remove by hand, pause. No HTTP here.

Every verb raises Refused (with the HTTP status that says so) when it cannot be done, Unavailable when the database is
away. `actor` is who asks, for the evidence. A change and its row in `decisions` are one transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from relay import contracts, entitlement, losses, model
from relay.config import duration
from relay.entitlement import Knowledge
from relay.errors import Problem, Refused, Unavailable, Unreadable
from relay.model import SECOND, AccessEvent, EventState, Kind, Micros, Resource, Subject
from relay.rules import RuleSet
from relay.sources.base import Source
from relay.store import alerts as alerting
from relay.store import desk, ledger, vitals, waiting
from relay.store.database import Database
from relay.store.decisions import Decision, note
from relay.store.ledger import Filter
from relay.store.people import knowledge_of

Document = Mapping[str, Any]
Answer = dict[str, Any]

DEFAULT_LIMIT = 50
MOST = 500
#: Events that one call changes at most.
MOST_AT_ONCE = 1000

_AGE = re.compile(r"[1-9][0-9]{0,8}[smhd]")
_EVENT_ID = re.compile(r"evt_[0-9a-f]{1,36}")
_ALLOWED: Mapping[str, Sequence[str]] = {"state": list(EventState), "kind": list(Kind)}
_RETRIED = (EventState.PLANNED, EventState.FAILED, EventState.IGNORED, EventState.UNREADABLE)
_CANCELLED = (EventState.RECEIVED, EventState.PLANNED, EventState.FAILED, EventState.UNREADABLE)


@dataclass(frozen=True, slots=True)
class _Verb:
    """A decision on events: what it does, to which events (and no others of a filter), what was done in one word."""

    change: Callable[..., None]
    states: tuple[EventState, ...]
    past: str
    needs_regrant: bool | None = None


_VERBS: Mapping[str, _Verb] = {
    "cancel": _Verb(desk.cancel, _CANCELLED, "cancelled"),
    "approve": _Verb(desk.approve, (EventState.HELD,), "approved"),
    "reject": _Verb(desk.reject, (EventState.HELD,), "rejected"),
    "regranted": _Verb(desk.regranted, tuple(EventState), "regranted", needs_regrant=True),
}


def events(
    database: Database,
    wanted: Document,
    limit: int = DEFAULT_LIMIT,
    cursor: str | None = None,
    *,
    mode: str = "enforce",
) -> Answer:
    """`{"events": [...], "next": cursor or None}`, the latest first. `wanted` is a filter, {} for all events.

    `mode` is relay.yaml's: an event's `waits_for` says what keeps its open revocations from being sent.
    """
    if not 1 <= limit <= MOST:
        raise Refused(400, f"limit: found {limit}; wanted is a whole number from 1 to {MOST}")
    wanted_events = filter_of(wanted)
    _position(cursor)
    with database.read() as connection:
        brakes = waiting.read(connection, mode, database.now(connection))
        found, more = ledger.page(connection, wanted_events, limit, cursor, brakes)
    return {"events": found, "next": more}


def show(database: Database, event_id: str, *, mode: str = "enforce") -> Answer:
    """One event with its plan, revocations, attempts, decisions and payload; `mode` as in `events`.

    Raises Refused (404).
    """
    with database.read() as connection:
        brakes = waiting.read(connection, mode, database.now(connection))
        found = ledger.show(connection, event_id, brakes) if _EVENT_ID.fullmatch(event_id) else None
    if found is None:
        raise _no_such(event_id)
    return found


def stats(database: Database, mode: str) -> Answer:
    """Counts by state, the oldest pending age, the time to revoke, delivery and workers."""
    found = vitals.stats(database)
    found["delivery"]["mode"] = mode
    return found


def alerts(database: Database) -> Answer:
    """`{"alerts": [...]}`: what somebody has to know now, the oldest first. `told_at`: when RELAY_ALERT_URL took it."""
    with database.read() as connection:
        return {"alerts": alerting.listed(connection)}


def retry(database: Database, sources: Mapping[str, Source], actor: str, event_id: str, body: Document) -> Answer:
    """Try one event again. `body`: api-retry. Raises Refused (400, 404, 409).

    Planning one again that was turned into an event for each of many people means planning those again.
    """
    check("api-retry", body)
    replan = bool(body.get("replan"))
    with database.read() as connection:
        row = desk.event_row(connection, event_id) if _EVENT_ID.fullmatch(event_id) else None
        children = desk.children(connection, event_id) if row is not None and row.subject is None and replan else []
    if row is None:
        raise _no_such(event_id)
    parsed = _parsed(sources, row)
    decision = _decision(actor, "retry", body, {"replan": replan})
    if children:
        return _plan_children_again(database, row, decision, children)
    with database.write() as connection:
        (row,) = desk.lock(connection, [event_id])
        desk.retry(connection, row, decision, database.now(connection), parsed=parsed, replan=replan)
        answer = _short(desk.event_row(connection, event_id))
    database.waker.wake()
    return answer


def decide(database: Database, actor: str, verb: str, event_id: str, body: Document) -> Answer:
    """Cancel, approve or reject one event, or note a new grant. `body`: api-reason. Raises Refused (400, 404, 409)."""
    check("api-reason", body)
    with database.write() as connection:
        rows = desk.lock(connection, [event_id]) if _EVENT_ID.fullmatch(event_id) else []
        if not rows:
            raise _no_such(event_id)
        _VERBS[verb].change(connection, rows[0], _decision(actor, verb, body), database.now(connection))
        answer = _short(desk.event_row(connection, event_id))
    database.waker.wake()
    return answer


def retry_all(database: Database, sources: Mapping[str, Source], actor: str, body: Document) -> Answer:
    """Try the events of a filter again, the oldest first, at most MOST_AT_ONCE of them. `body`: api-bulk-retry.

    `matched`: events of the filter; `possible`: those in a state that can be retried; `passed_over`: the others, by
    state; `retried`: those that were; `more`: whether some are left for another call, which takes `next` as `cursor`.
    Raises Refused (400; 503 when the database went away half-way, with how many were retried before).
    """
    check("api-bulk-retry", body)
    replan = bool(body.get("replan"))
    decision = _decision(actor, "retry", body, {"replan": replan, "filter": body["filter"]})

    def change(connection: Any, row: Any, decision: Decision, now: Micros) -> None:
        desk.retry(connection, row, decision, now, parsed=_parsed(sources, row), replan=replan)

    states = (*_RETRIED, EventState.DONE) if replan else _RETRIED
    return _in_bulk(database, _Verb(change, states, "retried"), decision, body)


def decide_all(database: Database, actor: str, verb: str, body: Document) -> Answer:
    """The verbs of `decide` for every event of a filter. `body`: api-bulk; the answer as in `retry_all`."""
    check("api-bulk", body)
    return _in_bulk(database, _VERBS[verb], _decision(actor, verb, body, {"filter": body["filter"]}), body)


def remove(database: Database, rules: RuleSet, actor: str, body: Document) -> Answer:
    """An operator's own removal. `body`: api-remove. Raises Refused (400, 409).

    `{"id": event, "known": whether any source ever named this Velt user}`.
    """
    check("api-remove", body)
    if body["user"] != body["user"].strip():
        told = contracts.show(body["user"])
        raise Refused(400, f"user: found {told}; wanted is a Velt user id without blanks at its ends")
    decision = _decision(actor, "remove", body, {"resources": body["resources"]})
    with database.write() as connection:
        now = database.now(connection)
        payload = json.dumps(body).encode()
        event_id, person_id = desk.add_removal(connection, body["user"], payload, decision, now)
        if body["resources"] == "everything":
            resources, incomplete = _everything(rules, knowledge_of(connection, person_id))
        else:
            resources, incomplete = [Resource.of_velt(given) for given in body["resources"]], []
        if not resources:
            raise Refused(409, "relay.yaml names no resource, so `everything` is nothing: name the resources")
        told = decision.told("asked for")
        desk.plan_removal(connection, event_id, person_id, resources, rules.version, told, incomplete, now)
        known = desk.is_known(connection, person_id)
    database.waker.wake()
    return {"id": event_id, "known": known}


def pause(database: Database, actor: str, body: Document) -> Answer:
    """Stop delivery; planning goes on. `body`: api-reason."""
    return _switch(database, desk.pause, actor, "pause", body)


def resume(database: Database, actor: str, body: Document) -> Answer:
    """Start delivery again. `body`: api-reason."""
    return _switch(database, desk.resume, actor, "resume", body)


def filter_of(given: Document) -> Filter:
    """A filter (api-filter) with its times read. Raises Refused (400) with every mistake."""
    check("api-filter", given)
    times = {name: time_of(name, given[name]) for name in ("since", "until") if name in given}
    return Filter(**{**given, **times})


def source_named(sources: Mapping[str, Source], name: str) -> Source:
    """The source of this name that comes by hook. Raises Refused (400)."""
    if name not in sources:
        close = contracts.did_you_mean(name, sources)
        raise Refused(
            400,
            f"source: {contracts.show(name)} is no hook of relay.yaml, and only what comes by hook is explained{close}",
        )
    return sources[name]


def check(schema_name: str, document: object) -> None:
    """Raise Refused (400) with everything by which a request breaks its schema, or that no database can keep."""
    found = contracts.problems(schema_name, document) or list(_unkept(document))
    if found:
        raise Refused(400, "; ".join(str(_with_allowed(problem)) for problem in found))


def _with_allowed(problem: Problem) -> Problem:
    allowed = _ALLOWED.get(problem.path)
    if allowed is None or "possible:" in problem.message:
        return problem
    return Problem(problem.path, f"{problem.message} (possible: {', '.join(map(contracts.show, allowed))})")


def _unkept(document: object) -> Iterator[Problem]:
    """Texts that hold U+0000 or half of a surrogate pair, wherever they stand."""
    ahead = [("", document)]
    while ahead:
        path, value = ahead.pop()
        if isinstance(value, str) and any(
            character == "\0" or "\ud800" <= character <= "\udfff" for character in value
        ):
            yield Problem(path, "holds a character that no text has (U+0000 or half of a surrogate pair)")
        elif isinstance(value, Mapping):
            ahead.extend((f"{path}.{key}".lstrip("."), member) for key, member in value.items())
        elif isinstance(value, list):
            ahead.extend((f"{path}[{index}]", member) for index, member in enumerate(value))


def time_of(name: str, text: str) -> Micros:
    """The moment of a time or of an age such as `24h`. Raises Refused (400)."""
    if _AGE.fullmatch(text):
        return max(0, model.now() - int(duration(text) * SECOND))
    try:
        return model.from_iso(text)
    except (ValueError, OverflowError):
        wanted = "wanted is a time such as 2026-01-31T12:00:00Z, or an age such as 24h"
        raise Refused(400, f"{name}: found {contracts.show(text)}; {wanted}") from None


def _position(cursor: str | None) -> tuple[Micros, str] | None:
    try:
        return None if cursor is None else ledger.position(cursor)
    except ValueError:
        raise Refused(400, "cursor: wanted is the `next` of an earlier answer, as it was given") from None


def _decision(actor: str, action: str, body: Document, detail: Document | None = None) -> Decision:
    return Decision(actor, action, body.get("reason"), detail or {})


def _no_such(event_id: str) -> Refused:
    return Refused(404, f"there is no event {contracts.show(event_id)}")


def _short(row: Any) -> Answer:
    return {"id": row.id, "state": row.state, "reason": row.reason}


def _parsed(sources: Mapping[str, Source], row: Any) -> Sequence[AccessEvent] | str | None:
    """What the payload of an event that was not understood says today. Raises Refused (409)."""
    if not desk.needs_parsing(row):
        return None
    if row.source not in sources:
        raise Refused(409, f"relay.yaml has no source {row.source} any more that could read it")
    if not row.payload:
        raise Refused(409, "what the source sent is no longer kept")
    try:
        return sources[row.source].reparse(row.payload).events
    except Unreadable as error:
        return str(error)


def _plan_children_again(database: Database, row: Any, decision: Decision, children: Sequence[str]) -> Answer:
    """Plan the events of single people again, those that can be; the event that they were made of stays as it is."""
    again = _Verb(partial(desk.retry, parsed=None, replan=True), _RETRIED, "planned again")
    number = _change_all(database, again, decision, children)
    if not number:
        raise Refused(409, "nothing of it can be planned again now: its events wait or are on their way")
    with database.write() as connection:
        note(connection, decision, database.now(connection), row.id, {"state": row.state, "events": number})
    return _short(row)


def _in_bulk(database: Database, verb: _Verb, decision: Decision, body: Document) -> Answer:
    """Change events of the filter, in small transactions: what one could not take is left as it is."""
    wanted, after = filter_of(body["filter"]), _position(body.get("cursor"))
    if wanted.needs_regrant is None:
        wanted = replace(wanted, needs_regrant=verb.needs_regrant)
    with database.read() as connection:
        now = database.now(connection)
        counts = ledger.count(connection, wanted)
        rows = desk.chosen(connection, wanted, verb.states, after, now, MOST_AT_ONCE + 1)
    passed_over = {state: number for state, number in counts.items() if state not in verb.states}
    matched, more = sum(counts.values()), len(rows) > MOST_AT_ONCE
    taken = [] if body.get("dry_run") else rows[:MOST_AT_ONCE]
    return {
        "matched": matched,
        "possible": matched - sum(passed_over.values()),
        "passed_over": passed_over,
        verb.past: _change_all(database, verb, decision, [row.id for row in taken]),
        "more": more,
        "next": ledger.cursor_at(rows[MOST_AT_ONCE - 1]) if more else None,
    }


def _change_all(database: Database, verb: _Verb, decision: Decision, ids: Sequence[str]) -> int:
    changed = 0
    for start in range(0, len(ids), desk.CHUNK):
        try:
            changed += _change_some(database, verb, decision, ids[start : start + desk.CHUNK])
        except Unavailable as error:
            if not changed:
                raise
            told = f"{changed} events were {verb.past}, then the database was not available; ask again for the rest"
            raise Refused(503, told) from error
        database.waker.wake()
    return changed


def _change_some(database: Database, verb: _Verb, decision: Decision, ids: Sequence[str]) -> int:
    try:
        with database.write() as connection:
            now = database.now(connection)
            return sum(_changes(verb, connection, row, decision, now) for row in desk.lock(connection, ids))
    except Refused:  # one of them is being planned: the others need not wait for it
        return sum(_change_some(database, verb, decision, [event_id]) for event_id in ids) if len(ids) > 1 else 0


def _changes(verb: _Verb, connection: Any, row: Any, decision: Decision, now: Micros) -> bool:
    """Whether the event could take the decision: it may have moved on since it was chosen."""
    try:
        verb.change(connection, row, decision, now)
    except Refused:  # before anything was written
        return False
    return True


def _everything(rules: RuleSet, knowledge: Knowledge) -> tuple[list[Resource], list[str]]:
    """All that any rule gives or gave this person by any of their accounts, and the rules that could not be filled."""
    taken: dict[Resource, None] = {}
    unfilled: list[list[str]] = []
    subjects: Sequence[Subject | None] = knowledge.subjects or (None,)
    for subject in subjects:
        fields = entitlement.fields_of("operator", subject, frozenset())
        resources, open_rules = losses.everything(fields, rules, knowledge, knowledge.facts)
        taken |= dict.fromkeys(resources)
        unfilled.append(open_rules)
    return list(taken), [rule for rule in dict.fromkeys(unfilled[0]) if all(rule in names for names in unfilled)]


def _switch(database: Database, change: Callable[..., None], actor: str, action: str, body: Document) -> Answer:
    check("api-reason", body)
    with database.write() as connection:
        change(connection, _decision(actor, action, body), database.now(connection))
    database.waker.wake()
    return {"paused": action == "pause"}

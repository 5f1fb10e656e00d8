"""The desk: what people decide, written down. Each function is one step of a transaction that the caller opens.

Whoever changes an event or a revocation first holds the rows of its people, in ascending order, as planning, claiming
and settling do; then a person's work cannot change under the decision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, tuple_, update

from relay import losses
from relay.errors import Refused
from relay.model import ACCOUNT_LOSSES, GAINS, AccessEvent, EventState, Kind, Micros, Resource, RevocationState
from relay.store import delivery, nested
from relay.store.database import lock_routing
from relay.store.decisions import Decision, note
from relay.store.ending import end, learn_from
from relay.store.fan_out import ENDS, learn_end, people_having
from relay.store.ledger import Filter, condition
from relay.store.people import lock_people, person_for, set_due
from relay.store.plan_json import plan_as_json
from relay.store.record import insert_events, row_of, rows_of
from relay.store.revocations import add_revocations, refresh_events
from relay.store.routing import UNROUTED
from relay.store.tables import events, identities, people, revocations

#: Events changed in one transaction: it holds SQLite's only writer.
CHUNK = 100

_PENDING, _SENDING, _DEAD = (
    RevocationState.PENDING.value,
    RevocationState.SENDING.value,
    RevocationState.DEAD.value,
)
#: Events by which many lose something, all of whom a decision changes.
_LOST_BY_MANY = and_(events.c.subject.is_(None), events.c.kind.in_(ENDS | {Kind.GROUP_MEMBER_REMOVED.value}))
_NOT_CANCELLED = [state.value for state in RevocationState if state is not RevocationState.CANCELLED]
_UNDER_WAY = "a call for it is under way: ask again when it has ended, in a few seconds"
_PAST = {"approve": "approved", "reject": "rejected"}


def event_row(connection: Connection, event_id: str) -> Row[Any] | None:
    return connection.execute(select(events).where(events.c.id == event_id)).one_or_none()


def chosen(
    connection: Connection,
    wanted: Filter,
    states: Iterable[str],
    after: tuple[Micros, str] | None,
    now: Micros,
    limit: int,
) -> Sequence[Any]:
    """Id and arrival of a filter's next events in these states, the oldest first; those that came after now are not."""
    where = and_(condition(wanted), events.c.state.in_(list(states)), events.c.received_at <= now)
    if after is not None:
        where = and_(where, tuple_(events.c.received_at, events.c.id) > after)
    order = (events.c.received_at, events.c.id)
    return connection.execute(
        select(events.c.id, events.c.received_at).where(where).order_by(*order).limit(limit)
    ).all()


def lock(connection: Connection, ids: Sequence[str]) -> list[Row[Any]]:
    """The events as they are now, with the rows of all their people held.

    What many have lost at once is about everybody who has it, and nobody new is routed meanwhile: to hold 100,000 takes
    a second, to keep that they lost it five. Raises Refused (409) when they were given another person since they were
    looked at.
    """
    about_many = connection.execute(select(events).where(events.c.id.in_(ids), _LOST_BY_MANY)).all()
    unrouted = select(events.c.id).where(events.c.id.in_(ids), UNROUTED).limit(1)
    if about_many or connection.execute(unrouted).first():
        lock_routing(connection)
    before = _concerned(connection, ids)
    whose = [people.c.id.in_(before), *(people.c.id.in_(people_having(row)) for row in about_many)]
    lock_people(connection, select(people.c.id).where(or_(*whose)))
    if _concerned(connection, ids) - before:
        raise Refused(409, "it is being planned at this moment: ask again in a few seconds")
    return list(connection.execute(select(events).where(events.c.id.in_(ids)).order_by(events.c.id)).all())


def children(connection: Connection, event_id: str) -> list[str]:
    """The events that an event of many was turned into: its children and theirs."""
    found: list[str] = []
    ahead = [event_id]
    while ahead:
        made = select(events.c.id).where(events.c.parent_id.in_(ahead[:CHUNK])).order_by(events.c.id)
        ids = list(connection.execute(made).scalars())
        found += ids
        ahead = ahead[CHUNK:] + ids
    return found


def needs_parsing(row: Row[Any]) -> bool:
    """Whether the event ended before it could be planned: its payload is what is to be looked at again."""
    return row.state == EventState.UNREADABLE.value or (
        row.state == EventState.IGNORED.value and row.planned_at is None and row.parent_id is None
    )


def retry(
    connection: Connection,
    row: Row[Any],
    decision: Decision,
    now: Micros,
    *,
    parsed: Sequence[AccessEvent] | str | None,
    replan: bool,
) -> None:
    """Try an event again, in the way that its state asks for. Raises Refused (409) where there is nothing to try.

    `parsed`: what its payload says by today's settings, or why it is not understood; None where it was not parsed.
    """
    if row.state == EventState.RECEIVED.value:
        raise Refused(
            409, f"it is not planned yet ({row.reason or 'a worker will do that'}): there is nothing to retry"
        )
    if row.state == EventState.HELD.value:
        raise Refused(409, "it waits for a person: approve or reject it")
    if row.state == EventState.DONE.value and not replan:
        raise Refused(409, "all of it is settled; with replan: true it is planned again by today's rules and facts")
    if needs_parsing(row):
        if parsed is None:
            raise Refused(409, "it has just changed: look at it again")
        _parse_again(connection, row, parsed, decision, now)
    elif not replan and _can_go_on(connection, row):
        _try_again(connection, row, decision, now)
    elif row.kind == Kind.OPERATOR_REMOVE.value:
        raise Refused(409, "no rule planned it, an operator asked for it: ask for a new removal")
    elif _any(connection, row.id, _SENDING):
        raise Refused(409, _UNDER_WAY)
    else:
        _plan_again(connection, row, decision, now)


def approve(connection: Connection, row: Row[Any], decision: Decision, now: Micros) -> None:
    """Let a held event go on: it is planned again, and the guard does not count it. Raises Refused (409)."""
    _must_be_held(row, decision)
    _plan_again(connection, row, decision, now)


def reject(connection: Connection, row: Row[Any], decision: Decision, now: Micros) -> None:
    """End a held event without removing anything. Raises Refused (409)."""
    _must_be_held(row, decision)
    _learn_all(connection, row)
    end(connection, [row.id], EventState.IGNORED, decision.told("rejected"), row.planned_at or now)
    note(connection, decision, now, row.id, {"state": row.state})


def cancel(connection: Connection, row: Row[Any], decision: Decision, now: Micros) -> None:
    """Give up what an event has not removed yet; what the source said of access stays known. Raises Refused (409).

    A call that is under way cannot be called back: what it carries is marked as needing a new grant, and it is never
    made again.
    """
    _must_be_open(row)
    told = decision.told("cancelled")
    _learn_all(connection, row)
    number = _cancel_open(connection, row.id, told, now)
    closed = {"unresolved": None, "completing": False}
    if _any(connection, row.id, *_NOT_CANCELLED):
        connection.execute(update(events).where(events.c.id == row.id).values(**closed))
        refresh_events(connection, [row.id])
    else:
        planned_at = None if row.state == EventState.UNREADABLE.value else row.planned_at or now
        end(connection, [row.id], EventState.IGNORED, told, planned_at, **closed)
    _set_everybody_due(connection, row.id, row.person_id)
    note(connection, decision, now, row.id, {"state": row.state, "cancelled": number})


def regranted(connection: Connection, row: Row[Any], decision: Decision, now: Micros) -> None:
    """Note that what an event took too much was granted again in Velt. Raises Refused (409).

    The relay never grants: somebody did it by hand, and says so here. What a call may have removed unseen is back too.
    """
    marked = and_(revocations.c.event_id == row.id, revocations.c.needs_regrant)
    sending = select(revocations.c.id).where(marked, revocations.c.state == _SENDING)
    if connection.execute(sending.limit(1)).first() is not None:
        raise Refused(409, _UNDER_WAY)
    number = connection.execute(
        update(revocations).where(marked).values(needs_regrant=False, unsure=False, regranted_at=now)
    ).rowcount
    if not number:
        raise Refused(409, "nothing of it needs a new grant")
    note(connection, decision, now, row.id, {"state": row.state, "revocations": number})


def is_known(connection: Connection, person_id: int) -> bool:
    """Whether any source has ever named this Velt user."""
    named = select(identities.c.person_id).where(identities.c.person_id == person_id).limit(1)
    return connection.execute(named).first() is not None


def add_removal(
    connection: Connection, velt_user_id: str, payload: bytes, decision: Decision, now: Micros
) -> tuple[str, int]:
    """Record an operator's own removal; return its event's id and its person's, whose row is held."""
    person_id = person_for(connection, velt_user_id)
    connection.execute(select(people.c.id).where(people.c.id == person_id).with_for_update()).one()
    event = AccessEvent(
        source="operator",
        kind=Kind.OPERATOR_REMOVE,
        type=Kind.OPERATOR_REMOVE.value,
        payload=payload,
        subject=velt_user_id,
        occurred_at=now,
        state=EventState.PLANNED,
    )
    row = row_of(event, now)
    insert_events(connection, [row])
    connection.execute(update(events).where(events.c.id == row["id"]).values(person_id=person_id, planned_at=now))
    note(connection, decision, now, row["id"], {})
    return row["id"], person_id


def plan_removal(
    connection: Connection,
    event_id: str,
    person_id: int,
    resources: Sequence[Resource],
    rules_version: str,
    because: str,
    incomplete: Sequence[str],
    now: Micros,
) -> None:
    """Write down what an operator's removal takes."""
    step = losses.Step("by hand", True, because, tuple(resources))
    made = losses.Plan(dict.fromkeys(resources, ("by hand",)), (step,), tuple(incomplete))
    connection.execute(
        update(events)
        .where(events.c.id == event_id)
        .values(plan=json.dumps(plan_as_json(made)), rules_version=rules_version)
    )
    add_revocations(connection, event_id, person_id, made.resources, now)
    set_due(connection, person_id)


def pause(connection: Connection, decision: Decision, now: Micros) -> None:
    delivery.pause(connection, decision.actor, decision.reason)
    note(connection, decision, now)


def resume(connection: Connection, decision: Decision, now: Micros) -> None:
    delivery.resume(connection)
    note(connection, decision, now)


def _learn_all(connection: Connection, row: Row[Any]) -> None:
    """Keep what an event says of access, of one person or of many, although it takes nothing."""
    learn_from(connection, row)
    learn_end(connection, row)
    nested.learn_losers(connection, row)


def _must_be_held(row: Row[Any], decision: Decision) -> None:
    if row.state != EventState.HELD.value:
        raise Refused(409, f"it is {row.state}: only what is held can be {_PAST[decision.action]}")


def _must_be_open(row: Row[Any]) -> None:
    if row.state == EventState.HELD.value:
        raise Refused(409, "it waits for a person: approve or reject it")
    if row.state in (EventState.DONE.value, EventState.IGNORED.value):
        raise Refused(409, f"it is {row.state}: there is nothing left to cancel")
    if row.kind in GAINS:
        raise Refused(409, "it is a gain: it takes nothing, so there is nothing to cancel")


def _can_go_on(connection: Connection, row: Row[Any]) -> bool:
    """Whether the event's own revocations are what is left to do."""
    if row.state == EventState.FAILED.value and row.unresolved:
        return False
    return _any(connection, row.id, _PENDING, _SENDING, _DEAD)


def _any(connection: Connection, event_id: str, *states: str) -> bool:
    mine = and_(revocations.c.event_id == event_id, revocations.c.state.in_(states))
    return connection.execute(select(revocations.c.id).where(mine).limit(1)).first() is not None


def _try_again(connection: Connection, row: Row[Any], decision: Decision, now: Micros) -> None:
    """Have the open and dead revocations of an event sent now, with all their attempts before them."""
    mine = and_(revocations.c.event_id == row.id, revocations.c.state.in_([_PENDING, _DEAD]))
    number = connection.execute(
        update(revocations).where(mine).values(state=_PENDING, next_at=now, attempts=0, solo=False, settled_at=None)
    ).rowcount
    refresh_events(connection, [row.id])
    _set_everybody_due(connection, row.id)
    note(connection, decision, now, row.id, {"state": row.state, "revocations": number})


def _plan_again(connection: Connection, row: Row[Any], decision: Decision, now: Micros) -> None:
    """Send an event through routing and planning once more; what it had open is cancelled first.

    What a part of a leaving is about stays known, and since when something is held that an event only tells again.
    """
    since = json.loads(row.plan or "{}").get("held_since")
    kept = json.dumps({"held_since": since}) if since is not None else None
    is_part = row.parent_id is not None and row.kind in ACCOUNT_LOSSES
    number = _cancel_open(connection, row.id, decision.told("planned again"), now)
    connection.execute(
        update(events)
        .where(events.c.id == row.id)
        .values(
            state=EventState.RECEIVED.value,
            reason=None,
            replay=True,
            planned_at=None,
            person_id=None,
            plan=row.plan if is_part else kept,
            unresolved=None,
            look_at=now,
            wait_until=None,
            looks=0,
            completing=False,
        )
    )
    _set_everybody_due(connection, row.id, row.person_id)
    note(connection, decision, now, row.id, {"state": row.state, "cancelled": number})


def _parse_again(
    connection: Connection, row: Row[Any], parsed: Sequence[AccessEvent] | str, decision: Decision, now: Micros
) -> None:
    """Put what a payload says today in the place of an event that was not understood; a text is why it still is not."""
    found = [] if isinstance(parsed, str) else parsed
    still = _still_not_understood(parsed)
    if still is not None:
        state, told = still
        connection.execute(update(events).where(events.c.id == row.id).values(state=state.value, reason=told))
        note(connection, decision, now, row.id, {"state": row.state, "still": told})
        return
    # The new row takes over the key, so that the same event by another way is still the same.
    connection.execute(update(events).where(events.c.id == row.id).values(dedup_key=None))
    insert_events(connection, rows_of(found, row.received_at, parent_id=row.id))
    made = list(
        connection.execute(select(events.c.id).where(events.c.parent_id == row.id).order_by(events.c.id)).scalars()
    )
    rest = f" and {len(made) - 1} more" if len(made) > 1 else ""
    told = f"parsed again as {made[0]}{rest}" if made else "parsed again: all of it was recorded already"
    end(connection, [row.id], EventState.DONE, told, now)
    note(connection, decision, now, row.id, {"state": row.state, "events": made[:CHUNK]})


def _still_not_understood(parsed: Sequence[AccessEvent] | str) -> tuple[EventState, str | None] | None:
    """The state and reason of an event of which nothing is to be planned, None where something is."""
    if isinstance(parsed, str):
        return EventState.UNREADABLE, parsed
    if not parsed:
        return EventState.IGNORED, "it holds no event"
    alone = len(parsed) == 1 and parsed[0].state is not EventState.RECEIVED
    return (parsed[0].state, parsed[0].reason) if alone else None


def _concerned(connection: Connection, ids: Sequence[str]) -> set[int]:
    """Everybody whom these events and their revocations are about."""
    of_events = select(events.c.person_id).where(events.c.id.in_(ids), events.c.person_id.is_not(None))
    of_revocations = select(revocations.c.person_id).where(revocations.c.event_id.in_(ids))
    return set(connection.execute(of_events.union(of_revocations)).scalars())


def _set_everybody_due(connection: Connection, event_id: str, person_id: int | None = None) -> None:
    for concerned in sorted(_concerned(connection, [event_id]) | ({person_id} if person_id is not None else set())):
        set_due(connection, concerned)


def _cancel_open(connection: Connection, event_id: str, told: str, now: Micros) -> int:
    """Cancel what is open or dead; how many there were. What a call may have removed unseen needs a new grant."""
    mine = and_(revocations.c.event_id == event_id, revocations.c.state.in_([_PENDING, _SENDING, _DEAD]))
    maybe_gone = or_(revocations.c.needs_regrant, revocations.c.unsure, revocations.c.state == _SENDING)
    return connection.execute(
        update(revocations)
        .where(mine)
        .values(
            state=RevocationState.CANCELLED.value,
            reason=told,
            next_at=None,
            settled_at=now,
            needs_regrant=maybe_gone,
        )
    ).rowcount

"""Giving up, visibly: what cannot be worked on ends with the reason, and everything else goes on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select, update
from sqlalchemy.exc import DBAPIError

from relay.model import GAINS, SECOND, EventState, Micros, RevocationState
from relay.rules import RuleSet
from relay.store import look_ups, plan
from relay.store.database import Database
from relay.store.ending import end, learn_from
from relay.store.look_ups import Question
from relay.store.people import due_for_planning, lock_people, set_due
from relay.store.revocations import refresh_events
from relay.store.tables import events, revocations


def give_up(connection: Connection, rules: RuleSet, person_id: int, error: Exception, now: Micros) -> None:
    """Set aside what cannot be worked on: the events at fault fail, or else the open revocations are dead."""
    at_fault = [row.id for row in plan.unplanned(connection, person_id) if _fails(connection, rules, row, now)]
    reason = f"could not be planned: {type(error).__name__}: {error}"
    if at_fault:
        end(connection, at_fault, EventState.FAILED, reason, now)
    else:
        pending = and_(revocations.c.person_id == person_id, revocations.c.state == RevocationState.PENDING.value)
        touched = set(connection.execute(select(revocations.c.event_id).where(pending)).scalars())
        connection.execute(
            update(revocations)
            .where(pending)
            .values(state=RevocationState.DEAD.value, reason=reason, next_at=None, settled_at=now)
        )
        refresh_events(connection, touched)
    set_due(connection, person_id)


def _fails(connection: Connection, rules: RuleSet, row: Row[Any], now: Micros) -> bool:
    """Whether this event cannot be planned; tries it and takes it back."""
    trial = connection.begin_nested()
    try:
        plan.plan_event(connection, rules, row, now)
    except DBAPIError:
        raise
    except Exception:
        return True
    finally:
        if trial.is_active:
            trial.rollback()
    return False


def end_unaskable(database: Database, question: Question, identifier: str, reason: str, seconds: float) -> None:
    """End the events that wait for an answer about an id that is none: nobody can ever be asked. Raises Unavailable.

    What else is asked about the same account is asked again in so many seconds, without them.
    """
    whole = identifier == question.object_id or question.object_type != look_ups.ACCOUNT
    with database.write() as connection:
        now = database.now(connection)
        about = _about(connection, question, identifier, whole=whole)
        concerned = {row.person_id for row in about if row.person_id is not None}
        lock_people(connection, concerned)
        for row in _about(connection, question, identifier, whole=whole):
            _end(connection, row, reason, now)
        look_ups.dropped(connection, question, None if whole else now + int(seconds * SECOND))
        due_for_planning(connection, concerned, now)
    database.waker.wake()


def end_questions(database: Database, directories: Collection[str]) -> None:
    """End the questions to all but these directories: relay.yaml has no others any more. Raises Unavailable.

    What waited for an answer goes on without one.
    """
    with database.write() as connection:
        now = database.now(connection)
        waiting = and_(
            events.c.source.not_in(sorted(directories)),
            events.c.state == EventState.RECEIVED.value,
            events.c.wait_until.is_not(None),
        )
        theirs = select(events.c.person_id).where(waiting, events.c.person_id.is_not(None)).distinct()
        concerned = set(connection.execute(theirs).scalars())
        lock_people(connection, concerned)
        look_ups.drop_others(connection, directories)
        connection.execute(update(events).where(waiting).values(wait_until=None))
        due_for_planning(connection, concerned, now)
    database.waker.wake()


def _about(connection: Connection, question: Question, identifier: str, *, whole: bool) -> list[Row[Any]]:
    """The recorded events that wait for this question (`whole`), or those of its account that name the id."""
    waiting = look_ups.waiting(question)
    if question.object_type == look_ups.ACCOUNT:
        named = or_(events.c.group_id == identifier, events.c.app_id == identifier)
        waiting = and_(waiting, events.c.look_at.is_not(None) if whole else named)
    return list(connection.execute(select(events).where(waiting)).all())


def _end(connection: Connection, row: Row[Any], reason: str, now: Micros) -> None:
    """A gain takes nothing, so that nobody has to look at it; whatever else it is, somebody has to."""
    if learn_from(connection, row).kind in GAINS:
        end(connection, [row.id], EventState.DONE, f"gain; {reason}", now)
    else:
        end(connection, [row.id], EventState.FAILED, reason, now)

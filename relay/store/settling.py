"""Settling: what a call came to is written down, for as long as its lease holds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select, update

from relay import backoff, confirmation
from relay.model import SECOND, Answer, Micros, Outcome, RevocationState
from relay.store import attempts, delivery
from relay.store.attempts import Call
from relay.store.claim import Task, Terms
from relay.store.database import Database
from relay.store.people import end_lease
from relay.store.revocations import lost_again, refresh_events, reopen
from relay.store.tables import people, revocations

#: Failures of a call for several resources, for a reason of its own, after which each is asked alone.
SPLIT_AFTER = 2

_GONE = (RevocationState.REMOVED.value, RevocationState.ABSENT.value)


def settle(database: Database, terms: Terms, task: Task, outcome: Outcome, started: Micros, finished: Micros) -> bool:
    """Write down what a call came to; false when the lease was lost and only the attempt could be added."""
    with database.write() as connection:
        now = database.now(connection)
        person = connection.execute(select(people).where(people.c.id == task.person_id).with_for_update()).one()
        about = (task.person_id, task.velt_user_id, task.resources, task.revocation_ids)
        attempts.add(connection, Call(terms.worker, *about, started, finished), outcome)
        if person.lease_token != task.token:
            return False
        breaker = delivery.note(connection, outcome, task.person_id, terms.key_digest, now)
        rows = connection.execute(select(revocations).where(revocations.c.id.in_(task.revocation_ids))).all()
        # Of what is not there and was gained meanwhile, an earlier removal is to be granted again still.
        held_all_along = {row.id for row in rows if row.needs_regrant and outcome.answer is Answer.ABSENT}
        alike: dict[tuple[tuple[str, Any], ...], list[str]] = {}
        for row in rows:
            # Cancelled while the call was under way: only a success is still news.
            if row.state == RevocationState.SENDING.value or outcome.answer is Answer.REMOVED:
                values = _settled(row, outcome, len(task.resources), breaker, now)
                if terms.confirms and outcome.answer is Answer.REMOVED:
                    values |= {"confirm_at": confirmation.first_ask(now), "solo": False}
                alike.setdefault(tuple(values.items()), []).append(row.id)
        for columns, ids in alike.items():
            values = dict(columns)
            connection.execute(update(revocations).where(revocations.c.id.in_(ids)).values(**values))
            if values["state"] in _GONE:
                lost_again(connection, task.person_id, [row_id for row_id in ids if row_id not in held_all_along])
        refresh_events(connection, set(task.event_ids))
        end_lease(connection, task.person_id)
        return True


def give_back(database: Database, task: Task) -> None:
    """Return a call that was never made, so that another worker takes it at once."""
    with database.write() as connection:
        person = connection.execute(select(people).where(people.c.id == task.person_id).with_for_update()).one()
        if person.lease_token == task.token:
            now = database.now(connection)
            reopen(connection, task.person_id, now, unsure=False)
            end_lease(connection, task.person_id)
            if delivery.read(connection, lock=True).state == "probing":
                delivery.give_back_probe(connection, now)


def _settled(row: Row[Any], outcome: Outcome, resources: int, breaker: delivery.Breaker, now: Micros) -> dict[str, Any]:
    """The columns of a revocation after a call for `resources` resources came to this outcome.

    A gain that became known while the call was under way has marked it as needing a new grant: that stands where
    something was removed, or may have been by this call or an earlier one. What stays open is judged again first.
    """
    final: dict[str, Any] = {"reason": outcome.reason, "settled_at": now, "next_at": None}
    again = {"state": RevocationState.PENDING.value, "reason": outcome.reason, "unsure": row.unsure or outcome.unsure}
    again["needs_regrant"] = False
    if outcome.answer is Answer.REMOVED:
        return {**final, "state": RevocationState.REMOVED.value, "attempts": row.attempts + 1}
    final |= {"unsure": again["unsure"], "needs_regrant": row.needs_regrant and again["unsure"]}
    if outcome.answer is Answer.UNAUTHORIZED or not breaker.closed:
        return {**again, "next_at": now}  # the breaker's affair: it costs nobody an attempt
    if outcome.answer in (Answer.ABSENT, Answer.REFUSED) and resources > 1:
        return {**again, "next_at": now, "solo": True}
    if outcome.answer is Answer.REFUSED:
        return {**final, "state": RevocationState.DEAD.value, "attempts": row.attempts + 1}
    if outcome.answer is Answer.ABSENT and breaker.proven:
        return {**final, "state": RevocationState.ABSENT.value, "attempts": row.attempts + 1}
    if outcome.answer is Answer.ABSENT:
        again["reason"] = f"{outcome.reason} (this key has had no success yet, so it may be the wrong key)"
    delay = backoff.next_delay(row.attempts + 1, outcome.retry_after)
    if delay is None:
        reason = f"given up after {row.attempts + 1} attempts: {again['reason']}"
        return {**final, "state": RevocationState.DEAD.value, "attempts": row.attempts + 1, "reason": reason}
    alone = not outcome.down and row.attempts + 1 >= SPLIT_AFTER
    return {**again, "next_at": now + int(delay * SECOND), "attempts": row.attempts + 1, "solo": row.solo or alone}

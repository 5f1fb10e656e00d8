"""What is wrong at this moment: each problem as (key, text), for as long as it holds.

Whatever an operator has to be alerted of is found by a function of this shape (`Finder`). A key stays the same while
the problem does; what comes before its first colon names what kind of problem it is. A text is a sentence for a chat:
counts and ids of events, what to do, and nobody's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, distinct, func, select

from relay.model import SECOND, EventState, Micros, RevocationState, to_iso
from relay.store import delivery, heartbeat, look_ups, results, subscriptions
from relay.store.places import all_places
from relay.store.tables import events, revocations

Problem: TypeAlias = tuple[str, str]
Finder: TypeAlias = Callable[[Connection, Micros], Iterator[Problem]]

#: Velt has to be down for so long before anybody is called: most of its troubles are over before.
PATIENCE: Micros = 60 * SECOND


def held(connection: Connection, _now: Micros) -> Iterator[Problem]:
    """Events that the guard holds."""
    events_held = _events(connection, EventState.HELD)
    if events_held:
        yield (
            "held",
            f"{events_held}: too much would be removed at once, and nothing of it is removed before somebody looks: "
            "`python -m relay events --state held`, then `approve` or `reject`, by id or with `--state held`",
        )


def stopped(connection: Connection, now: Micros) -> Iterator[Problem]:
    """Calls to Velt that do not go out: its keys are refused, or it has been down for more than a minute."""
    gate = delivery.read(connection)
    if gate.state != "closed" and (gate.key_digest is not None or now - gate.since >= PATIENCE):
        yield "delivery", f"nothing is removed since {to_iso(gate.since)}: {gate.why}"


def to_grant_again(connection: Connection, _now: Micros) -> Iterator[Problem]:
    """Removals that a gain came too late for."""
    wanted = select(func.count(), func.count(distinct(revocations.c.event_id)), func.max(revocations.c.event_id))
    number, of_events, latest = connection.execute(wanted.where(revocations.c.needs_regrant)).one()
    if number:
        yield (
            "needs-regrant",
            f"{_counted(number, 'removal')} of {_counted(of_events, 'event')} (the latest is {latest}) took what was "
            "given back meanwhile, and the relay never grants: `python -m relay events --needs-regrant`, give it back "
            "in Velt, then `regranted`",
        )


def failed(connection: Connection, _now: Micros) -> Iterator[Problem]:
    """Events that failed, and removals that are dead: both need a person."""
    ended = _events(connection, EventState.FAILED)
    dead = connection.execute(
        select(func.count()).where(revocations.c.state == RevocationState.DEAD.value)
    ).scalar_one()
    if ended or dead:
        gone = f"{_counted(dead, 'removal')} {'is' if dead == 1 else 'are'} dead" if dead else ""
        told = " and ".join(part for part in (ended, gone) if part)
        yield "failed", f"{told}: `python -m relay events --state failed`, `show` says why, then `retry` or `cancel`"


def unreadable(connection: Connection, _now: Micros) -> Iterator[Problem]:
    """Events of authenticated senders that were not understood: each may be the loss of a leaver."""
    number = _events(connection, EventState.UNREADABLE)
    if number:
        yield (
            "unreadable",
            f"{number}: a loss that was not understood removes nothing: `python -m relay events --state unreadable`, "
            "`show` says why, then `retry` where it can be understood by now, or `remove` by hand and `cancel`",
        )


def still_open(connection: Connection, _now: Micros) -> Iterator[Problem]:
    """Removals after which Velt still shows access, and after which no other one of the same has been confirmed."""
    number = results.left_open(connection)
    if number:
        yield (
            "still-has-access",
            f"{_counted(number, 'removal')} left access in place by what Velt shows: "
            "`python -m relay events --confirmation still_has_access`, `show` says why",
        )


def unanswered(connection: Connection, now: Micros) -> Iterator[Problem]:
    """Directories that have not answered for a while: who is unknown waits, the rest is taken at its word."""
    for one in look_ups.failing(connection):
        if now - one["since"] >= PATIENCE:
            yield (
                f"look-ups:{one['source']}",
                f"the directory of {one['source']} does not answer since {to_iso(one['since'])}, "
                f"{_counted(one['number'], 'question')} waiting: {one['reason']}",
            )


def unread(connection: Connection, now: Micros) -> Iterator[Problem]:
    """Sources whose changes could not be read the last time."""
    for place in all_places(connection).values():
        if place.error is not None and place.ended_at is not None:
            yield f"reconcile:{place.source}", f"what {place.source} missed is not known: {place.error}"


def refused(connection: Connection, now: Micros) -> Iterator[Problem]:
    """A relay.yaml that workers have refused: they go on by older rules than whoever changed it believes."""
    mistakes = heartbeat.refusals(connection, now)
    if mistakes:
        found_in_it, by_whom = _counted(max(mistakes), "mistake"), _counted(len(mistakes), "worker")
        yield (
            "config-refused",
            f"relay.yaml has {found_in_it} and was refused by {by_whom}, so that older rules are in force: "
            "`python -m relay check` names each",
        )


#: All that is looked for in the database.
FINDERS: tuple[Finder, ...] = (
    held,
    stopped,
    to_grant_again,
    failed,
    unreadable,
    still_open,
    unanswered,
    unread,
    refused,
    subscriptions.problems,
)


def _events(connection: Connection, state: EventState) -> str:
    """`3 events are held (the latest is evt_...)`; "" where there is none."""
    mine: ColumnElement[bool] = events.c.state == state.value
    number = connection.execute(select(func.count()).where(mine)).scalar_one()
    if not number:
        return ""
    latest = connection.execute(
        select(events.c.id).where(mine).order_by(events.c.received_at.desc(), events.c.id.desc()).limit(1)
    ).scalar_one()
    return f"{_counted(number, 'event')} {'is' if number == 1 else 'are'} {state.value} (the latest is {latest})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

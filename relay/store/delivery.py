"""The breaker: one row that says whether calls to Velt go out.

    closed  --three failures of Velt as a whole, or the key refused-->  open
    open    --probe_at reached: one worker sends one call-->            probing
    probing --Velt answers-->  closed          probing --it does not-->  open, the next probe later

While it is not closed nobody's attempts are counted. An operator's pause is a switch of its own beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select, update

from relay import backoff
from relay.model import SECOND, Answer, Micros, Outcome
from relay.store.tables import delivery

#: Failures of Velt as a whole, in a row, that open the breaker.
THRESHOLD = 3
#: A probe whose worker vanished is given up after this long.
PROBE_LEASE: Micros = 60 * SECOND


class Gate(StrEnum):
    """What a claim may send: everything, one call as a probe, or nothing."""

    OPEN = "open"
    PROBE = "probe"
    SHUT = "shut"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The row as it is. `state` is the breaker's: closed, open or probing."""

    state: str
    why: str | None
    since: Micros
    failures: int
    failed_person: int | None
    probes: int
    probe_at: Micros | None
    key_digest: str | None
    proven_key: str | None
    paused: bool
    paused_by: str | None
    paused_reason: str | None

    def gate(self, now: Micros, key_digest: str) -> Gate:
        if self.paused:
            return Gate.SHUT
        if self.state == "closed":
            return Gate.OPEN
        new_key = self.state == "open" and self.key_digest is not None and key_digest != self.key_digest
        return Gate.PROBE if new_key or now >= (self.probe_at or 0) else Gate.SHUT


#: The columns of Delivery: the table has one row.
COLUMNS = tuple(delivery.c[name.name] for name in fields(Delivery))


@dataclass(frozen=True, slots=True)
class Breaker:
    """What settling has to know: whether calls go out now, and whether this key has had a success."""

    closed: bool
    proven: bool


def read(connection: Connection, *, lock: bool = False) -> Delivery:
    statement = select(*COLUMNS)
    return from_row(connection.execute(statement.with_for_update() if lock else statement).one())


def from_row(row: Any) -> Delivery:
    """The Delivery in a row that has its columns."""
    return Delivery(**{name.name: row._mapping[name.name] for name in fields(Delivery)})


def start_probe(connection: Connection, now: Micros) -> bool:
    """Take the one probe; false when another worker has taken it meanwhile."""
    before = read(connection, lock=True)
    if before.state == "closed" or (before.state == "probing" and now < (before.probe_at or 0)):
        return False
    _change(connection, state="probing", probe_at=now + PROBE_LEASE)
    return True


def give_back_probe(connection: Connection, now: Micros) -> None:
    """Nobody had a call to make: the probe is still to be made."""
    _change(connection, state="open", probe_at=now)


def note(connection: Connection, outcome: Outcome, person_id: int, key_digest: str, now: Micros) -> Breaker:
    """Move the breaker by what a call came to."""
    seen = read(connection)
    proven = seen.proven_key == key_digest
    if outcome.answer is Answer.UNAUTHORIZED:
        return Breaker(_trip(connection, f"the key is refused: {outcome.reason}", now, key_digest), proven)
    if outcome.answer is Answer.RETRY and outcome.down:
        return Breaker(_failed(connection, outcome, person_id, now), proven)
    if outcome.answer is Answer.REMOVED and not proven:
        _change(connection, proven_key=key_digest)
        proven = True
    if seen.state != "closed" or seen.failures > 0:
        _close(connection, now)
    return Breaker(True, proven)


def _close(connection: Connection, now: Micros) -> None:
    since = {} if read(connection, lock=True).state == "closed" else {"since": now}
    _change(
        connection,
        state="closed",
        why=None,
        failures=0,
        failed_person=None,
        probes=0,
        probe_at=None,
        key_digest=None,
        **since,
    )


def _failed(connection: Connection, outcome: Outcome, person_id: int, now: Micros) -> bool:
    before = read(connection, lock=True)
    if before.state != "closed":
        return _trip(connection, f"Velt is down: {outcome.reason}", now, None)
    failures = before.failures + 1
    # A call that hangs may be one person's trouble: two people have to meet it before all the others wait.
    one_person = outcome.unsure and before.failed_person in (None, person_id)
    if failures >= THRESHOLD and not one_person:
        return _trip(connection, f"Velt is down: {outcome.reason}", now, None)
    first = before.failed_person if outcome.unsure and before.failed_person is not None else person_id
    _change(connection, failures=failures, failed_person=first)
    return True


def _trip(connection: Connection, why: str, now: Micros, key_digest: str | None) -> bool:
    """Open the breaker, or put off the next probe of an open one."""
    before = read(connection, lock=True)
    late_news = before.state == "open" and now < (before.probe_at or 0)
    if not late_news:
        probes = 0 if before.state == "closed" else before.probes + 1
        since = before.since if before.state != "closed" else now
        probe_at = now + int(backoff.probe_delay(probes) * SECOND)
        _change(connection, state="open", why=why, since=since, probes=probes, probe_at=probe_at, key_digest=key_digest)
    return False


def pause(connection: Connection, actor: str, reason: str | None) -> None:
    _change(connection, paused=True, paused_by=actor, paused_reason=reason)


def resume(connection: Connection) -> None:
    _change(connection, paused=False, paused_by=None, paused_reason=None)


def _change(connection: Connection, **values: Any) -> None:
    connection.execute(update(delivery).where(delivery.c.id == 1).values(**values))

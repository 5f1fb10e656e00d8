"""Recording: what a source said, committed before anybody is told 2xx.

One thread a process commits for all requests that wait (a group commit): on a disk that takes 0.3 ms for a flush this
is the difference between the disk's speed and the server's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, select, update

from relay import model
from relay.errors import Unavailable
from relay.model import AccessEvent, EventState, Micros
from relay.store import gaps
from relay.store.database import Database, chunks, insert_for
from relay.store.tables import events

#: The IdP hears 503 after this long (Okta gives up at 3 s).
WAIT_SECONDS = 1.7
#: Requests that may wait for the committer; more are told 503 at once.
MAX_WAITING = 1000
#: Rows of one commit.
MAX_ROWS = 2000

Row = dict[str, Any]
_Job = tuple[list[Row], "Future[dict[str, str]]"]


def row_of(
    event: AccessEvent,
    received_at: Micros,
    *,
    parent_id: str | None = None,
    event_id: str | None = None,
    replay: bool = False,
    found_by: str | None = None,
) -> Row:
    """The row of `events` that records this event. `found_by`: what told of it, where not the provider's message.

    A twin's key tells copies until it is planned. One that is ignored at once never is, and what says the same tomorrow
    is news, such as Graph's "reauthorizationRequired".
    """
    is_over = event.twin and event.state is EventState.IGNORED
    as_of = received_at if event.occurred_at is None else min(event.occurred_at, received_at)
    return {
        "id": event_id or model.new_id("evt"),
        "source": event.source,
        "kind": event.kind.value,
        "type": event.type,
        "state": event.state.value,
        "reason": event.reason,
        "dedup_key": None if is_over else event.key,
        "twin": event.twin,
        "replay": replay,
        "subject": event.subject,
        "login": event.login,
        "email": event.email,
        "external_id": event.external_id,
        "group_id": event.group_id,
        "group_name": event.group_name,
        "app_id": event.app_id,
        "app_name": event.app_name,
        "occurred_at": event.occurred_at,
        "as_of": as_of,
        "received_at": received_at,
        "parent_id": parent_id,
        "found_by": found_by,
        "payload": event.payload,
    }


def rows_of(
    told: Iterable[AccessEvent], received_at: Micros, *, parent_id: str | None = None, found_by: str | None = None
) -> list[Row]:
    """The rows of events that came together.

    What a source dates later than we received it, because its clock is before ours, is cut to that moment; such events
    keep their order by a microsecond each. Or a loss and the gain right after it would be of one moment, and stay lost.
    """
    rows = [row_of(event, received_at, parent_id=parent_id, found_by=found_by) for event in told]
    later = sorted({row["occurred_at"] for row in rows if (row["occurred_at"] or 0) > received_at}, reverse=True)
    back = {moment: steps for steps, moment in enumerate(later)}
    for row in rows:
        if row["occurred_at"] is not None:
            row["as_of"] = min(row["as_of"], received_at - back.get(row["occurred_at"], len(later)))
    return rows


def event_of(row: Mapping[str, Any]) -> AccessEvent:
    """The event that a row of `events` records."""
    return AccessEvent(
        source=row["source"],
        kind=model.Kind(row["kind"]),
        type=row["type"],
        payload=row["payload"],
        key=row["dedup_key"],
        twin=row["twin"],
        subject=row["subject"],
        login=row["login"],
        email=row["email"],
        external_id=row["external_id"],
        group_id=row["group_id"],
        group_name=row["group_name"],
        app_id=row["app_id"],
        app_name=row["app_name"],
        occurred_at=row["occurred_at"],
        state=EventState(row["state"]),
        reason=row["reason"],
    )


def insert_events(connection: Connection, rows: Iterable[Row]) -> dict[str, str]:
    """Add rows to `events`; one whose (source, dedup_key) is there already is left out.

    Return for each row that was left out the id of the event that is there, "" where it was planned this very moment.
    What reconcile had found first and comes by hook after all was not found by reconcile alone.
    """
    given = list(rows)
    added = connection.execute(_insert_once(connection.dialect.name), given).rowcount
    if added == len(given):  # nearly always: what follows must not cost every message its time
        return {}
    left_out = _left_out(connection, given)
    late = [left_out[row["id"]] for row in given if row["id"] in left_out and row["found_by"] is None]
    for chunk in chunks(late):
        found_first = events.c.id.in_(chunk) & events.c.found_by.is_not(None)
        connection.execute(update(events).where(found_first).values(found_by=None))
    return left_out


def _left_out(connection: Connection, rows: Sequence[Row]) -> dict[str, str]:
    """By the id of each row that was left out the id of the event with its key."""
    keys: dict[str, list[str]] = {}
    for row in rows:
        if row["dedup_key"] is not None:
            keys.setdefault(row["source"], []).append(row["dedup_key"])
    there: dict[tuple[str, str | None], str] = {}
    for source, listed in keys.items():
        for chunk in chunks(listed):
            of_these = (events.c.source == source) & events.c.dedup_key.in_(chunk)
            found = connection.execute(select(events.c.dedup_key, events.c.id).where(of_these))
            there |= {(source, row.dedup_key): row.id for row in found}
    ids = {row["id"]: there.get((row["source"], row["dedup_key"]), "") for row in rows if row["dedup_key"] is not None}
    return {row_id: found_id for row_id, found_id in ids.items() if row_id != found_id}


@cache
def _insert_once(dialect: str) -> Any:
    """Made once a process: making it takes four times as long as executing it."""
    once = insert_for(dialect, events).on_conflict_do_nothing(index_elements=["source", "dedup_key"])
    return once.execution_options(preserve_rowcount=True)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where an event is on disk. `known`: it had been there before; then `id` is "" where that cannot be told."""

    id: str
    known: bool = False


class Recorder:
    """Commits events for the threads that wait in `record`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs: queue.Queue[_Job] = queue.Queue(MAX_WAITING)
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        # The first commit of a process, and the first after a failure, says that messages may have been lost before.
        self._was_away = True

    def begin(self) -> None:
        """Have it written down that this process was away until now, also when no message comes; returns at once."""
        self._start()
        self._jobs.put(([], Future()))

    def record(self, accepted: Iterable[AccessEvent], received_at: Micros) -> list[Recorded]:
        """Return where each event is, once all are on disk.

        Raises Unavailable when that has not happened within WAIT_SECONDS; the rows may still be committed later,
        which does no harm: the IdP sends again and the duplicate is left out.
        """
        rows = rows_of(accepted, received_at)
        if not rows:
            return []
        self._start()
        done: Future[dict[str, str]] = Future()
        try:
            self._jobs.put_nowait((rows, done))
            left_out = done.result(WAIT_SECONDS)
        except queue.Full:
            raise Unavailable("too many requests wait for the database") from None
        except FutureTimeout:
            done.cancel()
            raise Unavailable(f"the database did not commit within {WAIT_SECONDS} s") from None
        ids = [row["id"] for row in rows]
        return [Recorded(left_out[row_id], known=True) if row_id in left_out else Recorded(row_id) for row_id in ids]

    def _start(self) -> None:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._commit(self._next())

    def _next(self) -> list[_Job]:
        """Everything that waits, at least one job, at most MAX_ROWS rows where there are several."""
        jobs = [self._jobs.get()]
        rows = len(jobs[0][0])
        while rows < MAX_ROWS:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            jobs.append(job)
            rows += len(job[0])
        return [job for job in jobs if job[1].set_running_or_notify_cancel()]

    def _commit(self, jobs: list[_Job]) -> None:
        left_out: dict[str, str] = {}
        try:
            if jobs:
                with self._database.write() as connection:
                    if rows := [row for of_one, _ in jobs for row in of_one]:
                        left_out = insert_events(connection, rows)
                    if self._was_away:
                        gaps.note(connection, self._database.now(connection))
                self._was_away = False
        except Exception as error:  # whatever it is, those who wait must hear it and the thread must live
            self._was_away = self._was_away or isinstance(error, Unavailable)
            if len(jobs) > 1 and not isinstance(error, Unavailable):
                for job in jobs:  # find the one that the database refuses
                    self._commit([job])
                return
            for _, done in jobs:
                done.set_exception(error)
            return
        for _, done in jobs:
            done.set_result(left_out)
        self._database.waker.wake()

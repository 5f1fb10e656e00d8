"""Recording, on both databases: durable, once, together, and `Unavailable` in time when the database is not there."""

from __future__ import annotations

import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event as sql_event
from sqlalchemy import make_url, text

from relay import model
from relay.errors import Unavailable
from relay.model import AccessEvent, EventState, Kind
from relay.store import heartbeat, record
from relay.store.database import Database
from relay.store.record import Recorder, event_of
from relay.store.wake import NotifyWaker
from tests.people import Relay, at, event, gain, loss


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT count(*) FROM events")).scalar_one())


def keys(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(text("SELECT dedup_key FROM events ORDER BY dedup_key")).scalars())


@pytest.fixture
def recorder(database: Database) -> Recorder:
    return Recorder(database)


def test_a_recorded_event_is_there_for_another_connection_and_whole(database: Database, recorder: Recorder) -> None:
    given = AccessEvent(
        source="okta",
        kind=Kind.GROUP_MEMBER_REMOVED,
        type="group.user_membership.remove",
        payload=b'{"\x00": "\xff"}',
        key="uuid-1",
        twin=True,
        subject="00uAda",
        login="ada@acme.example",
        email="a@acme.example",
        external_id="7",
        group_id="g",
        group_name="Gründe ✓",
        app_id="a",
        app_name="A",
        occurred_at=at(0),
        reason="because",
    )
    event_id = recorder.record([given], at(5))[0].id
    again = Database(database.url.render_as_string(hide_password=False))
    row = Relay(again).event(event_id)
    again.close()
    assert event_of(row._asdict()) == given
    assert (row.as_of, row.received_at, row.person_id) == (at(0), at(5), None)


@pytest.mark.parametrize(("occurred", "as_of"), [(None, 5), (3, 3), (9, 5)])
def test_an_event_counts_from_when_it_happened_but_never_later_than_received(
    database: Database, recorder: Recorder, occurred: float | None, as_of: float
) -> None:
    event_id = recorder.record([gain("ada", "g", occurred)], at(5))[0].id
    assert Relay(database).event(event_id).as_of == at(as_of)


def test_what_came_together_keeps_its_order_where_our_clock_is_behind(database: Database, recorder: Recorder) -> None:
    given = [gain("ada", "g", 9), loss("ada", "g", 7), loss("ada", "h", 7), gain("ada", "i", 4), gain("ada", "j", None)]
    ids = [one.id for one in recorder.record(given, at(5))]
    assert [Relay(database).event(event_id).as_of - at(5) for event_id in ids] == [0, -1, -1, -1_000_000, 0]


def test_so_does_what_happened_in_the_very_moment(database: Database, recorder: Recorder) -> None:
    given = [loss("ada", "g", 5), gain("ada", "g", 6), loss("ada", "g", 7)]
    ids = [one.id for one in recorder.record(given, at(5))]
    assert [Relay(database).event(event_id).as_of - at(5) for event_id in ids] == [-2, -1, 0]


def test_nothing_to_record_is_nothing(database: Database, recorder: Recorder) -> None:
    assert recorder.record([], at(0)) == []
    assert count(database) == 0


def test_the_same_key_is_kept_once_in_a_batch_and_across_batches(database: Database, recorder: Recorder) -> None:
    first = loss("ada", "g", key="k")
    assert len(recorder.record([first, first, replace(first, key="other")], at(0))) == 3
    recorder.record([replace(first, subject="bob")], at(1))
    assert keys(database) == ["k", "other"]
    assert event_of(Relay(database).rows(record.events)[0]._asdict()).subject == "ada"


def test_what_was_there_already_is_told_with_the_id_that_is_there(database: Database, recorder: Recorder) -> None:
    first, other = loss("ada", "g", key="k"), loss("ada", "g", key="other")
    one, again, two, keyless = recorder.record([first, first, other, replace(first, key=None)], at(0))
    assert [each.known for each in (one, again, two, keyless)] == [False, True, False, False]
    assert again.id == one.id
    later = recorder.record([replace(first, source="entra"), other], at(1))
    assert [(each.id == two.id, each.known) for each in later] == [(False, False), (True, True)]
    ids = {one.id, two.id, keyless.id, later[0].id}
    assert {row.id for row in Relay(database).rows(record.events)} == ids


def test_what_is_new_costs_one_statement(database: Database, recorder: Recorder) -> None:
    recorder.record([loss("ada", "g", key="first")], at(0))  # says, too, that the process was away
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement.split()[0])

    sql_event.listen(database.engine, "before_cursor_execute", note)
    recorder.record([loss("ada", "g", key=f"k{n}") for n in range(10)], at(1))
    assert statements.count("INSERT") == 1
    assert "SELECT" not in statements


def test_the_same_key_of_another_source_is_another_event(database: Database, recorder: Recorder) -> None:
    recorder.record([loss("ada", "g", key="k"), loss("ada", "g", key="k", source="entra")], at(0))
    assert keys(database) == ["k", "k"]


def test_events_without_a_key_are_never_the_same(database: Database, recorder: Recorder) -> None:
    recorder.record([loss("ada", "g", key=None), loss("ada", "g", key=None)], at(0))
    assert count(database) == 2


@pytest.mark.parametrize("state", [EventState.UNREADABLE, EventState.IGNORED])
def test_an_event_may_be_recorded_as_settled(database: Database, recorder: Recorder, state: EventState) -> None:
    event_id = recorder.record([event(Kind.UNKNOWN, None, state=state, reason="why")], at(0))[0].id
    relay = Relay(database)
    assert relay.claim() == ()
    assert (relay.event(event_id).state, relay.event(event_id).reason) == (state, "why")


def test_many_threads_commit_together_and_everything_is_there(
    database: Database, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[int] = []

    def counted(connection: Any, rows: list[Any]) -> dict[str, str]:
        commits.append(len(rows))
        return insert_events(connection, rows)

    insert_events = record.insert_events
    monkeypatch.setattr(record, "insert_events", counted)
    start = threading.Barrier(32)

    def send(thread: int) -> list[str]:
        start.wait()
        return [recorder.record([gain("ada", "g", key=f"{thread}-{n}")], at(0))[0].id for n in range(10)]

    with ThreadPoolExecutor(32) as pool:
        ids = [event_id for sent in pool.map(send, range(32)) for event_id in sent]
    assert len(set(ids)) == 320
    assert count(database) == 320
    assert sum(commits) == 320
    assert len(commits) < 320


def test_a_bad_request_fails_alone(database: Database, recorder: Recorder) -> None:
    """A text that is no Unicode cannot be stored; whoever is committed with it does not hear of it."""
    good = [gain("ada", "g", key=f"good-{n}") for n in range(8)]
    bad = gain("ada", "\ud800", key="bad")
    with ThreadPoolExecutor(9) as pool:
        with database.write():  # so that all of them wait, and go into one commit
            futures = [pool.submit(recorder.record, [item], at(0)) for item in [*good[:4], bad, *good[4:]]]
            time.sleep(0.05)
        failed = [future.exception() for future in futures]
    assert [error is not None for error in failed] == [False] * 4 + [True] + [False] * 4
    assert not isinstance(failed[4], Unavailable)
    assert keys(database) == sorted(item.key or "" for item in good)


def test_too_many_waiting_requests_are_refused_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_WAITING", 1)
    monkeypatch.setattr(record, "WAIT_SECONDS", 0.5)
    recorder = Recorder(database)
    with ThreadPoolExecutor(6) as pool, locked_by_somebody_else(database):
        futures = [pool.submit(recorder.record, [gain("ada", "g")], at(0)) for _ in range(6)]
        told = [str(future.exception()) for future in futures]
    assert "too many requests wait for the database" in told
    recorded: list[record.Recorded] = []
    while not recorded:  # the committer has to be through with what waited before the database is closed
        with suppress(Unavailable):
            recorded = recorder.record([gain("bob", "g")], at(0))


# --- a database that is not there


@contextmanager
def locked_by_somebody_else(database: Database) -> Iterator[None]:
    if database.is_sqlite:
        other: Any = sqlite3.connect(database.url.database or "", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
    else:
        address = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        other = psycopg.connect(address)
        other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
    try:
        yield
    finally:
        other.rollback() if not database.is_sqlite else other.execute("ROLLBACK")
        other.close()


def in_time(call: Callable[[], object]) -> None:
    """The call raises Unavailable within 2 s."""
    started = time.monotonic()
    with pytest.raises(Unavailable):
        call()
    assert time.monotonic() - started < 2


def test_a_locked_database_is_unavailable_in_time_and_then_works_again(database: Database, recorder: Recorder) -> None:
    recorder.record([gain("ada", "g", key="before")], at(0))
    with locked_by_somebody_else(database):
        in_time(lambda: recorder.record([gain("ada", "g", key="during")], at(0)))
        in_time(lambda: recorder.record([gain("ada", "g", key="during too")], at(0)))
    recorder.record([gain("ada", "g", key="after")], at(0))
    assert {"before", "after"} <= set(keys(database))


def test_a_request_that_gave_up_waiting_is_not_committed_behind_its_back(
    database: Database, recorder: Recorder
) -> None:
    with locked_by_somebody_else(database), ThreadPoolExecutor(2) as pool:
        first = pool.submit(recorder.record, [gain("ada", "g", key="first")], at(0))
        assert isinstance(first.exception(), Unavailable)
        in_time(lambda: recorder.record([gain("ada", "g", key="second")], at(0)))
    recorder.record([gain("ada", "g", key="third")], at(0))
    assert "second" not in keys(database)


def new_database(path: Path) -> None:
    made = Database(f"sqlite:///{path}")
    made.migrate()
    made.close()


def files(path: Path) -> list[Path]:
    return [found for found in path.parent.glob(f"{path.name}*") if found.suffix != ".lock"]


class TestSqliteFile:
    @pytest.fixture
    def database_url(self, tmp_path: Path) -> str:
        new_database(tmp_path / "relay.db")
        return f"sqlite:///{tmp_path / 'relay.db'}"

    def test_a_file_that_is_gone_is_unavailable_and_its_return_is_noticed(
        self, database: Database, recorder: Recorder, tmp_path: Path
    ) -> None:
        recorder.record([gain("ada", "g", key="before")], at(0))
        (tmp_path / "away").mkdir()
        for found in files(tmp_path / "relay.db"):
            found.rename(tmp_path / "away" / found.name)
        in_time(lambda: recorder.record([gain("ada", "g", key="during")], at(0)))
        assert not (tmp_path / "relay.db").exists()
        for found in files(tmp_path / "away" / "relay.db"):
            found.rename(tmp_path / found.name)
        recorder.record([gain("ada", "g", key="after")], at(0))
        assert keys(database) == ["after", "before"]

    def test_a_file_that_was_replaced_gets_what_comes_after(
        self, database: Database, recorder: Recorder, tmp_path: Path
    ) -> None:
        recorder.record([gain("ada", "g", key="before")], at(0))
        for found in files(tmp_path / "relay.db"):
            found.unlink()
        new_database(tmp_path / "relay.db")
        recorder.record([gain("ada", "g", key="after")], at(0))
        fresh = Database(f"sqlite:///{tmp_path / 'relay.db'}")
        assert keys(fresh) == ["after"]
        fresh.close()

    def test_a_file_that_is_no_database_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "other.db").write_bytes(b"no database at all, but long enough to be taken for one" * 50)
        broken = Database(f"sqlite:///{tmp_path / 'other.db'}")
        in_time(lambda: Recorder(broken).record([gain("ada", "g")], at(0)))
        broken.close()

    def test_a_database_without_tables_is_unavailable(self, tmp_path: Path) -> None:
        sqlite3.connect(tmp_path / "empty.db").close()
        empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        in_time(lambda: Recorder(empty).record([gain("ada", "g")], at(0)))
        assert empty.schema_problem() is not None
        empty.close()

    def test_a_full_disk_is_unavailable_and_space_is_noticed(self, database: Database, tmp_path: Path) -> None:
        """In a process of its own whose files may not grow beyond a limit, which is then lifted."""
        script = f"""
import resource, signal
from tests.people import at, gain
from relay.errors import Unavailable
from relay.store.database import Database
from relay.store.record import Recorder
from dataclasses import replace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
recorder = Recorder(Database({database.url.render_as_string()!r}))
recorder.record([gain("ada", "g", key="before")], at(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, {resource.RLIM_INFINITY}))
big = replace(gain("ada", "g", key="during"), payload=b"x" * 1_000_000)
try:
    recorder.record([big], at(0))
except Unavailable as error:
    print("unavailable:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
recorder.record([replace(big, key="after")], at(0))
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.startswith("unavailable: ")
        assert keys(database) == ["after", "before"]


# --- the rest of the database's own promises


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    relay = Relay(database)

    def fail() -> None:
        with database.write() as connection:
            record.insert_events(connection, [record.row_of(gain("ada", "g"), at(0))])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert relay.rows(record.events) == []


def test_the_schema_is_found_new_old_or_missing(database: Database) -> None:
    assert database.schema_problem() is None
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    assert "0000 is older than this code's" in (database.schema_problem() or "")
    with database.write() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    assert "empty" in (database.schema_problem() or "")


def test_migrating_twice_changes_nothing(database: Database, recorder: Recorder) -> None:
    recorder.record([gain("ada", "g")], at(0))
    assert database.migrate() == database.migrate()
    assert count(database) == 1


def test_the_databases_clock_is_about_ours(database: Database) -> None:
    with database.read() as connection:
        assert abs(database.now(connection) - model.now()) < 5 * model.SECOND


def test_a_given_clock_takes_its_place(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False), clock=lambda: at(1))
    with other.read() as connection:
        assert other.now(connection) == at(1)
    other.close()


def test_a_worker_that_beats_is_alive_and_a_silent_one_is_not(database: Database) -> None:
    now = [at(0)]
    timed = Database(database.url.render_as_string(hide_password=False), clock=lambda: now[0])
    heartbeat.beat(timed, "a:1", "v1")
    now[0] += heartbeat.SILENT
    heartbeat.beat(timed, "b:2", "v2")
    with timed.read() as connection:
        found = heartbeat.workers(connection, now[0])
    assert [(w["worker"], w["rules"], w["alive"]) for w in found] == [("a:1", "v1", False), ("b:2", "v2", True)]
    now[0] += 3601 * model.SECOND
    heartbeat.beat(timed, "b:2", "v3")
    with timed.read() as connection:
        assert [w["worker"] for w in heartbeat.workers(connection, now[0])] == ["b:2"]
    timed.close()


def test_a_wake_up_reaches_a_listener(database: Database) -> None:
    listener = database.waker.listen()
    try:
        listener.wait(0.1)  # on PostgreSQL the first wait only starts to listen
        database.waker.wake()
        assert listener.wait(5)
        assert not listener.wait(0.01)
    finally:
        listener.close()


def test_recording_wakes_a_listener(database: Database, recorder: Recorder) -> None:
    listener = database.waker.listen()
    try:
        listener.wait(0.1)
        recorder.record([gain("ada", "g")], at(0))
        assert listener.wait(5)
    finally:
        listener.close()


def test_who_has_committed_does_not_wait_for_a_database_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never says a word
        waker = NotifyWaker(make_url(f"postgresql://relay@127.0.0.1:{silent.getsockname()[1]}/relay"))
        for _ in range(2):
            waking = threading.Thread(target=waker.wake)
            waking.start()
            waking.join(1)  # connecting is given up only after 2 s
            assert not waking.is_alive()
        silent.accept()[0].close()
        waker.close()


def test_a_twin_that_is_ignored_at_once_is_news_each_time(database: Database, recorder: Recorder) -> None:
    ignored = replace(gain("ada", "g", key="same"), twin=True, state=EventState.IGNORED, reason="a lifecycle notice")
    received = replace(gain("ada", "g", key="other"), twin=True)
    for _ in range(2):
        recorder.record([ignored, received], at(0))
    with database.read() as connection:
        told = connection.execute(text("SELECT state, count(*) FROM events GROUP BY state ORDER BY state"))
        assert [tuple(row) for row in told] == [("ignored", 2), ("received", 1)]


def test_a_waker_may_be_closed_while_its_thread_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    begins, go_on, start = threading.Event(), threading.Event(), threading.Thread.start

    def slowly(thread: threading.Thread) -> None:
        if thread.name == "wake":
            begins.set()
            assert go_on.wait(5)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slowly)
    waker = NotifyWaker(make_url("postgresql://relay@127.0.0.1:1/relay"))
    with ThreadPoolExecutor(2) as pool:
        woken = pool.submit(waker.wake)
        assert begins.wait(5)
        closed = pool.submit(waker.close)
        with suppress(TimeoutError):
            closed.exception(0.1)
        go_on.set()
        woken.result(5)
        closed.result(5)

"""The connection to SQLite or PostgreSQL: transactions, the write lock, the clock and the migrations."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from relay import model
from relay.errors import Unavailable
from relay.store.wake import LINE, Waker, make_waker

MIGRATIONS = Path(__file__).parent / "migrations"

#: Keys of one statement.
CHUNK = 500

#: Seconds that SQLite itself waits for somebody who writes without our lock (a person with a shell).
_BUSY_SECONDS = 1.0

#: Seconds for which PostgreSQL's clock is reckoned from the last time it was asked.
_CLOCK_SECONDS = 10.0

#: Seconds after which an idle connection is tried before it is used.
_IDLE_SECONDS = 1.0

#: Milliseconds that a rehearsal waits for a lock; PostgreSQL ends somebody who waits in a ring after 1 s.
_REHEARSAL_WAITS = 500

#: Numbers of PostgreSQL's advisory locks; they only have to be ours.
_ROUTING, _MIGRATING, _GUARDING = 7_318_331, 7_318_332, 7_318_333

_Key = TypeVar("_Key", str, int)


class Database:
    """One database for the whole process; safe in threads. Nothing is opened before its first use (gunicorn forks).

    `url` is a SQLAlchemy URL: `sqlite:///path` or `postgresql+psycopg://...`. `clock` replaces the database's own.
    """

    def __init__(self, url: str, clock: Callable[[], model.Micros] | None = None) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._clock = clock or (model.now if self.is_sqlite else None)
        self._asked, self._asked_at = 0, -_CLOCK_SECONDS
        self._engine: Engine | None = None
        self._writer: Connection | None = None
        self._guard = threading.Lock()
        self._file = _SqliteFile(Path(self.url.database or "")) if self.is_sqlite else None
        self.waker: Waker = make_waker(self.url)

    @property
    def engine(self) -> Engine:
        with self._guard:
            if self._engine is None:
                self._engine = _sqlite_engine(self._file.path) if self._file else _postgres_engine(self.url)
            return self._engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads. Raises Unavailable."""
        with _as_unavailable():
            self._follow_file()
            with self.engine.connect() as connection:
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises. Raises Unavailable.

        On SQLite it holds the lock beside the database, so that writers queue in turn instead of starving each other.
        """
        with _as_unavailable():
            if self._file is None:
                with self.engine.begin() as connection:
                    yield connection
                return
            with self._file.locked():
                self._follow_file()
                yield from self._write_alone()

    @contextmanager
    def rehearse(self) -> Iterator[Connection]:
        """A transaction like that of `write`, but rolled back whatever happens. Raises Unavailable.

        On PostgreSQL it gives up rather than wait for long for what somebody else holds: where the two wait for each
        other, the one who works in earnest goes on.
        """
        with self.write() as connection:
            if not self.is_sqlite:
                connection.execute(text(f"SET LOCAL lock_timeout = {_REHEARSAL_WAITS}"))
            yield connection
            connection.rollback()

    def _write_alone(self) -> Iterator[Connection]:
        """A transaction on the one connection that SQLite's only writer keeps, until something goes wrong on it."""
        engine = self.engine
        if self._writer is None or self._writer.engine is not engine:
            self._drop_writer()
            self._writer = engine.connect().execution_options(relay_write=True)
        try:
            with self._writer.begin():
                yield self._writer
        except BaseException:
            self._drop_writer()
            raise

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def now(self, connection: Connection) -> model.Micros:
        """The database's clock, which all workers share."""
        if self._clock is not None:
            return self._clock()
        if time.monotonic() - self._asked_at > _CLOCK_SECONDS:
            asked = select(text("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"))
            self._asked, self._asked_at = int(connection.execute(asked).scalar_one()), time.monotonic()
        return self._asked + int((time.monotonic() - self._asked_at) * model.SECOND)

    def _follow_file(self) -> None:
        """Leave a SQLite file that is no longer at its place: what is written there would be lost."""
        if self._file is not None and self._file.replaced():
            self.forget()

    def forget(self) -> None:
        """Drop every connection; the next use opens new ones."""
        with self._guard:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            if self._file:
                self._file.opened = None

    def close(self) -> None:
        self._drop_writer()
        self.forget()
        self.waker.close()
        if self._file:
            self._file.close()

    def migrate(self) -> str:
        """Bring the database to the newest schema and return that revision. Raises Unavailable."""
        from alembic import command  # loaded here: only this command needs it

        if self._file:
            _make_file(self._file.path)
        config = _alembic_config()
        with _as_unavailable(), self._migration_lock(), self.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        return newest_revision()

    @contextmanager
    def _migration_lock(self) -> Iterator[None]:
        if self._file:
            with self._file.locked():
                yield
        else:
            with self.engine.connect() as connection:
                connection.execute(select(func.pg_advisory_lock(_MIGRATING)))
                try:
                    yield
                finally:
                    connection.execute(select(func.pg_advisory_unlock(_MIGRATING)))

    def schema_problem(self) -> str | None:
        """A sentence when the database's schema is older than this code, None when all is well. Raises Unavailable."""
        with self.read() as connection:
            if not self.engine.dialect.has_table(connection, "alembic_version"):
                return "the database is empty: run `python -m relay migrate`"
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if found is None or found < newest_revision():
            newest = newest_revision()
            return f"the database's schema {found} is older than this code's {newest}: run `python -m relay migrate`"
        return None


def _make_file(path: Path) -> None:
    """Make an empty SQLite file, for this account only, where there is none. Raises Unavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the folder {path.parent} cannot be made ({error.strerror})") from error
    with _as_unavailable():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def newest_revision() -> str:
    """The name of the newest migration; names are numbers with leading zeros, so that they sort."""
    return max(path.name.split("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def insert_into(connection: Connection, table: Table) -> Any:
    """The INSERT of this database, which both know with `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Table) -> Any:
    """The same by the database's name, for statements that are made once."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def lock_routing(connection: Connection) -> None:
    """Let only one transaction at a time introduce events to people (on SQLite every write is alone anyway)."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_ROUTING)))


def lock_guard(connection: Connection) -> None:
    """Let only one transaction at a time count for the guard, until it ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_GUARDING)))


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


class _SqliteFile:
    """The database file with the lock beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: int | None = None
        self._threads = threading.Lock()
        self._lock: int | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._threads:
            if self._lock is None:
                with self._telling_what_makes_it():
                    self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def replaced(self) -> bool:
        """Whether the file is another one than our connections have open: a commit there would be lost."""
        with self._telling_what_makes_it():
            found = self.path.stat().st_ino
        before, self.opened = self.opened, found
        return before is not None and before != found

    @contextmanager
    def _telling_what_makes_it(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            told = f"there is no file {self.path}; a new, empty one is made by `python -m relay migrate`"
            raise Unavailable(told) from error

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _sqlite_engine(path: Path) -> Engine:
    # mode=rw: a database that is gone is an error, never a new empty one.
    address = f"file:{path.absolute()}?mode=rw"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None)

    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=10, max_overflow=60, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: sqlite3.Connection, _record: Any) -> None:
        # FULL: a commit is on the disk before anybody hears of it (NORMAL leaves it in the cache in WAL mode).
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "mmap_size=0"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("relay_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: Any) -> Engine:
    engine = create_engine(
        url,
        pool_size=10,
        max_overflow=60,
        pool_timeout=2,
        hide_parameters=True,  # errors are logged, and parameters are payloads
        connect_args={
            **LINE,
            "application_name": "velt-permission-relay",
            # A forgotten transaction makes the queue decay and a waiting one holds up a person: both end by themselves.
            "options": "-c idle_in_transaction_session_timeout=60000 -c lock_timeout=10000 -c statement_timeout=30000",
        },
    )

    @event.listens_for(engine, "checkin")
    def note_use(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def try_idle(connection: Any, record: Any, _fairy: Any) -> None:
        # Not before every use (pool_pre_ping): each try is a round trip, and a worker makes six an event.
        if time.monotonic() - record.info.get("used", time.monotonic()) > _IDLE_SECONDS:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError("the connection ended while it was idle") from error

    return engine


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (PoolTimeout, OSError) as error:
        raise Unavailable(_in_one_line(error)) from error
    except DBAPIError as error:
        if _is_away(error):
            raise Unavailable(_in_one_line(error)) from error
        raise


def _is_away(error: DBAPIError) -> bool:
    """Whether the database as a whole cannot serve (gone, full, locked, not migrated), rather than one statement."""
    if getattr(error.orig, "sqlstate", None) in ("42P01", "42703", "25006"):
        # No such table or column: not migrated. Read only: a standby that was not promoted yet.
        return True
    return isinstance(error, (OperationalError, InterfaceError)) or type(error) is DatabaseError


def _in_one_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300]


def chunks(keys: Collection[_Key]) -> Iterator[list[_Key]]:
    """Keys in ascending order, as many at a time as a statement takes."""
    ordered = sorted(keys)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))

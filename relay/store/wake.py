"""Wake-ups: a hint from whoever committed work to the workers, which costs nothing while nothing happens.

On SQLite a named pipe beside the database for each worker; on PostgreSQL LISTEN and NOTIFY. A hint may be lost: workers
look by themselves about once a second as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import psycopg
from sqlalchemy import URL

_CHANNEL = "relay_wake"

#: Seconds between two NOTIFYs of a process: each is a transaction of its own.
_NOTIFY_GAP = 0.01

#: Seconds that closing waits for the last NOTIFY.
_GRACE = 2.0

#: How a connection to PostgreSQL notices that the other end is gone: Linux itself tries for a quarter of an hour.
LINE: Mapping[str, Any] = {"connect_timeout": 2, "keepalives_idle": 30, "tcp_user_timeout": 10_000}


class Listener(Protocol):
    def wait(self, timeout: float) -> bool:
        """Whether a hint came within `timeout` seconds."""

    def close(self) -> None: ...


class Waker(Protocol):
    def wake(self) -> None:
        """Tell the workers that there is something to do; never raises."""

    def listen(self) -> Listener: ...

    def close(self) -> None: ...


def make_waker(url: URL) -> Waker:
    if url.get_backend_name() == "sqlite":
        return PipeWaker(Path(url.database or ""))
    return NotifyWaker(url)


class PipeWaker:
    """Named pipes called `<database>.wake-<pid>-<n>`; the reader makes and removes its own."""

    def __init__(self, database: Path) -> None:
        self._folder = database.absolute().parent
        self._prefix = f"{database.name}.wake-"

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            for pipe in self._folder.glob(f"{self._prefix}*"):
                self._poke(pipe)

    def _poke(self, pipe: Path) -> None:
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nobody reads: its worker was killed
                with contextlib.suppress(OSError):
                    pipe.unlink()
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a full pipe is a hint already
            os.write(descriptor, b"!")
        os.close(descriptor)

    def listen(self) -> Listener:
        return _Pipe(self._folder / f"{self._prefix}{os.getpid()}-{threading.get_ident() % 100_000}")

    def close(self) -> None:
        pass


class _Pipe:
    def __init__(self, path: Path) -> None:
        self._path = path
        # Under a name that nobody looks for until it is open: whoever wakes removes a pipe that nobody reads.
        hidden = path.with_name(f".{path.name}")
        hidden.unlink(missing_ok=True)
        os.mkfifo(hidden, 0o600)
        # Open for writing too: the pipe then never reads as closed.
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_NONBLOCK)
        hidden.rename(path)

    def wait(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, timeout))
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._descriptor, 65536)
        return bool(ready)

    def close(self) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


class NotifyWaker:
    """NOTIFY on a connection and in a thread of its own: a database that hangs must not hang who has committed."""

    def __init__(self, url: URL) -> None:
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: psycopg.Connection | None = None
        self._guard = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def wake(self) -> None:
        self._wanted.set()
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="wake", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            self._notify()
            time.sleep(_NOTIFY_GAP)
        self._drop()

    def _notify(self) -> None:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._conninfo, autocommit=True, **LINE)
            self._connection.execute(f"NOTIFY {_CHANNEL}")
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def listen(self) -> Listener:
        return _Notifications(self._conninfo)

    def close(self) -> None:
        """Say what is to be said still, but do not wait for ever."""
        self._closed = True
        with self._guard:  # whoever makes the thread starts it before this goes on
            thread = self._thread
        if thread is not None:
            self._wanted.set()
            thread.join(_GRACE)


class _Notifications:
    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection | None = None

    def wait(self, timeout: float) -> bool:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._conninfo, autocommit=True, **LINE)
                self._connection.execute(f"LISTEN {_CHANNEL}")
                return True  # what was said before we listened is found by looking
            return bool(list(self._connection.notifies(timeout=max(0.0, timeout), stop_after=1)))
        except psycopg.Error:
            self.close()
            time.sleep(min(timeout, 0.5))
            return False

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

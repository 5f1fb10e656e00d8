"""The worker: plans what was recorded, delivers what is due, and starts again where another one stopped."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from relay import log, model
from relay.allowance import Allowance
from relay.aside import Aside
from relay.config import Config, ConfigFile
from relay.confirming import Confirming
from relay.directories.base import Directory
from relay.errors import ConfigError, Unavailable
from relay.look_up import LookUps
from relay.model import SECOND, Micros
from relay.rules import RuleSet
from relay.seats import Seats
from relay.store import claim, heartbeat, settling
from relay.store.claim import Claim, Task, Terms
from relay.store.database import Database
from relay.velt import Velt

T = TypeVar("T")

#: People planned and claimed in one transaction: it holds SQLite's only writer.
BATCH = 8
#: Seconds between two looks when nothing happens: a wake-up is a hint, this is the truth.
POLL = 1.0
#: Seconds between two looks when work is due that somebody else holds.
BUSY_POLL = 0.02
#: Seconds between two heartbeats.
BEAT = 10.0
#: Seconds that a stopping worker waits for what is under way.
GRACE = 25.0


@dataclass(frozen=True, slots=True)
class _Work:
    """What this worker works by, made anew when relay.yaml changes."""

    config: Config
    rules: RuleSet


class Worker:
    """One process's planning and delivering. `compiled` turns a Config into its rules, `directories` gives those of
    relay.yaml as it is now, `aside` is done besides."""

    def __init__(
        self,
        config_file: ConfigFile,
        database: Database,
        velt: Velt,
        compiled: Callable[[Config], RuleSet],
        directories: Callable[[], Mapping[str, Directory]],
        aside: Sequence[Aside],
    ) -> None:
        self._config_file = config_file
        self._database = database
        self._velt = velt
        self._compiled = compiled
        self._directories = directories
        self._aside = aside
        self._work = _Work(config_file.current, compiled(config_file.current))
        # Once, as the client's timeout and the lease below: a change of these needs a restart.
        self._calls = Seats("velt", config_file.current.velt.concurrency, database.waker.wake)
        self._look_ups = LookUps(database, lambda: self._work.rules)
        self._confirming = Confirming(database, velt)
        # More than two whole calls: one that starts in the lease's first half has ended before the lease does.
        # A shorter one in a changed relay.yaml must not outrun calls in flight.
        self._lease: Micros = int((2 * config_file.current.velt.timeout + 5) * SECOND)
        self.name = process_name()
        self._stop = threading.Event()
        self._allowance = Allowance()
        self._log = log.get(worker=self.name)
        self._last_beat = 0.0
        self._mistakes = 0

    def stop(self) -> None:
        """Take no more work; `run` returns when what is under way has ended, or after the grace time."""
        self._stop.set()

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT stop. SIGHUP is survived, and nothing more: each round looks at relay.yaml anyway."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def run(self) -> None:
        """Work until stopped; the database is closed at the end."""
        listener = self._database.waker.listen()
        self._log.info("worker started", mode=self._work.config.mode, rules=self._work.rules.version)
        try:
            while not self._stop.is_set():
                pause = self._turn()
                self._confirm()
                if pause > 0:
                    listener.wait(pause)
        finally:
            self._end()
            listener.close()
            with suppress(Unavailable):
                heartbeat.end(self._database, self.name)
            self._database.close()
            self._log.info("worker stopped")

    def _end(self) -> None:
        """Wait for what is under way, for removals first, and for all together no longer than the grace time."""
        deadline = time.monotonic() + GRACE
        self._log.info("worker stopping", in_flight=self._calls.busy)
        for seats in (self._calls, self._look_ups.seats, self._confirming.seats):
            seats.close(deadline)
        for work in self._aside:
            work.close(deadline)

    def _turn(self) -> float:
        """One round; return the seconds to wait before the next unless woken."""
        self._reload()
        for work in self._aside:
            work.turn()
        try:
            self._beat()
            room = min(BATCH, self._calls.free)
            limit = min(room, self._allowance.take(self._work.config.velt.rate, room))
            if limit <= 0:
                return BUSY_POLL if self._work.config.velt.rate else POLL
            terms = self._terms()
            found = claim.claim(self._database, terms, limit)
            self._allowance.give_back(limit - len(found.tasks))
            for task in found.tasks:
                self._calls.start(self._deliver, task, terms, time.monotonic())
            if found.look_up:
                self._look_ups.turn(self._directories())
            return 0 if found.tasks else _pause(found)
        except Unavailable as error:
            self._log.error("database unavailable", reason=str(error))
        except Exception:  # whatever it is, the people after it must not wait for a restart
            self._log.exception("a round failed")
        return POLL

    def _confirm(self) -> None:
        """Ask about removals that are to be confirmed; after the round, so that removals go first."""
        if not self._work.config.velt.confirm:
            return
        try:
            self._confirming.look(self._terms(), self._work.config, self._allowance)
        except Unavailable:
            return  # the round says so
        except Exception:
            self._log.exception("a look for confirmations failed")

    def _terms(self) -> Terms:
        return Terms(
            rules=self._work.rules,
            worker=self.name,
            key_digest=self._velt.key_digest(),
            lease=self._lease,
            sends=self._work.config.mode == "enforce",
            confirms=self._work.config.velt.confirm,
        )

    def _reload(self) -> None:
        """Take a changed relay.yaml; a broken one is refused loudly and the old one stays."""
        try:
            if self._config_file.refresh():
                config = self._config_file.current
                self._work = _Work(config, self._compiled(config))
                self._mistakes = 0
                self._last_beat = 0.0  # say at once by which rules this worker works now
                self._log.info("rules loaded", rules=config.version, mode=config.mode)
        except ConfigError as error:
            self._mistakes = len(error.problems)
            self._last_beat = 0.0  # and that it refuses newer ones
            for problem in error.problems:
                self._log.error("relay.yaml refused, the old one stays", problem=str(problem))

    def _beat(self) -> None:
        if time.monotonic() - self._last_beat >= BEAT:
            heartbeat.beat(self._database, self.name, self._work.rules.version, self._mistakes)
            self._last_beat = time.monotonic()

    def _deliver(self, task: Task, terms: Terms, taken: float) -> None:
        """Make one call and settle it. The lease is checked just before sending; `taken` is of time.monotonic()."""
        shown = log.user(task.velt_user_id, self._work.config.log_users)
        line = self._log.bind(events=list(task.event_ids), user=shown)
        too_late = (time.monotonic() - taken) * SECOND > terms.lease / 2
        if self._stop.is_set() or too_late:
            self._insist(lambda: settling.give_back(self._database, task), terms)
            line.info("given back")
            return
        started = model.now()
        outcome = self._velt.remove(task.velt_user_id, task.resources)
        finished = model.now()
        in_time = self._insist(lambda: settling.settle(self._database, terms, task, outcome, started, finished), terms)
        tell = line.info if outcome.answer in ("removed", "absent") else line.warning
        tell(
            outcome.answer.value,
            resources=[str(resource) for resource in task.resources],
            reason=outcome.reason,
            ms=(finished - started) // 1000,
            **({} if in_time else {"lease": "lost"}),
        )

    def _insist(self, write: Callable[[], T], terms: Terms) -> T | None:
        """Write although the database may be away for a while; after the lease another worker takes over."""
        deadline = time.monotonic() + terms.lease / SECOND
        while True:
            try:
                return write()
            except Unavailable as error:
                if time.monotonic() > deadline:
                    self._log.error("could not settle, the call will be made again", reason=str(error))
                    return None
                time.sleep(0.2)


def _pause(found: Claim) -> float:
    """Seconds until something is due."""
    return POLL if found.due_in is None else min(POLL, max(BUSY_POLL, found.due_in / SECOND))


def process_name() -> str:
    """What this process is called among all that share the database."""
    return f"{socket.gethostname()}:{os.getpid()}"

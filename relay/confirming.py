"""Asking Velt, after a removal, whether it is gone: the worker's part of `velt.confirm`."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from relay import log, model
from relay.allowance import Allowance
from relay.config import Config
from relay.errors import Unavailable
from relay.model import Confirmation
from relay.store import confirm
from relay.store.claim import Terms
from relay.store.confirm import Question
from relay.store.database import Database
from relay.velt import Velt

#: Questions under way at the same time. They have threads of their own, so that no removal waits for one.
THREADS = 4
#: Seconds between two looks whether a question is due.
POLL = 1.0


class Confirming:
    """One worker's questions. `look` is called by one thread, as often as it likes."""

    def __init__(self, database: Database, velt: Velt) -> None:
        self._database = database
        self._velt = velt
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="confirm")
        self._guard = threading.Lock()
        self._room = THREADS
        self._look_at = 0.0

    def look(self, terms: Terms, config: Config, allowance: Allowance) -> None:
        """Start the questions that are due, as many as there is room and allowance for. Raises Unavailable."""
        if not terms.confirms or time.monotonic() < self._look_at or not self._room:
            return
        wanted = self._room
        allowed = allowance.take(config.velt.rate, wanted)
        found = confirm.take(self._database, terms, allowed) if allowed else ()
        allowance.give_back(allowed - len(found))
        if len(found) < wanted:  # else more may be due: look again as soon as there is room
            self._look_at = time.monotonic() + POLL
        for question in found:
            with self._guard:
                self._room -= 1
            self._pool.submit(self._ask, question, terms, config.log_users).add_done_callback(self._finished)

    def close(self) -> None:
        """Ask nothing more; what was taken and not asked comes back when its time is over."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, question: Question, terms: Terms, log_users: str) -> None:
        started = model.now()
        told = self._velt.permissions([question.velt_user_id], question.asked)
        line = log.get(worker=terms.worker, user=log.user(question.velt_user_id, log_users))
        try:
            verdicts = confirm.record(self._database, terms, question, told, started, model.now())
        except Unavailable as error:
            line.error("could not write down a confirmation, it will be asked again", reason=str(error))
            return
        for resource, verdict in verdicts.items():
            good = verdict.confirmation is Confirmation.CONFIRMED
            tell = line.info if good else line.warning
            tell(verdict.confirmation or "not confirmed", resources=[str(resource)], reason=verdict.reason)

    def _finished(self, asked: Future[None]) -> None:
        with self._guard:
            self._room += 1
        if asked.cancelled():
            return
        error = asked.exception()
        if error is not None:  # a mistake in this program: the question comes back, and somebody must know
            log.get().error("a confirmation could not be brought to its end", exc_info=error)
        if time.monotonic() >= self._look_at:  # more may be due
            self._database.waker.wake()

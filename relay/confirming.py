"""Asking Velt, after a removal, whether it is gone: the worker's part of `velt.confirm`."""

from __future__ import annotations

import time

from relay import log, model
from relay.allowance import Allowance
from relay.config import Config
from relay.model import Confirmation
from relay.seats import Seats
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
        self.seats = Seats("confirm", THREADS, database.waker.wake)
        self._database = database
        self._velt = velt
        self._look_at = 0.0

    def look(self, terms: Terms, config: Config, allowance: Allowance) -> None:
        """Start the questions that are due, as many as there is room and allowance for. Raises Unavailable."""
        wanted = self.seats.free
        if not terms.confirms or time.monotonic() < self._look_at or not wanted:
            return
        allowed = allowance.take(config.velt.rate, wanted)
        found = confirm.take(self._database, terms, allowed) if allowed else ()
        allowance.give_back(allowed - len(found))
        if len(found) < wanted:  # else more may be due: look again as soon as there is room
            self._look_at = time.monotonic() + POLL
        for question in found:
            self.seats.start(self._ask, question, terms, config.log_users)

    def _ask(self, question: Question, terms: Terms, log_users: str) -> None:
        started = model.now()
        told = self._velt.permissions([question.velt_user_id], question.asked)
        line = log.get(worker=terms.worker, user=log.user(question.velt_user_id, log_users))
        verdicts = confirm.record(self._database, terms, question, told, started, model.now())
        for resource, verdict in verdicts.items():
            good = verdict.confirmation is Confirmation.CONFIRMED
            tell = line.info if good else line.warning
            tell(verdict.confirmation or "not confirmed", resources=[str(resource)], reason=verdict.reason)

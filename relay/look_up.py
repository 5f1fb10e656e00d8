"""Looking up: the worker's questions to the directories, in threads of their own so that no removal waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from relay import backoff, log, model
from relay.directories.base import Directory
from relay.errors import LookUpFailed, Unaskable
from relay.model import Kind
from relay.rules import RuleSet
from relay.seats import Seats
from relay.store import answered, giving_up, look_ups
from relay.store.database import Database
from relay.store.look_ups import Question

#: Questions asked at the same time: providers count calls, and 10 a second is what the smallest of them allow.
THREADS = 8


class LookUps:
    """Asks what is due. `turn` returns at once; the answers are written by the threads that asked."""

    def __init__(self, database: Database, rules: Callable[[], RuleSet]) -> None:
        self.seats = Seats("look-up", THREADS, database.waker.wake)
        self._database = database
        self._rules = rules
        self._not_before: dict[str, float] = {}
        self._asked: frozenset[str] | None = None
        self._log = log.get()

    def turn(self, directories: Mapping[str, Directory]) -> None:
        """Take what is due and there are threads for, but of no provider that asks to wait. Raises Unavailable.

        What is to be asked of a directory that is not among these any more ends.
        """
        if self._asked is None or self._asked != directories.keys():
            giving_up.end_questions(self._database, directories)
            self._asked = frozenset(directories)
        now = time.monotonic()
        open_ones = [source for source in directories if self._not_before.get(source, 0.0) <= now]
        room = self.seats.free if open_ones else 0
        for question in look_ups.take(self._database, open_ones, room) if room else ():
            self.seats.start(self._ask, directories[question.source], question)

    def _ask(self, directory: Directory, question: Question) -> None:
        try:
            if question.object_type == look_ups.ACCOUNT:
                account = directory.look_up(question.object_id, question.groups, question.apps)
                answered.keep(self._database, self._rules(), question, account)
            else:
                self._answer_for_all(directory, question)
        except Unaskable as error:
            delay = backoff.look_up_delay(1, None)
            giving_up.end_unaskable(self._database, question, error.identifier, str(error), delay)
            self._log.warning("look-up given up", source=question.source, reason=str(error))
        except LookUpFailed as error:
            delay = backoff.look_up_delay(question.failures + 1, error.retry_after)
            if error.retry_after is not None:
                # not `delay`: a question that fails again and again waits ever longer, and the others do not with it
                self._not_before[question.source] = time.monotonic() + backoff.asked_for(error.retry_after)
            look_ups.failed(self._database, question, str(error), delay)
            self._log.warning("look-up failed", source=question.source, reason=str(error))

    def _answer_for_all(self, directory: Directory, question: Question) -> None:
        """An event about a whole group or app: who has it, or whether it is still there."""
        event = answered.event_about(self._database, question)
        fetched_at = model.now()
        if event.kind is Kind.GROUP_CHANGED:
            group = directory.group(event.group_id or "")
            answered.keep_group(self._database, self._rules(), question, group, fetched_at)
            return
        pages = directory.members(event.group_id) if event.group_id else directory.app_users(event.app_id or "")
        people = [subject for page in pages for subject in page]
        answered.keep_people(self._database, question, people, fetched_at)

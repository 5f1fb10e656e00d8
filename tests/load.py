"""Senders that behave like Okta while things break, and a look at what became of what they sent.

with Load(stack) as load:          # 8 threads; each event is about a person of its own
    ...                            # kill and restart what you like
load.accepted                      # the logins whose event was answered 204
ledger.wait_until_removed(load.accepted)
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import Table, func, select

from relay.errors import Unavailable
from relay.store.database import Database
from relay.store.tables import attempts, delivery, events, people, revocations
from tests.processes import Stack
from tests.web_app import okta_headers, okta_removal

#: Seconds between two events of a sender: some 150 a second from all, which one worker on a small machine delivers.
PACE = 0.05
#: Seconds within which a hook is answered, whatever the database does.
IN_TIME = 2.5


def until(holds: Callable[[], bool], what: Callable[[], str] | str, within: float = 30.0) -> None:
    """Wait until something holds; AssertionError when it takes too long."""
    deadline = time.monotonic() + within
    while not holds():
        told = what if isinstance(what, str) else what()
        assert time.monotonic() < deadline, f"not {told} within {within} s"
        time.sleep(0.02)


class Load:
    """Threads that send until stopped. What is not answered 204 is sent again as it was, with the same uuid.

    `accepted`: whose event was answered 204. `refused`: how often which other status came. `slowest`: the longest
    answer in seconds. `unhelpful`: refusals other than a 503 with Retry-After.
    """

    def __init__(self, stack: Stack, senders: int = 8, pace: float = PACE) -> None:
        self.accepted: list[str] = []
        self.refused: Counter[int] = Counter()
        self.unhelpful: list[tuple[int, bytes]] = []
        self.slowest = 0.0
        self._stack = stack
        self._pace = pace
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(senders)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def refuses(self, more: int) -> None:
        """Wait for `more` answers of 503."""
        wanted = self.refused[503] + more
        until(lambda: self.refused[503] >= wanted, lambda: f"{wanted} refused: {self._told()}")

    def more(self, count: int = 40) -> None:
        """Wait for `count` more acknowledgements."""
        wanted = len(self.accepted) + count
        until(lambda: len(self.accepted) >= wanted, lambda: f"{wanted} accepted: {self._told()}")

    def _told(self) -> str:
        return f"{len(self.accepted)} accepted, refused {self.refused}, {self.unhelpful[:1]}"

    def _run(self) -> None:
        while not self._stop.wait(self._pace):
            login = f"p{next(self._numbers)}@acme.example"
            body = okta_removal(str(uuid.uuid4()), login)
            while not self._accepts(body, login) and not self._stop.wait(self._pace):
                pass

    def _accepts(self, body: bytes, login: str) -> bool:
        started = time.monotonic()
        status, answer = self._stack.post("/hooks/okta", body, okta_headers())
        self.slowest = max(self.slowest, time.monotonic() - started)
        if status == 204:
            self.accepted.append(login)
        elif status:
            self.refused[status] += 1
            if status != 503:
                self.unhelpful.append((status, answer))
        return status == 204


class Ledger:
    """What the database of a stack holds, read past the relay."""

    def __init__(self, database_url: str) -> None:
        self.database = Database(database_url)

    def count(self, table: Table, *conditions: Any) -> int:
        with self.database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())

    def attempts_spent(self) -> int:
        """The attempts that all revocations have used up; calls while the breaker is open are not among them."""
        with self.database.read() as connection:
            return int(connection.execute(select(func.sum(revocations.c.attempts))).scalar_one() or 0)

    def delivery(self) -> Any:
        with self.database.read() as connection:
            return connection.execute(select(delivery)).one()

    def recorded(self) -> Counter[str]:
        """How many events are recorded of each login."""
        with self.database.read() as connection:
            return Counter(connection.execute(select(events.c.login)).scalars())

    def removed(self) -> dict[str, list[str]]:
        """The resources (type and id) that each Velt user has lost for certain, sorted."""
        found: dict[str, list[str]] = {}
        statement = (
            select(people.c.velt_user_id, revocations.c.resource_type, revocations.c.resource_id)
            .join(people, people.c.id == revocations.c.person_id)
            .where(revocations.c.state == "removed")
            .order_by(revocations.c.resource_type, revocations.c.resource_id)
        )
        with self.database.read() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.velt_user_id, []).append(f"{row.resource_type} {row.resource_id}")
        return found

    def wait_until_idle(self, within: float = 60.0) -> None:
        """Wait until every event has come to its end."""
        unfinished = events.c.state.in_(("received", "planned"))
        until(lambda: self._answers(lambda: self.count(events, unfinished) == 0), "idle", within)

    def wait_until_removed(self, logins: Collection[str], resources: list[str], within: float = 60.0) -> None:
        """Wait until every event has ended; then each of these people, once in the ledger, lost exactly this."""
        self.wait_until_idle(within)
        recorded, removed = self.recorded(), self.removed()
        assert set(logins) <= recorded.keys(), "an acknowledged event is not recorded"
        assert set(recorded.values()) == {1}, "an event that was sent again is recorded twice"
        assert removed == dict.fromkeys(recorded, resources)
        assert self.count(revocations, revocations.c.state.in_(("pending", "sending"))) == 0
        assert self.count(people, people.c.lease_token.is_not(None)) == 0

    def calls(self) -> int:
        """The calls to Velt that are written down."""
        return self.count(attempts)

    @staticmethod
    def _answers(holds: Callable[[], bool]) -> bool:
        try:
            return holds()
        except Unavailable:
            return False


@contextmanager
def ledger_of(database_url: str) -> Iterator[Ledger]:
    """A Ledger whose connections are closed afterwards."""
    ledger = Ledger(database_url)
    try:
        yield ledger
    finally:
        ledger.database.close()

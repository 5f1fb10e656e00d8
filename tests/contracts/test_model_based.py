"""A random life of the store, compared with the simplest account of who has what.

The machine knows every event that was recorded and works out from scratch what each person is entitled to. Velt is a
set of grants: whoever becomes entitled is granted, whatever a call removes is gone. Two things must hold:

- no call ever names what the person was entitled to by all that was recorded before the call was claimed;
- when everything was delivered and done, nobody still has what they lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import update

from relay.model import GAINS, SECOND, AccessEvent, EventState, Kind, Micros, Outcome, Resource
from relay.rules import RuleSet
from relay.store import settling, tables
from relay.store.claim import Task
from relay.store.database import Database
from tests.people import (
    ABSENT,
    DOWN,
    HUNG,
    REFUSED,
    REMOVED,
    RETRY,
    UNAUTHORIZED,
    Clock,
    Relay,
    begin_anew,
    event,
    rules,
)

RESOURCES = {name: Resource("document", name, "acme") for name in ("plan", "budget", "roadmap")}
#: What each group gives; two give the budget.
GROUPS = {"eng": ("plan", "budget"), "sales": ("budget",), "ops": ("roadmap",)}

ALL_GROUPS = [
    {
        "name": group,
        "when": {"kind": "group.member_removed", "group.id": group},
        "revoke": [RESOURCES[n].as_velt() for n in names],
    }
    for group, names in GROUPS.items()
]
LEAVERS = {"name": "leavers", "when": {"kind": ["account.deactivated"]}, "revoke": "everything"}

#: Okta dates what it says, Entra does not: its events count from their arrival.
SOURCES = ("okta", "entra")
PEOPLE = ("ada", "bob")
KINDS = (Kind.GROUP_MEMBER_ADDED, Kind.GROUP_MEMBER_REMOVED, Kind.ACCOUNT_ACTIVATED, Kind.ACCOUNT_DEACTIVATED)

OUTCOMES = (REMOVED, REMOVED, ABSENT, REFUSED, RETRY, HUNG, DOWN, UNAUTHORIZED)


@dataclass
class Account:
    """What was recorded, in the order of recording, and what follows from it."""

    accounts: str
    told: list[tuple[AccessEvent, Micros]] = field(default_factory=list)

    def last(self, source: str, person: str, kinds: tuple[Kind, Kind], group: str | None) -> bool | None:
        """Whether the last word on an access was a gain; at equal times a loss is the last word."""
        said = [
            (as_of, item.kind not in GAINS)
            for item, as_of in self.told
            if (item.source, item.subject, item.group_id) == (source, person, group) and item.kind in kinds
        ]
        return None if not said else not max(said)[1]

    def entitled(self, person: str) -> set[Resource]:
        active = [s for s in SOURCES if self.last(s, person, KINDS[2:], None) is not False]
        if self.accounts == "any" and len(active) < len(SOURCES):
            return set()
        return {
            RESOURCES[name]
            for source in active
            for group, names in GROUPS.items()
            if self.last(source, person, KINDS[:2], group)
            for name in names
        }


class Life(RuleBasedStateMachine):
    """See the module. `database` and `clock` are set by the test."""

    database: Database
    clock: Clock
    rule_set: RuleSet

    @initialize()
    def begin(self) -> None:
        self.clock.now = Clock().now
        begin_anew(self.database)
        self.relay = Relay(self.database, self.rule_set)
        self.account = Account(self.rule_set.accounts)
        self.post: list[AccessEvent] = []
        self.keys: set[str | None] = set()
        self.calls: list[tuple[Task, Micros]] = []
        self.grants: set[tuple[str, Resource]] = set()

    def say(self, text: str) -> None:
        seconds = (self.clock.now - Clock().now) / SECOND
        note(f"[{seconds:9.1f} s] {text}")

    # --- what happens in the world

    @rule(
        person=st.sampled_from(PEOPLE),
        source=st.sampled_from(SOURCES),
        kind=st.sampled_from((*KINDS[:2], *KINDS)),
        group=st.sampled_from(sorted(GROUPS)),
        when=st.integers(0, 8),
        arrives=st.booleans(),
    )
    def happens(self, person: str, source: str, kind: Kind, group: str, when: int, arrives: bool) -> None:
        named = {"group_id": group} if kind in KINDS[:2] else {}
        item = event(kind, person, when if source == "okta" else None, source=source, **named)
        self.post.append(item)
        if arrives:
            self.deliver(len(self.post) - 1, twice=False)

    @rule(number=st.integers(0, 99), twice=st.booleans())
    def deliver(self, number: int, twice: bool) -> None:
        """One of the events on their way arrives, whichever was first; one that comes twice may come again later."""
        if not self.post:
            return
        number %= len(self.post)
        item = self.post[number] if twice else self.post.pop(number)
        self.clock.advance(0.001)
        before = {person: self.account.entitled(person) for person in PEOPLE}
        self.relay.record(item, received=self.clock.now)
        when = "" if item.occurred_at is None else f", of second {(item.occurred_at - Clock().now) // SECOND + 3600}"
        again = " once more" if item.key in self.keys else ""
        self.say(f"recorded{again}: {item.kind} {item.subject} {item.group_id or ''} by {item.source}{when}")
        if item.key in self.keys:
            return
        self.keys.add(item.key)
        self.account.told.append((item, item.occurred_at if item.occurred_at is not None else self.clock.now))
        for person in PEOPLE:
            gained = self.account.entitled(person) - before[person]
            self.grants |= {(person, resource) for resource in gained}

    # --- what workers do

    @rule(limit=st.integers(1, 3), sends=st.sampled_from((True, True, True, False)))
    def claims(self, limit: int, sends: bool) -> None:
        for task in self.relay.claim(limit, sends=sends):
            self.say(f"call for {task.velt_user_id}: {', '.join(r.id for r in task.resources)}")
            wrong = self.account.entitled(task.velt_user_id) & set(task.resources)
            assert not wrong, f"{task.velt_user_id} is entitled to {sorted(map(str, wrong))}"
            alive = [t for t, until in self.calls if until > self.clock.now and t.person_id == task.person_id]
            assert not alive, "two calls at once for one person"
            self.calls.append((task, self.clock.now + self.relay.terms.lease))

    @rule(number=st.integers(0, 99), outcome=st.sampled_from(OUTCOMES), reached=st.booleans())
    def settles(self, number: int, outcome: Outcome, reached: bool) -> None:
        """A call ends; one whose answer was lost may have reached Velt."""
        if self.calls:
            task, _ = self.calls.pop(number % len(self.calls))
            if outcome is REMOVED or (outcome is HUNG and reached):
                self.removes(task)
            in_time = self.relay.settle(task, outcome)
            self.say(f"the call for {task.velt_user_id} came to {outcome.reason!r}{'' if in_time else ', too late'}")

    @rule(number=st.integers(0, 99), reached=st.booleans())
    def vanishes(self, number: int, reached: bool) -> None:
        """A worker is killed in the middle of a call."""
        if self.calls:
            task, _ = self.calls.pop(number % len(self.calls))
            if reached:
                self.removes(task)
            self.say(f"the worker with the call for {task.velt_user_id} is killed")

    @rule(number=st.integers(0, 99))
    def gives_back(self, number: int) -> None:
        if self.calls:
            task, _ = self.calls.pop(number % len(self.calls))
            settling.give_back(self.database, task)
            self.say(f"the call for {task.velt_user_id} is given back")

    def removes(self, task: Task) -> None:
        self.grants -= {(task.velt_user_id, resource) for resource in task.resources}

    @rule(seconds=st.sampled_from((1, 6, 61, 30_000)))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    # --- what operators do

    @rule(number=st.integers(0, 99), replan=st.booleans())
    def operator_retries(self, number: int, replan: bool) -> None:
        rows = [row for row in self.relay.rows(tables.events) if row.state not in (EventState.RECEIVED, "unreadable")]
        if rows:
            self.retry(rows[number % len(rows)], replan=replan)

    def retry(self, row: Any, *, replan: bool) -> None:
        """What an operator's retry comes to: open and dead revocations go now, or the event is planned once more."""
        mine = tables.revocations.c.event_id == row.id
        if any(revocation.state == "sending" for revocation in self.relay.revocations(row.id)):
            return
        with self.database.write() as connection:
            if replan:
                unsettled = mine & tables.revocations.c.state.in_(["pending", "dead"])
                connection.execute(update(tables.revocations).where(unsettled).values(state="cancelled", next_at=None))
                again = {"state": "received", "replay": True, "person_id": None}
            else:
                dead = mine & (tables.revocations.c.state == "dead")
                values = {"state": "pending", "next_at": self.clock.now, "attempts": 0, "solo": False}
                revived = connection.execute(update(tables.revocations).where(dead).values(values)).rowcount
                again = {"state": "planned" if revived else row.state}
                connection.execute(update(tables.people).values(send_at=self.clock.now))
            connection.execute(update(tables.events).where(tables.events.c.id == row.id).values(again))
        self.say(f"an operator retries {row.kind} {row.subject} {row.group_id or ''}{' with a new plan' * replan}")

    # --- the end

    def teardown(self) -> None:
        if not hasattr(self, "relay"):
            return
        self.say("--- from here on everything arrives and Velt answers")
        while self.post:
            self.deliver(0, twice=False)
        self.finish()
        for row in self.relay.rows(tables.events):
            if row.state == EventState.FAILED:
                self.retry(row, replan=False)
        self.finish()
        left_over = {(person, r) for person, r in self.grants if r not in self.account.entitled(person)}
        assert not left_over, f"still there: {sorted((person, str(r)) for person, r in left_over)}"
        assert {row.state for row in self.relay.rows(tables.events)} <= {EventState.DONE, EventState.IGNORED}
        assert set(self.relay.states()) <= {"removed", "absent", "retained", "superseded", "cancelled"}

    def finish(self) -> None:
        for _ in range(200):
            self.claims(16, sends=True)
            while self.calls:
                self.settles(0, REMOVED, reached=True)
            due = self.relay.due_at()
            if due is None:
                return
            self.clock.now = max(self.clock.now, due)
        raise AssertionError("there is always something due and nothing gets done")


def live(database: Database, accounts: str, examples: int) -> None:
    clock = Clock()
    timed = Database(database.url.render_as_string(hide_password=False), clock)
    machine = type(
        "Life", (Life,), {"database": timed, "clock": clock, "rule_set": rules(*ALL_GROUPS, LEAVERS, accounts=accounts)}
    )
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        timed.close()


def test_a_random_life_takes_all_that_was_lost_and_nothing_else(database: Database) -> None:
    live(database, "any", examples=60)


def test_a_random_life_where_each_source_speaks_for_itself(database: Database) -> None:
    live(database, "same_source", examples=30)

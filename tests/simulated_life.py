"""One history lived through: the world, the messages on their way, the directories, Velt, and a relay in the middle.

Time is the test's own and jumps from one thing that is due to the next. What has to hold is checked at every call and
at the end; a history in which it does not ends with Wrong, which tells the story.
"""

from __future__ import annotations

import heapq
import itertools
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from relay import backoff, operate
from relay.config_checks import FIELDS_BY_SOURCE, LOOKED_UP_BY_SOURCE
from relay.errors import LookUpFailed, Refused
from relay.model import SECOND, AccessEvent, EventState, Guard, Kind, Micros, Resource
from relay.reconcile import Reconciler
from relay.rules import RuleSet, compile_rules
from relay.store import answered, claim, look_ups, settling, tables
from relay.store.claim import Task
from relay.store.database import Database
from relay.store.look_ups import Question
from relay.store.record import insert_events, row_of
from tests.people import DOWN, HUNG, REFUSED, REMOVED, RETRY, Clock, Relay, begin_anew
from tests.simulated_checks import LATEST, check_call, check_end, check_waiting, never_told
from tests.simulated_directories import SimulatedDirectory
from tests.simulated_steps import Act, Answers, Away, History, Operator, Reconcile, Step, Weather
from tests.simulated_world import ENTRA, OKTA, RULES, SCIM, Told, World

#: 09:00 of a day in the past.
NINE: Micros = 1_790_067_600 * SECOND
MINUTE, HOUR = 60, 3600
#: Rounds of the worker after which something is due for ever.
ROUNDS = 4000

#: What a call comes to for whoever made it, and whether Velt has done it.
_OUTCOMES = {
    "removed": (REMOVED, True),
    "lost": (HUNG, False),
    "lost, done": (HUNG, True),
    "killed": (None, False),
    "killed, done": (None, True),
    "busy": (RETRY, False),
    "down": (DOWN, False),
    "refused": (REFUSED, False),
}


class Wrong(AssertionError):
    """What must hold did not."""


@dataclass
class Counts:
    """What was simulated."""

    histories: int = 0
    actions: int = 0
    events: int = 0
    calls: int = 0
    look_ups: int = 0

    def add(self, other: Counts) -> None:
        for name in ("histories", "actions", "events", "calls", "look_ups"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def __str__(self) -> str:
        return (
            f"{self.histories} histories, {self.actions} actions, {self.events} events, {self.calls} calls, "
            f"{self.look_ups} look-ups"
        )


def rules(accounts: str, guard: int | None) -> RuleSet:
    document = {
        "identity": {"velt_user_id": ["{user.email}", "{user.login}"]},
        "rules": RULES,
        "accounts": accounts,
    }
    told = {source: fields | {"source", "kind"} for source, fields in FIELDS_BY_SOURCE.items()}
    looked_up = {source: LOOKED_UP_BY_SOURCE[source] for source in (OKTA, ENTRA)}
    limit = Guard(guard, HOUR) if guard is not None else None
    return compile_rules(document, fills=told, looked_up=looked_up, complete=[SCIM], terse=[ENTRA], guard=limit)


@dataclass(order=True)
class _Due:
    """Something that is to happen at a time."""

    at: Micros
    number: int
    what: object = field(compare=False)


class Life:
    """One history in an emptied database. `clock` is the database's."""

    def __init__(self, database: Database, clock: Clock, history: History, counts: Counts) -> None:
        random.seed(0)  # the relay's jitter
        self.database, self.clock, self.history, self.counts = database, clock, history, counts
        clock.now = NINE
        begin_anew(database)
        self.relay = Relay(database, rules(history.accounts, history.guard))
        self.world = World(history.accounts, NINE)
        self.directories = {source: SimulatedDirectory(source, self.world, clock) for source in (OKTA, ENTRA)}
        for directory, lag in zip(self.directories.values(), history.lags, strict=True):
            directory.lag = lag * SECOND
        self.reconciler = Reconciler(
            database,
            "w1",
            lambda: self.directories,  # type: ignore[arg-type,return-value]
            lambda: self.relay.terms.rules,
            lambda: 10**9,
        )
        self.grants: set[tuple[str, Resource]] = set()
        #: The rows of each event that arrived, those of its copies too; by whom a grant was taken away last.
        self.recorded: dict[int, list[str]] = {}
        self.taken: dict[tuple[str, Resource], set[str]] = {}
        #: What a call took although the person had it, as nobody had ever told the relay.
        self.taken_unknowing: set[tuple[str, Resource]] = set()
        #: The events of which an operator has said that they take nothing.
        self.refused: set[str] = set()
        #: Whether the last answer about an account told another status than it had.
        self.misled: dict[tuple[str, str], bool] = {}
        self.answers: list[Answers] = []
        self.agenda: list[_Due] = []
        self.numbers = itertools.count()
        self.work_at: Micros | None = None
        self.away_until: Micros = 0
        self.story: list[str] = []

    def live(self) -> None:
        """From the first day to the end. Raises Wrong."""
        self.world.past_nested = [(0, self.history.nested)]
        self.world.begin(self.history.before)
        self.give({})
        self.say(f"accounts: {self.history.accounts}; Velt has {self.told_grants()}")
        self.say(f"okta's and entra's directories lag by {self.history.lags} s")
        self.say("before: " + (", ".join(" ".join(one) for one in self.history.before) or "nobody is in anything"))
        for source in self.directories:
            self.later(0, Timer(source))
        for step in self.history.steps:
            self.run_until(self.clock.now + step.gap * SECOND)
            self.clock.advance(0.001)
            self.take(step)
        self.end()
        self.counts.histories += 1

    def say(self, text: str) -> None:
        at = datetime.fromtimestamp(self.clock.now / SECOND, UTC)
        day = "" if at.date() == datetime.fromtimestamp(NINE / SECOND, UTC).date() else f"{at:%d} "
        self.story.append(f"{day}{at:%H:%M:%S} {text}")

    def wrong(self, text: str) -> None:
        raise Wrong("\n".join([*self.story, f"WRONG: {text}", f"to live it again: {self.history}"]))

    def told_grants(self) -> str:
        return ", ".join(f"{user}: {resource.id}" for user, resource in sorted(self.grants)) or "nothing"

    # --- steps

    def take(self, step: Step) -> None:
        self.world.now = self.clock.now
        if isinstance(step, Act):
            self.act(step)
        elif isinstance(step, Weather):
            self.weather(step)
        elif isinstance(step, Answers):
            self.answers.append(step)
        elif isinstance(step, Away):
            self.away_until = self.clock.now + step.seconds * SECOND
            self.say(f"no worker for {step.seconds} s")
        elif isinstance(step, Operator):
            self.operate(step)
        elif isinstance(step, Reconcile):
            self.reconcile(step.source, expired=step.expired)

    def act(self, step: Act) -> None:
        before = self.world.entitled()
        told = self.world.do(step.verb, step.source, step.person, step.number)
        if not told and self.world.entitled() == before:
            return
        self.counts.actions += 1
        given = self.give(before)
        fate = (0,) if step.source == SCIM else step.fate
        arrives = ", ".join(f"after {seconds} s" if seconds else "at once" for seconds in fate) or "never"
        what = "; ".join(_short(one.event) for one in told) or "nothing"
        self.say(f"{step.source}: {step.person} {step.verb} -> told: {what}, arrives {arrives}{given}")
        for seconds in fate:
            self.later(seconds, told)
        self.run_until(self.clock.now)

    def give(self, before: dict[str, set[Resource]]) -> str:
        """The host application grants at once what somebody gains; the relay never does."""
        gained = {
            (user, resource)
            for user, resources in self.world.entitled().items()
            for resource in resources - before.get(user, set())
        }
        self.grants |= gained
        told = ", ".join(f"{resource.id} to {user}" for user, resource in sorted(gained))
        return f"; the host app grants {told}" if told else ""

    def weather(self, step: Weather) -> None:
        directory = self.directories[step.source]
        directory.lag = step.lag * SECOND
        directory.down_until = self.clock.now + step.down * SECOND
        self.say(
            f"{step.source}'s directory lags by {step.lag} s" + f" and is down for {step.down} s" * bool(step.down)
        )

    def operate(self, step: Operator) -> None:
        if step.verb == "pause":
            operate.pause(self.database, "ops", {})
        elif step.verb == "resume":
            operate.resume(self.database, "ops", {})
        else:
            rows = sorted(self.relay.rows(tables.events), key=lambda row: (row.received_at, row.id))
            if not rows:
                return
            row = rows[step.number % len(rows)]
            with suppress(Refused):
                self.order(step.verb, row.id)
                self.say(
                    f"an operator's {step.verb} of {row.source} {row.kind} {row.subject or ''} {row.group_id or ''}"
                )
                self.wake()
            return
        self.say(f"an operator: {step.verb}")
        self.wake()

    def order(self, verb: str, event_id: str) -> None:
        """What an operator does to one event. Raises Refused."""
        reason = {"reason": "simulated"}
        if verb in ("retry", "replay"):
            operate.retry(self.database, {}, "ops", event_id, {"replan": verb == "replay", **reason})
            return
        operate.decide(self.database, "ops", verb, event_id, reason)
        if verb in ("reject", "cancel"):
            self.refused.add(event_id)

    def reconcile(self, source: str, *, expired: bool = False) -> bool:
        directory = self.directories[source]
        directory.expired = expired
        place = self.reconciler.run(source)
        trouble = f" ({place.error})" if place.error else ""
        self.say(f"reconcile {source}: read {place.read}, found {place.found}{trouble}")
        self.wake()
        return place.error is None

    def is_reconciled(self, told: Told) -> bool:
        """Whether a pass has told it."""
        source = told.event.source
        if source not in self.directories:
            return False
        log = [one for _, one in self.world.log if one.event.source == source]
        return any(one is told for one in log[: self.directories[source].told])

    # --- time

    def later(self, seconds: float, what: object) -> None:
        heapq.heappush(self.agenda, _Due(self.clock.now + int(seconds * SECOND), next(self.numbers), what))

    def wake(self) -> None:
        self.work_at = self.clock.now

    def run_until(self, moment: Micros) -> None:
        """Let everything happen that is due until then."""
        for _ in range(ROUNDS):
            due = self.next_due()
            if due is None or due > moment:
                self.clock.now = max(self.clock.now, moment)
                return
            self.clock.now = max(self.clock.now, due)
            if self.agenda and self.agenda[0].at <= self.clock.now:
                self.happen(heapq.heappop(self.agenda).what)
            else:
                self.work()
        self.wrong("there is always something due and nothing gets done")

    def next_due(self) -> Micros | None:
        """When the next thing happens, None when nothing is left to happen."""
        times = [self.agenda[0].at] if self.agenda else []
        if self.work_at is not None:
            times.append(max(self.work_at, self.away_until))
        return min(times, default=None)

    def happen(self, what: object) -> None:
        if isinstance(what, Ending):
            self.settle(what)
        elif isinstance(what, Timer):
            self.later(HOUR if self.reconcile(what.source) else 5 * MINUTE, what)
        else:
            self.arrive(what)  # type: ignore[arg-type]

    # --- messages

    def arrive(self, told: list[Told]) -> None:
        """One message with its events is recorded."""
        rows = []
        for one in told:
            received = one.event.occurred_at if one.event.source == SCIM else self.clock.now
            rows.append(row_of(one.event, received or self.clock.now))
        with self.database.write() as connection:
            insert_events(connection, rows)
        self.say("arrives: " + "; ".join(_short(one.event) for one in told))
        self.counts.events += len(rows)
        for one, row in zip(told, rows, strict=True):
            self.recorded.setdefault(id(one), []).append(row["id"])
        self.wake()

    # --- the worker

    def work(self) -> None:
        """Claim, call and look up until nothing is to be done now."""
        self.work_at = None
        for _ in range(ROUNDS):
            found = claim.claim(self.database, self.relay.terms, 8)
            for task in found.tasks:
                self.call(task)
            asked = self.look_up() if found.look_up else 0
            if not found.tasks and not asked:
                self.work_at = None if found.due_in is None else self.clock.now + max(found.due_in, SECOND // 50)
                return
        self.wrong("there is always work and nothing gets done")

    def look_up(self) -> int:
        questions = look_ups.take(self.database, list(self.directories), 8)
        for question in questions:
            self.ask(self.directories[question.source], question)
        self.counts.look_ups += len(questions)
        return len(questions)

    def ask(self, directory: SimulatedDirectory, question: Question) -> None:
        rule_set = self.relay.terms.rules
        try:
            if question.object_type == look_ups.ACCOUNT:
                account = directory.look_up(question.object_id, question.groups, question.apps)
                told = f"is {account.status}, in {', '.join(group.id for group in account.groups) or 'no group'}"
                self.say(f"{directory.name} is asked for {question.object_id}: {told}")
                holder = self.world.holders.get((question.source, question.object_id))
                self.misled[question.source, question.object_id] = (
                    holder is not None and holder.status != account.status
                )
                answered.keep(self.database, rule_set, question, account)
                return
            event = answered.event_about(self.database, question)
            fetched_at = self.clock.now
            if event.kind is Kind.GROUP_CHANGED:
                group = directory.group(event.group_id or "")
                self.say(f"{directory.name} is asked for group {event.group_id}: {group.name if group else 'gone'}")
                answered.keep_group(self.database, rule_set, question, group, fetched_at)
            else:
                pages = directory.members(event.group_id) if event.group_id else directory.app_users(event.app_id or "")
                people = [subject for page in pages for subject in page]
                self.say(f"{directory.name} is asked for the people of {event.group_id or event.app_id}: {people}")
                answered.keep_people(self.database, question, people, fetched_at)
        except LookUpFailed as error:
            self.say(f"{directory.name} is asked for {question.object_id}: {error}")
            look_ups.failed(self.database, question, str(error), backoff.look_up_delay(question.failures + 1, None))

    # --- Velt

    def call(self, task: Task) -> None:
        """A call begins; what it comes to is told by the next step of Answers, else it is success at once."""
        self.counts.calls += 1
        names = ", ".join(resource.id for resource in task.resources)
        self.say(f"call for {task.velt_user_id}: {names}")
        check_call(self, task)
        manner = self.answers.pop(0) if self.answers else Answers(0, "removed", 0)
        self.later(manner.seconds, Ending(task, manner.outcome, self.clock.now))
        if not manner.seconds:
            self.happen(heapq.heappop(self.agenda).what)

    def settle(self, ending: Ending) -> None:
        task = ending.task
        outcome, done = _OUTCOMES[ending.outcome]
        if done:
            taken = {(task.velt_user_id, resource) for resource in task.resources} & self.grants
            self.grants -= taken
            self.taken_unknowing |= {grant for grant in taken if never_told(self, *grant)}
            self.taken |= {grant: set(task.revocation_ids) for grant in taken}
        if outcome is not None:
            settling.settle(self.database, self.relay.terms, task, outcome, ending.started, self.clock.now)
        if ending.outcome != "removed":
            self.say(f"the call for {task.velt_user_id} ends: {ending.outcome}")
        self.wake()

    # --- the end

    def end(self) -> None:
        """Everything arrives, everybody answers, what was lost is found, and nothing is left to do."""
        if any(directory.down_until > self.clock.now for directory in self.directories.values()):
            self.run_until(self.clock.now + LATEST * SECOND)
            check_waiting(self)
        self.say("--- from here on everything arrives and everybody answers")
        operate.resume(self.database, "ops", {})
        self.answers.clear()
        self.agenda = [due for due in self.agenda if not isinstance(due.what, Timer)]
        heapq.heapify(self.agenda)
        self.away_until = 0
        for directory in self.directories.values():
            directory.lag, directory.down_until = 0, 0
        self.wake()
        self.rest()
        if self.history.anew:
            self.clock.advance(HOUR)
        for source in self.directories:
            self.reconcile(source, expired=self.history.anew)
        self.rest()
        # Twice, as what an answer adds to an approved loss, or to one that is tried again, may be held.
        for verb, state in 2 * (("approve", EventState.HELD), ("retry", EventState.FAILED)):
            for row in self.relay.rows(tables.events):
                if row.state == state:
                    self.order(verb, row.id)
            self.wake()
            self.rest()
        self.say(f"--- Velt has {self.told_grants()}")
        check_end(self)

    def rest(self) -> None:
        """Let everything that is due happen, whenever that is."""
        for _ in range(ROUNDS):
            due = self.next_due()
            if due is None:
                return
            self.run_until(due)
        self.wrong("it never comes to rest")


@dataclass(frozen=True)
class Timer:
    """A source is read once an hour, and some minutes after it could not be."""

    source: str


@dataclass(frozen=True)
class Ending:
    """How and when a call ends."""

    task: Task
    outcome: str
    started: Micros


def _short(event: AccessEvent) -> str:
    about = " ".join(part for part in (event.subject, event.group_id or event.app_id) if part)
    return f"{event.kind} {about}"

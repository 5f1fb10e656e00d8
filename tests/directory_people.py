"""A directory in memory for tests of what is made of its answers; it says what a test has put into it.

directory = Directory(clock)
directory.accounts["ada"] = account("ada", groups=["eng"])
told = Looked(relay, directory)          # relay: tests.people.Relay with rules that have a directory
told.run()                               # claims, looks up and settles until nothing is due now
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from relay.errors import LookUpFailed
from relay.model import Account, Answer, Group, Kind, Outcome, Status
from relay.rules import RuleSet
from relay.store import answered, claim, look_ups
from relay.store.claim import Task
from relay.store.look_ups import Question
from tests.people import REMOVED, TOLD, Clock, Relay, small_rules

#: What Okta's directory adds to Okta's events.
ADDED = frozenset({"user.email", "user.external_id"})


def rules_with_directory(**more: object) -> RuleSet:
    """SMALL, for a source `okta` that has a directory; people are known by e-mail."""
    made = small_rules(identity=["{user.email}", "{user.login}"], fills={"okta": TOLD}, **more)
    return replace(made, looked_up={"okta": ADDED})


def account(subject: str, status: Status = Status.ACTIVE, groups: Iterable[str] = (), **more: object) -> Account:
    """An account with an e-mail address and these groups, each named after its id."""
    told = {"email": f"{subject}@acme.example"} if status in (Status.ACTIVE, Status.SUSPENDED) else {}
    named = tuple(Group(group, group.title()) for group in groups)
    return Account(subject, status, 0, groups=named, **(told | more))  # type: ignore[arg-type]


class Directory:
    """Answers with what is in `accounts`, `apps`, `all_groups` and `members`; `down` is the error raised instead."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.accounts: dict[str, Account] = {}
        self.apps: dict[str, set[str]] = {}
        self.all_groups: dict[str, Group] = {}
        self.members: dict[str, set[str]] = {}
        self.down: LookUpFailed | None = None
        self.asked: list[tuple[str, str]] = []

    def look_up(self, subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        found = self.accounts.get(subject)
        if found is None:  # no more than Okta tells of it
            return Account(subject, Status.GONE, self.clock.now, apps=dict.fromkeys(apps, False))
        names = {group: self.all_groups[group].name or "" for group in groups if group in self.all_groups}
        has = {app: subject in self.apps.get(app, set()) for app in apps}
        return replace(found, fetched_at=self.clock.now, names=names, apps=has)


class Looked:
    """A relay and a directory: what the worker does with both, without threads."""

    def __init__(self, relay: Relay, directory: Directory) -> None:
        self.relay = relay
        self.directory = directory

    def look_up(self) -> int:
        """Ask what is due; how many questions there were."""
        questions = look_ups.take(self.relay.database, ["okta"], 100)
        for question in questions:
            self.directory.asked.append((question.object_type, question.object_id))
            self._answer(question)
        return len(questions)

    def _answer(self, question: Question) -> None:
        database, rules = self.relay.database, self.relay.terms.rules
        if self.directory.down is not None:
            look_ups.failed(database, question, str(self.directory.down), 5)
            return
        if question.object_type == look_ups.ACCOUNT:
            answered.keep(
                database, rules, question, self.directory.look_up(question.object_id, question.groups, question.apps)
            )
            return
        event = answered.event_about(database, question)
        if event.kind is Kind.GROUP_CHANGED:
            group = self.directory.all_groups.get(event.group_id or "")
            answered.keep_group(database, rules, question, group, self.directory.clock.now)
        else:
            in_group = self.directory.members.get(event.group_id or "", set())
            members = in_group if event.group_id else self.directory.apps.get(event.app_id or "", set())
            answered.keep_people(database, question, members, self.directory.clock.now)

    def run(self, outcome: Outcome = REMOVED) -> list[Task]:
        """Claim, look up and settle until nothing is due; return the calls. A moment passes."""
        made: list[Task] = []
        while True:
            tasks = self.relay.claim()
            for task in tasks:
                assert outcome.answer is not Answer.RETRY
                self.relay.settle(task, outcome)
            made += tasks
            # a claim routes only for a while: a slow machine needs more than one
            if not self.look_up() and not tasks and not claim.look(self.relay.database).unrouted:
                self.directory.clock.advance(0.001)
                return made

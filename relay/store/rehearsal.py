"""Rehearsing: an event is recorded, routed, planned and judged by those who do so in earnest, and taken back.

Whoever rehearses does so inside `Database.rehearse`, which always rolls back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select, update

from relay.model import AccessEvent, Account, EventState, Micros
from relay.rules import RuleSet
from relay.store import answered, fan_out, look_ups, nested, plan, revocations, routing, taking
from relay.store.look_ups import Question
from relay.store.record import event_of, insert_events, row_of
from relay.store.tables import events


class Rehearsal:
    """An event that is recorded now, alone, and what workers do with it; `first`: of how many people, of many."""

    def __init__(self, connection: Connection, rules: RuleSet, now: Micros, first: int) -> None:
        self.connection = connection
        self._rules = rules
        self._now = now
        self._first = first
        self._event_id = ""

    @property
    def row(self) -> Row[Any]:
        """The event as it is by now."""
        return self.connection.execute(select(events).where(events.c.id == self._event_id)).one()

    @property
    def waits(self) -> bool:
        return bool(self.row.state == EventState.RECEIVED.value)

    def play(self, event: AccessEvent, answer: Account | None, *, approved: bool) -> None:
        """Let the event come, and its directory give this answer, whether or not it would be asked."""
        # An answer serves only what came before the question, so the event came when its directory was asked.
        received_at = self._now if answer is None else min(self._now, answer.fetched_at)
        # Without a key: the same event may be recorded already.
        row = row_of(replace(event, key=None), received_at, replay=approved)
        self._event_id = row["id"]
        insert_events(self.connection, [row])
        self._work()
        if answer is not None:
            groups, apps = ((name,) if name else () for name in (event.group_id, event.app_id))
            question = replace(Question.account(event.source, answer.id), groups=groups, apps=apps)
            look_ups.want(self.connection, question, answer_from=received_at, due_at=self._now)
            answered.take_in(self.connection, self._rules, question, answer, self._now)
            self._work()

    def run_out_of_patience(self) -> None:
        """Wait no longer for an answer."""
        self._set(wait_until=self._now)
        self._work()

    def approve(self) -> None:
        """Let a held event go on."""
        self._set(state=EventState.RECEIVED.value, replay=True)
        self._work()

    def children(self) -> list[AccessEvent]:
        """The first events of single people that an event about many was turned into."""
        mine = select(events).where(events.c.parent_id == self._event_id).order_by(events.c.subject)
        rows = self.connection.execute(mine.limit(self._first)).all()
        return [replace(event_of(row._asdict()), key=None) for row in rows]

    def _work(self) -> None:
        """Route and plan the event as far as that goes now, and check what it takes against what its people have."""
        if self.waits and self.row.person_id is None:
            self._route(self.row)
        row = self.row
        if row.person_id is None:
            return
        if self.waits:
            plan.plan_event(self.connection, self._rules, row, self._now)
        for person_id in taking.targets_of(self.connection, self.row):
            revocations.judge_open(self.connection, self._rules, person_id, self._now)

    def _route(self, row: Row[Any]) -> None:
        if row.subject is not None or nested.is_about_group(row):
            routing.route_these(self.connection, self._rules, [row], self._now)
            return
        fan_out.fan_out_some(self.connection, self._rules, row, self._now, self._first)
        row = self.row
        if self.waits and row.plan is not None:  # the rest would follow, so many at a time
            self._set(**fan_out.fanned_out(self._rules, row, fan_out.count_members(self.connection, row)))

    def _set(self, **values: Any) -> None:
        self.connection.execute(update(events).where(events.c.id == self._event_id).values(**values))

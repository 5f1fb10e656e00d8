"""The directories of the simulation: what Okta and Graph say of the world, late, when they say anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from relay.directories.base import Changes
from relay.errors import LookUpFailed
from relay.model import AccessEvent, Account, Group, Kind, Micros, Status
from tests.people import Clock
from tests.simulated_world import GIVES, INNER, OKTA, OUTER, Holder, World

PAGE = 3


@dataclass
class SimulatedDirectory:
    """A relay.directories.base.Directory. `lag`: how old its answers are; `expired`: its cursors are void."""

    name: str
    world: World
    clock: Clock
    lag: Micros = 0
    down_until: Micros = 0
    expired: bool = False
    #: How much of the world's log the last pass has told.
    told: int = 0
    #: When that was that somebody was in OUTER by what was told last.
    told_outer: dict[str, Micros] = field(default_factory=dict)
    #: How much of it each pass had told.
    reads: list[int] = field(default_factory=list)

    def _then(self) -> Micros:
        """The time whose truth is told now. Raises LookUpFailed."""
        if self.clock.now < self.down_until:
            raise LookUpFailed(f"{self.name} does not answer")
        return self.clock.now - self.lag

    def look_up(self, subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        then = self._then()
        holder = self.world.holder_then(self.name, subject, then)
        if subject in GIVES:
            status = Status.GROUP if self.world.name_then(subject, then) else Status.GONE
            return Account(subject, status, self.clock.now)
        asked = {group: name for group in groups if (name := self.world.name_then(group, then))}
        if holder is None or holder.status in (Status.GONE, Status.DELETED):
            status = Status.GONE if holder is None else holder.status
            has = dict.fromkeys(apps, False) if self.name == OKTA else {}
            told = (holder.login, holder.email) if holder is not None and status is Status.DELETED else ()
            return Account(subject, status, self.clock.now, *told, names=asked, apps=has)
        listed = tuple(Group(group, self.world.name_then(group, then)) for group in sorted(self._groups(holder, then)))
        has = {app: app in holder.apps for app in apps} if self.name == OKTA else {}
        return Account(
            subject, holder.status, self.clock.now, holder.login, holder.email, None, listed, names=asked, apps=has
        )

    def group(self, group_id: str) -> Group | None:
        name = self.world.name_then(group_id, self._then())
        return Group(group_id, name) if name else None

    def members(self, group_id: str) -> Iterator[list[str]]:
        then = self._then()
        yield [holder.subject for holder in self._holders(then) if group_id in self._groups(holder, then)]

    def app_users(self, app_id: str) -> Iterator[list[str]]:
        then = self._then()
        yield [holder.subject for holder in self._holders(then) if app_id in holder.apps]

    def _groups(self, holder: Holder, then: Micros) -> frozenset[str]:
        """All groups of an account, as they are told now."""
        groups = self.world.groups_of(holder, then)
        if OUTER in groups:
            self.told_outer[holder.subject] = then
        return groups

    def _holders(self, then: Micros) -> list[Holder]:
        subjects = dict.fromkeys(h.subject for _, h in self.world.past if h.source == self.name)
        found = (self.world.holder_then(self.name, subject, then) for subject in subjects)
        return [holder for holder in found if holder is not None and holder.status is not Status.GONE]

    # --- reconcile

    def changes(self, cursor: str | None, since: Micros) -> Iterator[Changes]:
        then = self._then()
        log = [one for at, one in self.world.log if one.event.source == self.name and (self.name == OKTA or at <= then)]
        if self.expired:
            cursor = None
        if self.name == OKTA:
            times = [at for at, one in self.world.log if one.event.source == self.name]
            start = int(cursor) if cursor else len([at for at in times if at < since])
            events = [one.event for one in log[start:]]
            yield from _pages(events, str(len(log)), snapshot=False)
        elif cursor:
            yield from _pages(
                self._delta([one.event for one in log[int(cursor) :]], then), str(len(log)), snapshot=False
            )
        else:
            yield from _pages(self._listing(then), str(len(log)), snapshot=True)
        self.told = len(log)
        self.reads.append(len(log))

    def _delta(self, log: list[AccessEvent], then: Micros) -> list[AccessEvent]:
        """Graph tells of everything that changed what it is now, users first, once or twice, without a time."""
        users = dict.fromkeys(event.subject for event in log if event.group_id is None and event.subject)
        groups = dict.fromkeys(event.group_id for event in log if event.subject is None and event.group_id)
        members = dict.fromkeys((event.subject, event.group_id) for event in log if event.subject and event.group_id)
        found = [self._user(subject, then) for subject in users]
        for group_id in groups:
            gone = self.world.name_then(group_id or "", then) is None
            if gone:
                found.append(AccessEvent(self.name, Kind.GROUP_DELETED, "delta.groups", b"{}", group_id=group_id))
        if (INNER, OUTER) in members and self.world.name_then(OUTER, then) is not None:
            kind = Kind.GROUP_MEMBER_ADDED if self.world.is_nested(then) else Kind.GROUP_MEMBER_REMOVED
            found.append(AccessEvent(self.name, kind, "delta.groups", b"{}", group_id=OUTER))
        for subject, group_id in members:
            holder = self.world.holder_then(self.name, subject or "", then)
            if self.world.name_then(group_id or "", then) is None or holder is None or holder.status is Status.GONE:
                continue
            found.append(self._member(holder, group_id or "", then, present=(group_id in holder.groups)))
        return found

    def _listing(self, then: Micros) -> list[AccessEvent]:
        """Everything that is there; deleted users are not."""
        holders = [holder for holder in self._holders(then) if holder.status is not Status.DELETED]
        found = [self._user(holder.subject, then) for holder in holders]
        return found + [
            self._member(h, group, then, present=True) for h in holders for group in sorted(self._groups(h, then))
        ]

    def _user(self, subject: str | None, then: Micros) -> AccessEvent:
        holder = self.world.holder_then(self.name, subject or "", then)
        event = AccessEvent(self.name, Kind.ACCOUNT_DELETED, "delta.users", b"{}", subject=subject)
        if holder is None or holder.status in (Status.GONE, Status.DELETED):
            return event
        kind = Kind.ACCOUNT_ACTIVATED if holder.status is Status.ACTIVE else Kind.ACCOUNT_DEACTIVATED
        return replace(event, kind=kind, login=holder.login, email=holder.email)

    def _member(self, holder: Holder, group_id: str, then: Micros, *, present: bool) -> AccessEvent:
        kind = Kind.GROUP_MEMBER_ADDED if present else Kind.GROUP_MEMBER_REMOVED
        name = self.world.name_then(group_id, then)
        return AccessEvent(
            self.name, kind, "delta.groups", b"{}", subject=holder.subject, group_id=group_id, group_name=name
        )


def _pages(events: list[AccessEvent], cursor: str, *, snapshot: bool) -> Iterator[Changes]:
    for start in range(0, max(len(events), 1), PAGE):
        last = start + PAGE >= len(events)
        yield Changes(tuple(events[start : start + PAGE]), cursor, last, snapshot)

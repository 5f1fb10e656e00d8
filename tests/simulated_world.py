"""A company as it is: people, their accounts at three providers, groups and apps, and who may have what in Velt.

The world is the truth of the simulation. It knows nothing of the relay: what gives what is written down here once more.
Each change returns the events that its provider tells of it, and is kept, so that a directory that lags can be asked
what was so some minutes ago.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from relay.model import AccessEvent, Kind, Micros, Resource, Status

ACME = Resource("organization", "acme")
ROADMAP = Resource("document", "roadmap", "acme")
PLAN = Resource("document", "plan", "acme")
WIKI = Resource("folder", "wiki", "acme")
ALL = (ACME, ROADMAP, PLAN, WIKI)

OKTA, ENTRA, SCIM = "okta", "entra", "scim"
SOURCES = (OKTA, ENTRA, SCIM)
PEOPLE = ("ada", "bob", "cy")
#: Without an e-mail address; such people are known by their login.
WITHOUT_EMAIL = "cy"

#: For each source its groups: id, the names that it goes by, what it gives. All names of a group give the same: no
#: provider tells anybody that a group is called otherwise, so that what a name gives must not be lost by that.
GROUPS: dict[str, tuple[tuple[str, tuple[str, ...], tuple[Resource, ...]], ...]] = {
    OKTA: (
        ("o-eng", ("Engineering", "eng-all"), (ACME, ROADMAP)),
        ("o-core", ("eng-core", "eng-main"), (ACME, ROADMAP)),
        ("o-plan", ("velt-acme-doc-plan",), (PLAN,)),
        ("o-all", ("Everyone", "All"), ()),
    ),
    ENTRA: (
        ("e-eng", ("Engineers", "Builders"), (ACME, ROADMAP)),
        ("e-plan", ("velt-acme-doc-plan",), (PLAN,)),
        ("e-read", ("Readers",), (ROADMAP,)),
        ("e-core", ("Core",), ()),
    ),
    SCIM: (
        ("s-eng", ("Engineering", "eng-scim"), (ACME, ROADMAP)),
        ("s-plan", ("velt-acme-doc-plan",), (PLAN,)),
    ),
}
#: A group that may lie in another one: who is in it is in that too.
INNER, OUTER = "e-core", "e-read"
APP = "o-wiki"
GIVES = {group_id: gives for groups in GROUPS.values() for group_id, _, gives in groups} | {APP: (WIKI,)}
#: What gives something by its name, which its source's messages do not tell.
GIVES_BY_NAME = ("e-plan", "e-read")

RULES: list[dict[str, Any]] = [
    {
        "name": "engineering",
        "when": {
            "kind": ["group.member_removed", "group.deleted"],
            "source": [OKTA, SCIM],
            "group.name": ["Engineering", {"prefix": "eng-"}],
        },
        "revoke": [ACME.as_velt(), ROADMAP.as_velt()],
    },
    {
        "name": "engineering (Entra)",
        "when": {"kind": ["group.member_removed", "group.deleted"], "source": [ENTRA], "group.id": ["e-eng"]},
        "revoke": [ACME.as_velt(), ROADMAP.as_velt()],
    },
    {
        "name": "readers",
        "when": {"kind": ["group.member_removed", "group.deleted"], "source": [ENTRA], "group.name": ["Readers"]},
        "revoke": [ROADMAP.as_velt()],
    },
    {
        "name": "one group a document",
        "when": {
            "kind": ["group.member_removed", "group.deleted"],
            "group.name": [{"regex": "velt-(?P<org>[a-z0-9]+)-doc-(?P<doc>.+)"}],
        },
        "revoke": [{"type": "document", "id": "{doc}", "organizationId": "{org}"}],
    },
    {
        "name": "wiki application",
        "when": {"kind": ["app.access_removed"], "source": [OKTA], "app.id": [APP]},
        "revoke": [WIKI.as_velt()],
    },
    {
        "name": "leavers",
        "when": {"kind": ["account.deactivated", "account.suspended", "account.deleted"]},
        "revoke": "everything",
    },
]


class Verb(StrEnum):
    """What people, managers and administrators do. What is so already is undone: who is in a group leaves it."""

    JOIN = "joins or leaves"
    MOVE = "moves"
    SUSPEND = "is suspended, or back"
    DEACTIVATE = "is deactivated, or back"
    DELETE = "is deactivated, or deleted"
    ASSIGN = "gets or loses the app"
    END_GROUP = "ends a group"
    END_APP = "ends the app"
    RENAME = "renames a group"
    EMAIL = "has a new address"
    NEST = "puts a group into another, or takes it out"


@dataclass(frozen=True)
class Holder:
    """An account as its provider has it."""

    source: str
    subject: str
    person: str
    status: Status = Status.ACTIVE
    groups: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    email: str | None = None

    @property
    def login(self) -> str:
        return f"{self.person}@login.example"

    @property
    def velt_user_id(self) -> str:
        return self.email or self.login


#: What a change was about: an account ("") or its group or app.
Access = tuple[str, str, str]


@dataclass(frozen=True)
class Told:
    """An event that a provider tells, and the access that it tells of. Whether it tells of a gain or a loss is the
    world's affair: an `account.changed` says neither."""

    event: AccessEvent
    accesses: tuple[Access, ...]


@dataclass
class World:
    """See the module. `now` is when what happens next happens."""

    accounts_setting: str
    now: Micros = 0
    holders: dict[tuple[str, str], Holder] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    #: Since when INNER lies in OUTER, or does not.
    past_nested: list[tuple[Micros, bool]] = field(default_factory=lambda: [(0, False)])
    #: Every change, for those who ask later: when, and what was so from then on.
    past: list[tuple[Micros, Holder]] = field(default_factory=list)
    past_names: list[tuple[Micros, str, str | None]] = field(default_factory=list)
    #: All that was ever told, in order: when and what.
    log: list[tuple[Micros, Told]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def begin(self, members: Iterable[tuple[str, str, str]]) -> None:
        """Everybody has an account everywhere; `members` (source, person, group) are so since long ago."""
        for groups in GROUPS.values():
            for group_id, names, _ in groups:
                self.names[group_id] = names[0]
                self.past_names.append((0, group_id, names[0]))
        self.names[APP] = "Wiki"
        for source in SOURCES:
            for person in PEOPLE:
                email = None if person == WITHOUT_EMAIL else f"{person}@acme.example"
                given = frozenset(group for s, p, group in members if (s, p) == (source, person))
                apps = given & {APP}
                self._keep(Holder(source, f"{source[0]}-{person}", person, groups=given - apps, apps=apps, email=email))
        self.past = [(0, holder) for _, holder in self.past]

    # --- the truth

    def entitled(self) -> dict[str, set[Resource]]:
        """What each Velt user may have now."""
        found: dict[str, set[Resource]] = {}
        for holder in self.holders.values():
            theirs = found.setdefault(holder.velt_user_id, set())
            for _, resources in self.routes(holder):
                theirs.update(resources)
        return found

    def routes(self, holder: Holder) -> list[tuple[str, tuple[Resource, ...]]]:
        """The groups and apps through which an account gives something now, with what."""
        if holder.status is not Status.ACTIVE:
            return []
        if self.accounts_setting == "any" and any(not self.is_in(s, holder.velt_user_id) for s in SOURCES):
            return []
        return [(thing, GIVES[thing]) for thing in sorted(self.groups_of(holder, self.now) | holder.apps)]

    def groups_of(self, holder: Holder, moment: Micros) -> frozenset[str]:
        """The groups of an account, with those that it is in through others at that time."""
        return holder.groups | {OUTER} if INNER in holder.groups and self.is_nested(moment) else holder.groups

    def is_nested(self, moment: Micros) -> bool:
        """Whether INNER lay in OUTER at that time, and there were both."""
        nested = [is_so for at, is_so in self.past_nested if at <= moment][-1]
        return nested and None not in (self.name_then(INNER, moment), self.name_then(OUTER, moment))

    def is_in(self, source: str, velt_user_id: str) -> bool:
        """Whether an account of this source is active, or there is none."""
        theirs = [h for h in self.of_velt_user(velt_user_id) if h.source == source]
        return not theirs or any(holder.status is Status.ACTIVE for holder in theirs)

    def of_velt_user(self, velt_user_id: str) -> list[Holder]:
        return [holder for holder in self.holders.values() if holder.velt_user_id == velt_user_id]

    def holder_then(self, source: str, subject: str, moment: Micros) -> Holder | None:
        """An account as it was at a time."""
        found = None
        for at, holder in self.past:
            if at <= moment and (holder.source, holder.subject) == (source, subject):
                found = holder
        return found

    def name_then(self, group_id: str, moment: Micros) -> str | None:
        """The name of a group at a time, None when there was none."""
        found = None
        for at, known, name in self.past_names:
            if at <= moment and known == group_id:
                found = name
        return found

    # --- what happens

    def do(self, verb: Verb, source: str, person: str, number: int) -> list[Told]:
        """Have something happen; what the provider tells of it, nothing where it cannot happen."""
        group_id = GROUPS[source][number % len(GROUPS[source])][0]
        if verb is Verb.END_GROUP:
            told = self._end_group(source, group_id)
        elif verb is Verb.END_APP:
            told = self._end_app() if source == OKTA else []
        elif verb is Verb.RENAME:
            told = self._rename(source, number % len(GROUPS[source]))
        elif verb is Verb.EMAIL:
            told = self._new_address(person)
        elif verb is Verb.NEST:
            told = self._nest() if source == ENTRA else []
        else:
            told = self._happens_to(verb, source, person, group_id, number)
        self.log += [(self.now, one) for one in told]
        return told

    def _happens_to(self, verb: Verb, source: str, person: str, group_id: str, number: int) -> list[Told]:
        holder = self._of(source, person)
        if holder is None:
            return self._hire(source, person)
        if verb is Verb.MOVE:
            other = GROUPS[source][(number + 1) % len(GROUPS[source])][0]
            return self._leave(holder, group_id) + self._join(self._of(source, person) or holder, other)
        if verb is Verb.JOIN:
            return self._leave(holder, group_id) if group_id in holder.groups else self._join(holder, group_id)
        if verb is Verb.ASSIGN:
            return self._app(holder, has=APP not in holder.apps) if source == OKTA else []
        return self._status(holder, verb)

    def _of(self, source: str, person: str) -> Holder | None:
        """The account that a person has at a source, None when the last one is gone for good."""
        theirs = [h for h in self.holders.values() if (h.source, h.person) == (source, person)]
        return next((holder for holder in reversed(theirs) if holder.status is not Status.GONE), None)

    def _join(self, holder: Holder, group_id: str) -> list[Told]:
        if group_id in holder.groups or group_id not in self.names or holder.status is Status.DELETED:
            return []
        self._keep(replace(holder, groups=holder.groups | {group_id}))
        return [self._of_group(Kind.GROUP_MEMBER_ADDED, holder, group_id)]

    def _leave(self, holder: Holder, group_id: str) -> list[Told]:
        if group_id not in holder.groups or holder.status is Status.DELETED:
            return []
        self._keep(replace(holder, groups=holder.groups - {group_id}))
        return [self._of_group(Kind.GROUP_MEMBER_REMOVED, holder, group_id)]

    def _app(self, holder: Holder, *, has: bool) -> list[Told]:
        if (APP in holder.apps) == has or APP not in self.names:
            return []
        self._keep(replace(holder, apps=frozenset({APP} if has else ())))
        kind = Kind.APP_ACCESS_ADDED if has else Kind.APP_ACCESS_REMOVED
        return [self._told(kind, holder, APP, app_id=APP, app_name="Wiki")]

    def _status(self, holder: Holder, verb: Verb) -> list[Told]:
        """From active to another status and back; what is deactivated already is active again or deleted."""
        source, active = holder.source, holder.status is Status.ACTIVE
        if verb is Verb.DELETE and not active and holder.status is not Status.SUSPENDED:
            return self._delete(holder)
        if not active and not (verb is Verb.DEACTIVATE and holder.status is Status.SUSPENDED):
            self._keep(replace(holder, status=Status.ACTIVE))
            return [self._of_account(holder, Kind.ACCOUNT_ACTIVATED)]
        if verb is Verb.SUSPEND and source == OKTA:
            self._keep(replace(holder, status=Status.SUSPENDED))
            return [self._of_account(holder, Kind.ACCOUNT_SUSPENDED)]
        # Entra disables an account, or deletes it in a way that can be undone.
        undone = source == ENTRA and verb is not Verb.SUSPEND
        self._keep(replace(holder, status=Status.DELETED if undone else Status.DEACTIVATED))
        return [self._of_account(holder, Kind.ACCOUNT_DEACTIVATED)]

    def _delete(self, holder: Holder) -> list[Told]:
        """For good. SCIM tells of every group that the account was in."""
        self._keep(replace(holder, status=Status.GONE, groups=frozenset(), apps=frozenset()))
        things = tuple((holder.source, holder.subject, thing) for thing in sorted(holder.groups | holder.apps))
        told = self._told(Kind.ACCOUNT_DELETED, holder, "")
        told = replace(told, accesses=(*told.accesses, *things))
        if holder.source != SCIM:
            return [told]
        kind = Kind.GROUP_MEMBER_REMOVED
        return [told, *(self._of_group(kind, holder, group_id) for group_id in sorted(holder.groups))]

    def _hire(self, source: str, person: str) -> list[Told]:
        """A new account with the person's address, where the last one is gone."""
        theirs = [h for h in self.holders.values() if (h.source, h.person) == (source, person)]
        there = [h for h in self.holders.values() if h.person == person and h.status is not Status.GONE]
        email = (there or theirs)[-1].email
        holder = Holder(source, f"{source[0]}-{person}-{len(theirs) + 1}", person, email=email)
        self._keep(holder)
        return [self._of_account(holder, Kind.ACCOUNT_ACTIVATED)]

    def _new_address(self, person: str) -> list[Told]:
        """The same at every provider. Okta's hooks do not tell of it."""
        if person == WITHOUT_EMAIL:
            return []
        told = []
        address = f"{person}.{next(self.numbers)}@acme.example"
        for holder in [h for h in self.holders.values() if h.person == person and h.status is not Status.GONE]:
            after = replace(holder, email=address)
            self._keep(after)
            if holder.source != OKTA:
                told.append(self._told(Kind.ACCOUNT_CHANGED, after, ""))
        return told

    def _end_group(self, source: str, group_id: str) -> list[Told]:
        if group_id not in self.names:
            return []
        name = self.names.pop(group_id)
        self.past_names.append((self.now, group_id, None))
        members = [h for h in self.holders.values() if group_id in h.groups]
        for holder in members:
            self._keep(replace(holder, groups=holder.groups - {group_id}))
        ended = (group_id, OUTER) if group_id == INNER else (group_id,)
        accesses = tuple((source, holder.subject, thing) for holder in members for thing in ended)
        if source == SCIM:
            return [self._of_group(Kind.GROUP_DELETED, holder, group_id, name) for holder in members]
        # At Entra a group's deletion that can be undone looks like any other change of it.
        kind = Kind.GROUP_CHANGED if group_id == "e-plan" else Kind.GROUP_DELETED
        event = self._event(source, kind, group_id=group_id, group_name=name if source == OKTA else None)
        return [Told(event, accesses)]

    def _nest(self) -> list[Told]:
        """Entra tells the id of the member, and not that it is a group."""
        if INNER not in self.names or OUTER not in self.names:
            return []
        nested = not self.is_nested(self.now)
        self.past_nested.append((self.now, nested))
        kind = Kind.GROUP_MEMBER_ADDED if nested else Kind.GROUP_MEMBER_REMOVED
        members = [h for h in self.holders.values() if INNER in h.groups]
        accesses = tuple((ENTRA, holder.subject, OUTER) for holder in members)
        return [Told(self._event(ENTRA, kind, subject=INNER, group_id=OUTER), accesses)]

    def _end_app(self) -> list[Told]:
        if APP not in self.names:
            return []
        del self.names[APP]
        holders = [h for h in self.holders.values() if APP in h.apps]
        for holder in holders:
            self._keep(replace(holder, apps=frozenset()))
        event = self._event(OKTA, Kind.APP_ACCESS_REMOVED, app_id=APP, app_name="Wiki")
        return [Told(event, tuple((OKTA, holder.subject, APP) for holder in holders))]

    def _rename(self, source: str, number: int) -> list[Told]:
        group_id, names, _ = GROUPS[source][number]
        if group_id not in self.names or len(names) < 2:
            return []
        name = names[1] if self.names[group_id] == names[0] else names[0]
        self.names[group_id] = name
        self.past_names.append((self.now, group_id, name))
        if source == SCIM:
            members = [h for h in self.holders.values() if group_id in h.groups]
            return [self._of_group(Kind.GROUP_MEMBER_ADDED, holder, group_id) for holder in members]
        if source == ENTRA:
            return [Told(self._event(source, Kind.GROUP_CHANGED, group_id=group_id), ())]
        return []

    # --- how it is told

    def _of_account(self, holder: Holder, kind: Kind) -> Told:
        """Of Entra's accounts is told only that they changed."""
        return self._told(Kind.ACCOUNT_CHANGED if holder.source == ENTRA else kind, holder, "")

    def _of_group(self, kind: Kind, holder: Holder, group_id: str, name: str | None = None) -> Told:
        given = None if holder.source == ENTRA else name or self.names[group_id]
        told = self._told(kind, holder, group_id, group_id=group_id, group_name=given)
        also = ((holder.source, holder.subject, OUTER),) if group_id == INNER and self.is_nested(self.now) else ()
        return replace(told, accesses=(*told.accesses, *also))

    def _told(self, kind: Kind, holder: Holder, thing: str, **more: Any) -> Told:
        login = None if holder.source == ENTRA else holder.login
        email = holder.email if holder.source == SCIM else None
        event = self._event(holder.source, kind, subject=holder.subject, login=login, email=email, **more)
        return Told(event, ((holder.source, holder.subject, thing),))

    def _event(self, source: str, kind: Kind, **more: Any) -> AccessEvent:
        number = next(self.numbers)
        if source == ENTRA:
            # Most of Graph's items are the same whenever they come: nothing in them tells one change from the next.
            said = (kind.value, more.get("subject"), more.get("group_id"))
            return AccessEvent(source, kind, kind.value, b"{}", key=f"{said}", twin=True, **more)
        key = f"okta-{number}" if source == OKTA else None
        # SCIM's requests are told in the order in which they came, a microsecond apart.
        at = self.now + number if source == SCIM else self.now
        return AccessEvent(source, kind, kind.value, b"{}", key=key, occurred_at=at, **more)

    def _keep(self, holder: Holder) -> None:
        self.holders[holder.source, holder.subject] = holder
        self.past.append((self.now, holder))

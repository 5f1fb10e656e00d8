"""Who there is and what they have, by the directories: the people of an audit. Reads, and changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from relay import audit
from relay.audit import Person, Thing
from relay.config_checks import USER_FIELDS
from relay.directories.again import Wait, again
from relay.directories.base import Directory
from relay.entitlement import Knowledge, fields_of
from relay.errors import LookUpFailed, Unaskable
from relay.model import Account, Basis, Fact, Group, ObjectType, Status, Subject, now
from relay.rules import RuleSet
from relay.store import roster
from relay.store.database import Database
from relay.store.facts import all_facts
from relay.store.roster import Identity
from relay.store.scim_events import Paths

Progress = Callable[[str], None]
Item = TypeVar("Item")

Key = tuple[str, str]
Facts = Mapping[Key, list[Fact]]


class Roster(Protocol):
    """What lists the accounts and groups of one source: its directory, or the relay's own SCIM tables."""

    def accounts(self) -> Iterator[list[Account]]:
        """Every account, a page at a time, without groups."""

    def groups(self) -> Iterator[list[Group]]:
        """Every group, a page at a time."""

    def members(self, group_id: str) -> Iterator[list[str]]:
        """The ids of a group's people, a page at a time."""


@dataclass(slots=True)
class Listed:
    """What one source's directory says: accounts by id, the groups and apps that rules are about, who has them."""

    accounts: dict[str, Account] = field(default_factory=dict)
    things: list[Thing] = field(default_factory=list)
    facts: defaultdict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class Nameless:
    """An account for which no Velt user id can be made, and why: nobody can be asked about it."""

    source: str
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Roll:
    """Everybody. `things`: the groups, apps and accounts that there are, and those that the relay ever heard of."""

    people: list[Person]
    things: list[Thing]
    nameless: list[Nameless]


def call(
    database: Database,
    rules: RuleSet,
    directories: Mapping[str, Directory],
    scim: Mapping[str, Paths],
    apps: Collection[str],
    progress: Progress,
    wait: Wait,
) -> Roll:
    """Everybody whom the directories and the `scim` sources list, or the relay ever heard of.

    `scim`: the `attributes` of each of those sources. `apps`: the ids of the apps that rules name. Raises LookUpFailed,
    with the source's name, and Unavailable.
    """
    with database.read() as connection:
        known, facts = roster.everybody(connection), all_facts(connection)
    names = {_thing_of(fact)[:3]: fact.name for of_one in facts.values() for fact in of_one if fact.name}
    reader = _Reader(rules, progress, wait)
    listed = {source: reader.read(source, roster.ScimRoster(database, source, paths)) for source, paths in scim.items()}
    for source, directory in directories.items():
        with _named(source):
            listed[source] = reader.read(source, directory)
            for app in sorted(apps):
                thing = Thing(source, ObjectType.APP, app, names.get((source, ObjectType.APP, app)))
                reader.read_app(directory, thing, listed[source])
    sheet = _Sheet(rules, facts, frozenset(apps))
    for source, found in listed.items():
        sheet.add_accounts(source, found)
    sheet.add_known(known, listed)
    heard_of = [_thing_of(fact) for of_one in facts.values() for fact in of_one]
    there = [thing for found in listed.values() for thing in found.things]
    accounts = _accounts_of({*listed, *(source for source, _ in facts)})
    return Roll(sheet.people(), [*there, *heard_of, *accounts], sheet.nameless)


@contextmanager
def _named(source: str) -> Iterator[None]:
    try:
        yield
    except (LookUpFailed, Unaskable) as error:
        raise LookUpFailed(
            f"the directory of {source} could not be read to its end, so nothing is told: {error}"
        ) from error


def _accounts_of(sources: Iterable[str]) -> list[Thing]:
    return [Thing(source, ObjectType.ACCOUNT, "") for source in sorted(sources)]


def _thing_of(fact: Fact) -> Thing:
    return Thing(fact.source, fact.object_type, fact.object_id, fact.name)


class _Reader:
    """Reads whole lists. One that breaks off is read again from its beginning, a few times."""

    def __init__(self, rules: RuleSet, progress: Progress, wait: Wait) -> None:
        self._rules = rules
        self._progress = progress
        self._wait = wait

    def read(self, source: str, directory: Roster) -> Listed:
        """The accounts of a source, and the members of every group that a rule may be about."""
        accounts = self._whole(directory.accounts, f"{source}: accounts")
        groups = dict.fromkeys(self._whole(directory.groups, f"{source}: groups"))
        things = [Thing(source, ObjectType.GROUP, group.id, group.name) for group in groups]
        found = Listed({account.id: account for account in accounts})
        found.things = [thing for thing in things if audit.concerns(self._rules, thing)]
        for number, thing in enumerate(found.things, start=1):
            what = f"{source}: group {number} of {len(found.things)}, members"
            _has(found, thing, self._whole(partial(directory.members, thing.id), what))
        return found

    def read_app(self, directory: Directory, thing: Thing, found: Listed) -> None:
        """Add who has an app."""
        users = self._whole(partial(directory.app_users, thing.id), f"{thing.source}: people of app {thing.id}")
        found.things.append(thing)
        # A directory lists the people of an app that was switched off too; only the question about one tells that.
        for user in users[:2]:
            look_up = partial(directory.look_up, user, apps=[thing.id])
            if self._again(look_up, f"{thing.source}: app {thing.id}").apps.get(thing.id):
                _has(found, thing, users)
                return

    def _whole(self, pages: Callable[[], Iterator[Sequence[Item]]], what: str) -> Sequence[Item]:
        def read() -> Sequence[Item]:
            found: list[Item] = []
            for page in pages():
                found += page
                self._progress(f"{what}: {len(found)}")
            return found

        return self._again(read, what)

    def _again(self, ask: Callable[[], Item], what: str) -> Item:
        def tell(error: LookUpFailed, pause: float) -> None:
            self._progress(f"{what}: asked again in {pause:g} s, {error}")

        return again(ask, tell, self._wait)


def _has(found: Listed, thing: Thing, subjects: Iterable[str]) -> None:
    for subject in subjects:
        found.facts[subject].append(
            Fact(thing.source, subject, thing.object_type, thing.id, True, now(), Basis.SOURCE, thing.name)
        )


@dataclass(slots=True)
class _Entry:
    subjects: list[Subject] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    past: list[Fact] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    former: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


class _Sheet:
    """The people, as one source after the other is written in. `facts` are those that the relay was told."""

    def __init__(self, rules: RuleSet, facts: Facts, apps: Collection[str]) -> None:
        self._rules = rules
        self._told = facts
        self._apps = apps
        self._entries: defaultdict[str, _Entry] = defaultdict(_Entry)
        self._now: dict[Key, str] = {}
        self._open: dict[Key, Nameless] = {}

    @property
    def nameless(self) -> list[Nameless]:
        """The accounts that are nobody."""
        return list(self._open.values())

    def add_accounts(self, source: str, listed: Listed) -> None:
        """Write in everybody whom the directory lists."""
        for account in listed.accounts.values():
            subject = Subject(source, account.id, account.login, account.email, account.external_id, looked_up=True)
            made, why = self._rules.identity.velt_user_id(fields_of(source, subject, frozenset(USER_FIELDS)))
            if made is None:
                self._open[source, account.id] = Nameless(source, account.id, why)
            else:
                self._write(made, subject, account.status, listed)

    def add_known(self, known: Iterable[Identity], listed: Mapping[str, Listed]) -> None:
        """Write in what only the relay knows: who is gone, who was called otherwise, sources that nobody lists."""
        identities = sorted(known, key=lambda identity: not identity.current)
        for one in identities:
            entry = self._entries[one.velt_user_id]
            if one.source is None or one.subject is None:
                continue
            key = (one.source, one.subject)
            subject = Subject(*key, one.login, one.email, one.external_id)
            if one.current and one.source not in listed:
                self._by_messages(entry, one.velt_user_id, subject)
            elif one.current and one.subject not in listed[one.source].accounts:
                self._write(one.velt_user_id, subject, Status.GONE, listed[one.source])
            elif one.current and key in self._open:
                account = listed[one.source].accounts[one.subject]
                self._write(one.velt_user_id, subject, account.status, listed[one.source])
                del self._open[key]
            elif self._now.get(key) != one.velt_user_id:
                today = self._now.get(key)
                now_is = f", and is now {today}" if today else ""
                entry.former.append(f"was {one.subject} of {one.source}{now_is}")

    def people(self) -> list[Person]:
        """Everybody, in the order of their Velt user ids."""
        return [
            Person(
                velt_user_id,
                Knowledge(tuple(entry.subjects), tuple(entry.facts)),
                tuple(entry.past),
                tuple(entry.troubles if entry.subjects else entry.former),
                tuple(dict.fromkeys(entry.unlisted)),
            )
            for velt_user_id, entry in sorted(self._entries.items())
        ]

    def _write(self, velt_user_id: str, subject: Subject, status: Status, listed: Listed) -> None:
        entry, key = self._entries[velt_user_id], subject.key
        self._now[key] = velt_user_id
        entry.subjects.append(subject)
        is_active = status is Status.ACTIVE
        entry.facts.append(Fact(*key, ObjectType.ACCOUNT, "", is_active, now(), Basis.SOURCE))
        if not is_active:
            entry.troubles.append(f"the account {subject.login or subject.id} of {subject.source} is {status}")
        held = listed.facts.get(subject.id, [])
        told = [fact for fact in self._told.get(key, ()) if fact.object_type is not ObjectType.ACCOUNT]
        messages = [fact for fact in told if self._only_told(fact)]
        entry.facts += [*held, *(fact for fact in messages if fact.present)]
        has = {fact.thing for fact in held}
        entry.past += [fact for fact in told if fact.thing not in has and not (fact in messages and fact.present)]

    def _by_messages(self, entry: _Entry, velt_user_id: str, subject: Subject) -> None:
        told = self._told.get(subject.key, ())
        self._now[subject.key] = velt_user_id
        entry.subjects.append(subject)
        entry.unlisted.append(subject.source)
        if any(fact.is_lost_account for fact in told):
            entry.troubles.append(
                f"the account {subject.login or subject.id} of {subject.source} was lost, as a message told"
            )
        for fact in told:
            is_past = not fact.present and fact.object_type is not ObjectType.ACCOUNT
            (entry.past if is_past else entry.facts).append(fact)

    def _only_told(self, fact: Fact) -> bool:
        """Whether no directory was asked about it: apps that no rule names by id."""
        return fact.object_type is ObjectType.APP and fact.object_id not in self._apps

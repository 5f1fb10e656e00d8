"""Who has access in Velt without being entitled to it, and who is entitled and has none. Pure.

Entitled is who is in a group, or has an app, that a rule of relay.yaml gives the resource for: the same reckoning as
before a removal (relay/entitlement.py), from what the directories say now instead of what the relay was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from relay.access import Access, is_open_to_member
from relay.config_checks import USER_FIELDS
from relay.entitlement import LOSS_OF, Knowledge, given_for, grants, some_source_says_inactive
from relay.model import Fact, Kind, ObjectType, Resource, Subject, to_iso
from relay.rules import UNKNOWN, ResourceTemplate, Rule, RuleSet


class Thing(NamedTuple):
    """A group or app of a source, or (`ACCOUNT`) its accounts: what a rule may be about."""

    source: str
    object_type: ObjectType
    id: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """One Velt user.

    `knowledge`: their accounts, and what these have now. `past`: what the relay was told of and they no longer have;
    one that is `present` was lost without a message. `troubles`: why an account is not in force, each a sentence.
    `unlisted`: the sources of accounts that no directory lists.
    """

    velt_user_id: str
    knowledge: Knowledge
    past: tuple[Fact, ...] = ()
    troubles: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extra:
    """Access that nothing entitles to. `doubt`: why it may be entitled all the same, None where it is not."""

    person: Person
    resource: Resource
    role: str
    why: str
    doubt: str | None


@dataclass(frozen=True, slots=True)
class Missing:
    """An entitlement without access: the relay never grants, so this is told and no more."""

    person: Person
    resource: Resource
    because: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What Velt could not say."""

    person: Person
    resource: Resource
    why: str


@dataclass(slots=True)
class Tally:
    """What was found of one resource. `silent`: people of whom Velt said nothing."""

    access_type: str | None = None
    exists: bool = True
    asked: int = 0
    holders: int = 0
    extra: int = 0
    missing: int = 0
    silent: int = 0


class Scope:
    """What is compared, by the rules and the groups and apps that there are or were.

    `unlisted_rules`: names of rules about apps that cannot be listed.
    """

    def __init__(self, rules: RuleSet, things: Iterable[Thing], unlisted_rules: Iterable[str] = ()) -> None:
        self.rules = rules
        self._unlisted = [rule for rule in rules.rules if rule.name in set(unlisted_rules)]
        self._by_groups = {fixed for rule in rules.rules if _is_about_things(rule) for fixed in _fixed(rule)}
        self._personal: list[Thing] = []
        by_accounts = set(rules.fixed)
        for thing in dict.fromkeys(things):
            given = set(_given(rules, thing))
            if None in given:
                self._personal.append(thing)
            known = by_accounts if thing.object_type is ObjectType.ACCOUNT else self._by_groups
            known |= {resource for resource in given if resource is not None}
        self.shared = frozenset(by_accounts | self._by_groups)

    def own(self, person: Person) -> set[Resource]:
        """The resources that only this person can have by a rule: those with something of theirs in the id."""
        return {
            resource
            for subject in person.knowledge.subjects
            for thing in self._personal
            if thing.source == subject.source
            for resource in _given(self.rules, thing, subject)
            if resource is not None and resource not in self.shared
        }

    def excused(self, person: Person) -> set[Resource]:
        """What only rules about leaving name, for a person who is still there: no group says who may have it."""
        knowledge, lost = person.knowledge, person.knowledge.lost_accounts
        if self.rules.accounts == "any" and some_source_says_inactive(knowledge, lost):
            return set()
        return {
            resource
            for subject in knowledge.subjects
            if subject.key not in lost
            for resource in _given(self.rules, Thing(subject.source, ObjectType.ACCOUNT, ""), subject)
            if resource is not None and resource not in self._by_groups
        }

    def doubt(self, person: Person, resource: Resource) -> str | None:
        """Why the person may be entitled to the resource although nothing that was listed gives it."""
        if self._is_out(person):
            return None
        if person.unlisted:
            return f"what {' and '.join(person.unlisted)} gives is known by messages only"
        for rule in self._unlisted:
            if any(_could_be(template, resource) for template in rule.resources):
                return f"rule {rule.name!r} may give it: who has its apps could not be listed"
        return None

    def _is_out(self, person: Person) -> bool:
        """Whether a list says that the person is not in force, so that no app or group gives anything."""
        lost = {key for key in person.knowledge.lost_accounts if key[0] not in person.unlisted}
        if self.rules.accounts == "any":
            return some_source_says_inactive(person.knowledge, lost)
        return bool(lost) and lost >= {subject.key for subject in person.knowledge.subjects}


class Comparison:
    """What was found so far. `add` the people one after the other."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.extra: list[Extra] = []
        self.missing: list[Missing] = []
        self.unanswered: list[Unanswered] = []
        self.tallies: dict[Resource, Tally] = {}

    def add(
        self,
        person: Person,
        asked: Iterable[Resource],
        access: Mapping[Resource, Access],
        failed: Mapping[Resource, str] | None = None,
    ) -> None:
        """Compare what Velt said of one person; `failed` are resources about which it could not be asked, and why."""
        entitled = {
            resource: f"has {given[0]}" for resource, given in grants(self._scope.rules, person.knowledge).items()
        }
        excused = self._scope.excused(person)
        for resource in sorted(asked, key=str):
            tally = self.tallies.setdefault(resource, Tally())
            tally.asked += 1
            why = _trouble(access.get(resource)) or (failed or {}).get(resource)
            if why is not None:
                self.unanswered.append(Unanswered(person, resource, why))
                continue
            role = _role(tally, access.get(resource))
            if role is None and resource in entitled:
                if not is_open_to_member(resource, access):
                    tally.missing += 1
                    self.missing.append(Missing(person, resource, entitled[resource]))
            elif role and resource not in entitled and resource not in excused:
                tally.extra += 1
                why = _why(self._scope.rules, person, resource) + _inherited(resource, access, entitled)
                self.extra.append(Extra(person, resource, role, why, self._scope.doubt(person, resource)))


def concerns(rules: RuleSet, thing: Thing) -> bool:
    """Whether any rule may give something for this group or app, whoever is in it."""
    return any(True for _ in _given(rules, thing))


def apps_of(rules: RuleSet, conditions: Sequence[Mapping[str, object]]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The ids of apps that rules name literally, and the names of rules whose apps cannot be told from the rule.

    `conditions` are the rules' `when` as relay.yaml has them, in the order of the rules.
    """
    ids: set[str] = set()
    others = []
    anything = dict.fromkeys(("source", "app.id", "app.name", *USER_FIELDS), UNKNOWN)
    for rule, when in zip(rules.rules, conditions, strict=True):
        if rule.everything or rule.match(Kind.APP_ACCESS_REMOVED, anything).verdict is False:
            continue
        wanted = when.get("app.id", ())
        literals = wanted if isinstance(wanted, list) else [wanted]
        if wanted and "app.name" not in when and all(isinstance(one, str) for one in literals):
            ids.update(map(str, literals))
        else:
            others.append(rule.name)
    return frozenset(ids), tuple(others)


def _given(rules: RuleSet, thing: Thing, subject: Subject | None = None) -> Iterator[Resource | None]:
    """The resources that rules may give for a thing; None for one that only a person's own fields can name."""
    for given in given_for(rules, thing.source, (thing.object_type, thing.id), thing.name, subject):
        yield given.resource


def _is_about_things(rule: Rule) -> bool:
    return any(kind in rule.kinds for kind in (*LOSS_OF[ObjectType.GROUP], *LOSS_OF[ObjectType.APP]))


def _fixed(rule: Rule) -> Iterator[Resource]:
    return (resource for template in rule.resources if (resource := template.fixed) is not None)


def _could_be(template: ResourceTemplate, resource: Resource) -> bool:
    return template.type == resource.type and (bool(template.fields) or template.fixed == resource)


def _trouble(access: Access | None) -> str | None:
    """Why an entry says nothing although it is there."""
    if access is None or access.role or access.error_code is None or access.is_denied or access.does_not_exist:
        return None
    return access.trouble


def _role(tally: Tally, access: Access | None) -> str | None:
    """The role that counts, None for no access, "" where there is nothing to compare for this person."""
    if access is not None:
        tally.access_type = access.access_type or tally.access_type
    if access is None or not (access.role or access.error_code or access.is_public):
        tally.silent += 1
        return ""
    if access.does_not_exist and not access.role:
        tally.exists = False
        return ""
    tally.holders += bool(access.role)
    if access.is_public:  # everybody who is signed in may open it: a grant does not matter
        return ""
    return access.role


def _why(rules: RuleSet, person: Person, resource: Resource) -> str:
    known = {fact.key: fact for fact in person.past}
    as_if = tuple(replace(fact, present=True) for fact in person.past)
    given = grants(rules, Knowledge(person.knowledge.subjects, as_if)).get(resource, [])
    told = [*person.troubles, *(_lost(known[grant.fact.key]) for grant in given)]
    if told:
        return "; ".join(dict.fromkeys(told))
    return "in no group or app that gives it" if person.knowledge.subjects else "nobody has this Velt user id"


def _lost(fact: Fact) -> str:
    thing = f"{fact.object_type} {fact.name or fact.object_id} ({fact.source})"
    if fact.present:
        return f"no longer has {thing}, which no message told"
    return f"lost {thing} on {(to_iso(fact.as_of) or '')[:10]}"


def _inherited(resource: Resource, access: Mapping[Resource, Access], entitled: Mapping[Resource, str]) -> str:
    """From which folders that the person is entitled to the role may come: it holds for what is in them, too."""
    if resource.organization_id is None:
        return ""
    above = [
        str(folder)
        for folder, entry in access.items()
        if folder.type == "folder" and folder != resource and entry.role and folder in entitled
        if folder.organization_id == resource.organization_id
    ]
    return f"; it may be inherited from {' or '.join(sorted(above))}" if above else ""

"""The heart: from facts and rules to what an event takes and what the person still has. Pure, no I/O.

A fact says that a subject has or lost an account, a group or an app. What a person may still reach is found by running
the rules for every group and app that they still have, as if each were about to be lost: what a rule would take then
is what that group or app gives now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    AccessEvent,
    Basis,
    Fact,
    Kind,
    Micros,
    ObjectType,
    Resource,
    RevocationState,
    Subject,
)
from relay.rules import UNKNOWN, Fields, Rule, RuleSet, Value

#: The kinds of loss that take a fact of this type away.
LOSS_OF: Mapping[ObjectType, tuple[Kind, ...]] = {
    ObjectType.ACCOUNT: tuple(ACCOUNT_LOSSES),
    ObjectType.GROUP: (Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_DELETED),
    ObjectType.APP: (Kind.APP_ACCESS_REMOVED,),
}

_OBJECT_OF: Mapping[Kind, ObjectType] = {
    kind: object_type for object_type, kinds in LOSS_OF.items() for kind in kinds
} | {
    Kind.ACCOUNT_ACTIVATED: ObjectType.ACCOUNT,
    Kind.GROUP_MEMBER_ADDED: ObjectType.GROUP,
    Kind.APP_ACCESS_ADDED: ObjectType.APP,
}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known about one Velt user: the subjects that are this user now, and their facts."""

    subjects: tuple[Subject, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule that gives a resource because of a fact."""

    fact: Fact
    rule: str

    def __str__(self) -> str:
        return (
            f"{self.fact.object_type} {self.fact.name or self.fact.object_id} ({self.fact.source}), rule {self.rule!r}"
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What one rule made of an event: `verdict` True, False or None (open, for want of the `unknown` fields)."""

    rule: str
    verdict: bool | None
    because: str
    resources: tuple[Resource, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What an event takes: each resource with the rules that name it, and what stays open."""

    resources: Mapping[Resource, tuple[str, ...]]
    steps: tuple[Step, ...]
    incomplete: tuple[str, ...] = ()

    @property
    def open_questions(self) -> tuple[str, ...]:
        """A sentence for each rule that could not be decided."""
        return tuple(f"rule {step.rule!r}: {step.because}" for step in self.steps if step.verdict is None)


@dataclass(frozen=True, slots=True)
class Cause:
    """The loss behind a revocation."""

    kind: Kind
    source: str
    subject: str
    object_id: str
    at: Micros
    event_id: str

    @property
    def object_type(self) -> ObjectType | None:
        return _OBJECT_OF.get(self.kind)

    def is_about(self, fact: Fact) -> bool:
        """Whether the fact is the very access that this cause took."""
        return (fact.source, fact.subject, fact.object_type, fact.object_id) == (
            self.source,
            self.subject,
            self.object_type,
            self.object_id,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a revocation may go: state `pending` (yes), `retained` or `superseded` (no, and why)."""

    state: RevocationState
    reason: str = ""
    superseded_by: str | None = None


def fact_of(event: AccessEvent, event_id: str, received_at: Micros) -> Fact | None:
    """What an event says about access, None where it says nothing (a change, an operator's removal)."""
    object_type = _OBJECT_OF.get(event.kind)
    if object_type is None or event.subject is None:
        return None
    object_id, name = {
        ObjectType.ACCOUNT: ("", None),
        ObjectType.GROUP: (event.group_id or "", event.group_name),
        ObjectType.APP: (event.app_id or "", event.app_name),
    }[object_type]
    told = event.occurred_at is not None
    return Fact(
        source=event.source,
        subject=event.subject,
        object_type=object_type,
        object_id=object_id,
        present=event.kind in GAINS,
        as_of=min(event.occurred_at if event.occurred_at is not None else received_at, received_at),
        basis=Basis.SOURCE if told else Basis.ARRIVAL,
        name=name,
        event_id=event_id,
    )


def newer(old: Fact | None, new: Fact) -> bool:
    """Whether `new` replaces `old`: the last as_of wins, at equal times the loss.

    A gain whose time is only its arrival never beats a loss that the source itself has dated, whichever came first.
    """
    if old is None:
        return True
    gain, loss = (new, old) if new.present else (old, new)
    guess_against_date = (gain.basis, loss.basis) == (Basis.ARRIVAL, Basis.SOURCE)
    if gain.present and not loss.present and (guess_against_date or new.as_of == old.as_of):
        return new is loss
    return new.as_of > old.as_of


def fields_of(
    source: str,
    subject: Subject | None,
    fills: frozenset[str],
    *,
    group: tuple[str | None, str | None] | None = None,
    app: tuple[str | None, str | None] | None = None,
) -> Fields:
    """The fields that rules and templates see; `group` and `app` are (id, name), None where the event has none.

    A field without a value is UNKNOWN when the source fills it only by look-up, else absent.
    """

    def known(name: str, value: str | None) -> Value:
        return value if value is not None or name in fills else UNKNOWN

    fields: dict[str, Value] = {"source": source}
    if subject is not None:
        fields["user.id"] = subject.id
        fields["user.login"] = known("user.login", subject.login)
        fields["user.email"] = known("user.email", subject.email)
        fields["user.external_id"] = known("user.external_id", subject.external_id)
    for prefix, pair in (("group", group), ("app", app)):
        if pair is not None:
            fields[f"{prefix}.id"], fields[f"{prefix}.name"] = pair[0], known(f"{prefix}.name", pair[1])
    return fields


def grants(rules: RuleSet, knowledge: Knowledge) -> dict[Resource, list[Grant]]:
    """What the person is entitled to now, and through what."""
    entitled: dict[Resource, list[Grant]] = {}
    gone = {(fact.source, fact.subject) for fact in knowledge.facts if _is_lost_account(fact)}
    if rules.accounts == "any" and some_source_says_inactive(knowledge, gone):
        return entitled
    for fact in knowledge.facts:
        if fact.present and (fact.source, fact.subject) not in gone:
            for resource, rule in _gives(rules, knowledge, fact):
                entitled.setdefault(resource, []).append(Grant(fact, rule))
    return entitled


def plan(
    event: AccessEvent, rules: RuleSet, knowledge: Knowledge, past: Iterable[Fact] = (), *, complete: bool = False
) -> Plan:
    """What a loss takes from a person, rule by rule, before asking what they still have.

    `past` are the facts of the event's own subject (a past id of a person may have none of its own). `complete`: a
    look-up has told all groups that this person has at the event's source.
    """
    subject = _subject_of(event)
    looked_up = subject is not None and any(
        known.looked_up for known in knowledge.subjects if (known.source, known.id) == (subject.source, subject.id)
    )
    fields = fields_of(
        event.source,
        subject,
        rules.told_of(event.source, looked_up=looked_up),
        group=(event.group_id, event.group_name) if event.group_id or event.group_name else None,
        app=(event.app_id, event.app_name) if event.app_id or event.app_name else None,
    )
    facts = tuple(dict.fromkeys([*knowledge.facts, *past]))
    complete = _knows_every_group(rules, event.source, looked_up=complete)
    resources: dict[Resource, tuple[str, ...]] = {}
    steps, incomplete = [], []
    for rule in rules.rules:
        step, unfilled = _apply(rule, event, fields, rules, knowledge, facts, complete=complete)
        steps.append(step)
        incomplete += unfilled
        for resource in step.resources:
            resources[resource] = (*resources.get(resource, ()), rule.name)
    return Plan(resources, tuple(steps), tuple(dict.fromkeys(incomplete)))


def judge(resource: Resource, cause: Cause, knowledge: Knowledge, entitled: Mapping[Resource, list[Grant]]) -> Verdict:
    """Whether a revocation of this resource may go, by what the person has today."""
    given = entitled.get(resource, [])
    if cause.kind is Kind.OPERATOR_REMOVE:
        later = [grant for grant in given if grant.fact.as_of > cause.at]
        return _superseded(later[0]) if later else Verdict(RevocationState.PENDING)
    if cause.kind in ACCOUNT_LOSSES:
        holder = _held_by_another(cause, knowledge)
        if holder is not None:
            return Verdict(
                RevocationState.RETAINED, f"this Velt user is now {holder.id} of {holder.source}, who is active"
            )
    # Also where no known group gives the resource: which groups a person is in may be older than the relay, and what
    # was lost while the account was away has revocations of its own.
    account = _account_back(cause, knowledge)
    if account is not None and (not given or given[0].fact.source == cause.source):
        has = f" and has {given[0]}" if given else ""
        return Verdict(RevocationState.SUPERSEDED, f"the account is active again{has}", account.event_id)
    if not given:
        return Verdict(RevocationState.PENDING)
    same = [grant for grant in given if cause.is_about(grant.fact)]
    if same:
        return _superseded(same[0])
    return Verdict(RevocationState.RETAINED, f"still has {given[0]}")


def _superseded(grant: Grant) -> Verdict:
    return Verdict(RevocationState.SUPERSEDED, f"a newer event gives it back: {grant}", grant.fact.event_id)


def _is_lost_account(fact: Fact) -> bool:
    return fact.object_type is ObjectType.ACCOUNT and not fact.present


def some_source_says_inactive(knowledge: Knowledge, gone: set[tuple[str, str]]) -> bool:
    """A source says so when every account it has of this person is gone (a re-created account is a new subject)."""
    active = {subject.source for subject in knowledge.subjects if (subject.source, subject.id) not in gone}
    return any(source not in active for source, _ in gone)


def _held_by_another(cause: Cause, knowledge: Knowledge) -> Subject | None:
    """The active subject that is this Velt user now although the cause's subject lost their account.

    For the user that the subject still is, only a re-created account of the same source counts: what other sources
    say is the setting `accounts`.
    """
    gone = {(fact.source, fact.subject) for fact in knowledge.facts if _is_lost_account(fact)}
    still_theirs = any((subject.source, subject.id) == (cause.source, cause.subject) for subject in knowledge.subjects)
    for subject in knowledge.subjects:
        is_other = (subject.source, subject.id) != (cause.source, cause.subject)
        counts = subject.source == cause.source or not still_theirs
        if is_other and counts and (subject.source, subject.id) not in gone:
            return subject
    return None


def _account_back(cause: Cause, knowledge: Knowledge) -> Fact | None:
    """The newer activation of the account whose loss is the cause."""
    if cause.kind not in ACCOUNT_LOSSES:
        return None
    return next(
        (fact for fact in knowledge.facts if cause.is_about(fact) and fact.present and fact.as_of > cause.at), None
    )


def _subject_of(event: AccessEvent) -> Subject | None:
    if event.subject is None:
        return None
    return Subject(event.source, event.subject, event.login, event.email, event.external_id)


def _gives(rules: RuleSet, knowledge: Knowledge, fact: Fact) -> Iterable[tuple[Resource, str]]:
    """The resources that a group or app gives, each with its rule; an account by itself gives nothing.

    A rule that takes `everything` is about leaving and gives nothing either.
    """
    if fact.object_type is ObjectType.ACCOUNT:
        return
    known = {(subject.source, subject.id): subject for subject in knowledge.subjects}
    subject = known.get((fact.source, fact.subject), Subject(fact.source, fact.subject))
    pair = (fact.object_id, fact.name)
    fields = fields_of(
        fact.source,
        subject,
        rules.told_of(fact.source, looked_up=subject.looked_up),
        group=pair if fact.object_type is ObjectType.GROUP else None,
        app=pair if fact.object_type is ObjectType.APP else None,
    )
    for rule in rules.rules:
        kind = next((kind for kind in LOSS_OF[fact.object_type] if kind in rule.kinds), None)
        if kind is None or rule.everything:
            continue
        match = rule.match(kind, fields)
        if match.verdict:
            for resource in _filled(rule, fields, match.captures):
                yield resource, rule.name


def _filled(rule: Rule, fields: Fields, captures: Mapping[str, str]) -> list[Resource]:
    values = _texts(fields) | dict(captures)
    return [resource for template in rule.resources if (resource := template.fill(values)) is not None]


def _texts(fields: Fields) -> dict[str, str | None]:
    return {name: value if isinstance(value, str) else None for name, value in fields.items()}


def _knows_every_group(rules: RuleSet, source: str, *, looked_up: bool) -> bool:
    """Whether all is known that a loss at this source can end: where that is all access, the other sources' too."""
    concerned = set(rules.fills) if rules.accounts == "any" else {source}
    return concerned <= rules.complete | ({source} if looked_up else set())


def _apply(
    rule: Rule,
    event: AccessEvent,
    fields: Fields,
    rules: RuleSet,
    knowledge: Knowledge,
    facts: tuple[Fact, ...],
    *,
    complete: bool,
) -> tuple[Step, list[str]]:
    """What one rule makes of a loss, and the names of template rules that `everything` could not fill."""
    match = rule.match(event.kind, fields)
    if match.verdict is None:
        return Step(rule.name, None, f"{', '.join(match.unknown)} is not known without a look-up"), []
    if match.verdict is False:
        return Step(rule.name, False, f"{match.failed} does not match"), []
    if rule.everything:
        taken, unfilled = everything(fields, rules, knowledge, facts, complete=complete)
        because = f"takes everything that any rule gives this person{'' if taken else ', and that is nothing'}"
        return Step(rule.name, True, because, taken), unfilled
    values = _texts(fields) | match.captures
    wanted = frozenset[str]().union(*(template.fields for template in rule.resources))
    missing = sorted(name for name in wanted if fields.get(name) is UNKNOWN)
    taken = tuple(_filled(rule, fields, match.captures))
    if missing:
        return Step(rule.name, None, f"{', '.join(missing)} is not known without a look-up", taken), []
    empty = sorted(name for name in wanted if not values.get(name))
    because = f"matches, but {', '.join(empty)} is empty" if empty else "matches"
    return Step(rule.name, True, because, taken), []


def everything(
    fields: Fields, rules: RuleSet, knowledge: Knowledge, facts: tuple[Fact, ...], *, complete: bool = False
) -> tuple[tuple[Resource, ...], list[str]]:
    """What `revoke: everything` stands for, and the template rules that no known group or app could fill.

    With complete knowledge of the person's groups: what those give, and what rules about apps name. Otherwise what
    known and past ones gave, and every fixed resource of the file: removing what is not there does no harm.
    """
    counted = [fact for fact in facts if fact.present or not complete or fact.event_id is None]  # None: never planned
    given = [pair for fact in counted for pair in _gives(rules, knowledge, fact)]
    taken = dict.fromkeys(resource for resource, _ in given)
    all_apps = fields["source"] in rules.complete  # a look-up tells an app only to whoever asks for it
    unsure = [r for r in rules.rules if not complete or (Kind.APP_ACCESS_REMOVED in r.kinds and not all_apps)]
    taken |= dict.fromkeys(sorted(rules.fixed, key=str) if not complete else ())
    filled = {rule for _, rule in given}
    values, unfilled = _texts(fields), []
    for rule in unsure:
        for template in rule.resources:
            if (resource := template.fill(values)) is not None:
                taken[resource] = None
            elif rule.name not in filled:
                unfilled.append(rule.name)
    return tuple(taken), unfilled

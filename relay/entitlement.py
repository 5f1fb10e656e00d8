"""The heart: from facts and rules to what a person still has, and whether a removal may go. Pure, no I/O.

A fact says that a subject has or lost an account, a group or an app. What a person may still reach is found by running
the rules for every group and app that they still have, as if each were about to be lost: what a rule would take then
is what that group or app gives now. What an event takes is in relay/losses.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from relay.config_checks import USER_FIELDS
from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    LOSSES,
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
from relay.rules import UNKNOWN, Fields, RuleSet, Value

#: The kinds of loss that take a fact of this type away.
LOSS_OF: Mapping[ObjectType, tuple[Kind, ...]] = {
    ObjectType.ACCOUNT: tuple(ACCOUNT_LOSSES),
    ObjectType.GROUP: (Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_DELETED),
    ObjectType.APP: (Kind.APP_ACCESS_REMOVED,),
}


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known about one Velt user: the subjects that are this user now, and their facts."""

    subjects: tuple[Subject, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def lost_accounts(self) -> frozenset[tuple[str, str]]:
        """The keys of the subjects whose account is gone."""
        return frozenset(fact.whose for fact in self.facts if fact.is_lost_account)

    def of(self, sources: Collection[str]) -> Knowledge:
        """What of it is of these sources: one that left relay.yaml is never told the end of anything any more."""
        return Knowledge(
            tuple(subject for subject in self.subjects if subject.source in sources),
            tuple(fact for fact in self.facts if fact.source in sources),
        )

    def subject(self, key: tuple[str, str]) -> Subject | None:
        """The subject with this key, None where it is not this Velt user now."""
        return next((subject for subject in self.subjects if subject.key == key), None)


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
class Given:
    """What a rule gives for a thing: `resource` None where it has to be named by a field that is not there.

    `is_certain`: the rule matches; otherwise it may, by fields that are UNKNOWN.
    """

    rule: str
    resource: Resource | None
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Cause:
    """The loss behind a revocation; `thing` is what was lost, as `Fact.thing`."""

    kind: Kind
    source: str
    subject: str
    thing: tuple[ObjectType, str]
    at: Micros

    def is_about(self, fact: Fact) -> bool:
        """Whether the fact is the very access that this cause took."""
        return fact.key == (self.source, self.subject, *self.thing)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a revocation may go: state `pending` (yes), `retained` or `superseded` (no, and why)."""

    state: RevocationState
    reason: str = ""
    superseded_by: str | None = None


def fact_of(event: AccessEvent, event_id: str, as_of: Micros) -> Fact | None:
    """What an event that counts as of then says about access, None where it says nothing (a change, for example)."""
    if event.subject is None or event.kind not in LOSSES | GAINS:
        return None
    object_type, object_id = event.thing
    names = {ObjectType.ACCOUNT: None, ObjectType.GROUP: event.group_name, ObjectType.APP: event.app_name}
    told = event.occurred_at is not None
    return Fact(
        source=event.source,
        subject=event.subject,
        object_type=object_type,
        object_id=object_id,
        present=event.kind in GAINS,
        as_of=as_of,
        basis=Basis.SOURCE if told else Basis.ARRIVAL,
        name=names[object_type],
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

    A field without a value is UNKNOWN when the source fills it only by look-up, else absent. `subject` None: anybody,
    whose own fields are UNKNOWN.
    """

    def known(name: str, value: str | None) -> Value:
        return value if value is not None or name in fills else UNKNOWN

    fields: dict[str, Value] = {"source": source} | dict.fromkeys(USER_FIELDS, UNKNOWN)
    if subject is not None:
        fields["user.id"] = subject.id
        fields["user.login"] = known("user.login", subject.login)
        fields["user.email"] = known("user.email", subject.email)
        fields["user.external_id"] = known("user.external_id", subject.external_id)
    for prefix, pair in (("group", group), ("app", app)):
        if pair is not None:
            fields[f"{prefix}.id"], fields[f"{prefix}.name"] = pair[0], known(f"{prefix}.name", pair[1])
    return fields


def fields_of_event(event: AccessEvent, subject: Subject | None, fills: frozenset[str]) -> Fields:
    """The fields of an event that tells of this subject, or (None) of a whole group or app."""
    return fields_of(
        event.source,
        subject,
        fills,
        group=(event.group_id, event.group_name) if event.group_id or event.group_name else None,
        app=(event.app_id, event.app_name) if event.app_id or event.app_name else None,
    )


def given_for(
    rules: RuleSet, source: str, thing: tuple[ObjectType, str], name: str | None, subject: Subject | None
) -> Iterator[Given]:
    """What the rules give a subject, or (None) whoever has it, for an account, a group or an app (its name is `name`).

    That is what they would take if it were lost. A rule that takes `everything` is about leaving and gives nothing.
    """
    object_type, object_id = thing
    fields = fields_of(
        source,
        subject,
        rules.told_of(source, looked_up=subject is not None and subject.looked_up),
        group=(object_id, name) if object_type is ObjectType.GROUP else None,
        app=(object_id, name) if object_type is ObjectType.APP else None,
    )
    for rule in rules.rules:
        kind = next((kind for kind in LOSS_OF[object_type] if kind in rule.kinds), None)
        if kind is None or rule.everything:
            continue
        match = rule.match(kind, fields)
        if match.verdict is not False:
            values = texts(fields) | match.captures
            for template in rule.resources:
                yield Given(rule.name, template.fill(values), bool(match.verdict))


def texts(fields: Fields) -> dict[str, str | None]:
    """The fields as templates take them: what is UNKNOWN is not there."""
    return {name: value if isinstance(value, str) else None for name, value in fields.items()}


def gives(rules: RuleSet, knowledge: Knowledge, fact: Fact) -> Iterator[tuple[Resource, str]]:
    """The resources that a group or app gives, each with its rule; an account by itself gives nothing."""
    if fact.object_type is ObjectType.ACCOUNT:
        return
    subject = knowledge.subject(fact.whose) or Subject(*fact.whose)
    for given in given_for(rules, fact.source, fact.thing, fact.name, subject):
        if given.is_certain and given.resource is not None:
            yield given.resource, given.rule


def grants(rules: RuleSet, knowledge: Knowledge) -> dict[Resource, list[Grant]]:
    """What the person is entitled to now by the sources in relay.yaml, and through what."""
    knowledge = knowledge.of(rules.fills)
    entitled: dict[Resource, list[Grant]] = {}
    gone = knowledge.lost_accounts
    if rules.accounts == "any" and some_source_says_inactive(knowledge, gone):
        return entitled
    for fact in knowledge.facts:
        if fact.present and fact.whose not in gone:
            for resource, rule in gives(rules, knowledge, fact):
                entitled.setdefault(resource, []).append(Grant(fact, rule))
    return entitled


def some_source_says_inactive(knowledge: Knowledge, gone: Collection[tuple[str, str]]) -> bool:
    """A source says so when every account it has of this person is gone (a re-created account is a new subject)."""
    active = {subject.source for subject in knowledge.subjects if subject.key not in gone}
    return any(source not in active for source, _ in gone)


def judge(resource: Resource, cause: Cause, knowledge: Knowledge, entitled: Mapping[Resource, list[Grant]]) -> Verdict:
    """Whether a revocation of this resource may go, by what the person has today: `entitled`, as `grants` tells it.

    `knowledge` is of the sources in relay.yaml. What an operator removes only a gain after that gives back, so that for
    it the facts of `entitled` are dated by when they were gained, and not by when they were last told.
    """
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


def _held_by_another(cause: Cause, knowledge: Knowledge) -> Subject | None:
    """The active subject that is this Velt user now although the cause's subject lost their account.

    For the user that the subject still is, only a re-created account of the same source counts: what other sources
    say is the setting `accounts`.
    """
    gone, whose = knowledge.lost_accounts, (cause.source, cause.subject)
    still_theirs = knowledge.subject(whose) is not None
    for subject in knowledge.subjects:
        counts = subject.source == cause.source or not still_theirs
        if subject.key != whose and counts and subject.key not in gone:
            return subject
    return None


def _account_back(cause: Cause, knowledge: Knowledge) -> Fact | None:
    """The newer activation of the account whose loss is the cause."""
    if cause.kind not in ACCOUNT_LOSSES:
        return None
    return next(
        (fact for fact in knowledge.facts if cause.is_about(fact) and fact.present and fact.as_of > cause.at), None
    )

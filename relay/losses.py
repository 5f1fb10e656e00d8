"""What an event takes from a person, rule by rule, before it is asked what they still have. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from relay.entitlement import Knowledge, fields_of_event, gives, texts
from relay.model import AccessEvent, Fact, Kind, Micros, Resource, Subject
from relay.rules import UNKNOWN, Fields, Rule, RuleSet

#: Nothing was ever removed from the person, or it does not matter.
NOTHING: Mapping[Resource, Micros] = {}


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

    def only(self, wanted: Collection[Resource]) -> Plan:
        """What of it takes these resources."""
        resources = {resource: names for resource, names in self.resources.items() if resource in wanted}
        steps = (replace(step, resources=tuple(one for one in step.resources if one in wanted)) for step in self.steps)
        return replace(self, resources=resources, steps=tuple(steps))

    @property
    def open_questions(self) -> tuple[str, ...]:
        """A sentence for each rule that could not be decided."""
        return tuple(f"rule {step.rule!r}: {step.because}" for step in self.steps if step.verdict is None)


def plan(
    event: AccessEvent,
    rules: RuleSet,
    knowledge: Knowledge,
    past: Iterable[Fact] = (),
    *,
    complete: bool = False,
    taken: Mapping[Resource, Micros] = NOTHING,
) -> Plan:
    """What a loss takes from a person, rule by rule.

    `past` are the facts of the event's own subject (a past id of a person may have none of its own). `complete`: a
    look-up has told all groups that this person has at the event's source. `taken`: when what was removed from the
    person was planned last.
    """
    subject = _subject_of(event)
    known = knowledge.subject(subject.key) if subject is not None else None
    fields = fields_of_event(
        event, subject, rules.told_of(event.source, looked_up=known is not None and known.looked_up)
    )
    facts = tuple(dict.fromkeys([*knowledge.facts, *past]))
    complete = _knows_every_group(rules, event.source, looked_up=complete)
    resources: dict[Resource, tuple[str, ...]] = {}
    steps, incomplete = [], []
    for rule in rules.rules:
        step, unfilled = _apply(rule, event, fields, rules, knowledge, facts, complete=complete, taken=taken)
        steps.append(step)
        incomplete += unfilled
        for resource in step.resources:
            resources[resource] = (*resources.get(resource, ()), rule.name)
    return Plan(resources, tuple(steps), tuple(dict.fromkeys(incomplete)))


def everything(
    fields: Fields,
    rules: RuleSet,
    knowledge: Knowledge,
    facts: tuple[Fact, ...],
    *,
    complete: bool = False,
    taken: Mapping[Resource, Micros] = NOTHING,
) -> tuple[tuple[Resource, ...], list[str]]:
    """What `revoke: everything` stands for, and the template rules that no known group or app could fill.

    With complete knowledge of the person's groups: what those give, what lost ones gave and was never taken (somebody
    rejected it, or no rule was about it then), and what rules about apps name. Otherwise what known and past ones gave,
    and every fixed resource of the file: removing what is not there does no harm.
    """
    given = [
        (resource, rule)
        for fact in facts
        for resource, rule in gives(rules, knowledge, fact)
        if fact.present or not complete or taken.get(resource, 0) < fact.as_of
    ]
    going = dict.fromkeys(resource for resource, _ in given)
    all_apps = fields["source"] in rules.complete  # a look-up tells an app only to whoever asks for it
    unsure = [r for r in rules.rules if not complete or (Kind.APP_ACCESS_REMOVED in r.kinds and not all_apps)]
    going |= dict.fromkeys(sorted(rules.fixed, key=str) if not complete else ())
    filled = {rule for _, rule in given}
    values, unfilled = texts(fields), []
    for rule in unsure:
        for template in rule.resources:
            if (resource := template.fill(values)) is not None:
                going[resource] = None
            elif rule.name not in filled:
                unfilled.append(rule.name)
    return tuple(going), unfilled


def _subject_of(event: AccessEvent) -> Subject | None:
    if event.subject is None:
        return None
    return Subject(event.source, event.subject, event.login, event.email, event.external_id)


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
    taken: Mapping[Resource, Micros],
) -> tuple[Step, list[str]]:
    """What one rule makes of a loss, and the names of template rules that `everything` could not fill."""
    match = rule.match(event.kind, fields)
    if match.verdict is None:
        return Step(rule.name, None, f"{', '.join(match.unknown)} is not known without a look-up"), []
    if match.verdict is False:
        return Step(rule.name, False, f"{match.failed} does not match"), []
    if rule.everything:
        going, unfilled = everything(fields, rules, knowledge, facts, complete=complete, taken=taken)
        because = f"takes everything that any rule gives this person{'' if going else ', and that is nothing'}"
        return Step(rule.name, True, because, going), unfilled
    values = texts(fields) | match.captures
    wanted = frozenset[str]().union(*(template.fields for template in rule.resources))
    missing = sorted(name for name in wanted if fields.get(name) is UNKNOWN)
    going = tuple(resource for template in rule.resources if (resource := template.fill(values)) is not None)
    if missing:
        return Step(rule.name, None, f"{', '.join(missing)} is not known without a look-up", going), []
    empty = sorted(name for name in wanted if not values.get(name))
    because = f"matches, but {', '.join(empty)} is empty" if empty else "matches"
    return Step(rule.name, True, because, going), []

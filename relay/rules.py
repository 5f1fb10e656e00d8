"""Rules of relay.yaml, compiled: which events they match and which Velt resources they name. Pure.

A field has three states here: a text, absent (None), or UNKNOWN: the source cannot fill it without a look-up. A
condition on an unknown field is neither true nor false, and whoever asks has to wait or to say what to configure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from relay.config_checks import DIRECTORY_KEYS, has_directory
from relay.model import LOSSES, SECOND, Guard, Kind, Micros, Resource
from relay.patterns import Template, compile_regex


class _Unknown:
    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = _Unknown()

Value = str | None | _Unknown
Fields = Mapping[str, Value]
Captures = dict[str, str]
Test = Callable[[str | None], Captures | None]


@dataclass(frozen=True, slots=True)
class Condition:
    """One line of `when`: a field and the tests of which any must hold."""

    field: str
    tests: tuple[Test, ...]

    def captures(self, value: str | None) -> Captures | None:
        """The named groups of the first test that holds ({} without groups), None where no test holds."""
        for test in self.tests:
            found = test(value)
            if found is not None:
                return found
        return None


@dataclass(frozen=True, slots=True)
class ResourceTemplate:
    """A resource whose ids may hold holes such as `{doc}`."""

    type: str
    id: Template
    organization_id: Template | None

    @property
    def fixed(self) -> Resource | None:
        """The resource itself where nothing is to be filled in."""
        return self.fill({}) if not self.fields else None

    @property
    def fields(self) -> frozenset[str]:
        return self.id.fields | (self.organization_id.fields if self.organization_id else frozenset())

    def fill(self, values: Mapping[str, str | None]) -> Resource | None:
        """The resource with its holes filled, None where a value is missing."""
        identifier = self.id.render(values)
        organization = self.organization_id.render(values) if self.organization_id else None
        if identifier is None or (self.organization_id and organization is None):
            return None
        return Resource(self.type, identifier, organization)


@dataclass(frozen=True, slots=True)
class Match:
    """How a rule took an event: `verdict` True, False (`failed` is the field that said no), or None while the
    `unknown` fields leave it open."""

    verdict: bool | None
    captures: Captures
    unknown: tuple[str, ...] = ()
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """`max_resources`: an event that takes more by this rule from one person waits for approval; None: no limit."""

    name: str
    kinds: frozenset[Kind]
    conditions: tuple[Condition, ...]
    resources: tuple[ResourceTemplate, ...]
    everything: bool
    max_resources: int | None = None

    def match(self, kind: Kind, fields: Fields) -> Match:
        """Whether the rule applies to an event of this kind with these fields."""
        if kind not in self.kinds:
            return Match(False, {}, failed="kind")
        captures: Captures = {}
        unknown = []
        for condition in self.conditions:
            value = fields.get(condition.field)
            if isinstance(value, _Unknown):
                unknown.append(condition.field)
                continue
            found = condition.captures(value)
            if found is None:
                return Match(False, {}, failed=condition.field)
            captures.update(found)
        return Match(None, captures, tuple(unknown)) if unknown else Match(True, captures)


@dataclass(frozen=True, slots=True)
class Identity:
    """How a Velt user id is made: exceptions by IdP id or login first, then the first template that can be filled.

    `askable`: the sources that could be asked for more and have no credentials for it.
    """

    templates: tuple[Template, ...]
    exceptions: Mapping[str, str]
    askable: frozenset[str] = frozenset()

    def velt_user_id(self, fields: Fields) -> tuple[str | None, str]:
        """The Velt user id, or None and a sentence that says what is missing.

        A later template is used only when an earlier one's field is truly absent: while a field is UNKNOWN (a
        look-up could still tell) the answer is None.
        """
        for key in ("user.id", "user.login"):
            exception = self.exceptions.get(_text(fields.get(key)) or "")
            if exception:
                return exception, ""
        for template in self.templates:
            unknown = [name for name in sorted(template.fields) if isinstance(fields.get(name), _Unknown)]
            if unknown:
                return None, f"{', '.join(unknown)} of this person is not known"
            made = template.render({name: _text(value) for name, value in fields.items()})
            if made:
                return made, ""
        wanted = ", ".join(template.text for template in self.templates)
        known = ", ".join(sorted(name for name, value in fields.items() if name.startswith("user.") and _text(value)))
        ways = "add a template that it can fill, or an exception in identity.map"
        if fields.get("source") in self.askable:
            ways = ways.replace(", or", ",") + ", or credentials for look-ups"
        told = f"identity.velt_user_id wants {wanted}, the event tells {known or 'no user'}"
        return None, f"no Velt user id can be made: {told}; {ways}"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything of relay.yaml that planning needs.

    `fixed`: every resource of the file without a hole. `accounts`: whether an inactive account of `any` source ends
    all access or only that of the `same_source`. `fills`: the fields that events of each source carry. `looked_up`:
    the fields that a look-up adds, for each source with a directory. `complete`: the sources whose group facts are
    known to be all there are. `terse`: the sources with a directory whose messages tell half: direct members only, and
    of an account that it changed. `guard`: how many people may lose something, and within which time, before somebody
    has to approve. `patience`: how long failing look-ups may hold an event.
    """

    rules: tuple[Rule, ...]
    fixed: frozenset[Resource]
    identity: Identity
    version: str = ""
    accounts: str = "any"
    fills: Mapping[str, frozenset[str]] = field(default_factory=dict)
    looked_up: Mapping[str, frozenset[str]] = field(default_factory=dict)
    complete: frozenset[str] = frozenset()
    terse: frozenset[str] = frozenset()
    guard: Guard | None = None
    patience: Micros = 900 * SECOND

    def told_of(self, source: str, *, looked_up: bool) -> frozenset[str]:
        """The fields that are known of a person of this source, so that one without a value is truly absent."""
        told = self.fills.get(source, frozenset())
        # A group's name is told group by group: one without a name is not known, however much is known of its people.
        people = (name for name in self.looked_up.get(source, ()) if name.startswith("user."))
        return told.union(people) if looked_up else told

    def reads(self, field: str) -> bool:
        """Whether any rule goes by this field."""
        return any(
            field in {condition.field for condition in rule.conditions}
            or any(field in template.fields for template in rule.resources)
            for rule in self.rules
        )


def _text(value: Value) -> str | None:
    return value if isinstance(value, str) else None


def compile_rules(
    document: Mapping[str, Any],
    *,
    version: str = "",
    exceptions: Mapping[str, str] | None = None,
    fills: Mapping[str, frozenset[str]] | None = None,
    looked_up: Mapping[str, frozenset[str]] | None = None,
    complete: Iterable[str] = (),
    terse: Iterable[str] = (),
    guard: Guard | None = None,
    patience: Micros = 900 * SECOND,
) -> RuleSet:
    """The rules of a validated relay.yaml (schemas/config.schema.json).

    `fills`, `looked_up`, `complete` and `terse` are as in RuleSet; the file itself does not tell them.
    """
    lists = {
        name: tuple(_resource(entry) for entry in entries) for name, entries in (document.get("lists") or {}).items()
    }
    rules = tuple(_rule(rule, lists) for rule in document.get("rules") or ())
    templates = [template for rule in rules for template in rule.resources]
    templates += [template for entries in lists.values() for template in entries]
    wanted = tuple(Template.parse(text) for text in document["identity"]["velt_user_id"])
    return RuleSet(
        rules=rules,
        fixed=frozenset(resource for template in templates if (resource := template.fixed) is not None),
        identity=Identity(wanted, dict(exceptions or {}), _askable(document)),
        version=version,
        accounts=document.get("accounts", "any"),
        fills=dict(fills or {}),
        looked_up=dict(looked_up or {}),
        complete=frozenset(complete),
        terse=frozenset(terse),
        guard=guard,
        patience=patience,
    )


def _askable(document: Mapping[str, Any]) -> frozenset[str]:
    sources = document.get("sources") or {}
    return frozenset(
        name for name, source in sources.items() if source["type"] in DIRECTORY_KEYS and not has_directory(source)
    )


def _rule(rule: Mapping[str, Any], lists: Mapping[str, tuple[ResourceTemplate, ...]]) -> Rule:
    when = dict(rule.get("when") or {})
    kinds = frozenset(Kind(kind) for kind in _as_list(when.pop("kind"))) if "kind" in when else LOSSES
    revoke = rule["revoke"]
    everything = revoke == "everything"
    return Rule(
        name=rule["name"],
        kinds=kinds,
        conditions=tuple(Condition(field, tuple(_test(t) for t in _as_list(tests))) for field, tests in when.items()),
        resources=() if everything else tuple(_expand(revoke, lists)),
        everything=everything,
        max_resources=rule.get("max_resources"),
    )


def _expand(
    entries: Iterable[Mapping[str, Any]], lists: Mapping[str, tuple[ResourceTemplate, ...]]
) -> Iterable[ResourceTemplate]:
    for entry in entries:
        if "list" in entry:
            yield from lists[entry["list"]]
        else:
            yield _resource(entry)


def _resource(entry: Mapping[str, Any]) -> ResourceTemplate:
    organization = entry.get("organizationId")
    return ResourceTemplate(
        entry["type"], Template.parse(entry["id"]), Template.parse(organization) if organization else None
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _test(test: str | Mapping[str, Any]) -> Test:
    if isinstance(test, str):
        return _when(lambda value: value == test)
    (operator, operand), *_ = test.items()
    return _OPERATORS[operator](operand)


def _when(holds: Callable[[str], bool]) -> Test:
    """A test without named groups; an absent value never passes."""
    return lambda value: {} if value is not None and holds(value) else None


def _regex(text: str) -> Test:
    pattern = compile_regex(text)

    def test(value: str | None) -> Captures | None:
        found = pattern.fullmatch(value) if value is not None else None
        return {name: text for name, text in found.groupdict().items() if text} if found else None

    return test


def _wildcard(pattern: str) -> Test:
    """`*` stands for any run of characters; every other character for itself."""
    parts = pattern.split("*")
    regex = compile_regex("(?s)" + ".*".join(_quote(part) for part in parts))
    return _when(lambda value: regex.fullmatch(value) is not None)


def _quote(literal: str) -> str:
    return "".join(char if char.isalnum() or ord(char) > 127 else f"\\x{{{ord(char):x}}}" for char in literal)


def _exists(wanted: bool) -> Test:
    return lambda value: {} if (value is not None) == wanted else None


def _anything_but(literals: str | list[str]) -> Test:
    excluded = frozenset(_as_list(literals))
    return _when(lambda value: value not in excluded)


_OPERATORS: Mapping[str, Callable[[Any], Test]] = {
    "prefix": lambda operand: _when(lambda value: value.startswith(operand)),
    "suffix": lambda operand: _when(lambda value: value.endswith(operand)),
    "equals-ignore-case": lambda operand: _when(lambda value: value.casefold() == operand.casefold()),
    "wildcard": _wildcard,
    "regex": _regex,
    "exists": _exists,
    "anything-but": _anything_but,
}

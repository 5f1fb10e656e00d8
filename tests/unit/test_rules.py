"""Rules: every operator on every kind of value, templates, and who is whose Velt user."""

from __future__ import annotations

from typing import Any

import pytest

from relay.model import LOSSES, Kind, Resource
from relay.patterns import Template, compile_regex
from relay.rules import UNKNOWN, Rule, compile_rules
from tests.people import rules

FIELD = "group.name"


def rule(test: Any, revoke: Any = "everything", field: str = FIELD) -> Rule:
    return rules({"name": "r", "when": {field: test}, "revoke": revoke}).rules[0]


def verdict(test: Any, value: Any) -> bool | None:
    return rule(test).match(Kind.GROUP_MEMBER_REMOVED, {FIELD: value}).verdict


@pytest.mark.parametrize(
    ("test", "holds", "fails"),
    [
        ("Eng", ["Eng"], ["eng", "Eng ", "En", ""]),
        (["Eng", "Ops"], ["Eng", "Ops"], ["Sales"]),
        ([{"prefix": "eng-"}], ["eng-", "eng-eu"], ["Eng-eu", "an eng-eu", "eng"]),
        ([{"suffix": "-eu"}], ["-eu", "eng-eu"], ["eng-EU", "eng-eu-1"]),
        ([{"equals-ignore-case": "Straße"}], ["STRASSE", "straße"], ["Strase"]),
        ([{"anything-but": ["a", "b"]}], ["c", "A", ""], ["a", "b"]),
        ([{"anything-but": "a"}], ["b"], ["a"]),
        ([{"regex": "eng-[0-9]+"}], ["eng-1"], ["eng-", "an eng-1", "eng-1 ", "eng-1\n", "ENG-1"]),
        ([{"regex": "a|ab"}], ["a", "ab"], ["abc"]),
        ([{"prefix": "x"}, {"suffix": "y"}, "z"], ["x1", "1y", "z"], ["1"]),
    ],
)
def test_an_operator_takes_and_leaves(test: Any, holds: list[str], fails: list[str]) -> None:
    assert {value: verdict(test, value) for value in holds} == dict.fromkeys(holds, True)
    assert {value: verdict(test, value) for value in fails} == dict.fromkeys(fails, False)


@pytest.mark.parametrize(
    ("pattern", "holds", "fails"),
    [
        ("eng-*-eu", ["eng--eu", "eng-a-b-eu"], ["eng-eu", "xeng-a-eu", "eng-a-eux"]),
        ("a.b", ["a.b"], ["axb"]),
        ("*[a]+(b)?{2}|^$\\d*", ["[a]+(b)?{2}|^$\\d", "x[a]+(b)?{2}|^$\\dx"], ["a", "", "xa"]),
        ("*", ["", "anything", "two\nlines"], []),
        ("ü*é", ["üé", "ü-é"], ["ue", "Üé"]),
        ("a*a", ["aa", "aba"], ["a"]),
        ("**", ["", "x"], []),
    ],
)
def test_a_wildcard_has_one_special_character(pattern: str, holds: list[str], fails: list[str]) -> None:
    assert {value: verdict([{"wildcard": pattern}], value) for value in holds} == dict.fromkeys(holds, True)
    assert {value: verdict([{"wildcard": pattern}], value) for value in fails} == dict.fromkeys(fails, False)


OPERATORS: list[Any] = [
    "a",
    {"prefix": "a"},
    {"suffix": "a"},
    {"equals-ignore-case": "a"},
    {"anything-but": ["a"]},
    {"regex": ".*"},
    {"wildcard": "*"},
    {"exists": True},
]


@pytest.mark.parametrize("test", OPERATORS, ids=str)
def test_an_absent_field_passes_no_operator_but_exists_false(test: Any) -> None:
    assert verdict([test], None) is False
    assert rule([test]).match(Kind.GROUP_MEMBER_REMOVED, {}).verdict is False


@pytest.mark.parametrize("test", [*OPERATORS, {"exists": False}], ids=str)
def test_an_unknown_field_is_neither_true_nor_false(test: Any) -> None:
    match = rule([test]).match(Kind.GROUP_MEMBER_REMOVED, {FIELD: UNKNOWN})
    assert (match.verdict, match.unknown, match.failed) == (None, (FIELD,), None)


def test_exists_asks_whether_there_is_a_value() -> None:
    assert [verdict([{"exists": wanted}], value) for wanted in (True, False) for value in ("a", None)] == [
        True,
        False,
        False,
        True,
    ]


def test_all_fields_must_match() -> None:
    both = rules({"name": "r", "when": {"source": "okta", "group.id": "g"}, "revoke": "everything"}).rules[0]
    assert both.match(Kind.GROUP_DELETED, {"source": "okta", "group.id": "g"}).verdict
    assert both.match(Kind.GROUP_DELETED, {"source": "okta", "group.id": "h"}).failed == "group.id"
    assert both.match(Kind.GROUP_DELETED, {"source": "scim", "group.id": "g"}).failed == "source"


@pytest.mark.parametrize("order", [("group.name", "group.id"), ("group.id", "group.name")])
def test_a_known_no_beats_an_unknown_whatever_the_order(order: tuple[str, str]) -> None:
    made = rules({"name": "r", "when": dict.fromkeys(order, "g"), "revoke": "everything"}).rules[0]
    assert made.match(Kind.GROUP_DELETED, {"group.name": UNKNOWN, "group.id": "h"}).verdict is False


def test_the_kind_is_part_of_the_condition() -> None:
    made = rules({"name": "r", "when": {"kind": "account.deleted"}, "revoke": "everything"}).rules[0]
    assert made.match(Kind.ACCOUNT_DELETED, {}).verdict
    assert made.match(Kind.ACCOUNT_SUSPENDED, {}).failed == "kind"


def test_a_rule_without_a_kind_is_for_every_loss_and_no_gain() -> None:
    made = rules({"name": "r", "when": {}, "revoke": "everything"}).rules[0]
    assert made.kinds == LOSSES
    assert made.match(Kind.GROUP_MEMBER_ADDED, {}).verdict is False


def test_named_groups_become_fields_and_an_optional_one_may_be_missing() -> None:
    made = rule([{"regex": r"velt-(?P<org>[a-z]+)(-doc-(?P<doc>.+))?"}])
    assert made.match(Kind.GROUP_DELETED, {FIELD: "velt-acme-doc-d 1"}).captures == {"org": "acme", "doc": "d 1"}
    assert made.match(Kind.GROUP_DELETED, {FIELD: "velt-acme"}).captures == {"org": "acme"}


def test_a_named_group_that_is_empty_is_missing() -> None:
    assert rule([{"regex": "x(?P<doc>.*)"}]).match(Kind.GROUP_DELETED, {FIELD: "x"}).captures == {}


def test_the_first_test_that_holds_gives_the_groups() -> None:
    made = rule([{"regex": "(?P<first>a.*)"}, {"regex": "(?P<second>.*)"}])
    assert made.match(Kind.GROUP_DELETED, {FIELD: "ab"}).captures == {"first": "ab"}
    assert made.match(Kind.GROUP_DELETED, {FIELD: "b"}).captures == {"second": "b"}


def test_a_pattern_that_re2_refuses_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="missing"):
        compile_regex("(")


def test_a_pattern_that_would_hold_up_others_elsewhere_does_not() -> None:
    assert compile_regex("(a*)*b").fullmatch("a" * 5000) is None


@pytest.mark.parametrize(
    ("text", "values", "made"),
    [
        ("plain", {}, "plain"),
        ("{a}", {"a": "1"}, "1"),
        ("x-{a}-{user.id}", {"a": "1", "user.id": "{b}"}, "x-1-{b}"),
        ("{{{a}}}", {"a": "1"}, "{1}"),
        ("{a}", {"a": None}, None),
        ("{a}", {"a": ""}, None),
        ("{a}{b}", {"a": "1"}, None),
        ("{{}}", {}, "{}"),
    ],
)
def test_a_template_is_filled_whole_or_not_at_all(text: str, values: dict[str, str | None], made: str | None) -> None:
    assert Template.parse(text).render(values) == made


@pytest.mark.parametrize("text", ["{", "}", "{}", "{a!r}", "{a:>9}", "{a", "a}b"])
def test_a_template_with_odd_braces_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ by mistake
        Template.parse(text)


def test_a_template_tells_its_fields() -> None:
    assert Template.parse("{a}{{b}}{user.id}{a}").fields == {"a", "user.id"}


def test_a_resource_is_fixed_only_without_holes() -> None:
    made = compile_rules(
        {
            "identity": {"velt_user_id": ["{user.id}"]},
            "lists": {
                "used": [
                    {"type": "organization", "id": "acme"},
                    {"type": "folder", "id": "f", "organizationId": "{o}"},
                ],
                "unused": [{"type": "document", "id": "d", "organizationId": "acme"}],
            },
            "rules": [{"name": "r", "when": {}, "revoke": [{"list": "used"}, {"type": "organization", "id": "{o}"}]}],
        }
    )
    assert made.fixed == {Resource("organization", "acme"), Resource("document", "d", "acme")}
    assert len(made.rules[0].resources) == 3


@pytest.mark.parametrize("missing", ["doc", "org"])
def test_a_resource_with_one_unfilled_hole_is_none(missing: str) -> None:
    template = rule("x", [{"type": "document", "id": "{doc}", "organizationId": "{org}"}]).resources[0]
    values: dict[str, str | None] = {"doc": "d", "org": "o"}
    assert template.fill(values) == Resource("document", "d", "o")
    assert template.fill(values | {missing: None}) is None


# --- identity


OKTA, ENTRA, SCIM = {"type": "okta"}, {"type": "entra"}, {"type": "scim"}


@pytest.mark.parametrize(
    ("source", "helps"),
    [(OKTA, True), (ENTRA, True), (SCIM, False), (OKTA | {"api": {}}, False), (ENTRA | {"graph": {}}, False)],
)
def test_credentials_are_advised_only_where_they_are_lacking(source: dict[str, Any], helps: bool) -> None:
    document = {"sources": {"s": source}, "identity": {"velt_user_id": ["{user.email}"]}}
    made, why = compile_rules(document).identity.velt_user_id({"source": "s", "user.id": "1"})
    assert made is None
    assert why.endswith(
        "add a template that it can fill, an exception in identity.map, or credentials for look-ups"
        if helps
        else "add a template that it can fill, or an exception in identity.map"
    )


def velt_user(templates: list[str], exceptions: dict[str, str] | None = None, **user: Any) -> tuple[str | None, str]:
    fields = {f"user.{name}": value for name, value in user.items()} | {"source": "okta"}
    return rules(identity=templates, exceptions=exceptions or {}).identity.velt_user_id(fields)


def test_the_first_template_that_can_be_filled_is_the_velt_user() -> None:
    assert velt_user(["{user.email}", "{user.login}"], id="1", email="e", login="l")[0] == "e"
    assert velt_user(["{user.email}", "{user.login}"], id="1", email=None, login="l")[0] == "l"
    assert velt_user(["u-{user.id}"], id="1")[0] == "u-1"


def test_an_unknown_field_never_falls_through_to_a_later_template() -> None:
    made, reason = velt_user(["{user.email}", "{user.login}"], id="1", email=UNKNOWN, login="l")
    assert made is None
    assert reason == "user.email of this person is not known"


def test_an_unknown_field_of_a_later_template_does_no_harm() -> None:
    assert velt_user(["{user.login}", "{user.email}"], id="1", email=UNKNOWN, login="l")[0] == "l"


def test_exceptions_by_id_come_before_those_by_login_and_before_templates() -> None:
    exceptions = {"1": "by-id", "l": "by-login"}
    assert velt_user(["{user.id}"], exceptions, id="1", login="l")[0] == "by-id"
    assert velt_user(["{user.id}"], exceptions, id="2", login="l")[0] == "by-login"
    assert velt_user(["{user.id}"], exceptions, id="2", login="m")[0] == "2"


def test_an_exception_counts_even_where_a_template_would_wait() -> None:
    assert velt_user(["{user.email}"], {"1": "x"}, id="1", email=UNKNOWN)[0] == "x"


def test_nobody_says_what_is_wanted_and_what_is_told() -> None:
    made, reason = velt_user(["{user.email}"], id="1", login="l", email=None)
    assert made is None
    assert "wants {user.email}, the event tells user.id, user.login" in reason

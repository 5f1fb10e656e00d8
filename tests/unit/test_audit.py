"""Who has access without being entitled to it: the comparison."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay import audit
from relay.access import Access
from relay.audit import Comparison, Person, Scope, Tally, Thing
from relay.entitlement import Knowledge
from relay.model import Basis, Fact, ObjectType, Resource, Subject
from relay.rules import RuleSet
from tests.people import ACME, CHAT, D1, NOON, rules, small_rules

EDITOR, NOTHING = Access("editor"), Access(error_code="permission_denied", error="no access")
GROUPS = [Thing("okta", ObjectType.GROUP, name) for name in ("eng", "sales")]
DENIED = {ACME: NOTHING, D1: NOTHING, CHAT: NOTHING}


def fact(subject: str, object_id: str, *, present: bool = True, source: str = "okta") -> Fact:
    object_type = {"": ObjectType.ACCOUNT, "chat": ObjectType.APP}.get(object_id, ObjectType.GROUP)
    return Fact(source, subject, object_type, object_id, present, NOON, Basis.SOURCE, object_id.title() or None)


def person(*groups: str, past: tuple[Fact, ...] = (), source: str = "okta", unlisted: tuple[str, ...] = ()) -> Person:
    """Ada, who is in these groups and in force."""
    facts = tuple(fact("ada", group, source=source) for group in ("", *groups))
    subject = Subject(source, "ada", "ada", "ada@acme.example", looked_up=True)
    return Person("ada", Knowledge((subject,), facts), past, (), unlisted)


def compare(who: Person, access: dict[Resource, Access], given: RuleSet | None = None, **more: object) -> Comparison:
    comparison = Comparison(Scope(given or small_rules(), more.pop("things", GROUPS), more.pop("unlisted", ())))  # type: ignore[arg-type]
    comparison.add(who, access, access, more.pop("failed", None))  # type: ignore[arg-type]
    return comparison


def extra(comparison: Comparison) -> dict[Resource, str]:
    return {one.resource: one.why for one in comparison.extra}


def test_who_has_what_the_groups_give_is_in_order() -> None:
    found = compare(person("eng"), {**DENIED, ACME: EDITOR, D1: EDITOR})
    assert (found.extra, found.missing, found.unanswered) == ([], [], [])
    assert found.tallies[D1] == Tally(asked=1, holders=1)


def test_access_that_no_group_gives_is_extra() -> None:
    found = compare(person("sales"), {**DENIED, ACME: EDITOR, D1: EDITOR})
    assert extra(found) == {ACME: "in no group or app that gives it"}
    assert (found.extra[0].role, found.extra[0].doubt) == ("editor", None)


def test_an_entitlement_without_access_is_missing() -> None:
    (one,) = compare(person("sales"), DENIED).missing
    assert (one.resource, one.because) == (D1, "has group Sales (okta), rule 'sales'")


def test_why_tells_what_was_lost_and_when() -> None:
    past = (fact("ada", "eng", present=False), fact("ada", "unrelated", present=False))
    found = compare(person(past=past), {**DENIED, ACME: EDITOR})
    assert extra(found) == {ACME: "lost group Eng (okta) on 2026-09-21"}


def test_why_tells_of_a_loss_that_no_message_told() -> None:
    found = compare(person(past=(fact("ada", "eng"),)), {**DENIED, ACME: EDITOR})
    assert extra(found) == {ACME: "no longer has group Eng (okta), which no message told"}


def test_who_is_not_in_force_is_entitled_to_nothing() -> None:
    known = Knowledge((Subject("okta", "ada"),), (fact("ada", "", present=False), fact("ada", "eng")))
    found = compare(Person("ada", known, troubles=("the account ada of okta is suspended",)), {**DENIED, D1: EDITOR})
    assert extra(found) == {D1: "the account ada of okta is suspended"}
    assert found.missing == []


@pytest.mark.parametrize(("accounts", "expected"), [("any", {D1}), ("same_source", set())])
def test_one_inactive_account_of_two(accounts: str, expected: set[Resource]) -> None:
    subjects = (Subject("okta", "ada"), Subject("scim", "7"))
    facts = (fact("ada", "", present=False), fact("7", "", source="scim"), fact("7", "sales", source="scim"))
    given = replace(small_rules(), accounts=accounts)
    found = compare(Person("ada", Knowledge(subjects, facts)), {**DENIED, D1: EDITOR}, given)
    assert extra(found).keys() == expected


def test_nobody_behind_a_velt_user_id() -> None:
    assert extra(compare(Person("x", Knowledge()), {**DENIED, D1: EDITOR})) == {D1: "nobody has this Velt user id"}


def test_a_public_resource_is_counted_and_nobody_is_listed() -> None:
    public = {ACME: NOTHING, D1: Access("editor", "public"), CHAT: Access(None, "public", "permission_denied")}
    found = compare(person(), public)
    assert (found.extra, found.missing) == ([], [])
    assert found.tallies[D1] == Tally("public", asked=1, holders=1)
    assert compare(person("sales"), {**DENIED, D1: Access(None, "public", "permission_denied")}).missing == []


def test_what_velt_does_not_say_is_neither_extra_nor_missing() -> None:
    comparison = Comparison(Scope(small_rules(), GROUPS))
    comparison.add(person("eng"), [ACME, D1], {D1: Access(None, "restricted")})
    assert (comparison.extra, comparison.missing) == ([], [])
    assert [tally.silent for tally in comparison.tallies.values()] == [1, 1]


def test_what_went_wrong_is_told() -> None:
    wrong = {**DENIED, D1: Access(error_code="something_went_wrong", error="try later")}
    (one,) = compare(person("sales"), wrong).unanswered
    assert (one.resource, one.why) == (D1, "something_went_wrong: try later")
    comparison = Comparison(Scope(small_rules(), GROUPS))
    comparison.add(person("sales"), [D1], {}, {D1: "refused"})
    assert [one.why for one in comparison.unanswered] == ["refused"]


def test_a_resource_that_does_not_exist_is_missed_by_nobody() -> None:
    found = compare(person("sales"), {**DENIED, D1: Access(error_code="does_not_exist")})
    assert (found.missing, found.tallies[D1].exists) == ([], False)


def test_a_member_of_the_organization_misses_nothing_that_is_open_to_members() -> None:
    open_to_members = Access(None, "organizationPrivate", "permission_denied")
    assert compare(person("eng"), {ACME: EDITOR, D1: open_to_members}).missing == []
    assert len(compare(person("eng"), {ACME: NOTHING, D1: open_to_members}).missing) == 2


def test_a_role_that_may_come_from_a_folder_of_theirs_says_so() -> None:
    other = Resource("folder", "elsewhere", "other")
    held = {ACME: NOTHING, D1: EDITOR, CHAT: EDITOR, other: EDITOR}
    found = compare(person("chat"), held)
    assert extra(found)[D1] == "in no group or app that gives it; it may be inherited from folder chat in acme"
    assert "inherited" not in extra(found)[other]
    assert "inherited" not in extra(compare(person(), held))[D1]


def test_what_only_leavers_lose_is_extra_only_for_who_has_left() -> None:
    given = rules({"name": "leave", "when": {"kind": ["account.deleted"]}, "revoke": [ACME.as_velt()]})
    assert compare(person(), {ACME: EDITOR}, given).extra == []
    assert compare(person(), {ACME: NOTHING}, given).missing == []
    gone = Knowledge((Subject("okta", "ada"),), (fact("ada", "", present=False),))
    assert extra(compare(Person("ada", gone), {ACME: EDITOR}, given)).keys() == {ACME}
    both = rules(
        {"name": "leave", "when": {"kind": ["account.deleted"]}, "revoke": [ACME.as_velt()]},
        {"name": "group", "when": {"kind": ["group.member_removed"], "group.id": ["eng"]}, "revoke": [ACME.as_velt()]},
    )
    assert extra(compare(person(), {ACME: EDITOR}, both)).keys() == {ACME}


@pytest.mark.parametrize(("accounts", "expected"), [("any", {ACME}), ("same_source", set())])
def test_what_only_leavers_lose_with_one_inactive_account_of_two(accounts: str, expected: set[Resource]) -> None:
    given = rules({"name": "leave", "when": {"kind": ["account.deleted"]}, "revoke": [ACME.as_velt()]})
    known = Knowledge((Subject("okta", "ada"), Subject("scim", "7")), (fact("ada", "", present=False),))
    found = compare(Person("ada", known), {ACME: EDITOR}, replace(given, accounts=accounts))
    assert extra(found).keys() == expected


def test_whoever_is_known_by_messages_only_is_doubted() -> None:
    (one,) = compare(person(unlisted=("okta",)), {**DENIED, D1: EDITOR}).extra
    assert one.doubt == "what okta gives is known by messages only"


@pytest.mark.parametrize(
    ("accounts", "gone", "unlisted", "certain"),
    [
        ("any", ["okta"], (), True),
        ("any", ["okta"], ("scim",), True),
        ("any", ["okta"], ("okta",), False),
        ("any", [], (), False),
        ("same_source", ["okta"], (), False),
        ("same_source", ["okta", "scim"], (), True),
        ("same_source", [], (), False),
    ],
)
def test_whoever_is_listed_as_not_in_force_is_not_doubted(
    accounts: str, gone: list[str], unlisted: tuple[str, ...], certain: bool
) -> None:
    facts = tuple(fact("ada", "", source=source, present=source not in gone) for source in ("okta", "scim"))
    subjects = tuple(Subject(source, "ada", "ada", looked_up=True) for source in ("okta", "scim"))
    who = Person("ada", Knowledge(subjects, facts), (), (), unlisted)
    given = replace(small_rules(), accounts=accounts)
    [one] = compare(who, {**DENIED, CHAT: EDITOR}, given, unlisted=["chat"]).extra
    assert (one.doubt is None) is certain


def test_what_an_app_that_cannot_be_listed_may_give_is_doubted() -> None:
    found = compare(person(), {**DENIED, CHAT: EDITOR, D1: EDITOR}, unlisted=("chat",))
    assert {one.resource: one.doubt for one in found.extra} == {
        CHAT: "rule 'chat' may give it: who has its apps could not be listed",
        D1: None,
    }


TEMPLATE = {
    "name": "docs",
    "when": {"kind": ["group.member_removed"], "group.name": [{"regex": "^doc-(?P<doc>.+)$"}]},
    "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
}
DESK = {
    "name": "desks",
    "when": {"kind": ["group.member_removed"], "group.name": ["Desks"]},
    "revoke": [{"type": "document", "id": "desk-{user.login}", "organizationId": "acme"}],
}


def test_groups_fill_templates_whoever_is_in_them() -> None:
    things = [Thing("okta", ObjectType.GROUP, "g1", "doc-plan"), Thing("okta", ObjectType.GROUP, "g2", "other")]
    given = rules(TEMPLATE)
    assert Scope(given, things).shared == {Resource("document", "plan", "acme")}
    assert [audit.concerns(given, thing) for thing in things] == [True, False]


def test_a_template_with_the_person_in_it_is_asked_of_that_person_only() -> None:
    scope = Scope(rules(TEMPLATE, DESK), [Thing("okta", ObjectType.GROUP, "g", "Desks")])
    assert scope.shared == frozenset()
    assert scope.own(person()) == {Resource("document", "desk-ada", "acme")}
    assert scope.own(person(source="scim")) == set()


def test_a_rule_that_wants_more_than_the_group_concerns_it() -> None:
    given = rules({"name": "r", "when": {"group.id": "g", "user.login": "eve"}, "revoke": [D1.as_velt()]})
    assert audit.concerns(given, Thing("okta", ObjectType.GROUP, "g"))
    assert not audit.concerns(given, Thing("okta", ObjectType.GROUP, "h"))


def test_everything_gives_nothing() -> None:
    given = rules({"name": "r", "when": {"kind": ["group.member_removed"]}, "revoke": "everything"})
    assert not audit.concerns(given, GROUPS[0])


def test_apps_that_rules_name() -> None:
    whens = [
        {"kind": ["app.access_removed"], "app.id": ["a", "b"]},
        {"app.id": "c"},
        {"app.id": [{"prefix": "d"}]},
        {"app.id": "e", "app.name": "E"},
        {"group.id": "eng"},
        {"source": "okta"},
        {"kind": ["account.deleted"]},
    ]
    given = rules(*({"name": f"r{n}", "when": when, "revoke": [D1.as_velt()]} for n, when in enumerate(whens)))
    assert audit.apps_of(given, whens) == (frozenset("abc"), ("r2", "r3", "r5"))


def test_an_app_gives_what_its_rule_says() -> None:
    things = [Thing("okta", ObjectType.APP, "chat")]
    assert compare(person("chat"), {**DENIED, CHAT: EDITOR}, things=things).extra == []


def test_without_anything_wrong_in_a_scope_of_nothing() -> None:
    assert Scope(rules(), []).shared == frozenset()

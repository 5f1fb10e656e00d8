"""Entitlement: what a person has, what is kept and what is superseded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pytest

from relay import entitlement
from relay.config_checks import USER_FIELDS
from relay.entitlement import Cause, Grant, Knowledge, Verdict
from relay.model import GAINS, LOSSES, Basis, Fact, Kind, ObjectType, Resource, RevocationState, thing_of
from relay.rules import UNKNOWN, RuleSet
from tests.people import (
    ACME,
    CHAT,
    D1,
    TOLD,
    account_fact,
    app_fact,
    at,
    event,
    group_deleted,
    group_fact,
    loss,
    person,
    rules,
    small_rules,
)

PENDING, RETAINED, SUPERSEDED = RevocationState.PENDING, RevocationState.RETAINED, RevocationState.SUPERSEDED

ADA = person()
FIXED = {"name": "fixed", "when": {"kind": "group.member_removed", "group.id": "g"}, "revoke": [ACME.as_velt()]}


def know(*facts: Fact, subjects: Iterable[Any] = (ADA,)) -> Knowledge:
    return Knowledge(tuple(subjects), facts)


def cause(kind: Kind, object_id: str = "", when: float = 10, subject: str = "ada", source: str = "okta") -> Cause:
    return Cause(kind, source, subject, thing_of(kind, object_id, object_id), at(when))


LEFT_ENG = cause(Kind.GROUP_MEMBER_REMOVED, "eng")
LEFT = cause(Kind.ACCOUNT_DEACTIVATED)


def judge(resource: Resource, why: Cause, knowledge: Knowledge, rule_set: RuleSet | None = None) -> Verdict:
    return entitlement.judge(resource, why, knowledge, entitlement.grants(rule_set or small_rules(), knowledge))


# --- facts


def test_every_loss_and_gain_is_a_fact_and_nothing_else_is() -> None:
    for kind in Kind:
        fact = entitlement.fact_of(event(kind, group_id="g", app_id="a"), "evt_1", at(5))
        assert (fact is not None) == (kind in LOSSES | GAINS)
        assert fact is None or fact.present == (kind in GAINS)


def test_a_fact_is_about_the_account_the_group_or_the_app() -> None:
    def about(kind: Kind) -> tuple[Any, ...]:
        named = event(kind, group_id="g", group_name="G", app_id="a", app_name="A")
        fact = entitlement.fact_of(named, "evt_1", at(5))
        assert fact is not None
        assert fact.event_id == "evt_1"
        return fact.object_type, fact.object_id, fact.name

    assert about(Kind.ACCOUNT_SUSPENDED) == (ObjectType.ACCOUNT, "", None)
    assert about(Kind.GROUP_DELETED) == (ObjectType.GROUP, "g", "G")
    assert about(Kind.APP_ACCESS_ADDED) == (ObjectType.APP, "a", "A")


def test_an_event_about_nobody_is_no_fact() -> None:
    assert entitlement.fact_of(group_deleted("g"), "evt_1", at(5)) is None


def test_a_fact_counts_as_of_the_time_of_its_event_whoever_has_told_that() -> None:
    def of(when: float | None) -> tuple[int, Basis]:
        fact = entitlement.fact_of(loss("ada", "g", when), "evt_1", at(5))
        assert fact is not None
        return fact.as_of, fact.basis

    assert of(9) == (at(5), Basis.SOURCE)
    assert of(None) == (at(5), Basis.ARRIVAL)


def last(facts: Iterable[Fact]) -> Fact | None:
    kept: Fact | None = None
    for fact in facts:
        if entitlement.newer(kept, fact):
            kept = fact
    return kept


@pytest.mark.parametrize(
    ("facts", "present"),
    [
        ((group_fact("ada", "g", True, 1), group_fact("ada", "g", False, 2)), False),
        ((group_fact("ada", "g", False, 1), group_fact("ada", "g", True, 2)), True),
        ((group_fact("ada", "g", False, 1), group_fact("ada", "g", True, 2), group_fact("ada", "g", False, 3)), False),
        ((group_fact("ada", "g", True, 1), group_fact("ada", "g", False, 1)), False),  # equal times: the loss
        # A gain dated by its arrival never beats a loss dated by the source,
        ((group_fact("ada", "g", False, 1), group_fact("ada", "g", True, 2, basis=Basis.ARRIVAL)), False),
        # while every other mixture goes by the time.
        ((group_fact("ada", "g", False, 1, basis=Basis.ARRIVAL), group_fact("ada", "g", True, 2)), True),
        ((group_fact("ada", "g", True, 1), group_fact("ada", "g", False, 2, basis=Basis.ARRIVAL)), False),
        (
            (
                group_fact("ada", "g", False, 1, basis=Basis.ARRIVAL),
                group_fact("ada", "g", True, 2, basis=Basis.ARRIVAL),
            ),
            True,
        ),
    ],
)
def test_the_last_word_is_the_same_in_every_order_of_arrival(facts: tuple[Fact, ...], present: bool) -> None:
    for order in itertools.permutations(facts):
        kept = last(order)
        assert kept is not None
        assert kept.present == present, [f"{fact.present} at {fact.as_of} {fact.basis}" for fact in order]


def test_the_same_again_is_not_newer() -> None:
    for present in (True, False):
        fact = group_fact("ada", "g", present)
        assert not entitlement.newer(fact, fact)


# --- fields


def test_a_field_that_the_source_never_fills_without_look_up_is_unknown() -> None:
    fields = entitlement.fields_of("entra", person(source="entra", login=None), frozenset(), group=("g", None))
    assert (fields["user.id"], fields["group.id"], fields["group.name"]) == ("ada", "g", UNKNOWN)
    assert "app.id" not in fields
    known = entitlement.fields_of(
        "okta", person(login=None), frozenset({"user.login", "group.name"}), group=("g", None)
    )
    assert (known["user.login"], known["group.name"]) == (None, None)


def test_of_anybody_no_field_of_a_person_is_known() -> None:
    fields = entitlement.fields_of("scim", None, frozenset(USER_FIELDS), group=("g", "G"))
    assert {name for name, value in fields.items() if value is UNKNOWN} == set(USER_FIELDS)


def test_an_event_has_the_fields_of_what_it_names() -> None:
    named = entitlement.fields_of_event(event(Kind.GROUP_DELETED, None, group_name="G"), None, frozenset())
    assert (named["group.id"], named["group.name"], "app.id" in named) == (None, "G", False)
    app = entitlement.fields_of_event(event(Kind.APP_ACCESS_REMOVED, "ada", app_id="a"), ADA, frozenset({"app.name"}))
    assert (app["user.id"], app["app.id"], app["app.name"], "group.id" in app) == ("ada", "a", None, False)


# --- what a person has


def given(rule_set: RuleSet, subject: Any, object_type: ObjectType = ObjectType.GROUP) -> set[tuple[Any, bool]]:
    found = entitlement.given_for(rule_set, "okta", (object_type, "g"), "G", subject)
    return {(one.resource, one.is_certain) for one in found}


def test_what_a_group_gives_whoever_is_in_it_and_one_of_them() -> None:
    own = {"type": "organization", "id": "{user.login}"}
    mixed = rules(
        {"name": "all", "when": {"group.id": "g"}, "revoke": [ACME.as_velt(), own]},
        {"name": "some", "when": {"user.email": "ada@acme.example"}, "revoke": [D1.as_velt()]},
        {"name": "others", "when": {"group.id": "h"}, "revoke": [CHAT.as_velt()]},
        {"name": "leaving", "when": {"group.id": "g"}, "revoke": "everything"},
    )
    assert given(mixed, None) == {(ACME, True), (None, True), (D1, False)}
    ada = person(login="ada", email="ada@acme.example")
    assert given(mixed, ada) == {(ACME, True), (Resource("organization", "ada"), True), (D1, True)}


def test_an_account_is_given_what_goes_when_it_is_lost_but_gives_nothing_by_itself() -> None:
    leaver = rules({"name": "r", "when": {"kind": "account.deleted"}, "revoke": [ACME.as_velt()]})
    assert given(leaver, ADA, ObjectType.ACCOUNT) == {(ACME, True)}
    assert entitlement.grants(leaver, know(account_fact("ada", True))) == {}


def test_a_rule_that_takes_everything_gives_nothing() -> None:
    every = rules({"name": "all", "when": {}, "revoke": "everything"}, FIXED)
    assert entitlement.grants(every, know(group_fact("ada", "other"))) == {}


def test_a_group_gives_what_its_rule_would_take() -> None:
    found = entitlement.grants(small_rules(), know(group_fact("ada", "eng", name="Engineering")))
    assert set(found) == {ACME, D1}
    assert str(found[D1][0]) == "group Engineering (okta), rule 'engineering'"


def test_two_groups_give_the_same_resource_twice() -> None:
    found = entitlement.grants(small_rules(), know(group_fact("ada", "eng"), group_fact("ada", "sales")))
    assert [grant.rule for grant in found[D1]] == ["engineering", "sales"]


def test_an_app_gives_by_app_rules_only() -> None:
    assert set(entitlement.grants(small_rules(), know(app_fact("ada", "chat")))) == {CHAT}
    assert entitlement.grants(small_rules(), know(app_fact("ada", "eng"))) == {}
    assert entitlement.grants(small_rules(), know(group_fact("ada", "chat"))) == {}


def test_a_lost_group_and_an_account_give_nothing() -> None:
    assert entitlement.grants(small_rules(), know(group_fact("ada", "eng", False), account_fact("ada", True))) == {}


def test_a_rule_for_deleted_groups_alone_gives_too() -> None:
    only_deleted = rules({"name": "r", "when": {"kind": "group.deleted"}, "revoke": [ACME.as_velt()]})
    assert set(entitlement.grants(only_deleted, know(group_fact("ada", "g")))) == {ACME}


def test_a_rule_that_needs_an_unknown_field_gives_nothing() -> None:
    by_email = rules(
        {"name": "r", "when": {"user.email": "ada@acme.example"}, "revoke": [ACME.as_velt()]}, fills={"okta": TOLD}
    )
    assert entitlement.grants(by_email, know(group_fact("ada", "g"))) == {}
    told = know(group_fact("ada", "g"), subjects=[person(email="ada@acme.example")])
    assert set(entitlement.grants(by_email, told)) == {ACME}


def test_templates_are_filled_with_the_persons_own_fields() -> None:
    own = rules({"name": "r", "when": {}, "revoke": [{"type": "organization", "id": "{user.login}-{group.id}"}]})
    found = entitlement.grants(own, know(group_fact("ada", "g")))
    assert set(found) == {Resource("organization", "ada@acme.example-g")}


@pytest.mark.parametrize(("accounts", "kept"), [("any", set()), ("same_source", {ACME, D1})])
def test_an_inactive_account_elsewhere_ends_all_or_only_its_own(accounts: str, kept: set[Resource]) -> None:
    known = know(
        account_fact("ada", False, source="entra"),
        group_fact("ada", "sales", source="entra"),
        group_fact("ada", "eng"),
        subjects=[ADA, person(source="entra")],
    )
    assert set(entitlement.grants(small_rules(accounts=accounts), known)) == kept


@pytest.mark.parametrize("accounts", ["any", "same_source"])
def test_an_inactive_account_ends_what_its_own_source_gives(accounts: str) -> None:
    known = know(account_fact("ada", False), group_fact("ada", "eng"))
    assert entitlement.grants(small_rules(accounts=accounts), known) == {}


def test_a_recreated_account_of_the_same_source_counts_and_the_lost_one_does_not() -> None:
    known = know(
        account_fact("ada", False),
        group_fact("ada", "eng"),
        group_fact("ada-2", "sales"),
        subjects=[ADA, person("ada-2")],
    )
    assert set(entitlement.grants(small_rules(), known)) == {D1}


def test_all_accounts_of_a_source_lost_is_inactive() -> None:
    known = know(
        account_fact("ada", False),
        account_fact("ada-2", False),
        group_fact("ada", "eng", source="entra"),
        subjects=[ADA, person("ada-2"), person(source="entra")],
    )
    assert entitlement.grants(small_rules(), known) == {}


def test_a_grant_without_a_name_shows_the_id() -> None:
    assert str(Grant(group_fact("ada", "eng"), "r")) == "group eng (okta), rule 'r'"


def test_a_lost_account_is_known_by_its_source_and_id() -> None:
    known = know(account_fact("ada", False), account_fact("bob", True), group_fact("cy", "g", False))
    assert known.lost_accounts == {("okta", "ada")}
    assert (known.subject(ADA.key), known.subject(("entra", "ada"))) == (ADA, None)


# --- judging


def test_what_is_not_held_any_more_goes() -> None:
    assert judge(D1, LEFT_ENG, know(group_fact("ada", "eng", False, 10))).state is PENDING


def test_what_another_group_gives_is_retained_and_says_by_what() -> None:
    verdict = judge(D1, LEFT_ENG, know(group_fact("ada", "eng", False, 10), group_fact("ada", "sales", name="Sales")))
    assert (verdict.state, verdict.superseded_by) == (RETAINED, None)
    assert verdict.reason == "still has group Sales (okta), rule 'sales'"
    assert judge(ACME, LEFT_ENG, know(group_fact("ada", "sales"))).state is PENDING


def test_the_same_group_again_supersedes_and_names_the_event() -> None:
    verdict = judge(D1, LEFT_ENG, know(group_fact("ada", "eng", True, 11, event_id="evt_back")))
    assert (verdict.state, verdict.superseded_by) == (SUPERSEDED, "evt_back")


def test_the_same_group_of_another_source_or_subject_is_only_an_overlap() -> None:
    elsewhere = know(group_fact("ada", "eng", source="entra"), subjects=[ADA, person(source="entra")])
    assert judge(D1, LEFT_ENG, elsewhere).state is RETAINED
    twin = know(group_fact("ada-2", "eng"), subjects=[ADA, person("ada-2")])
    assert judge(D1, LEFT_ENG, twin).state is RETAINED


def test_a_group_and_an_app_of_one_id_are_not_the_same_access() -> None:
    both = rules({"name": "r", "when": {}, "revoke": [ACME.as_velt()]})
    lost_app = cause(Kind.APP_ACCESS_REMOVED, "x")
    assert judge(ACME, lost_app, know(group_fact("ada", "x", when=20)), both).state is RETAINED
    assert judge(ACME, lost_app, know(app_fact("ada", "x", when=20)), both).state is SUPERSEDED


def test_a_deleted_group_is_superseded_by_membership_again() -> None:
    verdict = judge(D1, cause(Kind.GROUP_DELETED, "eng"), know(group_fact("ada", "eng", True, 20)))
    assert verdict.state is SUPERSEDED


def test_a_lost_account_takes_what_its_groups_still_give() -> None:
    assert judge(D1, LEFT, know(account_fact("ada", False, 10), group_fact("ada", "eng"))).state is PENDING


def test_an_activation_stops_what_the_account_loss_alone_would_take() -> None:
    known = know(account_fact("ada", True, 11, event_id="evt_on"), group_fact("ada", "sales"))
    verdict = judge(D1, LEFT, known)
    assert (verdict.state, verdict.superseded_by) == (SUPERSEDED, "evt_on")
    assert "active again" in verdict.reason
    unknown_groups = judge(ACME, LEFT, known)
    assert (unknown_groups.state, unknown_groups.superseded_by) == (SUPERSEDED, "evt_on")


def test_an_activation_gives_no_group_back_that_was_lost_by_itself() -> None:
    known = know(account_fact("ada", True, 11), group_fact("ada", "eng", False, 10))
    assert judge(ACME, cause(Kind.GROUP_MEMBER_REMOVED, "eng"), known).state is PENDING


def test_an_activation_at_one_source_leaves_the_loss_at_another() -> None:
    known = know(account_fact("ada", True, 11), subjects=[ADA, person(source="entra")])
    assert judge(ACME, cause(Kind.ACCOUNT_DEACTIVATED, "", source="entra"), known).state is PENDING


def test_an_account_that_was_never_away_is_no_activation() -> None:
    known = know(account_fact("ada", True, 9), group_fact("ada", "sales"))
    assert judge(D1, LEFT, known).state is RETAINED


def test_another_source_keeps_by_overlap_only_where_accounts_are_same_source() -> None:
    known = know(
        account_fact("ada", False, 10),
        group_fact("ada", "sales", source="entra"),
        subjects=[ADA, person(source="entra")],
    )
    assert judge(D1, LEFT, known).state is PENDING
    assert judge(D1, LEFT, known, small_rules(accounts="same_source")).state is RETAINED


def test_an_activation_elsewhere_is_no_reason_to_call_it_superseded() -> None:
    known = know(
        account_fact("ada", False, 10),
        account_fact("ada", True, 20, source="entra"),
        group_fact("ada", "sales", source="entra"),
        subjects=[ADA, person(source="entra")],
    )
    assert judge(D1, LEFT, known, small_rules(accounts="same_source")).state is RETAINED


def test_a_recreated_account_of_the_same_source_is_who_the_velt_user_is_now() -> None:
    verdict = judge(D1, LEFT, know(account_fact("ada", False, 10), subjects=[ADA, person("ada-2")]))
    assert verdict.state is RETAINED
    assert verdict.reason == "this Velt user is now ada-2 of okta, who is active"


def test_a_recreated_account_that_is_lost_too_keeps_nothing() -> None:
    known = know(account_fact("ada", False, 10), account_fact("ada-2", False, 20), subjects=[ADA, person("ada-2")])
    assert judge(D1, LEFT, known).state is PENDING


def test_a_past_velt_user_that_another_active_subject_holds_is_left_alone() -> None:
    now_bob = know(subjects=[person("bob", source="entra")])
    assert judge(D1, LEFT, now_bob).state is RETAINED
    gone_bob = know(account_fact("bob", False, source="entra"), subjects=[person("bob", source="entra")])
    assert judge(D1, LEFT, gone_bob).state is PENDING
    assert judge(D1, LEFT, know(subjects=[])).state is PENDING


def test_a_lost_group_of_a_past_velt_user_goes_unless_the_holder_has_it() -> None:
    bob = person("bob")
    assert judge(D1, LEFT_ENG, know(subjects=[bob])).state is PENDING
    assert judge(D1, LEFT_ENG, know(group_fact("bob", "sales"), subjects=[bob])).state is RETAINED


def test_an_operator_removes_what_is_held_until_a_later_gain() -> None:
    by_hand = Cause(Kind.OPERATOR_REMOVE, "operator", "ada@acme.example", (ObjectType.ACCOUNT, ""), at(10))
    assert judge(D1, by_hand, know(group_fact("ada", "eng", when=9))).state is PENDING
    assert judge(D1, by_hand, know(group_fact("ada", "eng", when=10))).state is PENDING
    later = know(group_fact("ada", "eng", when=9), group_fact("ada", "sales", when=11, event_id="evt_later"))
    verdict = judge(D1, by_hand, later)
    assert (verdict.state, verdict.superseded_by) == (SUPERSEDED, "evt_later")

"""Planning: what a loss takes, rule by rule, and what `everything` stands for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from relay import losses
from relay.entitlement import Knowledge
from relay.losses import Plan
from relay.model import Fact, Micros, Resource, RevocationState
from relay.rules import RuleSet
from tests.people import (
    ACME,
    ALL,
    CHAT,
    D1,
    TOLD,
    at,
    back,
    gain,
    group_fact,
    left,
    loss,
    person,
    rules,
    small_rules,
)

PENDING, RETAINED, SUPERSEDED = RevocationState.PENDING, RevocationState.RETAINED, RevocationState.SUPERSEDED

ADA = person()


def know(*facts: Fact, subjects: Iterable[Any] = (ADA,)) -> Knowledge:
    return Knowledge(tuple(subjects), facts)


# --- planning


def planned(
    item: Any, rule_set: RuleSet, knowledge: Knowledge | None = None, past: Iterable[Fact] = (), **more: Any
) -> Plan:
    return losses.plan(item, rule_set, knowledge or Knowledge(), past, **more)


def test_all_matching_rules_apply_and_the_same_resource_is_once() -> None:
    twice = rules(
        {"name": "one", "when": {"group.id": "g"}, "revoke": [ACME.as_velt(), D1.as_velt()]},
        {"name": "two", "when": {"group.id": "g"}, "revoke": [ACME.as_velt()]},
        {"name": "no", "when": {"group.id": "h"}, "revoke": [CHAT.as_velt()]},
    )
    plan = planned(loss("ada", "g"), twice)
    assert plan.resources == {ACME: ("one", "two"), D1: ("one",)}
    assert [step.verdict for step in plan.steps] == [True, True, False]
    assert plan.steps[2].because == "group.id does not match"


def test_a_template_takes_named_groups_and_user_fields() -> None:
    filled = rules(
        {
            "name": "r",
            "when": {"group.name": [{"regex": "velt-(?P<org>.+)-doc-(?P<doc>.+)"}]},
            "revoke": [{"type": "document", "id": "{doc}-{user.login}", "organizationId": "{org}"}],
        }
    )
    plan = planned(loss("ada", "g", group_name="velt-acme-doc-7", login="ada"), filled)
    assert set(plan.resources) == {Resource("document", "7-ada", "acme")}


def test_an_unknown_condition_stays_open_and_the_other_rules_go_on() -> None:
    mixed = rules(
        {"name": "by mail", "when": {"user.email": "x"}, "revoke": [ACME.as_velt()]},
        {"name": "by group", "when": {"group.id": "g"}, "revoke": [D1.as_velt()]},
        fills={"okta": TOLD},
    )
    plan = planned(loss("ada", "g"), mixed)
    assert set(plan.resources) == {D1}
    assert plan.open_questions == ("rule 'by mail': user.email is not known without a look-up",)


def test_an_unknown_template_field_stays_open_and_takes_what_it_can() -> None:
    half = rules(
        {"name": "r", "when": {}, "revoke": [{"type": "organization", "id": "{user.email}"}, D1.as_velt()]},
        fills={"okta": TOLD},
    )
    plan = planned(loss("ada", "g"), half)
    assert set(plan.resources) == {D1}
    assert plan.open_questions == ("rule 'r': user.email is not known without a look-up",)


def test_an_absent_template_field_takes_nothing_and_says_so() -> None:
    plan = planned(
        loss("ada", "g"), rules({"name": "r", "when": {}, "revoke": [{"type": "organization", "id": "{user.email}"}]})
    )
    assert (plan.resources, plan.open_questions) == ({}, ())
    assert plan.steps[0].because == "matches, but user.email is empty"


# --- everything

TEMPLATE = {
    "name": "per group",
    "when": {"kind": "group.member_removed", "group.name": [{"regex": "doc-(?P<doc>.+)"}]},
    "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
}
LEAVERS = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything"}
FIXED = {"name": "fixed", "when": {"kind": "group.member_removed", "group.id": "g"}, "revoke": [ACME.as_velt()]}
OWN = {"name": "own", "when": {"group.id": "h"}, "revoke": [{"type": "organization", "id": "home-{user.login}"}]}


def doc(name: str) -> Resource:
    return Resource("document", name, "acme")


def test_everything_without_complete_knowledge_is_known_past_and_fixed() -> None:
    known = know(group_fact("ada", "x", name="doc-1"), group_fact("ada", "y", False, name="doc-2"))
    plan = planned(left("ada", login="ada"), rules(TEMPLATE, LEAVERS, FIXED, OWN), known)
    assert set(plan.resources) == {doc("1"), doc("2"), ACME, Resource("organization", "home-ada")}
    assert plan.incomplete == ()
    assert set(plan.resources.values()) == {("leavers",)}


def test_everything_names_the_template_rules_that_it_could_not_fill() -> None:
    plan = planned(left("ada"), rules(TEMPLATE, LEAVERS, FIXED, OWN))
    assert set(plan.resources) == {ACME}
    assert plan.incomplete == ("per group", "own")


def test_everything_with_complete_knowledge_is_what_the_groups_give_now() -> None:
    known = know(group_fact("ada", "x", name="doc-1"), group_fact("ada", "y", False, name="doc-2"))
    alone = {"complete": ["okta"], "fills": {"okta": ALL}}
    plan = planned(left("ada"), rules(TEMPLATE, LEAVERS, FIXED, **alone), known, taken={doc("2"): at(1)})
    assert set(plan.resources) == {doc("1")}
    assert plan.incomplete == ()


@pytest.mark.parametrize("taken", [{}, {doc("2"): at(9)}])
def test_everything_takes_what_was_lost_and_never_taken_since(taken: dict[Resource, Micros]) -> None:
    lost = group_fact("ada", "y", False, when=10, name="doc-2")
    known = rules(TEMPLATE, LEAVERS, complete=["okta"], fills={"okta": ALL})
    plan = planned(left("ada"), known, know(lost), taken=taken)
    assert set(plan.resources) == {doc("2")}


def test_everything_takes_what_only_a_look_up_has_seen_lost() -> None:
    seen = group_fact("ada", "y", False, name="doc-2", event_id=None)
    plan = planned(left("ada"), rules(TEMPLATE, LEAVERS, complete=["okta"], fills={"okta": ALL}), know(seen))
    assert set(plan.resources) == {doc("2")}


def test_complete_knowledge_of_one_source_says_nothing_of_another() -> None:
    plan = planned(left("ada"), rules(LEAVERS, FIXED, complete=["scim"]))
    assert set(plan.resources) == {ACME}


@pytest.mark.parametrize(("accounts", "taken"), [("any", {ACME}), ("same_source", set())])
def test_a_loss_that_ends_all_access_takes_what_other_sources_may_have_given(accounts: str, taken: set[object]) -> None:
    plan = planned(left("ada", source="scim"), rules(LEAVERS, FIXED, complete=["scim"], accounts=accounts))
    assert set(plan.resources) == taken


def test_everything_counts_the_facts_of_a_subject_that_is_another_velt_user_now() -> None:
    plan = planned(left("ada"), rules(TEMPLATE, LEAVERS), know(subjects=[]), [group_fact("ada", "x", name="doc-1")])
    assert set(plan.resources) == {doc("1")}


def test_gains_and_activations_take_nothing() -> None:
    for item in (gain("ada", "eng"), back("ada")):
        assert planned(item, small_rules()).resources == {}

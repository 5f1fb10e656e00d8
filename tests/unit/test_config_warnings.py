"""What relay.yaml may say and its writer will probably regret."""

from __future__ import annotations

from typing import Any

import pytest

from relay import config_checks


def warned(document: dict[str, Any]) -> dict[str, str]:
    return {problem.path: problem.message for problem in config_checks.warnings(document)}


def document(when: dict[str, Any], **sources: dict[str, Any]) -> dict[str, Any]:
    return {
        "sources": sources or {"okta": {"type": "okta"}},
        "identity": {"velt_user_id": ["{user.id}"]},
        "rules": [{"name": "r", "when": when, "revoke": "everything"}],
        "guard": {"users": 1, "within": "1h"},
    }


def test_only_the_note_on_public_access_when_all_is_well() -> None:
    found = warned(document({"group.name": "x"}, okta={"type": "okta", "api": {}}))
    assert list(found) == ["velt"]
    assert "accessType" in found["velt"]


def test_no_guard_and_no_rules() -> None:
    bare = document({})
    del bare["guard"]
    bare["rules"] = []
    assert {"guard", "rules"} <= set(warned(bare))


def test_a_source_without_api() -> None:
    found = warned(document({}, okta={"type": "okta"}, entra={"type": "entra"}, scim={"type": "scim"}))
    assert {"sources.okta.api", "sources.entra.graph"} == {path for path in found if path.startswith("sources")}


PATH = "rules[0].when.group.name"


@pytest.mark.parametrize(
    ("condition", "graph", "expected"),
    [
        ({}, {}, True),
        ({"source": "entra"}, {}, True),
        ({"source": ["okta", "entra"]}, {}, True),
        ({"source": {"prefix": "e"}}, {}, True),
        ({"source": {"anything-but": ["okta"]}}, {}, True),
        ({"source": ["okta"]}, {}, False),
        ({"source": {"anything-but": ["entra"]}}, {}, False),
        ({"source": {"anything-but": "entra"}}, {}, False),
        ({}, {"graph": {}}, False),
    ],
)
def test_a_condition_that_a_source_cannot_fill(
    condition: dict[str, Any], graph: dict[str, Any], expected: bool
) -> None:
    sources = {"okta": {"type": "okta"}, "entra": {"type": "entra", **graph}}
    found = warned(document({"group.name": "x", **condition}, **sources))
    assert (PATH in found) is expected
    if expected:
        assert 'the source "entra" does not tell group.name without graph' in found[PATH]


def test_a_condition_that_no_source_ever_fills() -> None:
    found = warned(document({"app.name": "x"}, entra={"type": "entra", "graph": {}}))
    assert "can never match" in found["rules[0].when.app.name"]


@pytest.mark.parametrize(
    ("templates", "more", "expected"),
    [
        (["{user.email}"], {}, True),
        (["{user.login}"], {}, True),
        (["{user.email}", "{user.id}"], {}, False),
        (["{user.email}"], {"graph": {}}, False),
        (["{user.external_id}"], {"graph": {}}, True),
    ],
)
def test_an_identity_that_can_never_be_made(templates: list[str], more: dict[str, Any], expected: bool) -> None:
    given = document({}, entra={"type": "entra", **more})
    given["identity"]["velt_user_id"] = templates
    assert ("identity.velt_user_id" in warned(given)) is expected
    given["identity"]["map"] = "users.csv"
    assert "identity.velt_user_id" not in warned(given)


def test_the_field_table_covers_every_field_that_can_be_named() -> None:
    every = set().union(*config_checks.FIELDS_BY_SOURCE.values(), *config_checks.LOOKED_UP_BY_SOURCE.values())
    assert every | {"source"} == set(config_checks.FIELDS)

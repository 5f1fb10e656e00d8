"""What relay.yaml may say and its writer will probably regret."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from relay import config_checks
from relay.errors import Problem
from tests.config_files import FULL


def warned(document: dict[str, Any]) -> dict[str, str]:
    return {problem.path: problem.message for problem in config_checks.warnings(document)}


def document(when: dict[str, Any], **sources: dict[str, Any]) -> dict[str, Any]:
    return {
        "sources": sources or {"okta": {"type": "okta"}},
        "identity": {"velt_user_id": ["{user.id}"]},
        "rules": [{"name": "r", "when": when, "revoke": "everything"}],
    }


def test_only_the_note_on_public_access_when_all_is_well() -> None:
    guarded = {
        **document({"group.name": "x"}, okta={"type": "okta", "api": {}}),
        "guard": {"users": 100, "within": "1h"},
    }
    found = warned(guarded)
    assert list(found) == ["velt"]
    assert "accessType" in found["velt"]


def test_without_a_guard_a_mass_removal_is_warned_of() -> None:
    assert "users: 100" in warned(document({"group.name": "x"}, okta={"type": "okta"}))["guard"]


def test_no_rules() -> None:
    assert "rules" in warned({**document({}), "rules": []})


def test_what_does_nothing_yet_is_told_once_each() -> None:
    given = yaml.safe_load(FULL)
    idle = [problem.path for problem in config_checks.warnings(given) if "does nothing yet" in problem.message]
    assert idle == ["retention"]


@pytest.mark.parametrize(
    ("public_url", "told"),
    [
        ("https://relay.acme.example.com", False),
        ("http://relay.acme.example.com", True),
        ("http://127.0.0.1:8080", False),
        ("http://localhost:8080/behind", False),
        ("http://[::1]:8080", False),
    ],
)
def test_graph_sends_to_https_only(public_url: str, told: bool) -> None:
    given = document({"group.id": "x"}, entra={"type": "entra", "graph": {}, "public_url": public_url})
    found = warned(given).get("sources.entra.public_url", "")
    assert ("https addresses only" in found) is told


def test_a_source_without_credentials_for_its_api_is_warned_of() -> None:
    told = warned(document({}, okta={"type": "okta"}, entra={"type": "entra"}, scim={"type": "scim"}))
    assert "has no api: " in told["sources.okta"]
    assert "lost for good" in told["sources.okta"]
    assert "has no graph: " in told["sources.entra"]
    assert "sources.scim" not in told


@pytest.mark.parametrize(
    ("url", "told"),
    [("https://acme.okta.com", False), ("http://acme.okta.com", True), ("http://127.0.0.1:9000", False)],
)
def test_an_api_token_in_clear_is_warned_of(url: str, told: bool) -> None:
    found = warned(document({}, okta={"type": "okta", "api": {"url": url}}))
    assert "sources.okta" not in found
    assert ("in clear" in found.get("sources.okta.api.url", "")) is told


PATH = "rules[0].when.group.name"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({}, True),
        ({"source": "entra"}, True),
        ({"source": ["okta", "entra"]}, True),
        ({"source": {"prefix": "e"}}, True),
        ({"source": {"anything-but": ["okta"]}}, True),
        ({"source": ["okta"]}, False),
        ({"source": {"anything-but": ["entra"]}}, False),
        ({"source": {"anything-but": "entra"}}, False),
    ],
)
def test_a_condition_that_only_a_look_up_decides(condition: dict[str, Any], expected: bool) -> None:
    sources: dict[str, dict[str, Any]] = {"okta": {"type": "okta"}, "entra": {"type": "entra"}}
    found = warned(document({"group.name": "x", **condition}, **sources))
    assert (PATH in found) is expected
    if expected:
        assert 'the source "entra" does not tell group.name without a look-up' in found[PATH]
        assert "configure sources.entra.graph" in found[PATH]
    sources["entra"]["graph"] = {}
    assert PATH not in warned(document({"group.name": "x", **condition}, **sources))


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


def test_problems_stand_in_the_order_of_the_file() -> None:
    given = {
        "rules": [{"name": "a", "when": {"group.id": ["x"], "group": 1}}, {"name": "b"}],
        "mode": "x",
        "lists": {"z": [1, 2], "a": []},
    }
    paths = [
        "",
        "rules[0].when.group.id[0]",
        "rules[0].when.group",
        "rules[1].revoke",
        "mode",
        "lists.z[0]",
        "lists.z[1].id",
        "lists.a",
        "identity",
    ]
    told = config_checks.with_rule_names([Problem(path, "wrong") for path in sorted(paths)], {**given})
    assert [problem.path for problem in told] == paths


@pytest.mark.parametrize(
    ("key", "url", "told"),
    [
        ("api.url", "https://acme.okta.com/api/v1", "ends in /api/v1"),
        ("api.url", "https://acme.okta.com/", None),
        ("api.url", "https://acme-admin.okta.com", "the API is at https://acme.okta.com"),
        ("api.url", "https://acme-admin.oktapreview.com:8443", "the API is at https://acme.oktapreview.com:8443"),
        ("api.url", "https://login.acme-admin.example.com", None),
        ("graph.url", "http://graph.example.com/v1.0", "in clear"),
        ("graph.url", "https://graph.microsoft.us", "such as https://graph.microsoft.us/v1.0"),
        ("graph.url", "https://graph.microsoft.us/v1.0/", None),
        ("graph.login_url", "http://login.example.com", "in clear"),
        ("graph.login_url", "https://login.microsoftonline.us", None),
        ("public_url", "https://relay.acme.example.com/hooks/us/", "adds itself"),
        ("public_url", "https://relay.acme.example.com/behind/us", None),
    ],
)
def test_an_address_that_cannot_work_is_warned_of(key: str, url: str, told: str | None) -> None:
    *outer, last = key.split(".")
    source: dict[str, Any] = {"type": "okta" if outer == ["api"] else "entra", "graph": {}}
    (source.setdefault(outer[0], {}) if outer else source)[last] = url
    found = warned(document({"group.id": "g"}, us=source)).get(f"sources.us.{key}")
    assert found is None if told is None else told in (found or ""), found

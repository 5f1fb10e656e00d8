"""Tidying SCIM bodies: what each shape becomes, without any server."""

from __future__ import annotations

from typing import Any

import pytest
from scim2_models import InvalidFilterException, InvalidSyntaxException, InvalidValueException, SCIMException

from relay.store.scim_members import Step
from relay.store.scim_rows import Member
from relay.web import scim_bodies, scim_json
from relay.web.scim_bodies import GroupChange
from relay.web.scim_service import provider

USER: Any = provider().model_for("User")
GROUP: Any = provider().model_for("Group")
CORE = "urn:ietf:params:scim:schemas:core:2.0:User"
CORE_GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


def operations(*given: dict[str, Any], model: Any = USER) -> list[dict[str, Any]]:
    tidy = scim_bodies.patch({"Operations": list(given)}, model)
    assert tidy["schemas"] == [PATCH_OP]
    listed: list[dict[str, Any]] = tidy["Operations"]
    return listed


def change(*given: dict[str, Any]) -> GroupChange | None:
    return scim_bodies.group_change(scim_bodies.patch({"Operations": list(given)}, GROUP), "grp_1")


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("active", [{"value": "False"}], "False"),
        ("active", ["False"], "False"),
        ("active", {"value": False}, False),
        ("active", [], None),
        ("title", {"value": "Boss", "type": "x"}, {"value": "Boss", "type": "x"}),
        ("emails", {"value": "a@example.com"}, [{"value": "a@example.com"}]),
        ("emails", "a@example.com", [{"value": "a@example.com"}]),
        ("emails", ["a@example.com"], [{"value": "a@example.com"}]),
        ("emails", [], []),
        ("emails", None, None),
        ('emails[type eq "work"].value', [{"value": "a@example.com"}], "a@example.com"),
        ('emails[type eq "work"]', {"value": "a@example.com"}, {"value": "a@example.com"}),
        ("name", {"givenName": "Ada"}, {"givenName": "Ada"}),
        (f"{ENTERPRISE}:manager", "usr_1", {"value": "usr_1"}),
        (f"{ENTERPRISE}:manager", [{"value": "usr_1"}], {"value": "usr_1"}),
        (f"{ENTERPRISE}:manager", "", None),
        ("favouriteColour", [{"value": "green"}], [{"value": "green"}]),
    ],
)
def test_a_value_gets_the_shape_of_its_attribute(path: str, value: Any, wanted: Any) -> None:
    assert operations({"op": "Replace", "path": path, "value": value}) == [
        {"op": "replace", "path": path, "value": wanted}
    ]
    if "[" not in path and ":" not in path:
        (without_path,) = operations({"op": "add", "value": {path: value}})
        assert without_path == {"op": "add", "value": {path: wanted}}


def test_an_extension_is_tidied_too() -> None:
    (found,) = operations({"op": "add", "value": {ENTERPRISE.upper(): {"manager": "usr_1", "department": "R"}}})
    assert found["value"] == {ENTERPRISE: {"manager": {"value": "usr_1"}, "department": "R"}}


def test_a_path_loses_the_schema_that_says_nothing() -> None:
    (found,) = operations({"op": "replace", "path": f"{CORE.upper()}:title", "value": "x"})
    assert found["path"] == "title"
    (found,) = operations({"op": "replace", "path": f"{ENTERPRISE}:department", "value": "x"})
    assert found["path"] == f"{ENTERPRISE}:department"


def test_a_removal_without_a_path_is_one_for_each_attribute() -> None:
    assert operations({"op": "Remove", "value": {"active": True, "emails": [{"value": "a", "type": None}]}}) == [
        {"op": "remove", "path": "active"},
        {"op": "remove", "path": "emails", "value": [{"value": "a"}]},
    ]


def test_a_resource_gets_the_schemas_that_are_served() -> None:
    body = {"schemas": ["urn:example:alien"], "userName": "a", "active": ["True"], ENTERPRISE: {"department": "R"}}
    tidy = scim_bodies.resource(body, USER)
    assert tidy == {
        "userName": "a",
        "active": "True",
        ENTERPRISE: {"department": "R"},
        "schemas": [CORE, ENTERPRISE],
    }
    assert scim_bodies.resource({"displayName": "x"}, GROUP)["schemas"] == [CORE_GROUP]


def test_members_are_listed_once_and_by_what_counts() -> None:
    given = [{"Value": "a", "$ref": None, "Type": "User", "display": 7}, {"value": "a"}, "b"]
    tidy = scim_bodies.resource({"displayName": "x", "members": given}, GROUP)
    assert tidy["members"] == [{"value": "a", "type": "User"}, {"value": "b"}]
    assert scim_bodies.resource({"displayName": "x", "members": None}, GROUP)["members"] is None


def test_what_fits_into_rows_is_found() -> None:
    a, b = Member("a"), Member("b", "User", "Bob")
    found = change(
        {"op": "Remove", "path": "members", "value": [{"value": "a"}]},
        {"op": "remove", "path": 'Members[ value eq "a" ]'},
        {"op": "add", "path": "members", "value": [{"value": "b", "type": "User", "display": "Bob"}]},
        {"op": "replace", "value": {"id": "grp_1", "displayName": "New", "members": [{"value": "a"}]}},
        {"op": "replace", "path": "externalId", "value": "x1"},
        {"op": "remove", "path": "members"},
    )
    assert found == GroupChange(
        [
            Step("remove", (a,)),
            Step("remove", (a,)),
            Step("add", (b,)),
            Step("replace", (a,)),
            Step("replace", ()),
        ],
        {"displayName": "New", "externalId": "x1"},
    )


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "value": {"id": "grp_2"}},
        {"op": "replace", "path": "displayName", "value": ""},
        {"op": "replace", "path": "displayName", "value": ["a", "b"]},
        {"op": "remove", "path": "externalId"},
        {"op": "remove", "path": 'members[type eq "User"]'},
        {"op": "remove", "path": 'members[value eq "a" or value eq "b"]'},
        {"op": "replace", "path": 'members[value eq "a"].display', "value": "x"},
        {"op": "replace", "path": 'members[value eq "a"]', "value": {"value": "b"}},
        {"op": "move", "path": "members", "value": [{"value": "a"}]},
    ],
)
def test_what_does_not_fit_into_rows_is_left_to_the_library(operation: dict[str, Any]) -> None:
    assert change({"op": "add", "path": "members", "value": "a"}, operation) is None


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"Operations": None},
        {"Operations": ["x"]},
        {"Operations": [{"op": "replace"}]},
        {"Operations": [{"op": "replace", "value": 7}]},
        {"Operations": [{"op": "remove", "path": "emails", "value": None}]},
        {"Operations": [{"op": 1, "path": "active"}]},
        {"Operations": [{"op": "add", "path": {"a": 1}}]},
        {"Operations": [{"op": "add", "path": "title", "value": "x"}] * 1001},
    ],
)
def test_what_nobody_can_mean_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(SCIMException) as caught:
        scim_bodies.patch(document, USER)
    assert caught.value.status == 400


def test_a_thousand_operations_are_taken() -> None:
    assert len(operations(*[{"op": "add", "path": "title", "value": "x"}] * 1000)) == 1000


def test_text_that_no_database_keeps_is_refused() -> None:
    for text in ("a\0", "\ud800", "\udfff"):
        with pytest.raises(InvalidValueException):
            scim_json.check_text(text)
    scim_json.check_text("é 😀")


def test_filters_have_a_limit() -> None:
    scim_json.check_filter("x" * scim_json.LONGEST_FILTER)
    for text in ("x" * (scim_json.LONGEST_FILTER + 1), "(" * 51, "[" * 51, 'a eq "\\u0000"', 'a eq "\\uD8ff"'):
        with pytest.raises(InvalidFilterException):
            scim_json.check_filter(text)


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def test_bodies_have_a_depth() -> None:
    assert scim_json.read(nested(scim_json.DEEPEST - 1))
    for levels in (scim_json.DEEPEST, 5000, 200_000):
        with pytest.raises(InvalidSyntaxException):
            scim_json.read(nested(levels))


def test_names_stand_once_whatever_their_letters() -> None:
    for body in (b'{"a":1,"a":2}', b'{"active":1,"ACTIVE":2}', b'{"x":[{"a":1,"A":1}]}'):
        with pytest.raises(InvalidSyntaxException, match="twice"):
            scim_json.read(body)
    assert scim_json.read(b'\xef\xbb\xbf{"a":{"b":1},"b":1}') == {"a": {"b": 1}, "b": 1}

"""Every shape in which identity providers say things by SCIM: the answer, what is stored, and the event.

What Okta and Microsoft Entra send is described on the pages that relay/web/scim_bodies.py names.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.store.database import Database
from tests.scim_app import ENTERPRISE, GROUP, PATCH_OP, USER, Scim, make_app

Body = dict[str, Any]


@pytest.fixture
def scim(database: Database, tmp_path: Path) -> Scim:
    return Scim(make_app(database, tmp_path).test_client(), database)


def op(op: str, path: str | None = None, **value: Any) -> Body:
    named = {} if path is None else {"path": path}
    return {"schemas": [PATCH_OP], "Operations": [{"op": op, **named, **value}]}


DEACTIVATIONS: dict[str, Body] = {
    "Entra": op("Replace", "active", value="False"),
    "Entra with the flag": op("replace", "active", value=False),
    "small letters": op("Replace", "active", value="false"),
    "capitals": op("REPLACE", "active", value="FALSE"),
    "add": op("Add", "active", value="False"),
    "Okta": op("replace", value={"active": False}),
    "no path and a text": op("Replace", value={"active": "False"}),
    "a path in other letters": op("Replace", "ACTIVE", value=False),
    "a path with its schema": op("replace", f"{USER}:active", value=False),
    "no schemas": {"Operations": [{"op": "replace", "value": {"active": False}}]},
    "small operations": {"schemas": [PATCH_OP], "operations": [{"op": "replace", "path": "active", "value": False}]},
    "operations first": {"Operations": [{"value": False, "path": "active", "op": "replace"}], "schemas": [PATCH_OP]},
    "wrapped": op("Replace", "active", value=[{"value": "False"}]),
    "wrapped once": op("Replace", "active", value={"value": False}),
    "listed": op("Replace", "active", value=["False"]),
    "no path and wrapped": op("Replace", value={"active": [{"value": "False"}]}),
    "a list around": op("replace", value=[{"active": False}]),
    "an unknown attribute beside": op("replace", value={"active": False, "favouriteColour": "green"}),
    "an unknown path beside": {
        "Operations": [
            {"op": "replace", "path": "favouriteColour", "value": "green"},
            {"op": "replace", "path": "active", "value": False},
        ]
    },
    "an unknown schema beside": op("replace", value={"active": False, "urn:example:acme:2.0:User": {"badge": "7"}}),
    "under its schema": op("replace", value={USER: {"active": False}}),
    "removed": op("remove", "active"),
    "removed with a value": op("Remove", "active", value="True"),
    "removed without a path": op("remove", value={"active": True}),
    "null": op("replace", "active", value=None),
    "null without a path": op("replace", value={"active": None}),
}


@pytest.mark.parametrize("body", DEACTIVATIONS.values(), ids=DEACTIVATIONS.keys())
def test_a_patch_that_ends_an_account(scim: Scim, body: Body) -> None:
    ada = scim.user(displayName="Ada")
    scim.rows()
    for _ in range(2):  # sent again it changes nothing and tells nothing
        assert scim.send("PATCH", f"/Users/{ada}", body).status_code == 204
    stored = scim.get(f"/Users/{ada}")
    assert stored.get("active", False) is False
    assert stored["displayName"] == "Ada"
    assert stored["schemas"] == [USER]
    assert "favouriteColour" not in stored
    assert scim.told() == [("account.deactivated", ada)]


PUT = {"schemas": [USER], "userName": "ada@example.com", "emails": [{"value": "ada@example.com", "primary": True}]}


@pytest.mark.parametrize(
    "active", [False, "False", "false", None, [{"value": "False"}]], ids=["false", "text", "small", "null", "wrapped"]
)
def test_a_put_that_ends_an_account(scim: Scim, active: Any) -> None:
    ada = scim.user(emails=PUT["emails"])
    scim.rows()
    body = PUT | {"id": ada, "active": active, "meta": {"resourceType": "User"}, "groups": []}
    for _ in range(2):
        assert scim.send("PUT", f"/Users/{ada}", body).status_code == 200
    assert scim.get(f"/Users/{ada}").get("active", False) is False
    assert scim.told() == [("account.deactivated", ada)]


@pytest.mark.parametrize("active", [True, False])
def test_a_put_without_active_leaves_it_as_it_was(scim: Scim, active: bool) -> None:
    ada = scim.user(active=active, emails=PUT["emails"])
    scim.rows()
    assert scim.send("PUT", f"/Users/{ada}", PUT | {"title": "Countess"}).status_code == 200
    stored = scim.get(f"/Users/{ada}")
    assert (stored["active"], stored["title"]) == (active, "Countess")
    assert scim.told() == []


def test_a_put_without_active_does_not_give_back_what_a_remove_took(scim: Scim) -> None:
    ada = scim.user(emails=PUT["emails"])
    scim.send("PATCH", f"/Users/{ada}", op("remove", "active"))
    scim.rows()
    assert scim.send("PUT", f"/Users/{ada}", PUT | {"title": "Countess"}).status_code == 200
    assert scim.told() == []
    assert scim.send("PUT", f"/Users/{ada}", PUT | {"active": True}).status_code == 200
    assert scim.told() == [("account.activated", ada)]


@pytest.mark.parametrize(
    "body",
    [op("Replace", "active", value="True"), op("replace", value={"active": True}), op("Add", "active", value=True)],
)
def test_a_patch_that_brings_an_account_back(scim: Scim, body: Body) -> None:
    ada = scim.user(active=False)
    assert scim.told() == []
    assert scim.send("PATCH", f"/Users/{ada}", body).status_code == 204
    assert scim.get(f"/Users/{ada}")["active"] is True
    assert scim.told() == [("account.activated", ada)]


def test_an_active_that_is_neither_is_refused(scim: Scim) -> None:
    ada = scim.user()
    assert scim.send("PATCH", f"/Users/{ada}", op("replace", "active", value="disabled")).status_code == 400
    assert scim.get(f"/Users/{ada}")["active"] is True


REMOVALS: dict[str, Callable[[str, str], Body]] = {
    "Entra": lambda gone, _: op("Remove", "members", value=[{"value": gone}]),
    "Entra with a null reference": lambda gone, _: op("Remove", "members", value=[{"$ref": None, "value": gone}]),
    "Entra with the flag": lambda gone, _: op("remove", f'members[value eq "{gone}"]'),
    "a path and a null": lambda gone, _: op("remove", f'members[value eq "{gone}"]', value=None),
    "other letters and spaces": lambda gone, _: op("Remove", f'Members[Value EQ "{gone}"]'),
    "a path with its schema": lambda gone, _: op("remove", f'{GROUP}:members[value eq "{gone}"]'),
    "a schema and a value": lambda gone, _: op("Remove", f"{GROUP}:members", value=[{"value": gone}]),
    "not in a list": lambda gone, _: op("Remove", "members", value={"value": gone}),
    "ids alone": lambda gone, _: op("remove", "members", value=[gone]),
    "one id alone": lambda gone, _: op("remove", "members", value=gone),
    "with type and display": lambda gone, _: op(
        "remove", "members", value=[{"value": gone, "type": "User", "display": "Ada"}]
    ),
    "no path": lambda gone, _: op("remove", value={"members": [{"value": gone}]}),
    "a longer path": lambda gone, _: op("remove", f'members[value eq "{gone}" and type eq "User"]'),
    "the full list": lambda _, stays: op("replace", "members", value=[{"value": stays}]),
    "the full list without a path": lambda _, stays: op("replace", value={"members": [{"value": stays}]}),
    "small operations, no schemas": lambda gone, _: {
        "operations": [{"op": "Remove", "path": "members", "value": [{"value": gone}]}]
    },
    "Okta's pair": lambda gone, stays: {
        "schemas": [PATCH_OP],
        "Operations": [
            {"op": "remove", "path": f'members[value eq "{gone}"]'},
            {"op": "remove", "path": f'members[value eq "{stays}"]'},
            {"op": "add", "path": "members", "value": [{"value": stays, "display": "Bob"}]},
        ],
    },
    "a name beside": lambda gone, _: {
        "schemas": [PATCH_OP],
        "Operations": [
            {"op": "replace", "value": {"displayName": "Engineering"}},
            {"op": "remove", "path": "members", "value": [{"value": gone}]},
        ],
    },
}


@pytest.mark.parametrize("body", REMOVALS.values(), ids=REMOVALS.keys())
def test_a_patch_that_removes_a_member(scim: Scim, body: Callable[[str, str], Body]) -> None:
    ada, bob = scim.user(), scim.user("bob@example.com")
    group = scim.group(members=[ada, bob])
    scim.rows()
    for _ in range(2):
        assert scim.send("PATCH", f"/Groups/{group}", body(ada, bob)).status_code == 204
    assert scim.members(group) == [bob]
    assert scim.told() == [("group.member_removed", ada)]


def test_a_put_of_the_full_list_removes_who_is_missing(scim: Scim) -> None:
    ada, bob = scim.user(), scim.user("bob@example.com")
    group = scim.group(members=[ada, bob])
    scim.rows()
    body = {
        "schemas": [GROUP],
        "id": group,
        "displayName": "Engineering",
        "members": [{"value": bob, "display": "Bob"}],
    }
    for _ in range(2):
        assert scim.send("PUT", f"/Groups/{group}", body).status_code == 200
    assert scim.members(group) == [bob]
    assert scim.told() == [("group.member_removed", ada)]


NOBODY: dict[str, Body] = {
    "null": op("remove", "members", value=None),
    "an empty list": op("Remove", "members", value=[]),
    "an empty object": op("Remove", "members", value={}),
    "an empty text": op("Remove", "members", value=""),
    "an empty entry": op("Remove", "members", value=[{}]),
    "a null entry": op("Remove", "members", value=[None]),
    "a null id": op("Remove", "members", value=[{"value": None}]),
    "an empty id": op("Remove", "members", value=[{"value": ""}]),
    "no id": op("Remove", "members", value=[{"display": "Ada"}]),
    "a number": op("Remove", "members", value=[{"value": 7}]),
    "one of two": op("Remove", "members", value=[{"value": "usr_1"}, {"$ref": None}]),
    "no path and null": op("remove", value={"members": None}),
    "no path and nothing": op("remove", value={"members": []}),
    "no path at all": op("remove"),
    "the ids of all": op("remove", "members.value"),
    "replaced by null": op("replace", "members", value=None),
    "replaced by null without a path": op("replace", value={"members": None}),
    "replaced by no ids": op("replace", "members", value=[{"display": "Ada"}]),
}


@pytest.mark.parametrize("body", NOBODY.values(), ids=NOBODY.keys())
def test_a_removal_that_names_nobody_removes_nobody(scim: Scim, body: Body) -> None:
    ada = scim.user()
    group = scim.group(members=[ada])
    scim.rows()
    response = scim.send("PATCH", f"/Groups/{group}", body)
    assert response.status_code == 400
    assert response.get_json(force=True)["detail"]
    assert scim.members(group) == [ada]
    assert scim.told() == []


EMPTYINGS: dict[str, tuple[str, Body]] = {
    "the RFC's remove": ("PATCH", op("remove", "members")),
    "an empty list": ("PATCH", op("replace", "members", value=[])),
    "a PUT without members": ("PUT", {"schemas": [GROUP], "displayName": "Engineering"}),
    "a PUT with none": ("PUT", {"schemas": [GROUP], "displayName": "Engineering", "members": []}),
}


@pytest.mark.parametrize(("method", "body"), EMPTYINGS.values(), ids=EMPTYINGS.keys())
def test_emptying_a_group_tells_of_everybody(scim: Scim, method: str, body: Body) -> None:
    people = sorted([scim.user(), scim.user("bob@example.com")])
    group = scim.group(members=people)
    scim.rows()
    assert scim.send(method, f"/Groups/{group}", body).status_code in (200, 204)
    assert scim.members(group) == []
    assert sorted(scim.told()) == [("group.member_removed", person) for person in people]


ADDITIONS: dict[str, Callable[[str], Body]] = {
    "Entra": lambda new: op("Add", "members", value=[{"$ref": None, "value": new}]),
    "not in a list": lambda new: op("add", "members", value={"value": new}),
    "an id alone": lambda new: op("add", "members", value=new),
    "no path": lambda new: op("add", value={"members": [{"value": new}]}),
    "twice in one": lambda new: op("add", "members", value=[{"value": new}, {"value": new}]),
}


@pytest.mark.parametrize("body", ADDITIONS.values(), ids=ADDITIONS.keys())
def test_a_patch_that_adds_a_member(scim: Scim, body: Callable[[str], Body]) -> None:
    ada, bob = scim.user(), scim.user("bob@example.com")
    group = scim.group(members=[ada])
    scim.rows()
    for _ in range(2):
        assert scim.send("PATCH", f"/Groups/{group}", body(bob)).status_code == 204
    assert scim.members(group) == sorted([ada, bob])
    assert scim.told() == [("group.member_added", bob)]


def test_a_group_is_renamed_with_its_id(scim: Scim) -> None:
    ada = scim.user()
    group = scim.group(members=[ada])
    scim.rows()
    assert (
        scim.send("PATCH", f"/Groups/{group}", op("replace", value={"id": group, "displayName": "Makers"})).status_code
        == 204
    )
    assert scim.get(f"/Groups/{group}")["displayName"] == "Makers"
    assert scim.members(group) == [ada]
    scim.send("PATCH", f"/Groups/{group}", op("Replace", "displayName", value="Builders"))
    scim.send("PATCH", f"/Groups/{group}", op("remove", "members"))
    assert [(row.kind, row.subject, row.group_name) for row in scim.rows()] == [
        ("group.member_added", ada, "Makers"),
        ("group.member_added", ada, "Builders"),
        ("group.member_removed", ada, "Builders"),
    ]
    assert scim.send("PATCH", f"/Groups/{group}", op("replace", value={"id": "other"})).status_code == 400


def test_entra_creates_a_group_and_gets_back_only_what_is_served(scim: Scim) -> None:
    alien = "http://schemas.example.com/2006/11/ADSCIM/2.0/Group"
    group = scim.group("Sales", externalId="8aa1a0c0", schemas=[GROUP, alien], meta={"resourceType": "Group"})
    stored = scim.get(f"/Groups/{group}")
    assert stored["schemas"] == [GROUP]
    assert stored["externalId"] == "8aa1a0c0"


def test_entra_changes_several_attributes_at_once(scim: Scim) -> None:
    ada = scim.user(roles=[])
    body = {
        "schemas": [PATCH_OP],
        "Operations": [
            {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "ada@acme.example.com"},
            {
                "op": "Replace",
                "value": {"displayName": "Ada", "name.givenName": "Ada", f"{ENTERPRISE}:employeeNumber": "7"},
            },
            {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "usr_boss"},
        ],
    }
    scim.rows()
    assert scim.send("PATCH", f"/Users/{ada}", body).status_code == 204
    stored = scim.get(f"/Users/{ada}")
    assert stored["emails"] == [{"type": "work", "value": "ada@acme.example.com"}]
    assert (stored["displayName"], stored["name"]) == ("Ada", {"givenName": "Ada"})
    assert stored[ENTERPRISE]["employeeNumber"] == "7"
    assert stored[ENTERPRISE]["manager"]["value"] == "usr_boss"
    assert scim.told() == [("account.changed", ada)]


@pytest.mark.parametrize("value", ["usr_boss", [{"value": "usr_boss"}], {"value": "usr_boss"}, ["usr_boss"]])
def test_a_manager_in_any_shape_is_set_and_taken_away(scim: Scim, value: Any) -> None:
    ada = scim.user()
    assert scim.send("PATCH", f"/Users/{ada}", op("Add", f"{ENTERPRISE}:manager", value=value)).status_code == 204
    assert scim.get(f"/Users/{ada}")[ENTERPRISE]["manager"]["value"] == "usr_boss"
    assert scim.send("PATCH", f"/Users/{ada}", op("Replace", f"{ENTERPRISE}:manager", value="")).status_code == 204
    assert "manager" not in scim.get(f"/Users/{ada}").get(ENTERPRISE, {})


@pytest.mark.parametrize(
    ("operation", "attribute", "wanted"),
    [
        (op("Add", 'roles[primary eq "True"].value', value="Admin"), "roles", [{"primary": True, "value": "Admin"}]),
        (
            op("Add", 'phoneNumbers[type eq "mobile"].value', value="1"),
            "phoneNumbers",
            [{"type": "mobile", "value": "1"}],
        ),
        (
            op("Replace", 'addresses[type eq "work"].locality', value="Oslo"),
            "addresses",
            [{"type": "work", "locality": "Oslo"}],
        ),
        (op("Add", "name.familyName", value="King"), "name", {"familyName": "King"}),
        (op("replace", value={"profileUrl": "no address", "photos": [{"value": "?"}], "locale": "x"}), "locale", "x"),
        (op("Add", f"{ENTERPRISE}:manager", value={"value": "b", "$ref": "../Users/b"}), "active", True),
        (op("Replace", "name", value="Ada King"), "active", True),
    ],
)
def test_entras_mappings_of_other_attributes(scim: Scim, operation: Body, attribute: str, wanted: Any) -> None:
    ada = scim.user()
    assert scim.send("PATCH", f"/Users/{ada}", operation).status_code == 204
    assert scim.get(f"/Users/{ada}")[attribute] == wanted


def test_nulls_and_empty_texts_clear_what_may_be_empty(scim: Scim) -> None:
    ada = scim.user(title="Countess", nickName="A", emails=[{"value": "ada@example.com"}])
    body = op("replace", value={"title": None, "nickName": "", "emails": None, "name": {"givenName": None}})
    assert scim.send("PATCH", f"/Users/{ada}", body).status_code == 204
    stored = scim.get(f"/Users/{ada}")
    assert not stored.get("title")
    assert not stored.get("nickName")
    assert "emails" not in stored


def test_no_operations_change_nothing(scim: Scim) -> None:
    ada, group = scim.user(), scim.group()
    scim.rows()
    body = {"schemas": [PATCH_OP], "Operations": []}
    assert scim.send("PATCH", f"/Users/{ada}", body).status_code == 204
    assert scim.send("PATCH", f"/Groups/{group}", body).status_code == 204
    assert scim.send("PATCH", "/Users/usr_nobody", body).status_code == 404
    assert scim.told() == []


def test_several_operations_are_all_done_or_none(scim: Scim) -> None:
    ada = scim.user()
    group = scim.group(members=[ada])
    scim.rows()
    bad = {"op": "replace", "path": "displayName", "value": None}
    assert scim.patch(f"/Groups/{group}", {"op": "remove", "path": "members"}, bad).status_code == 400
    refused = scim.patch(
        f"/Users/{ada}", {"op": "replace", "path": "active", "value": False}, {"op": "burn", "path": "title"}
    )
    assert refused.status_code == 400
    assert scim.members(group) == [ada]
    assert scim.get(f"/Users/{ada}")["active"] is True
    assert scim.told() == []


def test_oktas_password_is_accepted_and_kept_nowhere(scim: Scim, database: Database) -> None:
    ada = scim.user(password="hunter22hunter22", groups=[])
    scim.send("PATCH", f"/Users/{ada}", op("replace", value={"password": "hunter22hunter23", "active": False}))
    stored = scim.get(f"/Users/{ada}")
    assert "password" not in stored
    assert "groups" not in stored
    assert scim.told() == [("account.activated", ada), ("account.deactivated", ada)]
    with database.read() as connection:
        for table in ("scim_users", "events"):
            rows = connection.exec_driver_sql(f"SELECT * FROM {table}").all()
            assert rows
            assert "hunter22" not in str(rows)


def test_a_test_connection_finds_an_empty_list(scim: Scim) -> None:
    found = scim.get('/Users?filter=userName eq "c0ffee"&startIndex=1&count=2')
    assert (found["totalResults"], found.get("Resources", [])) == (0, [])
    assert scim.send("GET", "/Users/usr_nobody").status_code == 404
    assert scim.send("POST", "/Users", {"schemas": [USER], "userName": "x@example.com"}).status_code == 201
    taken = scim.send("POST", "/Users", {"schemas": [USER], "userName": "X@Example.com"})
    assert (taken.status_code, taken.get_json(force=True)["scimType"]) == (409, "uniqueness")
    assert scim.get('/Users?filter=userName eq "X@EXAMPLE.COM"')["totalResults"] == 1


def test_an_address_of_a_local_domain_is_an_address(scim: Scim) -> None:
    ada = scim.user("ada@acme.local", emails=[{"value": "ada@acme.local", "type": "work"}])
    assert scim.rows()[0].email == "ada@acme.local"
    assert scim.get(f"/Users/{ada}")["emails"][0]["value"] == "ada@acme.local"


@pytest.mark.parametrize("attributes", [{}, {"active": None}, {"active": "True"}])
def test_a_user_is_created_active_unless_told_otherwise(scim: Scim, attributes: Body) -> None:
    response = scim.send("POST", "/Users", {"schemas": [USER], "userName": "ada@example.com"} | attributes)
    stored = response.get_json(force=True)
    assert (response.status_code, stored["active"]) == (201, True)
    assert scim.told() == [("account.activated", stored["id"])]


def test_a_value_of_a_user_is_removed_by_what_it_is(scim: Scim) -> None:
    addresses = [{"value": "ada@example.com", "type": "work"}, {"value": "home@example.com", "type": "home"}]
    ada = scim.user(emails=addresses)
    removal = op("Remove", "emails", value=[{"value": "home@example.com", "display": None}])
    assert scim.send("PATCH", f"/Users/{ada}", removal).status_code == 204
    assert scim.get(f"/Users/{ada}")["emails"] == addresses[:1]


def test_no_schema_of_a_clients_own_is_given_back(scim: Scim) -> None:
    ada = scim.user()
    for alien in (["urn:example:acme:2.0:User"], "urn:example:acme:2.0:Robot"):
        assert scim.send("PATCH", f"/Users/{ada}", op("add", "schemas", value=alien)).status_code == 204
    assert scim.get(f"/Users/{ada}")["schemas"] == [USER]

"""Which attributes of a SCIM user make the Velt user id: any, by their paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.store.database import Database
from relay.store.scim_events import at_path
from tests import scim_app
from tests.scim_app import ENTERPRISE, Scim, make_app

DOCUMENT = {
    "userName": "ada@example.com",
    "nickName": "ada",
    "name": {"familyName": "Lovelace"},
    "emails": [{"value": "ada@example.com"}],
    "active": True,
    ENTERPRISE: {"employeeNumber": "701", "manager": {"value": "42"}},
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nickName", "ada"),
        ("name.familyName", "Lovelace"),
        (f"{ENTERPRISE}:employeeNumber", "701"),
        (f"{ENTERPRISE}:manager.value", "42"),
        ("urn:ietf:params:scim:schemas:core:2.0:User:nickName", "ada"),
        ("title", None),
        ("name", None),
        ("emails", None),
        ("active", None),
        ("nickName.deeper", None),
        (f"{ENTERPRISE}:none", None),
        ("", None),
    ],
)
def test_an_attribute_is_found_by_its_path(path: str, text: str | None) -> None:
    assert at_path(DOCUMENT, path) == text


def test_the_fields_of_events_are_filled_by_the_paths_of_relay_yaml(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = f'attributes: {{login: nickName, external_id: "{ENTERPRISE}:employeeNumber"}}'
    with_paths = scim_app.RELAY_YAML.replace("{env: SCIM_TOKEN}}", "{env: SCIM_TOKEN}, " + given + "}")
    assert with_paths != scim_app.RELAY_YAML
    monkeypatch.setattr(scim_app, "RELAY_YAML", with_paths)
    scim = Scim(make_app(database, tmp_path).test_client(), database)
    ada = scim.user(nickName="ada", externalId="x", **{ENTERPRISE: {"employeeNumber": "701"}})
    group = scim.group(members=[ada])
    scim.patch(f"/Groups/{group}", {"op": "Remove", "path": "members", "value": [{"value": ada}]})
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": f"{ENTERPRISE}:employeeNumber", "value": "702"})
    told = [(row.kind, row.login, row.external_id) for row in scim.rows()]
    assert told == [
        ("account.activated", "ada", "701"),
        ("group.member_added", "ada", "701"),
        ("group.member_removed", "ada", "701"),
        ("account.changed", "ada", "702"),
    ]

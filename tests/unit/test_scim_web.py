"""SCIM as part of the whole web process: served for the sources of relay.yaml, with the demo's off-boarding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask

from relay import compose
from relay.demo_scim import scim_demo
from relay.model import SECOND
from relay.settings import load
from relay.store import claim
from relay.store.claim import Terms
from relay.store.database import Database
from relay.web import create_app, wiring
from tests.config_files import write_config
from tests.scim_app import RELAY_YAML, TOKEN, Scim, make_app

OFF = {"op": "replace", "path": "active", "value": False}


@pytest.fixture
def environ(tmp_path: Path, database_url: str) -> dict[str, str]:
    return {
        "RELAY_CONFIG": str(write_config(tmp_path, RELAY_YAML)),
        "DATABASE_URL": database_url,
        "SCIM_TOKEN": TOKEN,
        "OTHER_TOKEN": "another",
        "RELAY_OPS_TOKEN": "operator=acme-operator-token",
    }


@pytest.fixture
def app(environ: dict[str, str]) -> Any:
    made = create_app(load(environ))
    yield made
    made.extensions["relay"].database.close()


def test_it_is_served_for_each_source_beside_the_rest(app: Flask, database: Database) -> None:
    scim = Scim(app.test_client(), database)
    scim.user()
    assert scim.get("/Users")["totalResults"] == 1
    assert Scim(app.test_client(), database, source="other", token="another").get("/Users")["totalResults"] == 0
    assert app.test_client().get("/scim/third/v2/Users").status_code == 404
    assert app.test_client().get("/healthz").status_code == 200


@pytest.mark.parametrize("other", ["third: {type: scim, ", "directory: {type: okta, secret: {env: S}} #"])
def test_a_source_that_leaves_relay_yaml_is_to_send_again_and_nothing_is_changed(
    app: Flask, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr(wiring, "LOOK", 0.0)
    scim = Scim(app.test_client(), database)
    ada = scim.user()
    scim.told()
    write_config(tmp_path, RELAY_YAML.replace("directory: {type: scim, ", other))
    for answer in (scim.patch(f"/Users/{ada}", OFF), scim.send("GET", f"/Users/{ada}"), scim.send("DELETE", "/none")):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
        assert answer.json["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert answer.json["detail"] == "this source is not in today's relay.yaml; send this again"
    assert scim.told() == []
    assert Scim(app.test_client(), database, source="other", token="another").get("/Users")["totalResults"] == 0
    write_config(tmp_path, RELAY_YAML)
    assert scim.get(f"/Users/{ada}")["active"] is True


def test_without_its_token_a_source_is_to_send_again(database: Database, tmp_path: Path) -> None:
    answer = Scim(make_app(database, tmp_path, SCIM_TOKEN="").test_client(), database).send("GET", "/Users")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json["detail"] == "the token of this source is not there at the moment; send this again"


def test_a_body_may_be_larger_than_elsewhere(app: Flask, database: Database) -> None:
    scim = Scim(app.test_client(), database)
    group = scim.group(members=[f"usr_{number:0200}" for number in range(6000)])
    assert len(scim.members(group)) == 6000


def test_scim_sources_fill_every_field_and_are_complete(environ: dict[str, str]) -> None:
    rules = compose.compiled(load(environ).config_file.current)
    assert rules.complete == {"directory", "other"}
    assert {"user.email", "user.external_id", "group.name"} <= rules.fills["directory"]


def test_the_demo_ends_in_three_people_losing_the_organization(
    app: Flask, environ: dict[str, str], database: Database
) -> None:
    client = app.test_client()

    def call(url: str, method: str, headers: dict[str, str], document: object) -> bytes:
        body = None if document is None else json.dumps(document)
        answer = client.open(urlsplit(url).path, method=method, headers=headers, data=body)
        assert 200 <= answer.status_code < 300, answer.text
        return answer.data

    settings = load(environ)
    because = scim_demo(settings, "http://relay", call)
    rules = compose.compiled(settings.config_file.current)
    taken: dict[str, list[str]] = {}
    while tasks := claim.claim(database, Terms(rules, "w1", "k", 30 * SECOND), 50).tasks:
        taken |= {task.velt_user_id: [str(resource) for resource in task.resources] for task in tasks}
    assert taken == {person: ["organization acme"] for person in because}
    assert len(because) == 3


def test_without_a_scim_source_the_demo_has_nothing_to_show(tmp_path: Path) -> None:
    config = RELAY_YAML.replace("type: scim, token", "type: okta, secret")
    settings = load({"RELAY_CONFIG": str(write_config(tmp_path, config))})
    assert scim_demo(settings, "http://relay", lambda *_: b"") == {}

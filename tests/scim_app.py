"""A web application with SCIM sources only, and how tests speak to it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from relay import settings
from relay.config import Config
from relay.settings import Settings
from relay.store.database import Database
from relay.store.tables import events
from relay.web import scim

TOKEN = "scim-token-of-acme"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH_OP = "urn:ietf:params:scim:api:messages:2.0:PatchOp"

RELAY_YAML = """
sources:
  directory: {type: scim, token: {env: SCIM_TOKEN}}
  other: {type: scim, token: {env: OTHER_TOKEN}}
identity: {velt_user_id: ["{user.email}", "{user.login}"]}
rules:
  - name: engineering
    when: {kind: [group.member_removed, group.deleted], group.name: [Engineering]}
    revoke: [{type: organization, id: acme}]
  - name: leavers
    when: {kind: [account.deactivated, account.deleted]}
    revoke: everything
mode: enforce
"""


@dataclass
class Parts:
    """What relay.web.scim asks of the web process."""

    settings: Settings
    database: Database

    def config(self) -> Config:
        return self.settings.config_file.current


def make_app(database: Database, folder: Path, **environ: str) -> Flask:
    """The application, for the sources of RELAY_YAML."""
    (folder / "relay.yaml").write_text(RELAY_YAML)
    given = {"RELAY_CONFIG": str(folder / "relay.yaml"), "SCIM_TOKEN": TOKEN, "OTHER_TOKEN": "another"} | environ
    app = Flask(__name__)
    scim.register(app, Parts(settings.load(given), database))
    return app


@dataclass
class Scim:
    """A client of one source; `sent` tells what the database recorded since the last time it was asked."""

    client: FlaskClient
    database: Database
    source: str = "directory"
    token: str = TOKEN
    _seen: set[str] = field(default_factory=set)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        """A request; `body` is JSON, or bytes as they are."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/scim+json"} | headers
        return self.client.open(f"/scim/{self.source}/v2{path}", method=method, data=data, headers=given)

    def get(self, path: str, **headers: str) -> Any:
        response = self.send("GET", path, **headers)
        assert response.status_code == 200, response.text
        return json.loads(response.data)

    def user(self, login: str = "ada@example.com", **attributes: Any) -> str:
        """The id of a new user."""
        response = self.send("POST", "/Users", {"schemas": [USER], "userName": login, "active": True} | attributes)
        assert response.status_code == 201, response.text
        return str(json.loads(response.data)["id"])

    def group(self, name: str = "Engineering", members: list[str] | None = None, **attributes: Any) -> str:
        """The id of a new group."""
        listed = [{"value": member} for member in members or ()]
        response = self.send(
            "POST", "/Groups", {"schemas": [GROUP], "displayName": name, "members": listed} | attributes
        )
        assert response.status_code == 201, response.text
        return str(json.loads(response.data)["id"])

    def patch(self, path: str, *operations: dict[str, Any]) -> TestResponse:
        return self.send("PATCH", path, {"schemas": [PATCH_OP], "Operations": list(operations)})

    def members(self, group_id: str) -> list[str]:
        return sorted(member["value"] for member in self.get(f"/Groups/{group_id}").get("members", []))

    def rows(self) -> list[Any]:
        """The events recorded since this was last called, in the order of their times."""
        with self.database.read() as connection:
            found = connection.execute(select(events).where(events.c.source == self.source).order_by(events.c.as_of))
            new = [row for row in found if row.id not in self._seen]
        self._seen |= {row.id for row in new}
        return new

    def told(self) -> list[tuple[str, str]]:
        """The (kind, subject) of the events recorded since this was last called."""
        return [(row.kind, row.subject) for row in self.rows()]

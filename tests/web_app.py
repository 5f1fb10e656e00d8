"""The web application for tests: a relay.yaml with two sources and the requests that its hooks take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask
from sqlalchemy import select

from relay.settings import load
from relay.store.database import Database
from relay.store.tables import events
from relay.web import create_app
from tests.config_files import write_config
from tests.payloads import CLIENT_STATE, okta_event, okta_group, okta_hook, okta_user, to_bytes

OKTA_SECRET = "acme-okta-secret"
OPERATOR = "acme-operator-token"
ENGINEERING = """\
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
  entra: {type: entra, client_state: {env: ENTRA_CLIENT_STATE}}
identity: {velt_user_id: ["{user.login}", "{user.id}"]}
rules:
  - name: engineering
    when: {kind: [group.member_removed], source: [okta], group.name: [Engineering]}
    revoke: [{type: organization, id: acme}]
"""


def environment(folder: Path, database_url: str, config: str = ENGINEERING) -> dict[str, str]:
    """What a web process needs, with `config` written to the folder as its relay.yaml."""
    return {
        "RELAY_CONFIG": str(write_config(folder, config)),
        "DATABASE_URL": database_url,
        "OKTA_HOOK_SECRET": OKTA_SECRET,
        "ENTRA_CLIENT_STATE": CLIENT_STATE,
        "SCIM_TOKEN": "acme-scim-bearer-token",
        "RELAY_OPS_TOKEN": f"operator={OPERATOR}",
    }


@contextmanager
def serving(folder: Path, database_url: str, config: str = ENGINEERING) -> Iterator[Flask]:
    """The application, its connections closed afterwards."""
    app = create_app(load(environment(folder, database_url, config)))
    try:
        yield app
    finally:
        app.extensions["relay"].database.close()


def okta_headers(secret: str = OKTA_SECRET) -> dict[str, str]:
    return {"Authorization": secret, "Content-Type": "application/json"}


def okta_removal(event_id: str | None = None, login: str = "ada@acme.example") -> bytes:
    """A hook's body: somebody was removed from Engineering."""
    return to_bytes(
        okta_hook(
            [
                okta_event(
                    "group.user_membership.remove", okta_user(f"00u{login}", login), okta_group(), event_id=event_id
                )
            ]
        )
    )


def stored(database: Database) -> list[tuple[str, str, str]]:
    """(source, state, type) of every recorded event, in the order of arrival."""
    with database.read() as connection:
        rows = connection.execute(select(events.c.source, events.c.state, events.c.type).order_by(events.c.id))
        return [(row.source, row.state, row.type) for row in rows]

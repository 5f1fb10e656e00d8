from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.database import Database
from tests import postgres

_SETTINGS = ("RELAY_", "VELT_", "DATABASE_URL", "OKTA_", "ENTRA_", "SCIM_", "LOG_LEVEL", "PORT", "WEB_CONCURRENCY")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    with postgres.running_server() as server:
        yield server


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy."""
    path = tmp_path_factory.mktemp("template") / "relay.db"
    template = Database(f"sqlite:///{path}")
    template.migrate()
    template.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, _sqlite_template: Path) -> str:
    """The URL of a new, migrated database, once on SQLite and once on PostgreSQL."""
    if request.param == "postgresql":
        server: postgres.Server = request.getfixturevalue("postgres_server")
        return server.new_database()
    for leftover in _sqlite_template.parent.glob("relay.db*"):
        if leftover.suffix != ".lock":
            shutil.copy(leftover, tmp_path / leftover.name)
    return f"sqlite:///{tmp_path / 'relay.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()

"""scim2-tester, the conformance suite of the SCIM libraries, finds nothing wrong, on both databases."""

from __future__ import annotations

from pathlib import Path

from scim2_client.engines.wsgi import WSGISCIMClient
from scim2_tester import Status, check_server

from relay.store.database import Database
from tests.scim_app import TOKEN, make_app


def test_the_conformance_suite_finds_nothing_wrong(database: Database, tmp_path: Path) -> None:
    app = make_app(database, tmp_path)
    client = WSGISCIMClient(app, "http://localhost/scim/directory/v2", headers={"Authorization": f"Bearer {TOKEN}"})
    results = check_server(client)
    wrong = [f"{result.title}: {result.reason}" for result in results if result.status is not Status.SUCCESS]
    assert wrong == []
    assert len(results) > 100

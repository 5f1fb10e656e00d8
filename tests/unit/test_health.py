"""/healthz, /readyz and /metrics, and what they never depend on; what the web process does not start without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from relay.errors import ConfigError
from relay.model import SECOND, now
from relay.settings import load
from relay.store import alerts, delivery, heartbeat
from relay.store import subscriptions as kept
from relay.store.database import Database
from relay.store.subscriptions import Live, Record
from relay.web import create_app, wiring
from tests import postgres
from tests.config_files import write_config
from tests.web_app import ENGINEERING, OPERATOR, environment, okta_headers, okta_removal, serving


@pytest.fixture
def app(tmp_path: Path, database_url: str) -> Iterator[Flask]:
    with serving(tmp_path, database_url) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def metrics(client: FlaskClient) -> dict[str, float]:
    """Every sample: `name{label values}` -> value."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.mimetype == "text/plain"
    families = text_string_to_metric_families(response.get_data(as_text=True))
    return {
        "/".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_alive_without_a_database(tmp_path: Path) -> None:
    with serving(tmp_path, f"sqlite:///{tmp_path / 'gone.db'}") as app:
        response = app.test_client().get("/healthz")
        assert (response.status_code, response.get_json()) == (200, {"status": "alive"})


def test_ready(client: FlaskClient, app: Flask) -> None:
    response = client.get("/readyz")
    told = response.get_json()
    assert response.status_code == 200
    assert told["status"] == "ready"
    assert told["workers"] == []
    assert told["config"] == {"refused": False, "problems": 0}
    assert told["rules_version"] == app.extensions["relay"].config().version
    assert told["delivery"] == {
        "mode": "enforce",
        "state": "closed",
        "why": None,
        "since": told["delivery"]["since"],
        "paused": False,
    }


def test_a_refused_relay_yaml_is_told_without_its_sentences(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "LOOK", 0.0)
    assert metrics(client)["relay_config_refused"] == 0
    write_config(tmp_path, ENGINEERING + "mode: loud\naccounts: none\n")
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.get_json()["config"] == {"refused": True, "problems": 2}
    assert "loud" not in response.get_data(as_text=True)
    assert metrics(client)["relay_config_refused"] == 1
    write_config(tmp_path, ENGINEERING)
    assert metrics(client)["relay_config_refused"] == 0
    assert client.get("/readyz").get_json()["config"] == {"refused": False, "problems": 0}


def test_how_long_subscriptions_live_on_is_measured(client: FlaskClient, database: Database) -> None:
    assert not [name for name in metrics(client) if name.startswith("relay_subscription")]
    live = (Live("a", "/users", now() + 3600 * SECOND, ""), Live("b", "/users", now() + 7200 * SECOND, ""))
    kept.write(database, Record("entra", live=live))
    measured = metrics(client)
    assert 7000 < measured["relay_subscription_expires_seconds//users/entra"] <= 7200
    assert measured["relay_subscription_expires_seconds//groups/entra"] == 0


def test_what_has_not_happened_yet_is_measured_as_zero(tmp_path: Path, database_url: str) -> None:
    named = ENGINEERING.replace("okta:", "okta-acme:").replace("[okta]", "[okta-acme]").replace("entra:", "entra-acme:")
    with serving(tmp_path, database_url, named) as app:
        measured = metrics(app.test_client())
    for source in ("okta-acme", "entra-acme"):
        for name in ("relay_hook_rejected_items_total", "relay_found_by_reconcile", "relay_found_by_look_up"):
            assert measured[f"{name}/{source}"] == 0


def test_the_front_page_says_what_this_is_and_where_things_are(client: FlaskClient) -> None:
    response = client.get("/")
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    for place in ("/hooks/", "/api/v1/", "/openapi.json", "/readyz", "/healthz", "/metrics"):
        assert place in response.get_data(as_text=True)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, "/openapi.json lists what there is, /readyz tells"),
        ("GET", "/api//v1/stats", 404, "/openapi.json"),
        ("DELETE", "/readyz", 405, "DELETE is not taken here, but"),
        ("POST", "/api/v1/pause", 413, "at most 1048576 bytes"),
    ],
)
def test_refusals_speak_our_own_words(client: FlaskClient, method: str, path: str, status: int, words: str) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR}", "Content-Type": "application/json"}
    response = client.open(path, method=method, headers=headers, data=b" " * ((1 << 20) + 1))
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")
    assert words in response.get_json()["detail"]


def test_workers_and_delivery_are_told_and_change_no_status(client: FlaskClient, database: Database) -> None:
    heartbeat.beat(database, "host:1", "abc")
    with database.write() as connection:
        delivery.pause(connection, "ada", "holidays")
    response = client.get("/readyz")
    told = response.get_json()
    assert response.status_code == 200
    assert told["delivery"]["paused"]
    [worker] = told["workers"]
    assert worker["heartbeat_age_seconds"] < 30
    assert {**worker, "heartbeat_age_seconds": 0} == {
        "worker": "host:1",
        "alive": True,
        "heartbeat_age_seconds": 0,
        "rules_version": "abc",
    }


def test_not_ready_without_a_database(tmp_path: Path) -> None:
    with serving(tmp_path, f"sqlite:///{tmp_path / 'gone.db'}") as app:
        response = app.test_client().get("/readyz")
        assert response.status_code == 503
        assert "not available" in response.get_json()["reason"]


def test_not_ready_before_the_database_is_migrated(tmp_path: Path, postgres_server: postgres.Server) -> None:
    with serving(tmp_path, postgres_server.new_database(migrated=False)) as app:
        response = app.test_client().get("/readyz")
        assert response.status_code == 503
        assert "python -m relay migrate" in response.get_json()["reason"]


def test_alerts_are_told_and_change_no_status(client: FlaskClient, database: Database) -> None:
    assert client.get("/readyz").get_json()["alerts"] == []
    assert not any(name.startswith("relay_alerts/") for name in metrics(client))
    with database.write() as connection:
        for key in ("subscription:entra", "subscription:other", "held"):
            alerts.raise_alert(connection, key, f"something about {key}", database.now(connection))
    response = client.get("/readyz")
    assert response.status_code == 200
    assert {alert["key"] for alert in response.get_json()["alerts"]} == {
        "subscription:entra",
        "subscription:other",
        "held",
    }
    told = metrics(client)
    assert (told["relay_alerts/subscription"], told["relay_alerts/held"]) == (2, 1)


def test_metrics(client: FlaskClient, database: Database) -> None:
    before = metrics(client)
    assert before["relay_database_up"] == 1
    assert before["relay_events/received"] == 0
    assert before["relay_revocations/dead"] == 0
    assert before["relay_delivery_open"] == 0
    assert before["relay_workers_alive"] == 0
    assert before["relay_oldest_pending_seconds"] == 0
    heartbeat.beat(database, "host:1", "abc")
    with database.write() as connection:
        delivery.pause(connection, "ada", "holidays")
        connection.execute(delivery.delivery.update().values(state="open"))
    client.post("/hooks/okta", headers=okta_headers(), data=okta_removal())
    client.post("/hooks/okta", data=okta_removal())
    client.post("/hooks/whoever-17", data=okta_removal())
    after = metrics(client)
    assert after["relay_events/received"] == 1
    assert 0 < after["relay_oldest_pending_seconds"] < 60
    assert after["relay_workers_alive"] == 1
    assert after["relay_delivery_open"] == 1
    assert after["relay_delivery_paused"] == 1
    for counter in ("okta/204", "okta/401", "unknown/404"):
        name = f"relay_hook_requests_total/{counter}"
        assert after[name] - before.get(name, 0) == 1
    assert not any("whoever-17" in name for name in after)


def test_metrics_without_a_database(tmp_path: Path) -> None:
    with serving(tmp_path, f"sqlite:///{tmp_path / 'gone.db'}") as app:
        told = metrics(app.test_client())
        assert told["relay_database_up"] == 0
        assert "relay_workers_alive" not in told


@pytest.mark.parametrize("name", ["OKTA_HOOK_SECRET", "ENTRA_CLIENT_STATE", "RELAY_OPS_TOKEN"])
def test_the_web_does_not_start_without(tmp_path: Path, name: str) -> None:
    given = environment(tmp_path, "sqlite:///nowhere.db")
    given[name] = " "
    with pytest.raises(ConfigError) as raised:
        create_app(load(given))
    [problem] = raised.value.problems
    assert problem.path == name
    assert "the web process needs it" in problem.message


def test_nothing_is_opened_before_the_first_request(tmp_path: Path) -> None:
    create_app(load(environment(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}")))
    assert [path.name for path in tmp_path.iterdir()] == ["relay.yaml"]

"""/hooks/<name>: who gets in, what is on disk after which answer, and what an identity provider hears in trouble."""

from __future__ import annotations

import gzip
import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy.exc
import structlog.testing
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.engine import make_url

from relay import intake, operate
from relay.settings import load
from relay.sources.okta import Okta
from relay.store.database import Database
from relay.web import create_app, wiring
from tests.config_files import write_config
from tests.payloads import CLIENT_STATE, entra_body, entra_item, entra_members, okta_event, okta_hook, to_bytes
from tests.web_app import ENGINEERING, OKTA_SECRET, environment, okta_headers, okta_removal, serving, stored

CHALLENGE = "X-Okta-Verification-Challenge"
REMOVAL = ("okta", "received", "group.user_membership.remove")


@pytest.fixture
def app(tmp_path: Path, database_url: str) -> Iterator[Flask]:
    with serving(tmp_path, database_url) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def is_problem(response: object, status: int) -> bool:
    answer = response.get_json()  # type: ignore[attr-defined]
    kind = response.mimetype == "application/problem+json"  # type: ignore[attr-defined]
    return kind and response.status_code == status == answer["status"]  # type: ignore[attr-defined]


def test_okta_verifies_its_hook(client: FlaskClient) -> None:
    response = client.get("/hooks/okta", headers={**okta_headers(), CHALLENGE: "c-1"})
    assert (response.status_code, response.get_json()) == (200, {"verification": "c-1"})


def test_okta_verifies_with_the_wrong_secret_or_without_a_challenge(client: FlaskClient) -> None:
    assert is_problem(client.get("/hooks/okta", headers={CHALLENGE: "c-1"}), 401)
    assert is_problem(client.get("/hooks/okta", headers={**okta_headers("wrong"), CHALLENGE: "c-1"}), 401)
    assert is_problem(client.get("/hooks/okta", headers=okta_headers()), 400)


def test_graph_validates_its_subscription(client: FlaskClient) -> None:
    token = "Validation: <b>1</b>+Request-Id%3a 7"
    response = client.post("/hooks/entra", query_string={"validationToken": token})
    assert (response.status_code, response.get_data(as_text=True)) == (200, token)
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_an_okta_event_is_on_disk_when_it_is_answered(client: FlaskClient, database: Database) -> None:
    response = client.post("/hooks/okta", headers=okta_headers(), data=okta_removal())
    assert (response.status_code, response.data) == (204, b"")
    assert stored(database) == [REMOVAL]


def test_the_same_event_twice_is_once(client: FlaskClient, database: Database) -> None:
    for _ in range(2):
        response = client.post("/hooks/okta", headers=okta_headers(), data=okta_removal("e-1"))
        assert response.status_code == 204
    assert stored(database) == [REMOVAL]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_the_content_type_does_not_matter(client: FlaskClient, database: Database, content_type: str) -> None:
    headers = {**okta_headers(), "Content-Type": content_type}
    assert client.post("/hooks/okta", headers=headers, data=okta_removal()).status_code == 204
    assert stored(database) == [REMOVAL]


class Pour:
    """A body of spaces, read as gunicorn's are, that counts what was read of it."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "somebody wants all of it"
        piece = min(size, self._left)
        self._left -= piece
        self.read_bytes += piece
        return b" " * piece


@pytest.mark.parametrize("secret", ["", "wrong", "acme-okta-secre", "acme-okta-secret "])
def test_a_stranger_is_refused_before_the_body_is_kept(client: FlaskClient, database: Database, secret: str) -> None:
    body = Pour(1 << 30)
    response = client.post(
        "/hooks/okta",
        headers={"Authorization": secret} if secret else {},
        environ_overrides={"wsgi.input": body, "wsgi.input_terminated": True},
    )
    assert is_problem(response, 401)
    assert body.read_bytes == 1 << 20
    assert stored(database) == []


def test_a_refusal_names_its_challenge(client: FlaskClient) -> None:
    for response in (client.post("/hooks/okta", data=b"{}"), client.get("/hooks/okta", headers={CHALLENGE: "c"})):
        assert is_problem(response, 401)
        assert response.headers["WWW-Authenticate"] == 'Secret realm="hooks/okta"'


def test_without_any_secret_the_provider_is_told_to_send_again(
    tmp_path: Path, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "LOOK", 0.0)
    entra = to_bytes(entra_body([entra_item("User", "deleted", "u-1")]))
    with serving(tmp_path, database_url) as app:
        client = app.test_client()
        lacking = ENGINEERING.replace("OKTA_HOOK_SECRET", "NO_SUCH").replace("ENTRA_CLIENT_STATE", "NO_SUCH")
        write_config(tmp_path, lacking)
        for response in (
            client.post("/hooks/okta", headers=okta_headers(), data=okta_removal()),
            client.get("/hooks/okta", headers={**okta_headers(), CHALLENGE: "c-1"}),
            client.post("/hooks/entra", data=entra),
        ):
            assert is_problem(response, 503)
            assert response.headers["Retry-After"] == "2"
        assert stored(database) == []
        write_config(tmp_path, ENGINEERING)
        assert client.post("/hooks/okta", headers=okta_headers(), data=okta_removal()).status_code == 204
        assert client.post("/hooks/entra", data=entra).status_code == 202
    assert len(stored(database)) == 2


def test_a_secret_file_that_is_emptied_or_gone_changes_nothing(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    files = {"OKTA_HOOK_SECRET": OKTA_SECRET, "ENTRA_CLIENT_STATE": CLIENT_STATE}
    given = environment(tmp_path, database_url)
    for name, secret in files.items():
        (tmp_path / name).write_text(secret)
        given |= {name: "", f"{name}_FILE": str(tmp_path / name)}
    app = create_app(load(given))
    client = app.test_client()
    entra = to_bytes(entra_body([entra_item("User", "deleted", "u-1")]))
    for harm in (lambda file: file.write_text(""), lambda file: file.unlink()):
        for name in files:
            harm(tmp_path / name)
        assert client.post("/hooks/okta", headers=okta_headers(), data=okta_removal()).status_code == 204
        assert client.post("/hooks/okta", headers=okta_headers("wrong"), data=okta_removal()).status_code == 401
        assert client.post("/hooks/entra", data=entra).status_code == 202
    app.extensions["relay"].database.close()
    assert [source for source, _, _ in stored(database)].count("entra") == 1, "the second is its twin"
    assert [source for source, _, _ in stored(database)].count("okta") == 2


def test_an_unreadable_body_of_okta_is_kept(client: FlaskClient, database: Database) -> None:
    response = client.post("/hooks/okta", headers=okta_headers(), data=b"{not json")
    assert is_problem(response, 400)
    assert "not JSON" in response.get_json()["detail"]
    assert stored(database) == [("okta", "unreadable", "unreadable")]


def test_an_unreadable_element_does_not_harm_the_others(client: FlaskClient, database: Database) -> None:
    hook = okta_hook([{"uuid": "e-1"}, okta_event("user.session.end")])
    assert client.post("/hooks/okta", headers=okta_headers(), data=to_bytes(hook)).status_code == 204
    assert sorted(state for _, state, _ in stored(database)) == ["ignored", "unreadable"]


def test_entra_is_answered_202(client: FlaskClient, database: Database) -> None:
    body = entra_body([entra_members("g-1", removed=["m-1", "m-2"])])
    assert client.post("/hooks/entra", data=to_bytes(body)).status_code == 202
    assert stored(database) == [("entra", "received", "Group.updated")] * 2


def test_entra_items_with_a_wrong_client_state_are_counted_and_dropped(client: FlaskClient, database: Database) -> None:
    before = _rejected(client)
    items = [entra_item("User", "deleted", "u-1", client_state=state) for state in ("wrong", None)]
    items.append(entra_item("User", "deleted", "u-2"))
    assert client.post("/hooks/entra", data=to_bytes(entra_body(items))).status_code == 202
    assert stored(database) == [("entra", "received", "User.deleted")]
    assert _rejected(client) - before == 2


def _rejected(client: FlaskClient) -> float:
    lines = client.get("/metrics").get_data(as_text=True).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("relay_hook_rejected_items_total{"))


def test_an_unreadable_body_of_entra_is_not_kept(client: FlaskClient, database: Database) -> None:
    assert is_problem(client.post("/hooks/entra", data=b"[]"), 400)
    assert stored(database) == []


def test_a_body_over_the_limit(client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Okta, "max_body", 1000)
    response = client.post("/hooks/okta", headers=okta_headers(), data=b" " * 1001)
    assert is_problem(response, 413)
    assert "at most 1000 bytes" in response.get_json()["detail"]
    chunked = {"wsgi.input_terminated": True}
    response = client.post(
        "/hooks/okta", headers=okta_headers(), input_stream=io.BytesIO(b" " * 1001), environ_overrides=chunked
    )
    assert is_problem(response, 413)
    assert stored(database) == []
    monkeypatch.setattr(Okta, "max_body", 1 << 16)  # a whole number of werkzeug's reads
    response = client.post(
        "/hooks/okta", headers=okta_headers(), environ_overrides={"wsgi.input": Pour(1 << 17), **chunked}
    )
    assert is_problem(response, 413)
    assert stored(database) == []
    monkeypatch.setattr(Okta, "max_body", len(okta_removal("e-1")))
    assert client.post("/hooks/okta", headers=okta_headers(), data=okta_removal("e-1")).status_code == 204


def test_a_hook_takes_more_than_other_routes_do(client: FlaskClient) -> None:
    body = okta_removal() + b" " * (3 << 20)
    assert client.post("/hooks/okta", headers=okta_headers(), data=body).status_code == 204


def test_a_gzip_body(client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {**okta_headers(), "Content-Encoding": "gzip"}
    body = okta_removal()
    halves = gzip.compress(body[:100]) + gzip.compress(body[100:])
    assert client.post("/hooks/okta", headers=headers, data=gzip.compress(body)).status_code == 204
    assert client.post("/hooks/okta", headers=headers, data=halves).status_code == 204
    assert client.post("/hooks/okta", headers=headers, data=okta_removal()).status_code == 204, "only said to be gzip"
    assert stored(database) == [REMOVAL] * 2
    bomb = gzip.compress(b" " * ((32 << 20) + 1))
    response = client.post("/hooks/okta", headers=headers, data=bomb)
    assert is_problem(response, 413)
    assert f"at most {32 << 20} bytes" in response.get_json()["detail"]
    assert len(stored(database)) == 2
    assert is_problem(client.post("/hooks/okta", headers=headers, data=gzip.compress(body)[:-9]), 400)
    assert stored(database)[2:] == [("okta", "unreadable", "unreadable")]


def test_another_encoding_is_named_as_the_likely_cause(client: FlaskClient, app: Flask) -> None:
    headers = {**okta_headers(), "Content-Encoding": "br"}
    assert client.post("/hooks/okta", headers=headers, data=okta_removal()).status_code == 204, "only said to be br"
    response = client.post("/hooks/okta", headers=headers, data=b"\x0b\xff\x80")
    assert is_problem(response, 400)
    told = (
        'the body is not UTF-8; wanted is JSON in UTF-8; its Content-Encoding is "br", and only gzip is unpacked here'
    )
    assert response.get_json()["detail"] == told
    [kept] = operate.events(app.extensions["relay"].database, {"state": "unreadable"})["events"]
    assert kept["reason"] == told


def test_a_number_too_large_to_be_read_is_said_to_be_so(client: FlaskClient) -> None:
    response = client.post("/hooks/okta", headers=okta_headers(), data=b'{"data": ' + b"1" * 5000 + b"}")
    assert is_problem(response, 400)
    assert response.get_json()["detail"] == "the body is not JSON: a number is too large; wanted is a JSON object"


@pytest.mark.parametrize("name", ["nobody", "scim", "okta%00", "okta/x"])
def test_no_such_hook(tmp_path: Path, database_url: str, name: str) -> None:
    scim = ENGINEERING.replace("sources:\n", "sources:\n  scim: {type: scim, token: {env: OKTA_HOOK_SECRET}}\n")
    with serving(tmp_path, database_url, scim) as app:
        with structlog.testing.capture_logs() as lines:
            response = app.test_client().post(f"/hooks/{name}", headers=okta_headers(), data=okta_removal())
        assert is_problem(response, 404)
    warned = [line["name"] for line in lines if line["event"] == "no such hook" and line["log_level"] == "warning"]
    assert warned == ({"okta/x": [], "okta%00": ["okta\\x00"]}.get(name, [name]))


def test_other_methods(client: FlaskClient) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        response = client.open("/hooks/okta", method=method, headers=okta_headers())
        assert is_problem(response, 405)
        assert "POST" in response.headers["Allow"]
    assert client.head("/hooks/okta", headers=okta_headers()).status_code == 405
    assert is_problem(client.get("/hooks/entra"), 405)


@contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Somebody else holds the database and does not let go."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(url.database or "", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
        return
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as session:
        session.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield


def test_a_database_that_does_not_answer_is_503_within_two_seconds(
    client: FlaskClient, database: Database, database_url: str
) -> None:
    with locked(database_url):
        started = time.monotonic()
        response = client.post("/hooks/okta", headers=okta_headers(), data=okta_removal("e-1"))
        assert time.monotonic() - started < 2
    assert is_problem(response, 503)
    assert response.headers["Retry-After"] == "2"
    assert client.post("/hooks/okta", headers=okta_headers(), data=okta_removal("e-1")).status_code == 204
    assert stored(database) == [REMOVAL]


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with serving(tmp_path, f"sqlite:///{tmp_path / 'gone.db'}") as app:
        client = app.test_client()
        assert is_problem(client.post("/hooks/okta", headers=okta_headers(), data=okta_removal()), 503)
        assert not (tmp_path / "gone.db").exists()


def test_whatever_else_happens_the_provider_is_told_to_send_again(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, __: object, body: bytes, ___: str) -> None:
        raise sqlalchemy.exc.DataError("INSERT", {"payload": body}, ZeroDivisionError("the driver's words"))

    monkeypatch.setattr(intake, "accept", fail)
    with structlog.testing.capture_logs() as lines:
        response = client.post("/hooks/okta", headers=okta_headers(), data=okta_removal())
    assert is_problem(response, 503)
    assert "driver" not in response.get_data(as_text=True)
    assert any("ZeroDivisionError at test_hooks.py" in line.get("error", "") for line in lines)
    assert "ada@acme.example" not in str(lines), "a payload in the log"


def test_a_body_that_breaks_off_is_to_be_sent_again(client: FlaskClient, database: Database) -> None:
    response = client.post(
        "/hooks/okta", headers=okta_headers(), data=okta_removal(), environ_overrides={"CONTENT_LENGTH": "9000"}
    )
    assert is_problem(response, 503)
    assert stored(database) == []


def test_relay_yaml_is_followed_and_a_broken_one_is_not(
    app: Flask, client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "LOOK", 0.0)
    renamed = ENGINEERING.replace("  okta:", "  okta-emea:").replace("[okta]", "[okta-emea]")
    assert client.post("/hooks/okta-emea", headers=okta_headers(), data=okta_removal()).status_code == 404
    write_config(tmp_path, renamed)
    assert client.post("/hooks/okta-emea", headers=okta_headers(), data=okta_removal()).status_code == 204
    gone = client.post("/hooks/okta", headers=okta_headers(), data=okta_removal())
    assert is_problem(gone, 503), "it was there before: it may come back"
    assert gone.headers["Retry-After"] == "2"
    version = app.extensions["relay"].rules().version
    write_config(tmp_path, "sources: [")
    assert client.post("/hooks/okta-emea", headers=okta_headers(), data=okta_removal()).status_code == 204
    assert app.extensions["relay"].rules().version == version == app.extensions["relay"].config().version


def test_relay_yaml_is_looked_at_once_a_second(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/hooks/okta").status_code == 401
    monkeypatch.setattr(wiring, "LOOK", 3600.0)
    write_config(tmp_path, ENGINEERING.replace("  okta:", "  okta-emea:").replace("[okta]", "[okta-emea]"))
    assert client.get("/hooks/okta").status_code == 401


def test_what_microsoft_says_of_the_subscription_is_a_warning(client: FlaskClient) -> None:
    lifecycle = {**entra_item("Group", "updated", "g-1"), "lifecycleEvent": "reauthorizationRequired"}
    with structlog.testing.capture_logs() as lines:
        for item in (lifecycle, entra_item("User", "deleted", "u-1")):
            assert client.post("/hooks/entra", data=to_bytes(entra_body([item]))).status_code == 202
    levels = {line["type"]: line["log_level"] for line in lines if line["event"] == "recorded"}
    assert levels == {"lifecycle.reauthorizationRequired": "warning", "User.deleted": "info"}


def test_the_log_names_only_events_that_there_are(client: FlaskClient, app: Flask) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            client.post("/hooks/okta", headers=okta_headers(), data=okta_removal("u-1"))
    told = [(line["event"], line["event_id"]) for line in lines if line["event"] in ("recorded", "known already")]
    [kept] = operate.events(app.extensions["relay"].database, {})["events"]
    assert told == [("recorded", kept["id"]), ("known already", kept["id"])]

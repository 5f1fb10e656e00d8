"""The operators' API over HTTP: who may, what is refused and how it is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from sqlalchemy import select, update

from relay import contracts, operate, settings
from relay.errors import Unavailable
from relay.model import SECOND, EventState, Guard, Kind, now
from relay.rules import RuleSet
from relay.settings import Token
from relay.store import alerts, gaps
from relay.store import subscriptions as kept
from relay.store.database import Database
from relay.store.subscriptions import Live, Record
from relay.store.tables import decisions, revocations
from relay.web import auth, create_app, openapi
from tests import desk_cases, payloads
from tests.config_files import write_config
from tests.desk_cases import deliver, lost, plan, record, rules

CONFIG = """\
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
identity: {velt_user_id: ["{user.login}"]}
rules:
  - {name: engineering, when: {group.name: [Engineering]}, revoke: [{type: organization, id: acme}]}
"""
#: The same with a source of which the provider can be asked, and one of which it cannot.
READABLE = CONFIG.replace(
    "sources:",
    """sources:
  other: {type: okta, secret: {env: OKTA_HOOK_SECRET}, api: {url: https://acme.okta.com, token: {env: OKTA_TOKEN}}}""",
)
OPERATOR = {"Authorization": "Bearer ada-secret"}
VIEWER = {"Authorization": "Bearer eye-secret"}
WRITES = [
    "/events/evt_1/retry",
    "/events/evt_1/cancel",
    "/events/evt_1/approve",
    "/events/evt_1/reject",
    "/events/evt_1/regranted",
    "/retry",
    "/cancel",
    "/approve",
    "/reject",
    "/regranted",
    "/remove",
    "/pause",
    "/resume",
]
READS = ["/events", "/events/evt_1", "/stats", "/alerts", "/subscriptions"]
SUBSCRIBED = Record(
    "entra", live=(Live("sub-1", "/users", now() + 43_200 * SECOND, ""),), error="no way", looked_at=now()
)


@pytest.fixture
def url(tmp_path: Path, _sqlite_template: Path) -> str:
    (tmp_path / "relay.db").write_bytes(_sqlite_template.read_bytes())
    return f"sqlite:///{tmp_path / 'relay.db'}"


@pytest.fixture
def config() -> str:
    return CONFIG


@pytest.fixture
def app(tmp_path: Path, url: str, config: str) -> Iterator[Flask]:
    environ = {
        "RELAY_CONFIG": str(write_config(tmp_path, config)),
        "DATABASE_URL": url,
        "OKTA_HOOK_SECRET": "hook-secret",
        "RELAY_OPS_TOKEN": "ada=ada-secret,second",
        "RELAY_VIEWER_TOKEN": "eye=eye-secret",
    }
    made = create_app(settings.load(environ))
    yield made
    made.extensions["relay"].database.close()


@pytest.fixture
def database(app: Flask) -> Database:
    found: Database = app.extensions["relay"].database
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def get(client: FlaskClient, path: str, headers: dict[str, str] = OPERATOR) -> Any:
    return client.get("/api/v1" + path, headers=headers)


def post(client: FlaskClient, path: str, body: Any = None, headers: dict[str, str] = OPERATOR) -> Any:
    return client.post("/api/v1" + path, json=body, headers=headers)


def assert_problem(answer: Any, status: int, text: str) -> None:
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert (answer.json["status"], answer.json["type"]) == (status, "about:blank")
    assert re.search(text, answer.json["detail"]), answer.json["detail"]


@pytest.mark.parametrize("path", READS + WRITES + ["/explain"])
@pytest.mark.parametrize(
    "given", [None, "ada-secret", "Bearer", "Bearer wrong", "Basic ada-secret", "Bearer ada-secre"]
)
def test_without_a_valid_token_nothing_is_told(client: FlaskClient, path: str, given: str | None) -> None:
    method = client.get if path in READS else client.post
    answer = method("/api/v1" + path, headers={"Authorization": given} if given is not None else {})
    assert_problem(answer, 401, "Bearer TOKEN")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", WRITES)
def test_a_viewer_changes_nothing(client: FlaskClient, path: str) -> None:
    assert_problem(post(client, path, {}, VIEWER), 403, "eye may look")


def test_a_viewer_reads_and_explains(client: FlaskClient) -> None:
    assert get(client, "/events", VIEWER).status_code == 200
    assert get(client, "/stats", VIEWER).status_code == 200
    assert post(client, "/explain", {"source": "okta", "payload": lost()}, VIEWER).status_code == 200


def test_every_token_is_compared_and_bytes_may_be_anything() -> None:
    tokens = [Token("a", "operator", "x"), Token("b", "viewer", "ü"), Token("c", "viewer", "")]
    assert auth.holder("ü".encode(), tokens) == tokens[1]
    assert auth.holder(b"x", tokens) == tokens[0]
    assert auth.holder(b"", tokens) is None
    assert auth.holder(b"\xff", tokens) is None


def test_the_scheme_is_read_without_regard_to_case_and_both_tokens_hold(client: FlaskClient) -> None:
    assert get(client, "/stats", {"Authorization": "bearer second"}).status_code == 200


def test_events_are_listed_filtered_and_paged(client: FlaskClient, database: Database) -> None:
    ids = record(database, *[lost(f"u{n}@acme.example") for n in range(5)])
    plan(database)
    first = get(client, "/events?limit=3&state=planned").json
    second = get(client, f"/events?limit=3&state=planned&cursor={first['next']}").json
    assert len(first["events"]) == 3
    assert {e["id"] for e in first["events"] + second["events"]} == set(ids)
    assert second["next"] is None
    (one,) = get(client, "/events?user=u3%40acme.example").json["events"]
    assert one["user"]["login"] == "u3@acme.example"
    assert one["revocations"] == {"pending": 2}


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limt=5", 'unknown parameter "limt"; did you mean "limit"'),
        ("limit=0", "from 1 to 500"),
        ("limit=501", "from 1 to 500"),
        ("limit=x", "from 1 to 500"),
        ("limit=%C2%B2", "from 1 to 500"),
        ("limit=", "from 1 to 500"),
        ("state=fail", 'possible: "received", "planned"'),
        ("kind=nothing.like", 'possible: "account.deactivated"'),
        ("since=now", "since"),
        ("cursor=abc", "cursor"),
        ("state=failed&state=done", "2 times"),
        ("user=%00", "U\\+0000"),
        ("needs_regrant=yes", "needs_regrant: .*true or false"),
        ("needs_regrant=", "needs_regrant: .*true or false"),
    ],
)
def test_wrong_queries(client: FlaskClient, query: str, text: str) -> None:
    assert_problem(get(client, f"/events?{query}"), 400, text)


def test_parameters_where_none_are_wanted(client: FlaskClient) -> None:
    assert_problem(get(client, "/stats?state=failed"), 400, "none is wanted here")
    assert_problem(client.post("/api/v1/pause?reason=x", headers=OPERATOR), 400, "unknown parameter")


def test_one_event_and_none(client: FlaskClient, database: Database) -> None:
    (event_id,) = record(database, lost())
    assert get(client, f"/events/{event_id}").json["payload"]["eventType"] == "group.user_membership.remove"
    assert_problem(get(client, "/events/evt_00"), 404, "no event")
    assert_problem(get(client, "/events/evt_%00"), 404, "no event")
    assert_problem(post(client, "/events/evt_00/retry"), 404, "no event")
    assert_problem(post(client, "/events/evt_00/cancel"), 404, "no event")


def test_retry_one(client: FlaskClient, database: Database) -> None:
    (event_id,) = record(database, lost())
    assert_problem(post(client, f"/events/{event_id}/retry"), 409, "not planned yet")
    plan(database)
    deliver(database, desk_cases.REFUSED)
    answer = client.post(f"/api/v1/events/{event_id}/retry", headers=OPERATOR)
    assert (answer.status_code, answer.json["state"]) == (202, "planned")
    deliver(database)
    assert_problem(post(client, f"/events/{event_id}/retry", {}), 409, "replan: true")
    assert post(client, f"/events/{event_id}/retry", {"replan": True, "reason": "x"}).status_code == 202
    decided = get(client, f"/events/{event_id}").json["decisions"]
    assert [(d["actor"], d["reason"]) for d in decided] == [("ada", None), ("ada", "x")]


def test_the_actor_is_the_tokens_name(client: FlaskClient) -> None:
    post(client, "/pause", {"reason": "x"}, {"Authorization": "Bearer second"})
    assert get(client, "/stats").json["delivery"]["paused_by"] == "operator"
    assert post(client, "/resume").status_code == 202
    assert get(client, "/stats").json["delivery"]["paused"] is False


def test_bulk_with_a_dry_run(client: FlaskClient, database: Database) -> None:
    record(database, lost(), lost("bob@acme.example"))
    plan(database)
    body = {"filter": {"state": "planned"}, "dry_run": True}
    counted = {"matched": 2, "possible": 2, "passed_over": {}, "more": False, "next": None}
    assert post(client, "/retry", body).json == counted | {"retried": 0}
    assert post(client, "/cancel", body).json == counted | {"cancelled": 0}
    answer = post(client, "/cancel", {"filter": {"user": "bob@acme.example"}})
    assert (answer.status_code, answer.json["cancelled"]) == (202, 1)
    assert post(client, "/approve", {"filter": {"state": "held"}}).json["approved"] == 0
    assert post(client, "/reject", {"filter": {"state": "held"}}).json["rejected"] == 0
    assert len(get(client, "/events?state=planned").json["events"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/retry", {"filter": {}}, "empty filter"),
        ("/retry", {}, "filter"),
        ("/retry", {"filter": {"stat": "x"}}, 'did you mean "state"'),
        ("/retry", {"filter": {"state": "planned"}, "dry": True}, 'unknown key "dry"'),
        ("/cancel", {"filter": {"state": "planned"}, "replan": True}, "unknown key"),
        ("/pause", {"why": "x"}, "unknown key"),
        ("/pause", {"reason": 5}, "reason"),
        ("/pause", {"reason": "a\ud800"}, "surrogate"),
        ("/pause", [], "an object"),
        ("/events/evt_1/retry", {"replan": "yes"}, "replan"),
        ("/remove", {"user": "x", "resources": [{"type": "folder", "id": "f"}]}, "organizationId"),
        ("/explain", {"source": "okta"}, "payload"),
        ("/explain", {"source": "octa", "payload": {}}, 'did you mean "okta"'),
        ("/explain", {"source": "okta", "payload": []}, "payload"),
        ("/explain", {"source": "okta", "payload": {"data": 5}}, "payload"),
    ],
)
def test_wrong_bodies(client: FlaskClient, path: str, body: Any, text: str) -> None:
    assert_problem(post(client, path, body), 400, text)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000, b'{"reason": NaN}'])
def test_bodies_that_are_not_json(client: FlaskClient, content: bytes) -> None:
    answer = client.post("/api/v1/pause", data=content, content_type="application/json", headers=OPERATOR)
    assert_problem(answer, 400, "the body")


def test_a_body_of_another_type(client: FlaskClient) -> None:
    answer = client.post("/api/v1/pause", data={"reason": "x"}, headers=OPERATOR)
    assert_problem(answer, 415, "application/json")


def test_a_body_that_is_too_long(client: FlaskClient) -> None:
    answer = client.post("/api/v1/pause", data=b" " * (1 << 21), content_type="application/json", headers=OPERATOR)
    assert_problem(answer, 413, "")


def test_routes_and_methods_that_are_not_there(client: FlaskClient) -> None:
    assert_problem(get(client, "/nothing"), 404, "")
    answer = client.put("/api/v1/retry", headers=OPERATOR)
    assert_problem(answer, 405, "")
    assert "POST" in answer.headers["Allow"]


def guarded() -> RuleSet:
    """One person an hour."""
    return replace(rules(), guard=Guard(1, 3600.0))


def held(database: Database, number: int) -> list[str]:
    """Events that the guard holds."""
    record(database, *[lost(f"u{n}@acme.example") for n in range(number + 1)])
    plan(database, guarded())
    return [one["id"] for one in operate.events(database, {"state": "held"})["events"]]


def test_what_is_held_is_approved_or_rejected_one_by_one(client: FlaskClient, database: Database) -> None:
    first, second = held(database, 2)
    assert_problem(post(client, f"/events/{first}/retry"), 409, "approve or reject")
    assert post(client, f"/events/{first}/approve", {"reason": "planned"}).json["state"] == "received"
    assert post(client, f"/events/{second}/reject", {"reason": "a mistake"}).json["state"] == "ignored"
    plan(database, guarded())
    assert get(client, f"/events/{first}").json["state"] == "planned"
    shown = get(client, f"/events/{second}").json
    assert (shown["reason"], shown["revocations"]) == ("rejected by ada: a mistake", [])
    assert [(d["actor"], d["action"], d["reason"]) for d in shown["decisions"]] == [("ada", "reject", "a mistake")]
    assert_problem(post(client, f"/events/{first}/approve"), 409, "only what is held can be approved")


def test_what_is_held_is_approved_or_rejected_by_filter_after_a_dry_run(
    client: FlaskClient, database: Database
) -> None:
    ids = held(database, 4)
    body = {"filter": {"state": "held"}, "dry_run": True}
    counted = {"matched": 4, "possible": 4, "passed_over": {}, "more": False, "next": None}
    assert post(client, "/approve", body).json == counted | {"approved": 0}
    assert post(client, "/reject", body).json == counted | {"rejected": 0}
    assert {get(client, f"/events/{event_id}").json["state"] for event_id in ids} == {"held"}
    one = get(client, f"/events/{ids[0]}").json["user"]["login"]
    assert post(client, "/reject", {"filter": {"state": "held", "user": one}}).json["rejected"] == 1
    assert post(client, "/approve", {"filter": {"source": "okta"}}).json | {"passed_over": {}} == {
        **counted,
        "matched": 5,
        "possible": 3,
        "approved": 3,
    }
    plan(database, guarded())
    assert sorted(get(client, f"/events/{event_id}").json["state"] for event_id in ids) == ["ignored", *["planned"] * 3]


def test_what_needs_a_new_grant_is_listed_and_settled(client: FlaskClient, database: Database) -> None:
    first, second = record(database, lost(), lost("bob@acme.example"))
    plan(database)
    deliver(database)
    with database.write() as connection:
        connection.execute(update(revocations).where(revocations.c.event_id == first).values(needs_regrant=True))
    [listed] = get(client, "/events?needs_regrant=true", VIEWER).json["events"]
    assert (listed["id"], listed["needs_regrant"]) == (first, 2)
    assert [one["id"] for one in get(client, "/events?needs_regrant=false").json["events"]] == [second]
    dry = post(client, "/regranted", {"filter": {"needs_regrant": True}, "dry_run": True})
    assert (dry.status_code, dry.json["matched"], dry.json["regranted"]) == (202, 1, 0)
    assert post(client, f"/events/{first}/regranted", {"reason": "back"}).status_code == 202
    assert get(client, "/events?needs_regrant=true").json["events"] == []
    assert_problem(post(client, f"/events/{first}/regranted"), 409, "nothing of it needs a new grant")
    assert_problem(post(client, "/events/evt_00/regranted"), 404, "no event")


def test_alerts_are_for_viewers_too(client: FlaskClient, database: Database) -> None:
    assert get(client, "/alerts", VIEWER).json == {"alerts": []}
    with database.write() as connection:
        alerts.raise_alert(connection, "held", "2 events are held", database.now(connection))
    [alert] = get(client, "/alerts", VIEWER).json["alerts"]
    assert (alert["key"], alert["text"], alert["told_at"]) == ("held", "2 events are held", None)
    assert get(client, "/stats").json["alerts"] == 1


def test_remove_and_explain(client: FlaskClient) -> None:
    answer = post(client, "/remove", {"user": "eve", "resources": "everything"})
    assert answer.status_code == 202
    shown = get(client, f"/events/{answer.json['id']}").json
    assert [r["resource"] for r in shown["revocations"]] == [{"type": "organization", "id": "acme"}]
    told = post(client, "/explain", {"source": "okta", "payload": payloads.okta_hook([lost()])})
    assert told.status_code == 200
    assert told.json["events"][0]["velt"][0]["data"]["userId"] == "ada@acme.example"


def test_a_database_that_is_away(client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise Unavailable("secret host is away")

    monkeypatch.setattr(database, "read", away)
    answer = get(client, "/stats")
    assert_problem(answer, 503, "not available")
    assert answer.headers["Retry-After"] == "2"
    assert b"secret host" not in answer.data


def test_what_nobody_foresaw_is_logged_and_not_told(
    client: FlaskClient, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise KeyError("inside")

    monkeypatch.setattr(database, "read", broken)
    answer = get(client, "/stats")
    assert_problem(answer, 500, "went wrong")
    assert b"inside" not in answer.data
    told = capsys.readouterr()
    assert "inside" in told.out + told.err


def described() -> set[tuple[str, str]]:
    verbs = {"get", "post", "put", "patch", "delete"}
    return {(path, verb) for path, item in openapi.document()["paths"].items() for verb in item if verb in verbs}


def test_openapi_describes_every_route_and_every_described_route_is_there(app: Flask) -> None:
    there = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described() == there


def test_openapi_is_served_and_whole(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    assert document["openapi"] == "3.1.0"
    names = [item[verb]["operationId"] for item in document["paths"].values() for verb in item if verb != "parameters"]
    assert len(names) == len(set(names))
    for path, item in document["paths"].items():
        given = {parameter["name"] for parameter in item.get("parameters", [])}
        assert given == set(re.findall(r"{(\w+)}", path))
    for reference in re.findall(r"'#/components/schemas/(\w+)'", str(document)):
        assert reference in document["components"]["schemas"]


@pytest.fixture
def answers_as_described(client: FlaskClient) -> Callable[[str, str, Any], None]:
    whole = client.get("/openapi.json").json
    registry: Registry[Any] = Registry().with_resource("urn:whole", Resource.from_contents(whole, DRAFT202012))

    def check(name: str, verb: str, answer: Any) -> None:
        media = whole["paths"][name][verb]["responses"][str(answer.status_code)]["content"]
        schema = media[answer.mimetype]["schema"]
        pointed = json.loads(json.dumps(schema).replace("#/components", "urn:whole#/components"))
        Draft202012Validator(pointed, registry=registry).validate(answer.json)

    return check


def test_answers_are_as_described(
    client: FlaskClient, database: Database, answers_as_described: Callable[[str, str, Any], None]
) -> None:
    (event_id,) = record(database, lost())
    plan(database)
    deliver(database, desk_cases.REFUSED)
    retried = post(client, f"/events/{event_id}/retry")
    whole = get(client, f"/events/{event_id}")
    assert whole.json["attempts"]
    answers_as_described("/api/v1/events", "get", get(client, "/events"))
    answers_as_described("/api/v1/events", "get", get(client, "/events?x=1"))
    answers_as_described("/api/v1/events/{event_id}/retry", "post", retried)
    answers_as_described("/api/v1/events/{event_id}", "get", whole)
    answers_as_described("/api/v1/events/{event_id}", "get", get(client, "/events/evt_0"))
    answers_as_described("/api/v1/stats", "get", get(client, "/stats"))
    kept.write(database, SUBSCRIBED)
    answers_as_described("/api/v1/subscriptions", "get", get(client, "/subscriptions"))
    with database.write() as connection:
        alerts.raise_alert(connection, "held", "2 events are held", database.now(connection))
        connection.execute(update(revocations).values(needs_regrant=True))
    answers_as_described("/api/v1/alerts", "get", get(client, "/alerts"))
    answers_as_described("/api/v1/regranted", "post", post(client, "/regranted", {"filter": {"source": "okta"}}))
    again = post(client, f"/events/{event_id}/regranted")
    assert_problem(again, 409, "nothing of it needs a new grant")
    answers_as_described("/api/v1/cancel", "post", post(client, "/cancel", {"filter": {"state": "planned"}}))
    answers_as_described("/api/v1/pause", "post", post(client, "/pause"))
    answers_as_described("/api/v1/remove", "post", post(client, "/remove", {"user": "x", "resources": "everything"}))
    answers_as_described("/api/v1/explain", "post", post(client, "/explain", {"source": "okta", "payload": lost()}))


@pytest.mark.parametrize("config", [READABLE])
def test_reconcile_takes_a_time_to_read_from(client: FlaskClient, database: Database) -> None:
    assert post(client, "/reconcile", {"since": "24h", "reason": "the outage"}).status_code == 202
    with database.read() as connection:
        now, asked = database.now(connection), gaps.asked(connection)
        [reason] = connection.execute(select(decisions.c.reason)).scalars()
    assert asked.keys() == {"other"}
    assert abs(now - asked["other"] - 24 * 3600 * SECOND) < 60 * SECOND
    assert reason == "the outage"
    wanted = "wanted is a time such as 2026-01-31T12:00:00Z, or an age such as 24h"
    assert_problem(post(client, "/reconcile", {"since": "yesterday"}), 400, f'since: found "yesterday"; {wanted}')
    assert_problem(post(client, "/reconcile", {"until": "24h"}), 400, "until")
    assert_problem(
        post(client, "/reconcile", {"since": "200d"}), 400, '"other" keeps what it tells for 90 days; .* 90d'
    )
    assert post(client, "/reconcile", {"since": "90d"}).status_code == 202


def test_reconcile_without_credentials_is_refused(client: FlaskClient, database: Database) -> None:
    assert_problem(post(client, "/reconcile"), 409, "no source has credentials for its provider's API in relay.yaml")
    with database.read() as connection:
        assert connection.execute(select(decisions)).all() == []


def test_subscriptions_are_shown_to_viewers(client: FlaskClient, database: Database) -> None:
    assert get(client, "/subscriptions", VIEWER).json == {"subscriptions": []}
    kept.write(database, SUBSCRIBED)
    users, groups = get(client, "/subscriptions", VIEWER).json["subscriptions"]
    assert (users["source"], users["resource"], users["id"], users["state"]) == ("entra", "/users", "sub-1", "ending")
    assert (users["days_left"], users["error"]) == (0.5, "no way")
    assert (groups["resource"], groups["id"], groups["state"], groups["expires_at"]) == (
        "/groups",
        None,
        "missing",
        None,
    )
    assert_problem(get(client, "/subscriptions?x=1"), 400, "unknown parameter")


def test_the_filters_words_are_the_models() -> None:
    fields = contracts.load("api-filter")["properties"]
    assert fields["state"]["enum"] == list(EventState)
    assert fields["kind"]["enum"] == list(Kind)

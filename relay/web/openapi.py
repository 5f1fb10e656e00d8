"""/openapi.json: OpenAPI 3.1 of every route. Request bodies are the JSON Schemas of schemas/ themselves."""

from __future__ import annotations

from functools import cache
from typing import Any

from flask import Blueprint, Response, jsonify

from relay import contracts, operate
from relay.web.openapi_shapes import Json, an_object, ref, schemas

bp = Blueprint("openapi", __name__)


@bp.get("/openapi.json")
def openapi() -> Response:
    """This description."""
    return jsonify(document())


@cache
def document() -> Json:
    """The whole description as plain JSON data."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Velt Permission Relay",
            "version": "1",
            "description": "Takes identity provider events, removes Velt permissions, and shows it afterwards.",
        },
        "paths": _public_paths() | _api_paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "RELAY_OPS_TOKEN or RELAY_VIEWER_TOKEN"}
            },
            "schemas": schemas(),
        },
    }


def _public_paths() -> Json:
    """What identity providers and monitoring ask; no token of the relay's."""
    challenge = {"name": "X-Okta-Verification-Challenge", "in": "header", "schema": {"type": "string"}}
    token = {"name": "validationToken", "in": "query", "schema": {"type": "string"}}
    unavailable = _problem(
        "The database or the hook's secret is away, or the hook left relay.yaml; Retry-After says when to send again."
    )
    json_body: Json = {"required": False, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "/": {
            "get": _operation(
                "front",
                "What this is and where things are.",
                {"200": {"description": "A short text.", "content": {"text/plain": {}}}},
            )
        },
        "/hooks/{name}": {
            "parameters": [_in_path("name", "The source's name in relay.yaml.")],
            "get": _operation(
                "verifyHook",
                "Okta's one-time verification of a hook.",
                {
                    "200": _answer("The challenge, given back.", {"type": "object"}),
                    "400": _problem(),
                    "401": _problem(),
                    "404": _problem("relay.yaml has no such hook."),
                    "503": unavailable,
                },
                parameters=[challenge],
            ),
            "post": _operation(
                "receiveHook",
                "An identity provider's events; a 2xx means that they are on disk. With validationToken: Microsoft's "
                "handshake, answered with the token as text.",
                {
                    "200": {"description": "The validationToken, decoded.", "content": {"text/plain": {}}},
                    "202": {"description": "On disk (Entra)."},
                    "204": {"description": "On disk (Okta)."},
                    "400": _problem("Not readable; Okta's are kept as an unreadable event."),
                    "401": _problem("The hook's secret is missing or wrong; nothing is stored."),
                    "404": _problem("relay.yaml has no such hook."),
                    "413": _problem("Too large; the detail says how many bytes are taken."),
                    "503": unavailable,
                },
                parameters=[token],
                requestBody=json_body,
            ),
        },
        "/healthz": {"get": _operation("alive", "Whether the process answers.", {"200": _answer("Alive.", {})})},
        "/readyz": {
            "get": _operation(
                "ready",
                "Whether events can be recorded; workers, delivery, alerts and a refused relay.yaml are in the body.",
                {
                    "200": _answer("Ready.", {"type": "object"}),
                    "503": _answer("Not ready, and why.", {"type": "object"}),
                },
            )
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Counters and gauges in Prometheus' text format.",
                {"200": {"description": "The metrics.", "content": {"text/plain": {}}}},
            )
        },
        "/openapi.json": {
            "get": _operation("openapi", "This description.", {"200": _answer("OpenAPI 3.1.", {"type": "object"})})
        },
    }


def _api_paths() -> Json:
    one = "/api/v1/events/{event_id}"
    event_id = _in_path("event_id", "The event's id, evt_...")
    short, bulk = ref("Short"), ref("Bulk")
    paths: Json = {
        "/api/v1/events": {"get": _read("listEvents", "Events, the latest first.", ref("Events"), _list_parameters())},
        one: {
            "parameters": [event_id],
            "get": _read("showEvent", "One event and all about it.", ref("Whole"), missing=True),
        },
        f"{one}/retry": {
            "parameters": [event_id],
            "post": _write("retryEvent", "Try an event again; what was tried before stays.", "api-retry", short, True),
        },
        "/api/v1/retry": {"post": _write("retryEvents", "Try the events of a filter again.", "api-bulk-retry", bulk)},
        "/api/v1/remove": {"post": _write("remove", "An operator's own removal.", "api-remove", ref("Removal"))},
        "/api/v1/explain": {
            "post": _operation(
                "explain",
                "What a payload would do, rule by rule, and what would be sent to Velt; nothing is stored.",
                {"200": _answer("The plan.", ref("Explained")), **_refusals()},
                security=[{"token": []}],
                requestBody=_request("api-explain"),
            )
        },
        "/api/v1/alerts": {"get": _read("alerts", "What somebody has to know now, the oldest first.", ref("Alerts"))},
        "/api/v1/reconcile": {
            "get": _read("reconciled", "How far each source is read beside its messages.", ref("Reconciled")),
            "post": _write(
                "reconcile",
                "Read as soon as a worker can what messages missed, from `since` or from where each source was left.",
                "api-reconcile",
                an_object({"asked": {"type": "boolean"}}),
            ),
        },
        "/api/v1/stats": {"get": _read("stats", "How the relay is doing.", ref("Stats"))},
        "/api/v1/subscriptions": {
            "get": _read("listSubscriptions", "The Graph subscriptions that the relay keeps.", ref("Subscriptions"))
        },
    }
    for verb, told in (
        ("cancel", "Give up what is not removed yet."),
        ("approve", "Let what the guard held go on."),
        ("reject", "End what the guard held without removing."),
        ("regranted", "Note that what was taken too much was granted again in Velt."),
    ):
        paths[f"{one}/{verb}"] = {
            "parameters": [event_id],
            "post": _write(f"{verb}Event", told, "api-reason", short, True),
        }
        paths[f"/api/v1/{verb}"] = {"post": _write(f"{verb}Events", f"{told} By filter.", "api-bulk", bulk)}
    paused = an_object({"paused": {"type": "boolean"}})
    for verb, told in (("pause", "Stop delivery; planning goes on."), ("resume", "Start delivery again.")):
        paths[f"/api/v1/{verb}"] = {"post": _write(verb, told, "api-reason", paused)}
    return paths


def _list_parameters() -> list[Json]:
    fields = contracts.load("api-filter")["properties"]
    limit = {"type": "integer", "minimum": 1, "maximum": operate.MOST, "default": operate.DEFAULT_LIMIT}
    parameters = [_in_query(name, schema["description"], schema) for name, schema in fields.items()]
    return [
        *parameters,
        _in_query("limit", "At most so many events.", limit),
        _in_query("cursor", "`next` of the page before.", {"type": "string"}),
    ]


def _in_query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _in_path(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _read(name: str, told: str, schema: Json, parameters: list[Json] | None = None, missing: bool = False) -> Json:
    answers = {"200": _answer(told, schema), **_refusals()}
    if missing:
        answers["404"] = _problem("There is no such event.")
    answers.pop("403")
    return _operation(name, told, answers, security=[{"token": []}], parameters=parameters or [])


def _write(name: str, told: str, body: str, schema: Json, one: bool = False) -> Json:
    answers = {"202": _answer("Done.", schema), **_refusals(), "409": _problem("It cannot be done, and what can.")}
    if one:
        answers["404"] = _problem("There is no such event.")
    return _operation(name, told, answers, security=[{"token": []}], requestBody=_request(body))


def _operation(name: str, told: str, answers: Json, **more: Any) -> Json:
    return {"operationId": name, "summary": told, "responses": answers, **more}


def _refusals() -> Json:
    return {
        "400": _problem("The request is not understood; the detail says what would be right."),
        "401": _problem("No valid token."),
        "403": _problem("A viewer's token on a write."),
        "413": _problem(),
        "415": _problem("The body is not JSON."),
        "503": _problem("The database is away; Retry-After says when to ask again."),
    }


def _request(schema_name: str) -> Json:
    schema = contracts.load(schema_name)
    return {"required": "required" in schema, "content": {"application/json": {"schema": schema}}}


def _answer(told: str, schema: Json) -> Json:
    return {"description": told, "content": {"application/json": {"schema": schema}}}


def _problem(told: str = "Refused, and why.") -> Json:
    return {"description": told, "content": {"application/problem+json": {"schema": ref("Problem")}}}

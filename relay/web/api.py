"""/api/v1: the operators' verbs over HTTP. What each does is in relay/operate.py."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, abort, g, jsonify, request
from werkzeug.exceptions import HTTPException

from relay import compose, contracts, explaining, operate, reconcile
from relay.errors import Refused, Unreadable
from relay.operate import Answer
from relay.sources import base
from relay.store import subscriptions
from relay.web import auth
from relay.web.wiring import relay

bp = Blueprint("api", __name__, url_prefix="/api/v1")

Accepted = tuple[Response, int]

_FILTER = contracts.load("api-filter")["properties"]
#: The conditions of a filter that are true or false; a query has only texts.
_FLAGS = frozenset(name for name, schema in _FILTER.items() if schema.get("type") == "boolean")
_TRUTH = {"true": True, "false": False}

#: Endpoints that change nothing although they are asked by POST.
READS = frozenset({"api.explain"})
#: The query parameters of an endpoint; the others take none.
PARAMETERS = {"api.events": [*_FILTER, "limit", "cursor"]}


@bp.before_request
def _check() -> Response | None:
    refusal = auth.challenge(READS)
    if refusal is None:
        _check_parameters(PARAMETERS.get(request.endpoint or "", []))
    return refusal


@bp.get("/events")
def events() -> Response:
    wanted = request.args.to_dict()
    limit, cursor = _limit(wanted.pop("limit", str(operate.DEFAULT_LIMIT))), wanted.pop("cursor", None)
    typed = {name: _TRUTH.get(value, value) if name in _FLAGS else value for name, value in wanted.items()}
    here = relay()
    return jsonify(operate.events(here.database, typed, limit, cursor, mode=here.config().mode))


@bp.get("/events/<event_id>")
def event(event_id: str) -> Response:
    here = relay()
    return jsonify(operate.show(here.database, event_id, mode=here.config().mode))


@bp.post("/events/<event_id>/retry")
def retry(event_id: str) -> Accepted:
    return _accepted(operate.retry(relay().database, relay().sources, g.actor, event_id, _body()))


@bp.post("/events/<event_id>/cancel", defaults={"verb": "cancel"})
@bp.post("/events/<event_id>/approve", defaults={"verb": "approve"})
@bp.post("/events/<event_id>/reject", defaults={"verb": "reject"})
@bp.post("/events/<event_id>/regranted", defaults={"verb": "regranted"})
def decide(event_id: str, verb: str) -> Accepted:
    return _accepted(operate.decide(relay().database, g.actor, verb, event_id, _body()))


@bp.post("/retry")
def retry_all() -> Accepted:
    return _accepted(operate.retry_all(relay().database, relay().sources, g.actor, _body()))


@bp.post("/cancel", defaults={"verb": "cancel"})
@bp.post("/approve", defaults={"verb": "approve"})
@bp.post("/reject", defaults={"verb": "reject"})
@bp.post("/regranted", defaults={"verb": "regranted"})
def decide_all(verb: str) -> Accepted:
    return _accepted(operate.decide_all(relay().database, g.actor, verb, _body()))


@bp.post("/remove")
def remove() -> Accepted:
    return _accepted(operate.remove(relay().database, relay().rules(), g.actor, _body()))


@bp.post("/explain")
def explain() -> Response:
    body = _body()
    operate.check("api-explain", body)
    here = relay()
    source = operate.source_named(here.sources, body["source"])
    payload = json.dumps(body["payload"]).encode()
    return jsonify(explaining.explain(here.database, here.rules(), source, payload))


@bp.post("/pause")
def pause() -> Accepted:
    return _accepted(operate.pause(relay().database, g.actor, _body()))


@bp.post("/resume")
def resume() -> Accepted:
    return _accepted(operate.resume(relay().database, g.actor, _body()))


@bp.get("/alerts")
def alerts() -> Response:
    return jsonify(operate.alerts(relay().database))


@bp.get("/reconcile")
def reconciled() -> Response:
    return jsonify(reconcile.shown(relay().database))


@bp.post("/reconcile")
def reconcile_now() -> Accepted:
    body = _body()
    operate.check("api-reconcile", body)
    since = operate.time_of("since", body["since"]) if "since" in body else None
    readable = reconcile.chosen(compose.readable(relay().config()), None, since)
    return _accepted(reconcile.ask(relay().database, g.actor, body.get("reason"), readable, since))


@bp.get("/stats")
def stats() -> Response:
    return jsonify(operate.stats(relay().database, relay().config().mode))


@bp.get("/subscriptions")
def subscriptions_() -> Response:
    return jsonify(subscriptions.shown(relay().database))


def _accepted(answer: Answer) -> Accepted:
    return jsonify(answer), 202


def _body() -> Any:
    """The request's JSON; {} where there is no body. Raises Unreadable (400), 413 and 415."""
    try:
        content = request.get_data()
    except HTTPException:
        raise
    except Exception as error:  # the server's own, of several kinds
        raise Unreadable(f"the body breaks off, or its chunks are not well formed: {type(error).__name__}") from None
    if not content:
        return {}
    if not request.is_json:
        abort(415, "wanted is a JSON body with the header Content-Type: application/json")
    try:
        return base.load_json(content)
    except RecursionError:
        raise base.too_deep() from None


def _check_parameters(known: list[str]) -> None:
    for name, values in request.args.lists():
        if name not in known:
            told = contracts.did_you_mean(name, known) if known else "; none is wanted here"
            raise Refused(400, f"unknown parameter {contracts.show(name)}{told}")
        if len(values) > 1:
            raise Refused(400, f"{name}: stands here {len(values)} times; wanted is one value")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        found = contracts.show(text)
        raise Refused(400, f"limit: found {found}; wanted is a whole number from 1 to {operate.MOST}")
    return int(text)

"""/healthz, /readyz and /metrics: for load balancers and monitoring; nobody has to sign in."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST

from relay.errors import Unavailable
from relay.model import SECOND, to_iso
from relay.store import delivery, heartbeat
from relay.store.alerts import listed
from relay.web import metrics
from relay.web.wiring import Relay, relay

bp = Blueprint("health", __name__)


@bp.get("/healthz")
def healthz() -> Response:
    """200: this process answers."""
    return jsonify(status="alive")


@bp.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 while events can be recorded, else 503.

    Workers, delivery, alerts and a refused relay.yaml are told but never change the status: the relay must go on
    accepting.
    """
    here = relay()
    try:
        problem = here.database.schema_problem()
        if problem is None:
            return jsonify(_ready(here)), 200
    except Unavailable as error:
        problem = f"the database is not available: {error}"
    return jsonify(status="not ready", reason=problem), 503


@bp.get("/metrics")
def prometheus() -> Response:
    """Counters and gauges in Prometheus' text format."""
    here = relay()
    page = metrics.page(here.database, here.refused() > 0, here.config().sources, here.hooks)
    return Response(page, content_type=CONTENT_TYPE_LATEST)


def _ready(here: Relay) -> dict[str, Any]:
    config, refused = here.config(), here.refused()
    with here.database.read() as connection:
        now = here.database.now(connection)
        gate = delivery.read(connection)
        workers = heartbeat.workers(connection, now)
        alerts = listed(connection)
    return {
        "status": "ready",
        "rules_version": config.version,
        # the sentences are in the log: this page is for everybody
        "config": {"refused": refused > 0, "problems": refused},
        "delivery": {
            "mode": config.mode,
            "state": gate.state,
            "why": gate.why,
            "since": to_iso(gate.since or None),
            "paused": gate.paused,
        },
        "alerts": alerts,
        "workers": [
            {
                "worker": worker["worker"],
                "alive": worker["alive"],
                "heartbeat_age_seconds": round(max(0, now - worker["at"]) / SECOND, 1),
                "rules_version": worker["rules"],
            }
            for worker in workers
        ],
    }

"""/: what this is and where things are, for whoever opens the address in a browser."""

from __future__ import annotations

from flask import Blueprint, Response

bp = Blueprint("front", __name__)

TEXT = """\
This is a Velt Permission Relay. It hears from identity providers who lost access, and removes Velt permissions.

/hooks/NAME     where identity providers come, by event hook or change notification
/scim/NAME/v2   and by SCIM 2.0
/api/v1/        for operators, with a token: Authorization: Bearer TOKEN
/openapi.json   what can be asked here, as OpenAPI 3.1
/readyz         whether events can be recorded, and how delivery is
/healthz        whether this process answers
/metrics        for Prometheus
"""


@bp.get("/")
def front() -> Response:
    return Response(TEXT, content_type="text/plain; charset=utf-8")

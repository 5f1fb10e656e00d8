"""Who is asking: Bearer tokens of RELAY_OPS_TOKEN (operators) and RELAY_VIEWER_TOKEN (viewers, who change nothing)."""

from __future__ import annotations

from collections.abc import Iterable

from flask import Response, g, request

from relay.settings import Token
from relay.sources.base import header_bytes, is_secret
from relay.web import problems
from relay.web.wiring import relay


def holder(offered: bytes, tokens: Iterable[Token]) -> Token | None:
    """The token that was offered, in a time that does not tell which it is or how nearly another one fits."""
    found = None
    for token in tokens:
        if is_secret(offered, [token.secret]):
            found = token
    return found


def challenge(reads: frozenset[str]) -> Response | None:
    """The refusal for a request that may not go on (401, 403), None for one that may; `g.actor` is who asks.

    `reads`: endpoints that change nothing although they are asked by POST; GET never changes anything.
    """
    scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
    token = None
    if scheme.lower() == "bearer":
        token = holder(header_bytes(offered.strip()), relay().settings.tokens())
    if token is None:
        told = "wanted is the header Authorization: Bearer TOKEN, with a token of RELAY_OPS_TOKEN or RELAY_VIEWER_TOKEN"
        return problems.response(401, told, {"WWW-Authenticate": 'Bearer realm="relay"'})
    g.actor = token.name
    changes = request.method not in ("GET", "HEAD", "OPTIONS") and request.endpoint not in reads
    if changes and token.role != "operator":
        return problems.response(403, f"{token.name} may look but not change anything: this wants an operator's token")
    return None

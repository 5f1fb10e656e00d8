"""The login of a made-up Entra tenant: the discovery document and the token endpoint, for one application.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import jwt
from cryptography.x509 import load_pem_x509_certificate

from relay.model import SECOND, Micros
from tests.fake_graph_tenant import TENANT

CLIENT_ID = "9a8b7c6d-5555-4666-8777-0123456789ab"
CLIENT_SECRET = "acme~graph-secret"
CONFIGURATION = f"/{TENANT}/v2.0/.well-known/openid-configuration"
TOKENS = f"/{TENANT}/oauth2/v2.0/token"

Answer = tuple[int, dict[str, Any]]


class Login:
    """Gives tokens for the secret, or for assertions signed by the key of `certificate` (PEM)."""

    def __init__(self, clock: Callable[[], Micros]) -> None:
        self.secret = CLIENT_SECRET
        self.certificate: str | None = None
        self.lifetime = 3599
        self.asked = 0
        self._clock = clock
        self._tokens: dict[str, Micros] = {}

    def revoke(self) -> None:
        """No token given so far is accepted any more."""
        self._tokens.clear()

    def valid(self, authorization: str) -> bool:
        return self._tokens.get(authorization.removeprefix("Bearer "), 0) > self._clock()

    def configuration(self, host: str) -> Answer:
        """What discovery says; like the real one it knows https only."""
        base = f"https://{host}/{TENANT}"
        return 200, {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"https://{host}{TOKENS}",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
        }

    def token(self, form: dict[str, str], host: str) -> Answer:
        self.asked += 1
        if form.get("client_id") != CLIENT_ID:
            return _refused("unauthorized_client", 700016, "Application was not found in the directory 'Acme'.")
        if form.get("grant_type") != "client_credentials" or not form.get("scope", "").endswith("/.default"):
            return _refused("invalid_request", 900144, "The request body must contain the grant type and a scope.")
        if not self._proven(form, host):
            return _refused("invalid_client", 7000215, "Invalid client secret provided.", 401)
        token = f"acme-graph-token-{uuid4()}"
        self._tokens[token] = self._clock() + self.lifetime * SECOND
        return 200, {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token}

    def _proven(self, form: dict[str, str], host: str) -> bool:
        if self.certificate is None:
            return form.get("client_secret") == self.secret
        key = load_pem_x509_certificate(self.certificate.encode()).public_key()
        try:
            claims = jwt.decode(
                form.get("client_assertion", ""), key, algorithms=["PS256"], audience=f"https://{host}{TOKENS}"
            )
        except jwt.InvalidTokenError:
            return False
        return claims["iss"] == claims["sub"] == CLIENT_ID


def _refused(error: str, code: int, text: str, status: int = 400) -> Answer:
    told = f"AADSTS{code}: {text} Trace ID: {uuid4()}"
    return status, {"error": error, "error_description": told, "error_codes": [code]}

"""How the relay proves to Okta's API who asks: an API token (SSWS), or the access token of a service app.

https://developer.okta.com/docs/guides/implement-oauth-for-okta-serviceapp/main/
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from relay.directories.http import Authorize, Client
from relay.errors import LookUpFailed

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, RSAKey

TOKEN_PATH = "/oauth2/v1/token"  # noqa: S105 (a path)
SCOPES = ("okta.users.read", "okta.groups.read", "okta.apps.read", "okta.logs.read")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

#: Seconds that an assertion is valid. Okta takes at most an hour: in the middle, since its clock may differ from ours
#: by half an hour either way. For the same reason it has no `iat`, which must not lie in the future.
ASSERTED_FOR = 1800
#: Seconds before its end at which an access token is not used any more.
EARLY = 60

ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


def proof_of(api: Mapping[str, Any], credential: Callable[[], str]) -> Authorize:
    """The way of `sources.<name>.api` in relay.yaml; `credential` gives the API token or the private key."""
    if "token" in api:
        return lambda refused: {"Authorization": f"SSWS {_given(credential, 'API token')}"}
    return ServiceApp(api["url"], api["client_id"], api.get("key_id"), credential)


class ServiceApp:
    """An OAuth service app, which signs with a private key (RSA or EC, in PEM) instead of having a secret.

    Its access token is kept until a minute before its end, or until it is refused.
    """

    def __init__(self, url: str, client_id: str, key_id: str | None, private_key: Callable[[], str]) -> None:
        self._client = Client("Okta", url)
        self._audience = url.rstrip("/") + TOKEN_PATH
        self._client_id = client_id
        self._key_id = key_id
        self._private_key = private_key
        self._lock = threading.Lock()
        self._headers: Mapping[str, str] = {}
        self._until = 0.0

    def __call__(self, refused: Mapping[str, str] | None) -> Mapping[str, str]:
        """The header with an access token that was not refused. Raises LookUpFailed."""
        with self._lock:
            if time.monotonic() >= self._until or refused == self._headers:
                self._renew()
            return self._headers

    def _renew(self) -> None:
        asked_at = time.monotonic()
        form = {
            "grant_type": "client_credentials",
            "scope": " ".join(SCOPES),
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self._assertion(),
        }
        body = self._client.post(TOKEN_PATH, form=form).body
        given = body if isinstance(body, dict) else {}
        token, kind, seconds = given.get("access_token"), given.get("token_type"), given.get("expires_in")
        if not isinstance(token, str) or not isinstance(seconds, int):
            raise LookUpFailed("Okta gave an answer without access token to the service app")
        if str(kind).lower() != "bearer":
            raise LookUpFailed(
                f"Okta gave a token of type {kind} to the service app; wanted is Bearer: "
                "turn off `Require Demonstrating Proof of Possession (DPoP)` in the app's settings",
                lasting=True,
            )
        self._headers = {"Authorization": f"Bearer {token}"}
        self._until = asked_at + seconds - EARLY

    def _assertion(self) -> str:
        from joserfc import jwt  # loaded here: web processes know the directories and never ask them

        key, algorithm = _load(_given(self._private_key, "private key"))
        header = {"alg": algorithm, **({"kid": self._key_id} if self._key_id else {})}
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience,
            "exp": int(time.time()) + ASSERTED_FOR,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode(header, claims, key, algorithms=[algorithm])


_WANTED = "wanted is a private key in PEM, RSA or EC (P-256, P-384, P-521), without a passphrase"


def _given(credential: Callable[[], str], what: str) -> str:
    text = credential()
    if not text:
        raise LookUpFailed(f"Okta was not asked: the {what} is not set or empty", lasting=True)
    return text


def _load(pem: str) -> tuple[RSAKey | ECKey, str]:
    """The key in a PEM text and what it signs with. A variable of one line has `\\n` where the lines end."""
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey, RSAKey

    text = pem.replace("\\n", "\n")
    with contextlib.suppress(JoseError, ValueError, TypeError):
        rsa = RSAKey.import_key(text)
        if rsa.is_private:
            return rsa, "RS256"
    with contextlib.suppress(JoseError, ValueError, TypeError):
        curve = ECKey.import_key(text)
        if curve.is_private and curve.curve_name in ALGORITHMS:
            return curve, ALGORITHMS[curve.curve_name]
    raise LookUpFailed(f"the private key of the Okta service app cannot be used: {_WANTED}", lasting=True)

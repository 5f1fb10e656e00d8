"""An off-boarding by SCIM for the demo, as Microsoft Entra and Okta do it: three people are provisioned, one leaves a
group, one is disabled, one is deleted."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

from relay.settings import Settings

#: From an address, a method, headers and a JSON document to the answer's body; raises when the answer is no 2xx.
Call = Callable[[str, str, dict[str, str], object], bytes]

_CORE = "urn:ietf:params:scim:schemas:core:2.0"
_PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


def scim_demo(settings: Settings, relay_url: str, call: Call) -> dict[str, str]:
    """Send the requests to the first SCIM source of relay.yaml; return the people who lose something and why.

    The rules must take something for the group Engineering. Without a SCIM source nobody loses anything: {}.
    """
    sources = settings.config_file.current.sources
    name = next((name for name, source in sources.items() if source["type"] == "scim"), None)
    tokens = settings.source_secret(name)() if name else ()
    if not tokens:
        return {}
    client = _Client(f"{relay_url}/scim/{name}/v2", tokens[0], call)
    logins = [f"{first}-{secrets.token_hex(3)}@example.com" for first in ("lise", "emmy", "rosalind")]
    lise, emmy, rosalind = (client.user(login) for login in logins)
    group = client.group("Engineering", [lise, emmy, rosalind])
    # Microsoft's removal says who in its value, which the RFC does not know
    client.patch(f"/Groups/{group}", {"op": "Remove", "path": "members", "value": [{"value": lise}]})
    client.patch(f"/Users/{emmy}", {"op": "Replace", "path": "active", "value": "False"})
    client.send("DELETE", f"/Users/{rosalind}")
    return dict(
        zip(
            logins,
            ("SCIM: removed from the group Engineering", "SCIM: active is false", "SCIM: user deleted"),
            strict=True,
        )
    )


class _Client:
    """A SCIM client with a token."""

    def __init__(self, base_url: str, token: str, call: Call) -> None:
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/scim+json"}
        self._call = call

    def send(self, method: str, path: str, document: object = None) -> Any:
        body = self._call(f"{self._base_url}{path}", method, self._headers, document)
        return json.loads(body) if body else None

    def user(self, login: str) -> str:
        emails = [{"value": login, "type": "work", "primary": True}]
        document = {"schemas": [f"{_CORE}:User"], "userName": login, "active": True, "emails": emails}
        return str(self.send("POST", "/Users", document)["id"])

    def group(self, name: str, members: list[str]) -> str:
        listed = [{"value": member} for member in members]
        document = {"schemas": [f"{_CORE}:Group"], "displayName": name, "members": listed}
        return str(self.send("POST", "/Groups", document)["id"])

    def patch(self, path: str, operation: dict[str, Any]) -> None:
        self.send("PATCH", path, {"schemas": [_PATCH], "Operations": [operation]})

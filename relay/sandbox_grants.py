"""What the stand-in for Velt knows: who was granted what, and who else may open it. No HTTP here.

As https://docs.velt.dev/key-concepts/overview#access-control has it: a folder's grants hold for what is in it too, and
each folder and document has an accessType. Two things differ from Velt on purpose: whatever was ever granted exists,
and it is `restricted` until told otherwise (in Velt it is public).
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

#: (type, id, organization id or "").
Key = tuple[str, str, str]

ACCESS_TYPES = ("public", "organizationPrivate", "restricted")


def key_of(resource: dict[str, Any]) -> Key:
    """The key of a resource as requests carry it."""
    return resource["type"], resource["id"], resource.get("organizationId", "")


class Grants:
    """The state. Not locked: whoever uses it from several threads does that."""

    def __init__(self) -> None:
        self._grants: defaultdict[str, dict[Key, dict[str, Any]]] = defaultdict(dict)
        self._resources: dict[Key, dict[str, Any]] = {}

    def add(self, user: str, resource: dict[str, Any], role: str, expires_at: float | None) -> None:
        """Give a role, until a Unix time in seconds where there is one."""
        self.declare(resource)
        expiry = {} if expires_at is None else {"expiresAt": expires_at}
        self._grants[user][key_of(resource)] = {"accessRole": role, **expiry}

    def remove(self, user: str, resource: dict[str, Any]) -> None:
        """Take the grant on exactly this resource; none is fine, too."""
        self._grants[user].pop(key_of(resource), None)

    def declare(self, resource: dict[str, Any]) -> None:
        """Let a resource exist; `accessType` and `folderId` (the folder it is in) are kept where they are there."""
        known = self._resources.setdefault(key_of(resource), {})
        known |= {name: resource[name] for name in ("accessType", "folderId") if name in resource}

    def resources(self) -> list[dict[str, Any]]:
        """Everything that exists."""
        return [
            {"type": kind, "id": identifier, **({"organizationId": organization} if organization else {}), **known}
            for (kind, identifier, organization), known in self._resources.items()
        ]

    def missing(self, organization: str, documents: list[str], folders: list[str]) -> bool:
        """Whether one of these does not exist."""
        asked = [("document", name) for name in documents] + [("folder", name) for name in folders]
        return any((kind, name, organization) not in self._resources for kind, name in asked)

    def shown(
        self, user: str, organization: str, documents: list[str], folders: list[str], must_exist: bool
    ) -> dict[str, Any]:
        """What permissions/get shows of one user."""
        role = self._granted(user, ("organization", organization, ""))
        found: dict[str, Any] = {"organization": {organization: role or _denied("organization")}}
        for kind, ids in (("document", documents), ("folder", folders)):
            if ids:
                keys = {name: (kind, name, organization) for name in ids}
                found[f"{kind}s"] = {name: self._entry(user, key, must_exist) for name, key in keys.items()}
        return found

    def _entry(self, user: str, key: Key, must_exist: bool) -> dict[str, Any]:
        known = self._resources.get(key)
        if known is None and must_exist:
            return {"error": f"{key[0].capitalize()} does not exist", "errorCode": "does_not_exist"}
        shown = self._granted(user, key) or self._inherited(user, key) or _denied(key[0])
        return shown if known is None else {**shown, "accessType": known.get("accessType", "restricted")}

    def _granted(self, user: str, key: Key) -> dict[str, Any] | None:
        grant = self._grants[user].get(key) if user in self._grants else None
        return None if grant is None or grant.get("expiresAt", time.time() + 1) <= time.time() else grant

    def _inherited(self, user: str, key: Key) -> dict[str, Any] | None:
        seen: set[Key] = set()
        while (folder := self._resources.get(key, {}).get("folderId")) and key not in seen:
            seen.add(key)
            key = ("folder", folder, key[2])
            if grant := self._granted(user, key):
                return grant
        return None


def _denied(kind: str) -> dict[str, Any]:
    return {"error": f"User does not have access to {kind}", "errorCode": "permission_denied"}

"""Builders of what Okta and Entra send, with made-up people of Acme: used by the tests and by the demo.

Every builder gives plain JSON data; `to_bytes` gives a request's body. Okta's deliveries leave null members out, its
System Log prints them: pass `printed_nulls` for the latter.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

TENANT = "3f0e9a52-7c1d-4b7e-9d35-0a6c2b8e4f10"
CLIENT_STATE = "acme-client-state-for-tests"

LEGACY_DELETE = "app.user_management.app_group_member_import.delete_success"
LEGACY_INSERT = "app.user_management.app_group_member_import.insert_success"


def to_bytes(document: object) -> bytes:
    """The document as a request's body."""
    return json.dumps(document).encode()


def okta_user(user_id: str = "00uAda", login: str | None = "ada@acme.example") -> dict[str, Any]:
    return {"id": user_id, "type": "User", "alternateId": login, "displayName": "Ada Acme"}


def okta_group(group_id: str = "00gEng", name: str | None = "Engineering") -> dict[str, Any]:
    return {"id": group_id, "type": "UserGroup", "alternateId": "unknown", "displayName": name}


def okta_app(app_id: str = "0oaVelt", name: str | None = "Velt") -> dict[str, Any]:
    return {"id": app_id, "type": "AppInstance", "alternateId": "velt", "displayName": name}


def okta_app_user(user_id: str = "0uaAda") -> dict[str, Any]:
    return {"id": user_id, "type": "AppUser", "alternateId": "unknown", "displayName": "Ada Acme"}


def okta_event(
    event_type: str,
    *targets: Mapping[str, Any],
    event_id: str | None = None,
    published: str = "2026-03-02T09:30:00.250Z",
    printed_nulls: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One element of `data.events[]`; keywords add members or replace them."""
    element: dict[str, Any] = {
        "uuid": event_id or str(uuid.uuid4()),
        "published": published,
        "eventType": event_type,
        "version": "0",
        "displayMessage": event_type.replace(".", " "),
        "severity": "INFO",
        "client": {"zone": "null", "ipChain": [{"ip": "192.0.2.10", "version": "V4"}]},
        "actor": {"id": "00uAdmin", "type": "User", "alternateId": "admin@acme.example", "displayName": "Admin"},
        "outcome": {"result": "SUCCESS"},
        "target": list(targets),
        "transaction": {"type": "WEB", "id": "trans-1", "detail": {}},
        "debugContext": {"debugData": {"requestUri": "/api/v1/users", "targetEventHookIds": "whoAcme"}},
        "authenticationContext": {"authenticationStep": 0, "externalSessionId": "trsAcme"},
        "securityContext": {},
    }
    if printed_nulls:
        element |= {"device": None, "legacyEventType": None, "request": {"ipChain": []}}
        element["outcome"] |= {"reason": None}
        element["target"] = [{**target, "detailEntry": None} for target in targets] or None
    return element | more


def okta_hook(elements: Iterable[object], **more: Any) -> dict[str, Any]:
    """One delivery holding these elements."""
    return {
        "eventType": "com.okta.event_hook",
        "eventTypeVersion": "1.0",
        "cloudEventsVersion": "0.1",
        "source": "https://acme.okta.example/api/v1/eventHooks/whoAcme",
        "eventId": str(uuid.uuid4()),
        "data": {"events": list(elements)},
        "eventTime": "2026-03-02T09:30:10.500Z",
        "contentType": "application/json",
    } | more


def entra_item(
    resource: str,
    change: str,
    object_id: str,
    /,
    *,
    client_state: str | None = CLIENT_STATE,
    data: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A change notification: `resource` is User or Group; `data` adds to resourceData.

    Keywords replace members of the item, `resource` and `resourceData` included.
    """
    return {
        "changeType": change,
        "clientState": client_state,
        "resource": f"{resource}s/{object_id}",
        "resourceData": {
            "@odata.type": f"#Microsoft.Graph.{resource}",
            "@odata.id": f"{resource}s/{object_id}",
            "id": object_id,
            "organizationId": TENANT,
            **(data or {}),
        },
        "subscriptionExpirationDateTime": "2026-03-20T04:14:50-07:00",
        "subscriptionId": "5b1f5f4e-2f0a-4a58-8f0a-6f0a3c0d9e77",
        "tenantId": TENANT,
    } | more


def entra_members(
    group_id: str, *, removed: Iterable[str] = (), added: Iterable[str] = (), **more: Any
) -> dict[str, Any]:
    """A group's notification naming members that went and came."""
    went: list[dict[str, Any]] = [{"id": member, "@removed": "deleted"} for member in removed]
    came: list[dict[str, Any]] = [{"id": member} for member in added]
    return entra_item("Group", "updated", group_id, data={"members@delta": went + came}, **more)


def entra_lifecycle(event: str, client_state: str | None = CLIENT_STATE) -> dict[str, Any]:
    return {
        "lifecycleEvent": event,
        "subscriptionId": "5b1f5f4e-2f0a-4a58-8f0a-6f0a3c0d9e77",
        "subscriptionExpirationDateTime": "2026-03-20T04:14:50-07:00",
        "clientState": client_state,
        "tenantId": TENANT,
    }


def entra_body(items: Iterable[object], **more: Any) -> dict[str, Any]:
    """One delivery holding these items."""
    return {"value": list(items)} | more

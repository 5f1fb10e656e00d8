"""Sample traffic for a running relay, and what Velt was asked to remove because of it.

The relay must run with relay.example.yaml and the sandbox as its Velt, as `make run` does. Okta's people are new ones
each time; Entra's person is one of users.example.csv, who therefore joins the group before leaving it.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from relay.demo_scim import scim_demo
from relay.errors import RelayError
from relay.model import now, to_iso
from relay.settings import Settings

#: Seconds to wait for the removals.
PATIENCE = 20.0

ENTRA_GROUP = "0b9d1c52-7a3e-4f65-8c1d-2e4f6a8b0c01"
ENTRA_MEMBER = "5f0c7d1e-3b52-4c1a-9a6e-1d2f83b7c001"
ENTRA_VELT_USER = "person-one@example.com"

JsonObject = dict[str, Any]


class DemoFailed(RelayError):
    """The demo could not be played; the message says what to do."""


def run(settings: Settings, echo: Callable[[str], None]) -> int:
    """Play the demo and print its table; 0 when Velt was asked for everything that was expected."""
    relay_url, sandbox_url = url_of(settings), settings.velt_base_url
    since = to_iso(now()) or ""
    get_calls(sandbox_url, since)
    because = _send_okta(settings, relay_url) | _send_entra(settings, relay_url) | scim_demo(settings, relay_url, call)
    calls = _wait_for(sandbox_url, since, set(because))
    echo("\nWhat Velt was asked to remove:\n")
    for line in table(("person", "resources", "because of"), _rows(calls, because)):
        echo(line)
    lacking = set(because) - {call["userId"] for call in calls}
    if lacking:
        echo(f"\nNothing came for {', '.join(sorted(lacking))} within {PATIENCE:g} s: is a worker running?")
    return 1 if lacking else 0


def url_of(settings: Settings) -> str:
    """Where the relay is: RELAY_URL, else this machine's PORT."""
    return settings.environ.get("RELAY_URL") or f"http://127.0.0.1:{settings.port}"


def call(url: str, method: str = "GET", headers: dict[str, str] | None = None, document: object = None) -> bytes:
    """The body of an answer of 2xx. Raises DemoFailed."""
    parts = urlsplit(url)
    scheme = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = scheme(parts.hostname or "", parts.port, timeout=10)
    try:
        body = None if document is None else json.dumps(document)
        connection.request(method, parts.path or "/", body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise DemoFailed(f"{url} does not answer ({error}); start it with `make run`") from None
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        raise DemoFailed(f"{method} {url} was answered {answer.status}: {content[:300].decode(errors='replace')}")
    return content


def get_calls(sandbox_url: str, since: str) -> list[JsonObject]:
    """The removals that the sandbox was asked for since then."""
    content = call(f"{sandbox_url}/calls")
    try:
        calls: list[JsonObject] = json.loads(content)["calls"]
    except (ValueError, KeyError):
        raise DemoFailed(f"{sandbox_url} (VELT_BASE_URL) is not the sandbox; start it with `make run`") from None
    return [found for found in calls if found["at"] >= since]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = tuple("-" * width for width in widths)
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, rule, *rows]
    )
    return [line.rstrip() for line in lines]


def _rows(calls: list[JsonObject], because: dict[str, str]) -> list[tuple[str, ...]]:
    return [
        (found["userId"], ", ".join(f"{item['type']} {item['id']}" for item in found["resources"]), because[person])
        for person in because
        for found in calls
        if found["userId"] == person
    ]


def _wait_for(sandbox_url: str, since: str, people: set[str]) -> list[JsonObject]:
    deadline = time.monotonic() + PATIENCE
    while True:
        calls = get_calls(sandbox_url, since)
        if people <= {found["userId"] for found in calls} or time.monotonic() > deadline:
            return calls
        time.sleep(0.2)


def _send_okta(settings: Settings, relay_url: str) -> dict[str, str]:
    """Send three hooks; return the people who lose something and why."""
    ada, grace, alan, mary = (_person(name) for name in ("ada", "grace", "alan", "mary"))
    engineering = _target("UserGroup", "00gDemoEngineering", "Engineering")
    roadmap = _target("UserGroup", "00gDemoRoadmap", "velt-acme-doc-roadmap")
    wiki = _target("AppInstance", "0oaDemoWiki", "Wiki")
    batch = [
        _okta_event("group.user_membership.remove", alan, roadmap),
        _okta_event("application.user_membership.remove", mary, wiki),
        _okta_event("user.session.end", mary),
    ]
    hooks = [
        [_okta_event("group.user_membership.remove", ada, engineering)],
        [_okta_event("user.lifecycle.deactivate", grace)],
        batch,
    ]
    headers = {"Authorization": _secret(settings, "okta"), "Content-Type": "application/json"}
    for elements in hooks:
        call(f"{relay_url}/hooks/okta", "POST", headers, _okta_hook(elements))
    return {
        ada["alternateId"]: "Okta: removed from the group Engineering",
        grace["alternateId"]: "Okta: account deactivated",
        alan["alternateId"]: "Okta: removed from the group velt-acme-doc-roadmap",
        mary["alternateId"]: "Okta: removed from the application Wiki",
    }


def _send_entra(settings: Settings, relay_url: str) -> dict[str, str]:
    """Send two notifications, joining and leaving; return the person who loses something and why."""
    state = _secret(settings, "entra")
    for member in ({"id": ENTRA_MEMBER}, {"id": ENTRA_MEMBER, "@removed": "deleted"}):
        document = {"value": [_entra_item(state, member)]}
        call(f"{relay_url}/hooks/entra", "POST", {"Content-Type": "application/json"}, document)
    return {ENTRA_VELT_USER: f"Entra: removed from the group {ENTRA_GROUP}"}


def _secret(settings: Settings, source: str) -> str:
    values = settings.source_secret(source)()
    if not values:
        raise DemoFailed(f"the secret of the source {source} is not set; use `make demo`, or the settings of the relay")
    return values[0]


def _person(name: str) -> JsonObject:
    mark = secrets.token_hex(3)
    return _target("User", f"00uDemo{name}{mark}", name.title(), f"{name}-{mark}@example.com")


def _target(type_: str, target_id: str, name: str, alternate_id: str = "unknown") -> JsonObject:
    return {"id": target_id, "type": type_, "alternateId": alternate_id, "displayName": name}


def _okta_event(type_: str, *targets: JsonObject) -> JsonObject:
    return {
        "uuid": str(uuid.uuid4()),
        "published": to_iso(now()),
        "eventType": type_,
        "version": "0",
        "severity": "INFO",
        "displayMessage": type_.replace(".", " "),
        "actor": _target("User", "00uDemoAdmin", "Admin", "admin@example.com"),
        "outcome": {"result": "SUCCESS"},
        "target": list(targets),
        "transaction": {"type": "WEB", "id": secrets.token_hex(8), "detail": {}},
    }


def _okta_hook(elements: list[JsonObject]) -> JsonObject:
    return {
        "eventType": "com.okta.event_hook",
        "eventTypeVersion": "1.0",
        "cloudEventsVersion": "0.1",
        "source": "https://acme.okta.example/api/v1/eventHooks/whoDemo",
        "eventId": str(uuid.uuid4()),
        "eventTime": to_iso(now()),
        "contentType": "application/json",
        "data": {"events": elements},
    }


def _entra_item(client_state: str, member: JsonObject) -> JsonObject:
    return {
        "changeType": "updated",
        "clientState": client_state,
        "resource": f"Groups/{ENTRA_GROUP}",
        "resourceData": {
            "@odata.type": "#Microsoft.Graph.Group",
            "@odata.id": f"Groups/{ENTRA_GROUP}",
            "id": ENTRA_GROUP,
            "members@delta": [member],
        },
        "subscriptionId": "7d0f6b1c-52f4-4c0e-9a57-3a1f3f0f4d01",
        "subscriptionExpirationDateTime": "2030-01-01T00:00:00Z",
        "tenantId": "2f1d7b90-6a0c-4f4e-8a53-9e2b6c7d8f02",
    }

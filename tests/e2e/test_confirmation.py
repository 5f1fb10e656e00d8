"""From a hook to what Velt shows afterwards: real processes and the stand-in for Velt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.processes import Stack, free_port, running
from tests.web_app import ENGINEERING, OPERATOR, okta_headers, okta_removal

pytestmark = pytest.mark.e2e

ADA = "ada@acme.example"
RESOURCES = [
    {"type": "document", "id": "roadmap", "organizationId": "acme"},
    {"type": "document", "id": "notes", "organizationId": "acme"},
    {"type": "document", "id": "budget", "organizationId": "acme"},
    {"type": "organization", "id": "acme"},
]
CONFIG = (
    ENGINEERING.replace("[{type: organization, id: acme}]", json.dumps(RESOURCES))
    + """\
  - name: finance
    when: {kind: [group.member_removed], group.name: [Finance]}
    revoke: [{type: folder, id: finance, organizationId: acme}]
velt: {confirm: true}
"""
)


@pytest.fixture
def velt_port() -> int:
    return free_port()


@pytest.fixture
def stack(tmp_path: Path, database_url: str, velt_port: int) -> Iterator[Stack]:
    with running(tmp_path, database_url, f"http://127.0.0.1:{velt_port}", CONFIG) as made:
        made.sandbox(velt_port)
        yield made


def tell(port: int, path: str, content: object) -> None:
    """Set something in the stand-in."""
    headers = {"x-velt-api-key": "key", "x-velt-auth-token": "token"}
    assert requests.post(f"http://127.0.0.1:{port}{path}", json=content, headers=headers, timeout=5).ok


def grant(port: int, user: str, *resources: dict[str, str]) -> None:
    tell(
        port, "/v2/auth/permissions/add", {"data": {"user": {"userId": user}, "permissions": {"resources": resources}}}
    )


def api(stack: Stack, path: str) -> Any:
    status, content = stack.get(f"/api/v1/{path}", {"Authorization": f"Bearer {OPERATOR}"})
    assert status == 200, content
    return json.loads(content)


def test_who_still_has_access_is_told_with_why(stack: Stack, velt_port: int) -> None:
    notes, budget = RESOURCES[1:3]
    tell(velt_port, "/resources", {**notes, "accessType": "public"})
    tell(velt_port, "/resources", {**budget, "folderId": "finance"})
    grant(velt_port, ADA, *RESOURCES, {"type": "folder", "id": "finance", "organizationId": "acme"})
    web = stack.web()
    stack.worker()
    assert stack.post("/hooks/okta", okta_removal(), okta_headers()) == (204, b"")

    def shown() -> dict[str, Any]:
        [event] = api(stack, "events")["events"]
        found: dict[str, Any] = api(stack, f"events/{event['id']}")
        return found

    web.until(lambda: any(found["confirmation"] for found in shown()["revocations"]), "asked")
    event = shown()
    by_id = {found["resource"]["id"]: found for found in event["revocations"]}
    assert {found["state"] for found in by_id.values()} == {"removed"}
    assert {name: found["confirmation"] for name, found in by_id.items()} == {
        "roadmap": "confirmed",
        "acme": "confirmed",
        "notes": "still has access",
        "budget": "still has access",
    }
    assert "the document is public" in by_id["notes"]["confirmation_reason"]
    assert "inherited from folder finance in acme" in by_id["budget"]["confirmation_reason"]
    assert by_id["notes"]["confirmation_due_at"] is not None  # Velt may lag
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["removed", "still has access"]

    assert api(stack, "stats")["confirmations"]["confirmed"] == 2
    assert b'relay_confirmations{result="waiting"} 2.0' in stack.get("/metrics")[1]
    assert [found["id"] for found in api(stack, "events?confirmation=confirmed")["events"]] == [event["id"]]
    assert api(stack, "events?confirmation=unconfirmed")["events"] == []
    told = stack.command("show", event["id"]).stdout
    assert "still has access: the document is public" in told
    assert event["id"] in stack.command("events", "--confirmation", "waiting").stdout


def test_check_online_warns_of_the_same(stack: Stack, velt_port: int) -> None:
    tell(velt_port, "/resources", {**RESOURCES[1], "accessType": "public"})
    told = stack.command("check", "--online")
    assert told.returncode == 0, told.stderr
    assert "document notes in acme: its accessType is public" in told.stdout
    assert "document roadmap in acme: does not exist in Velt" in told.stdout

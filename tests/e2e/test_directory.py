"""The whole relay as real processes with a provider that can be asked: look-ups, outages, reconcile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.model import Resource
from tests.fake_graph import FakeGraph
from tests.fake_graph_login import CLIENT_SECRET
from tests.fake_okta import FakeOkta
from tests.fake_velt import FakeVelt
from tests.payloads import CLIENT_STATE
from tests.processes import Stack, running
from tests.web_app import OPERATOR, okta_headers

pytestmark = pytest.mark.e2e

RULES = """\
identity: {velt_user_id: ["{user.email}"]}
rules:
  - name: engineering
    when: {kind: group.member_removed, group.name: [Engineering]}
    revoke: [{type: organization, id: acme}, {type: document, id: plan, organizationId: acme}]
  - name: research
    when: {kind: group.member_removed, group.name: [Research]}
    revoke: [{type: document, id: plan, organizationId: acme}]
  - {name: leavers, when: {kind: [account.deactivated, account.suspended]}, revoke: everything}
"""

ACME = Resource("organization", "acme")
PLAN = Resource("document", "plan", "acme")


@pytest.fixture
def okta() -> Iterator[FakeOkta]:
    with FakeOkta() as made:
        yield made


@pytest.fixture
def velt() -> Iterator[FakeVelt]:
    with FakeVelt() as made:
        yield made


@pytest.fixture
def stack(tmp_path: Path, database_url: str, velt: FakeVelt, okta: FakeOkta) -> Iterator[Stack]:
    api = {"url": okta.url, "token": {"env": "OKTA_API_TOKEN"}}
    given = {"okta": {"type": "okta", "secret": {"env": "OKTA_HOOK_SECRET"}, "api": api}}
    with running(tmp_path, database_url, velt.url, f"sources: {given!r}\n{RULES}") as made:
        made.environ["OKTA_API_TOKEN"] = okta.api_token
        yield made


def events(stack: Stack) -> list[dict[str, Any]]:
    found = json.loads(stack.get("/api/v1/events", {"Authorization": f"Bearer {OPERATOR}"})[1])
    listed: list[dict[str, Any]] = found["events"]
    return listed


def test_only_what_the_directory_shows_as_lost_goes(stack: Stack, okta: FakeOkta, velt: FakeVelt) -> None:
    ada = okta.add_user("a.lovelace", email="ada@acme.example")
    engineering, research = okta.add_group("Engineering"), okta.add_group("Research")
    okta.join(ada, engineering)
    okta.join(ada, research)
    stack.web()
    stack.worker()
    assert stack.post("/hooks/okta", okta.hook_body(*okta.leave(ada, engineering)), okta_headers()) == (204, b"")
    [call] = velt.wait_for(1)
    assert (call.user_id, call.resources) == ("ada@acme.example", frozenset({ACME}))


def test_what_was_lost_while_the_relay_was_away_is_found(stack: Stack, okta: FakeOkta, velt: FakeVelt) -> None:
    ada, engineering = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, engineering)
    worker = stack.start_worker()
    web = stack.web()
    worker.until(lambda: "reconciled" in worker.text(), "reconciled for the first time")
    web.kill()
    told = okta.leave(ada, engineering)  # and nobody takes the hook
    bob = okta.add_user("bob@acme.example")
    joined = okta.join(bob, engineering)
    stack.web()
    assert stack.post("/hooks/okta", okta.hook_body(*joined), okta_headers()) == (204, b"")
    [call] = velt.wait_for(1, timeout=15)
    assert (call.user_id, call.resources) == ("ada@acme.example", frozenset({ACME, PLAN}))
    assert stack.post("/hooks/okta", okta.hook_body(*told), okta_headers()) == (204, b"")
    [alone] = json.loads(stack.get("/api/v1/reconcile", {"Authorization": f"Bearer {OPERATOR}"})[1])["sources"]
    assert (alone["error"], alone["found_alone"]) == (None, 0)
    assert len([event for event in events(stack) if event["kind"] == "group.member_removed"]) == 1


def test_a_web_process_that_starts_has_it_read_without_waiting_for_a_message(
    stack: Stack, okta: FakeOkta, velt: FakeVelt
) -> None:
    ada, engineering = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, engineering)
    worker = stack.start_worker()
    web = stack.web()
    worker.until(lambda: "reconciled" in worker.text(), "reconciled for the first time")
    web.kill()
    okta.leave(ada, engineering)  # and nobody takes the hook
    stack.web()
    [call] = velt.wait_for(1, timeout=15)
    assert (call.user_id, call.resources) == ("ada@acme.example", frozenset({ACME, PLAN}))


def test_reconcile_by_command_tells_what_it_found(stack: Stack, okta: FakeOkta, velt: FakeVelt) -> None:
    ada, engineering = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
    okta.join(ada, engineering)
    okta.leave(ada, engineering)
    stack.command("migrate")
    done = stack.command("reconcile", "--since", "1h", "--json")
    assert done.returncode == 0, done.stderr
    [one] = json.loads(done.stdout)["sources"]
    assert (one["source"], one["found"], one["error"]) == ("okta", 2, None)
    wrong = stack.command("reconcile", "--source", "okto")
    assert (wrong.returncode, wrong.stderr) == (
        1,
        '"okto" is no source that has credentials for its provider\'s API in relay.yaml (`api` or `graph`); '
        'did you mean "okta"?\n',
    )
    okta.api_token = "another"
    failed = stack.command("reconcile")
    assert failed.returncode == 1
    assert "Okta" in failed.stdout
    assert "WHY IT STOPPED" in failed.stdout


def test_a_group_that_leaves_another_takes_what_that_one_gave(
    tmp_path: Path, database_url: str, velt: FakeVelt
) -> None:
    """Both were so before the relay ran, and the notification tells two ids."""
    with FakeGraph(client_state=CLIENT_STATE) as graph:
        tenant = graph.tenant
        people = {name: tenant.add_user(f"{name}@acme.example")[0] for name in ("ada", "bob")}
        inner, outer = tenant.add_group("Compilers")[0], tenant.add_group("Engineering")[0]
        for member, group in ((people["ada"], inner), (inner, outer), (people["bob"], outer)):
            tenant.join(member, group)
        config = f"sources: {{entra: {graph.source()!r}}}\n{RULES}"
        with running(tmp_path, database_url, velt.url, config) as stack:
            stack.environ["ENTRA_CLIENT_SECRET"] = CLIENT_SECRET
            worker = stack.start_worker()
            stack.web()
            worker.until(lambda: "reconciled" in worker.text(), "reconciled for the first time")
            told = graph.hook_body(*tenant.leave(inner, outer))
            assert stack.post("/hooks/entra", told, {"Content-Type": "application/json"})[0] == 202
            [call] = velt.wait_for(1, timeout=20)
            assert (call.user_id, call.resources) == ("ada@acme.example", frozenset({ACME, PLAN}))
            [about_all] = [event for event in events(stack) if event["user"]["id"] is None]
            assert (about_all["kind"], about_all["group"]["id"]) == ("group.member_removed", outer)

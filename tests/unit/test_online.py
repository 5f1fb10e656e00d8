"""`check --online`: what Velt says about the resources of relay.yaml, over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay import online
from relay.__main__ import main
from relay.model import Resource
from relay.rules import RuleSet
from relay.sandbox import SandboxServer, make_server
from relay.velt import Velt
from tests import fake_velt
from tests.config_files import write_config
from tests.fake_velt import FakeVelt
from tests.people import rules

CONFIG = """\
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
identity: {velt_user_id: ["{user.login}"]}
guard: {users: 100, within: 1h}
lists:
  all:
    - {type: organization, id: acme}
    - {type: document, id: roadmap, organizationId: acme}
    - {type: folder, id: finance, organizationId: acme}
rules:
  - name: engineering
    when: {kind: [group.member_removed], group.name: [Engineering]}
    revoke: [{list: all}]
  - name: by template
    when: {kind: [group.member_removed]}
    revoke: [{type: document, id: "{group.name}", organizationId: acme}]
"""
ROADMAP = {"type": "document", "id": "roadmap", "organizationId": "acme"}
FINANCE = {"type": "folder", "id": "finance", "organizationId": "acme"}


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    with make_server(0) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run `check` with this Velt: (exit code, standard output, standard error)."""

    def run(velt_url: str, *options: str, config: str = CONFIG) -> tuple[int, str, str]:
        for name, value in {
            "RELAY_CONFIG": str(write_config(tmp_path, config)),
            "OKTA_HOOK_SECRET": "acme-okta-hook-secret",
            "RELAY_OPS_TOKEN": "acme-operator-token",
            "VELT_API_KEY": "key",
            "VELT_AUTH_TOKEN": "token",
            "VELT_BASE_URL": velt_url,
        }.items():
            monkeypatch.setenv(name, value)
        code = main(["check", *options])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def url_of(server: SandboxServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_all_is_well(server: SandboxServer, check: Check) -> None:
    for resource in (ROADMAP, FINANCE):
        server.sandbox.declare({**resource, "accessType": "restricted"})
    code, out, err = check(url_of(server), "--online")
    assert (code, err) == (0, "")
    assert "Velt answers, and was asked about 2 resources" in out
    assert "all is well" in out
    [reminder] = [line for line in out.splitlines() if line.startswith("warning: Velt:")]
    assert all(word in reminder for word in ("Auto-create Organization User", "48 hours", "Permission Provider"))


def test_without_it_nobody_is_asked(check: Check) -> None:
    with FakeVelt() as fake:
        code, out, _ = check(fake.url)
        assert fake.asked == []
    assert code == 0
    assert "Auto-create" not in out


def test_what_does_not_exist_and_who_else_may_open_what(server: SandboxServer, check: Check) -> None:
    server.sandbox.declare({**FINANCE, "accessType": "organizationPrivate"})
    code, out, _ = check(url_of(server), "--online")
    assert code == 0
    assert "document roadmap in acme: does not exist in Velt" in out
    assert "folder finance in acme: its accessType is organizationPrivate" in out
    server.sandbox.declare({**ROADMAP, "accessType": "public"})
    assert "document roadmap in acme: its accessType is public" in check(url_of(server), "--online")[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (fake_velt.error("PERMISSION_DENIED", 403, "Invalid API key."), "VELT_API_KEY or VELT_AUTH_TOKEN is refused"),
        (fake_velt.error("UNAVAILABLE", 503), "Velt could not be asked"),
        (fake_velt.answer(404, b"nothing here"), "check VELT_BASE_URL"),
    ],
)
@pytest.mark.parametrize("config", [CONFIG, CONFIG[: CONFIG.index("lists:")] + "rules: []\n"], ids=["rules", "none"])
def test_keys_that_are_refused_and_a_velt_that_is_not_there(
    check: Check, given: fake_velt.Answer, words: str, config: str
) -> None:
    with FakeVelt() as fake:
        fake.shows = lambda call: given
        code, out, err = check(fake.url, "--online", config=config)
        assert len(fake.asked) == 1
    assert code == 1
    assert words in err
    assert "all is well" not in out


def test_a_velt_that_cannot_be_reached(check: Check) -> None:
    code, _, err = check("http://127.0.0.1:9", "--online")
    assert code == 1
    assert "Velt could not be asked: Velt could not be reached at 127.0.0.1" in err


# the questions


def gives(*resources: Resource) -> RuleSet:
    revoke = [resource.as_velt() for resource in resources]
    return rules({"name": "all", "when": {"group.id": "eng"}, "revoke": revoke})


@pytest.fixture
def fake() -> Iterator[FakeVelt]:
    with FakeVelt() as made:
        yield made


@pytest.fixture
def velt(fake: FakeVelt) -> Iterator[Velt]:
    made = Velt(fake.url, lambda: ("key", "token"), timeout=5)
    yield made
    made.close()


def test_many_are_asked_about_in_portions_with_progress(fake: FakeVelt, velt: Velt) -> None:
    seen: list[tuple[int, int]] = []
    documents = [Resource("document", f"d{n:02}", "acme") for n in range(61)]
    found = online.look(velt, gives(*documents, Resource("folder", "f", "other")), lambda *told: seen.append(told))
    assert [len(call.resources) for call in fake.asked] == [30, 30, 1, 1]
    assert seen == [(30, 62), (60, 62), (61, 62), (62, 62)]
    assert (found.warnings, found.asked) == ([], 62)


def test_only_organizations_still_try_the_keys(fake: FakeVelt, velt: Velt) -> None:
    found = online.look(velt, gives(Resource("organization", "acme")), lambda *told: None)
    assert len(fake.asked) == 1
    assert (found.mistakes, found.warnings, found.asked) == ([], [], 0)


def test_what_velt_leaves_out_beside_the_missing_is_asked_again(fake: FakeVelt, velt: Velt) -> None:
    gone, there = Resource("document", "gone", "acme"), Resource("document", "there", "acme")

    def shows(call: fake_velt.Call) -> fake_velt.Answer:
        if gone not in call.resources:
            return fake_velt.access(call, {there: {"accessType": "public"}})
        details = {call.user_id: {"documents": {"gone": {"errorCode": "does_not_exist"}}}}
        wrong = {"error": {"status": "NOT_FOUND", "message": "Document does not exist", "details": details}}
        return fake_velt.answer(404, wrong)

    fake.shows = shows
    first, second = online.look(velt, gives(gone, there), lambda *told: None).warnings
    assert first.startswith("document gone in acme: does not exist")
    assert second.startswith("document there in acme: its accessType is public")
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (fake_velt.error("NOT_FOUND", 404, "No such organization"), "could not be looked at, Velt answered HTTP 404"),
        (fake_velt.error("INVALID_ARGUMENT", 400, "Bad"), "could not be looked at, Velt answered HTTP 400"),
        (fake_velt.answer(200, {"result": {"status": "success"}}), "Velt was asked, and it says nothing about it"),
    ],
)
def test_what_velt_does_not_tell_is_said(fake: FakeVelt, velt: Velt, given: fake_velt.Answer, words: str) -> None:
    fake.shows = lambda call: given
    found = online.look(velt, gives(Resource("document", "d1", "acme")), lambda *told: None)
    assert found.mistakes == []
    assert words in found.warnings[0]


def test_an_entry_without_an_access_type_is_said(fake: FakeVelt, velt: Velt) -> None:
    d1 = Resource("document", "d1", "acme")
    fake.shows = lambda call: fake_velt.access(call, {d1: {"errorCode": "something_went_wrong", "error": "sorry"}})
    [warning] = online.look(velt, gives(d1), lambda *told: None).warnings
    assert warning == "document d1 in acme: Velt did not tell its accessType (something_went_wrong: sorry)"

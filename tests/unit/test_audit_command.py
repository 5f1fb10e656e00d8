"""`python -m relay audit` as a person sees it, and that the commands which it prints do what they say."""

from __future__ import annotations

import io
import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import select

from relay import audit_text, auditing
from relay.__main__ import main
from relay.model import Resource
from relay.progress import Progress
from relay.sandbox import make_server
from relay.store import tables
from relay.store.database import Database
from tests.config_files import write_config

CONFIG = """\
sources:
  people: {type: scim, token: {env: SCIM_TOKEN}}
identity: {velt_user_id: ["{user.login}"]}
rules:
  - name: engineering
    when: {kind: [group.member_removed], group.name: [Engineering]}
    revoke: [{type: document, id: roadmap, organizationId: acme}]
mode: observe
"""


@pytest.fixture
def velt_url() -> Iterator[str]:
    with make_server(0) as sandbox:
        thread = threading.Thread(target=sandbox.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{sandbox.server_port}"
        sandbox.shutdown()
        thread.join()


@pytest.fixture
def database(
    tmp_path: Path, _sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, velt_url: str
) -> Iterator[Database]:
    path = tmp_path / "relay.db"
    path.write_bytes(_sqlite_template.read_bytes())
    monkeypatch.setattr("relay.log.configure", lambda level: None)
    for name, value in {
        "DATABASE_URL": f"sqlite:///{path}",
        "RELAY_CONFIG": str(write_config(tmp_path, CONFIG)),
        "VELT_BASE_URL": velt_url,
        "VELT_API_KEY": "acme-velt-key",
        "VELT_AUTH_TOKEN": "acme-velt-token",
    }.items():
        monkeypatch.setenv(name, value)
    made = Database(f"sqlite:///{path}")
    yield made
    made.close()


@pytest.fixture
def people(database: Database, velt_url: str) -> None:
    """Ada is entitled and has nothing; Bob has what he is not entitled to."""
    row = {"source": "people", "comparable": {}, "version": 1, "created_at": 1, "updated_at": 1}
    with database.write() as connection:
        for login in ("ada", "bob"):
            document = json.dumps({"userName": login, "active": True})
            connection.execute(tables.scim_users.insert().values(**row, id=login, user_name=login, document=document))
        document = json.dumps({"displayName": "Engineering"})
        connection.execute(tables.scim_groups.insert().values(**row, id="g", document=document))
        connection.execute(tables.scim_members.insert().values(source="people", group_id="g", member_id="ada"))
    resource = {"type": "document", "id": "roadmap", "organizationId": "acme"}
    body = {"data": {"user": {"userId": "bob"}, "permissions": {"resources": [resource]}}}
    headers = {"x-velt-api-key": "k", "x-velt-auth-token": "t"}
    requests.post(f"{velt_url}/v2/auth/permissions/add", json=body, headers=headers, timeout=5).raise_for_status()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert main(words) == 0
    return tuple(capsys.readouterr())  # type: ignore[return-value]


@pytest.mark.usefixtures("people")
def test_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "audit")
    assert out == (
        "EXTRA: USER  RESOURCE                  ROLE    WHY\n"
        "bob          document roadmap in acme  editor  in no group or app that gives it\n\n"
        "to remove it:\n"
        "python -m relay remove bob document:acme/roadmap --reason audit\n\n"
        "MISSING: USER  RESOURCE                  ENTITLED BECAUSE\n"
        "ada            document roadmap in acme  has group Engineering (people), rule 'engineering'\n\n"
        "1 extra, 1 missing (people: 2, resources: 1)\n"
    )
    assert err == ""


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("only", ["extra", "missing"])
def test_only_one_difference(capsys: pytest.CaptureFixture[str], only: str) -> None:
    out, _ = run(capsys, "audit", "--only", only)
    assert ("EXTRA: USER" in out, "MISSING: USER" in out) == (only == "extra", only == "missing")
    assert "1 extra, 1 missing" in out
    told = json.loads(run(capsys, "audit", "--only", only, "--json")[0])
    assert {"extra", "missing"} & told.keys() == {only}


@pytest.mark.usefixtures("people")
def test_nothing_secret_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "acme-velt" not in "".join(run(capsys, "audit", "--json"))


def test_without_keys(database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VELT_API_KEY")
    assert main(["audit"]) == 1
    told = "VELT_API_KEY: is not set or empty; `python -m relay audit` needs it for asking Velt who has access\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("user", ["bob", "bob o'neil@acme.example", "-x", "--everything", 'a"b $HOME `id`', "ü;*"])
@pytest.mark.parametrize(
    "resource",
    [
        Resource("organization", "acme"),
        Resource("organization", "a/b c"),
        Resource("folder", "fin/2026:a", "acme"),
        Resource("document", "it's", "acme/eu"),
        Resource("document", "roadmap", "-acme"),
    ],
    ids=str,
)
def test_the_command_that_is_printed_works(database: Database, user: str, resource: Resource) -> None:
    words = shlex.split(auditing.command(user, resource))
    assert words[:3] == ["python", "-m", "relay"]
    assert main(words[3:]) == 0
    with database.read() as connection:
        (row,) = connection.execute(select(tables.revocations)).all()
        assert Resource(row.resource_type, row.resource_id, row.organization_id) == resource
        assert connection.execute(select(tables.people.c.velt_user_id)).scalar_one() == user
        assert connection.execute(select(tables.decisions.c.reason)).scalar_one() == "audit"


def answer(**more: Any) -> dict[str, Any]:
    names = ("extra", "missing", "unanswered", "resources", "nameless", "rules_not_listed", "by_messages_only")
    return {**{name: [] for name in names}, "people": 0, **more}


def test_what_could_not_be_compared_is_told() -> None:
    plain = {"access_type": None, "exists": True, "asked": 9, "extra": 0, "missing": 0, "silent": 0}
    resources = [
        {**plain, "resource": {"type": "organization", "id": "acme"}, "silent": 4},
        {**plain, "resource": {"type": "document", "id": "d", "organizationId": "acme"}, "access_type": "public"},
        {**plain, "resource": {"type": "folder", "id": "f", "organizationId": "acme"}, "exists": False},
    ]
    who = {"user": "bob", "resource": {"type": "organization", "id": "acme"}}
    unsure = {"doubt": "may be", "remove": None}
    text = audit_text.table_of(
        answer(
            resources=resources,
            extra=[{**who, "role": "viewer", "why": "left", **unsure, "planned": "evt_1", "held": "evt_2"}],
            unanswered=[{**who, "why": "something_went_wrong: x"}],
            nameless=[{"source": "okta", "id": "00u1", "why": "no mail"}],
            rules_not_listed=["apps"],
            by_messages_only=["hook"],
        )
    )
    for part in (
        "left; not certain: may be; its removal is planned: evt_1; the guard holds an event of this person: evt_2",
        "organization acme: Velt says nothing about 4 of 9 people",
        "document d in acme is open to all: it is public, and a grant on it does not matter",
        "folder f in acme does not exist in Velt",
        "something_went_wrong: x",
        "00u1 of okta could not be asked about: no mail",
        "rule 'apps' names apps otherwise than by id",
        "the source hook could not be listed",
    ):
        assert part in text
    assert "to remove it" not in text


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    progress = Progress()
    progress("first")
    progress("x" * 500)
    progress.end()
    assert screen.getvalue().startswith("\r\x1b[Kfirst\r\x1b[Kxxx")
    assert screen.getvalue().endswith("x\r\x1b[K")
    assert "\n" not in screen.getvalue()
    assert "x" * 200 not in screen.getvalue()


def test_progress_elsewhere_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress()
    progress("too soon")
    monkeypatch.setattr(Progress, "EVERY", 0.0)
    progress("later")
    progress.end()
    assert capsys.readouterr().err == "later\n"

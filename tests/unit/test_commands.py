"""The operators' verbs on the command line."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from relay import commands
from relay.errors import Refused
from relay.store.database import Database
from tests import desk_cases, payloads
from tests.config_files import write_config
from tests.desk_cases import deliver, lost, plan, record

CONFIG = """\
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
identity: {velt_user_id: ["{user.login}"]}
rules:
  - {name: engineering, when: {group.name: [Engineering]}, revoke: [{type: organization, id: acme}]}
"""


@pytest.fixture
def database(tmp_path: Path, _sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    path = tmp_path / "relay.db"
    path.write_bytes(_sqlite_template.read_bytes())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("RELAY_CONFIG", str(write_config(tmp_path, CONFIG)))
    monkeypatch.setattr("getpass.getuser", lambda: "grace")
    monkeypatch.setattr("relay.log.configure", lambda level: None)
    return Database(f"sqlite:///{path}")


class Terminal:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._parser = argparse.ArgumentParser()
        commands.register(self._parser.add_subparsers(required=True))

    def __call__(self, *words: str) -> str:
        arguments = self._parser.parse_args(words)
        assert arguments.run(arguments) == 0
        return self._capsys.readouterr().out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_events_as_a_table_and_as_json(database: Database, run: Terminal) -> None:
    assert run("events") == "no events\n"
    ids = record(database, lost(), lost("bob@acme.example"))
    plan(database)
    lines = run("events").splitlines()
    assert lines[0].split()[:4] == ["RECEIVED", "ID", "STATE", "KIND"]
    assert {line.split()[2] for line in lines[1:]} == set(ids)
    assert all("2 pending" in line for line in lines[1:])
    assert "--cursor" in run("events", "--limit", "1")
    assert [e["user"]["login"] for e in run.json("events", "--user", "bob@acme.example")["events"]] == [
        "bob@acme.example"
    ]


def test_show_tells_calls_and_decisions(database: Database, run: Terminal) -> None:
    (event_id,) = record(database, lost())
    plan(database)
    deliver(database, desk_cases.REFUSED)
    run("retry", event_id, "--reason", "fixed it")
    text = run("show", event_id)
    for word in ("organization acme", "engineering", "refused", "cli:grace", "fixed it", "pending"):
        assert word in text
    assert run.json("show", event_id)["decisions"][0]["actor"] == "cli:grace"


def test_nothing_of_a_name_controls_the_terminal(database: Database, run: Terminal) -> None:
    record(database, lost("ada\x1b[31m@acme.example"))
    assert "\x1b" not in run("events")


def test_bulk_and_dry_run(database: Database, run: Terminal) -> None:
    record(database, lost(), lost("bob@acme.example"))
    plan(database)
    assert run.json("cancel", "--state", "planned", "--dry-run") == {"matched": 2, "possible": 2, "cancelled": 0}
    assert run.json("retry", "--state", "planned", "--replan")["retried"] == 2
    assert "approved  0" in run("approve", "--state", "held")
    assert "rejected  0" in run("reject", "--state", "held")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["retry"], "name an event, or a filter"),
        (["retry", "evt_1", "--state", "failed"], "not both"),
        (["cancel", "evt_1", "--dry-run"], "not both"),
        (["retry", "evt_1"], "no event"),
        (["show", "evt_1"], "no event"),
        (["events", "--state", "fail"], 'did you mean "failed"'),
        (["events", "--limit", "0"], "from 1 to 500"),
        (["remove", "eve"], "name the resources"),
        (["remove", "eve", "organization:acme", "--everything"], "one of the two"),
        (["remove", "eve", "document:d"], "names no resource"),
        (["remove", "eve", "{"], "is not JSON"),
        (["remove", "eve", "file:acme/x"], "type"),
        (["explain", "--source", "octa", "x.json"], 'did you mean "okta"'),
        (["explain", "--source", "okta", "/nowhere/x.json"], "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(database: Database, run: Terminal, words: list[str], text: str) -> None:
    with pytest.raises(Refused, match=text):
        run(*words)


def test_remove_takes_short_and_long_resources(database: Database, run: Terminal) -> None:
    words = ["organization:acme", "document:acme/a/b", '{"type": "folder", "id": "f", "organizationId": "a/c"}']
    event_id = run.json("remove", "eve", *words)["id"]
    assert [r["resource"] for r in run.json("show", event_id)["revocations"]] == [
        {"type": "organization", "id": "acme"},
        {"type": "document", "id": "a/b", "organizationId": "acme"},
        {"type": "folder", "id": "f", "organizationId": "a/c"},
    ]
    everything = run.json("remove", "eve", "--everything", "--reason", "left")["id"]
    assert len(run.json("show", everything)["revocations"]) == 1


def test_pause_stats_resume(database: Database, run: Terminal) -> None:
    run("pause", "--reason", "moving")
    told = run("stats")
    assert "by cli:grace: moving" in told
    assert "no worker was heard of" in told
    assert run.json("resume") == {"paused": False}
    assert run.json("stats")["delivery"]["paused"] is False


def test_explain_reads_a_file_or_standard_input(
    database: Database, run: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hook.json"
    file.write_bytes(payloads.to_bytes(payloads.okta_hook([lost(), lost(group="Design")])))
    text = run("explain", "--source", "okta", str(file))
    assert "would be removed" in text
    assert "sent to Velt: remove ada@acme.example from organization acme" in text
    assert "group.name does not match" in text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(payloads.to_bytes(lost()))))
    assert len(run.json("explain", "--source", "okta", "-")["events"]) == 1
    assert run.json("events")["events"] == []

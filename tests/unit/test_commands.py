"""The operators' verbs on the command line."""

from __future__ import annotations

import argparse
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from relay import commands, operate
from relay.arguments import AnyOrder
from relay.errors import Refused, Unavailable
from relay.model import Guard, now
from relay.store import alerts, gaps, leases
from relay.store import subscriptions as kept
from relay.store.database import Database
from relay.store.subscriptions import DAY, Live, Record
from relay.store.tables import revocations
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
        commands.register(self._parser.add_subparsers(required=True, parser_class=AnyOrder))

    def __call__(self, *words: str) -> str:
        arguments = self._parser.parse_args(words)
        assert arguments.run(arguments) == 0
        return self._capsys.readouterr().out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)


def test_subscriptions_as_a_table_and_as_json(database: Database, run: Terminal) -> None:
    assert "no subscriptions are kept" in run("subscriptions")
    live = Live("sub-1", "/groups", now() + 20 * DAY, "")
    kept.write(database, Record("entra", live=(live,), error="no way", looked_at=now()))
    head, users, groups = run("subscriptions").splitlines()
    assert head.split()[:3] == ["SOURCE", "RESOURCE", "STATE"]
    assert users.split()[:3] == ["entra", "/users", "missing"]
    assert groups.split()[:4] == ["entra", "/groups", "live", "sub-1"]
    assert groups.endswith("no way")
    assert [one["id"] for one in run.json("subscriptions")["subscriptions"]] == [None, "sub-1"]


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


def test_show_tells_what_each_call_was_about(
    database: Database, run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (event_id,) = record(database, lost())
    plan(database)
    deliver(database, desk_cases.REFUSED)  # both at once, then one by one
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    calls = run("show", event_id).split("\n\n")[-1]
    assert calls.split()[:6] == ["CALLED", "OUTCOME", "HTTP", "ABOUT", "WHY", "ATTEMPT"]
    about = re.findall(r"refused  400   (.*?)  +INVALID_ARGUMENT: no such thing", calls)
    assert sorted(about) == ["document roadmap in acme", "organization acme", "organization acme and 1 more"]
    assert max(map(len, calls.splitlines())) <= 100
    assert calls.count("att_") == 3


def test_nothing_of_a_name_controls_the_terminal(database: Database, run: Terminal) -> None:
    record(database, lost("ada\x1b[31m@acme.example"))
    assert "\x1b" not in run("events")


def test_bulk_and_dry_run(database: Database, run: Terminal) -> None:
    record(database, lost(), lost("bob@acme.example"))
    plan(database)
    dry = run.json("cancel", "--state", "planned", "--dry-run")
    assert (dry["matched"], dry["possible"], dry["cancelled"]) == (2, 2, 0)
    assert run.json("retry", "--state", "planned", "--replan")["retried"] == 2
    assert "approved  0" in run("approve", "--state", "held")
    assert "rejected  0" in run("reject", "--state", "held")


def test_bulk_says_why_events_are_passed_over(database: Database, run: Terminal) -> None:
    record(database, lost())
    plan(database)
    deliver(database)
    assert "1 done (done events need --replan)" in run("retry", "--source", "okta", "--dry-run")
    assert "1 done (nothing is left to cancel)" in run("cancel", "--source", "okta")
    assert "1 done (only held events can be approved)" in run("approve", "--source", "okta")
    assert "passed over" not in run("retry", "--source", "okta", "--replan", "--dry-run")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two events are many, and a call changes two."""
    monkeypatch.setattr(commands, "MANY", 2)
    monkeypatch.setattr(operate, "MOST_AT_ONCE", 2)


@pytest.mark.usefixtures("few")
def test_bulk_asks_before_it_changes_many(
    database: Database, run: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(database, *[lost(f"u{n}@acme.example") for n in range(5)])
    plan(database)
    for said in ("", "no\n", "y\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        with pytest.raises(Refused, match="nothing was changed"):
            run("cancel", "--state", "planned")
    assert "5 events would be cancelled: really? (yes)" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert run.json("cancel", "--state", "planned")["cancelled"] == 5


@pytest.mark.usefixtures("few")
def test_bulk_goes_on_until_all_are_changed(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    ids = record(database, *[lost(f"u{n}@acme.example") for n in range(5)])
    plan(database)
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers(required=True, parser_class=AnyOrder))
    arguments = parser.parse_args(["retry", "--source", "okta", "--yes", "--json"])
    assert arguments.run(arguments) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["matched"], answer["retried"], answer["more"], answer["next"]) == (5, 5, False, None)
    assert told.err == "2 of 5 events retried\n4 of 5 events retried\n"
    assert all(len(operate.show(database, event_id)["decisions"]) == 1 for event_id in ids)


@pytest.mark.usefixtures("few")
def test_a_failure_half_way_says_how_far_it_came(
    database: Database, run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(database, *[lost(f"u{n}@acme.example") for n in range(5)])
    plan(database)
    real, calls = operate.decide_all, []

    def fails(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # after the count and two calls
            raise Unavailable("the disk is full")
        return real(*given)

    monkeypatch.setattr(operate, "decide_all", fails)
    with pytest.raises(Refused, match="4 of 5 events were cancelled before this: the disk is full"):
        run("cancel", "--state", "planned", "--yes")


@pytest.mark.usefixtures("few")
def test_what_comes_meanwhile_was_not_asked_for(
    database: Database, run: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(database, *[lost(f"u{n}@acme.example") for n in range(3)])
    plan(database)
    real = operate.decide_all

    def one_more(*given: Any) -> Any:
        answer = real(*given)
        record(database, lost("late@acme.example"))
        return answer

    monkeypatch.setattr(operate, "decide_all", one_more)
    assert run.json("cancel", "--source", "okta", "--since", "1h", "--yes")["cancelled"] <= 4
    late = operate.events(database, {"user": "late@acme.example", "state": "received"})["events"]
    assert len(late) >= 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["retry"], "name an event, or a filter such as --state failed"),
        (["approve"], "name an event, or a filter such as --state held"),
        (["regranted"], "name an event, or a filter such as --needs-regrant"),
        (["retry", "evt_1", "--state", "failed"], "not both"),
        (["cancel", "evt_1", "--dry-run"], "not both"),
        (["retry", "evt_1"], "no event"),
        (["show", "evt_1"], "no event"),
        (["events", "--state", "fail"], 'did you mean "failed"'),
        (["events", "--limit", "0"], "from 1 to 500"),
        (["remove", "eve"], "name the resources"),
        (["remove", "eve", "organization:acme", "--everything"], "one of the two"),
        (["remove", "eve", "--everything", "organization:acme"], "one of the two"),
        (["remove", "eve", "document:d"], "names no resource"),
        (["remove", "eve", "organization:acme/x"], "wanted is document:acme/x or folder:acme/x, or its JSON"),
        (["remove", "eve", "{"], "is not JSON"),
        (["remove", "eve", "file:acme/x"], "type"),
        (
            ["explain", "--source", "octa", "x.json"],
            'no hook of relay.yaml, and only what comes by hook.*did you mean "okta"',
        ),
        (["explain", "--source", "okta", "/nowhere/x.json"], "cannot be read"),
        (["reconcile"], "no source has credentials for its provider's API"),
        (["reconcile", "--status", "--since", "1h"], "leave --since and --source out"),
        (["reconcile", "--status", "--source", "okta"], "leave --since and --source out"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(database: Database, run: Terminal, words: list[str], text: str) -> None:
    with pytest.raises(Refused, match=text):
        run(*words)


def write_config_with_api(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T", "okta-api-token")
    api = "api: {url: 'http://127.0.0.1:1', token: {env: T}}"
    write_config(folder, CONFIG.replace("HOOK_SECRET}", f"HOOK_SECRET}}, {api}"))


def test_reconcile_says_how_long_okta_keeps_its_log(
    database: Database, run: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config_with_api(tmp_path, monkeypatch)
    with pytest.raises(Refused, match='since: the provider of "okta" keeps what it tells for 90 days'):
        run("reconcile", "--since", "200d")
    assert run("reconcile", "--status").startswith("no source was read yet")


def test_reconcile_of_what_a_worker_reads_at_this_moment_is_asked_for(
    database: Database, run: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config_with_api(tmp_path, monkeypatch)
    assert leases.take(database, "reconcile okta", "w1", 60)
    run("reconcile", "--since", "1h")
    with database.read() as connection:
        assert list(gaps.asked(connection)) == ["okta"]
        assert gaps.until(connection) > 0


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


@pytest.mark.parametrize(
    "words",
    [
        ["eve", "--reason", "ticket 7", "organization:acme", "document:acme/d"],
        ["--reason", "ticket 7", "eve", "organization:acme", "document:acme/d"],
        ["eve", "organization:acme", "--reason", "ticket 7", "document:acme/d"],
        ["eve", "organization:acme", "document:acme/d", "--reason", "ticket 7"],
    ],
)
def test_the_order_of_what_is_said_makes_no_difference(database: Database, run: Terminal, words: list[str]) -> None:
    found = run.json("show", run.json("remove", *words)["id"])
    assert [r["resource"]["id"] for r in found["revocations"]] == ["acme", "d"]
    assert [(made["reason"], made["actor"]) for made in found["decisions"]] == [("ticket 7", "cli:grace")]


def test_an_organization_with_a_slash_is_written_as_json(database: Database, run: Terminal) -> None:
    event_id = run.json("remove", "eve", '{"type": "organization", "id": "acme/x"}')["id"]
    [revocation] = run.json("show", event_id)["revocations"]
    assert revocation["resource"] == {"type": "organization", "id": "acme/x"}


def test_remove_says_when_nobody_is_known_by_that_id(database: Database, run: Terminal) -> None:
    record(database, lost())
    plan(database)
    told = "nobody by this Velt user id is known to the relay"
    assert f"{told}; the removal goes to Velt all the same" in run("remove", "adda@acme.example", "organization:acme")
    assert told not in run("remove", "ada@acme.example", "organization:acme")
    assert run.json("remove", "adda@acme.example", "organization:acme")["known"] is False


def test_pause_stats_resume(database: Database, run: Terminal) -> None:
    record(database, lost())
    plan(database)
    run("pause", "--reason", "moving")
    told = run("stats")
    assert "by cli:grace: moving" in told
    assert "no worker was heard of" in told
    assert run("events").count("delivery is paused by cli:grace: moving") == 1
    assert run.json("resume") == {"paused": False}
    assert run.json("stats")["delivery"]["paused"] is False


def held(database: Database, number: int) -> list[str]:
    """Events that the guard holds."""
    record(database, *[lost(f"u{n}@acme.example") for n in range(number + 1)])
    plan(database, replace(desk_cases.rules(), guard=Guard(1, 3600.0)))
    return [one["id"] for one in operate.events(database, {"state": "held"})["events"]]


def test_what_is_held_is_decided_one_by_one_or_by_filter(database: Database, run: Terminal) -> None:
    ids = held(database, 4)
    assert "more than 1 person would lose something within 60 minutes; approve" in run("events", "--state", "held")
    assert run.json("approve", ids[0], "--reason", "planned")["state"] == "received"
    assert run.json("reject", ids[1])["state"] == "ignored"
    dry = run.json("reject", "--state", "held", "--dry-run")
    assert (dry["possible"], dry["rejected"]) == (2, 0)
    assert run.json("approve", "--state", "held")["approved"] == 2
    [decision] = run.json("show", ids[0])["decisions"]
    assert (decision["actor"], decision["action"], decision["reason"]) == ("cli:grace", "approve", "planned")
    assert len(run.json("events", "--state", "received")["events"]) == 3


def test_what_needs_a_new_grant_is_listed_and_settled(database: Database, run: Terminal) -> None:
    first, second, third = record(database, *[lost(f"u{n}@acme.example") for n in range(3)])
    plan(database)
    deliver(database)
    with database.write() as connection:
        connection.execute(update(revocations).where(revocations.c.event_id != third).values(needs_regrant=True))
    told = run("events", "--needs-regrant")
    assert third not in told
    assert told.count("2 to be granted again") == 2
    assert [one["id"] for one in run.json("events", "--no-needs-regrant")["events"]] == [third]
    assert "needs a new grant  4" in run("stats")
    assert run.json("regranted", first, "--reason", "back")["state"] == "done"
    dry = run.json("regranted", "--source", "okta", "--dry-run")
    assert (dry["matched"], dry["regranted"]) == (1, 0)
    assert "regranted  1" in run("regranted", "--needs-regrant")
    assert run("events", "--needs-regrant") == "no events\n"
    with pytest.raises(Refused, match="nothing of it needs a new grant"):
        run("regranted", second)


def test_alerts_as_a_table_and_as_json(database: Database, run: Terminal) -> None:
    assert run("alerts") == "no alerts\n"
    with database.write() as connection:
        alerts.raise_alert(connection, "held", "2 events are held", database.now(connection))
    head, line = run("alerts").splitlines()
    assert head.split() == ["SINCE", "ALERT", "TOLD", "WHAT"]
    assert line.endswith("held   not yet  2 events are held")
    [alert] = run.json("alerts")["alerts"]
    assert (alert["key"], alert["told_at"]) == ("held", None)
    assert "alerts          1" in run("stats")


def test_stats_say_nothing_of_what_is_not(database: Database, run: Terminal) -> None:
    told = run("stats")
    assert "paused" not in told
    assert "grant" not in told
    assert "alerts" not in told
    assert "1970" not in run("stats", "--json")


def test_observe_is_said_to_be_why(database: Database, run: Terminal, tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG + "mode: observe\n")
    (event_id,) = record(database, lost())
    plan(database)
    assert "mode is observe: nobody is called" in run("events")
    assert "mode is observe: nobody is called" in run("show", event_id)


def test_explain_reads_a_file_or_standard_input(
    database: Database, run: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hook.json"
    file.write_bytes(payloads.to_bytes(payloads.okta_hook([lost(), lost(group="Design")])))
    text = run("explain", "--source", "okta", str(file))
    assert "would be removed" in text
    assert "would be sent to Velt: remove ada@acme.example from organization acme" in text
    assert "group.name does not match" in text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(payloads.to_bytes(lost()))))
    assert len(run.json("explain", "--source", "okta", "-")["events"]) == 1
    assert run.json("events")["events"] == []

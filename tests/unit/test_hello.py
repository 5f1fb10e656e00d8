"""What `make run` refuses: a relay for trying must not work with a real Velt, database or chat."""

from __future__ import annotations

import subprocess

import pytest

from relay import hello
from relay.__main__ import main
from relay.errors import ConfigError
from relay.settings import load_environment
from tests.processes import ROOT

HERE = {"VELT_BASE_URL": "http://127.0.0.1:8081"}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"VELT_BASE_URL": "http://localhost:8081"},
        {"VELT_BASE_URL": "http://[::1]:8081"},
        {"DATABASE_URL": "postgresql://u:p@127.0.0.1/relay", "RELAY_ALERT_URL": "http://localhost:1/x"},
        {"DATABASE_URL": "postgresql:///relay?host=/run/postgresql"},
    ],
)
def test_this_machine_is_fine(given: dict[str, str]) -> None:
    hello.check(load_environment(HERE | given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"VELT_BASE_URL": "https://api.velt.dev"}, "VELT_BASE_URL leads to api.velt.dev"),
        ({"VELT_BASE_URL": ""}, "VELT_BASE_URL leads to api.velt.dev"),
        ({"DATABASE_URL": "postgresql://u:hunter2@db.acme.com/relay"}, "DATABASE_URL leads to db.acme.com"),
        ({"DATABASE_URL": "postgresql:///relay?host=db.acme.com"}, "DATABASE_URL leads to db.acme.com"),
        ({"RELAY_ALERT_URL": "https://chat.acme.com/hunter2"}, "RELAY_ALERT_URL leads to chat.acme.com"),
    ],
)
def test_what_leads_elsewhere_is_refused_in_one_sentence(given: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        hello.check(load_environment(HERE | given))
    told = str(refused.value)
    assert words in told
    assert told.endswith("run it in a shell without your .env")
    assert len(told.splitlines()) == 1
    assert "hunter2" not in told


def test_the_command_refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VELT_BASE_URL", "https://api.velt.dev")
    assert main(["hello", "--check"]) == 1
    assert "VELT_BASE_URL leads to api.velt.dev" in capsys.readouterr().err
    monkeypatch.setenv("VELT_BASE_URL", HERE["VELT_BASE_URL"])
    assert main(["hello", "--check"]) == 0


def test_make_run_asks_before_it_touches_anything() -> None:
    told = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = [line for line in told.splitlines() if "pip" not in line and "relay" in line]
    assert "relay hello --check" in commands[0]

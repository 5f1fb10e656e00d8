"""Commands in trouble: a relay.yaml that is broken or missing, a database that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.__main__ import main
from relay.errors import Unavailable
from relay.store.database import Database
from tests import postgres
from tests.config_files import write_config
from tests.desk_cases import lost, plan, record
from tests.web_app import ENGINEERING


@pytest.fixture
def database(tmp_path: Path, _sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    path = tmp_path / "relay.db"
    path.write_bytes(_sqlite_template.read_bytes())
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    monkeypatch.setenv("RELAY_CONFIG", str(write_config(tmp_path, ENGINEERING)))
    monkeypatch.setattr("relay.log.configure", lambda level: None)
    return Database(f"sqlite:///{path}")


@pytest.mark.parametrize("broken", ["sources: [", None], ids=["broken", "missing"])
def test_what_works_without_relay_yaml_and_what_does_not(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str | None
) -> None:
    (event_id,) = record(database, lost())
    plan(database)
    if broken is None:
        (tmp_path / "relay.yaml").unlink()
    else:
        write_config(tmp_path, broken)
    for words in (
        ["events"],
        ["show", event_id],
        ["pause"],
        ["stats"],
        ["resume"],
        ["approve", "--state", "held"],
        ["reject", "--state", "held"],
        ["cancel", event_id],
        ["migrate"],
    ):
        assert main(words) == 0, capsys.readouterr().err
    assert "mode unknown (relay.yaml is broken)" in capsys.readouterr().out
    for words in (
        ["retry", event_id],
        ["remove", "eve", "--everything"],
        ["explain", "--source", "okta", "x.json"],
        ["check"],
        ["worker"],
    ):
        assert main(words) == 1
        told = capsys.readouterr().err
        assert f"{tmp_path / 'relay.yaml'}{': line 2, column 1: ' if broken else ' cannot be read'}" in told


def test_a_database_that_cannot_be_used_is_one_sentence_with_its_name_and_what_to_do(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "junk.db").write_bytes(b"no database at all, but a text of some length" * 100)
    migrate = "`python -m relay migrate`"
    for name, words, makes_it in (
        ("gone.db", "there is no file", migrate),
        ("no/folder/gone.db", "there is no file", migrate),
        ("empty.db", "is empty", migrate),
        ("junk.db", "not a database", "(DATABASE_URL)"),
    ):
        monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / name}")
        for command in (["events"], ["show", "evt_1"], ["stats"], ["pause"], ["remove", "eve", "--everything"]):
            assert main(command) == 1
            told = capsys.readouterr().err
            assert str(tmp_path / name) in told
            assert words in told
            assert makes_it in told
            assert len(told.splitlines()) == 1
    assert not (tmp_path / "gone.db").exists()


def test_a_server_is_named_without_its_password(
    database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://relay:hunter2@127.0.0.1:1/acme?options=hunter2")
    for command in ("events", "migrate"):
        assert main([command]) == 1
        told = capsys.readouterr().err
        assert "the database 127.0.0.1/acme (DATABASE_URL) cannot be used" in told
        assert "hunter2" not in told
        assert "python -m relay migrate" not in told  # it makes no server


def test_an_unmigrated_server_says_so(
    database: Database,
    postgres_server: postgres.Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.new_database(migrated=False))
    assert main(["events"]) == 1
    told = capsys.readouterr().err
    assert "the database is empty: run `python -m relay migrate`" in told
    assert "relation" not in told


@pytest.mark.parametrize("name", ["relay.db", "no/folder/relay.db"])
def test_a_worker_that_waits_for_a_file_says_what_makes_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "relay.db").unlink()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / name}")
    for variable in ("OKTA_HOOK_SECRET", "VELT_API_KEY", "VELT_AUTH_TOKEN"):
        monkeypatch.setenv(variable, "x")

    def end(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", end)
    with capture_logs() as told:
        assert main(["worker"]) == 130
    [line] = told
    assert line["event"] == "waiting for the database"
    assert "`python -m relay migrate`" in line["reason"]


def test_what_writes_first_says_what_makes_the_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'folder' / 'relay.db'}")
    with pytest.raises(Unavailable, match="`python -m relay migrate`"), database.write():
        pass


def test_migrate_makes_a_file_for_this_account_only(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "folder" / "relay.db"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{path}")
    assert main(["migrate"]) == 0
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["file/relay.db", "folder"])
def test_migrate_into_a_place_that_cannot_be(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / place}")
    assert main(["migrate"]) == 1
    told = capsys.readouterr().err
    assert f"the database {tmp_path / place} (DATABASE_URL) cannot be used" in told
    assert len(told.splitlines()) == 1

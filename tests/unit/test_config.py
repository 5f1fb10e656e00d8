"""relay.yaml: what a good one says, and what changes without a restart."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from relay import settings
from relay.config import ConfigFile
from relay.errors import ConfigError
from relay.model import Guard
from tests.config_files import FULL, GOOD, write_config

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes relay.yaml and, when given, users.csv; it returns the path of relay.yaml."""
    return partial(write_config, tmp_path)


def test_the_defaults(write: Callable[..., Path]) -> None:
    config = ConfigFile(write(GOOD)).current
    assert (config.mode, config.accounts, config.log_users) == ("enforce", "any", "hashed")
    assert config.velt == settings.VeltOptions(timeout=15, concurrency=32, rate=0, confirm=False)
    assert config.guard is None
    assert config.look_up_patience == 900
    assert config.retention == settings.Retention(events=400 * 86400, payloads=30 * 86400)
    assert config.user_map == {}
    assert set(config.sources) == {"okta", "entra"}


def test_every_key(write: Callable[..., Path]) -> None:
    config = ConfigFile(write(FULL, "idp_id_or_login,velt_user_id\n u1 , v1\n\nu2,v2\n")).current
    assert (config.mode, config.accounts, config.log_users) == ("observe", "same_source", "shown")
    assert config.velt == settings.VeltOptions(timeout=5, concurrency=4, rate=2.5, confirm=True)
    assert config.guard == Guard(users=100, within_seconds=3600, account_losses=False)
    assert config.look_up_patience == 600
    assert config.retention == settings.Retention(events=30 * 86400, payloads=86400)
    assert config.user_map == {"u1": "v1", "u2": "v2"}
    assert config.document["lists"]["same"] == config.document["lists"]["all"]


@pytest.mark.parametrize(("written", "counted"), [("", True), (", account_losses: counted", True)])
def test_account_losses_are_counted_unless_exempt(write: Callable[..., Path], written: str, counted: bool) -> None:
    config = ConfigFile(write(GOOD + f"guard: {{users: 5, within: 1h{written}}}\n")).current
    assert config.guard == Guard(5, 3600, account_losses=counted)


def test_the_version_names_both_files(write: Callable[..., Path]) -> None:
    with_map = GOOD.replace('"{user.id}"]', '"{user.id}"], map: users.csv')
    header = "idp_id_or_login,velt_user_id\n"
    first = ConfigFile(write(with_map, header)).current.version
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert ConfigFile(write(with_map, header)).current.version == first
    assert ConfigFile(write(with_map, header + "a,b\n")).current.version != first
    assert ConfigFile(write(with_map + "# x\n", header)).current.version != first


def test_the_example_stands_and_names_its_variables() -> None:
    config = ConfigFile(ROOT / "relay.example.yaml").current
    assert len(config.user_map) == 2
    assert {problem.path for problem in settings.warnings(config)} == {"sources.okta", "sources.entra", "velt"}


def test_the_commented_lines_of_the_example_stand_too(tmp_path: Path) -> None:
    text = (ROOT / "relay.example.yaml").read_text()
    opened = re.sub(r"(?m)^( *)# ((?:kinds|accounts|velt|log|look_up|reconcile): )", r"\1\2", text)
    assert opened.count("#") == text.count("#") - 6
    (tmp_path / "relay.yaml").write_text(opened)
    (tmp_path / "users.example.csv").write_text("idp_id_or_login,velt_user_id\n")
    config = ConfigFile(tmp_path / "relay.yaml").current
    assert [problem.path for problem in settings.warnings(config)] == ["sources.okta", "sources.entra", "velt"]


def test_nothing_changed_is_not_a_refresh(write: Callable[..., Path]) -> None:
    file = ConfigFile(write(GOOD))
    before = file.current
    assert not file.refresh()
    assert file.current is before


def test_a_changed_file_is_read_again(write: Callable[..., Path]) -> None:
    file = ConfigFile(write(GOOD))
    write(GOOD + "mode: observe\n")
    assert file.refresh()
    assert file.current.mode == "observe"
    assert not file.refresh()


def test_a_broken_file_is_told_once_and_the_old_one_stays(write: Callable[..., Path]) -> None:
    file = ConfigFile(write(GOOD))
    before = file.current
    write(GOOD + "mode: bad\n")
    with pytest.raises(ConfigError, match="mode"):
        file.refresh()
    assert not file.refresh()
    assert file.current is before
    write(GOOD + "mode: observe\n")
    assert file.refresh()
    assert file.current.mode == "observe"


def test_a_file_that_vanished_is_told_once(write: Callable[..., Path]) -> None:
    path = write(GOOD)
    file = ConfigFile(path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        file.refresh()
    assert not file.refresh()
    assert file.current.mode == "enforce"


def test_a_changed_map_counts_and_a_map_that_comes_later_is_seen(write: Callable[..., Path]) -> None:
    file = ConfigFile(write(GOOD))
    with_map = GOOD.replace('"{user.id}"]', '"{user.id}"], map: users.csv')
    path = write(with_map)
    with pytest.raises(ConfigError, match="users"):
        file.refresh()
    assert not file.refresh()
    (path.parent / "users.csv").write_text("idp_id_or_login,velt_user_id\na,b\n")
    assert file.refresh()
    assert file.current.user_map == {"a": "b"}
    (path.parent / "users.csv").write_text("idp_id_or_login,velt_user_id\na,b\nc,d\n")
    assert file.refresh()
    assert file.current.user_map == {"a": "b", "c": "d"}

"""The environment: secrets, tokens and what a process lacks."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from relay import settings
from relay.errors import ConfigError
from tests.config_files import FULL, GOOD, write_config

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes relay.yaml and, when given, users.csv; it returns the path of relay.yaml."""
    return partial(write_config, tmp_path)


def test_a_secret_of_the_environment() -> None:
    secret = settings.Secret("X", {"X": " one , two,, "})
    assert secret.values() == ("one", "two")
    assert secret.text() == "one , two,,"
    assert settings.Secret("Y", {}).values() == ()


def test_a_secret_file_wins_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n")
    secret = settings.Secret("X", {"X": "environment", "X_FILE": str(file)})
    assert secret.values() == ("first",)
    file.write_text("second,first\n")
    assert secret.values() == ("second", "first")
    replacement = tmp_path / "new"
    replacement.write_text("third!,first\n")
    stat = file.stat()
    replacement.replace(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # only the inode tells
    assert secret.values() == ("third!", "first")


def test_a_secret_file_is_not_read_while_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    secret = settings.Secret("X", {"X_FILE": str(file)})
    assert secret.values() == ("first",)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read again"))
    assert secret.values() == ("first",)


def test_a_secret_file_that_was_never_readable_lets_nobody_in_until_it_is(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = settings.Secret("X", {"X": "environment", "X_FILE": str(file)})
    assert secret.values() == ()
    assert secret.why_missing() == f"is to come from {file} (X_FILE), which cannot be read"
    for nothing in ("", " \n", " , \n"):
        file.write_text(nothing)
        assert secret.values() == ()
        assert secret.why_missing() == f"is to come from {file} (X_FILE), which is empty"
    file.write_text("here")
    assert secret.values() == ("here",)


def test_what_a_secret_file_held_stays_while_it_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    secret = settings.Secret("X", {"X_FILE": str(file)})
    assert secret.values() == ("first",)

    def told(change: Callable[[], object]) -> list[str]:
        change()
        with structlog.testing.capture_logs() as lines:
            assert [secret.values() for _ in range(3)] == [("first",)] * 3
        assert all(line["log_level"] == "error" and "first" not in str(line) for line in lines)
        return [line["reason"] for line in lines]

    assert told(lambda: file.write_text("")) == ["the file of X is empty; what it held before stays valid"]
    assert told(file.unlink) == ["the file of X cannot be read; what it held before stays valid"]
    assert told(lambda: file.mkdir()) == ["the file of X cannot be read; what it held before stays valid"]
    file.rmdir()
    file.write_text("second")
    assert secret.values() == ("second",)


def test_secrets_are_never_shown(write: Callable[..., Path]) -> None:
    environ = {
        "RELAY_CONFIG": str(write(GOOD)),
        "DATABASE_URL": "postgresql://relay:hunter2@db.example.com/relay",
        "RELAY_OPS_TOKEN": "hunter2",
        "VELT_API_KEY": "hunter2",
    }
    loaded = settings.load(environ)
    secret = loaded.secret("VELT_API_KEY")
    assert secret.text() == "hunter2"
    assert "hunter2" not in repr([loaded, secret, loaded.tokens()])


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., settings.Settings]:
    """A function that loads settings of a relay.yaml (GOOD) and an environment."""

    def load(text: str = GOOD, **environ: str) -> settings.Settings:
        return settings.load({"RELAY_CONFIG": str(write(text)), **environ})

    return load


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("", "sqlite:///var/relay.db"),
        ("sqlite:///var/other.db", "sqlite:///var/other.db"),
        ("sqlite:////srv/relay.db", "sqlite:////srv/relay.db"),
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql://u:p@h:5433/d?sslmode=require", "postgresql+psycopg://u:p@h:5433/d?sslmode=require"),
        ("postgresql+psycopg:///d?host=/run/pg", "postgresql+psycopg:///d?host=/run/pg"),
    ],
)
def test_database_urls(load: Callable[..., settings.Settings], given: str, normal: str) -> None:
    assert load(DATABASE_URL=given).database_url == normal


def test_defaults_of_the_environment(load: Callable[..., settings.Settings]) -> None:
    loaded = load(VELT_BASE_URL="")
    assert (loaded.velt_base_url, loaded.log_level) == ("https://api.velt.dev", "INFO")
    assert (loaded.port, loaded.web_concurrency) == (8080, 2)
    assert (loaded.alert_url(), loaded.seal_key(), loaded.velt_keys(), loaded.tokens()) == ("", "", ("", ""), [])


def test_values_of_the_environment(load: Callable[..., settings.Settings]) -> None:
    loaded = load(
        VELT_BASE_URL="http://127.0.0.1:9/",
        LOG_LEVEL="debug",
        PORT="5000",
        WEB_CONCURRENCY="4",
        RELAY_ALERT_URL="https://alerts.example.com/x",
        RELAY_SEAL_KEY="k,1",
        VELT_API_KEY=" a ",
        VELT_AUTH_TOKEN="t,t",
    )
    assert (loaded.velt_base_url, loaded.log_level) == ("http://127.0.0.1:9", "DEBUG")
    assert (loaded.port, loaded.web_concurrency) == (5000, 4)
    assert (loaded.alert_url(), loaded.seal_key()) == ("https://alerts.example.com/x", "k,1")
    assert loaded.velt_keys() == ("a", "t,t")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("DATABASE_URL", "sqlite://"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "relay.db"),
        ("VELT_BASE_URL", "api.velt.dev"),
        ("VELT_BASE_URL", "ftp://api.velt.dev"),
        ("VELT_BASE_URL", "https://"),
        ("VELT_BASE_URL", "https://host:port"),
        ("VELT_BASE_URL", "https://[::1"),
        ("VELT_BASE_URL", "https://a b"),
        ("RELAY_ALERT_URL", "mail@example.com"),
        ("LOG_LEVEL", "LOUD"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", "²"),
        ("WEB_CONCURRENCY", "-1"),
    ],
)
def test_mistakes_of_the_environment(load: Callable[..., settings.Settings], name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: value})
    assert [problem.path for problem in caught.value.problems] == [name]
    assert "hunter2" not in str(caught.value)


def test_mistakes_of_the_environment_and_of_the_file_come_together(load: Callable[..., settings.Settings]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(GOOD + "mode: bad\n", PORT="x", LOG_LEVEL="x")
    assert [problem.path for problem in caught.value.problems] == ["mode", "LOG_LEVEL", "PORT"]


def test_the_process_environment_is_the_default(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_CONFIG", str(write(GOOD)))
    monkeypatch.setenv("PORT", "1234")
    assert settings.load().port == 1234


@pytest.mark.parametrize(
    ("text", "name", "secret"),
    [
        ("plain", "operator", "plain"),
        ("kim=plain", "kim", "plain"),
        ("kim = plain", "operator", "kim = plain"),
        ("kim=pad==", "kim", "pad=="),
        ("kim=YWJj=", "kim", "YWJj="),
        ("kim=a=b", "kim", "a=b"),
        ("YW+j=", "operator", "YW+j="),
        ("kim@example.com=x", "kim@example.com", "x"),
        ("a+b/c=d", "operator", "a+b/c=d"),
    ],
)
def test_tokens(load: Callable[..., settings.Settings], text: str, name: str, secret: str) -> None:
    (token,) = load(RELAY_OPS_TOKEN=text).tokens()
    assert (token.name, token.role, token.secret) == (name, "operator", secret)


def test_several_tokens(load: Callable[..., settings.Settings]) -> None:
    tokens = load(RELAY_OPS_TOKEN="kim=a, lee=b", RELAY_VIEWER_TOKEN="c,").tokens()
    assert [(token.name, token.role, token.secret) for token in tokens] == [
        ("kim", "operator", "a"),
        ("lee", "operator", "b"),
        ("viewer", "viewer", "c"),
    ]


@pytest.mark.parametrize(
    ("variable", "text", "shown", "let_in"),
    [
        ("RELAY_OPS_TOKEN", "a=", "a has no token", []),
        ("RELAY_OPS_TOKEN", "a==", "a has no token", []),
        ("RELAY_OPS_TOKEN", "a= ,kim=k", "a has no token", ["k"]),
        ("RELAY_OPS_TOKEN", "=", "= has no token", []),
        ("RELAY_OPS_TOKEN", "bXktc2VjcmV0LXRva2Vu=", "a name (not shown, it may be a token) has no token", []),
        ("RELAY_VIEWER_TOKEN", "eve=", "eve has no token", ["c"]),
    ],
)
def test_a_name_without_a_token_is_a_mistake_and_lets_nobody_in(
    load: Callable[..., settings.Settings], variable: str, text: str, shown: str, let_in: list[str]
) -> None:
    loaded = load(**{**COMPLETE, variable: text})
    [problem] = settings.missing(loaded, "web")
    assert problem.path == variable
    assert problem.message.startswith(f"{shown}; wanted is TOKEN or NAME=TOKEN")
    assert [token.secret for token in loaded.tokens()] == let_in


def test_a_source_secret_follows_the_environment_file_and_the_config(
    load: Callable[..., settings.Settings], write: Callable[..., Path], tmp_path: Path
) -> None:
    file = tmp_path / "hook"
    file.write_text("one")
    loaded = load(OKTA_HOOK_SECRET_FILE=str(file), OTHER="three")
    secret = loaded.source_secret("okta")
    assert secret() == ("one",)
    file.write_text("two,one")
    assert secret() == ("two", "one")
    write(GOOD.replace("OKTA_HOOK_SECRET", "OTHER"))
    assert loaded.config_file.refresh()
    assert secret() == ("two", "one"), "what was asked for with the old relay.yaml keeps its variable"
    assert loaded.source_secret("okta")() == ("three",)
    assert loaded.secret_variable("okta") == "OTHER"
    assert loaded.source_secret("entra")() == ()
    assert loaded.source_secret("no-such")() == ()


def test_api_secrets(load: Callable[..., settings.Settings], write: Callable[..., Path]) -> None:
    write(FULL, "idp_id_or_login,velt_user_id\n")
    loaded = load(FULL, A="a", B="b", C="c", D="d", E="e")
    assert [loaded.source_secret(name)() for name in ("okta", "entra", "scim")] == [("a",), ("c",), ("e",)]
    assert [loaded.api_secret(name)() for name in ("okta", "entra", "scim")] == ["b", "d", ""]


COMPLETE = {
    "OKTA_HOOK_SECRET": "a",
    "ENTRA_CLIENT_STATE": "b",
    "RELAY_OPS_TOKEN": "c",
    "VELT_API_KEY": "d",
    "VELT_AUTH_TOKEN": "e",
}


@pytest.mark.parametrize("role", ["web", "worker"])
def test_nothing_is_missing(load: Callable[..., settings.Settings], role: Any) -> None:
    assert settings.missing(load(**COMPLETE), role) == []


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("OKTA_HOOK_SECRET", "web"),
        ("ENTRA_CLIENT_STATE", "web"),
        ("RELAY_OPS_TOKEN", "web"),
        ("VELT_API_KEY", "worker"),
        ("VELT_AUTH_TOKEN", "worker"),
    ],
)
@pytest.mark.parametrize("value", ["", " , "])
def test_each_missing_thing_is_one_sentence(
    load: Callable[..., settings.Settings], name: str, role: Any, value: str
) -> None:
    loaded = load(**{**COMPLETE, name: value})
    (problem,) = settings.missing(loaded, role)
    assert problem.path == name
    assert f"the {role} process needs it" in problem.message
    other: Any = "worker" if role == "web" else "web"
    assert settings.missing(loaded, other) == []


def test_observing_needs_no_velt_keys(load: Callable[..., settings.Settings]) -> None:
    assert settings.missing(load(GOOD + "mode: observe\n"), "worker") == []


def test_api_credentials_are_the_workers_need(
    load: Callable[..., settings.Settings], write: Callable[..., Path]
) -> None:
    write(FULL, "idp_id_or_login,velt_user_id\n")
    loaded = load(FULL, A="a", C="c", E="e", RELAY_OPS_TOKEN="o")
    assert settings.missing(loaded, "web") == []
    assert [problem.path for problem in settings.missing(loaded, "worker")] == ["B", "D"]


def test_the_worker_makes_subscriptions_with_the_hooks_secret(
    load: Callable[..., settings.Settings], write: Callable[..., Path]
) -> None:
    write(FULL, "idp_id_or_login,velt_user_id\n")
    (problem,) = settings.missing(load(FULL, B="b", D="d"), "worker")
    assert problem.path == "C"
    assert "Graph subscriptions of the source entra" in problem.message


def test_a_certificate_is_taken_whole(load: Callable[..., settings.Settings]) -> None:
    given = GOOD.replace(
        "{env: ENTRA_CLIENT_STATE}", "{env: A}, graph: {tenant: t, client_id: c, certificate: {env: P}}"
    )
    pem = "subject=O=Acme, CN=relay\n-----BEGIN"
    assert load(given, P=pem).api_secret("entra")() == pem


def test_an_unreadable_secret_file_is_named(load: Callable[..., settings.Settings]) -> None:
    loaded = load(**COMPLETE, RELAY_OPS_TOKEN_FILE="/nowhere/token")
    (problem,) = settings.missing(loaded, "web")
    assert "/nowhere/token (RELAY_OPS_TOKEN_FILE), which cannot be read" in problem.message


def test_a_viewer_must_not_hold_an_operators_token(load: Callable[..., settings.Settings]) -> None:
    (problem,) = settings.missing(load(**COMPLETE, RELAY_VIEWER_TOKEN="eve=c"), "web")
    assert (problem.path, "eve" in problem.message) == ("RELAY_VIEWER_TOKEN", True)


@pytest.mark.parametrize(
    ("tokens", "path", "words"),
    [
        ({"RELAY_OPS_TOKEN": "kim=c,lee=c"}, "RELAY_OPS_TOKEN", "kim and lee have the same token"),
        ({"RELAY_VIEWER_TOKEN": "kim=v,lee=v"}, "RELAY_VIEWER_TOKEN", "kim and lee have the same token"),
        ({"RELAY_OPS_TOKEN": "kim=c,c"}, "RELAY_OPS_TOKEN", "kim and operator have the same token"),
    ],
)
def test_one_token_is_one_persons(
    load: Callable[..., settings.Settings], tokens: dict[str, str], path: str, words: str
) -> None:
    (problem,) = settings.missing(load(**{**COMPLETE, **tokens}), "web")
    assert problem.path == path
    assert words in problem.message


def test_the_same_token_of_the_same_person_twice_is_no_mistake(load: Callable[..., settings.Settings]) -> None:
    assert settings.missing(load(**{**COMPLETE, "RELAY_OPS_TOKEN": "kim=c,kim=c,lee=d"}), "web") == []


def test_short_secrets_are_told_by_name_and_never_shown(load: Callable[..., settings.Settings]) -> None:
    long = "x" * 16
    weak = {**COMPLETE, "RELAY_OPS_TOKEN": f"a-long-name-before-a-token={long[1:]}", "RELAY_VIEWER_TOKEN": long}
    found = settings.weak_secrets(load(**{**weak, "OKTA_HOOK_SECRET": long, "ENTRA_CLIENT_STATE": f"{long}, short"}))
    assert [problem.path for problem in found] == ["ENTRA_CLIENT_STATE", "RELAY_OPS_TOKEN"]
    assert not any(long[1:] in str(problem) or "short," in str(problem) for problem in found)


def test_the_environment_alone_needs_no_relay_yaml() -> None:
    loaded = settings.load_environment({"RELAY_CONFIG": "/nowhere.yaml", "DATABASE_URL": "postgres://h/d"})
    assert loaded.database_url == "postgresql+psycopg://h/d"
    with pytest.raises(ConfigError, match="PORT"):
        settings.load_environment({"PORT": "x"})


def test_env_example_works_when_it_is_copied_and_its_needed_lines_are_filled_in() -> None:
    text = (ROOT / ".env.example").read_text()
    needed = re.findall(r"^# Needed.*\n([A-Z_]+)=$", text, re.MULTILINE)
    loading = ["sh", "-c", "set -a; . ./.env.example; set +a; env"]
    given = subprocess.run(loading, cwd=ROOT, env={}, capture_output=True, text=True, check=True).stdout
    environ = dict(line.split("=", 1) for line in given.splitlines())
    environ["RELAY_CONFIG"] = str(ROOT / environ["RELAY_CONFIG"])
    loaded = settings.load(environ)
    lacking = [*settings.missing(loaded, "web"), *settings.missing(loaded, "worker")]
    assert {problem.path for problem in lacking} == set(needed)
    whole = settings.load({**environ, **{name: f"{name}-of-sixteen" for name in needed}})
    assert settings.missing(whole, "web") + settings.missing(whole, "worker") + settings.weak_secrets(whole) == []


def test_env_example_lists_every_variable_with_a_sentence() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    listed = {
        line.split("=")[0]: lines[index - 1] for index, line in enumerate(lines) if "=" in line and line[0] != "#"
    }
    assert all(comment.startswith("# ") and comment.endswith((".", ").")) for comment in listed.values())
    source = (ROOT / "relay" / "settings.py").read_text()
    read = set(re.findall(r'"([A-Z][A-Z_]*_[A-Z_]+|PORT)"', source))
    named = set(re.findall(r"\{env: ([A-Z_]+)\}", (ROOT / "relay.example.yaml").read_text()))
    assert (read | named) - {"NAME"} <= set(listed)
    assert len(read) >= 10

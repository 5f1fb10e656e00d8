"""The environment and relay.yaml as Settings; the only reader of os.environ.

Every secret X may come from a file named in X_FILE, which wins and is read again when it changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from relay import config_checks
from relay.config import Config, ConfigFile, Guard, Retention, VeltOptions, stamp
from relay.errors import ConfigError, Problem

__all__ = [
    "Config",
    "ConfigFile",
    "Guard",
    "Retention",
    "Secret",
    "Settings",
    "Token",
    "VeltOptions",
    "load",
    "missing",
    "warnings",
]

Role = Literal["operator", "viewer"]
Process = Literal["web", "worker"]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PSYCOPG = "postgresql+psycopg://"

# under which key of its source a secret is named: what the provider proves itself with, and what the relay does
HOOK_SECRETS = {"okta": ("secret",), "entra": ("client_state",), "scim": ("token",)}
API_SECRETS = {"okta": ("api", "token"), "entra": ("graph", "client_secret")}

_NAMED_TOKEN = re.compile(r"([A-Za-z0-9_.@-]{1,64})=(.*[^=].*)")


@dataclass(frozen=True)
class Secret:
    """A secret of the environment, or of the file that NAME_FILE names; never shown by repr."""

    name: str
    environ: Mapping[str, str] = field(repr=False)
    _kept: dict[Hashable, str] = field(default_factory=dict, repr=False, compare=False)

    def text(self) -> str:
        """The whole secret, stripped; "" when it is not set or its file cannot be read."""
        file = self.environ.get(f"{self.name}_FILE")
        return self._file_text(Path(file)) if file else self.environ.get(self.name, "").strip()

    def values(self) -> tuple[str, ...]:
        """The secrets that are valid now: two, comma-separated, while one takes over from the other."""
        return tuple(part.strip() for part in self.text().split(",") if part.strip())

    def unreadable_file(self) -> str | None:
        """The path in NAME_FILE when that file cannot be read."""
        file = self.environ.get(f"{self.name}_FILE")
        return file if file and self._read(Path(file)) is None else None

    def _file_text(self, path: Path) -> str:
        seen = (path, stamp(path))
        text = self._kept.get(seen)
        if text is None:
            text = self._read(path)
            if text is None:
                return ""
            self._kept.clear()
            self._kept[seen] = text
        return text

    @staticmethod
    def _read(path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Token:
    """Who may use the API and the dashboard; `name` is who did it in the evidence."""

    name: str
    role: Role
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Settings:
    """What a process needs to know; secrets are asked for when they are needed, because their files change."""

    database_url: str = field(repr=False)  # holds PostgreSQL's password
    config_file: ConfigFile
    velt_base_url: str
    log_level: str
    port: int
    web_concurrency: int
    environ: Mapping[str, str] = field(repr=False)
    _secrets: dict[str, Secret] = field(default_factory=dict, repr=False)

    def secret(self, name: str) -> Secret:
        """The secret of this name in the environment; the same object each time, so that its file is kept."""
        return self._secrets.setdefault(name, Secret(name, self.environ))

    def velt_keys(self) -> tuple[str, str]:
        """Velt's API key and auth token as they are now, "" where one is not set."""
        return self.secret("VELT_API_KEY").text(), self.secret("VELT_AUTH_TOKEN").text()

    def tokens(self) -> list[Token]:
        """Every token of RELAY_OPS_TOKEN and RELAY_VIEWER_TOKEN."""
        operators = [_token(text, "operator") for text in self.secret("RELAY_OPS_TOKEN").values()]
        return operators + [_token(text, "viewer") for text in self.secret("RELAY_VIEWER_TOKEN").values()]

    def source_secret(self, source: str) -> Callable[[], tuple[str, ...]]:
        """A function that gives the secrets with which this source's provider may come now; () lets nobody in."""
        return lambda: self._values(source, HOOK_SECRETS)

    def api_secret(self, source: str) -> Callable[[], str]:
        """A function that gives the credential for asking this source's provider, "" without one."""
        return lambda: next(iter(self._values(source, API_SECRETS)), "")

    def alert_url(self) -> str:
        """Where alerts are posted, "" for nowhere."""
        return self.secret("RELAY_ALERT_URL").text()

    def seal_key(self) -> str:
        """What signs the evidence, "" for nothing."""
        return self.secret("RELAY_SEAL_KEY").text()

    def _values(self, source: str, table: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        variable = _variable(self.config_file.current.sources.get(source, {}), table)
        return self.secret(variable).values() if variable else ()


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigError with every mistake of the environment and of relay.yaml."""
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    try:
        config_file = ConfigFile(Path(environ.get("RELAY_CONFIG") or "relay.yaml"))
    except ConfigError as error:
        problems += error.problems
    database_url = _database_url(Secret("DATABASE_URL", environ).text() or "sqlite:///var/relay.db", problems)
    velt_base_url = _url(environ.get("VELT_BASE_URL") or "https://api.velt.dev", "VELT_BASE_URL", problems)
    log_level = _log_level(environ.get("LOG_LEVEL") or "INFO", problems)
    port = _whole_number(environ.get("PORT") or "8080", "PORT", 65535, problems)
    concurrency = _whole_number(environ.get("WEB_CONCURRENCY") or "2", "WEB_CONCURRENCY", 1000, problems)
    alert_url = Secret("RELAY_ALERT_URL", environ).text()
    if alert_url:
        _url(alert_url, "RELAY_ALERT_URL", problems)
    if problems:
        raise ConfigError(problems)
    return Settings(database_url, config_file, velt_base_url, log_level, port, concurrency, environ)


def missing(settings: Settings, role: Process) -> list[Problem]:
    """One sentence for each thing that a web or worker process cannot do without and does not have."""
    sources = settings.config_file.current.sources
    if role == "web":
        wanted = {_variable(source, HOOK_SECRETS): f"the source {name}" for name, source in sources.items()}
        wanted["RELAY_OPS_TOKEN"] = "the operators' API and dashboard"  # noqa: S105 (a sentence)
        return _not_set(settings, wanted, role) + _shared_tokens(settings.tokens())
    wanted = {_variable(source, API_SECRETS): f"look-ups of the source {name}" for name, source in sources.items()}
    if settings.config_file.current.mode == "enforce":
        wanted["VELT_API_KEY"] = wanted["VELT_AUTH_TOKEN"] = "calls to Velt (mode: observe does without)"  # noqa: S105
    return _not_set(settings, wanted, role)


def warnings(config: Config) -> list[Problem]:
    """What relay.yaml may say and its writer will probably regret."""
    return config_checks.with_rule_names(config_checks.warnings(config.document), config.document)


def _not_set(settings: Settings, wanted: Mapping[str | None, str], role: Process) -> list[Problem]:
    found = []
    for name, purpose in wanted.items():
        if name is None or settings.secret(name).values():
            continue
        file = settings.secret(name).unreadable_file()
        what = f"is to come from {file} ({name}_FILE), which cannot be read" if file else "is not set or empty"
        found.append(Problem(name, f"{what}; the {role} process needs it for {purpose}"))
    return found


def _shared_tokens(tokens: list[Token]) -> list[Problem]:
    operators = {token.secret for token in tokens if token.role == "operator"}
    return [
        Problem("RELAY_VIEWER_TOKEN", f"the token of {token.name} is an operator's too; a viewer would be an operator")
        for token in tokens
        if token.role == "viewer" and token.secret in operators
    ]


def _variable(source: Mapping[str, object], table: Mapping[str, tuple[str, ...]]) -> str | None:
    """The name of the environment variable at this place of a source, None where the source has no such place."""
    place: object = source
    for key in (*table.get(str(source.get("type")), ("env",)), "env"):
        place = place.get(key) if isinstance(place, Mapping) else None
    return place if isinstance(place, str) else None


def _token(text: str, role: Role) -> Token:
    # base64 may end in "=": a name is only what stands before more than that
    named = _NAMED_TOKEN.fullmatch(text)
    return Token(named[1], role, named[2].strip()) if named else Token(role, role, text)


def _database_url(text: str, problems: list[Problem]) -> str:
    scheme, _, rest = text.partition("://")
    if scheme in ("postgres", "postgresql", "postgresql+psycopg") and rest:
        return PSYCOPG + rest
    memory = rest in ("", "/") or ":memory:" in rest
    if scheme != "sqlite" or not rest.startswith("/") or memory:
        problems.append(
            Problem("DATABASE_URL", "wanted is sqlite:///PATH (a file) or postgresql://USER:PASSWORD@HOST/DATABASE")
        )
    return text


def _url(text: str, name: str, problems: list[Problem]) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not text.isprintable() or " " in text:
        problems.append(Problem(name, "wanted is an address such as https://example.com"))
    return text.rstrip("/")


def _log_level(text: str, problems: list[Problem]) -> str:
    level = text.strip().upper()
    if level not in LOG_LEVELS:
        problems.append(Problem("LOG_LEVEL", f"found {text!r}; wanted is one of {', '.join(LOG_LEVELS)}"))
    return level


def _whole_number(text: str, name: str, most: int, problems: list[Problem]) -> int:
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text.strip()) else 0
    if not 1 <= number <= most:
        problems.append(Problem(name, f"found {text!r}; wanted is a whole number from 1 to {most}"))
    return number

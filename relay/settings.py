"""The environment and relay.yaml as Settings; the only reader of os.environ.

Every secret X may come from a file named in X_FILE, which wins and is read again when it changes. A file that is gone,
unreadable or empty for a moment, as while somebody replaces it, changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from relay import config_checks, log
from relay.config import Config, ConfigFile, Retention, VeltOptions, stamp
from relay.errors import ConfigError, Problem

__all__ = [
    "Config",
    "ConfigFile",
    "Environment",
    "Retention",
    "Secret",
    "Settings",
    "Token",
    "VeltOptions",
    "load",
    "load_environment",
    "missing",
    "warnings",
    "weak_secrets",
]

Role = Literal["operator", "viewer"]
Process = Literal["web", "worker", "reconcile", "audit"]

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PSYCOPG = "postgresql+psycopg://"

#: Under which keys of a source a secret is named, by the source's type; the first that is there counts.
Places = Mapping[str, tuple[tuple[str, ...], ...]]
# what the provider proves itself with, and what the relay does
HOOK_SECRETS: Places = {"okta": (("secret",),), "entra": (("client_state",),), "scim": (("token",),)}
API_SECRETS: Places = {
    "okta": (("api", "token"), ("api", "private_key")),
    "entra": (("graph", "client_secret"), ("graph", "certificate")),
}

TOKENS: Mapping[str, Role] = {"RELAY_OPS_TOKEN": "operator", "RELAY_VIEWER_TOKEN": "viewer"}

#: Characters below which a token or a hook's secret can be guessed.
SHORTEST_SECRET = 16

_NAMED_TOKEN = re.compile(r"([A-Za-z0-9_.@-]{1,64})=(.*)", re.DOTALL)


class _SecretFile:
    """The file of a secret. What it last held stays while it cannot be read or is empty; each change is logged once."""

    def __init__(self, name: str, path: Path) -> None:
        self.path = path
        self._name = name
        self._text = ""
        self._seen: Hashable = None
        self._told: tuple[str, Hashable] | None = None

    def text(self) -> str:
        """What the file holds, stripped; "" when it never held anything that could be read."""
        seen = stamp(self.path)
        if seen is None or seen != self._seen:
            self._tell(self._read(seen), seen)
        return self._text

    def trouble(self) -> str:
        """What is wrong with a file that never held anything."""
        return self._read(None) or "holds nothing"

    def _read(self, seen: Hashable) -> str:
        """Take over what the file holds; return what is wrong when there is nothing to take."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="surrogateescape").strip()
        except (OSError, ValueError):
            return "cannot be read"
        if not text.strip(", "):
            return "is empty"
        self._text, self._seen, self._told = text, seen, None
        return ""

    def _tell(self, trouble: str, seen: Hashable) -> None:
        if trouble and self._text and self._told != (trouble, seen):
            self._told = (trouble, seen)
            told = f"the file of {self._name} {trouble}; what it held before stays valid"
            log.get(file=str(self.path)).error("secret not read", reason=told)


@dataclass(frozen=True)
class Secret:
    """A secret of the environment, or of the file that NAME_FILE names; never shown by repr."""

    name: str
    environ: Mapping[str, str] = field(repr=False)
    _files: dict[str, _SecretFile] = field(default_factory=dict, repr=False, compare=False)

    def text(self) -> str:
        """The whole secret, stripped; "" when it is not set or its file was never readable."""
        file = self._file()
        return file.text() if file else self.environ.get(self.name, "").strip()

    def values(self) -> tuple[str, ...]:
        """The secrets that are valid now: two, comma-separated, while one takes over from the other."""
        return tuple(part.strip() for part in self.text().split(",") if part.strip())

    def why_missing(self) -> str:
        """Why there is no value, as the end of a sentence that begins with the name."""
        file = self._file()
        if file is None:
            return "is not set or empty"
        return f"is to come from {file.path} ({self.name}_FILE), which {file.trouble()}"

    def _file(self) -> _SecretFile | None:
        path = self.environ.get(f"{self.name}_FILE")
        return self._files.setdefault(path, _SecretFile(self.name, Path(path))) if path else None


@dataclass(frozen=True)
class Token:
    """Who may use the API; `name` is who did it in the evidence."""

    name: str
    role: Role
    secret: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a command needs that works without relay.yaml; secrets are asked for when needed, as their files change."""

    database_url: str = field(repr=False)  # holds PostgreSQL's password
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
        """Every token of RELAY_OPS_TOKEN and RELAY_VIEWER_TOKEN; a name without a token lets nobody in."""
        found = (_token(text, role) for name, role in TOKENS.items() for text in self.secret(name).values())
        return [token for token in found if token.secret]

    def alert_url(self) -> str:
        """Where alerts are posted, "" for nowhere."""
        return self.secret("RELAY_ALERT_URL").text()

    def seal_key(self) -> str:
        """What signs the evidence, "" for nothing."""
        return self.secret("RELAY_SEAL_KEY").text()


@dataclass(frozen=True, kw_only=True)
class Settings(Environment):
    """What a process needs to know: the environment and relay.yaml."""

    config_file: ConfigFile

    def source_secret(self, source: str) -> Callable[[], tuple[str, ...]]:
        """A function that gives the secrets with which this source's provider may come now; () lets nobody in.

        The variable is the one that relay.yaml names now; ask again when relay.yaml has changed.
        """
        return self._values(self.secret_variable(source))

    def secret_variable(self, source: str) -> str | None:
        """The variable of the environment that holds this source's secret, None where there is no such source."""
        return _variable(self.config_file.current.sources.get(source, {}), HOOK_SECRETS)

    def api_secret(self, source: str) -> Callable[[], str]:
        """A function that gives the credential for asking this source's provider, "" without one."""
        variable = _variable(self.config_file.current.sources.get(source, {}), API_SECRETS)
        # whole: there is one at a time, and the text around a PEM may hold commas
        return self.secret(variable).text if variable else str

    def _values(self, variable: str | None) -> Callable[[], tuple[str, ...]]:
        return self.secret(variable).values if variable else tuple


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigError with every mistake of the environment and of relay.yaml."""
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    try:
        config_file = ConfigFile(Path(environ.get("RELAY_CONFIG") or "relay.yaml"))
    except ConfigError as error:
        problems += error.problems
    values = _values_of(environ, problems)
    if problems:
        raise ConfigError(problems)
    return Settings(**values, config_file=config_file)


def load_environment(environ: Mapping[str, str] | None = None) -> Environment:
    """The settings without relay.yaml, which may be broken or missing. Raises ConfigError."""
    problems: list[Problem] = []
    values = _values_of(os.environ if environ is None else environ, problems)
    if problems:
        raise ConfigError(problems)
    return Environment(**values)


def _values_of(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    """The fields of Environment; what is wrong with them is added to the problems."""
    values = {
        "database_url": _database_url(Secret("DATABASE_URL", environ).text() or "sqlite:///var/relay.db", problems),
        "velt_base_url": _url(environ.get("VELT_BASE_URL") or "https://api.velt.dev", "VELT_BASE_URL", problems),
        "log_level": _log_level(environ.get("LOG_LEVEL") or "INFO", problems),
        "port": _whole_number(environ.get("PORT") or "8080", "PORT", 65535, problems),
        "web_concurrency": _whole_number(environ.get("WEB_CONCURRENCY") or "2", "WEB_CONCURRENCY", 1000, problems),
        "environ": environ,
    }
    alert_url = Secret("RELAY_ALERT_URL", environ).text()
    if alert_url:
        _url(alert_url, "RELAY_ALERT_URL", problems)
    return values


def missing(settings: Settings, role: Process) -> list[Problem]:
    """One sentence for each thing that a process of this kind cannot do without and does not have."""
    sources = settings.config_file.current.sources
    if role == "web":
        wanted = {_variable(source, HOOK_SECRETS): f"the source {name}" for name, source in sources.items()}
        wanted["RELAY_OPS_TOKEN"] = "the operators' API"  # noqa: S105 (a sentence)
        return _not_set(settings, wanted, role) + _names_without_token(settings) + _shared_tokens(settings)
    wanted = {_variable(source, API_SECRETS): f"look-ups of the source {name}" for name, source in sources.items()}
    if role == "audit":
        wanted["VELT_API_KEY"] = wanted["VELT_AUTH_TOKEN"] = "asking Velt who has access"  # noqa: S105
    if role in ("reconcile", "audit"):
        return _not_set(settings, wanted, role)
    wanted |= {
        _variable(source, HOOK_SECRETS): f"the Graph subscriptions of the source {name}"
        for name, source in sources.items()
        if "public_url" in source
    }
    if settings.config_file.current.mode == "enforce":
        wanted["VELT_API_KEY"] = wanted["VELT_AUTH_TOKEN"] = "calls to Velt (mode: observe does without)"  # noqa: S105
    return _not_set(settings, wanted, role)


def weak_secrets(settings: Settings) -> list[Problem]:
    """A sentence for each variable with a token or a hook's secret that is short enough to be guessed."""
    given = {name: settings.secret(name).values() for name in map(settings.secret_variable, _sources(settings)) if name}
    for name, role in TOKENS.items():
        given[name] = tuple(token.secret for token in settings.tokens() if token.role == role)
    told = (
        f"has a value of less than {SHORTEST_SECRET} characters, which can be guessed; `openssl rand -hex 32` makes one"
    )
    return [Problem(name, told) for name, values in given.items() if any(len(v) < SHORTEST_SECRET for v in values)]


def warnings(config: Config) -> list[Problem]:
    """What relay.yaml may say and its writer will probably regret."""
    return config_checks.with_rule_names(config_checks.warnings(config.document), config.document)


def _sources(settings: Settings) -> Iterable[str]:
    return settings.config_file.current.sources


def _not_set(settings: Settings, wanted: Mapping[str | None, str], role: Process) -> list[Problem]:
    who = f"the {role} process" if role in ("web", "worker") else f"`python -m relay {role}`"
    return [
        Problem(name, f"{settings.secret(name).why_missing()}; {who} needs it for {purpose}")
        for name, purpose in wanted.items()
        if name is not None and not settings.secret(name).values()
    ]


def _names_without_token(settings: Settings) -> list[Problem]:
    """A sentence for each `name=` with nothing after it, as `ada=$TOKEN` gives where TOKEN is not set."""
    right = "wanted is TOKEN or NAME=TOKEN, and a token that ends in = needs a name before it"
    return [
        Problem(variable, f"{_shown_name(text)} has no token; {right}")
        for variable, role in TOKENS.items()
        for text in settings.secret(variable).values()
        if not _token(text, role).secret
    ]


def _shown_name(text: str) -> str:
    """The name in `name=`; only where it is too short to be somebody's token."""
    name = text.rstrip("= ")
    return (name or "=") if len(name) < SHORTEST_SECRET else "a name (not shown, it may be a token)"


def _shared_tokens(settings: Settings) -> list[Problem]:
    """A sentence for each token that two people have: the evidence could not say which of them did it."""
    found = []
    first: dict[str, Token] = {}
    variables = {role: name for name, role in TOKENS.items()}
    for token in settings.tokens():
        other = first.setdefault(token.secret, token)
        if other.role != token.role:
            told = f"the token of {token.name} is an operator's too; a viewer would be an operator"
            found.append(Problem(variables[token.role], told))
        elif other.name != token.name:
            told = f"{other.name} and {token.name} have the same token; the evidence could not tell them apart"
            found.append(Problem(variables[token.role], told))
    return found


def _variable(source: Mapping[str, object], table: Places) -> str | None:
    """The name of the environment variable at this place of a source, None where the source has no such place."""
    for keys in table.get(str(source.get("type")), ()):
        place: object = source
        for key in (*keys, "env"):
            place = place.get(key) if isinstance(place, Mapping) else None
        if isinstance(place, str):
            return place
    return None


def _token(text: str, role: Role) -> Token:
    """What stands before the first `=` is the name where it looks like one; the secret is "" where there is none."""
    named = _NAMED_TOKEN.fullmatch(text)
    name, secret = (named[1], named[2].strip()) if named else (role, text)
    return Token(name, role, secret if secret.strip("= ") else "")


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

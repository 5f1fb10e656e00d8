"""relay.yaml and its identity map: read, checked, and read again when they change."""

from __future__ import annotations

import csv
import hashlib
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from relay import config_checks, contracts
from relay.errors import ConfigError, Problem
from relay.model import Guard

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAP_HEADER = ["idp_id_or_login", "velt_user_id"]

# libyaml reads about ten times faster; wheels for rare platforms come without it
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class VeltOptions:
    """`timeout` in seconds for a whole call; `rate` in calls a second, 0 = no limit; both for one worker."""

    timeout: float
    concurrency: int
    rate: float
    confirm: bool


@dataclass(frozen=True, slots=True)
class Retention:
    """How long, in seconds, events and what was sent are kept."""

    events: float
    payloads: float


@dataclass(frozen=True)
class Config:
    """A valid relay.yaml with its identity map; `version` is the first 12 hex digits of a SHA-256 over both files."""

    path: Path
    document: Mapping[str, Any]
    version: str
    user_map: Mapping[str, str]

    @property
    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        sources: Mapping[str, Mapping[str, Any]] = self.document["sources"]
        return sources

    @property
    def mode(self) -> str:
        """`enforce` or `observe`."""
        return str(self.document.get("mode", "enforce"))

    @property
    def accounts(self) -> str:
        """`any` or `same_source`."""
        return str(self.document.get("accounts", "any"))

    @property
    def log_users(self) -> str:
        """`hashed` or `shown`."""
        return str(self.document.get("log", {}).get("users", "hashed"))

    @property
    def velt(self) -> VeltOptions:
        velt = self.document.get("velt", {})
        return VeltOptions(
            timeout=duration(velt.get("timeout", "15s")),
            concurrency=velt.get("concurrency", 32),
            rate=velt.get("rate", 0),
            confirm=velt.get("confirm", False),
        )

    @property
    def guard(self) -> Guard | None:
        guard = self.document.get("guard")
        if not guard:
            return None
        counted = guard.get("account_losses", "counted") == "counted"
        return Guard(guard["users"], duration(guard["within"]), counted)

    @property
    def look_up_patience(self) -> float:
        """Seconds that failing look-ups may hold an event."""
        return duration(self.document.get("look_up", {}).get("patience", "15m"))

    @property
    def reconcile_every(self) -> float:
        """Seconds from one reading of what messages missed to the next."""
        return duration(self.document.get("reconcile", {}).get("every", "10m"))

    @property
    def retention(self) -> Retention:
        retention = self.document.get("retention", {})
        return Retention(duration(retention.get("events", "400d")), duration(retention.get("payloads", "30d")))


class ConfigFile:
    """relay.yaml as it is now. A broken change is told once and the last good configuration stays."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError with every mistake."""
        self.path = path
        self._lock = threading.Lock()
        self._seen: dict[Path, Hashable] = {}
        self._current = self._read()

    @property
    def current(self) -> Config:
        return self._current

    def refresh(self) -> bool:
        """Whether there is a new configuration; two stat calls when there is none. Raises ConfigError once a change."""
        with self._lock:
            if all(stamp(path) == seen for path, seen in self._seen.items()):
                return False
            self._current = self._read()
            return True

    def _read(self) -> Config:
        # each stamp is taken before its file is read: a change in between is seen at the next refresh
        self._seen = {self.path: stamp(self.path)}
        content = _bytes_of(self.path, "", "RELAY_CONFIG names the file")
        with _naming(self.path):
            document = parse_yaml(content)
            problems = contracts.problems("config", document) or config_checks.problems(document)
            if problems:
                raise ConfigError(config_checks.with_rule_names(problems, document))
        user_map: Mapping[str, str] = {}
        if "map" in document["identity"]:
            map_path = self.path.parent / document["identity"]["map"]
            self._seen[map_path] = stamp(map_path)
            map_content = _bytes_of(map_path, "identity.map", "it is looked for beside relay.yaml")
            user_map = parse_map(map_content)
            content += map_content
        return Config(self.path, document, hashlib.sha256(content).hexdigest()[:12], user_map)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have a mistake that has no place of its own in the file name the file."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            problem if problem.path else Problem("", f"{path}: {problem.message}") for problem in error.problems
        ) from None


def stamp(path: Path) -> Hashable:
    """What changes when the file does; None while it cannot be reached."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def duration(text: str) -> float:
    """The seconds of a checked duration such as `15m`."""
    return float(int(text[:-1]) * UNITS[text[-1]])


def parse_yaml(content: bytes) -> dict[str, Any]:
    """The mapping that a YAML text holds. Raises ConfigError with the line of the mistake."""
    try:
        document = yaml.load(_text_of(content, ""), _Loader)  # noqa: S506 (a safe loader, with two checks more)
    except yaml.MarkedYAMLError as error:
        raise _mistake(_where(error) + _without_tabs(error, content)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _mistake(
            f"is not readable as YAML: {error}; a text that looks like a date or number needs quotes"
        ) from None
    if document is None:
        raise _mistake("is empty; relay.example.yaml shows what belongs here")
    if not isinstance(document, dict):
        raise _mistake(
            f"found {contracts.show(document)}; wanted is a mapping with the keys sources, identity and rules"
        )
    return document


def parse_map(content: bytes) -> dict[str, str]:
    """IdP id or login -> Velt user id, of a CSV text with a header. Raises ConfigError with every bad line."""
    reader = csv.reader(_text_of(content, "identity.map").splitlines())
    problems: list[Problem] = []
    found: dict[str, str] = {}
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if header != MAP_HEADER:
            shown = contracts.printable(",".join(header))
            raise _mistake(f"its first line is {shown!r}; wanted is {','.join(MAP_HEADER)}", "identity.map")
        for row in reader:
            cells = [cell.strip() for cell in row]
            sentence = _map_mistake(cells, found)
            if sentence:
                problems.append(Problem("identity.map", f"line {reader.line_num}: {sentence}"))
            elif cells:
                found[cells[0]] = cells[1]
    except csv.Error as error:
        raise _mistake(f"line {reader.line_num}: {error}", "identity.map") from None
    if problems:
        raise ConfigError(problems)
    return found


def _map_mistake(cells: list[str], found: Mapping[str, str]) -> str | None:
    if not cells:
        return None
    if len(cells) != len(MAP_HEADER):
        return f"found {len(cells)} values; wanted are two, {','.join(MAP_HEADER)}"
    if not all(cells):
        return "a value is empty; wanted are two"
    if cells[0] in found:
        return f"{contracts.show(cells[0])} stands here a second time; one person has one Velt user id"
    return None


class _Loader(_Base):  # type: ignore[misc]
    """The safe loader, but a key must be a text and stand once in its mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                self._refuse(key_node, f"the key {contracts.show(key)} is not a text: write it in quotes")
            if key in seen:
                self._refuse(key_node, f"the key {contracts.show(key)} stands here a second time; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    @staticmethod
    def _refuse(node: Any, sentence: str) -> None:
        raise yaml.constructor.ConstructorError(None, None, sentence, node.start_mark)


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(part for part in (error.context, error.problem) if part)


def _without_tabs(error: yaml.MarkedYAMLError, content: bytes) -> str:
    mark = error.problem_mark
    lines = content.splitlines()
    tab = mark is not None and mark.line < len(lines) and b"\t" in lines[mark.line]
    return "; there is a tab on this line: YAML wants spaces" if tab else ""


def _bytes_of(path: Path, problem_path: str, hint: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _mistake(f"{path} cannot be read ({error.strerror}); {hint}", problem_path) from None


def _text_of(content: bytes, problem_path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _mistake(f"line {line}: is not UTF-8; save the file as UTF-8", problem_path) from None


def _mistake(sentence: str, path: str = "") -> ConfigError:
    return ConfigError([Problem(path, sentence)])

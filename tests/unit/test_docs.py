"""What the documents must not forget: every key, variable, command, route and state; and links that lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay import backoff, config_checks, contracts
from relay.__main__ import _parser, main
from relay.model import EventState, Kind, RevocationState
from relay.settings import load
from relay.sources import TYPES, entra, okta
from relay.web import create_app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BREAKER = {"closed", "open", "probing"}
SECRETS = {"OKTA_HOOK_SECRET": "a", "ENTRA_CLIENT_STATE": "b", "SCIM_TOKEN": "d", "RELAY_OPS_TOKEN": "ada=c"}

EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, without the indentation of a list that they stand in."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def code_words(text: str) -> set[str]:
    """Every word that stands in `code` outside of blocks; dots and dashes belong to words."""
    return {word for span in re.findall(r"`([^`]+)`", prose(text)) for word in re.findall(r"[\w.-]+", span)}


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def commands(capsys: pytest.CaptureFixture[str]) -> set[str]:
    return set(re.findall(r"^    ([a-z]+)(?: |$)", help_of(capsys), re.MULTILINE))


# configuration


def keys_of(schema: Any) -> Iterator[str]:
    """The name of every property, however deep."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if isinstance(properties, Mapping):
            yield from properties
        for part in schema.values():
            yield from keys_of(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from keys_of(part)


def test_every_key_of_relay_yaml_is_documented() -> None:
    keys = set(keys_of(contracts.load("config")))
    assert {"sources", "client_state", "patience", "equals-ignore-case", "organizationId"} <= keys
    words = code_words(text_of("docs/configuration.md"))
    words |= {part for word in words for part in word.split(".")}
    assert not keys - words


def test_every_variable_is_documented() -> None:
    variables = set(re.findall(r"^#? ?([A-Z][A-Z_]+)=", text_of(".env.example"), re.MULTILINE))
    assert {"DATABASE_URL", "VELT_API_KEY", "RELAY_SEAL_KEY"} <= variables
    rows = set(re.findall(r"^\| `([A-Z_]+)` \|", text_of("docs/configuration.md"), re.MULTILINE))
    assert rows == variables


@EVERY_PAGE
def test_yaml_that_is_shown_is_right(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "yaml"):
        document = yaml.safe_load(block)
        if isinstance(document, dict) and {"sources", "identity", "rules"} <= document.keys():
            assert contracts.problems("config", document) == []
            assert config_checks.problems(document) == []


# reference


def test_every_kind_is_documented() -> None:
    rows = set(re.findall(r"^\| `([a-z_.]+)` \|", text_of("docs/reference.md"), re.MULTILINE))
    assert rows >= {kind.value for kind in Kind}


def test_the_fields_of_each_source_are_documented() -> None:
    for name in TYPES:
        (row,) = re.findall(rf"^\| {name} \|(.*)\|(.*)\|$", text_of("docs/reference.md"), re.MULTILINE)
        assert code_words(row[0]) == config_checks.FIELDS_BY_SOURCE[name]
        assert code_words(row[1]) == config_checks.LOOKED_UP_BY_SOURCE[name]


def test_every_okta_event_is_documented_with_its_kind() -> None:
    rows = [code_words(row) for row in text_of("docs/okta.md").splitlines() if row.startswith("| `")]
    for type_, kind in okta.KINDS.items():
        assert any({type_, kind.value} <= row for row in rows), type_


def test_the_lifecycle_of_graph_is_the_one_documented() -> None:
    assert "lifecycle.reauthorizationRequired" in code_words(text_of("docs/entra.md"))
    assert "reauthorizationRequired" in entra.LIFECYCLE


def test_the_schedule_is_the_one_documented() -> None:
    page = " ".join(text_of("docs/reference.md").split())
    assert (
        f"After the {len(backoff.SCHEDULE) + 1}th attempt, {round(sum(backoff.SCHEDULE) / backoff.HOUR)} hours" in page
    )
    assert backoff.SCHEDULE[:3] == (1, 5, 30)
    assert "1 s, 5 s, 30 s" in page
    assert backoff.SCHEDULE.count(backoff.LONGEST) == 11
    assert "6 h eleven times" in page


# operations


def test_every_command_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    found = commands(capsys)
    assert {"migrate", "worker", "events", "retry"} <= found
    table = text_of("docs/operations.md").split("\n## ")[1]
    assert not found - code_words(table)


def examples(text: str) -> Iterator[list[str]]:
    """The arguments of each `$ .venv/bin/python -m relay ...` and `$ make relay ARGS="..."` in a block."""
    for block in blocks(text, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[1:4] == [".venv/bin/python", "-m", "relay"]:
                yield words[4:]
            elif words[1:3] == ["make", "relay"]:
                yield shlex.split(words[3].removeprefix("ARGS="))


@EVERY_PAGE
def test_commands_that_are_shown_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "$ python -m relay" not in text, "a newcomer's python has no relay"
    for arguments in examples(text):
        if "--help" not in arguments:
            _parser().parse_args(arguments)  # ends with exit code 2 at anything that it does not know


def test_the_commands_of_make_are_shown_by_its_help() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'make relay ARGS="events"' in told


def test_commands_that_take_json_are_those_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = text_of("docs/operations.md").split("\n## ")[1]
    names = [
        name for row in re.findall(r"^\| (`python -m relay.*?) \|", table, re.MULTILINE) for name in code_words(row)
    ]
    operators = set(names[: names.index("reject") + 1]) | {"approve"}
    for name in commands(capsys):
        assert ("--json" in help_of(capsys, name)) is (name in operators), name


def test_every_route_is_documented() -> None:
    app = create_app(load({"RELAY_CONFIG": str(ROOT / "relay.example.yaml"), **SECRETS}))
    told = "".join(text_of(f"docs/{name}.md") for name in ("operations", "reference"))
    documented = {
        (method, _plain(path)) for method, path in re.findall(r"`(GET|POST|DELETE|PATCH|PUT) (/[^`? ]*)", told)
    }
    routes = {
        (method, _plain(rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint != "static" and not rule.endpoint.startswith("scim-")  # described by SCIM's own /Schemas
    }
    assert ("POST", "/api/v1/events/<>/retry") in routes
    assert not routes - documented
    assert not {pair for pair in documented if pair[1].startswith("/api")} - routes


def _plain(path: str) -> str:
    """The path with its variables unnamed."""
    return re.sub(r"<[^>]*>", "<>", path)


@pytest.mark.parametrize("states", [EventState, RevocationState], ids=["events", "revocations"])
def test_every_state_has_its_row(states: type[EventState | RevocationState]) -> None:
    rows = set(re.findall(r"^\| `([a-z]+)` \|", text_of("docs/operations.md"), re.MULTILINE))
    assert not {state.value for state in states} - rows


@pytest.mark.parametrize(
    "states",
    [{state.value for state in EventState}, {state.value for state in RevocationState}, BREAKER],
    ids=["events", "revocations", "breaker"],
)
def test_every_state_is_drawn_and_no_other(states: set[str]) -> None:
    drawings = [block for block in blocks(text_of("docs/operations.md"), "mermaid") if "stateDiagram" in block]
    drawn = [
        {state for arrow in re.findall(r"^\s+(\S+) --> (\w+|\[\*\])", drawing, re.MULTILINE) for state in arrow}
        - {"[*]"}
        for drawing in drawings
    ]
    assert states in drawn


# links


def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)) if not link.startswith("http")]


def test_the_pages_are_found() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "okta.md", "operations.md"} <= names
    assert len(links(text_of("README.md"))) > 10


@EVERY_PAGE
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in slugs(target.read_text(encoding="utf-8")), link


def test_the_payload_to_try_is_a_delivery() -> None:
    delivery = json.loads(text_of("docs/try/okta-group-removal.json"))
    assert contracts.problems("okta-event-hook", delivery) == []
    assert "@docs/try/okta-group-removal.json" in text_of("README.md")

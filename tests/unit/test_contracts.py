from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from relay import contracts


@pytest.fixture
def problems_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function (schema, document) -> the problems as texts, for schemas made up here."""
    monkeypatch.setattr(contracts, "SCHEMAS", tmp_path)
    contracts._validator.cache_clear()
    count = 0

    def problems(schema: object, document: object) -> list[str]:
        nonlocal count
        count += 1
        (tmp_path / f"s{count}.schema.json").write_text(json.dumps(schema))
        return [str(problem) for problem in contracts.problems(f"s{count}", document)]

    yield problems
    contracts._validator.cache_clear()


@pytest.mark.parametrize("path", sorted(contracts.SCHEMAS.glob("*.json")), ids=lambda path: path.name)
def test_every_schema_is_a_valid_schema(path: Path) -> None:
    schema = contracts.load(path.name.removesuffix(".schema.json"))
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_valid_document_has_no_problem(problems_of: Any) -> None:
    assert problems_of({"type": "object"}, {}) == []


def test_first_problem_agrees_with_problems() -> None:
    document = {"sources": {}}
    assert contracts.first_problem("config", document) == contracts.problems("config", document)[0]


def test_first_problem_of_a_valid_document_is_none() -> None:
    document = {
        "sources": {"okta": {"type": "okta", "secret": {"env": "S"}}},
        "identity": {"velt_user_id": ["{user.id}"]},
        "rules": [],
    }
    assert contracts.first_problem("config", document) is None


def test_a_schema_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        contracts.first_problem("no-such", {})


STRICT = {"type": "object", "required": ["name"], "additionalProperties": False, "properties": {"name": {}, "size": {}}}
RESOURCE = {
    "x-right": "a thing",
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "id"],
            "additionalProperties": False,
            "properties": {"type": {"const": kind}, "id": {"type": "string"}, **more},
        }
        for kind, more in (("cup", {}), ("plate", {"rim": {"type": "boolean"}}))
    ],
}


@pytest.mark.parametrize(
    ("schema", "document", "expected"),
    [
        (STRICT, {}, ['"name" is missing']),
        (STRICT, {"nam": 1}, ['unknown key "nam"; did you mean "name"?']),
        (STRICT, {"name": 1, "zzz": 1}, ['unknown key "zzz"; possible: "name", "size"']),
        (STRICT, {"name": 1, "xx": 1, "yy": 1}, 2),
        ({"required": ["a"], "properties": {"a": {"x-right": "a number"}}}, {}, ['"a" is missing: a number']),
        ({"required": ["a"], "properties": {"a": {"description": "The A."}}}, {}, ['"a" is missing: The A.']),
        ({"type": "string"}, 5, ["found the number 5; wanted is a text: write it in quotes"]),
        ({"type": "string"}, True, ["found true; wanted is a text: write it in quotes"]),
        (
            {"type": "string"},
            datetime.date(2026, 1, 2),
            ["found the date 2026-01-02; wanted is a text: write it in quotes"],
        ),
        ({"type": "string"}, None, ["found nothing (null); wanted is a text"]),
        ({"type": "string"}, [], ["found a list; wanted is a text"]),
        ({"type": ["string", "null"]}, {}, ["found an object (key: value); wanted is a text or nothing"]),
        ({"type": "integer", "x-right": "a count"}, "x", ['found "x"; wanted is a count']),
        ({"enum": ["red", "green"]}, "gren", ['found "gren"; did you mean "green"?']),
        ({"enum": ["red", "green"]}, "x", ['found "x"; possible: "red", "green"']),
        ({"enum": ["red"], "x-why-not": {"blue": "blue is sold out"}}, "blue", ["blue is sold out"]),
        ({"const": "all", "x-right": "all or a list"}, "zzz", ['found "zzz"; wanted is all or a list']),
        ({"pattern": "^a"}, "b", ['found "b"; its pattern must be ^a']),
        ({"pattern": "^a", "x-right": "an a"}, "b", ['found "b"; wanted is an a']),
        (
            {"pattern": "^a", "x-secret": True},
            "hunter2",
            ["found something else (not shown, it may be a secret); its pattern must be ^a"],
        ),
        ({"minLength": 1}, "", ["is empty; something is wanted here"]),
        ({"minItems": 1, "x-right": "one"}, [], ["is empty; wanted is one"]),
        ({"maxProperties": 1}, {"a": 1, "b": 1}, ["holds 2 keys; at most 1 may be there"]),
        ({"minimum": 1}, 0, ["found the number 0; its minimum must be 1"]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, ['"b" is missing: "a" does nothing without it']),
        ({"properties": {"a": False}}, {"a": 1}, ["found the number 1; nothing may stand here"]),
        ({"propertyNames": {"pattern": "^a"}}, {"b": 1}, ['found "b"; its pattern must be ^a']),
        (RESOURCE, "cup", ['found "cup"; wanted is a thing']),
        (RESOURCE, {"type": "cap", "id": "1"}, ['type: found "cap"; did you mean "cup"?']),
        (RESOURCE, {"type": "plate", "id": 1}, ["id: found the number 1; wanted is a text: write it in quotes"]),
        (RESOURCE, {"type": "cup"}, ['"id" is missing']),
        (RESOURCE, {"id": "1", "rim": True}, ['"type" is missing']),
        (RESOURCE, {"type": "cup", "id": "1", "rim": True}, ['unknown key "rim"; possible: "type", "id"']),
        ({"oneOf": [{"type": "string"}, {"type": "array"}]}, 1, ["found the number 1; wanted is a text or a list"]),
        (
            {"oneOf": [{"type": "string"}, {"minLength": 1}]},
            "x",
            ["fits more than one of the allowed forms; make it fit one"],
        ),
        (
            {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array"}]},
            "",
            ["is empty; something is wanted here"],
        ),
    ],
)
def test_sentences(problems_of: Any, schema: object, document: object, expected: list[str] | int) -> None:
    found = problems_of(schema, document)
    assert len(found) == expected if isinstance(expected, int) else found == expected


def test_a_misspelt_required_key_is_told_once(problems_of: Any) -> None:
    assert problems_of(STRICT, {"naem": 1}) == ['unknown key "naem"; did you mean "name"?']


def test_a_secret_key_is_not_shown(problems_of: Any) -> None:
    schema = {"additionalProperties": False, "properties": {"env": {}}, "x-secret": True}
    assert "hunter2" not in "".join(problems_of(schema, {"hunter2": None}))


def test_the_path_leads_to_the_place(problems_of: Any) -> None:
    schema = {"properties": {"a": {"items": {"properties": {"b": {"type": "string"}}}}}}
    assert problems_of(schema, {"a": [{}, {"b": []}]}) == ["a[1].b: found a list; wanted is a text"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 100, '"' + "x" * 60 + '…"'),
        ("a\x00\x1b[31m", '"a\\u0000\\u001b[31m"'),
        ("\ud800", '"\\ud800"'),
        ("naïve", '"naïve"'),
        (1.5, "the number 1.5"),
        (False, "false"),
    ],
)
def test_show(value: object, shown: str) -> None:
    assert contracts.show(value) == shown
    shown.encode("utf-8")


def test_path_of_cleans_what_a_terminal_cannot_carry() -> None:
    assert contracts.path_of(["a", 0, "b\x1b\ud800"]) == "a[0].b\\x1b\\ud800"

"""The JSON Schemas of schemas/ and what a document does wrong by them, in sentences.

Two additions to JSON Schema steer the sentences and are ignored by every other validator: `x-right` says what would be
right there, `x-why-not` says of a key or value that people try why it is refused. `x-secret` keeps a value from being
shown.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from jsonschema import Draft202012Validator

from relay.errors import Problem

SCHEMAS = Path(__file__).parent.parent / "schemas"
LONGEST_SHOWN = 60

TYPES = {
    "object": "an object (key: value)",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}

# jsonschema.ValidationError, whose every attribute is typed as possibly unset although none is after validation
Error: TypeAlias = Any


def load(schema_name: str) -> dict[str, Any]:
    """The schema in schemas/<schema_name>.schema.json. Raises OSError when there is none."""
    text = (SCHEMAS / f"{schema_name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator(schema_name: str) -> Draft202012Validator:
    schema = load(schema_name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def first_problem(schema_name: str, document: object) -> Problem | None:
    """The first mistake, or None for a valid document; cheap when there is none."""
    validator = _validator(schema_name)
    if validator.is_valid(document):
        return None
    return problems(schema_name, document)[0]


def problems(schema_name: str, document: object) -> list[Problem]:
    """Every mistake, in the order of the document's schema; empty for a valid document."""
    errors = _validator(schema_name).iter_errors(document)
    return list(dict.fromkeys(problem for error in errors for problem in _explain(error)))


def path_of(parts: Iterable[str | int]) -> str:
    """`["rules", 3, "when"]` as `rules[3].when`."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{printable(str(part))}"
    return path.removeprefix(".")


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """`; did you mean "x"?` for a word close to a known one, else the known ones; the end of a sentence."""
    names = [name for name in known if isinstance(name, str)]
    close = get_close_matches(word, names, n=1) if isinstance(word, str) else []
    if close:
        return f"; did you mean {show(close[0])}?"
    return f"; possible: {', '.join(show(name) for name in names)}" if names else ""


def show(value: object) -> str:
    """A value as a short piece of a sentence: scalars as JSON, the rest by its type."""
    if isinstance(value, str):
        cut = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
        return printable(json.dumps(cut, ensure_ascii=False))
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {str(value)[:LONGEST_SHOWN]}"
    if isinstance(value, Mapping):
        return TYPES["object"]
    return TYPES["array"] if isinstance(value, list) else f"the {type(value).__name__} {value}"


def printable(text: str) -> str:
    """The text without what a log, a terminal or UTF-8 cannot carry (control characters, lone surrogates)."""
    cleaned = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return cleaned.encode("utf-8", "backslashreplace").decode("utf-8")


def _explain(error: Error) -> Iterator[Problem]:
    if error.validator in ("oneOf", "anyOf"):
        yield from _explain_choice(error)
        return
    path = path_of(error.absolute_path)
    for sentence in SENTENCES.get(error.validator, _wrong_value)(error):
        yield Problem(path, sentence)


def _explain_choice(error: Error) -> Iterator[Problem]:
    """Speak of the branch the writer meant: same shape first, then same `type`, then fewest strange keys."""
    branches: dict[object, list[Error]] = defaultdict(list)
    for branch_error in error.context or ():
        branches[branch_error.relative_schema_path[0]].append(branch_error)
    if not branches:
        yield Problem(path_of(error.absolute_path), "fits more than one of the allowed forms; make it fit one")
        return
    meant = min(branches.values(), key=_misfit)
    tags = [tag for errors in branches.values() for tag in errors if tag.validator == "const" and _is_tag(tag)]
    if any(_is_shape(branch_error) for branch_error in meant):
        yield Problem(path_of(error.absolute_path), f"{_found(error)}; {_right(error) or _shapes(branches.values())}")
    elif tags and any(_is_tag(branch_error) for branch_error in meant):
        known = [str(tag.validator_value) for tag in tags]
        yield Problem(path_of(tags[0].absolute_path), f"{_found(tags[0])}{did_you_mean(tags[0].instance, known)}")
    else:
        for branch_error in meant:
            yield from _explain(branch_error)


def _misfit(errors: list[Error]) -> tuple[bool, bool, int, int]:
    strange = sum(len(_extras(error)) for error in errors if error.validator == "additionalProperties")
    return any(map(_is_shape, errors)), any(map(_is_tag, errors)), strange, len(errors)


def _is_shape(error: Error) -> bool:
    return error.validator == "type" and not error.relative_path


def _is_tag(error: Error) -> bool:
    if error.validator == "additionalProperties":
        return not error.relative_path and "type" in _extras(error)
    return error.validator == "const" and list(error.relative_path) == ["type"]


def _shapes(branches: Iterable[list[Error]]) -> str:
    wanted = [_types(error.validator_value) for errors in branches for error in errors if _is_shape(error)]
    return f"wanted is {' or '.join(dict.fromkeys(wanted))}"


def _types(names: str | list[str]) -> str:
    return " or ".join(TYPES[name] for name in ([names] if isinstance(names, str) else names))


def _found(error: Error) -> str:
    secret = _note(error, "x-secret")
    return "found something else (not shown, it may be a secret)" if secret else f"found {show(error.instance)}"


def _right(error: Error) -> str:
    right = _note(error, "x-right")
    return f"wanted is {right}" if right else ""


def _why_not(error: Error, tried: object) -> str | None:
    reason: str | None = (_note(error, "x-why-not") or {}).get(str(tried))
    return reason


def _note(error: Error, keyword: str) -> Any:
    return error.schema.get(keyword) if isinstance(error.schema, Mapping) else None


def _extras(error: Error) -> list[str]:
    return [key for key in error.instance if key not in error.schema.get("properties", {})]


def _unknown_key(error: Error) -> Iterator[str]:
    known = error.schema.get("properties", {})
    for key in _extras(error):
        name = "(not shown, it may be a secret)" if _note(error, "x-secret") else show(key)
        yield _why_not(error, key) or f"unknown key {name}{did_you_mean(key, known)}"


def _missing(error: Error) -> Iterator[str]:
    known = error.schema.get("properties", {})
    strict = error.schema.get("additionalProperties") is False
    for key in error.validator_value:
        misspelt = strict and get_close_matches(key, _extras(error))
        if key not in error.instance and not misspelt:
            wanted = known.get(key, {})
            right = wanted.get("x-right") or wanted.get("description")
            yield f"{show(key)} is missing" + (f": {right}" if right else "")


def _wrong_type(error: Error) -> Iterator[str]:
    quotes = error.validator_value == "string" and not isinstance(error.instance, list | dict | None)
    plain = f"wanted is {_types(error.validator_value)}" + (": write it in quotes" if quotes else "")
    yield f"{_found(error)}; {_right(error) or plain}"


def _wrong_word(error: Error) -> Iterator[str]:
    known = error.validator_value if error.validator == "enum" else [error.validator_value]
    close = did_you_mean(error.instance, known)
    if _right(error) and "did you mean" not in close:
        close = f"; {_right(error)}"
    yield _why_not(error, error.instance) or f"{_found(error)}{close}"


def _empty(error: Error) -> Iterator[str]:
    yield f"is empty; {_right(error) or 'something is wanted here'}"


def _too_many(error: Error) -> Iterator[str]:
    yield f"holds {len(error.instance)} keys; {_right(error) or f'at most {error.validator_value} may be there'}"


def _missing_beside(error: Error) -> Iterator[str]:
    for key, needs in error.validator_value.items():
        for needed in needs:
            if key in error.instance and needed not in error.instance:
                yield f"{show(needed)} is missing: {show(key)} does nothing without it"


def _wrong_value(error: Error) -> Iterator[str]:
    yield f"{_found(error)}; {_right(error) or f'its {error.validator} must be {error.validator_value}'}"


def _not_allowed(error: Error) -> Iterator[str]:
    yield f"{_found(error)}; nothing may stand here"


SENTENCES: Mapping[str | None, Callable[[Error], Iterator[str]]] = {
    "additionalProperties": _unknown_key,
    "required": _missing,
    "type": _wrong_type,
    "enum": _wrong_word,
    "const": _wrong_word,
    "minLength": _empty,
    "minItems": _empty,
    "minProperties": _empty,
    "maxProperties": _too_many,
    "dependentRequired": _missing_beside,
    None: _not_allowed,  # the schema `false`
}

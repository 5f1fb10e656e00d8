"""JSON from SCIM clients without surprises: what no database keeps, no parser survives and nobody means is refused."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

from scim2_models import InvalidFilterException, InvalidSyntaxException, InvalidValueException

from relay.sources import base

Json: TypeAlias = Any
Document: TypeAlias = dict[str, Any]

#: Levels of nesting; a PATCH of an address has 6.
DEEPEST = 20
#: Characters of a path or filter, and parentheses in it.
LONGEST_FILTER = 4000
DEEPEST_FILTER = 50

_ESCAPED = re.compile(r"\\u(0000|d[89a-f])", re.IGNORECASE)


def read(body: bytes) -> Document:
    """The JSON object in a body. Raises InvalidSyntaxException: not JSON, too deep, a name twice, a character that no
    database keeps."""
    try:
        document = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=base.no_constant,
            parse_float=base.finite,
            parse_int=base.whole,
        )
    except UnicodeDecodeError:
        raise InvalidSyntaxException(detail="the body is not UTF-8") from None
    except RecursionError:
        raise InvalidSyntaxException(detail="the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidSyntaxException(detail=f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidSyntaxException(detail="the body is not a JSON object")
    _check_nodes(document)
    return document


def _object(pairs: list[tuple[str, Json]]) -> Document:
    """An object, in which no name may stand twice: which of the two was meant could decide about access."""
    names = {name.lower() for name, _ in pairs}  # attribute names do not know case (RFC 7643 section 2.1)
    if len(names) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return dict(pairs)


def _check_nodes(root: Json) -> None:
    level = [root]
    for _ in range(DEEPEST):
        below: list[Json] = []
        for node in level:
            if isinstance(node, dict):
                below += [*node.keys(), *node.values()]
            elif isinstance(node, list):
                below += node
            elif isinstance(node, str):
                check_text(node)
        if not below:
            return
        level = below
    raise InvalidSyntaxException(detail=f"the body is nested more than {DEEPEST} levels deep")


def check_text(text: str) -> None:
    """Raise InvalidValueException for a text that a database cannot keep."""
    try:
        whole = b"\0" not in text.encode()
    except UnicodeEncodeError:
        whole = False
    if not whole:
        raise InvalidValueException(detail="a text holds U+0000 or half of a surrogate pair")


def check_filter(text: str) -> None:
    """Raise InvalidFilterException for what no directory asks: too long, nested too deeply for a parser, or with what
    `check_text` refuses in disguise."""
    if _ESCAPED.search(text):
        raise InvalidFilterException(detail="a filter holds an escaped U+0000 or surrogate; write the character itself")
    if len(text) > LONGEST_FILTER or text.count("(") + text.count("[") > DEEPEST_FILTER:
        raise InvalidFilterException(
            detail=f"a filter has at most {LONGEST_FILTER} characters and {DEEPEST_FILTER} parentheses"
        )

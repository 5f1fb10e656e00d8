"""The two small languages of relay.yaml: regular expressions on whole values, and `{field}` templates. Pure."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # a bad pattern is told once, as a sentence, by whoever reads relay.yaml


def compile_regex(text: str) -> Any:
    """A compiled RE2 pattern. Raises ValueError with RE2's own words.

    RE2 takes linear time whatever the pattern and the value, so that no rule can hold up the others.
    """
    try:
        return re2.compile(text, _OPTIONS)
    except re2.error as error:
        message = error.args[0] if error.args else str(error)
        raise ValueError(message.decode() if isinstance(message, bytes) else str(message)) from None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with `{field}` holes; `{{` and `}}` are braces."""

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ValueError when braces do not pair or a hole holds more than a field's name."""
        parts = []
        for literal, name, spec, conversion in string.Formatter().parse(text):
            if name is not None and (not name or spec or conversion):
                raise ValueError("a hole in a template holds a field's name and nothing else, such as {user.email}")
            parts.append((literal, name))
        return cls(text, tuple(parts))

    @property
    def fields(self) -> frozenset[str]:
        """The names of the holes."""
        return frozenset(name for _, name in self.parts if name is not None)

    def render(self, values: Mapping[str, str | None]) -> str | None:
        """The text with its holes filled, or None when a value is missing or empty."""
        filled = []
        for literal, name in self.parts:
            filled.append(literal)
            if name is not None:
                value = values.get(name)
                if not value:
                    return None
                filled.append(value)
        return "".join(filled)

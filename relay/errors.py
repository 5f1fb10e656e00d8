"""The errors of the relay.

RelayError
+-- ConfigError      relay.yaml or the environment is wrong; holds one Problem a mistake
+-- Unreadable       a payload that was authenticated but is not understood
|   +-- Unaskable    an id that no id of a provider is, so that nobody can be asked about it (in `identifier`)
+-- Unavailable      the database cannot take or give data at the moment
+-- LookUpFailed     an identity provider's API did not answer
+-- Refused          an operator asked for something that cannot be done (HTTP status in `status`)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class RelayError(Exception):
    """Whatever the relay itself raises."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, told to a person: where it is, what was found and what would be right."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(RelayError):
    """relay.yaml or the environment is wrong."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Unreadable(RelayError):
    """A payload that is not what its source sends; the message says what would be."""


class Unaskable(Unreadable):
    """An id that no id of a provider is."""

    def __init__(self, identifier: str, detail: str) -> None:
        self.identifier = identifier
        super().__init__(detail)


class Unavailable(RelayError):
    """The database cannot be reached, is locked, full, or older than this code."""


class Refused(RelayError):
    """An operator's request that cannot be done; `status` is the HTTP status that says so."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(detail)


class LookUpFailed(RelayError):
    """A directory did not answer. `retry_after`: seconds that it asks to wait, None where it does not say.

    `lasting`: the same question would fail again in a minute, such as one that its credential is refused for.
    """

    def __init__(self, detail: str, retry_after: float | None = None, *, lasting: bool = False) -> None:
        self.retry_after = retry_after
        self.lasting = lasting
        super().__init__(detail)

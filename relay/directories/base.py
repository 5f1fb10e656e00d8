"""What every directory shares: the questions, the shape of the answers, and when not to ask.

A directory is the identity provider's own record of who somebody is and what they have. A webhook is a reason to ask.
Answers may lag behind the truth by minutes; what to believe is decided elsewhere (relay/truth.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from relay.contracts import show
from relay.errors import Unaskable
from relay.model import AccessEvent, Account, Group, Micros, Status

__all__ = ["Account", "Changes", "Directory", "Group", "Status", "checked"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Changes:
    """One page of what changed. `cursor` is where to go on after this page; `last`: nothing more for now.

    `snapshot`: this pass lists all that is there, not only what changed (there was no cursor, or it has expired), so
    that what is known and was not listed by its last page is gone. Then `events` are gains and account losses.
    """

    events: tuple[AccessEvent, ...]
    cursor: str
    last: bool
    snapshot: bool = False


class Directory(Protocol):
    """One identity provider's API. Every verb raises LookUpFailed, and Unaskable for an id that is none."""

    name: str

    def look_up(self, subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        """The account with this id; never fails because there is none (status `gone`)."""

    def group(self, group_id: str) -> Group | None:
        """The group with this id, None where there is none (or it is deleted)."""

    def members(self, group_id: str) -> Iterator[list[str]]:
        """The ids of a group's people, a page at a time; no page for a group that is gone."""

    def app_users(self, app_id: str) -> Iterator[list[str]]:
        """The ids of the people who have an app, a page at a time; no page for one that is gone or unknown here."""

    def accounts(self) -> Iterator[list[Account]]:
        """Every account, a page at a time, without groups."""

    def groups(self) -> Iterator[list[Group]]:
        """Every group, a page at a time."""

    def changes(self, cursor: str | None, since: Micros) -> Iterator[Changes]:
        """What changed after `cursor`, or after `since` where there is no cursor and the provider can go back."""


def checked(identifier: str) -> str:
    """An id that may stand in a URL: letters, digits, `_` and `-`, at most 64. Raises Unaskable for any other."""
    if not _ID.fullmatch(identifier):
        raise Unaskable(
            identifier,
            f"its provider cannot be asked about the id {show(identifier)}: an id has letters, digits, _ and -, "
            "64 of them at most",
        )
    return identifier

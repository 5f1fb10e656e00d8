"""What a SCIM change means: events, written in the transaction that makes the change.

The state decides, not the request: what changes nothing makes no event, so a request that is sent again makes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection

from relay.model import AccessEvent, Kind, Micros
from relay.store.record import Row, insert_events, row_of

#: From a field (login, email, external_id) to the path of the attribute that fills it.
Paths: TypeAlias = Mapping[str, str]
NO_PATHS: Paths = {}


@dataclass(frozen=True, slots=True)
class Account:
    """A SCIM user as events name it; of an id that nobody knows only the id is told."""

    id: str
    login: str | None = None
    email: str | None = None
    external_id: str | None = None
    active: bool = False

    @classmethod
    def of(cls, user_id: str, document: Mapping[str, Any], paths: Paths = NO_PATHS) -> Account:
        """The account of a stored user, its names by `paths` where given. One without `active` is not active."""
        names = {
            "login": document.get("userName"),
            "email": email_of(document),
            "external_id": document.get("externalId"),
        }
        names |= {field: at_path(document, path) for field, path in paths.items()}
        return cls(id=user_id, active=document.get("active") is True, **names)

    @property
    def names(self) -> tuple[str | None, ...]:
        """What the Velt user id may be made of."""
        return self.login, self.email, self.external_id


@dataclass(frozen=True, slots=True)
class Group:
    id: str
    name: str | None


def at_path(document: Mapping[str, Any], path: str) -> str | None:
    """The text at a path such as `nickName`, `name.familyName` or `urn:...:2.0:User:employeeNumber` (RFC 7644 3.10)."""
    schema, _, attribute = path.rpartition(":")
    found: Any = document.get(schema) if schema in document else document
    for name in attribute.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and found else None


def email_of(document: Mapping[str, Any]) -> str | None:
    """The primary address, else the first one for work, else the first one."""
    emails = [email for email in document.get("emails") or () if email.get("value")]
    chosen = (
        [email for email in emails if email.get("primary")]
        or [email for email in emails if email.get("type") == "work"]
        or emails
    )
    return chosen[0]["value"] if chosen else None


class Journal:
    """The events of one transaction, each a microsecond after the one before."""

    def __init__(self, source: str, start: Micros) -> None:
        self._source = source
        self._rows: list[Row] = []
        self.at = start

    def created(self, account: Account) -> None:
        self._tell(Kind.ACCOUNT_ACTIVATED, "user created", account, {"active": True})

    def updated(self, before: Account, after: Account) -> None:
        """Another name first, so that what follows is told of the person by the name of today."""
        if before.names != after.names:
            changed = {"before": _named(before), "after": _named(after)}
            self._tell(Kind.ACCOUNT_CHANGED, "user renamed", after, changed)
        if before.active != after.active:
            kind = Kind.ACCOUNT_ACTIVATED if after.active else Kind.ACCOUNT_DEACTIVATED
            self._tell(kind, "user updated", after, {"active": after.active})

    def deleted(self, account: Account, groups: list[Group]) -> None:
        """The account first, then each group that it was in."""
        self._tell(Kind.ACCOUNT_DELETED, "user deleted", account, {})
        for group in groups:
            self._tell(Kind.GROUP_MEMBER_REMOVED, "user deleted", account, {}, group)

    def members(self, group: Group, gained: list[Account], lost: list[Account]) -> None:
        for account in lost:
            self._tell(Kind.GROUP_MEMBER_REMOVED, "member removed", account, {}, group)
        for account in gained:
            self._tell(Kind.GROUP_MEMBER_ADDED, "member added", account, {}, group)

    def group_renamed(self, group: Group, members: list[Account]) -> None:
        """Who has the group has it by its new name from now on: rules go by names, and facts keep the one last told."""
        for account in members:
            self._tell(Kind.GROUP_MEMBER_ADDED, "group renamed", account, {}, group)

    def group_deleted(self, group: Group) -> None:
        """One event, without a person: who had the group is known, and the guard sees it as the whole that it is."""
        self._tell(Kind.GROUP_DELETED, "group deleted", None, {}, group)

    def write(self, connection: Connection) -> list[Row]:
        """Add the events to the transaction and return their rows."""
        if self._rows:
            insert_events(connection, self._rows)
        return self._rows

    def _tell(
        self, kind: Kind, what: str, account: Account | None, changed: dict[str, Any], group: Group | None = None
    ) -> None:
        payload: dict[str, Any] = {"what": what, **changed}
        if account is not None:
            payload["user"] = {"id": account.id, **_named(account)}
        if group is not None:
            payload["group"] = {"id": group.id, "displayName": group.name}
        self.at += 1
        event = AccessEvent(
            source=self._source,
            kind=kind,
            type=what,
            payload=json.dumps(payload, separators=(",", ":")).encode("ascii"),
            subject=account.id if account else None,
            login=account.login if account else None,
            email=account.email if account else None,
            external_id=account.external_id if account else None,
            group_id=group.id if group else None,
            group_name=group.name if group else None,
            occurred_at=self.at,
        )
        self._rows.append(row_of(event, self.at))


def _named(account: Account) -> dict[str, str | None]:
    return {"userName": account.login, "email": account.email, "externalId": account.external_id}

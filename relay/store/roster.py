"""Everybody at once, as an audit needs them: what the relay knows, and SCIM's own tables as a directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from relay.model import OPEN, Account, EventState, Group, Resource, Status, now
from relay.store import scim_events
from relay.store.database import Database
from relay.store.revocations import resource_of
from relay.store.scim_events import NO_PATHS, Paths
from relay.store.tables import events, identities, people, revocations, scim_groups, scim_members, scim_users

PAGE = 500


@dataclass(frozen=True, slots=True)
class Identity:
    """An account that is (`current`) or was a Velt user; `source` None: a Velt user that no source ever named."""

    velt_user_id: str
    source: str | None = None
    subject: str | None = None
    login: str | None = None
    email: str | None = None
    external_id: str | None = None
    current: bool = False


def everybody(connection: Connection) -> list[Identity]:
    """Every Velt user that the relay ever heard of, with all accounts that were theirs."""
    names = (name for name in Identity.__slots__ if name not in ("velt_user_id", "current"))
    columns = [identities.c[name] for name in names]
    statement = select(people.c.velt_user_id, *columns, identities.c.current).outerjoin(
        identities, identities.c.person_id == people.c.id
    )
    return [Identity(**{**row._mapping, "current": bool(row.current)}) for row in connection.execute(statement)]


def open_removals(connection: Connection) -> dict[tuple[str, Resource], str]:
    """The removals that are planned and not done, by Velt user and resource, with their events."""
    statement = (
        select(people.c.velt_user_id, revocations)
        .join(people, people.c.id == revocations.c.person_id)
        .where(revocations.c.state.in_(sorted(OPEN)))
    )
    return {(row.velt_user_id, resource_of(row)): row.event_id for row in connection.execute(statement)}


def held_events(connection: Connection) -> dict[str, str]:
    """The event that the guard holds of each Velt user of whom it holds any; the newest where there are several."""
    statement = (
        select(people.c.velt_user_id, events.c.id)
        .join(people, people.c.id == events.c.person_id)
        .where(events.c.state == EventState.HELD.value)
        .order_by(events.c.received_at, events.c.id)
    )
    return {row.velt_user_id: row.id for row in connection.execute(statement)}


class ScimRoster:
    """What an identity provider has provisioned into the relay under one source's name.

    `paths`: the source's `attributes`, by which its events name people.
    """

    def __init__(self, database: Database, source: str, paths: Paths = NO_PATHS) -> None:
        self._database = database
        self._source = source
        self._paths = paths

    def accounts(self) -> Iterator[list[Account]]:
        """Every account, a page at a time, without groups."""
        for page in self._pages(scim_users, "id", scim_users.c.source == self._source):
            yield [_account(row, self._paths) for row in page]

    def groups(self) -> Iterator[list[Group]]:
        """Every group, a page at a time."""
        for page in self._pages(scim_groups, "id", scim_groups.c.source == self._source):
            yield [Group(row.id, json.loads(row.document).get("displayName")) for row in page]

    def members(self, group_id: str) -> Iterator[list[str]]:
        """The ids of a group's members, a page at a time; those of groups inside of it are not among them."""
        table = scim_members.c
        for page in self._pages(
            scim_members, "member_id", (table.source == self._source) & (table.group_id == group_id)
        ):
            yield [row.member_id for row in page]

    def _pages(self, table: Table, key: str, mine: Any) -> Iterator[list[Row[Any]]]:
        after = None
        while True:
            wanted = mine if after is None else mine & (table.c[key] > after)
            with self._database.read() as connection:
                rows = list(connection.execute(select(table).where(wanted).order_by(table.c[key]).limit(PAGE)))
            if rows:
                yield rows
            if len(rows) < PAGE:
                return
            after = getattr(rows[-1], key)


def _account(row: Row[Any], paths: Paths) -> Account:
    told = scim_events.Account.of(row.id, json.loads(row.document), paths)
    status = Status.ACTIVE if told.active else Status.DEACTIVATED
    return Account(row.id, status, now(), told.login, told.email, told.external_id)

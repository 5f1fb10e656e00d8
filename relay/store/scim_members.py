"""The members of SCIM groups as rows: a change costs what changes, however large the group is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from relay.model import Micros
from relay.store.scim_events import NO_PATHS, Account, Group, Paths
from relay.store.scim_rows import Member, refuse_bad_id
from relay.store.tables import scim_groups, scim_members, scim_users

#: Ids in one statement; PostgreSQL and SQLite take some 32,000 parameters.
_BATCH = 500

_GROUP = "Group"


@dataclass(frozen=True, slots=True)
class Changed:
    """Who came and who went; groups inside of groups are members, but nobody to tell an event of."""

    gained: list[Account] = field(default_factory=list)
    lost: list[Account] = field(default_factory=list)
    any: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on members: `add`, `remove` or `replace` (which also empties a group) with these members."""

    op: str
    members: tuple[Member, ...]


def of_group(connection: Connection, source: str, group_id: str, ids: Iterable[str] | None = None) -> dict[str, Member]:
    """The members of a group by id, in the order of their ids; only these `ids` where given."""
    table = scim_members.c
    mine = select(scim_members).where(table.source == source, table.group_id == group_id).order_by(table.member_id)
    statements = [mine] if ids is None else [mine.where(table.member_id.in_(part)) for part in _batches(ids)]
    rows = (row for statement in statements for row in connection.execute(statement))
    return {row.member_id: Member(row.member_id, row.type, row.display) for row in rows}


def of_groups(connection: Connection, source: str, group_ids: Iterable[str]) -> dict[str, list[Member]]:
    """The members of each of these groups."""
    table = scim_members.c
    found: dict[str, list[Member]] = {}
    for part in _batches(group_ids):
        statement = select(scim_members).where(table.source == source, table.group_id.in_(part))
        for row in connection.execute(statement.order_by(table.group_id, table.member_id)):
            found.setdefault(row.group_id, []).append(Member(row.member_id, row.type, row.display))
    return found


def apply(
    connection: Connection, source: str, group_id: str, steps: Sequence[Step], paths: Paths = NO_PATHS
) -> Changed:
    """Make these changes, reading only the members that they name; a `replace` has to read them all.

    What one step takes and a later one gives back has not changed.
    """
    for member in (member for step in steps for member in step.members if step.op != "remove"):
        refuse_bad_id(member.id)
    named = {member.id for step in steps for member in step.members}
    reads_all = any(step.op == "replace" for step in steps)
    before = of_group(connection, source, group_id, None if reads_all else named)
    after = dict(before)
    for step in steps:
        given = {member.id: member for member in step.members}
        if step.op == "remove":
            after = {member_id: member for member_id, member in after.items() if member_id not in given}
        else:
            after = given | (after if step.op == "add" else {key: after[key] for key in given if key in after})
    return put(connection, source, group_id, before, after, paths)


def put(
    connection: Connection,
    source: str,
    group_id: str,
    before: Mapping[str, Member],
    after: Mapping[str, Member],
    paths: Paths = NO_PATHS,
) -> Changed:
    """Turn the members from one state into another."""
    lost = [before[member_id] for member_id in before if member_id not in after]
    gained = [after[member_id] for member_id in after if member_id not in before]
    _set_display(connection, source, group_id, [m for m in after.values() if before.get(m.id, m).display != m.display])
    if not lost and not gained:
        return Changed(any=dict(before) != dict(after))
    accounts, groups = _people(connection, source, [member.id for member in (*lost, *gained)], paths)
    for part in _batches(member.id for member in lost):
        connection.execute(delete(scim_members).where(_is_member(source, group_id, part)))
    typed = [replace(member, type=member.type or (_GROUP if member.id in groups else "User")) for member in gained]
    if typed:
        rows = [_row(source, group_id, member) for member in typed]
        connection.execute(scim_members.insert(), rows)
    return Changed(_accounts(typed, accounts, groups), _accounts(lost, accounts, groups), any=True)


def people_in(connection: Connection, source: str, members: Iterable[Member], paths: Paths = NO_PATHS) -> list[Account]:
    """The accounts behind these members, without the groups among them."""
    listed = list(members)
    return _accounts(listed, *_people(connection, source, [member.id for member in listed], paths))


def leave_all(connection: Connection, source: str, member_id: str, now: Micros) -> list[Group]:
    """Take a user or group out of every group; return those groups, which count as changed."""
    in_groups = select(scim_members.c.group_id).where(
        scim_members.c.source == source, scim_members.c.member_id == member_id
    )
    mine = (scim_groups.c.source == source) & scim_groups.c.id.in_(in_groups)
    # in the order of their ids, so that two that wait for each other's groups cannot happen
    rows = connection.execute(select(scim_groups).where(mine).order_by(scim_groups.c.id).with_for_update()).all()
    for row in rows:
        touch(connection, source, row, now)
    connection.execute(
        delete(scim_members).where(scim_members.c.source == source, scim_members.c.member_id == member_id)
    )
    return [Group(row.id, json.loads(row.document).get("displayName")) for row in rows]


def touch(connection: Connection, source: str, row: Row[Any], now: Micros, **values: Any) -> None:
    """Give a group, whose row is locked, its next version."""
    changed = {"version": row.version + 1, "updated_at": max(now, row.updated_at + 1), **values}
    mine = (scim_groups.c.source == source) & (scim_groups.c.id == row.id)
    connection.execute(update(scim_groups).where(mine).values(**changed))


def _people(
    connection: Connection, source: str, ids: Sequence[str], paths: Paths
) -> tuple[dict[str, Account], set[str]]:
    """Those of the ids that are users, as accounts, and those that are groups."""
    users, groups = scim_users.c, scim_groups.c
    accounts: dict[str, Account] = {}
    for part in _batches(ids):
        statement = select(users.id, users.document).where(users.source == source, users.id.in_(part))
        for row in connection.execute(statement):
            accounts[row.id] = Account.of(row.id, json.loads(row.document), paths)
    found: set[str] = set()
    for part in _batches(member_id for member_id in ids if member_id not in accounts):
        statement = select(groups.id).where(groups.source == source, groups.id.in_(part))
        found.update(connection.execute(statement).scalars())
    return accounts, found


def _accounts(members: Iterable[Member], accounts: Mapping[str, Account], groups: set[str]) -> list[Account]:
    return [
        accounts.get(member.id, Account(member.id))
        for member in members
        if member.id not in groups and (member.id in accounts or (member.type or "").lower() != "group")
    ]


def _set_display(connection: Connection, source: str, group_id: str, members: Iterable[Member]) -> None:
    for member in members:
        statement = update(scim_members).where(_is_member(source, group_id, [member.id]))
        connection.execute(statement.values(display=member.display))


def _is_member(source: str, group_id: str, ids: Sequence[str]) -> Any:
    table = scim_members.c
    return (table.source == source) & (table.group_id == group_id) & table.member_id.in_(ids)


def _row(source: str, group_id: str, member: Member) -> dict[str, Any]:
    return {
        "source": source,
        "group_id": group_id,
        "member_id": member.id,
        "type": member.type,
        "display": member.display,
    }


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    listed = list(ids)
    return (listed[start : start + _BATCH] for start in range(0, len(listed), _BATCH))

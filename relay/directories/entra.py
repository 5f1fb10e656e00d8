"""Microsoft Entra ID, asked through Microsoft Graph: https://learn.microsoft.com/graph/api/resources/users.

A notification says that something changed, never what; and the truth that Graph tells may be some minutes behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from relay.directories import entra_delta, graph
from relay.directories.again import Patient, Wait
from relay.directories.base import Account, Changes, Group, Status, checked
from relay.directories.graph import ACCOUNT_FIELDS, GROUP, GROUP_FIELDS, GROUPS, PAGE, USER, USERS, Item, is_a
from relay.directories.http import Reader
from relay.directories.recent import Recent
from relay.model import Micros, now
from relay.sources.base import clean_or


class EntraDirectory:
    """One Entra tenant, as `sources.<name>` in relay.yaml gives it.

    `credential` gives the application's secret, or the PEM of its key and certificate, as it is now. `wait` passes
    some seconds, before a page of the changes is asked for again.
    """

    def __init__(
        self, name: str, given: Mapping[str, Any], credential: Callable[[], str], wait: Wait = time.sleep
    ) -> None:
        self.name = name
        self._client = graph.client_of(given["graph"], credential)
        self._patient = Patient(self._client, name, wait)
        self._recent_groups: Recent[Group | None] = Recent()
        self._mark = entra_delta.mark(given["graph"])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def look_up(self, subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        """The account with this id, with every group that it is in, through other groups too.

        Entra tells of no apps, so that `apps` of the answer is empty. A group, deleted or not, has the status `group`:
        a notification names members by their ids alone. What else is no user (a device) is gone.
        """
        fetched_at = now()
        user = graph.found(self._client, f"/users/{checked(subject)}", USERS, select=ACCOUNT_FIELDS)
        pages = [] if user is None else list(self._member_of(subject))
        if user is None or not pages:  # without a page: deleted since the first question
            return self._without_user(Account(subject, Status.GONE, fetched_at, names=self._names(groups, ())))
        member_of = tuple(_group(item) for page in pages for item in page if is_a(GROUP, item))
        return _account({**user, "id": subject}, fetched_at, member_of, self._names(groups, member_of))

    def group(self, group_id: str) -> Group | None:
        """The group with this id; None where there is none, or a Microsoft 365 group was deleted (it can come back)."""
        item = graph.found(self._client, f"/groups/{checked(group_id)}", GROUPS, select=GROUP_FIELDS)
        return None if item is None else _group(item)

    def members(self, group_id: str) -> Iterator[list[str]]:
        """The ids of a group's people, those of the groups in it too; no page for a group that is gone."""
        return _members(self._client, group_id)

    def app_users(self, app_id: str) -> Iterator[list[str]]:
        """No page: Entra's notifications name no apps, so that nobody asks."""
        yield from ()

    def accounts(self) -> Iterator[list[Account]]:
        """Every account that is not deleted, a page at a time."""
        fetched_at = now()
        for page in graph.pages(self._client, "/users", USERS, select=ACCOUNT_FIELDS, top=PAGE):
            yield [_account(item, fetched_at) for item in page]
            fetched_at = now()

    def groups(self) -> Iterator[list[Group]]:
        """Every group that is not deleted, a page at a time."""
        for page in graph.pages(self._client, "/groups", GROUPS, select=GROUP_FIELDS, top=PAGE):
            yield [_group(item) for item in page]

    def changes(self, cursor: str | None, since: Micros) -> Iterator[Changes]:
        """What changed after `cursor`, by delta queries. Graph cannot go back to a time: without one, all there is.

        A listing of all there is has thousands of pages, and is worth nothing without the last one: pages that fail
        are asked for again.
        """
        members = partial(_members, self._patient)
        return entra_delta.changes(self.name, self._patient, self._mark, cursor, members)

    def _without_user(self, gone: Account) -> Account:
        """What an id is that no user has.

        Deletions can be undone for 30 days: https://learn.microsoft.com/graph/api/resources/directory.
        """
        item = graph.found(self._client, f"/directory/deletedItems/{gone.id}", USERS)
        if item is None:
            return gone if self.group(gone.id) is None else replace(gone, status=Status.GROUP)
        kind = str(item.get("@odata.type", USER)).lower()
        if kind != USER:
            return replace(gone, status=Status.GROUP) if kind == GROUP else gone
        login, email = _who_was(item, gone.id)
        return replace(gone, status=Status.DELETED, login=login, email=email)

    def _member_of(self, subject: str) -> Iterator[list[Item]]:
        """The groups and roles of a user, direct and through others.

        Not by a cast to groups, which needs `ConsistencyLevel: eventual` and then asks an index that lags behind:
        https://learn.microsoft.com/graph/api/user-list-transitivememberof.
        """
        return graph.pages(self._client, f"/users/{subject}/transitiveMemberOf", GROUPS, select=GROUP_FIELDS, top=PAGE)

    def _names(self, wanted: Collection[str], known: Collection[Group]) -> dict[str, str]:
        """The names of those groups that exist, asked for only where the account's own groups do not tell."""
        have = {group.id: group for group in known}
        told = (have.get(id_) or self._recent_groups.get(id_, partial(self.group, id_)) for id_ in wanted)
        return {group.id: group.name for group in told if group is not None and group.name is not None}


def _members(client: Reader, group_id: str) -> Iterator[list[str]]:
    where = f"/groups/{checked(group_id)}/transitiveMembers"
    for page in graph.pages(client, where, GROUPS, select="id", top=PAGE):
        yield [item["id"] for item in page if is_a(USER, item)]


def _who_was(user: Item, user_id: str) -> tuple[str | None, str | None]:
    """Login and e-mail address of a deleted user. Its UPN begins with the id, so that somebody else may take the name.

    Both or nothing: without the address nobody could tell whether there was none.
    """
    login = clean_or(user.get("userPrincipalName"), "").removeprefix(user_id.replace("-", ""))
    if not login or "mail" not in user:
        return None, None
    return login, clean_or(user.get("mail"), "") or None


def _account(user: Item, at: Micros, groups: tuple[Group, ...] = (), names: Mapping[str, str] | None = None) -> Account:
    return Account(
        user["id"],
        Status.DEACTIVATED if user.get("accountEnabled") is False else Status.ACTIVE,
        at,
        login=clean_or(user.get("userPrincipalName"), "") or None,
        email=clean_or(user.get("mail"), "") or None,
        groups=groups,
        names=names or {},
    )


def _group(item: Item) -> Group:
    return Group(item["id"], clean_or(item.get("displayName"), "") or None)

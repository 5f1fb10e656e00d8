"""Okta's API as a directory: https://developer.okta.com/docs/api/.

A group or app of an account says nothing about whether the account is in force: Okta keeps the groups of people whom
it has suspended or deactivated. So `status` comes first, always.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from relay.directories.base import Account, Changes, Group, Status, checked
from relay.directories.http import Client, Response
from relay.directories.okta_token import proof_of
from relay.directories.recent import Recent
from relay.errors import LookUpFailed
from relay.model import Micros, now, to_iso
from relay.sources.base import clean_or
from relay.sources.okta import Okta

USERS, GROUPS, APPS, LOGS = "okta.users.read", "okta.groups.read", "okta.apps.read", "okta.logs.read"

NOT_FOUND = "E0000007"
"""Okta's code for "there is none". A 404 without it comes from another server, and says nothing of anybody."""

#: What takes an account out of force. The others (STAGED, PROVISIONED, ACTIVE, RECOVERY, PASSWORD_EXPIRED, LOCKED_OUT)
#: are accounts that nobody has taken anything from: they wait for a first sign-in or a password, or end by themselves.
#: The relay takes away only what the identity provider took.
STATUSES = {"SUSPENDED": Status.SUSPENDED, "DEPROVISIONED": Status.DEACTIVATED}

#: Assignments to an app that are none any more. SUSPENDED and INACTIVE ones come back with the account, whose own
#: status says that it is not in force.
UNASSIGNED = ("DEPROVISIONED", "REVOKED", "UNASSIGNED")

Thing: TypeAlias = Mapping[str, Any]

#: Of one page; the largest that Okta's pages recommend or allow.
PAGE, APP_PAGE, LOG_PAGE = 200, 500, 1000


class OktaDirectory:
    """One Okta organization, as `sources.<name>` in relay.yaml gives it.

    `credential` gives the API token or the service app's private key as it is now.
    """

    def __init__(self, name: str, given: Mapping[str, Any], credential: Callable[[], str]) -> None:
        self.name = name
        api = given["api"]
        self._client = Client("Okta", api["url"], proof_of(api, credential))
        self._source = Okta(name, given, tuple)
        self._recent_groups: Recent[Group | None] = Recent()
        self._filter = " or ".join(f"eventType eq {json.dumps(type_)}" for type_ in self._source.types)
        # what a cursor is good for: Okta's link holds the address and the filter
        self._mark = hashlib.sha256(f"{api['url']} {self._filter}".encode()).hexdigest()[:8]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def look_up(self, subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        """The account with this id, with the groups that Okta keeps for it whatever its status.

        `external_id` is the attribute `externalId` of Okta's profile, where the organization has added one. An account
        that is gone has none of the apps.
        """
        fetched_at = now()
        gone = Account(subject, Status.GONE, fetched_at, apps=dict.fromkeys(apps, False))
        user = self._ask(f"/api/v1/users/{checked(subject)}", USERS)
        # Okta takes a login or its first part in this place too, and answers with whoever has that
        if user is None or _id(user) != subject:
            return gone
        account = _account(user, fetched_at)
        pages = list(self._pages(f"/api/v1/users/{subject}/groups", USERS))
        if not pages:  # deleted since the first question: to one who is there Okta gives a page, even an empty one
            return gone
        member_of = tuple(_group(item) for page in pages for item in page)
        names, has = self._names(groups, member_of), {app: self._has(subject, app) for app in apps}
        return replace(account, groups=member_of, names=names, apps=has)

    def group(self, group_id: str) -> Group | None:
        """The group with this id, None where there is none."""
        found = self._ask(f"/api/v1/groups/{checked(group_id)}", GROUPS)
        return None if found is None else _group(found)

    def members(self, group_id: str) -> Iterator[list[str]]:
        """The ids of a group's people, a page at a time; no page for a group that is gone."""
        for page in self._pages(f"/api/v1/groups/{checked(group_id)}/users", GROUPS, limit=PAGE):
            yield [_id(item) for item in page]

    def app_users(self, app_id: str) -> Iterator[list[str]]:
        """The ids of the people who are assigned to an app, deactivated or not; no page for one that is gone."""
        for page in self._pages(f"/api/v1/apps/{checked(app_id)}/users", APPS, limit=APP_PAGE):
            yield [_id(item) for item in page if item.get("status") not in UNASSIGNED]

    def accounts(self) -> Iterator[list[Account]]:
        """Every account, a page at a time. Okta's list leaves the deactivated out, so that they are searched for."""
        for search in ({}, {"search": 'status eq "DEPROVISIONED"'}):
            fetched_at = now()
            for page in self._pages("/api/v1/users", USERS, limit=PAGE, **search):
                yield [_account(item, fetched_at) for item in page]
                fetched_at = now()

    def groups(self) -> Iterator[list[Group]]:
        """Every group, a page at a time, Everyone among them."""
        for page in self._pages("/api/v1/groups", GROUPS, limit=PAGE):
            yield [_group(item) for item in page]

    def changes(self, cursor: str | None, since: Micros) -> Iterator[Changes]:
        """What the System Log says after `cursor`, or after `since` without one; 90 days back at most.

        It is read in the documented form for polling, which alone is complete: ordered by when Okta kept an event,
        without end, with a link to go on from on every page, which is the cursor. One that Okta refuses, or that was
        made for other event types or another address counts as none. Events have the keys of the hook's.
        https://developer.okta.com/docs/reference/system-log-query/
        """
        answer = self._first_log_page(cursor, since)
        while True:
            elements = _list(answer.body)
            follow = answer.next
            if follow is None:
                raise LookUpFailed("Okta gave a page of its System Log without a link to the next")
            events = tuple(event for element in elements for event in self._source.log_entry(element))
            last = len(elements) < LOG_PAGE
            yield Changes(events, f"{self._mark} {follow}", last)
            if last:
                return
            answer = self._client.get(follow, answers=(), needs=LOGS)

    def _first_log_page(self, cursor: str | None, since: Micros) -> Response:
        mark, _, link = (cursor or "").partition(" ")
        if mark == self._mark:
            answer = self._client.get(link, answers=(400, 404, 410), needs=LOGS)
            if answer.status == 200:
                return answer
        return self._client.get(
            "/api/v1/logs",
            {"since": _milliseconds(since), "sortOrder": "ASCENDING", "limit": LOG_PAGE, "filter": self._filter},
            answers=(),
            needs=LOGS,
        )

    def _names(self, asked: Collection[str], member_of: Collection[Group]) -> dict[str, str]:
        known = {group.id: group for group in member_of}
        found = (known.get(id_) or self._recent_groups.get(id_, partial(self.group, id_)) for id_ in asked)
        return {group.id: group.name for group in found if group is not None and group.name is not None}

    def _has(self, subject: str, app: str) -> bool:
        """Whether the account is assigned to the app, and the app is active: Okta keeps the people of those that
        an administrator has deactivated.
        """
        assigned = self._ask(f"/api/v1/apps/{checked(app)}/users/{subject}", APPS)
        if assigned is None or assigned.get("status") in UNASSIGNED:
            return False
        found = self._ask(f"/api/v1/apps/{app}", APPS)
        return found is not None and found.get("status") == "ACTIVE"

    def _ask(self, path: str, needs: str) -> Thing | None:
        """What is there, None where Okta says that there is none."""
        answer = self._found(path, {}, needs)
        return None if answer is None else _thing(answer.body)

    def _pages(self, path: str, needs: str, **params: str | int) -> Iterator[list[Thing]]:
        """Each page of a list; none where Okta says that there is no such list."""
        answer = self._found(path, params, needs)
        while answer is not None:
            yield [_thing(item) for item in _list(answer.body)]
            follow = answer.next
            answer = self._client.get(follow, answers=(), needs=needs) if follow else None

    def _found(self, path: str, params: Mapping[str, str | int], needs: str) -> Response | None:
        answer = self._client.get(path, params, needs=needs)
        if answer.status != 404:
            return answer
        if answer.code == NOT_FOUND:
            return None
        raise LookUpFailed(f"Okta answered HTTP 404 {answer.code}, not its {NOT_FOUND}: is the url of `api` right?")


def _account(user: Thing, fetched_at: Micros) -> Account:
    profile = _thing(user.get("profile"))
    if not isinstance(user.get("status"), str):
        raise _misshapen("an account without status")
    login, email, external = (clean_or(profile.get(key), "") or None for key in ("login", "email", "externalId"))
    status = STATUSES.get(user["status"], Status.ACTIVE)
    return Account(_id(user), status, fetched_at, login, email, external)


def _group(group: Thing) -> Group:
    return Group(_id(group), clean_or(_thing(group.get("profile")).get("name"), "") or None)


def _id(thing: Thing) -> str:
    found = clean_or(thing.get("id"), "")
    if not found:
        raise _misshapen("a thing without id")
    return found


def _thing(value: object) -> Thing:
    if not isinstance(value, dict):
        raise _misshapen("something else than the object that was asked for")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise _misshapen("something else than the list that was asked for")
    return value


def _misshapen(what: str) -> LookUpFailed:
    return LookUpFailed(f"Okta gave {what}: is the url of `api` that of an Okta organization?")


def _milliseconds(moment: Micros) -> str:
    """ISO 8601 with three digits behind the second, as Okta writes it: cut, so that it is never later."""
    return f"{to_iso(moment)}"[:-4] + "Z"

"""What changed in an Entra tenant, by Graph's delta queries: https://learn.microsoft.com/graph/delta-query-overview.

Two streams, users and groups, are read one after the other, each to its deltaLink, which the next pass begins with. A
first pass, and one whose links have expired, lists everything. Nothing says when a change happened, items repeat, come
in any order, and a group may come in several parts: an event here is a candidate that is compared with what is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from relay.directories.base import Changes
from relay.directories.graph import ACCOUNT_FIELDS, GROUP, GROUPS, USER, USERS, Item, is_a, items
from relay.directories.http import Reader
from relay.errors import LookUpFailed
from relay.model import AccessEvent, Kind
from relay.sources.base import clean_or, encode

#: Where each stream begins. Only what is selected is watched.
STARTS = {
    "users": f"/users/delta?$select={ACCOUNT_FIELDS}",
    "groups": "/groups/delta?$select=id,displayName,members",
}
NEEDS = {"users": USERS, "groups": GROUPS}

#: Codes with which Graph says that a link is too old: https://learn.microsoft.com/graph/delta-query-overview, and
#: those that were seen with HTTP 400.
EXPIRED = ("syncstatenotfound", "syncstateinvalid", "resyncrequired", "directory_expiredpagetoken")

#: The ids of a group's people, through other groups too, a page at a time.
Members = Callable[[str], Iterator[list[str]]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a pass stands: which stream is read next, and from which link each goes on."""

    snapshot: bool
    stream: str
    users: str
    groups: str

    def link(self) -> str:
        return self.users if self.stream == "users" else self.groups

    def after(self, page: Item) -> tuple[_Place, bool]:
        """The place behind a page of this stream, and whether the pass has ended there."""
        following, delta = page.get("@odata.nextLink"), page.get("@odata.deltaLink")
        link = following or delta
        if not isinstance(link, str):
            raise LookUpFailed("Microsoft Graph gave a page of changes without a link to go on")
        here = replace(self, users=link) if self.stream == "users" else replace(self, groups=link)
        if following:
            return here, False
        if self.stream == "users":
            return replace(here, stream="groups"), False
        return replace(here, stream="users", snapshot=False), True


_START = _Place(True, "users", STARTS["users"], STARTS["groups"])


def mark(graph: Mapping[str, Any]) -> str:
    """What a cursor is good for: this tenant, at this address."""
    return hashlib.sha256(f"{graph.get('url')} {graph['tenant']}".encode()).hexdigest()[:8]


def changes(source: str, client: Reader, cursor_mark: str, cursor: str | None, members: Members) -> Iterator[Changes]:
    """The pages of one pass. A cursor of another tenant or address, or one that has expired, counts as none."""
    place = _read(cursor, cursor_mark)
    while True:
        page = _page(client, place)
        if page is None:
            if place == _START:
                raise LookUpFailed("Microsoft Graph says of a new delta query that it has expired")
            place = _START
            continue
        ahead, last = place.after(page)
        found = items(page)
        if place.snapshot and place.stream == "groups":
            for events in _nested(source, found, members):
                yield Changes(events, _written(place, cursor_mark), last=False, snapshot=True)
        read = _users if place.stream == "users" else _groups
        events = tuple(event for item in found for event in read(source, item, place.snapshot))
        yield Changes(events, _written(ahead, cursor_mark), last, place.snapshot)
        if last:
            return
        place = ahead


def _page(client: Reader, place: _Place) -> Item | None:
    """The next page, None where the link is too old."""
    answer = client.get(place.link(), answers=(400, 410), needs=NEEDS[place.stream])
    if answer.status == 410 or (answer.status == 400 and answer.code.lower() in EXPIRED):
        return None
    if answer.status == 400:
        raise LookUpFailed(f"Microsoft Graph answered HTTP 400 {answer.code} to a delta query")
    if not isinstance(answer.body, dict):
        raise LookUpFailed("Microsoft Graph gave a page of changes that is not a JSON object")
    return answer.body


def _users(source: str, item: Item, _snapshot: bool) -> Iterator[AccessEvent]:
    """What became of a user. Removed ones are deleted, whether for good (`deleted`) or not yet (`changed`)."""
    if "@removed" in item:
        kind = Kind.ACCOUNT_DELETED
    else:
        kind = Kind.ACCOUNT_DEACTIVATED if item.get("accountEnabled") is False else Kind.ACCOUNT_ACTIVATED
    event = _event(source, kind, "delta.users", item)
    login, email = (clean_or(item.get(name), "") or None for name in ("userPrincipalName", "mail"))
    if kind is Kind.ACCOUNT_DELETED:  # the UPN of such a user is not one any more
        login = email = None
    yield replace(event, subject=item["id"], login=login, email=email)


def _groups(source: str, item: Item, snapshot: bool) -> Iterator[AccessEvent]:
    """What became of a group and of each of its members; those that are no users are left out.

    Groups that came into it or left it are one gain and one loss of people who are not told here: without a subject.
    """
    name = clean_or(item.get("displayName"), "") or None
    payload = {key: value for key, value in item.items() if key != "members@delta"}
    group = replace(_event(source, Kind.GROUP_DELETED, "delta.groups", payload), group_id=item["id"], group_name=name)
    if "@removed" in item:
        if not snapshot:
            yield group
        return
    entries = [entry for entry in item.get("members@delta") or () if _has_id(entry)]
    for entry in entries:
        gone = "@removed" in entry
        if _may_be_person(entry) and not (gone and snapshot):
            kind = Kind.GROUP_MEMBER_REMOVED if gone else Kind.GROUP_MEMBER_ADDED
            told = encode({**payload, "members@delta": [entry]})
            yield replace(group, kind=kind, subject=entry["id"], payload=told)
    for kind in (Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_MEMBER_ADDED) if not snapshot else ():
        gone = kind is Kind.GROUP_MEMBER_REMOVED
        inner = [entry for entry in entries if is_a(GROUP, entry) and ("@removed" in entry) is gone]
        if inner:
            yield replace(group, kind=kind, payload=encode({**payload, "members@delta": inner}))


def _nested(source: str, found: list[Item], members: Members) -> Iterator[tuple[AccessEvent, ...]]:
    """In a pass that lists everything: the people whom a group has through the groups in it, a page at a time."""
    for item in found:
        entries = [entry for entry in item.get("members@delta") or () if _has_id(entry)]
        if "@removed" in item or not any(is_a(GROUP, entry) and "@removed" not in entry for entry in entries):
            continue
        bare = {key: value for key, value in item.items() if key != "members@delta"}
        for page in members(item["id"]):
            whole = {**bare, "members@delta": [{"@odata.type": USER, "id": member} for member in page]}
            yield tuple(_groups(source, whole, snapshot=True))


def _event(source: str, kind: Kind, type_: str, item: Item) -> AccessEvent:
    """Without a key: Graph's changes have no id. Without a time: nobody says when."""
    return AccessEvent(source, kind, type_, encode(item))


def _has_id(entry: object) -> bool:
    return isinstance(entry, dict) and clean_or(entry.get("id"), "") != ""


def _may_be_person(entry: Item) -> bool:
    return is_a(USER, entry) or "@odata.type" not in entry


def _written(place: _Place, cursor_mark: str) -> str:
    return json.dumps(
        {
            "mark": cursor_mark,
            "snapshot": place.snapshot,
            "stream": place.stream,
            "users": place.users,
            "groups": place.groups,
        }
    )


def _read(cursor: str | None, cursor_mark: str) -> _Place:
    """The place that a cursor names; the start for one that is missing, from elsewhere or not ours."""
    try:
        given = json.loads(cursor or "{}")
        place = _Place(bool(given["snapshot"]), given["stream"], str(given["users"]), str(given["groups"]))
    except (ValueError, KeyError, TypeError):
        return _START
    return place if given["mark"] == cursor_mark and place.stream in STARTS else _START

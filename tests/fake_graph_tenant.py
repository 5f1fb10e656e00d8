"""The people and groups of a made-up Entra tenant, their history, and what Graph tells of a change (no HTTP here).

Every verb that changes something returns the notification items that Graph would send for it, one list that a test can
deliver, duplicate, reorder or drop: the normal deletion of a user and disabling are `updated`, `deleted` comes with the
purge; a membership is an `updated` of the group with `members@delta`. There are no items where nobody has subscribed.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from relay import model
from relay.model import Micros, to_iso

Item = dict[str, Any]

TENANT = "0f0e0d0c-1111-4222-8333-0a0b0c0d0e0f"
TICKS_AT_1970 = 621_355_968_000_000_000


@dataclass
class Person:
    """A user object. `deleted`: in deletedItems, where its UPN is mangled; `purged` ones leave no trace."""

    id: str
    upn: str
    mail: str | None
    enabled: bool = True
    deleted: bool = False


@dataclass
class Group:
    """`unified`: a Microsoft 365 group, whose deletion can be undone. Members are users' and groups' ids."""

    id: str
    name: str
    unified: bool = False
    deleted: bool = False
    members: list[str] = field(default_factory=list)


@dataclass
class State:
    """What there is at one moment; purged things are not in it."""

    people: dict[str, Person] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)  # devices and service principals, which groups may hold too

    def type_of(self, object_id: str) -> str | None:
        """`#microsoft.graph.user`, `...group`, `...device`, None for nothing."""
        for kind, known in (("user", self.people), ("group", self.groups), ("device", self.others)):
            if object_id in known:
                return f"#microsoft.graph.{kind}"
        return None

    def live(self, object_id: str) -> bool:
        thing = self.people.get(object_id) or self.groups.get(object_id)
        return object_id in self.others or (thing is not None and not thing.deleted)

    def closure(self, group_id: str) -> list[str]:
        """Everything that is in a group, through other groups too."""
        found: list[str] = []
        ahead = [group_id]
        while ahead:
            group = self.groups.get(ahead.pop())
            for member in group.members if group and not group.deleted else ():
                if member not in found and self.live(member):
                    found.append(member)
                    ahead.append(member)
        return found

    def groups_of(self, object_id: str) -> list[Group]:
        return [g for g in self.groups.values() if not g.deleted and object_id in self.closure(g.id)]


@dataclass(frozen=True)
class Change:
    """One entry of the history: a user or group changed, or a member of a group did."""

    kind: str
    id: str
    member: str | None = None


class Tenant:
    """See the module. `subscribers` gives (subscription id, clientState, expiry) for /users or /groups."""

    def __init__(self, clock: Callable[[], Micros] = model.now) -> None:
        self.state = State()
        self.history: list[Change] = []
        self.purged: dict[str, str] = {}
        self.clock = clock
        self.lock = threading.RLock()
        self.subscribers: Callable[[str], list[tuple[str, str, Micros]]] = lambda resource: []
        self._stale: State | None = None
        self._stale_answers = 0

    # what a test does

    def lag(self, answers: int) -> None:
        """The next `answers` looks at users and groups show what was there when this was called."""
        with self.lock:
            self._stale, self._stale_answers = copy.deepcopy(self.state), answers

    def add_user(self, upn: str, mail: str | None = "", user_id: str | None = None) -> tuple[str, list[Item]]:
        """A new user, whose mail address is the UPN unless given: (id, items)."""
        person = Person(user_id or str(uuid4()), upn, upn if mail == "" else mail)
        with self.lock:
            self.state.people[person.id] = person
            return person.id, self._user_changed(person.id)

    def add_group(self, name: str, unified: bool = False, group_id: str | None = None) -> tuple[str, list[Item]]:
        """A new group without members, a security group unless `unified`: (id, items)."""
        group = Group(group_id or str(uuid4()), name, unified)
        with self.lock:
            self.state.groups[group.id] = group
            return group.id, self._group_changed(group.id)

    def add_device(self) -> str:
        """The id of something that is neither user nor group and may be a member."""
        device_id = str(uuid4())
        self.state.others.add(device_id)
        return device_id

    def join(self, member_id: str, group_id: str) -> list[Item]:
        """Somebody, or a group, becomes a member."""
        with self.lock:
            if member_id not in self.state.groups[group_id].members:
                self.state.groups[group_id].members.append(member_id)
            return self._member_changed(group_id, {"id": member_id})

    def leave(self, member_id: str, group_id: str) -> list[Item]:
        with self.lock:
            self.state.groups[group_id].members.remove(member_id)
            return self._member_changed(group_id, {"id": member_id, "@removed": "deleted"})

    def disable(self, user_id: str) -> list[Item]:
        return self._set(user_id, enabled=False)

    def enable(self, user_id: str) -> list[Item]:
        return self._set(user_id, enabled=True)

    def rename(self, user_id: str, upn: str) -> list[Item]:
        return self._set(user_id, upn=upn, mail=upn)

    def soft_delete(self, user_id: str) -> list[Item]:
        """The normal deletion: `updated`, and the memberships stay."""
        return self._set(user_id, deleted=True)

    def restore(self, user_id: str) -> list[Item]:
        return self._set(user_id, deleted=False)

    def purge(self, user_id: str) -> list[Item]:
        """The end of a user, by hand or 30 days after the deletion; only now groups tell that a member is gone."""
        with self.lock:
            del self.state.people[user_id]
            self.purged[user_id] = "#microsoft.graph.user"
            items = self._notify("User", user_id, "deleted", {})
            self.history.append(Change("user", user_id))
            for group in self.state.groups.values():
                if user_id in group.members:
                    group.members.remove(user_id)
                    items += self._member_changed(group.id, {"id": user_id, "@removed": "deleted"})
            return items

    def rename_group(self, group_id: str, name: str) -> list[Item]:
        with self.lock:
            self.state.groups[group_id].name = name
            return self._group_changed(group_id)

    def delete_group(self, group_id: str) -> list[Item]:
        """A Microsoft 365 group goes to deletedItems and says `updated`; any other is gone at once."""
        with self.lock:
            group = self.state.groups[group_id]
            if group.unified and not group.deleted:
                group.deleted = True
                return self._group_changed(group_id)
            return self.purge_group(group_id)

    def purge_group(self, group_id: str) -> list[Item]:
        with self.lock:
            del self.state.groups[group_id]
            self.purged[group_id] = "#microsoft.graph.group"
            for other in self.state.groups.values():
                if group_id in other.members:
                    other.members.remove(group_id)
                    self.history.append(Change("group", other.id, group_id))
            self.history.append(Change("group", group_id))
            return self._notify("Group", group_id, "deleted", {})

    def restore_group(self, group_id: str) -> list[Item]:
        with self.lock:
            self.state.groups[group_id].deleted = False
            return self._group_changed(group_id)

    # what the server asks

    def seen(self) -> State:
        """What a question sees now: the state, or for some questions more the one from before."""
        with self.lock:
            if self._stale is None or self._stale_answers <= 0:
                return self.state
            self._stale_answers -= 1
            return self._stale

    def delta(self, kind: str, since: int | None) -> list[Item]:
        """The items of users/delta or groups/delta after entry `since` of the history, everything without it."""
        with self.lock:
            if since is None:
                known: Mapping[str, Any] = self.state.people if kind == "user" else self.state.groups
                wanted = [(thing, None) for thing in known if not known[thing].deleted]
            else:
                wanted = [(change.id, change.member) for change in self.history[since:] if change.kind == kind]
            ids = list(dict.fromkeys(thing for thing, _ in wanted))
            make = self._user_item if kind == "user" else self._group_item
            return [make(thing, None if since is None else [m for t, m in wanted if t == thing and m]) for thing in ids]

    def _user_item(self, user_id: str, _members: list[str] | None) -> Item:
        person = self.state.people.get(user_id)
        if person is None or person.deleted:
            return {"id": user_id, "@removed": {"reason": "deleted" if person is None else "changed"}}
        return user_json(person)

    def _group_item(self, group_id: str, changed: list[str] | None) -> Item:
        group = self.state.groups.get(group_id)
        if group is None or group.deleted:
            return {"id": group_id, "@removed": {"reason": "deleted" if group is None else "changed"}}
        item: Item = {"id": group_id, "displayName": group.name}
        members = [self._member_item(group, member) for member in (group.members if changed is None else changed)]
        return item | ({"members@delta": members} if members else {})

    def _member_item(self, group: Group, member: str) -> Item:
        item = {"@odata.type": self.state.type_of(member) or self.purged[member], "id": member}
        return item if member in group.members else item | {"@removed": {"reason": "deleted"}}

    # what changed

    def _set(self, user_id: str, **values: Any) -> list[Item]:
        with self.lock:
            for name, value in values.items():
                setattr(self.state.people[user_id], name, value)
            return self._user_changed(user_id)

    def _user_changed(self, user_id: str) -> list[Item]:
        self.history.append(Change("user", user_id))
        # a double has rounded the ticks of the time, as in deliveries that were seen
        ticks = int(float(self.clock() * 10 + TICKS_AT_1970))
        return self._notify("User", user_id, "updated", {"sequenceNumber": ticks})

    def _group_changed(self, group_id: str) -> list[Item]:
        self.history.append(Change("group", group_id))
        return self._notify("Group", group_id, "updated", {})

    def _member_changed(self, group_id: str, entry: Item) -> list[Item]:
        self.history.append(Change("group", group_id, entry["id"]))
        return self._notify("Group", group_id, "updated", {"members@delta": [entry]})

    def _notify(self, resource: str, object_id: str, change: str, more: Item) -> list[Item]:
        data = {
            "@odata.type": f"#Microsoft.Graph.{resource}",
            "@odata.id": f"{resource}s/{object_id}",
            "id": object_id,
            "organizationId": TENANT,
            **more,
        }
        return [
            {
                "changeType": change,
                "clientState": client_state,
                "resource": f"{resource}s/{object_id}",
                "resourceData": copy.deepcopy(data),
                "subscriptionExpirationDateTime": to_iso(expires_at),
                "subscriptionId": subscription_id,
                "tenantId": TENANT,
            }
            for subscription_id, client_state, expires_at in self.subscribers(f"/{resource.lower()}s")
        ]


def user_json(person: Person) -> Item:
    """A user as Graph shows it, all selected properties."""
    return {
        "id": person.id,
        "userPrincipalName": person.upn,
        "mail": person.mail,
        "accountEnabled": person.enabled,
    }


def mangled(person: Person) -> Item:
    """A deleted user as deletedItems shows it: the UPN begins with the object id, so that it can be used again."""
    name = person.id.replace("-", "") + person.upn
    return {"@odata.type": "#microsoft.graph.user", **user_json(person), "userPrincipalName": name}


def pieces(values: list[Any], size: int) -> Iterator[list[Any]]:
    """Pages of a list; one empty page for an empty list."""
    yield from (values[start : start + size] for start in range(0, len(values) or 1, size))

"""The nouns of the relay: frozen data and the names of states. No I/O.

Times are whole microseconds since 1970-01-01 UTC (`Micros`), in memory and in the database; ISO 8601 appears only at
the rim (API, command line, logs).
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

Micros: TypeAlias = int

SECOND: Micros = 1_000_000


def now() -> Micros:
    """The current time, in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


def to_iso(moment: Micros | None) -> str | None:
    """`2026-01-31T12:00:00.123456Z`, or None for None."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment / SECOND, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_iso(text: str) -> Micros:
    """Microseconds of an ISO 8601 time; a time without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * SECOND + moment.microsecond


_numbers = itertools.count()


def new_id(prefix: str) -> str:
    """A new id such as `evt_0d5c...`; of ids made by one process the later one sorts later.

    48 bits of milliseconds, 16 bits that count up, 64 random bits.
    """
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{next(_numbers) & 0xFFFF:04x}{secrets.token_hex(8)}"


class Kind(StrEnum):
    """What an event means, in the relay's own words (the table of docs/reference.md)."""

    ACCOUNT_DEACTIVATED = "account.deactivated"
    ACCOUNT_SUSPENDED = "account.suspended"
    ACCOUNT_DELETED = "account.deleted"
    GROUP_MEMBER_REMOVED = "group.member_removed"
    GROUP_DELETED = "group.deleted"
    APP_ACCESS_REMOVED = "app.access_removed"
    ACCOUNT_ACTIVATED = "account.activated"
    GROUP_MEMBER_ADDED = "group.member_added"
    APP_ACCESS_ADDED = "app.access_added"
    ACCOUNT_CHANGED = "account.changed"
    GROUP_CHANGED = "group.changed"
    OPERATOR_REMOVE = "operator.remove"
    UNKNOWN = "unknown"


ACCOUNT_LOSSES = frozenset({Kind.ACCOUNT_DEACTIVATED, Kind.ACCOUNT_SUSPENDED, Kind.ACCOUNT_DELETED})
LOSSES = ACCOUNT_LOSSES | {Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_DELETED, Kind.APP_ACCESS_REMOVED}
GAINS = frozenset({Kind.ACCOUNT_ACTIVATED, Kind.GROUP_MEMBER_ADDED, Kind.APP_ACCESS_ADDED})


class ObjectType(StrEnum):
    """What a fact is about."""

    ACCOUNT = "account"
    GROUP = "group"
    APP = "app"


#: What events of a kind are about, where it is not the account.
_ABOUT: Mapping[Kind, ObjectType] = {
    Kind.GROUP_MEMBER_REMOVED: ObjectType.GROUP,
    Kind.GROUP_DELETED: ObjectType.GROUP,
    Kind.GROUP_MEMBER_ADDED: ObjectType.GROUP,
    Kind.GROUP_CHANGED: ObjectType.GROUP,
    Kind.APP_ACCESS_REMOVED: ObjectType.APP,
    Kind.APP_ACCESS_ADDED: ObjectType.APP,
}


def thing_of(kind: Kind, group_id: str | None, app_id: str | None) -> tuple[ObjectType, str]:
    """What an event of this kind is about; it may name both, such as the end of a group's app."""
    object_type = _ABOUT.get(kind, ObjectType.ACCOUNT)
    named = {ObjectType.ACCOUNT: None, ObjectType.GROUP: group_id, ObjectType.APP: app_id}
    return object_type, named[object_type] or ""


class EventState(StrEnum):
    RECEIVED = "received"
    PLANNED = "planned"
    DONE = "done"
    IGNORED = "ignored"
    HELD = "held"
    FAILED = "failed"
    UNREADABLE = "unreadable"


class RevocationState(StrEnum):
    PENDING = "pending"
    SENDING = "sending"
    REMOVED = "removed"
    ABSENT = "absent"
    RETAINED = "retained"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    DEAD = "dead"


OPEN = frozenset({RevocationState.PENDING, RevocationState.SENDING})


class Basis(StrEnum):
    """Whose clock a fact's time comes from."""

    SOURCE = "source"
    ARRIVAL = "arrival"


@dataclass(frozen=True, slots=True)
class AccessEvent:
    """One thing a source said: about one person, or (subject None) about a whole group or app.

    `key` is the IdP's own id of the event where there is one. Where there is none it is a digest of the item and
    `twin` is true: then it tells duplicates apart only until the first of them is planned.
    `occurred_at` None means that the source gave no time: the arrival counts.
    """

    source: str
    kind: Kind
    type: str
    payload: bytes
    key: str | None = None
    twin: bool = False
    subject: str | None = None
    login: str | None = None
    email: str | None = None
    external_id: str | None = None
    group_id: str | None = None
    group_name: str | None = None
    app_id: str | None = None
    app_name: str | None = None
    occurred_at: Micros | None = None
    state: EventState = EventState.RECEIVED
    reason: str | None = None

    @property
    def thing(self) -> tuple[ObjectType, str]:
        """What it is about, as `Fact.thing`; a change may be anything about the account."""
        return thing_of(self.kind, self.group_id, self.app_id)


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """A Velt organization, document or folder. `organization_id` is None for an organization, set for the others."""

    type: str
    id: str
    organization_id: str | None = None

    @classmethod
    def of_velt(cls, given: Mapping[str, Any]) -> Resource:
        """The resource in the shape of `as_velt`, which is also how people write and read it."""
        return cls(given["type"], given["id"], given.get("organizationId"))

    @property
    def organization(self) -> Resource:
        """The organization that it is, or is in."""
        return Resource("organization", self.id if self.organization_id is None else self.organization_id)

    def as_velt(self) -> dict[str, str]:
        """The shape Velt takes: `{"type", "id"}` and, but for an organization, `"organizationId"`."""
        body = {"type": self.type, "id": self.id}
        if self.organization_id is not None:
            body["organizationId"] = self.organization_id
        return body

    def __str__(self) -> str:
        return f"{self.type} {self.id}" + (f" in {self.organization_id}" if self.organization_id else "")


@dataclass(frozen=True, slots=True)
class Fact:
    """What a source last said of one access: subject has (`present`) or lost an account, a group or an app.

    `object_id` is "" for the account itself. `name` is the group's or app's display name, None where never told.
    """

    source: str
    subject: str
    object_type: ObjectType
    object_id: str
    present: bool
    as_of: Micros
    basis: Basis
    name: str | None = None
    event_id: str | None = None

    @property
    def thing(self) -> tuple[ObjectType, str]:
        """What of the subject's it is about: the account, or which group or app."""
        return self.object_type, self.object_id

    @property
    def whose(self) -> tuple[str, str]:
        """Whose access it is, as `Subject.key`."""
        return self.source, self.subject

    @property
    def key(self) -> tuple[str, str, ObjectType, str]:
        """What there is one fact of."""
        return self.source, self.subject, self.object_type, self.object_id

    @property
    def is_lost_account(self) -> bool:
        return self.object_type is ObjectType.ACCOUNT and not self.present


@dataclass(frozen=True, slots=True)
class Subject:
    """A person as one source knows them. `looked_up`: its directory has told them, what is not set is not there."""

    source: str
    id: str
    login: str | None = None
    email: str | None = None
    external_id: str | None = None
    looked_up: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Who it is: the source and its id."""
        return self.source, self.id


class Status(StrEnum):
    """What an account is to its directory. `deleted` can be undone, `gone` is no trace left, `group`: it is a group."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    DELETED = "deleted"
    GONE = "gone"
    GROUP = "group"


#: Accounts of which the directory tells the fields and the groups.
TOLD = frozenset({Status.ACTIVE, Status.SUSPENDED, Status.DEACTIVATED})


@dataclass(frozen=True, slots=True)
class Group:
    """A group with its display name."""

    id: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """What a directory says of one account.

    `fetched_at` is when the question was put: the answer is not older than that as far as the directory knows.
    `groups` are all that the account is in (through other groups too, where the provider can tell): a group that is
    not among them is one it is not in. They are listed for accounts that are not active too, where they are kept.
    `names` has the groups that were asked for and exist, `apps` for each app that was asked for whether the account
    has it. `login`, `email` and `external_id` None: the account has none (or is gone).
    """

    id: str
    status: Status
    fetched_at: Micros
    login: str | None = None
    email: str | None = None
    external_id: str | None = None
    groups: tuple[Group, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    apps: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Guard:
    """How many distinct people may lose something within so many seconds before a person has to approve.

    `account_losses`: whether people who lose their account at a source are counted, and held, too.
    """

    users: int
    within_seconds: float
    account_losses: bool = True


#: Resources, or users, in one call to Velt; its own lists are capped at 30.
MAX_RESOURCES = 30


class Answer(StrEnum):
    """What a call to Velt came to."""

    REMOVED = "removed"
    ABSENT = "absent"
    RETRY = "retry"
    REFUSED = "refused"
    UNAUTHORIZED = "unauthorized"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call to Velt came to, and why.

    `down`: the trouble is Velt's or the network's as a whole, not this call's. `unsure`: the call may have taken
    effect although no success was seen (a timeout, a broken connection). `retry_after`: seconds, from the header.
    """

    answer: Answer
    reason: str
    http_status: int | None = None
    velt_status: str | None = None
    retry_after: float | None = None
    down: bool = False
    unsure: bool = False
    response: bytes = field(default=b"", repr=False)


class Confirmation(StrEnum):
    """What Velt showed when it was asked after a removal."""

    CONFIRMED = "confirmed"
    STILL = "still has access"

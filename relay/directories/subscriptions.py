"""Graph's subscriptions: what there are, and what has to be done to have the right ones.

https://learn.microsoft.com/graph/api/resources/subscription
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relay.answers import excerpt
from relay.directories import graph
from relay.directories.base import checked
from relay.directories.graph import Item
from relay.errors import LookUpFailed
from relay.model import Micros, from_iso, to_iso
from relay.store.subscriptions import DAY, RESOURCES

CHANGES = frozenset({"updated", "deleted"})
NEEDS = "User.Read.All and Group.Read.All"

#: How long a subscription is asked for; 41,760 minutes, an hour less than 29 days and 1 h, are the most.
LIFETIME: Micros = 28 * DAY
#: With less than this left it is renewed. The half: whoever cannot reach Graph, or stands still, for two weeks loses
#: nothing, and each renewal leaves the other half.
RENEW_BEFORE: Micros = 14 * DAY

#: Seconds: while it makes a subscription Graph calls the address twice, and waits 10 s each time.
READ_TIMEOUT, DEADLINE = 30.0, 45.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """One that Graph lists; it never tells the clientState. `resource` is as in RESOURCES, where it is one of them."""

    id: str
    resource: str
    expires_at: Micros
    url: str
    lifecycle_url: str | None
    changes: frozenset[str]


class Verb(StrEnum):
    CREATE = "create"
    RENEW = "renew"
    REAUTHORIZE = "reauthorize"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Action:
    """One call to make: a subscription for `resource`, or what is done to the one with this id."""

    verb: Verb
    resource: str
    id: str = ""


def wanted(
    listed: Sequence[Subscription],
    url: str,
    now: Micros,
    *,
    proven: Collection[str] = (),
    ours: Collection[str] = (),
    asked: Collection[str] = (),
) -> Iterator[Action]:
    """What is to be done, in this order, to have one good subscription for users and one for groups at `url`.

    `proven` are the ids that are known to have today's clientState, `ours` all that this relay made, `asked` those
    that Microsoft wants reauthorized. A new one is made before what it replaces is deleted: for a moment changes come
    twice, which is harmless. Only what notifies `url`, or is `ours`, is ever deleted.
    """
    for resource in RESOURCES:
        mine = [one for one in listed if one.resource == resource and (one.url == url or one.id in ours)]
        good = [one for one in mine if one.id in proven and _is_right(one, url, now)]
        kept = max(good, key=lambda one: one.expires_at, default=None)
        if kept is None:
            yield Action(Verb.CREATE, resource)
        elif kept.expires_at - now < RENEW_BEFORE:
            yield Action(Verb.RENEW, resource, kept.id)  # this reauthorizes too
        elif kept.id in asked:
            yield Action(Verb.REAUTHORIZE, resource, kept.id)
        yield from (Action(Verb.DELETE, resource, one.id) for one in mine if one is not kept)


def _is_right(one: Subscription, url: str, now: Micros) -> bool:
    return one.url == one.lifecycle_url == url and one.changes == CHANGES and one.expires_at > now


class Subscriptions:
    """The calls, for one source as relay.yaml gives it. Every verb raises LookUpFailed."""

    def __init__(self, given: Mapping[str, Any], credential: Callable[[], str]) -> None:
        self._client = graph.client_of(given["graph"], credential, read_timeout=READ_TIMEOUT, deadline=DEADLINE)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def listed(self) -> list[Subscription]:
        """All that this application has in this tenant."""
        return [_subscription(item) for page in graph.pages(self._client, "/subscriptions", NEEDS) for item in page]

    def create(self, resource: str, url: str, client_state: str, now: Micros) -> Subscription:
        """A new one. Before Graph answers it asks `url` to repeat a token: the web process must run."""
        content = {
            "changeType": ",".join(sorted(CHANGES, reverse=True)),
            "resource": resource,
            "notificationUrl": url,
            "lifecycleNotificationUrl": url,
            "clientState": client_state,
            "expirationDateTime": to_iso(now + LIFETIME),
        }
        try:
            answer = self._client.post("/subscriptions", content=content, needs=NEEDS)
        except LookUpFailed as error:
            raise LookUpFailed(excerpt(str(error), {client_state}), error.retry_after) from None
        return _subscription(answer.body)

    def renew(self, subscription_id: str, now: Micros) -> Subscription | None:
        """Make it last; None where it is not there any more."""
        content = {"expirationDateTime": to_iso(now + LIFETIME)}
        answer = self._client.call("PATCH", _path(subscription_id), content=content, answers=(404,), needs=NEEDS)
        return None if answer.status == 404 else _subscription(answer.body)

    def reauthorize(self, subscription_id: str) -> bool:
        """Tell Graph that we still may; False where it is not there any more."""
        path = f"{_path(subscription_id)}/reauthorize"
        return self._client.post(path, answers=(404,), needs=NEEDS).status != 404

    def delete(self, subscription_id: str) -> None:
        """End it, where it has not ended already."""
        self._client.call("DELETE", _path(subscription_id), answers=(404,), needs=NEEDS)


def _path(subscription_id: str) -> str:
    return f"/subscriptions/{checked(subscription_id)}"


def _subscription(item: Item) -> Subscription:
    try:
        resource = "/" + item["resource"].strip("/").lower()
        changes = frozenset(part.strip() for part in item["changeType"].split(","))
        expires_at = from_iso(item["expirationDateTime"])
        url, lifecycle_url = item["notificationUrl"], item.get("lifecycleNotificationUrl")
        return Subscription(item["id"], resource, expires_at, url, lifecycle_url, changes)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise LookUpFailed("Microsoft Graph gave a subscription that is not understood") from None

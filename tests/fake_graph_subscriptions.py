"""The subscriptions of a made-up Entra tenant, with the call back to the address that is to be notified.

https://learn.microsoft.com/graph/api/subscription-post-subscriptions
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import requests

from relay.model import SECOND, Micros, from_iso
from tests.fake_graph_tenant import TENANT, Item

LONGEST = 41_760 * 60 * SECOND
QUOTA = 100
CALL_BACK_SECONDS = 10

Answer = tuple[int, Any]


class Subscriptions:
    """What is subscribed by this application; an ended one is gone without a word."""

    def __init__(self, clock: Callable[[], Micros]) -> None:
        self.quota = QUOTA
        self.verbs: list[str] = []
        self._clock = clock
        self._changed = threading.Condition()
        self._kept: dict[str, dict[str, Any]] = {}
        self._client_states: dict[str, str] = {}

    def live(self) -> list[dict[str, Any]]:
        """As Graph lists them: never with their clientState."""
        now = self._clock()
        self._kept = {key: one for key, one in self._kept.items() if from_iso(one["expirationDateTime"]) > now}
        return list(self._kept.values())

    def wait_for(self, count: int, timeout: float = 20.0) -> None:
        """Until there are so many; AssertionError when it takes too long."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.live()) >= count, timeout), self.live()

    def lose(self, subscription_id: str) -> None:
        """It ends and nobody is told."""
        del self._kept[subscription_id]

    def subscribers(self, resource: str) -> list[tuple[str, str, Micros]]:
        return [
            (one["id"], self._client_states[one["id"]], from_iso(one["expirationDateTime"]))
            for one in self.live()
            if one["resource"].strip("/").lower() == resource.strip("/")
        ]

    def by_hand(self, client_state: str) -> None:
        """Subscriptions for /users and /groups that nobody has to keep alive."""
        for resource in ("/users", "/groups"):
            self._keep({"resource": resource, "expirationDateTime": "2099-01-01T00:00:00Z"}, client_state)

    def lifecycle(self, subscription_id: str, event: str) -> Item:
        """A lifecycle notification, such as reauthorizationRequired, in the form that was seen."""
        return {
            "subscriptionId": subscription_id,
            "subscriptionExpirationDateTime": self._kept.get(subscription_id, {}).get(
                "expirationDateTime", "2030-01-01T00:00:00Z"
            ),
            "organizationId": TENANT,
            "clientState": self._client_states[subscription_id],
            "lifecycleEvent": event,
            "resource": None,
            "changeType": None,
        }

    # what the server asks

    def create(self, given: dict[str, Any]) -> Answer:
        self.verbs.append("create")
        changes = set(str(given.get("changeType")).split(","))
        if not changes <= {"updated", "deleted"}:
            return _bad(f"Invalid 'changeType' attribute: '{given.get('changeType')}'.")
        if given.get("resource", "").strip("/").lower() not in ("users", "groups"):
            return _bad("Invalid resource.")
        if not self._may_last_until(given["expirationDateTime"]):
            return _bad("Subscription expiration can only be 41760 minutes in the future.")
        if len(given.get("clientState") or "") > 128:
            return _bad("clientState is longer than 128 characters.")
        if len(self.live()) >= self.quota:
            return 403, _error("ExtensionError", "Quota of 100 subscriptions for this application is reached.")
        for name in ("notificationUrl", "lifecycleNotificationUrl"):
            if given.get(name) and (trouble := _call_back(given[name])):
                return _bad(trouble)
        state = given.get("clientState") or ""
        return 201, self._keep({k: v for k, v in given.items() if k != "clientState"}, state)

    def renew(self, subscription_id: str, given: dict[str, Any]) -> Answer:
        self.verbs.append("renew")
        if (one := self._found(subscription_id)) is None:
            return _missing()
        if not self._may_last_until(given["expirationDateTime"]):
            return _bad("Subscription expiration can only be 41760 minutes in the future.")
        one["expirationDateTime"] = given["expirationDateTime"]
        return 200, one

    def reauthorize(self, subscription_id: str) -> Answer:
        self.verbs.append("reauthorize")
        return _missing() if self._found(subscription_id) is None else (204, None)

    def delete(self, subscription_id: str) -> Answer:
        self.verbs.append("delete")
        if self._found(subscription_id) is None:
            return _missing()
        del self._kept[subscription_id]
        return 204, None

    def _found(self, subscription_id: str) -> dict[str, Any] | None:
        return next((one for one in self.live() if one["id"] == subscription_id), None)

    def _keep(self, given: dict[str, Any], client_state: str) -> dict[str, Any]:
        one = {"id": str(uuid4()), "clientState": None, **given}
        self._client_states[one["id"]] = client_state
        with self._changed:
            self._kept[one["id"]] = one
            self._changed.notify_all()
        return one

    def _may_last_until(self, text: str) -> bool:
        return 0 < from_iso(text) - self._clock() <= LONGEST


def _call_back(url: str) -> str | None:
    """Ask the address to repeat a token; what the creator is told when it does not."""
    token = f"Validation: Testing client application reachability for subscription Request-Id: {uuid4()}"
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy of whoever runs the tests
            answer = session.post(
                url,
                params={"validationToken": token},
                headers={"Content-Type": "text/plain; charset=utf-8"},
                timeout=CALL_BACK_SECONDS,
            )
    except requests.RequestException:
        return "Subscription validation request timed out."
    if answer.status_code != 200:
        return f"Subscription validation request failed. HTTP status code is '{answer.status_code}'."
    if answer.text != token or not answer.headers.get("Content-Type", "").startswith("text/plain"):
        return "Subscription validation request failed. Response must exactly match validationToken."
    return None


def _bad(text: str) -> Answer:
    return 400, _error("InvalidRequest", text)


def _missing() -> Answer:
    return 404, _error("ResourceNotFound", "The object was not found.")


def _error(code: str, text: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": text}}

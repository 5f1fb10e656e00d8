"""Keeps the Graph subscriptions of Entra sources with a `public_url`: made, renewed, made anew, one worker at a time.

Graph ends a subscription after 29 days, and any other day, without a word. So each worker looks every few seconds
whether something is due; the one that gets the lease asks Graph, does what relay/directories/subscriptions.py says, and
writes down what there is now, for everybody to see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from relay import log
from relay.directories.subscriptions import Action, Subscription, Subscriptions, Verb, wanted
from relay.errors import LookUpFailed, Unreadable
from relay.model import SECOND, Micros
from relay.store import leases
from relay.store import subscriptions as kept
from relay.store.database import Database
from relay.store.subscriptions import RESOURCES, Heard, Live, Record

# https://learn.microsoft.com/graph/change-notifications-lifecycle-events
REAUTHORIZE = "reauthorizationRequired"
LOST = ("missed", "subscriptionRemoved")

LEASE = "subscriptions"
#: Seconds for the calls of one source; the lease is taken anew for each.
LEASE_SECONDS = 300.0

#: Between two looks at Graph: so long a lost subscription may stay unnoticed.
LOOK: Micros = 900 * SECOND
#: The same after a failure: the web process may just be starting, and Graph calls it back.
LOOK_AGAIN: Micros = 60 * SECOND
#: Events that arrived so long before the last look are read again: they may have been committed after it.
OVERLAP: Micros = 10 * SECOND


@dataclass(frozen=True, slots=True)
class Target:
    """A source whose subscriptions are to be kept; `url` is where Graph shall send, `client_state` what with."""

    url: str
    client_state: Callable[[], str]
    calls: Callable[[], Subscriptions]

    def proof(self) -> str:
        """16 hex digits that name the address and the clientState in use without telling it."""
        told = f"{self.url} {self.client_state()}".encode("utf-8", "surrogateescape")
        return hashlib.sha256(told).hexdigest()[:16]


class Keeper:
    """See the module. `targets` gives the sources as relay.yaml is now, `owner` is this worker's name."""

    def __init__(self, database: Database, owner: str, targets: Callable[[], Mapping[str, Target]]) -> None:
        self._database = database
        self._owner = owner
        self._targets = targets
        self._read_to: Micros | None = None
        self._log = log.get(work="subscriptions")

    def turn(self) -> bool:
        """Do what is due; True when a source was looked at. Raises Unavailable."""
        targets = self._targets()
        with self._database.read() as connection:
            now = self._database.now(connection)
            records = {record.source: record for record in kept.records(connection)}
            heard = kept.lifecycle(connection, self._since(records.values(), now) - OVERLAP)
        self._read_to = now
        if gone := records.keys() - targets.keys():
            kept.forget(self._database, gone)
        due = [name for name, target in targets.items() if _is_due(records.get(name), target, heard, now)]
        if not due or not self._owns():
            return False
        try:
            looked = [self._look(source, targets[source]) for source in due if self._owns()]
            return any(looked)
        finally:
            leases.give_back(self._database, LEASE, self._owner)

    def _owns(self) -> bool:
        return leases.take(self._database, LEASE, self._owner, LEASE_SECONDS)

    def _since(self, records: Iterable[Record], now: Micros) -> Micros:
        """From when on lifecycle notifications are news: since this worker's last turn, at first since anybody's look.

        One that nobody obeys at once, as its worker has died, is read again by the next look.
        """
        return min((record.looked_at for record in records), default=now) if self._read_to is None else self._read_to

    def _look(self, source: str, target: Target) -> bool:
        """Put one source's subscriptions in order; False where another worker has just done so."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            known = {record.source: record for record in kept.records(connection)}
            record = known.get(source, Record(source, looked_at=now))
            heard = [one for one in kept.lifecycle(connection, record.looked_at - OVERLAP) if one.source == source]
        if not _is_due(known.get(source), target, heard, now):
            return False
        with closing(target.calls()) as calls:
            look = _Look(record, target, calls, now, heard)
            look.run()
        with self._database.read() as connection:
            ended = self._database.now(connection)
        kept.write(self._database, look.record(ended))
        for line in look.done:
            self._log.info("subscription", source=source, **line)
        if look.failures:
            self._log.error("subscriptions not in order", source=source, reason="; ".join(look.failures))
        return True


def _is_due(record: Record | None, target: Target, heard: Iterable[Heard], now: Micros) -> bool:
    if record is None or now >= record.next_at or record.proof != target.proof():
        return True
    return any(one.source == record.source and one.event_id not in record.heard for one in heard)


class _Look:
    """One look at Graph: what was there, what was done, what is there now."""

    def __init__(self, before: Record, target: Target, calls: Subscriptions, now: Micros, heard: list[Heard]) -> None:
        self._before, self._target, self._calls, self._now, self._heard = before, target, calls, now, heard
        self._proof = target.proof()
        self._live: dict[str, Live] = {}
        news = [one for one in heard if one.event_id not in before.heard]
        self._asked = {*before.asked, *(one.subscription or "" for one in news if one.name == REAUTHORIZE)}
        self._gaps = [f"Microsoft said {one.name}" for one in news if one.name in LOST]
        self._error: str | None = None
        self._errors: dict[str, str] = {}
        self.done: list[dict[str, str]] = []

    @property
    def failures(self) -> list[str]:
        """What failed: to be told what there is, or what was to be done for each resource."""
        return [self._error] if self._error is not None else list(self._errors.values())

    def run(self) -> None:
        """Ask Graph, and do what is to be done; what fails is in `failures`."""
        try:
            listed = self._calls.listed()
        except LookUpFailed as error:
            self._error = str(error)
            self._live = {one.id: one for one in self._before.live if one.expires_at > self._now}
            return
        found = {one.id: one for one in listed if one.expires_at > self._now}
        made = {one.id: one for one in self._before.live}
        self._live = {key: replace(one, expires_at=found[key].expires_at) for key, one in made.items() if key in found}
        self._gaps += [f"the subscription for {one.resource} was lost" for key, one in made.items() if key not in found]
        proven = [key for key, one in made.items() if one.proof == self._proof]
        actions = list(wanted(listed, self._target.url, self._now, proven=proven, ours=made, asked=self._asked))
        for resource in RESOURCES:
            self._do(resource, [action for action in actions if action.resource == resource])

    def _do(self, resource: str, actions: list[Action]) -> None:
        """The actions for one resource; after a failure no more of them: what works stays."""
        for action in actions:
            try:
                self._act(action)
            except (LookUpFailed, Unreadable) as error:
                self._errors[resource] = f"{action.verb} for {resource}: {error}"
                return
            self.done.append({"did": action.verb, "resource": action.resource, "id": action.id})

    def _act(self, action: Action) -> None:
        if action.verb is Verb.CREATE:
            self._create(action.resource)
        elif action.verb is Verb.DELETE:
            self._calls.delete(action.id)
            self._live.pop(action.id, None)
        elif not self._prolong(action):  # it has ended since it was listed
            del self._live[action.id]
            self._create(action.resource)

    def _prolong(self, action: Action) -> bool:
        if action.verb is Verb.REAUTHORIZE:
            there = self._calls.reauthorize(action.id)
        else:
            renewed = self._calls.renew(action.id, self._now)
            there = renewed is not None
            if renewed is not None:
                self._keep(renewed)
        self._asked.discard(action.id)
        return there

    def _create(self, resource: str) -> None:
        state = self._target.client_state()
        if not state:
            raise LookUpFailed("the clientState is not set: see client_state in relay.yaml")
        new = self._calls.create(resource, self._target.url, state, self._now)
        if not any(one.resource == resource for one in self._live.values()):
            self._gaps.append(f"there was no subscription for {resource}")
        self._keep(new)

    def _keep(self, found: Subscription) -> None:
        self._live[found.id] = Live(found.id, found.resource, found.expires_at, self._proof)

    def record(self, ended: Micros) -> Record:
        """What to write down at the end. What was asked for a subscription that is gone is not asked any more."""
        gap = "; ".join(dict.fromkeys(self._gaps))
        return Record(
            self._before.source,
            proof=self._proof,
            live=tuple(self._live.values()),
            error=self._error,
            errors=self._errors,
            looked_at=self._now,
            next_at=self._now + (LOOK_AGAIN if self.failures else LOOK),
            heard=tuple(one.event_id for one in self._heard),
            asked=tuple(sorted(self._asked & self._live.keys())),
            gap_at=ended if gap else self._before.gap_at,
            gap=gap or self._before.gap,
        )

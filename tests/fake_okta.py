"""A made-up Okta organization for tests, with people, groups, apps, a System Log and a real HTTP API on loopback.

    with FakeOkta() as okta:
        ada, eng = okta.add_user("ada@acme.example"), okta.add_group("Engineering")
        okta.join(ada, eng)
        went = okta.leave(ada, eng)                       # the events that Okta would send
        okta.hook_body(*went)                             # as one delivery; or deliver them never, twice, late
        ...                                               # point a directory at okta.url with okta.api_token

Every change appends to the System Log, and gives the events for a hook: the same `uuid`s, in the form of deliveries,
which leave null members out. As Okta does it: a deactivated person keeps the groups and loses the apps; suspending and
unsuspending send nothing but themselves; a deleted group or app names nobody.

    okta.lag(2)              # the next two answers about people, groups and apps are as before the last change
    okta.script(throttled(7), error("E0000009"))          # the next answers, whatever is asked
    okta.page_size = 2       # no page is longer
    okta.forget_cursors()    # the System Log refuses the links that it gave
    okta.scopes.discard("okta.apps.read"); okta.issued.clear(); okta.api_token = "another"
    okta.trust("0oaRelay", public_key)                    # a service app, which may get access tokens

`okta.requests` holds what was asked, the calls for a token included.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import parse_qs

from joserfc.jwk import ECKey, RSAKey

from relay.model import Micros, now, to_iso
from tests import fake_okta_api
from tests.fake_okta_api import SCOPES, Answer, Request
from tests.payloads import (
    LEGACY_DELETE,
    LEGACY_INSERT,
    okta_app,
    okta_app_user,
    okta_event,
    okta_group,
    okta_hook,
    okta_user,
    to_bytes,
)

Event = dict[str, Any]
EVERYONE = "00gEveryone"


@dataclass(frozen=True)
class Person:
    """One user of the organization; `profile` has what else an organization may keep."""

    id: str
    login: str
    email: str
    status: str = "ACTIVE"
    profile: tuple[tuple[str, str], ...] = ()

    def as_okta(self) -> dict[str, Any]:
        profile = {"login": self.login, "email": self.email, "firstName": "Ada", **dict(self.profile)}
        return {"id": self.id, "status": self.status, "profile": profile, "type": {"id": "oty1"}}


@dataclass(frozen=True)
class State:
    """The organization at one moment: never changed, only replaced."""

    users: dict[str, Person]
    groups: dict[str, str]
    apps: dict[str, tuple[str, str]]
    members: frozenset[tuple[str, str]] = frozenset()
    assigned: frozenset[tuple[str, str]] = frozenset()

    def person(self, name: str) -> Person | None:
        """By id or login: Okta takes both in the same place."""
        return self.users.get(name) or next((user for user in self.users.values() if user.login == name), None)

    def group(self, group: str) -> dict[str, Any]:
        kind = "BUILT_IN" if group == EVERYONE else "OKTA_GROUP"
        return {"id": group, "type": kind, "profile": {"name": self.groups[group], "description": None}}


class FakeOkta:
    """See the module. `clock` gives the time of the events."""

    def __init__(self, clock: Callable[[], Micros] = now) -> None:
        self.api_token = "acme-okta-api-token"
        self.scopes = set(SCOPES.values())
        self.page_size = 10_000
        self.log: list[Event] = []
        self.cursor_age = 0
        self.requests: list[Request] = []
        self.issued: dict[str, set[str]] = {}
        self.used_assertions: set[str] = set()
        self.client_id = ""
        self.client_key: RSAKey | ECKey | None = None
        self.client_key_id: str | None = None
        self.token_seconds = 3600
        self.token_type = "Bearer"
        self.skew = 0.0
        self._clock = clock
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._script: list[Answer] = []
        self._stale = 0
        self._depth = 0
        self.state = self._before = State({}, {EVERYONE: "Everyone"}, {})

    def __enter__(self) -> Self:
        self._server = fake_okta_api.Server(self._respond)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.stop()

    # people

    def add_user(self, login: str, *, status: str = "ACTIVE", email: str | None = None, **profile: str) -> str:
        """The id of a new person, who is in Everyone and nothing else."""
        user = self._id("00u")
        person = Person(user, login, email or login, status, tuple(profile.items()))
        with self._one_change():
            members = self.state.members | {(EVERYONE, user)}
            self._change(users={**self.state.users, user: person}, members=members)
            self._tell("user.lifecycle.create", okta_user(user, login))
        return user

    def set_user(self, user: str, **fields: Any) -> None:
        """Change the status, login or email without an event (PASSWORD_EXPIRED, LOCKED_OUT and their like)."""
        with self._one_change():
            self._change(users={**self.state.users, user: replace(self.state.users[user], **fields)})

    def suspend(self, user: str) -> list[Event]:
        return self._turn(user, "SUSPENDED", "suspend")

    def unsuspend(self, user: str) -> list[Event]:
        return self._turn(user, "ACTIVE", "unsuspend")

    def activate(self, user: str) -> list[Event]:
        """Back from deactivation: with all groups, without the apps."""
        return self._turn(user, "ACTIVE", "activate")

    def deactivate(self, user: str) -> list[Event]:
        """The deactivation, then one event for each app that went with it."""
        with self._one_change():
            apps = sorted(app for app, person in self.state.assigned if person == user)
            found = self._turn(user, "DEPROVISIONED", "deactivate")
            return found + [event for app in apps for event in self.unassign(user, app)]

    def delete(self, user: str) -> list[Event]:
        """Without a trace; somebody who is in force is deactivated first, as Okta wants it."""
        with self._one_change():
            person = self.state.users[user]
            found = [] if person.status == "DEPROVISIONED" else self.deactivate(user)
            found += self._tell("user.lifecycle.delete.initiated", okta_user(user, person.login))
            mangled = okta_user(user, f"{user}@deleted.invalid")
            found += self._tell("user.account.update_profile", mangled)
            users = {id_: other for id_, other in self.state.users.items() if id_ != user}
            self._change(users=users, members=_without(self.state.members, user))
            self._tell("user.lifecycle.delete.completed", mangled)
            return found

    # groups and apps

    def add_group(self, name: str) -> str:
        return self._add("00g", "group.lifecycle.create", name)

    def rename_group(self, group: str, name: str) -> None:
        with self._one_change():
            self._change(groups={**self.state.groups, group: name})
            self._tell("group.profile.update", okta_group(group, name))

    def join(self, user: str, group: str, *, imported: bool = False) -> list[Event]:
        """`imported`: the group comes from AD or LDAP, whose members have an event type of their own."""
        with self._one_change():
            self._change(members=self.state.members | {(group, user)})
            return self._membership(user, group, "add", LEGACY_INSERT if imported else None)

    def leave(self, user: str, group: str, *, imported: bool = False) -> list[Event]:
        with self._one_change():
            self._change(members=self.state.members - {(group, user)})
            return self._membership(user, group, "remove", LEGACY_DELETE if imported else None)

    def delete_group(self, group: str) -> list[Event]:
        """One event that names the group and nobody in it."""
        with self._one_change():
            name = self.state.groups[group]
            groups = {id_: other for id_, other in self.state.groups.items() if id_ != group}
            self._change(groups=groups, members=_without(self.state.members, group))
            return self._tell("group.lifecycle.delete", okta_group(group, name))

    def add_app(self, name: str) -> str:
        with self._one_change():
            app = self._id("0oa")
            self._change(apps={**self.state.apps, app: (name, "ACTIVE")})
            self._tell("application.lifecycle.create", okta_app(app, name))
            return app

    def assign(self, user: str, app: str) -> list[Event]:
        with self._one_change():
            self._change(assigned=self.state.assigned | {(app, user)})
            return self._assignment(user, app, "add")

    def unassign(self, user: str, app: str) -> list[Event]:
        with self._one_change():
            self._change(assigned=self.state.assigned - {(app, user)})
            return self._assignment(user, app, "remove")

    def deactivate_app(self, app: str) -> list[Event]:
        """The people stay assigned to it."""
        with self._one_change():
            name = self.state.apps[app][0]
            self._change(apps={**self.state.apps, app: (name, "INACTIVE")})
            return self._tell("application.lifecycle.deactivate", okta_app(app, name))

    # how it behaves

    def hook_body(self, *events: Event) -> bytes:
        """These events in one delivery of an Event Hook."""
        return to_bytes(okta_hook(events, eventTime=to_iso(self._clock())))

    def lag(self, answers: int) -> None:
        """The next so many answers show people, groups and apps as they were before the last change."""
        with self._lock:
            self._stale = answers

    def script(self, *answers: Answer) -> None:
        """The next answers to whatever is asked of the API."""
        with self._lock:
            self._script += answers

    def forget_cursors(self) -> None:
        """Refuse every link of the System Log that was given until now."""
        self.cursor_age += 1

    def trust(self, client_id: str, key: RSAKey | ECKey, key_id: str | None = None) -> None:
        """A service app that signs with the private half of `key`."""
        self.client_id, self.client_key, self.client_key_id = client_id, key, key_id

    def asked(self, start: str = "/") -> list[str]:
        """The paths that were asked for and begin so."""
        return [request.path for request in list(self.requests) if request.path.startswith(start)]

    # for tests/fake_okta_api.py

    def view(self) -> State:
        """The state that an answer shows."""
        stale, self._stale = self._stale, max(0, self._stale - 1)
        return self._before if stale else self.state

    def _respond(self, request: Request, content: bytes) -> Answer:
        with self._lock:
            self.requests.append(request)
            if self._script:
                return self._script.pop(0)
            if request.path == "/oauth2/v1/token":
                return fake_okta_api.token(self, {key: all_[0] for key, all_ in parse_qs(content.decode()).items()})
            return fake_okta_api.answer(self, request)

    @contextmanager
    def _one_change(self) -> Iterator[None]:
        """What happens inside is one change, for `lag`."""
        with self._lock:
            if not self._depth:
                self._before = self.state
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def _change(self, **fields: Any) -> None:
        self.state = replace(self.state, **fields)

    def _id(self, prefix: str) -> str:
        return f"{prefix}Acme{next(self._numbers):012}"

    def _add(self, prefix: str, event_type: str, name: str) -> str:
        with self._one_change():
            group = self._id(prefix)
            self._change(groups={**self.state.groups, group: name})
            self._tell(event_type, okta_group(group, name))
            return group

    def _turn(self, user: str, status: str, verb: str) -> list[Event]:
        with self._one_change():
            self.set_user(user, status=status)
            return self._tell(f"user.lifecycle.{verb}", self._target(user))

    def _target(self, user: str) -> dict[str, Any]:
        return okta_user(user, self.state.users[user].login)

    def _membership(self, user: str, group: str, verb: str, legacy: str | None) -> list[Event]:
        event_type = "app.user_management" if legacy else f"group.user_membership.{verb}"
        more = {"legacyEventType": legacy} if legacy else {}
        return self._tell(event_type, self._target(user), okta_group(group, self.state.groups[group]), **more)

    def _assignment(self, user: str, app: str, verb: str) -> list[Event]:
        targets = okta_app_user("0ua" + user[3:]), okta_app(app, self.state.apps[app][0]), self._target(user)
        return self._tell(f"application.user_membership.{verb}", *targets)

    def _tell(self, event_type: str, *targets: dict[str, Any], **more: Any) -> list[Event]:
        """Keep an event in the System Log, where nulls are printed, and give it in the form for a hook."""
        published = f"{to_iso(self._clock())}"[:-4] + "Z"
        event = okta_event(event_type, *targets, published=published, **more)
        same = {"event_id": event["uuid"], "published": published}
        self.log.append(okta_event(event_type, *targets, printed_nulls=True, **same, **more))
        return [event]


def _without(pairs: frozenset[tuple[str, str]], gone: str) -> frozenset[tuple[str, str]]:
    return frozenset(pair for pair in pairs if gone not in pair)

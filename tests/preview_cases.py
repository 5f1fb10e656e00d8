"""What may come, and what had happened before: for tests of what is foretold of an event, and what then comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from relay.model import AccessEvent, Guard, Kind, Status
from relay.store import desk
from relay.store.decisions import Decision
from tests.directory_people import Looked, account
from tests.people import Relay, back, event, gain, group_deleted, left, loss, rules, small_rules

HOUR = 3600
MINUTE = 60

FIRST = "as the event says; its directory would be asked first"


@dataclass(frozen=True)
class Case:
    """What had happened, what comes now, and what that is told to come to: its state and how the reason begins."""

    state: str
    reason: str
    given: AccessEvent
    before: Callable[[Looked], None] = lambda _: None


def known(*given: AccessEvent) -> Callable[[Looked], None]:
    """All of this happened, one after the other, and everything was removed."""

    def happen(looked: Looked) -> None:
        for one in given:
            looked.relay.record(one)
            looked.run()

    return happen


def ruled(*given: AccessEvent, **more: Any) -> Callable[[Looked], None]:
    """The same, and from then on the rules are others."""

    def happen(looked: Looked) -> None:
        known(*given)(looked)
        looked.relay.terms = replace(looked.relay.terms, rules=replace(looked.relay.terms.rules, **more))

    return happen


def capped(looked: Looked) -> None:
    one = {"name": "all of it", "when": {"group.id": ["eng"]}, "max_resources": 1}
    revoke = [{"type": "organization", "id": "acme"}, {"type": "document", "id": "d1", "organizationId": "acme"}]
    looked.relay.terms = replace(looked.relay.terms, rules=rules({**one, "revoke": revoke}))


def by_mail(looked: Looked) -> None:
    looked.relay.terms = replace(looked.relay.terms, rules=small_rules(identity=["{user.email}"]))


def replayed(looked: Looked) -> None:
    [event_id] = looked.relay.record(loss("ada", "eng", None, twin=True))
    looked.run()
    decide(looked.relay, event_id, "retry", parsed=None, replan=True)
    looked.run()


def decide(relay: Relay, event_id: str, verb: str, **more: Any) -> None:
    with relay.database.write() as connection:
        [row] = desk.lock(connection, [event_id])
        now = relay.database.now(connection)
        getattr(desk, verb)(connection, row, Decision("eve", verb, "as agreed"), now, **more)


def members(*subjects: str) -> tuple[AccessEvent, ...]:
    return tuple(gain(subject, "eng", 0) for subject in subjects)


PLAIN = {
    "loss": Case("planned", "", loss("ada", "eng", 5)),
    "no rule": Case("ignored", "no rule matches", loss("ada", "choir", 5)),
    "gain": Case("done", "gain", gain("ada", "eng", 5)),
    "overlap": Case("planned", "", loss("ada", "eng", 5), known(gain("ada", "eng"), gain("ada", "sales"))),
    "all kept": Case("done", "2 retained", loss("ada", "eng", 5), known(gain("ada", "eng"), gain("ada", "eng-2"))),
    "stale loss": Case("done", "2 superseded", loss("ada", "eng", 5), known(gain("ada", "eng", 9))),
    "undated gain": Case(
        "done", "gain; it came without a time", gain("ada", "eng", None), known(loss("ada", "eng", 5))
    ),
    "undated gain, undated loss": Case("done", "gain", gain("ada", "eng", None), known(loss("ada", "eng", None))),
    "twin": Case("planned", "", loss("ada", "eng", None, twin=True), known(gain("ada", "eng"))),
    "repeated twin": Case(
        "ignored", "nothing new", loss("ada", "eng", None, twin=True), known(loss("ada", "eng", None, twin=True))
    ),
    "twin after a gain": Case(
        "planned",
        "",
        loss("ada", "eng", None, twin=True),
        known(loss("ada", "eng", None, twin=True), gain("ada", "eng", None, twin=True)),
    ),
    "repeated": Case("planned", "", loss("ada", "eng", 9), known(loss("ada", "eng", 5))),
    "replayed": Case("ignored", "nothing new", loss("ada", "eng", None, twin=True), replayed),
    "nobody": Case("failed", "no Velt user id", loss("ada", "eng", 5), by_mail),
    "nobody gains": Case("done", "gain", gain("ada", "eng", 5), by_mail),
    "change": Case("ignored", "account.changed takes nothing", event(Kind.ACCOUNT_CHANGED)),
    "leaver": Case("planned", "", left("ada", 5), known(gain("ada", "eng"))),
    "leaver of two names": Case("planned", "", left("ada", 9, login="a.king"), known(gain("ada", "eng", login="ada"))),
    "leaver who came back": Case("done", "", left("ada", 5), known(gain("ada", "eng"), back("ada", 9))),
    "renamed": Case(
        "planned",
        "",
        loss("ada", "eng", 9),
        known(gain("ada", "eng", login="ada"), gain("ada", "sales", 2, login="a.king")),
    ),
    "two accounts": Case(
        "done",
        "2 retained",
        loss("ada", "eng", 9, login="ada"),
        known(gain("ada", "eng", login="ada"), gain("ada-2", "eng", login="ada")),
    ),
    "suspended": Case("ignored", "no rule matches", event(Kind.ACCOUNT_SUSPENDED, when=5), known(gain("ada", "eng"))),
    "app": Case("planned", "", event(Kind.APP_ACCESS_REMOVED, when=5, app_id="chat")),
    "guard": Case(
        "held",
        "the guard: more than 2 people",
        loss("ada", "eng", 5),
        ruled(loss("bob", "eng"), loss("eve", "eng"), guard=Guard(2, HOUR)),
    ),
    "guard, again": Case(
        "planned",
        "",
        loss("ada", "eng", 5),
        ruled(loss("ada", "eng"), loss("bob", "eng"), guard=Guard(1, HOUR)),
    ),
    "too much": Case("held", "the rule 'all of it' would take 2", loss("ada", "eng", 5), capped),
}


GROUPS = {
    "members": Case(
        "done", "3 known members", group_deleted("eng", 9), known(*members("ada", "bob", "eve"), gain("bob", "sales"))
    ),
    "nobody": Case("ignored", "no member of group eng is known", group_deleted("eng", 9)),
    "many": Case(
        "done", "12 known members", group_deleted("eng", 9), known(*members(*(f"u{n:02}" for n in range(12))))
    ),
    "ten": Case("done", "10 known members", group_deleted("eng", 9), known(*members(*(f"u{n:02}" for n in range(10))))),
    "held": Case(
        "held",
        "the guard: up to 3 people",
        group_deleted("eng", 9),
        ruled(*members("ada", "bob", "eve"), guard=Guard(2, HOUR)),
    ),
}


def change(when: float | None = HOUR - 10, **more: Any) -> AccessEvent:
    return event(Kind.ACCOUNT_CHANGED, "ada", when, **more)


def lost_by_answer(looked: Looked) -> None:
    looked.directory.accounts["ada"] = account("ada")
    known(loss("ada", "eng", 5))(looked)


MAIL = "ada@acme.example"
WITHOUT_ANSWER = {
    "loss": Case("planned", FIRST, loss("ada", "eng", 5, email=MAIL)),
    "loss that takes nothing": Case("ignored", f"{FIRST}; no rule matches", loss("ada", "choir", 5, email=MAIL)),
    "somebody unknown": Case("received", "waiting for a look-up: user.email", loss("ada", "eng", 5)),
    "change": Case("received", "waiting for a look-up", change(email=MAIL)),
    "account loss": Case("planned", "", left("ada", 5, email=MAIL)),
    "gain": Case("done", "gain", gain("ada", "eng", 5, email=MAIL)),
    "undated gain": Case(
        "done",
        f"{FIRST}; gain; it came without a time",
        gain("ada", "eng", None),
        lost_by_answer,
    ),
    "app": Case("ignored", f"{FIRST}; no member of app chat", event(Kind.APP_ACCESS_REMOVED, None, 5, app_id="chat")),
    "group that changed": Case(
        "received", "waiting for a look-up: group eng", event(Kind.GROUP_CHANGED, None, 5, group_id="eng")
    ),
}


def tells(status: Status = Status.ACTIVE, *groups: str, before: tuple[AccessEvent, ...] = (), **more: Any) -> Any:
    """What happened before, while the directory said that Ada was in eng; what it says now."""

    def happen(looked: Looked) -> None:
        looked.directory.accounts["ada"] = account("ada", groups=["eng"])
        known(*before)(looked)
        looked.directory.accounts["ada"] = account("ada", status, groups, **more)

    return happen


ANSWERED = {
    "not a member": Case("planned", "", loss("ada", "eng", HOUR - 10), tells(Status.ACTIVE, "everyone")),
    "overlap": Case("planned", "", loss("ada", "eng", HOUR - 10), tells(Status.ACTIVE, "sales")),
    "still a member": Case("ignored", "still a member", loss("ada", "eng", MINUTE), tells(Status.ACTIVE, "eng")),
    "may lag": Case(
        "received",
        "waiting for a look-up: the directory says still a member, but it may lag behind the news of ",
        loss("ada", "eng", HOUR - 10),
        tells(Status.ACTIVE, "eng"),
    ),
    "known": Case(
        "planned",
        "",
        loss("ada", "eng", HOUR - 10),
        tells(Status.ACTIVE, "sales", before=(gain("ada", "eng"),)),
    ),
    "nobody": Case(
        "failed", "no Velt user id", loss("ada", "eng", 5), tells(Status.DEACTIVATED, "eng", email=None, login=None)
    ),
    "suspended": Case("ignored", "no rule matches", change(), tells(Status.SUSPENDED, "eng")),
    "deactivated": Case("planned", "", change(), tells(Status.DEACTIVATED, "eng", email=MAIL)),
    "nothing lost": Case("ignored", "the account is active: nothing was lost", change(5), tells(Status.ACTIVE, "eng")),
    "perhaps nothing lost": Case("received", "waiting for a look-up: ", change(), tells(Status.ACTIVE, "eng")),
    "leaver": Case(
        "planned",
        "",
        left("ada", HOUR - 10, email=MAIL),
        tells(Status.DEACTIVATED, "eng", "sales", email=MAIL, before=(gain("ada", "eng"),)),
    ),
    "leaver who is back": Case(
        "ignored",
        "the account is active",
        left("ada", 5),
        tells(Status.ACTIVE, "eng", before=(gain("ada", "eng"), back("ada", 9))),
    ),
    "undated gain": Case(
        "done",
        "gain",
        gain("ada", "eng", None),
        tells(Status.ACTIVE, "eng", before=(loss("ada", "eng", -HOUR),)),
    ),
    "new address": Case(
        "planned",
        "",
        loss("ada", "eng", HOUR - 10),
        tells(Status.ACTIVE, "everyone", email="a.king@acme.example", before=(gain("ada", "eng"),)),
    ),
    "app": Case("planned", "", event(Kind.APP_ACCESS_REMOVED, "ada", HOUR - 10, app_id="chat"), tells()),
}

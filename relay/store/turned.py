"""What only look-ups tell: groups that somebody has, or has no more, through other groups, and what an account became.

Entra tells of direct members only, and of an account only that it changed. So whoever gains or loses a group there, or
is out of force by one answer, is looked up once more when no copy of the directory can lag behind that any longer; and
where an answer turns over what was known, an event of its own is recorded, which goes the way of all others: rules,
guard, overlap, what is to be granted again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row

from relay.model import ACCOUNT_LOSSES, AccessEvent, Account, Basis, Fact, Kind, Micros, ObjectType
from relay.rules import RuleSet
from relay.store import look_ups
from relay.store.look_ups import About, Question
from relay.store.record import insert_events, row_of
from relay.truth import YOUNG, Finding, standing, stands_until

LOOK_UP = "look-up"

Key: TypeAlias = tuple[ObjectType, str]

_ASKED_AGAIN = ACCOUNT_LOSSES | {Kind.GROUP_MEMBER_ADDED, Kind.GROUP_MEMBER_REMOVED, Kind.GROUP_DELETED}
_PAYLOAD: Mapping[bool, bytes] = {
    True: b'{"look-up":"the directory lists this group again, and no message had told it"}',
    False: b'{"look-up":"the directory does not list this group any more, and no message had told it"}',
}


def ask_later(
    connection: Connection, rules: RuleSet, row: Row[Any], kind: Kind, answer: Account | None, now: Micros
) -> None:
    """Have it looked up what else somebody gained or lost: at once where nothing was asked, and later."""
    if row.source not in rules.terse or kind not in _ASKED_AGAIN:
        return
    if answer is None:
        ask_soon_and_later(connection, row, row.subject, due_at=now)
    elif answer.fetched_at < _settled(row):
        ask_soon_and_later(connection, row, row.subject, due_at=_settled(row))


def tell_ended(
    connection: Connection, rules: RuleSet, row: Row[Any], finding: Finding, answer: Account, now: Micros
) -> None:
    """Record that a group, whose gain is told only now, was lost again: what it gave meanwhile has to go.

    Messages come in any order, so that the one that told the loss may have seemed to tell nothing new.
    """
    if row.source not in rules.terse or row.kind != Kind.GROUP_MEMBER_ADDED.value or finding.has is not False:
        return
    fact = Fact(row.source, row.subject, ObjectType.GROUP, row.group_id, False, row.as_of, Basis.ARRIVAL)
    _record(connection, [_event(fact, row.group_name)], answer, now)


def ask_soon_and_later(connection: Connection, row: Row[Any], subject: str, due_at: Micros) -> None:
    """Have somebody looked up at `due_at`, and again where that is before all copies know of the event."""
    about = About.account(row.source, subject)
    look_ups.want(connection, about, answer_from=max(_settled(row), row.received_at), due_at=due_at)


def _settled(row: Row[Any]) -> Micros:
    """From when on no copy of the directory lags behind an event."""
    return int(row.as_of) + YOUNG + 1


def keep(
    connection: Connection,
    question: Question,
    account: Account,
    told: Iterable[Fact],
    held: Mapping[Key, Fact],
    awaited: Collection[Key],
    now: Micros,
) -> list[Fact]:
    """Of the facts of an answer those that are believed; what they turn over is recorded as events.

    What is too young for this answer is asked about again when it is not. What an account became its event tells.
    """
    young = {fact.thing: fact for fact in standing(account, held.values(), awaited)}
    believed = [fact for fact in told if fact.thing not in young]
    turned = [_event(fact, held[fact.thing].name) for fact in believed if fact.thing in held]
    _record(connection, turned, account, now)
    if young:
        again = [stands_until(fact) + 1 for fact in young.values()]
        due_at = max(min(again), now + look_ups.PAUSE)
        look_ups.want(connection, question, answer_from=max(again), due_at=due_at)
    return [fact for fact in believed if fact.thing not in held or fact.object_id]


def _record(connection: Connection, found: Iterable[AccessEvent], account: Account, now: Micros) -> None:
    rows = [row_of(event, now, found_by=LOOK_UP) for event in found]
    if rows:
        insert_events(connection, [{**row, "look_at": account.fetched_at} for row in rows])  # this answer serves them


def _event(fact: Fact, name: str | None) -> AccessEvent:
    """Without a time, as when it happened nobody says; a twin of the message that may come yet."""
    if fact.object_type is ObjectType.ACCOUNT:
        payload = b'{"look-up":"the account is not what it was known to be, and no message had told it"}'
        kind = Kind.ACCOUNT_CHANGED
        return AccessEvent(fact.source, kind, "look-up.account", payload, twin=True, subject=fact.subject)
    return AccessEvent(
        fact.source,
        Kind.GROUP_MEMBER_ADDED if fact.present else Kind.GROUP_MEMBER_REMOVED,
        "look-up.member",
        _PAYLOAD[fact.present],
        twin=True,
        subject=fact.subject,
        group_id=fact.object_id,
        group_name=fact.name or name,
    )

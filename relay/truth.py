"""What to believe of a directory's answer. Pure, no I/O.

An event is a reason to look, and the directory knows better than the event what is so. But directories answer from
copies that lag behind by seconds and sometimes minutes, and an answer that denies what has just happened is more
likely old than true. So it is asked again, and believed only when it says so still or when the news is old.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from relay.model import (
    ACCOUNT_LOSSES,
    GAINS,
    SECOND,
    TOLD,
    AccessEvent,
    Account,
    Basis,
    Fact,
    Kind,
    Micros,
    ObjectType,
    Status,
)

#: News younger than this is not denied by one answer.
YOUNG: Micros = 900 * SECOND
#: The waits before the same question is put again.
AGAIN: tuple[Micros, ...] = (30 * SECOND, 120 * SECOND, 600 * SECOND)

_LOSS_OF_STATUS: Mapping[Status, Kind] = {
    Status.SUSPENDED: Kind.ACCOUNT_SUSPENDED,
    Status.DEACTIVATED: Kind.ACCOUNT_DEACTIVATED,
    Status.DELETED: Kind.ACCOUNT_DELETED,
    Status.GONE: Kind.ACCOUNT_DELETED,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What an event comes to by a directory's answer.

    `kind` is the loss or gain that it is, None where it is neither. `said` is what the directory says, in words.
    `denies` is the time of the news that the answer contradicts, None where it contradicts nothing. `has`: whether the
    account has the object by this answer, None where it does not tell or the event itself tells it well enough.
    """

    kind: Kind | None
    said: str
    denies: Micros | None = None
    has: bool | None = None


def is_wanted(event: AccessEvent, as_of: Micros, own: Fact | None, now: Micros) -> bool:
    """Whether an event of a person cannot be planned without asking. `own` is what is known of its very object.

    An explicit loss of the account is not delayed, unless it is older than the account's last known gain, or so old
    that the account may well be back: every answer of today knows more. A gain asks only where it has no time of its
    own and there is a loss that it would end: it may have happened before that.
    """
    if event.kind in ACCOUNT_LOSSES:
        return now - as_of >= YOUNG or (own is not None and own.present and own.as_of >= as_of)
    if event.kind in GAINS:
        return event.occurred_at is None and own is not None and not own.present
    return event.kind is not Kind.UNKNOWN


def find(event: AccessEvent, as_of: Micros, answer: Account, own: Fact | None) -> Finding:
    """What the event comes to by this answer."""
    if event.kind is Kind.ACCOUNT_CHANGED:
        return _change(as_of, answer, own)
    has = _has(event, answer)
    held = answer.status is Status.ACTIVE and has
    said = _said(event, answer, has=bool(held))
    if event.kind in GAINS:
        if held:
            return Finding(event.kind, said, denies=own.as_of if own else None, has=True)
        return Finding(None, said, denies=as_of, has=has)
    if held:
        return Finding(None, said, denies=as_of, has=True)
    if own is not None and own.present and (event.occurred_at is None or own.as_of >= as_of):
        # Which came first, this loss or that gain, is not told: the loss may be late and the copy old.
        return Finding(event.kind, said, denies=own.as_of, has=has)
    return Finding(event.kind, said)


def ask_again_at(finding: Finding, fetched_at: Micros, looks: int) -> Micros | None:
    """When to put the question again before the finding is believed, None when it is.

    `looks` is how many answers have denied the same news before.
    """
    if finding.denies is None or fetched_at - finding.denies >= YOUNG or looks >= len(AGAIN):
        return None
    return fetched_at + AGAIN[looks]


def denials(finding: Finding, asked_at: Micros | None, looks: int) -> int:
    """How many of the last `looks` answers denied the same news; `asked_at` is when the next one was to be asked for.

    What has happened since the answer before is other news: a gain while a loss was asked about again and again.
    """
    if not looks or asked_at is None or finding.denies is None:
        return looks
    return 0 if finding.denies > asked_at - AGAIN[looks - 1] else looks


def facts_of(
    source: str, answer: Account, known: Iterable[Fact], awaited: Collection[tuple[ObjectType, str]]
) -> list[Fact]:
    """What an answer adds to what is known of its account.

    It proves no more than that it was so YOUNG before: whatever is younger stands against it. What events still wait
    for (`awaited`) is left to them. That an account is active is news only where it was lost.
    """
    facts = {fact.thing: fact for fact in known}
    at = answer.fetched_at - YOUNG
    told = {(ObjectType.ACCOUNT, ""): answer.status is Status.ACTIVE}
    told |= {(ObjectType.APP, app_id): has for app_id, has in answer.apps.items()}
    if answer.status in TOLD:
        listed = [(ObjectType.GROUP, group.id) for group in answer.groups]
        told |= {key: False for key in facts if key[0] is ObjectType.GROUP} | dict.fromkeys(listed, True)
    return [
        fact_of(source, answer, *key, present, at=at)
        for key, present in told.items()
        if key not in awaited and _is_news(facts.get(key), key[0], present, at)
    ]


def standing(answer: Account, known: Iterable[Fact], awaited: Collection[tuple[ObjectType, str]]) -> list[Fact]:
    """What is known, that an answer denies, and that stands against it: it is too young for this answer."""
    listed = {(ObjectType.GROUP, group.id) for group in answer.groups}
    listed |= {(ObjectType.ACCOUNT, "")} if answer.status is Status.ACTIVE else set()
    told = {ObjectType.ACCOUNT, ObjectType.GROUP} if answer.status in TOLD else {ObjectType.ACCOUNT}
    return [
        fact
        for fact in known
        if fact.object_type in told
        and fact.thing not in awaited
        and fact.present != (fact.thing in listed)
        and answer.fetched_at <= stands_until(fact)
    ]


def stands_until(fact: Fact) -> Micros:
    """The last moment of questions whose answers are not believed against this fact.

    What only an answer has told was so in one of the YOUNG before it, and another copy may not have heard of that yet.
    """
    return fact.as_of + (YOUNG if fact.event_id is not None else 2 * YOUNG)


def fact_of(
    source: str, answer: Account, object_type: ObjectType, object_id: str, present: bool, *, at: Micros
) -> Fact:
    """What an answer says of one object."""
    name = names_of(answer).get(object_id) if object_type is ObjectType.GROUP else None
    return Fact(source, answer.id, object_type, object_id, present, at, Basis.SOURCE, name)


def believed_at(finding: Finding, as_of: Micros, fetched_at: Micros) -> Micros:
    """The time of the fact that a believed answer makes of an event: just after the news that it denies."""
    return max(as_of, fetched_at - YOUNG, finding.denies + 1 if finding.denies is not None else 0)


def knows_all(event: AccessEvent, answer: Account) -> bool:
    """Whether an answer has told all groups of the account; one that does not know of its loss yet is too old."""
    return answer.status in TOLD and not (event.kind in ACCOUNT_LOSSES and answer.status is Status.ACTIVE)


def names_of(answer: Account) -> dict[str, str]:
    """The names of groups that an answer tells, by id."""
    asked = {group_id: name for group_id, name in answer.names.items() if name}
    return asked | {group.id: group.name for group in answer.groups if group.name}


def asked_names(answer: Account) -> frozenset[str]:
    """The groups whose names an answer tells or of which it tells that there is none."""
    return frozenset(answer.names) | {group.id for group in answer.groups}


def _change(as_of: Micros, answer: Account, own: Fact | None) -> Finding:
    loss = _LOSS_OF_STATUS.get(answer.status)
    said = f"the account is {answer.status}"
    if loss is not None:
        if own is None or (not own.present and own.event_id is None):  # no event has told the loss yet: this one does
            return Finding(loss, said, has=False)
        # Of an account that is known to be lost, the change may be that it came back.
        return Finding(loss, said, denies=own.as_of if own.present else as_of, has=False)
    if own is not None and not own.present:
        return Finding(Kind.ACCOUNT_ACTIVATED, said, denies=own.as_of, has=True)
    # That nothing was lost denies what the change may have been.
    return Finding(None, f"{said}: nothing was lost", denies=as_of)


def _has(event: AccessEvent, answer: Account) -> bool | None:
    """Whether an account has what the event is about, in force or not; None where the answer cannot tell."""
    object_type, object_id = event.thing
    if object_type is ObjectType.ACCOUNT:
        return answer.status is Status.ACTIVE
    if answer.status not in TOLD:
        return None
    if object_type is ObjectType.APP:
        return answer.apps.get(object_id, False)
    return any(group.id == object_id for group in answer.groups)


def _said(event: AccessEvent, answer: Account, *, has: bool) -> str:
    if answer.status is not Status.ACTIVE:
        return f"the account is {answer.status}"
    object_type, _ = event.thing
    if object_type is ObjectType.ACCOUNT:
        return "the account is active"
    if object_type is ObjectType.APP:
        return "still has the app" if has else "does not have the app"
    return "still a member" if has else "not a member"


def _is_news(old: Fact | None, kind: ObjectType, present: bool, at: Micros) -> bool:
    if old is None:
        return present is not (kind is ObjectType.ACCOUNT)
    return old.present != present and old.as_of < at

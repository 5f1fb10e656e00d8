"""Look-ups: what is to be asked of a directory, who asks, and what it said.

One row an account (or an event about a whole group or app). Whoever needs an answer says from which time it must be;
any number of events of one account wait for the same answer. Asking happens elsewhere, outside of every transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from relay.model import SECOND, Account, EventState, Group, Micros, Status
from relay.store.database import Database, insert_into
from relay.store.tables import events, look_ups

ACCOUNT = "account"
EVENT = "event"

WAITING = "waiting for a look-up"
UNKNOWN = f"{WAITING}: who this is must be known first"

#: A question that nobody asks at this moment, and that has not failed.
_NEVER_FAILED: Mapping[str, Any] = {"asked_until": None, "failing_since": None, "failures": 0, "reason": None}

#: Whoever asks has this long; then somebody else asks.
LEASE: Micros = 120 * SECOND

#: Between an answer that did not serve and the next question. Its time is that of the clock of whoever asked, which may
#: be behind the one of what is wanted, and a directory may not tell what it was asked: neither is a reason to hammer.
PAUSE: Micros = SECOND


@dataclass(frozen=True, slots=True)
class About:
    """What a question is about: an account by its id in the source, or an event of a whole group or app."""

    source: str
    object_type: str
    object_id: str

    @classmethod
    def account(cls, source: str, subject: str) -> Self:
        return cls(source, ACCOUNT, subject)

    @classmethod
    def of_account(cls, row: Row[Any]) -> Self:
        """The account of a row of `events`."""
        return cls(row.source, ACCOUNT, row.subject)

    @classmethod
    def of_event(cls, row: Row[Any]) -> Self:
        """The event itself that a row of `events` is."""
        return cls(row.source, EVENT, row.id)


@dataclass(frozen=True, slots=True)
class Question(About):
    """What to ask of a source's directory: an account, with the apps of its events and the groups that these name by id
    only, or an event.
    """

    groups: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    failures: int = 0


def counts_from(row: Row[Any]) -> Micros:
    """From when on an answer counts for an event."""
    return int(row.look_at or row.received_at)


def waiting(about: About) -> ColumnElement[bool]:
    """The condition on `events` that they are not planned yet, and that this is about them."""
    named = events.c.subject if about.object_type == ACCOUNT else events.c.id
    return and_(events.c.source == about.source, named == about.object_id, events.c.state == EventState.RECEIVED.value)


def want(connection: Connection, about: About, *, answer_from: Micros, due_at: Micros) -> None:
    """Have it asked, at `due_at` or before, so that there is an answer to a question put at `answer_from` or later."""
    insert = insert_into(connection, look_ups)
    given = insert.excluded
    later = or_(look_ups.c.wanted_at.is_(None), look_ups.c.wanted_at < given.wanted_at)
    sooner = or_(look_ups.c.due_at.is_(None), and_(look_ups.c.due_at > given.due_at, look_ups.c.failures == 0))
    named = {"source": about.source, "object_type": about.object_type, "object_id": about.object_id}
    connection.execute(
        insert.values(**named, wanted_at=answer_from, due_at=due_at).on_conflict_do_update(
            index_elements=["source", "object_type", "object_id"],
            set_={
                "wanted_at": case((later, given.wanted_at), else_=look_ups.c.wanted_at),
                "due_at": case((sooner, given.due_at), else_=look_ups.c.due_at),
            },
        )
    )


def wait(
    connection: Connection,
    row: Row[Any],
    about: About,
    *,
    answer_from: Micros,
    until: Micros,
    due_at: Micros | None = None,
    reason: str | None = None,
    looks: int = 0,
) -> None:
    """Have an event wait, until then at the most, for an answer to a question that is put at `answer_from` or later.

    It is put at `due_at`, None: as soon as the answer counts. `reason` says why, None leaves what was said before.
    `looks`: answers that were not believed so far.
    """
    want(connection, about, answer_from=answer_from, due_at=answer_from if due_at is None else due_at)
    told = {} if reason is None else {"reason": reason}
    connection.execute(
        update(events).where(events.c.id == row.id).values(look_at=answer_from, wait_until=until, looks=looks, **told)
    )


def state_of(connection: Connection, about: About) -> Row[Any] | None:
    """The row of one look-up."""
    return connection.execute(select(look_ups).where(_is(about))).one_or_none()


def was_ever_asked(connection: Connection, source: str) -> bool:
    """Whether a source has, or had, a directory."""
    return connection.execute(select(look_ups.c.source).where(look_ups.c.source == source).limit(1)).first() is not None


def answer_in(row: Row[Any] | None) -> Account | None:
    """The answer that a row of an account's look-up holds."""
    if row is None or row.answer is None:
        return None
    given = json.loads(row.answer)
    groups = tuple(Group(group_id, name) for group_id, name in given.pop("groups"))
    return Account(row.object_id, Status(row.status), row.fetched_at, groups=groups, **given)


def unheard_since(row: Row[Any] | None, fetched_at: Micros) -> Micros:
    """Since when nothing was heard of an account before the answer fetched at `fetched_at`: since the answer before it,
    or else since asking began to fail.
    """
    if row is None:
        return fetched_at
    return int(row.fetched_at or row.failing_since or fetched_at)


def no_answer(row: Row[Any] | None) -> dict[str, str | None]:
    """What is shown of an event that was planned although its look-up gave no answer in time."""
    error = row.reason if row is not None else None
    return {"said": None, "status": None, "asked_at": None, "error": error or "no worker has asked it yet"}


def people_in(row: Row[Any] | None) -> list[str]:
    """The ids of the people of an event about a whole group or app, as a look-up told them."""
    found: list[str] = json.loads(row.answer) if row is not None and row.answer is not None else []
    return found


def next_due(now: Micros | BindParameter[int]) -> Any:
    """The SQL for when the next question is to be asked."""
    return select(func.min(look_ups.c.due_at)).where(_free(now)).scalar_subquery()


def take(database: Database, sources: Collection[str], limit: int) -> list[Question]:
    """Questions that are due, taken for LEASE. Raises Unavailable."""
    with database.write() as connection:
        now = database.now(connection)
        due = (
            select(look_ups)
            .where(look_ups.c.due_at <= now, _free(now), look_ups.c.source.in_(sorted(sources)))
            .order_by(_is_waited_for().desc(), look_ups.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(due).all()
        for row in rows:
            mine = _is(About(row.source, row.object_type, row.object_id))
            connection.execute(update(look_ups).where(mine).values(asked_until=now + LEASE))
        return [_question(connection, row) for row in rows]


def drop(connection: Connection, about: About) -> None:
    """Ask this no more."""
    connection.execute(delete(look_ups).where(_is(about)))


def _is_waited_for() -> ColumnElement[bool]:
    """Whether an event waits for the answer; what is only asked to be sure lets those go first."""
    return exists().where(
        events.c.source == look_ups.c.source,
        events.c.state == EventState.RECEIVED.value,
        events.c.look_at.is_not(None),
        or_(events.c.subject == look_ups.c.object_id, events.c.id == look_ups.c.object_id),
    )


def answered(
    connection: Connection, question: Question, fetched_at: Micros, answer: Account | list[str], now: Micros
) -> None:
    """Write an answer down (for an event the ids of its people); asked again where a newer one is wanted already.

    That is at once where it was wanted after the question had been taken, by the database's clock.
    """
    newer_wanted = look_ups.c.wanted_at > fetched_at
    again_at = case(
        (look_ups.c.wanted_at > now, look_ups.c.wanted_at),
        (look_ups.c.wanted_at > look_ups.c.asked_until - LEASE, now),
        else_=now + PAUSE,
    )
    if isinstance(answer, Account):
        told = {"status": answer.status.value, "answer": json.dumps(_as_json(answer, question.groups))}
    else:
        told = {"answer": json.dumps(answer)}
    connection.execute(
        update(look_ups)
        .where(_is(question))
        .values(
            **told,
            fetched_at=fetched_at,
            due_at=case((newer_wanted, again_at), else_=None),
            **_NEVER_FAILED,
        )
    )


def dropped(connection: Connection, question: Question, due_at: Micros | None) -> None:
    """Have a question, as it was put, end without an answer; what else it is about is asked at `due_at`."""
    connection.execute(update(look_ups).where(_is(question)).values(due_at=due_at, **_NEVER_FAILED))


def drop_others(connection: Connection, sources: Collection[str]) -> None:
    """End every question about other sources than these."""
    others = and_(look_ups.c.source.not_in(sorted(sources)), look_ups.c.due_at.is_not(None))
    connection.execute(update(look_ups).where(others).values(due_at=None, **_NEVER_FAILED))


def failed(database: Database, question: Question, reason: str, seconds: float) -> None:
    """Note that there was no answer; it is asked again in so many seconds. Raises Unavailable.

    Events that somebody works on at this moment are not told: that would be to wait for who may wait for this question.
    """
    with database.write() as connection:
        now = database.now(connection)
        connection.execute(
            update(look_ups)
            .where(_is(question))
            .values(
                due_at=now + int(seconds * SECOND),
                asked_until=None,
                failing_since=func.coalesce(look_ups.c.failing_since, now),
                failures=look_ups.c.failures + 1,
                reason=reason,
            )
        )
        free = select(events.c.id).where(waiting(question), events.c.look_at.is_not(None))
        connection.execute(
            update(events)
            .where(events.c.id.in_(free.with_for_update(skip_locked=True)))
            .values(
                reason=case(
                    (events.c.person_id.is_(None) & events.c.subject.is_not(None), f"{UNKNOWN}, and {reason}"),
                    else_=f"{WAITING}: {reason}",
                )
            )
        )


def failing(connection: Connection) -> list[dict[str, Any]]:
    """For each source whose look-ups fail: how many, since when, and the latest reason."""
    rows = connection.execute(
        select(look_ups.c.source, func.count().label("number"), func.min(look_ups.c.failing_since).label("since"))
        .where(look_ups.c.due_at.is_not(None), look_ups.c.failing_since.is_not(None))
        .group_by(look_ups.c.source)
        .order_by(look_ups.c.source)
    ).all()
    return [{**row._mapping, "reason": _a_reason(connection, row.source)} for row in rows]


def _a_reason(connection: Connection, source: str) -> str | None:
    failing_ones = and_(look_ups.c.source == source, look_ups.c.due_at.is_not(None), look_ups.c.reason.is_not(None))
    newest = select(look_ups.c.reason).where(failing_ones).order_by(look_ups.c.failing_since.desc()).limit(1)
    return connection.execute(newest).scalar()


def _free(now: Micros | BindParameter[int]) -> Any:
    return or_(look_ups.c.asked_until.is_(None), look_ups.c.asked_until <= now)


def _is(about: About) -> ColumnElement[bool]:
    return and_(
        look_ups.c.source == about.source,
        look_ups.c.object_type == about.object_type,
        look_ups.c.object_id == about.object_id,
    )


def _question(connection: Connection, row: Row[Any]) -> Question:
    if row.object_type != ACCOUNT:
        return Question(row.source, row.object_type, row.object_id, failures=row.failures)
    named = connection.execute(
        select(events.c.group_id, events.c.group_name, events.c.app_id)
        .where(waiting(About.account(row.source, row.object_id)))
        .distinct()
    ).all()
    groups = tuple(sorted({one.group_id for one in named if one.group_id and one.group_name is None}))
    apps = tuple(sorted({one.app_id for one in named if one.app_id}))
    return Question(row.source, row.object_type, row.object_id, groups, apps, row.failures)


def _as_json(account: Account, asked: Sequence[str]) -> dict[str, Any]:
    """An answer as it is kept; a group that was asked for and is not there has an empty name."""
    return {
        "login": account.login,
        "email": account.email,
        "external_id": account.external_id,
        "groups": [[group.id, group.name] for group in account.groups],
        "names": {group_id: account.names.get(group_id, "") for group_id in asked} | dict(account.names),
        "apps": dict(account.apps),
    }

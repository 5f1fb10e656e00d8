"""People: who a source's subjects are in Velt, and what is known of their access."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from relay.config_checks import USER_FIELDS
from relay.entitlement import Knowledge, fields_of
from relay.model import (
    TOLD,
    AccessEvent,
    Account,
    EventState,
    Fact,
    Micros,
    ObjectType,
    RevocationState,
    Status,
    Subject,
)
from relay.rules import RuleSet
from relay.store import look_ups
from relay.store.database import insert_into
from relay.store.facts import facts_of
from relay.store.look_ups import About
from relay.store.tables import events, facts, identities, people, revocations
from relay.store.tables import look_ups as look_ups_table


def knowledge_of(connection: Connection, person_id: int) -> Knowledge:
    """The subjects that are this person now, and all their facts."""
    asked = and_(
        look_ups_table.c.source == identities.c.source,
        look_ups_table.c.object_type == look_ups.ACCOUNT,
        look_ups_table.c.object_id == identities.c.subject,
    )
    rows = connection.execute(
        select(identities, look_ups_table.c.status)
        .outerjoin(look_ups_table, asked)
        .where(identities.c.person_id == person_id, identities.c.current)
    ).all()
    subjects = tuple(
        Subject(row.source, row.subject, row.login, row.email, row.external_id, looked_up=row.status in TOLD)
        for row in rows
    )
    return Knowledge(subjects, facts_of(connection, [(subject.source, subject.id) for subject in subjects]))


def people_of(connection: Connection, source: str, subject: str) -> list[int]:
    """Every person (Velt user) that this subject is or has been, the present one first."""
    return list(
        connection.execute(
            select(identities.c.person_id)
            .where(identities.c.source == source, identities.c.subject == subject)
            .order_by(identities.c.current.desc(), identities.c.person_id)
        ).scalars()
    )


def person_now(connection: Connection, source: str, subject: str) -> int | None:
    """The person that this subject is now; None where it never was anybody."""
    return next(iter(people_of(connection, source, subject)), None)


def person_for(connection: Connection, velt_user_id: str) -> int:
    """The id of the row of `people` for this Velt user, made where there is none."""
    connection.execute(insert_into(connection, people).values(velt_user_id=velt_user_id).on_conflict_do_nothing())
    return int(connection.execute(select(people.c.id).where(people.c.velt_user_id == velt_user_id)).scalar_one())


def lock_people(connection: Connection, person_ids: Iterable[int]) -> None:
    """Hold the rows of these people, in ascending order, so that two who do so never wait for each other in a ring."""
    theirs = select(people.c.id).where(people.c.id.in_(list(person_ids))).order_by(people.c.id)
    connection.execute(theirs.with_for_update()).all()


def due_for_planning(connection: Connection, person_ids: Collection[int], now: Micros) -> None:
    """Have these people's events planned, as soon as somebody can.

    They are held first: who works on one of them at this moment ends with a time of their own, and must not end later.
    """
    lock_people(connection, person_ids)
    connection.execute(
        update(people)
        .where(people.c.id.in_(sorted(person_ids)), or_(people.c.plan_at.is_(None), people.c.plan_at > now))
        .values(plan_at=now)
    )


def set_due(connection: Connection, person_id: int, **more: Any) -> None:
    """Note when the person's next event or revocation is to be looked at, and `more` columns of `people`."""
    waiting = select(func.min(func.coalesce(events.c.wait_until, events.c.received_at))).where(
        events.c.state == EventState.RECEIVED.value, events.c.person_id == person_id
    )
    next_at = select(func.min(revocations.c.next_at)).where(
        revocations.c.person_id == person_id, revocations.c.state == RevocationState.PENDING.value
    )
    connection.execute(
        update(people)
        .where(people.c.id == person_id)
        .values(**{"plan_at": waiting.scalar_subquery(), "send_at": next_at.scalar_subquery(), **more})
    )


def end_lease(connection: Connection, person_id: int) -> None:
    """Note that the person's call has ended, and when the next is due."""
    set_due(connection, person_id, lease_token=None, lease_from=None, lease_until=None)


def with_known_names(event: AccessEvent, knowledge: Iterable[Subject], known: Iterable[Fact]) -> AccessEvent:
    """The event with what was told about the same person and group before, where it does not say itself."""
    subject = next((s for s in knowledge if (s.source, s.id) == (event.source, event.subject)), None)
    group = _name(known, event.source, ObjectType.GROUP, event.group_id)
    app = _name(known, event.source, ObjectType.APP, event.app_id)
    return replace(
        event,
        login=event.login or (subject.login if subject else None),
        email=event.email or (subject.email if subject else None),
        external_id=event.external_id or (subject.external_id if subject else None),
        group_name=event.group_name or group,
        app_name=event.app_name or app,
    )


def _name(known: Iterable[Fact], source: str, object_type: ObjectType, object_id: str | None) -> str | None:
    return next(
        (
            f.name
            for f in known
            if (f.source, f.object_type, f.object_id) == (source, object_type, object_id) and f.name
        ),
        None,
    )


Key = tuple[str, str]
Known = dict[Key, list[Row[Any]]]


def identities_of(connection: Connection, rows: Iterable[Any]) -> Known:
    """The identities of the rows' subjects, by (source, subject)."""
    keys = {(row.source, row.subject) for row in rows if row.subject is not None}
    known: Known = {key: [] for key in keys}
    if keys:
        statement = (
            select(identities, people.c.velt_user_id)
            .join(people, people.c.id == identities.c.person_id)
            # Two lists rather than pairs: SQLite finds pairs only by reading the whole table.
            .where(
                identities.c.source.in_({source for source, _ in keys}),
                identities.c.subject.in_({subject for _, subject in keys}),
            )
        )
        for row in connection.execute(statement):
            if (row.source, row.subject) in known:
                known[row.source, row.subject].append(row)
    return known


def answers_for(connection: Connection, rules: RuleSet, known: Known) -> dict[Key, Account]:
    """What directories have said of subjects that are nobody yet, by (source, subject)."""
    return {
        key: answer
        for key, identified in known.items()
        if key[0] in rules.looked_up and not identified
        if (answer := look_ups.answer_in(look_ups.state_of(connection, About.account(*key)))) is not None
    }


def with_answer(row: Row[Any], answer: Account | None) -> Any:
    """The row with what a look-up adds to it."""
    if answer is None:
        return row
    added = {name: getattr(row, name) or getattr(answer, name) for name in ("login", "email", "external_id")}
    return SimpleNamespace(**{**row._mapping, **added})


def velt_user_id_of(
    rules: RuleSet, row: Any, known: list[Row[Any]], answer: Account | None = None
) -> tuple[str | None, str]:
    """The Velt user id for an event; what the event does not tell is taken from what was told before.

    A field that only a look-up fills is unknown until one has told it, and no other takes its place.
    """
    now = next((identity for identity in known if identity.current), None)
    before = now or answer
    login, email, external_id = (
        getattr(row, name) or (getattr(before, name) if before else None) for name in ("login", "email", "external_id")
    )
    is_told = now is not None or _tells_who(answer)
    untold = frozenset() if is_told else rules.looked_up.get(row.source, frozenset())
    subject = Subject(row.source, row.subject, login, email, external_id)
    made, reason = rules.identity.velt_user_id(fields_of(row.source, subject, frozenset(USER_FIELDS) - untold))
    if made is None and now is not None:
        return now.velt_user_id, ""
    return made, reason


def _tells_who(answer: Account | None) -> bool:
    """Whether an answer tells an account's fields, so that one that is not in it is truly absent."""
    return answer is not None and (answer.status in TOLD or answer.login is not None)


def note_listed(connection: Connection, rules: RuleSet, listed: Iterable[AccessEvent], since: Micros) -> set[int]:
    """Note who accounts are by what a listing of their directory says; return those who are somebody else by that.

    `since`: from when on it is so; what an event has told later stands.
    """
    rows = [_Listed(event, since) for event in listed]
    known = identities_of(connection, rows)
    named = [(row, velt_user_id_of(rules, row, known[row.source, row.subject], row.account)[0]) for row in rows]
    found = people_for(connection, {name for _, name in named if name is not None})
    lock_people(connection, found.values())
    turned = set()
    for row, velt_user_id in named:
        before = known[row.source, row.subject]
        if velt_user_id is not None and identify(connection, row, found[velt_user_id], before) and before:
            turned.add(found[velt_user_id])
    return turned


class _Listed:
    """A listed account, as `identify` takes it, and as an answer."""

    def __init__(self, event: AccessEvent, since: Micros) -> None:
        self.source, self.subject, self.as_of = event.source, event.subject or "", since
        self.login, self.email, self.external_id = event.login, event.email, event.external_id
        self.account = Account(self.subject, Status.ACTIVE, since, self.login, self.email, self.external_id)


def people_for(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """The ids of the rows of `people` for these Velt users, made where there are none."""
    if not names:
        return {}
    ordered = sorted(names)
    new = insert_into(connection, people).on_conflict_do_nothing()
    connection.execute(new, [{"velt_user_id": name} for name in ordered])
    found = select(people.c.velt_user_id, people.c.id).where(people.c.velt_user_id.in_(ordered))
    return {row.velt_user_id: row.id for row in connection.execute(found)}


def identify(connection: Connection, row: Any, person_id: int, before: list[Row[Any]]) -> bool:
    """Note that the subject is this person; whether anything changed. An older event never takes the present away."""
    current = next((identity for identity in before if identity.current), None)
    newest = current is None or row.as_of >= current.since
    told = {name: value for name in ("login", "email", "external_id") if (value := getattr(row, name)) is not None}
    mine = next((identity for identity in before if identity.person_id == person_id), None)
    same = mine is not None and mine.current and all(getattr(mine, name) == value for name, value in told.items())
    if same and (len(before) == 1 or not newest):
        return False
    if mine is not None and not newest:
        return False
    subject = and_(identities.c.source == row.source, identities.c.subject == row.subject)
    if newest:
        connection.execute(update(identities).where(subject).values(current=False))
    if mine is not None:
        connection.execute(
            update(identities)
            .where(subject, identities.c.person_id == person_id)
            .values(current=True, since=row.as_of, **told)
        )
    else:
        inherited = {name: getattr(current, name) for name in ("login", "email", "external_id")} if current else {}
        new = insert_into(connection, identities).values(
            source=row.source,
            subject=row.subject,
            person_id=person_id,
            current=newest,
            since=row.as_of,
            **(inherited | told),
        )
        connection.execute(new.on_conflict_do_nothing())  # a listing and an event may tell it at the same moment
    return True


def count_known(connection: Connection) -> Mapping[str, int]:
    """How many people and facts are known, for the statistics."""
    return {
        "people": connection.execute(select(func.count()).select_from(people)).scalar_one(),
        "facts": connection.execute(select(func.count()).select_from(facts)).scalar_one(),
    }

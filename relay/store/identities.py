"""Identities: who a source's subjects are in Velt, now and before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, select, update

from relay.config_checks import USER_FIELDS
from relay.entitlement import fields_of
from relay.model import TOLD, AccessEvent, Account, Micros, Status, Subject
from relay.rules import RuleSet
from relay.store import look_ups
from relay.store.database import insert_into
from relay.store.look_ups import About
from relay.store.people import lock_people, people_for
from relay.store.tables import identities, people

Key = tuple[str, str]
Known = dict[Key, list[Row[Any]]]

_FIELDS = ("login", "email", "external_id")


@dataclass(frozen=True, slots=True)
class Profile:
    """Who an account is by what was told of it at `as_of`."""

    source: str
    subject: str
    as_of: Micros
    login: str | None = None
    email: str | None = None
    external_id: str | None = None

    @classmethod
    def of_event(cls, row: Row[Any], answer: Account | None) -> Profile:
        """By a row of `events`, and what a look-up adds to it."""
        told = {name: getattr(row, name) for name in _FIELDS}
        if answer is not None:
            told = {name: value or getattr(answer, name) for name, value in told.items()}
        return cls(row.source, row.subject, row.as_of, **told)

    @classmethod
    def of_answer(cls, source: str, subject: str, account: Account) -> Profile:
        """By what the directory says."""
        return cls(source, subject, account.fetched_at, account.login, account.email, account.external_id)

    @classmethod
    def of_listed(cls, event: AccessEvent, since: Micros) -> Profile:
        """By a listing, of which it is known that it was so from `since` on."""
        return cls(event.source, event.subject or "", since, event.login, event.email, event.external_id)

    def as_answer(self) -> Account:
        """As if its directory had been asked: the account is in force."""
        return Account(self.subject, Status.ACTIVE, self.as_of, self.login, self.email, self.external_id)


#: Made once: making a statement costs more than asking it.
_PEOPLE_OF = (
    select(identities.c.person_id)
    .where(identities.c.source == bindparam("source"), identities.c.subject == bindparam("subject"))
    .order_by(identities.c.current.desc(), identities.c.person_id)
)


def people_of(connection: Connection, source: str, subject: str) -> list[int]:
    """Every person (Velt user) that this subject is or has been, the present one first."""
    return list(connection.execute(_PEOPLE_OF, {"source": source, "subject": subject}).scalars())


def person_now(connection: Connection, source: str, subject: str) -> int | None:
    """The person that this subject is now; None where it never was anybody."""
    return next(iter(people_of(connection, source, subject)), None)


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


def held_identities(connection: Connection, rows: Iterable[Any], known: Known, named: Iterable[int]) -> Known:
    """The identities of the rows' subjects while everybody whom these are, or were, is held.

    `known`: their identities as they were before; `named`: people who they are to become. Whoever notes who somebody is
    holds all of these first, so that nobody else does until the transaction ends.
    """
    lock_people(connection, {identity.person_id for before in known.values() for identity in before}.union(named))
    return identities_of(connection, rows)


def answers_for(connection: Connection, rules: RuleSet, known: Known) -> dict[Key, Account]:
    """What directories have said of subjects that are nobody yet, by (source, subject)."""
    return {
        key: answer
        for key, identified in known.items()
        if key[0] in rules.looked_up and not identified
        if (answer := look_ups.answer_in(look_ups.state_of(connection, About.account(*key)))) is not None
    }


def velt_user_id_of(
    rules: RuleSet, row: Any, known: list[Row[Any]], answer: Account | None = None
) -> tuple[str | None, str]:
    """The Velt user id for an event (its row, or a Profile); what it does not tell is taken from what was told before.

    A field that only a look-up fills is unknown until one has told it, and no other takes its place.
    """
    now = next((identity for identity in known if identity.current), None)
    before = now or answer
    login, email, external_id = (getattr(row, name) or (getattr(before, name) if before else None) for name in _FIELDS)
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
    rows = [Profile.of_listed(event, since) for event in listed]
    known = identities_of(connection, rows)
    named = [(row, velt_user_id_of(rules, row, known[row.source, row.subject], row.as_answer())[0]) for row in rows]
    found = people_for(connection, {name for _, name in named if name is not None})
    held = held_identities(connection, rows, known, found.values())
    turned = set()
    for row, velt_user_id in named:
        before = held[row.source, row.subject]
        if velt_user_id is not None and identify(connection, row, found[velt_user_id], before) and before:
            turned.add(found[velt_user_id])
    return turned


def identify(connection: Connection, told: Profile, person_id: int, before: list[Row[Any]]) -> bool:
    """Note that the subject is this person; whether it is another one by that, or known by another name.

    An older event never takes the present away. So of who had two addresses it is noted how long the present one is
    confirmed, which changes nothing.
    """
    current = next((identity for identity in before if identity.current), None)
    newest = current is None or told.as_of >= current.since
    fields = {name: value for name in _FIELDS if (value := getattr(told, name)) is not None}
    mine = next((identity for identity in before if identity.person_id == person_id), None)
    same = mine is not None and mine.current and all(getattr(mine, name) == value for name, value in fields.items())
    if mine is not None and (not newest or (same and len(before) == 1)):
        return False
    subject = and_(identities.c.source == told.source, identities.c.subject == told.subject)
    if newest:
        connection.execute(update(identities).where(subject).values(current=False))
    if mine is not None:
        connection.execute(
            update(identities)
            .where(subject, identities.c.person_id == person_id)
            .values(current=True, since=told.as_of, **fields)
        )
    else:
        inherited = {name: getattr(current, name) for name in _FIELDS} if current else {}
        new = insert_into(connection, identities).values(
            source=told.source,
            subject=told.subject,
            person_id=person_id,
            current=newest,
            since=told.as_of,
            **(inherited | fields),
        )
        connection.execute(new.on_conflict_do_nothing())  # a listing and an event may tell it at the same moment
    return not same

"""What an answer of a directory changes: facts, who somebody is, and the events that waited for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from relay import truth
from relay.model import (
    AccessEvent,
    Account,
    EventState,
    Fact,
    Group,
    Kind,
    Micros,
    ObjectType,
)
from relay.rules import RuleSet
from relay.store import completing, look_ups, nested, regrants, turned, verify
from relay.store.database import Database
from relay.store.ending import end
from relay.store.facts import add_unknown, facts_of, learn, rename_group
from relay.store.fan_out import tell_latecomer
from relay.store.identities import Profile, identify, identities_of, people_of, person_now, velt_user_id_of
from relay.store.look_ups import About, Question
from relay.store.people import due_for_planning, lock_people, person_for
from relay.store.record import event_of
from relay.store.tables import events


def keep(database: Database, rules: RuleSet, question: Question, account: Account) -> None:
    """Write down what a directory says of an account, and have everybody concerned planned. Raises Unavailable."""
    with database.write() as connection:
        take_in(connection, rules, question, account, database.now(connection))
    database.waker.wake()


def take_in(connection: Connection, rules: RuleSet, question: Question, account: Account, now: Micros) -> None:
    """Change what an answer changes, inside the caller's transaction."""
    waiting = _waiting(connection, question)
    concerned = {row.person_id for row in waiting if row.person_id is not None}
    concerned |= set(people_of(connection, question.source, question.object_id))
    profile = Profile.of_answer(question.source, question.object_id, account)
    is_now = _person_by(connection, rules, profile, account)
    concerned |= {is_now} if is_now is not None else set()
    lock_people(connection, concerned)  # before anything is written: so does whoever else notes who somebody is
    was = person_now(connection, question.source, question.object_id)
    if is_now is not None:
        identify(connection, profile, is_now, _identities(connection, profile))
    turned = person_now(connection, question.source, question.object_id) != was
    waiting = _waiting(connection, question)  # as it is now that nobody else plans them
    unheard = look_ups.unheard_since(look_ups.state_of(connection, question), account.fetched_at)
    look_ups.answered(connection, question, account.fetched_at, account, now)
    if nested.is_one(connection, rules, question, account):
        waiting = nested.tell_of_people(connection, question, waiting, now)
    else:
        _learn(connection, rules, question, account, waiting, now)
    if any(row.person_id is None for row in waiting):
        _route_again(connection, question, now)
    completing.complete(connection, rules, question, account, new_since=unheard if turned else None, now=now)
    if concerned:
        due_for_planning(connection, concerned, now)


def keep_people(database: Database, question: Question, subjects: Iterable[str], fetched_at: Micros) -> None:
    """Write down who has the group or app that an event is about, so that it is fanned out. Raises Unavailable."""
    with database.write() as connection:
        now = database.now(connection)
        look_ups.answered(connection, question, fetched_at, sorted(set(subjects)), now)
        connection.execute(update(events).where(events.c.id == question.object_id).values(wait_until=None))
    database.waker.wake()


def keep_group(database: Database, rules: RuleSet, question: Question, group: Group | None, fetched_at: Micros) -> None:
    """Write down whether the group of a `group.changed` is still there. Raises Unavailable.

    One that is gone is a group that was deleted. One that is there is asked for again while the news is young.
    """
    with database.write() as connection:
        now = database.now(connection)
        look_ups.answered(connection, question, fetched_at, [], now)
        row = connection.execute(select(events).where(events.c.id == question.object_id)).one()
        if row.state != EventState.RECEIVED.value:
            return
        if group is None:
            deleted = {"kind": Kind.GROUP_DELETED.value, "wait_until": None}
            connection.execute(update(events).where(events.c.id == row.id).values(**deleted))
        else:
            _group_stays(connection, rules, row, group, fetched_at, now)
    database.waker.wake()


def _group_stays(
    connection: Connection, rules: RuleSet, row: Row[Any], group: Group, fetched_at: Micros, now: Micros
) -> None:
    finding = truth.Finding(None, "the group is still there: nothing was lost", denies=row.as_of)
    doubt = verify.Doubt(finding, fetched_at, row.looks)
    if verify.waits_again(connection, row, About.of_event(row), doubt, patience=rules.patience):
        return
    if group.name is not None:
        rename_group(connection, row.source, group.id, group.name)
    end(connection, [row.id], EventState.IGNORED, finding.said, now, group_name=group.name)


def _waiting(connection: Connection, question: Question) -> list[Row[Any]]:
    return list(connection.execute(select(events).where(look_ups.waiting(question))).all())


def _learn(
    connection: Connection,
    rules: RuleSet,
    question: Question,
    account: Account,
    waiting: Iterable[Row[Any]],
    now: Micros,
) -> None:
    known = facts_of(connection, [(question.source, question.object_id)])
    awaited = {event_of(row._asdict()).thing for row in waiting}
    held = {fact.thing: fact for fact in known}
    told = truth.facts_of(question.source, account, known, awaited)
    if question.source in rules.terse:
        told = turned.keep(connection, question, account, told, held, awaited, now)
    add_unknown(connection, [fact for fact in told if fact.thing not in held])
    for fact in told:
        if fact.thing in held:
            learn(connection, fact)
    tell_latecomer(connection, [fact for fact in told if fact.present and fact.object_id])
    named = _name(connection, question, account, held)
    gained = [fact for fact in told if fact.present] + named
    if gained:
        happened_from = regrants.may_be_from(connection, question.source, min(fact.as_of for fact in gained))
        mine = (question.source, question.object_id)
        person_id = person_now(connection, *mine)
        if person_id is not None:
            regrants.note(connection, rules, person_id, gained, happened_from)
            completing.take_gained_before(connection, rules, *mine, happened_from, now)


def _name(
    connection: Connection, question: Question, account: Account, held: Mapping[tuple[ObjectType, str], Fact]
) -> list[Fact]:
    """Note what groups are called; return those held ones of which it was not known what they give: without a name."""
    named = []
    for group_id, name in truth.names_of(account).items():
        old = held.get((ObjectType.GROUP, group_id))
        if old is not None and old.name != name:
            rename_group(connection, question.source, group_id, name, question.object_id)
            named += [old] if old.present and old.name is None else []
    return named


def _person_by(connection: Connection, rules: RuleSet, profile: Profile, account: Account) -> int | None:
    """Who a known subject is by what the directory says; None where it was nobody, or that does not tell."""
    before = _identities(connection, profile)
    velt_user_id = velt_user_id_of(rules, profile, before, account)[0] if before else None
    return person_for(connection, velt_user_id) if velt_user_id is not None else None


def _identities(connection: Connection, profile: Profile) -> list[Row[Any]]:
    return identities_of(connection, [profile])[profile.source, profile.subject]


def _route_again(connection: Connection, question: Question, now: Micros) -> None:
    """Have who was nobody yet routed at once; that they have waited already is kept."""
    nobody_yet = and_(look_ups.waiting(question), events.c.person_id.is_(None))
    connection.execute(update(events).where(nobody_yet).values(wait_until=now))


def event_about(database: Database, question: Question) -> AccessEvent:
    """The event that a question is about. Raises Unavailable."""
    with database.read() as connection:
        return event_of(connection.execute(select(events).where(events.c.id == question.object_id)).one()._asdict())

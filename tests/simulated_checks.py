"""What must hold in a simulated history: at every call to Velt, and when everything has arrived and nothing is due.

Where the relay cannot know better, `excuse` says so, one documented reason each; everything else is Wrong.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from relay.model import SECOND, EventState, Resource, Status
from relay.store import tables
from relay.store.claim import Task
from tests.simulated_world import ALL, ENTRA, GIVES, GIVES_BY_NAME, OUTER, PLAN, Access, Holder, Told

if TYPE_CHECKING:
    from tests.simulated_life import Life

#: Seconds after which everything recorded is planned, whether a directory answers or not: the patience for each of four
#: answers, what lies between these, and the time that no worker is there.
LATEST = 6000
HOUR = 3600

_SETTLED = {"removed", "absent", "retained", "superseded", "cancelled"}
_UNKNOWN_PERSON = "its directory does not tell it"
_UNKNOWN_NAME = "group.name is not known without a look-up"
_ANOTHER = "this Velt user is now "
_UNDATED = "gain; it came without a time of its own"


def check_call(life: Life, task: Task) -> None:
    """No call takes what the person has by something of which all that happened last is on disk."""
    for holder in life.world.of_velt_user(task.velt_user_id):
        for thing, gives in life.world.routes(holder):
            wrong = sorted(str(resource) for resource in set(gives) & set(task.resources))
            if wrong and _is_on_disk(life, holder, thing):
                life.wrong(f"{task.velt_user_id} has {wrong} through {thing} of {holder.subject}, and it is on disk")


def _is_on_disk(life: Life, holder: Holder, thing: str) -> bool:
    """Whether the relay could know that the account has the group or app, by what was recorded until now."""
    if life.relay.velt_users().get(holder.subject, [""])[0] != holder.velt_user_id:
        return False  # who this account is was not told yet
    access = (holder.source, holder.subject, thing)
    if _last(life, access) is None and not _is_fact(life, access):
        return False  # it is so since before the relay was there, and nobody ever had a reason to ask
    if thing in GIVES_BY_NAME and not _name(life, access):
        return False  # its directory has not told what the group is called within the patience
    if _is_nested(life, holder, thing) and not _is_fact(life, access, held=True):
        return False  # no answer of its directory that is believed has told it yet
    if not _is_told(life, access):
        return False
    accounts = [holder]
    if life.world.accounts_setting == "any":
        accounts = life.world.of_velt_user(holder.velt_user_id)
    return all(_is_told(life, (one.source, one.subject, "")) and _is_known(life, one) for one in accounts)


def _is_known(life: Life, holder: Holder) -> bool:
    """Whether it is known who an account is of which anything was told."""
    if _last(life, (holder.source, holder.subject, "")) is None:
        return True
    return life.relay.velt_users().get(holder.subject, [""])[0] == holder.velt_user_id


def _is_nested(life: Life, holder: Holder, thing: str) -> bool:
    """Whether an account has a group only through another one."""
    return thing not in holder.groups | holder.apps


def _is_fact(life: Life, access: Access, *, held: bool = False) -> bool:
    """Whether anything is known of an access, or that it is held."""
    source, subject, thing = access
    facts = [fact for fact in life.relay.facts(subject, source) if fact.object_id == thing]
    return any(fact.present or not held for fact in facts)


def _name(life: Life, access: Access) -> str | None:
    source, subject, thing = access
    return next((fact.name for fact in life.relay.facts(subject, source) if fact.object_id == thing), None)


def never_told(life: Life, user: str, resource: Resource) -> bool:
    """Whether a Velt user has a resource only by what the relay was never told: that an account is this user's (Okta's
    hooks do not tell a new address), or that it has the group, since before the relay was there.
    """
    routes = [
        (holder, thing)
        for holder in life.world.of_velt_user(user)
        for thing, gives in life.world.routes(holder)
        if resource in gives
    ]
    known = life.relay.velt_users()
    return bool(routes) and all(
        known.get(holder.subject, [""])[0] != user
        or (
            (_is_nested(life, holder, thing) or _last(life, (holder.source, holder.subject, thing)) is None)
            and not _is_fact(life, (holder.source, holder.subject, thing))
        )
        for holder, thing in routes
    )


def _is_told(life: Life, access: Access) -> bool:
    """Whether the last that happened to an access is on disk, and tells something by itself or has been looked up."""
    last = _last(life, access)
    if last is None:
        return True
    rows = [row for row in life.relay.rows(tables.events) if row.id in life.recorded.get(id(last), [])]
    if not rows and not life.is_reconciled(last):
        return False
    if _came_late(life, access, rows):
        return False  # an older one without a time came after it, and no look-up answered within the patience
    if any(row.reason and row.reason.startswith(_UNDATED) for row in rows + _own_rows(life, access)):
        return False  # without a time, and no look-up answered within the patience: late is worse than generous
    if access[0] == ENTRA and access[2] == "":
        if life.misled.get(access[:2]):
            return False  # that it changed was told, and what it became a copy that was older
        return not any(row.state == "received" and row.subject == access[1] for row in life.relay.rows(tables.events))
    return True


def _own_rows(life: Life, access: Access) -> list[Row[Any]]:
    """The rows of the last event that is about an access itself: what happens to an inner group tells of outer ones."""
    own = (told for _, told in reversed(life.world.log) if access in told.accesses and told.event.group_id == access[2])
    ids = life.recorded.get(id(next(own, None)), [])
    return [row for row in life.relay.rows(tables.events) if row.id in ids]


def _came_late(life: Life, access: Access, rows: list[Row[Any]]) -> bool:
    """Whether the message about an access that came last tells what happened before, and was taken at its word."""
    ids = {
        event_id
        for _, told in life.world.log
        if access in told.accesses
        for event_id in life.recorded.get(id(told), [])
    }
    about = [row for row in life.relay.rows(tables.events) if row.id in ids]
    newest = max(about, key=lambda row: row.received_at, default=None)
    if newest is None or newest.occurred_at is not None or newest.id in {row.id for row in rows} or not newest.plan:
        return False
    return "error" in (json.loads(newest.plan).get("directory") or {})


def _last(life: Life, access: Access) -> Told | None:
    return next((told for _, told in reversed(life.world.log) if access in told.accesses), None)


def check_waiting(life: Life) -> None:
    """Whatever a directory does not answer, what an event tells by itself is not waited for longer than is said."""
    for row in life.relay.rows(tables.events):
        waits = row.state == EventState.RECEIVED and row.person_id is not None and not row.kind.endswith(".changed")
        if waits and life.clock.now - row.received_at >= LATEST * SECOND:
            life.wrong(f"{row.kind} of {row.subject} waits for ever: {row.reason}")


def check_end(life: Life) -> None:
    """Nobody keeps what they lost, nobody has lost what they have, and nothing is left open or without a reason."""
    events = life.relay.rows(tables.events)
    _check_ledger(life, events)
    _check_once(life, {row.id for row in events})
    _check_guard(life, events)
    entitled = life.world.entitled()
    current = _current(life)
    for user, resource in sorted(life.grants):
        if resource in entitled.get(user, set()):
            continue
        if (user in current or _has_left(life, user)) and not _excuse(life, user, resource, events):
            life.wrong(f"{user} keeps {resource}")
    marked = {row.id for row in life.relay.revocations() if row.needs_regrant}
    for user, resources in sorted(entitled.items()):
        for resource in sorted(resources):
            if (user, resource) in life.grants or (user, resource) in life.taken_unknowing:
                continue
            if never_told(life, user, resource):
                continue  # what gave it when it was taken is lost by now, and of what gives it nobody ever told
            if not marked & life.taken.get((user, resource), set()):
                life.wrong(f"{user} has lost {resource} and it is not listed as needing a new grant")


def _check_guard(life: Life, events: list[Row[Any]]) -> None:
    """Within no hour more people have lost something by what nobody had approved than the guard allows."""
    counted = {row.id: row.received_at for row in events if not row.replay}
    names = {row.id: row.velt_user_id.partition("@")[0].partition(".")[0] for row in life.relay.rows(tables.people)}
    lost = [
        (counted[row.event_id], names[row.person_id]) for row in life.relay.revocations() if _is_counted(row, counted)
    ]
    for moment, _ in lost:
        people = {person for at, person in lost if moment <= at < moment + HOUR * SECOND}
        if life.history.guard is not None and len(people) > life.history.guard:
            life.wrong(f"{len(people)} people have lost something within an hour")


def _is_counted(row: Row[Any], counted: Collection[str]) -> bool:
    return row.event_id in counted and not row.again and row.state not in ("retained", "superseded")


def _check_once(life: Life, ids: set[str]) -> None:
    """An event with an id of its own is on disk once, however often it arrived."""
    for _, told in life.world.log:
        rows = ids.intersection(life.recorded.get(id(told), []))
        if not told.event.twin and told.event.key and len(rows) > 1:
            life.wrong(f"{told.event.kind} {told.event.subject} was recorded {len(rows)} times")


def _check_ledger(life: Life, events: list[Row[Any]]) -> None:
    for row in events:
        told = f"{row.source} {row.kind} {row.subject or ''} {row.group_id or ''}: {row.reason}"
        if row.state == EventState.FAILED and _UNKNOWN_PERSON in (row.reason or ""):
            continue  # documented: a person has to say who this was
        gone = row.group_id is not None and row.group_id not in life.world.names
        if row.state == EventState.FAILED and gone and _UNKNOWN_NAME in (row.reason or ""):
            continue  # documented: the group was gone before anybody had asked for its name
        if row.state not in (EventState.DONE, EventState.IGNORED):
            life.wrong(f"an event ends {row.state}: {told}")
        if not row.reason:
            life.wrong(f"an event ends {row.state} without a reason: {told}")
        if row.completing:
            life.wrong(f"an event is still to be completed: {told}")
    for row in life.relay.revocations():
        if row.state not in _SETTLED:
            life.wrong(f"a revocation of {row.resource_id} ends {row.state}: {row.reason}")
        if not row.reason:
            life.wrong(f"a revocation of {row.resource_id} ends {row.state} without a reason")


def _current(life: Life) -> set[str]:
    """The Velt users that people are: what they go by now, and where nothing else is left of them, went by last."""
    holders = life.world.holders.values()
    there = [holder for holder in holders if holder.status is not Status.GONE]
    elsewhere = {holder.person for holder in there}
    return {h.velt_user_id for h in [*there, *(one for one in holders if one.person not in elsewhere)]}


def _has_left(life: Life, user: str) -> bool:
    """Whether a former address is one that an account loss reaches: that of accounts that are all out of force.

    What a former address keeps of groups is the host application's affair: it is nobody any more.
    """
    were = {(h.source, h.subject) for _, h in life.world.past if h.velt_user_id == user}
    told = life.relay.velt_users()
    known = all(user in told.get(subject, ()) for _, subject in were)
    return known and all(life.world.holders[key].status is not Status.ACTIVE for key in were)


def _excuse(life: Life, user: str, resource: Resource, events: list[Row[Any]]) -> bool:
    """Whether it was never told to the relay, by anybody, that this person had this."""
    holders = life.world.of_velt_user(user)
    subjects = {holder.subject for holder in holders}
    mine = {row.id for row in events if row.subject in subjects}
    told = life.relay.velt_users()
    if any(h.status is not Status.ACTIVE and told.get(h.subject, [user])[0] != user for h in holders):
        return True  # the address was new when the account was lost, and its directory had not told it yet
    if any(_is_now_another(row, resource) and row.event_id in mine for row in life.relay.revocations()):
        return True  # documented: it is left to who has the address now
    for row in events:
        if row.id in life.refused and row.subject in (*subjects, None) and resource in _taken_by(row):
            return True  # an operator wanted it so
        if row.subject not in subjects:
            continue
        if row.state == EventState.FAILED and resource in _taken_by(row):
            return True  # whoever this was must be said by hand; the event says so
        if resource == PLAN and "one group a document" in _incomplete(row):
            return True  # a group that gives by its name and was never told; the event lists it as incomplete
    unseen = (_ended_unseen, _came_and_went, _through_unseen)
    return any(excuse(life, subject, resource) for subject in subjects for excuse in unseen)


def _through_unseen(life: Life, subject: str, resource: Resource) -> bool:
    """Whether no answer of the directory has told that an account had a group through another one."""
    ends = [(at, told.event) for at, told in life.world.log if (ENTRA, subject, OUTER) in told.accesses][-2:]
    if resource not in GIVES[OUTER] or all(event.group_id == OUTER and event.subject == subject for _, event in ends):
        return False
    gained_at = ends[0][0] if len(ends) == 2 else 0
    return life.directories[ENTRA].told_outer.get(subject, -1) < gained_at


def _came_and_went(life: Life, subject: str, resource: Resource) -> bool:
    """Whether an account had an Entra group only between two readings, and no message told either end of it.

    That the group was deleted tells of no account.
    """
    log = [told for _, told in life.world.log if told.event.source == ENTRA]
    for thing in (thing for thing, gives in GIVES.items() if resource in gives):
        ends = [number for number, told in enumerate(log) if (ENTRA, subject, thing) in told.accesses][-2:]
        told = any(life.recorded.get(id(log[number])) for number in ends if log[number].event.subject is not None)
        if len(ends) == 2 and not told and not any(ends[0] < read <= ends[1] for read in life.directories[ENTRA].reads):
            return True
    return False


def _is_now_another(revocation: Row[Any], resource: Resource) -> bool:
    told = (revocation.resource_type, revocation.resource_id) == (resource.type, resource.id)
    return told and (revocation.reason or "").startswith(_ANOTHER)


def _taken_by(row: Row[Any]) -> tuple[Resource, ...]:
    """What the loss that an event tells of may take: what its group or app gives, of an account everything."""
    return GIVES[row.group_id or row.app_id] if row.group_id or row.app_id else ALL


def _incomplete(row: Row[Any]) -> list[str]:
    return list(json.loads(row.plan).get("incomplete", [])) if row.plan else []


def _ended_unseen(life: Life, subject: str, resource: Resource) -> bool:
    """Whether a group or app ended of which nobody had ever told that this account had it: it names its known people,
    and no directory can say who was in what is gone.
    """
    last = {access: told for _, told in life.world.log for access in told.accesses if access[1] == subject}
    return any(
        resource in GIVES.get(access[2], ()) and told.event.subject is None and not _is_fact(life, access)
        for access, told in last.items()
    )

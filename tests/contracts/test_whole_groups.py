"""The end of a whole group or app: who is told of late, and what somebody decides against it, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import false, func, select

from relay import operate
from relay.model import Basis, Fact, Guard, Kind, ObjectType, Resource
from relay.store import answered, claim, desk, fan_out, preview, routing, tables
from relay.store import facts as known
from relay.store.claim import Task
from relay.store.database import _ROUTING, Database
from relay.store.look_ups import Question
from relay.store.tables import events
from tests import postgres
from tests.directory_people import Looked, account
from tests.people import ACME, D1, Relay, app_fact, at, event, gain, group_deleted, group_fact, loss

HOUR = 3600
OTHERS_UNKNOWN = "who was in it before the relay knew of it is not told: `python -m relay audit` compares"


def guarded(relay: Relay) -> Relay:
    """Whatever takes from more than one person within an hour is held."""
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    return relay


def decide(relay: Relay, verb: str, event_id: str) -> None:
    operate.decide(relay.database, "ada", verb, event_id, {"reason": "a mistake"})


def route_once(relay: Relay) -> None:
    with relay.database.write() as connection:
        routing.route(connection, relay.terms.rules, relay.database.now(connection))


def know(relay: Relay, *facts: Fact) -> None:
    with relay.database.write() as connection:
        known.add_unknown(connection, facts)


def children(relay: Relay, event_id: str) -> list[str]:
    """Who has an event of their own of the end of a group or app."""
    return sorted(row.subject for row in relay.rows(tables.events) if row.parent_id == event_id)


def run(relay: Relay) -> list[Task]:
    """Claim and settle until nothing waits, what planning has made for others too; return the calls."""
    made = relay.run()
    while claim.look(relay.database).unrouted:
        made += relay.run()
    return made


def taken(tasks: list[Task]) -> set[tuple[str, Resource]]:
    return {(task.velt_user_id, resource) for task in tasks for resource in task.resources}


def fact_of(relay: Relay, subject: str, thing: str = "eng") -> tuple[bool, int, str | None]:
    """Whether somebody has the group or app by what is known, as of when, and which event told it."""
    [fact] = [fact for fact in relay.facts(subject) if fact.object_id == thing]
    return fact.present, fact.as_of, fact.event_id


# --- who is told of while a group is being fanned out


@pytest.fixture
def half_ended(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> str:
    """The end of a group of which one member's event is made, and two others' are not; one more with each routing."""
    monkeypatch.setattr(fan_out, "BATCH", 1)
    know(relay, *(group_fact(subject, "eng") for subject in ("mia", "ned", "oda")))
    [end] = relay.record(group_deleted("eng", 50))
    route_once(relay)
    assert children(relay, end) == ["mia"]
    assert relay.event(end).state == "received"
    return end


def plan_only(relay: Relay) -> None:
    """Plan what is routed, as a worker does that comes between two batches; send nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "ROUTING", 0)
        relay.claim(sends=False)


def test_a_gain_that_comes_late_while_a_group_is_half_ended_is_ended_once(relay: Relay, half_ended: str) -> None:
    relay.record(gain("bob", "eng", 40), gain("zoe", "eng", 40))  # one before and one behind those who are done
    route_once(relay)
    plan_only(relay)
    assert relay.event(half_ended).state == "received"
    assert taken(run(relay)) == {(name, what) for name in ("bob", "mia", "ned", "oda", "zoe") for what in (ACME, D1)}
    assert children(relay, half_ended) == ["bob", "mia", "ned", "oda", "zoe"]


def test_a_gain_after_the_end_is_not_ended_by_it_while_it_is_half_ended(relay: Relay, half_ended: str) -> None:
    relay.record(gain("bob", "eng", 60))
    route_once(relay)
    plan_only(relay)
    relay.run()
    assert children(relay, half_ended) == ["mia", "ned", "oda"]
    assert fact_of(relay, "bob")[0]


def test_who_an_answer_shows_in_a_group_that_is_half_ended_is_ended_too(
    looked: Looked, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = looked.relay
    monkeypatch.setattr(fan_out, "BATCH", 1)
    know(relay, *(group_fact(subject, "eng") for subject in ("mia", "ned")))
    [end] = relay.record(group_deleted("eng", HOUR - 10))
    route_once(relay)
    assert (relay.event(end).state, children(relay, end)) == ("received", ["mia"])
    question = Question.account("okta", "bob")
    with relay.database.write() as connection:  # by a copy that does not know the end yet
        now = relay.database.now(connection)
        answered.take_in(
            connection, relay.terms.rules, question, replace(account("bob", groups=["eng"]), fetched_at=now), now
        )
    relay.route()
    assert children(relay, end) == ["bob", "mia", "ned"]


# --- what somebody decides against


def held_end(relay: Relay, *members: str) -> str:
    """The end of the group `eng`, held as these are more than may lose something at once."""
    guarded(relay)
    know(relay, *(group_fact(member, "eng", when=-10) for member in members))
    [end] = relay.record(group_deleted("eng", 50))
    relay.run()
    assert relay.event(end).state == "held"
    return end


def test_a_rejected_end_of_a_group_counts_for_nobody_any_more(relay: Relay) -> None:
    end = held_end(relay, "ada", "bob")
    decide(relay, "reject", end)
    assert run(relay) == []
    assert fact_of(relay, "ada") == fact_of(relay, "bob") == (False, at(50), end)
    [later] = relay.record(loss("ada", "sales", 60))
    assert taken(run(relay)) == {("ada", D1)}  # which `eng` gave, too
    assert relay.states(later) == ["removed"]


def test_a_cancelled_end_of_a_group_counts_for_nobody_any_more(relay: Relay) -> None:
    know(relay, group_fact("ada", "eng"))
    [end] = relay.record(group_deleted("eng", 50))
    decide(relay, "cancel", end)
    relay.record(loss("ada", "sales", 60))
    assert taken(run(relay)) == {("ada", D1)}
    assert fact_of(relay, "ada") == (False, at(50), end)


def test_an_end_that_is_cancelled_half_way_leaves_those_who_have_their_event_alone(
    relay: Relay, half_ended: str
) -> None:
    decide(relay, "cancel", half_ended)
    relay.record(gain("bob", "eng", 40))
    assert taken(run(relay)) == {("mia", ACME), ("mia", D1)}
    assert children(relay, half_ended) == ["mia"]
    assert fact_of(relay, "mia")[2] != half_ended
    for subject in ("bob", "ned", "oda"):
        assert fact_of(relay, subject) == (False, at(50), half_ended)


def test_a_rejected_end_keeps_what_is_known_better(relay: Relay) -> None:
    end = held_end(relay, "ada", "bob")
    know(
        relay,
        group_fact("new", "eng", when=60),  # who came after it: into a group of the same id that is there again
        group_fact("gone", "eng", present=False, when=20),
        group_fact("asked", "eng", present=False, when=55),  # an answer was faster than the message
        group_fact("ada", "sales"),
    )
    with relay.database.write() as connection:
        connection.execute(tables.facts.update().where(tables.facts.c.subject == "gone").values(event_id="evt_1"))
    decide(relay, "reject", end)
    assert fact_of(relay, "new")[:2] == (True, at(60))
    assert fact_of(relay, "gone") == (False, at(20), "evt_1")
    assert fact_of(relay, "asked") == (False, at(55), end)
    assert fact_of(relay, "ada", "sales")[0]


def test_the_loss_that_a_rejected_end_leaves_has_the_basis_and_the_name_of_the_event(relay: Relay) -> None:
    guarded(relay)
    know(relay, group_fact("ada", "eng", name="Engineers", when=-10), group_fact("bob", "eng", when=-10))
    [end] = relay.record(group_deleted("eng", None))
    relay.run()
    decide(relay, "reject", end)
    [ada], [bob] = relay.facts("ada"), relay.facts("bob")
    assert (ada.basis, ada.as_of, ada.name) == (Basis.ARRIVAL, relay.event(end).as_of, "Engineers")
    assert (bob.basis, bob.name) == (Basis.ARRIVAL, None)


def test_a_gain_that_waits_and_one_that_comes_late_are_ended_by_a_rejected_end_and_take_nothing(relay: Relay) -> None:
    end = held_end(relay, "ada", "bob")
    relay.record(gain("eve", "eng", 40), gain("fay", "eng", 60))
    decide(relay, "reject", end)  # before the two are planned
    relay.record(gain("gil", "eng", 45))
    assert run(relay) == []
    assert children(relay, end) == []
    assert fact_of(relay, "eve") == fact_of(relay, "gil") == (False, at(50), end)
    assert fact_of(relay, "fay")[0]
    relay.record(*(loss(subject, "sales", 70) for subject in ("eve", "fay")))
    assert taken(run(relay)) == {("eve", D1)}


def test_who_an_answer_shows_in_a_group_whose_end_was_rejected_has_it_no_more(looked: Looked) -> None:
    relay = looked.relay
    end = held_end(relay, "ada", "bob")
    decide(relay, "reject", end)
    question = Question.account("okta", "eve")
    with relay.database.write() as connection:
        now = relay.database.now(connection)
        answer = replace(account("eve", groups=["eng"]), fetched_at=at(60))
        answered.take_in(connection, relay.terms.rules, question, answer, now)
    assert relay.route() == 0
    assert children(relay, end) == []
    assert fact_of(relay, "eve") == (False, at(50), end)


def test_a_rejected_end_of_an_app_counts_for_nobody_any_more(relay: Relay) -> None:
    guarded(relay)
    know(relay, app_fact("ada", "chat", when=-10), app_fact("bob", "chat", when=-10))
    [end] = relay.record(event(Kind.APP_ACCESS_REMOVED, None, 50, app_id="chat"))
    relay.run()
    decide(relay, "reject", end)
    relay.record(event(Kind.APP_ACCESS_ADDED, "eve", 40, app_id="chat"))
    relay.run()
    for subject in ("ada", "bob", "eve"):
        assert fact_of(relay, subject, "chat") == (False, at(50), end)
    assert relay.rows(tables.revocations) == []


def test_a_rejected_end_of_a_groups_app_ends_the_app_and_leaves_the_group(relay: Relay) -> None:
    guarded(relay)
    know(relay, *(group_fact(subject, "eng", when=-10) for subject in ("ada", "bob")), app_fact("ada", "chat", when=60))
    [end] = relay.record(event(Kind.APP_ACCESS_REMOVED, None, 50, app_id="chat", group_id="eng"))
    relay.run()
    decide(relay, "reject", end)
    assert fact_of(relay, "ada")[0]
    assert fact_of(relay, "ada", "chat")[:2] == (True, at(60))
    assert fact_of(relay, "bob", "chat") == (False, at(50), end)


def test_a_rejected_end_that_is_tried_again_takes_from_everybody_who_was_in_it(relay: Relay) -> None:
    end = held_end(relay, "ada", "bob")
    decide(relay, "reject", end)
    relay.record(gain("eve", "eng", 40))
    assert run(relay) == []
    operate.retry(relay.database, {}, "ada", end, {"reason": "it was right"})
    assert taken(run(relay)) == {(name, what) for name in ("ada", "bob", "eve") for what in (ACME, D1)}
    assert relay.event(end).state == "done"


def test_who_had_lost_a_group_by_a_rejected_end_is_no_concern_of_its_next_end(relay: Relay) -> None:
    end = held_end(relay, "ada", "bob")
    decide(relay, "reject", end)
    relay.record(gain("fay", "eng", 60), group_deleted("eng", 70))  # it was there again meanwhile
    assert taken(run(relay)) == {("fay", ACME), ("fay", D1)}
    relay.record(gain("eve", "eng", 40))
    assert run(relay) == []
    assert fact_of(relay, "eve") == (False, at(50), end)


def test_nobody_is_routed_while_somebody_decides_on_the_end_of_a_group(postgres_server: postgres.Server) -> None:
    """Or a gain could be planned unseen, by who still takes the end for one that is held."""
    database = Database(postgres_server.new_database())
    end = held_end(Relay(database), "ada", "bob")
    with database.write() as connection:
        desk.lock(connection, [end])
        with database.read() as another:
            assert not another.execute(select(func.pg_try_advisory_xact_lock(_ROUTING))).scalar_one()
    database.close()


BEFORE = [
    None,
    *(
        Fact("okta", "", ObjectType.GROUP, "eng", present, at(when), basis, name, event_id)
        for present in (True, False)
        for when in (40, 50, 60)
        for basis in Basis
        for name, event_id in ((None, None), ("Old", "evt_old"))
    ),
]


@pytest.mark.parametrize("basis", list(Basis))
@pytest.mark.parametrize("name", [None, "New"])
def test_what_is_lost_by_many_is_learnt_as_of_one(database: Database, basis: Basis, name: str | None) -> None:
    lost = Fact("okta", "", ObjectType.GROUP, "eng", False, at(50), basis, name, "evt_lost")
    theirs = select(events.c.subject).where(events.c.type == "many").union(select(events.c.subject).where(false()))
    relay = Relay(database)
    relay.record(*(replace(gain(f"many-{n}", "other"), type="many") for n in range(len(BEFORE))))
    with database.write() as connection:
        for number, old in enumerate(BEFORE):
            for subject in (f"one-{number}", f"many-{number}"):
                if old is not None:
                    known.learn(connection, replace(old, subject=subject))
            known.learn(connection, replace(lost, subject=f"one-{number}"))
        known.learn_lost(connection, lost, theirs)
    for number in range(len(BEFORE)):
        [one], [many] = relay.facts(f"one-{number}"), relay.facts(f"many-{number}")
        assert many == replace(one, subject=f"many-{number}")


def test_an_end_that_concerned_nobody_still_takes_from_who_is_told_of_late(relay: Relay) -> None:
    [end] = relay.record(group_deleted("eng", 50))
    relay.run()
    assert relay.event(end).state == "ignored"
    relay.record(gain("eve", "eng", 40))
    assert taken(run(relay)) == {("eve", ACME), ("eve", D1)}
    assert children(relay, end) == ["eve"]


def test_a_large_group_is_rejected_at_once(relay: Relay) -> None:
    members = [f"u{number:05}" for number in range(3000)]
    end = held_end(relay, *members)
    decide(relay, "reject", end)
    assert {fact_of(relay, member) for member in members[::500]} == {(False, at(50), end)}


# --- what is said of it


@pytest.mark.parametrize(("number", "said"), [(1, "1 known member of group eng"), (2, "2 known members of group eng")])
def test_a_deleted_group_says_that_others_may_have_been_in_it(relay: Relay, number: int, said: str) -> None:
    relay.record(*(gain(f"u{n}", "eng", 0) for n in range(number)))
    relay.run()
    end = group_deleted("eng", 50)
    told = f"{said}, one event each; {OTHERS_UNKNOWN}"
    assert preview.preview(relay.database, relay.terms.rules, end).reason == told
    [event_id] = relay.record(end)
    relay.run()
    assert relay.event(event_id).reason == told


def test_of_a_source_that_tells_all_members_nobody_else_is_supposed(relay: Relay) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, complete=frozenset({"okta"})))
    relay.record(gain("ada", "eng", 0))
    relay.run()
    [end] = relay.record(group_deleted("eng", 50))
    relay.run()
    assert relay.event(end).reason == "1 known member of group eng, one event each"

"""Stories that random histories have told (tests/simulate.py), each as short as it gets, on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relay import operate
from relay.errors import LookUpFailed
from relay.model import Group, Guard, Kind, Status
from relay.rules import RuleSet
from relay.store import claim, delivery
from relay.store.database import Database
from relay.store.tables import events
from tests.directory_people import Directory, Looked, account
from tests.people import (
    ACME,
    ALL,
    CHAT,
    D1,
    TOLD,
    Clock,
    Relay,
    back,
    event,
    gain,
    group_deleted,
    left,
    loss,
    rules,
    small_rules,
)

HOUR = 3600
BY_NAME = {
    "name": "by name",
    "when": {"kind": "group.member_removed", "group.name": ["Readers"]},
    "revoke": [D1.as_velt()],
}
BY_ID = {"name": "by id", "when": {"kind": "group.member_removed", "group.id": "eng"}, "revoke": [D1.as_velt()]}


def named_by_look_up() -> RuleSet:
    """A source that tells only ids, as Graph does."""
    made = rules(BY_NAME, BY_ID, identity=["{user.email}"], fills={"okta": TOLD - {"group.name", "user.login"}})
    return replace(made, looked_up={"okta": frozenset({"user.email", "user.login", "group.name"})})


def test_a_leaver_loses_what_apps_may_have_given_of_which_nobody_told(looked: Looked) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.SUSPENDED)
    only_okta = replace(looked.relay.terms.rules, fills={"okta": TOLD})
    looked.relay.terms = replace(looked.relay.terms, rules=only_okta)
    looked.relay.record(left("ada", HOUR - 1))
    assert {resource for task in looked.run() for resource in task.resources} == {CHAT}


def test_a_gained_group_is_asked_for_its_name_where_rules_go_by_names(
    timed: Database, directory: Directory, clock: Clock
) -> None:
    looked = Looked(Relay(timed, named_by_look_up()), directory)
    directory.all_groups["readers"] = Group("readers", "Readers")
    directory.accounts["ada"] = account("ada", groups=["eng"])
    looked.relay.record(gain("ada", "eng", None))
    looked.run()
    directory.accounts["ada"] = account("ada", groups=["readers", "eng"])
    looked.relay.record(gain("ada", "readers", None))
    looked.run()
    directory.down = LookUpFailed("okta.example does not answer")
    looked.relay.record(loss("ada", "eng", None))
    looked.run()
    clock.advance(900)
    assert looked.run() == []
    assert looked.relay.states() == ["retained"]


def test_a_name_that_was_told_of_anybody_is_not_asked_for(timed: Database, directory: Directory, clock: Clock) -> None:
    looked = Looked(Relay(timed, named_by_look_up()), directory)
    directory.all_groups["readers"] = Group("readers", "Readers")
    for subject in ("ada", "bob"):
        directory.accounts[subject] = account(subject, groups=["readers"])
        looked.relay.record(gain(subject, "readers", None))
        looked.run()
    directory.asked.clear()
    clock.advance(60)
    looked.relay.record(gain("ada", "readers", None))
    looked.run()
    assert directory.asked == []


def test_a_gain_without_a_time_may_be_older_than_what_was_removed_before_it_came(relay: Relay, clock: Clock) -> None:
    relay.record(gain("ada", "eng", 0), loss("ada", "eng", 10))
    relay.run()
    clock.advance(HOUR)
    relay.record(gain("ada", "sales", None))
    relay.run()
    assert {row.resource_id: row.needs_regrant for row in relay.revocations()} == {"acme": False, "d1": True}


def test_a_gain_without_a_time_is_not_older_than_a_provider_keeps_trying(relay: Relay, clock: Clock) -> None:
    relay.record(gain("ada", "eng", 0), loss("ada", "eng", 10))
    relay.run()
    clock.advance(4 * HOUR + 11)
    relay.record(gain("ada", "sales", None))
    relay.run()
    assert not any(row.needs_regrant for row in relay.revocations())


def test_what_was_removed_is_given_back_for_a_gain_by_another_way_that_came_late(relay: Relay, clock: Clock) -> None:
    """The gain is older than the loss: had it been known, the document would have been retained."""
    relay.record(gain("ada", "eng", 0), loss("ada", "eng", 20))
    relay.run()
    relay.record(gain("ada", "sales", 10))
    relay.run()
    assert {row.resource_id: row.needs_regrant for row in relay.revocations()} == {"acme": False, "d1": True}


def test_a_change_that_is_a_loss_reaches_a_former_address(looked: Looked, clock: Clock) -> None:
    directory, relay = looked.directory, looked.relay
    directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 2000))
    looked.run()
    directory.accounts["ada"] = account("ada", groups=["eng"], email="ada.king@acme.example")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR - 1000, key=None))
    looked.run()
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada.king@acme.example")
    clock.advance(1)
    [event_id] = relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR, key=None))
    told = {task.velt_user_id: set(task.resources) for task in looked.run()}
    assert told.keys() == {"ada@acme.example", "ada.king@acme.example"}
    assert all({ACME, D1} <= resources for resources in told.values())
    assert relay.event(event_id).state == "done"


def test_a_change_of_an_account_that_is_lost_may_be_its_return_and_is_asked_about_again(
    looked: Looked, clock: Clock
) -> None:
    directory, relay = looked.directory, looked.relay
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada@acme.example")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR - 10, key=None))
    assert len(looked.run()) == 1
    [event_id] = relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR, key=None))
    assert looked.run() == []  # the directory lags: she is back already
    directory.accounts["ada"] = account("ada", groups=["eng"])
    for wait in (30, 120, 600):
        clock.advance(wait)
        assert looked.run() == []
    assert (relay.event(event_id).kind, relay.event(event_id).state) == ("account.activated", "done")


def test_a_gain_that_a_look_up_knew_first_says_what_is_to_be_given_back(looked: Looked, clock: Clock) -> None:
    """Only the event tells when it was: before the removal, whose cause came late."""
    directory, relay = looked.directory, looked.relay
    directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 5000))
    looked.run()
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["eng"])
    relay.record(left("ada", HOUR - 1100))
    assert len(looked.run()) == 1
    directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(loss("ada", "sales", HOUR - 1))
    clock.advance(900)
    looked.run()
    relay.record(event(Kind.ACCOUNT_ACTIVATED, "ada", HOUR - 1000))
    looked.run()
    assert {row.resource_id for row in relay.revocations() if row.needs_regrant} == {"acme", "d1"}


def test_a_late_gain_of_a_group_that_has_ended_meanwhile_ends_with_it(relay: Relay, clock: Clock) -> None:
    relay.record(gain("bob", "eng", 0), group_deleted("eng", 20))
    relay.run()
    relay.record(gain("ada", "eng", 10))  # on its way for long
    assert relay.run() == []  # the gain, which makes the child that the group's end lacked
    assert [(task.velt_user_id, set(task.resources)) for task in relay.run()] == [("ada", {ACME, D1})]
    relay.record(gain("eve", "eng", 30))  # a new group of this id
    assert relay.run() == []


def test_a_late_gain_of_an_app_that_was_switched_off_meanwhile_ends_with_it(relay: Relay) -> None:
    relay.record(event(Kind.APP_ACCESS_REMOVED, None, 20, app_id="chat"))
    relay.run()
    relay.record(event(Kind.APP_ACCESS_ADDED, "ada", 10, app_id="chat", login="ada"))
    assert relay.run() == []
    assert [(task.velt_user_id, set(task.resources)) for task in relay.run()] == [("ada", {CHAT})]
    relay.record(event(Kind.APP_ACCESS_ADDED, "eve", 30, app_id="chat", login="eve"))  # switched on again
    assert relay.run() == []


def test_what_is_due_and_waits_for_a_gains_look_up_is_not_tried_all_the_time(looked: Looked, clock: Clock) -> None:
    directory, relay = looked.directory, looked.relay
    directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "eng", HOUR - 2000), loss("ada", "eng", HOUR - 1))
    with relay.database.write() as connection:
        delivery.pause(connection, "ada", None)
    looked.run()
    with relay.database.write() as connection:
        delivery.resume(connection)
    directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", None))
    assert looked.run() == []
    found = claim.claim(relay.database, relay.terms, 8)
    assert found.tasks == ()
    assert found.due_in is not None
    assert found.due_in > 0


def test_what_is_lost_once_more_needs_no_new_grant(relay: Relay, clock: Clock) -> None:
    relay.record(loss("ada", "eng", 10))
    relay.run()
    relay.record(gain("ada", "eng", 20))
    relay.run()
    assert [row.needs_regrant for row in relay.revocations()] == [True, True]
    [again] = relay.record(loss("ada", "sales", 30))
    relay.run()
    assert [row.needs_regrant for row in relay.revocations()] == [True, True, False]  # by sales, not by eng
    relay.record(left("ada", 40))
    relay.run()
    assert {row.needs_regrant for row in relay.revocations()} == {False}
    assert relay.states(again) == ["retained"]


@pytest.mark.parametrize("verb", ["reject", "cancel"])
def test_whoever_leaves_loses_what_an_operator_had_let_them_keep(relay: Relay, verb: str) -> None:
    known = small_rules(fills={"okta": ALL}, complete=["okta"])
    relay.terms = replace(relay.terms, rules=replace(known, guard=Guard(0 if verb == "reject" else 9, HOUR)))
    with relay.database.write() as connection:
        delivery.pause(connection, "ops", None)
    relay.record(gain("ada", "sales", 0))
    [kept] = relay.record(loss("ada", "sales", 10))
    assert relay.run() == []
    operate.decide(relay.database, "ops", verb, kept, {"reason": "until the project ends"})
    with relay.database.write() as connection:
        delivery.resume(connection)
    relay.terms = replace(relay.terms, rules=known)
    assert relay.run() == []
    relay.record(left("ada", 20))
    assert [set(task.resources) for task in relay.run()] == [{D1}]
    relay.record(back("ada", 30), left("ada", 40))
    assert relay.run() == []  # by now it is taken


def test_a_source_that_left_the_file_gives_nothing_and_makes_nobody_inactive(relay: Relay) -> None:
    relay.record(gain("ada", "sales", 0), left("bob", 0))
    relay.run()
    relay.terms = replace(relay.terms, rules=small_rules(fills={"people": ALL}))

    def at_people(subject: str) -> dict[str, Any]:
        return {"source": "people", "login": subject}

    relay.record(gain("1", "sales", 10, **at_people("ada")), loss("1", "sales", 20, **at_people("ada")))
    assert [(task.velt_user_id, set(task.resources)) for task in relay.run()] == [("ada", {D1})]
    relay.record(gain("2", "eng", 10, **at_people("bob")), gain("2", "sales", 10, **at_people("bob")))
    [lost] = relay.record(loss("2", "sales", 20, **at_people("bob")))
    assert relay.run() == []
    assert relay.states(lost) == ["retained"]


PER_GROUP = {
    "name": "per group",
    "when": {"kind": "group.member_removed", "group.name": {"regex": "(?P<doc>Doc-.+)"}},
    "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
}
LEAVERS = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything"}


@pytest.fixture
def by_template(relay: Relay) -> Relay:
    """No directory is asked, and what a group gives only its name tells."""
    relay.terms = replace(relay.terms, rules=rules(PER_GROUP, LEAVERS))
    return relay


def taken(relay: Relay) -> list[str]:
    return [resource.id for task in relay.run() for resource in task.resources]


def test_a_leaver_loses_what_a_group_gave_of_which_it_is_told_only_afterwards(by_template: Relay) -> None:
    relay = by_template
    relay.record(gain("ada", "g1", 0, group_name="Doc-1"))
    [event_id] = relay.record(left("ada", 100))
    assert taken(relay) == ["Doc-1"]
    relay.record(gain("ada", "g2", 50, group_name="Doc-2"))
    assert taken(relay) == ["Doc-2"]
    assert [row.resource_id for row in relay.revocations(event_id)] == ["Doc-1", "Doc-2"]
    assert relay.event(event_id).state == "done"


def test_so_does_a_leaver_of_whom_nothing_was_known(by_template: Relay) -> None:
    relay = by_template
    [event_id] = relay.record(left("ada", 100))
    assert taken(relay) == []
    assert relay.event(event_id).state == "ignored"
    relay.record(gain("ada", "g1", 50, group_name="Doc-1"))
    assert taken(relay) == ["Doc-1"]
    assert relay.event(event_id).state == "done"


def test_a_gain_without_a_time_may_be_from_before_the_leaving(by_template: Relay, clock: Clock) -> None:
    relay = by_template
    relay.record(left("ada", HOUR - 10))
    taken(relay)
    clock.advance(4 * HOUR - 20)
    relay.record(gain("ada", "g1", None, group_name="Doc-1"))
    assert taken(relay) == ["Doc-1"]
    clock.advance(20)
    relay.record(gain("ada", "g2", None, group_name="Doc-2"))
    assert taken(relay) == []


def test_what_is_gained_after_the_leaving_is_for_whoever_comes_back(by_template: Relay) -> None:
    relay = by_template
    relay.record(left("ada", 100))
    relay.record(gain("ada", "g1", 101, group_name="Doc-1"))
    assert taken(relay) == []
    relay.record(back("ada", 102))
    relay.record(gain("ada", "g2", 50, group_name="Doc-2"))
    assert taken(relay) == []


def test_a_leaver_of_one_source_loses_what_another_gave(by_template: Relay) -> None:
    relay = by_template
    who = {"login": "ada@acme.example"}
    relay.record(left("ada", 100, **who))
    taken(relay)
    relay.record(gain("e1", "g1", 50, source="entra", group_name="Doc-1", **who))
    assert taken(relay) == ["Doc-1"]


def test_a_leaver_loses_what_a_late_gain_gave_that_is_looked_up_first(looked: Looked, clock: Clock) -> None:
    """She was given it once more just before she left; the directory hears of both, one after the other."""
    directory, relay = looked.directory, looked.relay
    made = rules(PER_GROUP, LEAVERS, identity=["{user.email}"], fills={"okta": ALL})
    relay.terms = replace(relay.terms, rules=replace(made, looked_up={"okta": frozenset({"user.email"})}))
    directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "doc-1", 0, group_name="Doc-1"), loss("ada", "doc-1", 10, group_name="Doc-1"))
    assert [resource.id for task in looked.run() for resource in task.resources] == ["Doc-1"]
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED)
    [leaving] = relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR - 1))
    assert looked.run() == []
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["doc-1"])
    clock.advance(1)
    [gained] = relay.record(gain("ada", "doc-1", None))
    for _ in range(16):  # as long as an answer is doubted that contradicts young news
        looked.run()
        clock.advance(60)
    assert relay.event(gained).reason == "gain, but by its directory the account is deactivated"
    assert [(row.resource_id, row.state) for row in relay.revocations(leaving)] == [("Doc-1", "removed")]


@pytest.mark.parametrize("verb", ["reject", "cancel"])
def test_nothing_is_added_to_what_somebody_decided_against(by_template: Relay, verb: str) -> None:
    relay = by_template
    guard = Guard(1, 600)
    if verb == "reject":
        relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=guard))
    relay.record(gain("bob", "g1", 0, group_name="Doc-1"), gain("ada", "g1", 0, group_name="Doc-1"))
    relay.record(left("bob", 99))
    relay.claim(sends=False)
    [event_id] = relay.record(left("ada", 100))
    relay.claim(sends=False)
    operate.decide(relay.database, "eve", verb, event_id, {})
    relay.record(gain("ada", "g2", 50, group_name="Doc-2"))
    assert "Doc-2" not in taken(relay)


def test_more_than_a_person_may_lose_unasked_waits(by_template: Relay) -> None:
    relay = by_template
    relay.terms = replace(relay.terms, rules=rules(PER_GROUP, LEAVERS | {"max_resources": 1}))
    relay.record(gain("ada", "g1", 0, group_name="Doc-1"))
    [event_id] = relay.record(left("ada", 100))
    assert taken(relay) == ["Doc-1"]
    relay.record(gain("ada", "g2", 50, group_name="Doc-2"))
    assert taken(relay) == []
    [held] = [row for row in relay.rows(events) if row.parent_id == event_id]
    assert held.state == "held"
    operate.decide(relay.database, "eve", "approve", held.id, {})
    assert "Doc-2" in taken(relay)


def test_a_leaver_of_one_source_loses_what_a_directory_tells_afterwards(looked: Looked, clock: Clock) -> None:
    directory, relay = looked.directory, looked.relay
    made = rules(PER_GROUP, LEAVERS, identity=["{user.email}"])
    relay.terms = replace(relay.terms, rules=replace(made, looked_up={"okta": frozenset({"user.email"})}))
    directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "everyone", HOUR - 100))
    relay.record(left("e1", HOUR - 1, source="entra", email="ada@acme.example"))
    assert looked.run() == []
    directory.accounts["ada"] = account("ada", groups=["doc-1"])
    clock.advance(1)
    relay.record(loss("ada", "another", HOUR))
    assert [resource.id for task in looked.run() for resource in task.resources] == ["Doc-1"]

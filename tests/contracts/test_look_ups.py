"""What is made of a directory's answers, on both databases."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace

import pytest

from relay import operate, terminal
from relay.errors import LookUpFailed
from relay.model import AccessEvent, Account, Group, Guard, Kind, ObjectType, Status, to_iso
from relay.store import answered, look_ups, preview, tables
from relay.store.claim import Task
from relay.store.database import Database
from tests.directory_people import Directory, Looked, account, rules_with_directory
from tests.people import ACME, CHAT, D1, TOLD, Clock, Relay, at, back, event, gain, group_deleted, left, loss, rules

HOUR = 3600
MINUTE = 60


@pytest.fixture
def relay(looked: Looked) -> Relay:
    return looked.relay


def removed(tasks: list[object]) -> set[tuple[str, object]]:
    return {(task.velt_user_id, resource) for task in tasks for resource in task.resources}  # type: ignore[attr-defined]


def run_for(looked: Looked, clock: Clock, minutes: int) -> list[Task]:
    tasks = looked.run()
    for _ in range(minutes):
        clock.advance(MINUTE)
        tasks += looked.run()
    return tasks


def test_a_loss_that_the_directory_shows_is_planned_at_once(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["everyone"])
    [event_id] = relay.record(loss("ada", "eng", HOUR - 10))
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    assert relay.event(event_id).state == "done"
    assert looked.directory.asked == [("account", "ada")]
    assert json.loads(relay.event(event_id).plan)["directory"] == {
        "said": "not a member",
        "status": "active",
        "asked_at": to_iso(at(HOUR)),
    }


def test_a_stale_loss_of_somebody_who_is_still_a_member_takes_nothing(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    [event_id] = relay.record(loss("ada", "eng", HOUR - 20 * MINUTE))
    assert looked.run() == []
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("ignored", "still a member")
    assert json.loads(relay.event(event_id).plan)["directory"]["said"] == "still a member"


def test_a_young_loss_is_asked_about_four_times_before_the_answer_is_believed(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    [event_id] = relay.record(loss("ada", "eng", HOUR - 1))
    for asked, wait in enumerate((30, 120, 600), start=1):
        assert looked.run() == []
        row = relay.event(event_id)
        assert (row.state, row.looks, len(looked.directory.asked)) == ("received", asked, asked)
        lags = f"it may lag behind the news of {to_iso(at(HOUR - 1))}"
        assert f"still a member, but {lags}; asked again at {to_iso(row.look_at)}" in row.reason
        clock.advance(wait - 1)
        assert looked.run() == []
        assert len(looked.directory.asked) == asked
        clock.advance(1)
    assert looked.run() == []
    assert len(looked.directory.asked) == 4
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("ignored", "still a member")


def test_a_directory_that_lagged_takes_nothing_back(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    [event_id] = relay.record(loss("ada", "eng", HOUR - 1))
    assert looked.run() == []
    looked.directory.accounts["ada"] = account("ada")
    clock.advance(30)
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    assert relay.event(event_id).state == "done"


def test_a_loss_after_a_gain_that_still_waits_is_not_the_loss_that_is_known(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", None, twin=True))
    assert len(looked.run()) == 1
    relay.record(gain("ada", "eng", None, twin=True))
    assert looked.run() == []  # the directory lags: it is asked again
    clock.advance(5)
    [again] = relay.record(loss("ada", "eng", None, twin=True))
    looked.run()
    clock.advance(HOUR)
    looked.run()
    assert relay.event(again).state == "done"
    assert [row.state for row in relay.revocations(again)] == ["removed", "removed"]


def test_what_another_group_gives_is_found_by_the_look_up(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["sales"])
    [event_id] = relay.record(loss("ada", "eng", HOUR - 10))
    assert removed(looked.run()) == {("ada@acme.example", ACME)}
    kept = [row for row in relay.revocations(event_id) if row.state == "retained"]
    assert [(row.resource_id, row.reason) for row in kept] == [("d1", "still has group Sales (okta), rule 'sales'")]


def test_a_deactivated_account_still_lists_its_groups_and_is_no_member(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng", "sales"], email="ada@acme.example")
    relay.record(loss("ada", "eng", HOUR - 10))
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}


def test_an_answer_serves_only_events_that_came_before_it(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 1), loss("ada", "eng-2", HOUR - 1))
    looked.run()
    assert len(looked.directory.asked) == 1
    clock.advance(1)
    relay.record(loss("ada", "sales", HOUR))
    looked.run()
    assert len(looked.directory.asked) == 2


def test_failing_look_ups_hold_an_event_for_as_long_as_patience_lasts(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "everyone", HOUR - 100))
    looked.run()  # who she is, is known
    [event_id] = relay.record(loss("ada", "eng", HOUR - 1))
    looked.directory.down = LookUpFailed("okta.example does not answer")
    for _ in range(15 * 60 // 5 - 1):
        assert looked.run() == []
        assert relay.event(event_id).state == "received"
        clock.advance(5)
    assert relay.event(event_id).reason == "waiting for a look-up: okta.example does not answer"
    clock.advance(5)
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    shown = operate.show(relay.database, event_id)
    assert shown["plan"]["directory"] == {
        "said": None,
        "status": None,
        "asked_at": None,
        "error": "okta.example does not answer",
    }
    told = "gave no answer within look_up.patience, so what the event says was planned: okta.example does not answer"
    assert f"directory  {told}\n" in terminal.event(shown)


def test_who_somebody_is_waits_however_long_the_look_ups_fail(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada@acme.example")
    looked.directory.down = LookUpFailed("okta.example does not answer")
    [event_id] = relay.record(left("ada", HOUR - 1, login="a.lovelace"))
    for _ in range(100):
        assert looked.run() == []
        clock.advance(30)
    row = relay.event(event_id)
    assert (row.state, row.person_id) == ("received", None)
    assert row.reason == "waiting for a look-up: who this is must be known first, and okta.example does not answer"
    looked.directory.down = None
    clock.advance(5)
    assert {task.velt_user_id for task in looked.run()} == {"ada@acme.example"}


def test_a_login_takes_the_place_of_an_address_that_the_directory_says_is_not_there(
    looked: Looked, relay: Relay
) -> None:
    looked.directory.accounts["ada"] = account("ada", email=None)
    relay.record(loss("ada", "eng", HOUR - 1, login="a.lovelace"))
    assert {task.velt_user_id for task in looked.run()} == {"a.lovelace"}


def test_somebody_who_is_gone_and_was_never_known_needs_a_person(looked: Looked, relay: Relay) -> None:
    [event_id] = relay.record(loss("ada", "eng", HOUR - 20 * MINUTE, login="a.lovelace"))
    assert looked.run() == []
    row = relay.event(event_id)
    assert row.state == "failed"
    assert row.reason == (
        "user.email of this person is not known: its directory does not tell it (the account is gone); "
        "name them in identity.map, or remove by hand"
    )


def test_a_change_of_an_account_that_is_gone_and_was_never_known_needs_a_person_too(
    looked: Looked, relay: Relay
) -> None:
    [event_id] = relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR - 20 * MINUTE))
    assert looked.run() == []
    assert relay.event(event_id).state == "failed"
    assert "(the account is gone)" in relay.event(event_id).reason


def test_an_account_so_new_that_no_copy_of_the_directory_has_it_is_asked_for_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    [gained] = relay.record(gain("ada", "eng", HOUR - 1))
    for asked, wait in enumerate((30, 120), start=1):
        assert looked.run() == []
        row = relay.event(gained)
        assert (row.state, row.looks) == ("received", asked)
        assert "the directory says there is no such account, but it may lag behind the news of " in row.reason
        clock.advance(wait)
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    assert looked.run() == []
    assert (relay.event(gained).state, relay.velt_users()) == ("done", {"ada": ["ada@acme.example"]})


def test_an_account_that_is_not_there_after_the_news_is_old_is_gone(looked: Looked, relay: Relay, clock: Clock) -> None:
    [event_id] = relay.record(loss("ada", "eng", HOUR - 1))
    for wait in (30, 120, 600):
        looked.run()
        assert relay.event(event_id).state == "received"
        clock.advance(wait)
    looked.run()
    assert (relay.event(event_id).state, len(looked.directory.asked)) == ("failed", 4)


def test_a_deleted_account_whose_address_the_directory_still_tells_is_somebody(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account(
        "ada", Status.DELETED, login="ada@login.example", email="ada@acme.example"
    )
    looked.directory.accounts["bob"] = account("bob", Status.DELETED, login="bob@login.example")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR - 1), event(Kind.ACCOUNT_CHANGED, "bob", HOUR - 1))
    assert {task.velt_user_id for task in looked.run()} == {"ada@acme.example", "bob@login.example"}


def test_an_account_loss_goes_at_once_and_the_look_up_adds_what_was_not_known(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "everyone", HOUR - 100))
    looked.run()
    assert len(looked.directory.asked) == 1
    looked.directory.down = LookUpFailed("okta.example does not answer")
    [event_id] = relay.record(left("ada", HOUR - 1))
    first = removed(relay.run())  # type: ignore[arg-type]
    assert first == {("ada@acme.example", ACME), ("ada@acme.example", D1), ("ada@acme.example", CHAT)}
    assert relay.event(event_id).state == "done"
    assert relay.event(event_id).completing


def test_the_groups_of_a_leaver_fill_the_templates_that_nothing_else_could(timed: Database, clock: Clock) -> None:
    template = {
        "name": "per group",
        "when": {"kind": "group.member_removed", "group.name": {"regex": "(?P<doc>Doc-.+)"}},
        "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
    }
    leavers = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything"}
    made = rules(template, leavers, identity=["{user.email}"])
    relay = Relay(timed, replace(made, looked_up={"okta": frozenset({"user.email"})}))
    directory = Directory(clock)
    looked = Looked(relay, directory)
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["doc-1"], email="ada@acme.example")
    relay.record(gain("ada", "everyone", HOUR - 100))
    looked.run()
    [event_id] = relay.record(left("ada", HOUR - 1, email="ada@acme.example"))
    assert [str(resource) for _, resource in removed(looked.run())] == ["document Doc-1 in acme"]
    assert relay.event(event_id).state == "done"
    assert not relay.event(event_id).completing


def change(subject: str, when: float, **more: object) -> AccessEvent:
    return event(Kind.ACCOUNT_CHANGED, subject, when, key=None, **more)  # type: ignore[arg-type]


def test_a_change_becomes_the_loss_that_the_directory_shows(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada@acme.example")
    [event_id, again] = relay.record(change("ada", HOUR - 2), change("ada", HOUR - 1))  # type: ignore[arg-type]
    taken = {("ada@acme.example", resource) for resource in (ACME, D1, CHAT)}
    assert removed(looked.run()) == taken
    assert (relay.event(event_id).kind, relay.event(event_id).state) == ("account.deactivated", "done")
    clock.advance(900)
    looked.run()
    assert relay.event(again).kind == "account.deactivated"


def test_a_change_of_somebody_who_is_active_comes_to_nothing_when_it_is_old(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")
    [event_id] = relay.record(change("ada", HOUR - 1))  # type: ignore[arg-type]
    assert looked.run() == []
    assert relay.event(event_id).state == "received"  # the disabling that it may be is not to be seen everywhere yet
    clock.advance(900)
    looked.run()
    assert (relay.event(event_id).state, relay.event(event_id).reason) == (
        "ignored",
        "the account is active: nothing was lost",
    )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.SUSPENDED, Kind.ACCOUNT_SUSPENDED),
        (Status.DEACTIVATED, Kind.ACCOUNT_DEACTIVATED),
        (Status.DELETED, Kind.ACCOUNT_DELETED),
        (Status.GONE, Kind.ACCOUNT_DELETED),
    ],
)
def test_each_status_is_a_loss_of_its_own_kind(looked: Looked, relay: Relay, status: Status, kind: Kind) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 100))
    looked.run()
    looked.directory.accounts["ada"] = Account("ada", status, 0)
    [event_id] = relay.record(change("ada", HOUR - 1))  # type: ignore[arg-type]
    looked.run()
    assert relay.event(event_id).kind == kind.value


def test_a_gain_without_a_time_ends_a_dated_loss_when_the_directory_shows_it(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 1000))
    looked.run()
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    [event_id] = relay.record(gain("ada", "eng", None))
    looked.run()
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("done", "gain")
    [fact] = [f for f in relay.facts("ada") if f.object_id == "eng"]
    assert fact.present


def test_nothing_is_sent_while_a_gain_waits_for_its_look_up(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "eng", HOUR - 2000))
    looked.run()
    relay.record(loss("ada", "eng", HOUR - 1))
    assert relay.claim() == ()
    looked.look_up()
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", None))  # before the loss is planned
    assert relay.claim() == ()
    looked.run()
    assert relay.claim() == ()


def test_a_look_up_never_ends_a_young_gain(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "sales", HOUR - 60))
    relay.record(loss("ada", "eng", HOUR - 1))
    assert removed(looked.run()) == {("ada@acme.example", ACME)}
    [fact] = [f for f in relay.facts("ada") if f.object_id == "sales"]
    assert fact.present


def test_a_look_up_ends_what_was_lost_long_ago_unseen(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["sales"])
    relay.record(gain("ada", "sales", HOUR - 2000))
    looked.run()
    looked.directory.accounts["ada"] = account("ada")
    clock.advance(1000)
    relay.record(loss("ada", "eng", HOUR + 990))
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}


def test_an_app_is_asked_for_by_name(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada")
    looked.directory.apps["chat"] = {"ada"}
    [kept] = relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", HOUR - 1000, app_id="chat"))
    assert looked.run() == []
    assert relay.event(kept).reason == "still has the app"
    looked.directory.apps["chat"] = set()
    clock.advance(1)
    relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", HOUR, app_id="chat"))
    assert removed(looked.run()) == {("ada@acme.example", CHAT)}


def test_the_end_of_an_app_reaches_everybody_whom_the_directory_names(looked: Looked, relay: Relay) -> None:
    for subject in ("ada", "bob"):
        looked.directory.accounts[subject] = account(subject, Status.DEACTIVATED, email=f"{subject}@acme.example")
    looked.directory.apps["chat"] = {"ada", "bob"}
    [event_id] = relay.record(event(Kind.APP_ACCESS_REMOVED, None, HOUR - 1, app_id="chat"))
    assert removed(looked.run()) == {("ada@acme.example", CHAT), ("bob@acme.example", CHAT)}
    assert relay.event(event_id).reason == "2 known members of app chat, one event each"


def test_an_app_of_which_nobody_was_told_in_time_ends_for_those_who_are_known(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.down = LookUpFailed("okta.example does not answer")
    [event_id] = relay.record(event(Kind.APP_ACCESS_REMOVED, None, HOUR - 1, app_id="chat"))
    for _ in range(2):
        looked.run()
        clock.advance(15 * MINUTE + 1)
    looked.run()
    shown = operate.show(relay.database, event_id)
    assert shown["state"] == "ignored"
    assert "was planned: okta.example does not answer" in terminal.event(shown)


def test_a_group_that_changed_and_is_gone_was_deleted(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 2000))
    looked.run()
    looked.directory.accounts["ada"] = account("ada")
    [event_id] = relay.record(event(Kind.GROUP_CHANGED, None, HOUR - 1, group_id="eng"))
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    assert relay.event(event_id).kind == "group.deleted"


def test_a_group_that_changed_and_is_there_lost_nobody(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.all_groups["eng"] = Group("eng", "Engineers")
    [event_id] = relay.record(event(Kind.GROUP_CHANGED, None, HOUR - 1000, group_id="eng"))
    looked.run()
    assert (relay.event(event_id).state, relay.event(event_id).group_name) == ("ignored", "Engineers")


def test_the_end_of_a_group_takes_from_who_is_not_in_it_any_more_by_an_answer_that_was_faster(
    looked: Looked, relay: Relay
) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng", "sales"])
    relay.record(gain("ada", "eng", HOUR - 3000), gain("ada", "sales", HOUR - 3000))
    looked.run()
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "sales", HOUR - 1))  # the answer that this asks for tells of eng too
    looked.run()
    end = group_deleted("eng", HOUR - 200)
    assert preview.preview(relay.database, relay.terms.rules, end).members == 1
    [of_group] = relay.record(end)
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    assert relay.event(of_group).reason.startswith("1 known member of group eng, one event each; ")
    [again] = relay.record(group_deleted("eng", HOUR - 100))
    assert looked.run() == []
    assert relay.event(again).state == "ignored"


def test_an_answer_that_nobody_came_back_with_is_asked_for_again(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 1))
    relay.claim()
    assert len(look_ups.take(relay.database, ["okta"], 10)) == 1
    assert look_ups.take(relay.database, ["okta"], 10) == []
    clock.advance(look_ups.LEASE / 1_000_000)
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}


def test_a_new_address_is_a_new_velt_user_and_the_old_one_is_not_forgotten(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 2000))
    looked.run()
    looked.directory.accounts["ada"] = account("ada", groups=["everyone"], email="ada.king@acme.example")
    relay.record(loss("ada", "eng", HOUR - 1))
    assert {task.velt_user_id for task in looked.run()} == {"ada@acme.example", "ada.king@acme.example"}


def test_an_activation_that_a_look_up_knew_first_keeps_its_time(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.SUSPENDED)
    relay.record(loss("ada", "eng", HOUR - 1))
    looked.run()
    [account_fact] = [f for f in relay.facts("ada") if f.object_type is ObjectType.ACCOUNT]
    assert (account_fact.present, account_fact.event_id) == (False, None)
    [event_id] = relay.record(left("ada", HOUR - 2))
    looked.run()
    [account_fact] = [f for f in relay.facts("ada") if f.object_type is ObjectType.ACCOUNT]
    assert account_fact.event_id == event_id


def test_an_old_account_loss_that_a_later_activation_contradicts_is_looked_up(looked: Looked, relay: Relay) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 3000), back("ada", HOUR - 2000))
    looked.run()
    [event_id] = relay.record(left("ada", HOUR - 2500))
    assert looked.run() == []
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("ignored", "the account is active")


def test_an_old_account_loss_of_which_nothing_else_is_known_is_looked_up(looked: Looked, relay: Relay) -> None:
    """Told late, after an outage or by a log that is read again: the account may be back since, or away still."""
    told = {"login": "ada", "email": "ada@acme.example"}
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    [is_back] = relay.record(left("ada", HOUR - 20 * MINUTE, **told))
    told = {"login": "bob", "email": "bob@acme.example"}
    looked.directory.accounts["bob"] = account("bob", Status.DEACTIVATED, groups=["eng"])
    [is_away] = relay.record(left("bob", HOUR - 20 * MINUTE, **told))
    assert removed(looked.run()) == {("bob@acme.example", resource) for resource in (ACME, D1, CHAT)}
    assert (relay.event(is_back).state, relay.event(is_back).reason) == ("ignored", "the account is active")
    assert relay.event(is_away).state == "done"


def test_an_account_loss_that_is_planned_again_is_looked_up(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, email="ada@acme.example")
    [event_id] = relay.record(left("ada", HOUR - 1, login="ada", email="ada@acme.example"))
    assert len(looked.run()) == 1
    clock.advance(HOUR)
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    operate.retry(relay.database, {}, "eve", event_id, {"replan": True})
    assert looked.run() == []
    assert (relay.event(event_id).state, relay.event(event_id).reason) == ("ignored", "the account is active")


def explained(relay: Relay, directory: Directory | None, given: AccessEvent) -> preview.Preview:
    """What would come of an event, asked of the directory where one is given; nothing may change by it."""
    before = relay.rows(tables.events), relay.rows(tables.facts), relay.rows(tables.look_ups)
    named = ([given.group_id] if given.group_id else [], [given.app_id] if given.app_id else [])
    answer = directory.look_up(given.subject or "", *named) if directory else None
    found = preview.preview(relay.database, relay.terms.rules, given, answer)
    assert (relay.rows(tables.events), relay.rows(tables.facts), relay.rows(tables.look_ups)) == before
    return found


def test_explain_without_asking_says_what_it_would_wait_for(looked: Looked, relay: Relay) -> None:
    unknown = explained(relay, None, loss("ada", "eng", HOUR - 10))
    assert (unknown.state, unknown.reason) == (
        "received",
        "waiting for a look-up: user.email of this person is not known",
    )
    known = explained(relay, None, loss("ada", "eng", HOUR - 10, email="ada@acme.example"))
    assert (known.state, known.reason) == ("planned", "as the event says; its directory would be asked first")
    changed = explained(relay, None, change("ada", HOUR - 10, email="ada@acme.example"))
    assert (changed.state, changed.reason) == ("received", "waiting for a look-up")


def test_explain_that_asks_says_what_planning_would(looked: Looked, relay: Relay) -> None:
    directory = looked.directory
    directory.accounts["ada"] = account("ada", groups=["sales"])
    found = explained(relay, directory, loss("ada", "eng", HOUR - 10))
    assert {(one.velt_user_id, one.resource): one.verdict.state for one in found.removals} == {
        ("ada@acme.example", ACME): "pending",
        ("ada@acme.example", D1): "retained",
    }
    stale = explained(relay, directory, loss("ada", "sales", HOUR - 20 * MINUTE))
    assert (stale.state, stale.reason) == ("ignored", "still a member")
    young = explained(relay, directory, loss("ada", "sales", HOUR - 10))
    assert young.state == "received"
    assert "still a member, but it may lag behind the news of " in (young.reason or "")
    directory.accounts["ada"] = account("ada", Status.SUSPENDED, ["eng"])
    left_now = explained(relay, directory, change("ada", HOUR - 10))
    assert left_now.event.kind == "account.suspended"
    directory.accounts["ada"] = account("ada", Status.DEACTIVATED, ["eng"], email="ada@acme.example")
    gone = explained(relay, directory, change("ada", HOUR - 10))
    assert {one.resource for one in gone.removals} == {ACME, D1, CHAT}  # apps are told only to whoever asks


def test_whatever_else_changes_of_a_disabled_account_is_removed_again_and_not_held(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, guard=Guard(1, HOUR)))
    changed = event(Kind.ACCOUNT_CHANGED, "ada", None, twin=True)
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, email="ada@acme.example")
    relay.record(changed)
    assert removed(looked.run())
    clock.advance(2 * HOUR)
    looked.directory.accounts["bob"] = account("bob", Status.DEACTIVATED, email="bob@acme.example")
    new, known = relay.record(replace(changed, subject="bob", key="1"), replace(changed, key="2"))
    for _ in range(4):
        looked.run()
        clock.advance(600)
    looked.run()
    assert (relay.event(new).state, relay.event(known).state) == ("done", "done")
    assert [row.again for row in relay.revocations(known)] == [True] * len(relay.revocations(known)) != []


def named(relay: Relay, group: str) -> set[str]:
    """The events that are found by the name of their group."""
    return {one["id"] for one in operate.events(relay.database, {"group": group})["events"]}


def test_an_event_is_found_by_the_name_that_a_look_up_told(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    looked.directory.all_groups["eng"] = Group("eng", "Eng")
    [kept] = relay.record(loss("ada", "eng", HOUR - 20 * MINUTE))
    looked.run()
    looked.directory.accounts["ada"] = account("ada")
    clock.advance(MINUTE)
    [taken] = relay.record(loss("ada", "eng", HOUR + 30))
    looked.run()
    assert [relay.event(event_id).state for event_id in (kept, taken)] == ["ignored", "done"]
    assert named(relay, "Eng") == {kept, taken}


def test_an_event_is_found_by_the_name_that_other_events_told(relay: Relay) -> None:
    without = replace(relay.terms.rules, looked_up={}, guard=None)
    relay.terms = replace(relay.terms, rules=without)
    [told] = relay.record(gain("bob", "eng", 0, email="bob@acme.example", group_name="Engineers"))
    [own] = relay.record(gain("ada", "eng", 0, email="ada@acme.example", group_name="Engineers"))
    relay.run()
    ids = relay.record(
        loss("ada", "eng", 5, email="ada@acme.example"),
        loss("eve", "eng", 5, email="eve@acme.example"),
        event(Kind.GROUP_DELETED, None, 9, group_id="eng"),
    )
    relay.run()
    assert named(relay, "Engineers") >= {told, own, *ids}


def test_a_group_that_has_ended_takes_from_whom_a_lagging_answer_shows_to_have_been_in_it(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    [end] = relay.record(group_deleted("eng", HOUR - 10, group_name="Eng"))
    assert looked.run() == []
    assert relay.event(end).state == "ignored"  # nobody was known to be in it
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])  # as it was before the end
    relay.record(loss("ada", "everyone", HOUR - 5))
    assert looked.run() == []
    looked.directory.accounts["ada"] = account("ada")
    clock.advance(30)
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}


def test_a_group_that_ended_and_is_there_again_concerns_nobody_of_whom_that_is_told(
    looked: Looked, relay: Relay
) -> None:
    [end] = relay.record(group_deleted("eng", HOUR - 20 * MINUTE))
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])  # no copy can be as old as the end
    relay.record(loss("ada", "everyone", HOUR - 5))
    looked.run()
    assert [row.id for row in relay.rows(tables.events) if row.parent_id == end] == []


def test_who_an_account_is_by_a_later_answer_loses_what_it_lost_just_before(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")  # a copy that does not have the new address yet
    relay.record(loss("ada", "eng", HOUR - 1))
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    clock.advance(MINUTE)
    looked.directory.accounts["ada"] = account("ada", email="ada.new@acme.example")
    relay.record(loss("ada", "everyone", HOUR + MINUTE))
    assert removed(looked.run()) == {("ada.new@acme.example", ACME), ("ada.new@acme.example", D1)}


def test_who_an_account_is_by_a_later_answer_loses_nothing_of_long_before(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 1))
    looked.run()
    clock.advance(31 * MINUTE)
    relay.record(loss("ada", "everyone", HOUR + 31 * MINUTE))
    looked.run()  # no copy could lag behind the first loss any more, and she was who she was
    clock.advance(HOUR)
    looked.directory.accounts["ada"] = account("ada", email="ada.new@acme.example")
    relay.record(loss("ada", "everyone", 2 * HOUR + 31 * MINUTE))
    assert looked.run() == []


@pytest.mark.parametrize("answered_before", [True, False])
def test_a_loss_in_an_outage_of_the_directory_reaches_the_address_that_is_learned_after_it(
    looked: Looked, relay: Relay, clock: Clock, answered_before: bool
) -> None:
    relay.record(gain("ada", "eng", HOUR - 1, email="ada@acme.example"))
    if answered_before:
        looked.directory.accounts["ada"] = account("ada")
        relay.record(loss("ada", "everyone", HOUR))
        looked.run()
    looked.directory.down = LookUpFailed("it is away")
    relay.record(loss("ada", "eng", HOUR + 1))
    assert removed(run_for(looked, clock, 119)) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    looked.directory.down = None
    looked.directory.accounts["ada"] = account("ada", email="ada.new@acme.example")
    relay.record(loss("ada", "everyone", 3 * HOUR))
    assert removed(run_for(looked, clock, 1)) == {("ada.new@acme.example", ACME), ("ada.new@acme.example", D1)}


def test_an_account_loss_reaches_an_address_that_is_learned_long_after_it(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, email="ada@acme.example")
    relay.record(left("ada", HOUR - 1))
    first = removed(looked.run())
    clock.advance(HOUR)
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, email="ada.new@acme.example")
    relay.record(loss("ada", "everyone", 2 * HOUR))
    assert removed(looked.run()) == {("ada.new@acme.example", resource) for _, resource in first}


def test_an_account_loss_is_completed_by_an_answer_that_knows_of_it(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])  # a copy that is older than the loss
    [event_id] = relay.record(left("ada", HOUR - 1, login="ada", email="ada@acme.example"))
    looked.run()
    assert (relay.event(event_id).completing, len(looked.directory.asked)) == (True, 1)
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, email="ada@acme.example")
    clock.advance(30)
    looked.run()
    assert (relay.event(event_id).completing, len(looked.directory.asked)) == (False, 2)


def test_what_a_new_address_lost_before_a_return_was_believed_is_listed_to_be_granted_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    def now_is(status: Status, *groups: str, email: str = "ada@acme.example") -> list[Task]:
        looked.directory.accounts["ada"] = account("ada", status, groups, email=email)
        clock.advance(1)
        return looked.run()

    relay.record(loss("ada", "eng", HOUR - 20), gain("ada", "sales", HOUR - 10))
    now_is(Status.ACTIVE, "sales")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + 1))
    now_is(Status.DEACTIVATED, "sales")
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + 2))
    now_is(Status.ACTIVE, "sales")  # it may lag: it is asked again
    clock.advance(30)
    taken = removed(now_is(Status.ACTIVE, "sales", email="ada.new@acme.example"))
    assert ("ada.new@acme.example", D1) in taken
    clock.advance(HOUR)
    now_is(Status.ACTIVE, "sales", email="ada.new@acme.example")
    [new] = [row.id for row in relay.rows(tables.people) if row.velt_user_id == "ada.new@acme.example"]
    assert [row.resource_id for row in relay.revocations() if row.needs_regrant and row.person_id == new] == ["d1"]


def test_what_was_taken_before_a_look_up_told_of_another_group_is_listed_to_be_granted_again(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.down = LookUpFailed("okta.example does not answer")
    relay.record(loss("ada", "eng", HOUR - 1, email="ada@acme.example"))
    looked.run()
    clock.advance(20 * MINUTE)
    assert removed(looked.run()) == {("ada@acme.example", ACME), ("ada@acme.example", D1)}
    looked.directory.down = None
    looked.directory.accounts["ada"] = account("ada", groups=["sales"])  # nobody had told it
    clock.advance(20 * MINUTE)
    looked.run()
    assert {row.resource_id for row in relay.revocations() if row.needs_regrant} == {"d1"}


def test_what_a_directory_adds_to_a_loss_waits_where_it_is_more_than_anybody_may_lose_unasked(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    documents = {
        "name": "documents",
        "when": {"kind": "group.member_removed", "group.name": {"regex": "doc-(?P<doc>.+)"}},
        "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
    }
    leavers = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything", "max_resources": 2}
    made = rules(documents, leavers, identity=["{user.login}"], fills={"okta": relay.terms.rules.fills["okta"]})
    relay.terms = replace(relay.terms, rules=replace(made, looked_up=relay.terms.rules.looked_up))
    told = {"login": "ada@acme.example"}
    relay.record(gain("ada", "g0", HOUR - 2000, group_name="doc-0", **told))
    looked.directory.accounts["ada"] = account("ada", groups=["g0"])
    looked.run()
    groups = tuple(Group(f"g{number}", f"doc-{number}") for number in range(4))
    looked.directory.accounts["ada"] = replace(account("ada", Status.DEACTIVATED), groups=groups, **told)
    [event_id] = relay.record(left("ada", HOUR - 1, **told))
    assert {resource.id for _, resource in removed(looked.run())} == {"0"}
    assert (relay.event(event_id).state, relay.event(event_id).completing) == ("done", False)
    [held] = [row for row in relay.rows(tables.events) if row.parent_id == event_id]
    assert (held.state, held.person_id) == ("held", relay.event(event_id).person_id)
    assert "would take 4 resources from one person, more than its max_resources of 2" in held.reason
    operate.decide(relay.database, "ops", "approve", held.id, {"reason": "she left"})
    assert {resource.id for _, resource in removed(looked.run())} == {"1", "2", "3"}


def held_part_of_a_leaver(looked: Looked, relay: Relay, clock: Clock) -> str:
    """Ada has had two addresses and leaves, by which more would go than anybody may lose unasked; the event's id."""
    documents = {
        "name": "documents",
        "when": {"kind": "group.member_removed", "group.name": {"regex": "doc-(?P<doc>.+)"}},
        "revoke": [{"type": "document", "id": "{doc}", "organizationId": "acme"}],
    }
    leavers = {"name": "leavers", "when": {"kind": "account.deactivated"}, "revoke": "everything", "max_resources": 2}
    made = rules(documents, leavers, identity=["{user.email}"], fills={"okta": relay.terms.rules.fills["okta"]})
    relay.terms = replace(relay.terms, rules=replace(made, looked_up=relay.terms.rules.looked_up))
    groups = tuple(Group(f"g{number}", f"doc-{number}") for number in range(4))
    for address in ("ada@acme.example", "ada.king@acme.example"):
        looked.directory.accounts["ada"] = replace(account("ada", email=address), groups=groups[:1])
        relay.record(back("ada", HOUR - 2000))
        relay.record(loss("ada", "none", HOUR - 2000))
        looked.run()
        clock.advance(1)
    assert len(relay.velt_users()["ada"]) == 2
    gone = replace(account("ada", Status.DEACTIVATED, email="ada.king@acme.example"), groups=groups)
    looked.directory.accounts["ada"] = gone
    [event_id] = relay.record(left("ada", HOUR))
    looked.run()
    return event_id


def held_parts(relay: Relay, event_id: str) -> list[tuple[str, str]]:
    return [(row.id, row.state) for row in relay.rows(tables.events) if row.parent_id == event_id]


def ask_again(looked: Looked, relay: Relay, clock: Clock) -> None:
    clock.advance(1)
    with relay.database.write() as connection:
        about = look_ups.About.account("okta", "ada")
        look_ups.want(connection, about, answer_from=relay.now(), due_at=relay.now())
    looked.run()


@pytest.mark.parametrize("decision", [None, "reject"])
def test_more_answers_about_somebody_who_had_two_addresses_hold_the_same_part_once(
    looked: Looked, relay: Relay, clock: Clock, decision: str | None
) -> None:
    event_id = held_part_of_a_leaver(looked, relay, clock)
    [(held, state)] = held_parts(relay, event_id)
    assert state == "held"
    if decision is not None:
        operate.decide(relay.database, "ops", decision, held, {"reason": "she stays"})
    for _ in range(3):
        ask_again(looked, relay, clock)
    [(still, state)] = held_parts(relay, event_id)
    assert (still, state) == (held, "held" if decision is None else "ignored")


def test_somebody_who_turns_out_to_have_a_third_address_has_one_held_part(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    event_id = held_part_of_a_leaver(looked, relay, clock)
    before = held_parts(relay, event_id)
    ada = looked.directory.accounts["ada"]
    groups = (*ada.groups, Group("g4", "doc-4"))
    looked.directory.accounts["ada"] = replace(ada, email="countess@acme.example", groups=groups)
    ask_again(looked, relay, clock)
    assert relay.velt_users()["ada"][0] == "countess@acme.example"
    assert held_parts(relay, event_id) == before
    [(held, _)] = before
    assert "would take 5 resources from one person" in relay.event(held).reason
    operate.decide(relay.database, "ops", "approve", held, {"reason": "she left"})
    taken = removed(looked.run())
    assert {resource.id for user, resource in taken if user == "countess@acme.example"} == {"0", "1", "2", "3", "4"}


def test_an_address_that_is_learned_long_after_an_approval_waits_for_another(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    event_id = held_part_of_a_leaver(looked, relay, clock)
    [(approved, _)] = held_parts(relay, event_id)
    operate.decide(relay.database, "ops", "approve", approved, {"reason": "she left"})
    looked.run()
    clock.advance(24 * HOUR)
    ask_again(looked, relay, clock)
    clock.advance(HOUR)
    looked.directory.accounts["ada"] = replace(looked.directory.accounts["ada"], email="countess@acme.example")
    ask_again(looked, relay, clock)
    states = dict(held_parts(relay, event_id))
    assert (states.pop(approved), list(states.values())) == ("done", ["held"])


def by_hand(relay: Relay) -> str:
    """An operator's removal of what eng gives, while nothing is sent."""
    relay.terms = replace(relay.terms, sends=False)
    body = {"user": "ada@acme.example", "resources": [ACME.as_velt()], "reason": "they asked"}
    found: str = operate.remove(relay.database, relay.terms.rules, "ops", body)["id"]
    return found


@pytest.mark.parametrize("known_before", [True, False], ids=["by an event", "by a look-up"])
def test_a_membership_that_is_only_confirmed_leaves_an_operators_removal_alone(
    looked: Looked, relay: Relay, clock: Clock, known_before: bool
) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    first = gain("ada", "eng", HOUR - 10) if known_before else back("ada", HOUR - 10, email="ada@acme.example")
    relay.record(first, loss("ada", "none", HOUR - 10))
    looked.run()
    assert ("eng", True) in [(fact.object_id, fact.present) for fact in relay.facts("ada")]
    clock.advance(1)
    by_hand(relay)
    for number in (1, 2):  # a message of old that the directory denies, and the next
        clock.advance(20 * MINUTE)
        relay.record(loss("ada", "eng", HOUR - 9 + number))
        looked.run()
    [eng] = [fact for fact in relay.facts("ada") if fact.object_id == "eng"]
    assert eng.present
    assert eng.as_of > at(HOUR + 20 * MINUTE)  # told again, after the removal
    relay.terms = replace(relay.terms, sends=True)
    assert removed(relay.run()) == {("ada@acme.example", ACME)}


def test_a_membership_that_was_lost_and_gained_since_ends_an_operators_removal_confirmed_or_not(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 2000, email="ada@acme.example"))
    looked.run()
    event_id = by_hand(relay)
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR + 1))
    clock.advance(5)
    looked.run()
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR + 6), gain("ada", "eng", HOUR + 7))
    clock.advance(5)
    looked.run()
    [revocation] = relay.revocations(event_id)
    assert revocation.state == "superseded"


def test_a_second_group_that_an_answer_does_not_name_is_asked_for_a_second_later(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    by_name = {
        "name": "by name",
        "when": {"kind": "group.member_removed", "group.name": ["Engineering", "Sales"]},
        "revoke": [D1.as_velt()],
    }
    fills = {"okta": relay.terms.rules.fills["okta"] - {"group.name"}}
    made = rules(by_name, identity=["{user.login}"], fills=fills)
    relay.terms = replace(relay.terms, rules=replace(made, looked_up={"okta": frozenset({"group.name"})}))
    looked.directory.all_groups = {"eng": Group("eng", "Engineering"), "sales": Group("sales", "Sales")}
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 1, login="ada"))
    relay.claim()
    [question] = look_ups.take(relay.database, ["okta"], 10)
    assert question.groups == ("eng",)
    [second] = relay.record(loss("ada", "sales", HOUR - 1, login="ada"))  # as the question is on its way
    relay.claim()
    answer = looked.directory.look_up("ada", question.groups)
    answered.keep(relay.database, relay.terms.rules, question, answer)
    assert removed(looked.run()) == {("ada", D1)}
    assert relay.event(second).state == "received"
    clock.advance(1)
    looked.run()
    assert relay.event(second).state == "done"


def questions_within(looked: Looked, clocks: list[Clock], seconds: int) -> int:
    """How many questions a worker asks in so many seconds, looking ten times a second."""
    before = len(looked.directory.asked)
    for _ in range(10 * seconds):
        looked.relay.claim()
        looked.look_up()
        for clock in clocks:
            clock.advance(0.1)
    return len(looked.directory.asked) - before


class Untold(Directory):
    """A directory that never tells of apps."""

    def look_up(self, subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        return replace(super().look_up(subject, groups, apps), apps={})


def test_a_directory_that_does_not_tell_what_was_asked_is_asked_once_a_second(timed: Database, clock: Clock) -> None:
    looked = Looked(Relay(timed, rules_with_directory()), Untold(clock))
    looked.directory.accounts["ada"] = account("ada")
    [event_id] = looked.relay.record(event(Kind.APP_ACCESS_REMOVED, "ada", HOUR - 1, app_id="chat"))
    assert 5 <= questions_within(looked, [clock], 5) <= 6
    clock.advance(16 * MINUTE)
    looked.run()
    assert looked.relay.event(event_id).state == "done"  # taken at its word in the end


@pytest.mark.parametrize(
    "given",
    [
        loss("ada", "eng", HOUR - 1),
        loss("ada", "eng", HOUR - 1, email="ada@acme.example"),
        event(Kind.APP_ACCESS_REMOVED, None, HOUR - 1, app_id="chat"),
    ],
    ids=["of somebody unknown", "of somebody known", "of an app"],
)
def test_a_worker_whose_clock_is_behind_asks_at_once_and_then_once_a_second(
    looked: Looked, relay: Relay, clock: Clock, given: AccessEvent
) -> None:
    looked.directory.clock = behind = Clock()
    behind.advance(-5)
    looked.directory.accounts["ada"] = account("ada")
    [event_id] = relay.record(given)
    relay.claim()
    assert looked.look_up() == 1
    assert 4 <= questions_within(looked, [clock, behind], 5) <= 5
    questions_within(looked, [clock, behind], 2)
    assert relay.event(event_id).state != "received"


def test_what_stands_against_the_answer_of_a_worker_whose_clock_is_behind_is_asked_about_once_a_second(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, terse=frozenset({"okta"})))
    looked.directory.clock = behind = Clock()
    behind.advance(-5)
    looked.directory.accounts["ada"] = account("ada")
    relay.record(gain("ada", "eng", HOUR, email="ada@acme.example"))
    questions_within(looked, [clock, behind], 1)
    for each in (clock, behind):
        each.advance(15 * MINUTE - 1)
    assert 1 <= questions_within(looked, [clock, behind], 6) <= 7


def test_news_that_comes_while_a_question_is_on_its_way_is_asked_about_at_once(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    looked.directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng", HOUR - 1))
    relay.claim()
    [question] = look_ups.take(relay.database, ["okta"], 10)
    answer = looked.directory.look_up("ada")
    clock.advance(0.1)
    relay.record(loss("ada", "sales", HOUR))
    relay.claim()
    answered.keep(relay.database, relay.terms.rules, question, answer)
    assert looked.look_up() == 1


def test_a_group_without_a_name_is_asked_for_although_its_person_is_to_be_asked_about_later(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    """Its news comes when the question is on its way: the answer is new enough, and does not tell the name."""
    by_name = {
        "name": "by name",
        "when": {"kind": "group.member_removed", "group.name": ["Readers"]},
        "revoke": [D1.as_velt()],
    }
    asked = frozenset({"user.email", "user.login", "group.name"})
    made = rules(by_name, identity=["{user.email}"], fills={"okta": TOLD - {"group.name", "user.login"}})
    relay.terms = replace(relay.terms, rules=replace(made, looked_up={"okta": asked}, terse=frozenset({"okta"})))
    looked.directory.all_groups["readers"] = Group("readers", "Readers")
    looked.directory.accounts["ada"] = account("ada", groups=["x"])
    relay.record(gain("ada", "x", None))
    looked.run()
    clock.advance(HOUR)
    looked.run()
    relay.record(gain("ada", "y", None))
    relay.claim()
    [question] = look_ups.take(relay.database, ["okta"], 10)
    clock.advance(0.01)
    [event_id] = relay.record(loss("ada", "readers", None))
    relay.claim()
    clock.advance(0.01)
    answered.keep(relay.database, relay.terms.rules, question, looked.directory.look_up("ada", question.groups))
    for _ in range(5):
        clock.advance(1)
        looked.run()
    assert relay.states(event_id) == ["removed"]

"""What to believe of a directory's answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay import truth
from relay.model import SECOND, AccessEvent, Account, Basis, Fact, Group, Kind, ObjectType, Status
from relay.truth import AGAIN, YOUNG, Finding
from tests.people import account_fact, app_fact, at, back, event, gain, group_fact, left, loss

FETCHED = at(3600)


def answer(status: Status = Status.ACTIVE, *groups: str, **more: object) -> Account:
    return Account("ada", status, FETCHED, groups=tuple(Group(name) for name in groups), **more)  # type: ignore[arg-type]


def app_lost(when: float | None = 0) -> AccessEvent:
    return event(Kind.APP_ACCESS_REMOVED, "ada", when, app_id="chat")


def changed() -> AccessEvent:
    return event(Kind.ACCOUNT_CHANGED, "ada", 0)


@pytest.mark.parametrize("given", [loss("ada", "eng"), app_lost(), changed()])
def test_a_loss_of_a_group_or_an_app_and_a_change_are_looked_up(given: AccessEvent) -> None:
    assert truth.is_wanted(given, at(0), None, at(0))


def test_a_loss_of_the_account_is_looked_up_only_when_it_is_old_or_a_known_gain_is_as_new() -> None:
    assert not truth.is_wanted(left("ada"), at(0), None, at(0))
    assert not truth.is_wanted(left("ada"), at(0), account_fact("ada", False, 5), at(9))
    assert not truth.is_wanted(left("ada", 2), at(2), account_fact("ada", True, 1), at(9))
    assert truth.is_wanted(left("ada", 2), at(2), account_fact("ada", True, 2), at(9))
    assert not truth.is_wanted(left("ada"), at(0), None, at(0) + YOUNG - 1)
    assert truth.is_wanted(left("ada"), at(0), None, at(0) + YOUNG)


def test_a_gain_is_looked_up_only_without_a_time_against_a_loss() -> None:
    lost = group_fact("ada", "eng", False, 0)
    assert truth.is_wanted(gain("ada", "eng", None), at(9), lost, at(9))
    assert not truth.is_wanted(gain("ada", "eng", 9), at(9), lost, at(9))
    assert truth.is_wanted(
        gain("ada", "eng", None), at(9), group_fact("ada", "eng", False, 0, basis=Basis.ARRIVAL), at(9)
    )
    assert not truth.is_wanted(gain("ada", "eng", None), at(9), group_fact("ada", "eng", True, 0), at(9))
    assert not truth.is_wanted(gain("ada", "eng", None), at(9), None, at(9))


def test_a_loss_that_the_answer_shows_denies_nothing() -> None:
    assert truth.find(loss("ada", "eng"), at(0), answer(), None) == Finding(Kind.GROUP_MEMBER_REMOVED, "not a member")
    assert truth.find(app_lost(), at(0), answer(apps={"chat": False}), None).kind is Kind.APP_ACCESS_REMOVED


def test_a_loss_that_the_answer_does_not_show_is_denied() -> None:
    assert truth.find(loss("ada", "eng"), at(1), answer(Status.ACTIVE, "eng"), None) == Finding(
        None, "still a member", denies=at(1), has=True
    )
    assert truth.find(app_lost(1), at(1), answer(apps={"chat": True}), None) == Finding(
        None, "still has the app", denies=at(1), has=True
    )
    assert truth.find(left("ada", 1), at(1), answer(), None) == Finding(
        None, "the account is active", denies=at(1), has=True
    )


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.ACTIVE])
def test_status_comes_before_groups(status: Status) -> None:
    found = truth.find(loss("ada", "eng"), at(1), answer(status, "eng"), None)
    assert (found.kind, found.denies) == (Kind.GROUP_MEMBER_REMOVED, None)
    assert found.said == f"the account is {status}"


def test_a_loss_older_than_a_known_gain_denies_that_gain() -> None:
    found = truth.find(loss("ada", "eng", 1), at(1), answer(), group_fact("ada", "eng", True, 2))
    assert found == Finding(Kind.GROUP_MEMBER_REMOVED, "not a member", denies=at(2), has=False)
    assert truth.find(loss("ada", "eng", 3), at(3), answer(), group_fact("ada", "eng", True, 2)).denies is None


def test_a_loss_without_a_time_denies_a_known_gain_that_may_be_newer() -> None:
    known = group_fact("ada", "eng", True, 2)
    found = truth.find(loss("ada", "eng", None), at(3), answer(), known)
    assert found == Finding(Kind.GROUP_MEMBER_REMOVED, "not a member", denies=at(2), has=False)
    assert truth.find(loss("ada", "eng", None), at(3), answer(), replace(known, present=False)).denies is None


def test_a_gain_denies_the_loss_or_is_denied() -> None:
    lost = group_fact("ada", "eng", False, 1)
    shown = truth.find(gain("ada", "eng", None), at(5), answer(Status.ACTIVE, "eng"), lost)
    assert shown == Finding(Kind.GROUP_MEMBER_ADDED, "still a member", denies=at(1), has=True)
    assert truth.find(gain("ada", "eng", None), at(5), answer(), lost) == Finding(
        None, "not a member", denies=at(5), has=False
    )
    active = truth.find(back("ada", None), at(5), answer(), account_fact("ada", False, 1))
    assert (active.kind, active.denies) == (Kind.ACCOUNT_ACTIVATED, at(1))


def test_a_change_is_what_the_status_says() -> None:
    assert truth.find(changed(), at(0), answer(Status.SUSPENDED), None).kind is Kind.ACCOUNT_SUSPENDED
    assert truth.find(changed(), at(0), answer(Status.DEACTIVATED), None).kind is Kind.ACCOUNT_DEACTIVATED
    assert truth.find(changed(), at(0), answer(Status.DELETED), None).kind is Kind.ACCOUNT_DELETED
    assert truth.find(changed(), at(0), answer(Status.GONE), None).kind is Kind.ACCOUNT_DELETED
    again = truth.find(changed(), at(5), answer(), account_fact("ada", False, 1))
    assert (again.kind, again.denies, again.has) == (Kind.ACCOUNT_ACTIVATED, at(1), True)
    lost_again = truth.find(changed(), at(5), answer(Status.SUSPENDED), account_fact("ada", True, 1))
    assert (lost_again.denies, lost_again.has) == (at(1), False)
    nothing = truth.find(changed(), at(5), answer(), account_fact("ada", True, 1))
    assert (nothing.kind, nothing.denies, nothing.has) == (None, at(5), None)


def test_what_denies_nothing_is_believed_at_once() -> None:
    assert truth.ask_again_at(Finding(None, "x"), FETCHED, 0) is None


def test_what_denies_young_news_is_asked_three_times_more() -> None:
    young = Finding(None, "x", denies=FETCHED - YOUNG + 1)
    assert [truth.ask_again_at(young, FETCHED, looks) for looks in range(4)] == [
        FETCHED + 30 * SECOND,
        FETCHED + 120 * SECOND,
        FETCHED + 600 * SECOND,
        None,
    ]
    assert len(AGAIN) == 3


def test_news_since_the_answer_before_begins_the_asking_anew() -> None:
    rejoined = Finding(Kind.GROUP_MEMBER_REMOVED, "not a member", denies=at(300))
    third = at(750)  # asked for after answers at 0, 30 and 150 s
    assert truth.denials(rejoined, third, 3) == 0
    assert truth.denials(Finding(None, "still a member", denies=at(140)), third, 3) == 3
    assert truth.denials(rejoined, at(0), 0) == 0


def test_what_denies_old_news_is_believed() -> None:
    assert truth.ask_again_at(Finding(None, "x", denies=FETCHED - YOUNG), FETCHED, 0) is None


def told(given: Account, *known: Fact, awaited: set[tuple[ObjectType, str]] | None = None) -> set[tuple[str, bool]]:
    facts = truth.facts_of("okta", given, known, awaited or set())
    assert all(fact.as_of == FETCHED - YOUNG for fact in facts)
    assert all((fact.basis, fact.event_id, fact.subject) == (Basis.SOURCE, None, "ada") for fact in facts)
    return {(fact.object_id or "account", fact.present) for fact in facts}


def test_an_answer_adds_groups_and_ends_those_it_does_not_list() -> None:
    known = group_fact("ada", "eng"), group_fact("ada", "sales"), group_fact("ada", "old", False)
    assert told(answer(Status.ACTIVE, "sales", "ops"), *known) == {("ops", True), ("eng", False)}


def test_a_young_gain_stands_against_an_answer_however_it_was_dated() -> None:
    for basis in Basis:
        young = group_fact("ada", "eng", True, 3600 - 899, basis=basis)
        assert truth.facts_of("okta", answer(), [young], ()) == []
        old = group_fact("ada", "eng", True, 3600 - 901, basis=basis)
        assert [fact.present for fact in truth.facts_of("okta", answer(), [old], ())] == [False]


def test_an_account_that_is_deleted_tells_nothing_of_its_groups() -> None:
    assert told(answer(Status.DELETED), group_fact("ada", "eng")) == {("account", False)}
    assert told(answer(Status.DEACTIVATED, "eng"), group_fact("ada", "eng")) == {("account", False)}


def test_that_an_account_is_active_is_news_only_where_it_was_lost() -> None:
    assert told(answer()) == set()
    assert told(answer(), account_fact("ada", True)) == set()
    assert told(answer(), account_fact("ada", False)) == {("account", True)}


def test_an_answer_tells_of_the_apps_that_were_asked_for() -> None:
    assert told(answer(apps={"chat": True, "mail": False}), app_fact("ada", "mail")) == {
        ("chat", True),
        ("mail", False),
    }
    assert told(answer(), app_fact("ada", "mail")) == set()


def test_what_events_wait_for_is_left_to_them() -> None:
    awaited = {(ObjectType.GROUP, "eng"), (ObjectType.ACCOUNT, "")}
    assert told(answer(Status.SUSPENDED, "eng", "ops"), awaited=awaited) == {("ops", True)}


def test_a_believed_answer_is_just_newer_than_what_it_denies() -> None:
    assert truth.believed_at(Finding(None, "x", denies=FETCHED - SECOND), at(0), FETCHED) == FETCHED - SECOND + 1
    assert truth.believed_at(Finding(None, "x", denies=at(0)), at(0), FETCHED) == FETCHED - YOUNG
    assert truth.believed_at(Finding(None, "x"), FETCHED - 5, FETCHED) == FETCHED - 5


def test_names_come_from_the_groups_and_from_what_was_asked() -> None:
    given = Account(
        "ada", Status.ACTIVE, FETCHED, groups=(Group("eng", "Eng"), Group("x")), names={"sales": "Sales", "gone": ""}
    )
    assert truth.names_of(given) == {"eng": "Eng", "sales": "Sales"}
    assert truth.asked_names(given) == {"eng", "x", "sales", "gone"}


def test_a_change_that_shows_what_an_event_has_told_may_be_a_return_and_is_asked_again() -> None:
    told = truth.find(changed(), at(5), answer(Status.DEACTIVATED), account_fact("ada", False, 1))
    assert (told.kind, told.denies) == (Kind.ACCOUNT_DEACTIVATED, at(5))
    seen_only = account_fact("ada", False, 1, event_id=None)
    first = truth.find(changed(), at(5), answer(Status.DEACTIVATED), seen_only)
    assert (first.kind, first.denies, first.has) == (Kind.ACCOUNT_DEACTIVATED, None, False)


def test_an_answer_that_does_not_know_the_accounts_loss_yet_does_not_know_all() -> None:
    assert not truth.knows_all(left("ada"), answer(Status.ACTIVE, "eng"))
    assert truth.knows_all(left("ada"), answer(Status.DEACTIVATED, "eng"))
    assert truth.knows_all(loss("ada", "eng"), answer(Status.ACTIVE))
    assert not truth.knows_all(loss("ada", "eng"), answer(Status.GONE))


def test_what_only_an_answer_told_stands_until_no_copy_can_lag_behind_it() -> None:
    assert truth.stands_until(group_fact("ada", "eng", when=0)) == at(900)
    assert truth.stands_until(group_fact("ada", "eng", when=0, event_id=None)) == at(1800)

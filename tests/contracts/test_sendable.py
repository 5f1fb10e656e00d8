"""What a removal waits for before it is sent, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.errors import LookUpFailed
from relay.model import Kind, Status
from relay.store import delivery
from relay.store.claim import HELD_UP
from tests.directory_people import ADDED, Looked, account
from tests.people import ALL, D1, TOLD, Clock, Relay, at, back, event, gain, left, loss, small_rules

HOUR = 3600
ADA = "ada@acme.example"


@pytest.fixture
def relay(looked: Looked) -> Relay:
    """Okta and Entra have directories (only Okta's ever answers), and SCIM tells all by itself."""
    fills = {"okta": TOLD, "entra": TOLD, "scim": ALL}
    made = small_rules(identity=["{user.email}", "{user.login}"], fills=fills, complete=["scim"])
    looked.relay.terms = replace(looked.relay.terms, rules=replace(made, looked_up={"okta": ADDED, "entra": ADDED}))
    return looked.relay


def pause(relay: Relay, *, on: bool) -> None:
    with relay.database.write() as connection:
        delivery.pause(connection, "eve", None) if on else delivery.resume(connection)


def known_to_okta(looked: Looked, *groups: str) -> None:
    """Okta has told who ada is, by a message, and was never asked what she has."""
    looked.directory.accounts["ada"] = account("ada", groups=groups)
    looked.relay.record(gain("ada", "everyone", HOUR - 100, email=ADA, login="ada"))
    looked.run()
    assert looked.directory.asked == []


def lost_by_scim(relay: Relay) -> str:
    [event_id] = relay.record(loss("u1", "sales", HOUR - 1, source="scim", email=ADA))
    return event_id


def test_a_directory_that_never_told_is_asked_before_another_sources_loss_is_taken(
    looked: Looked, relay: Relay
) -> None:
    known_to_okta(looked, "eng")  # gives d1 too, since before the relay
    event_id = lost_by_scim(relay)
    assert looked.run() == []
    assert looked.directory.asked == [("account", "ada")]
    assert [(row.state, row.reason) for row in relay.revocations(event_id)] == [
        ("retained", "still has group Eng (okta), rule 'engineering'")
    ]


def test_it_is_asked_once_and_what_it_does_not_give_is_taken(looked: Looked, relay: Relay) -> None:
    known_to_okta(looked)
    lost_by_scim(relay)
    assert [task.resources for task in looked.run()] == [(D1,)]
    relay.record(gain("u1", "sales", HOUR, source="scim", email=ADA))
    relay.record(loss("u1", "sales", HOUR + 1, source="scim", email=ADA))
    looked.directory.clock.advance(60)
    relay.record(loss("u1", "sales", HOUR + 2, source="scim", email=ADA))
    looked.run()
    assert len(looked.directory.asked) == 1


def test_a_directory_that_does_not_answer_is_waited_for_as_long_as_patience_lasts(
    looked: Looked, relay: Relay, clock: Clock
) -> None:
    known_to_okta(looked, "eng")
    looked.directory.down = LookUpFailed("okta.example does not answer")
    lost_by_scim(relay)
    assert looked.run() == []
    clock.advance(relay.terms.rules.patience / 1e6 - 1)
    assert looked.run() == []
    clock.advance(HELD_UP / 1e6)
    assert [task.resources for task in looked.run()] == [(D1,)]


def test_the_loss_of_an_account_waits_for_no_other_directory(looked: Looked, relay: Relay) -> None:
    known_to_okta(looked, "eng")
    looked.directory.down = LookUpFailed("okta.example does not answer")
    relay.record(gain("u1", "sales", HOUR - 50, source="scim", email=ADA))
    relay.record(left("u1", HOUR - 1, source="scim", email=ADA))
    assert len(relay.run()) == 1


@pytest.fixture
def leaver(looked: Looked, clock: Clock) -> str:
    """The loss of ada's account is planned and not sent; her directory does not answer any more."""
    relay = looked.relay
    looked.directory.accounts["ada"] = account("ada", Status.DEACTIVATED, groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 2000, email=ADA), loss("ada", "sales", HOUR - 1500, email=ADA))
    pause(relay, on=True)
    [event_id] = relay.record(left("ada", HOUR - 1, email=ADA))
    looked.run()
    looked.directory.down = LookUpFailed("okta.example does not answer")
    clock.advance(1)
    return event_id


def sent(relay: Relay, event_id: str) -> bool:
    pause(relay, on=False)
    relay.run()
    return set(relay.states(event_id)) == {"removed"}


def test_a_gained_group_gives_a_leaver_nothing_back(looked: Looked, relay: Relay, leaver: str) -> None:
    relay.record(gain("ada", "sales", None))  # it waits for its look-up: it may have been before the loss
    looked.run()
    assert sent(relay, leaver)


def test_an_activation_that_is_not_planned_yet_holds_up(looked: Looked, relay: Relay, leaver: str) -> None:
    relay.record(back("ada", None))
    looked.run()
    assert not sent(relay, leaver)


def test_a_change_may_be_the_return_of_a_leaver_for_half_a_minute(
    looked: Looked, relay: Relay, leaver: str, clock: Clock
) -> None:
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + 1))
    looked.run()
    assert not sent(relay, leaver)
    clock.advance(29)
    assert not sent(relay, leaver)
    clock.advance(HELD_UP / 1e6)
    assert sent(relay, leaver)


@pytest.mark.parametrize(("status", "goes"), [(Status.ACTIVE, False), (Status.DEACTIVATED, True)])
def test_an_answer_since_the_change_tells_whether_a_leaver_may_be_back(
    looked: Looked, relay: Relay, leaver: str, status: Status, goes: bool
) -> None:
    looked.directory.down = None
    looked.directory.accounts["ada"] = account("ada", status, groups=["eng"])
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + 1))
    looked.run()  # the answer may lag: it is asked for again
    assert sent(relay, leaver) == goes


def test_a_change_at_another_source_holds_up_nothing(looked: Looked, relay: Relay, leaver: str) -> None:
    relay.record(event(Kind.ACCOUNT_CHANGED, "e1", HOUR + 1, source="entra", email=ADA))
    looked.run()
    assert sent(relay, leaver)


@pytest.mark.parametrize("accounts", ["any", "same_source"])
def test_a_gain_at_another_source_gives_a_leaver_nothing_back_where_leaving_ends_all(
    looked: Looked, relay: Relay, leaver: str, accounts: str
) -> None:
    relay.terms = replace(relay.terms, rules=replace(relay.terms.rules, accounts=accounts))
    relay.record(gain("e1", "club", None, source="entra", email=ADA), received=at(HOUR - 1000))
    relay.run()
    relay.record(loss("e1", "club", HOUR - 900, source="entra", email=ADA), received=at(HOUR - 900))
    relay.run()
    looked.directory.clock.advance(1000)
    relay.run()  # Entra does not answer: it is taken at its word
    relay.record(gain("e1", "club", None, source="entra", email=ADA))
    assert sent(relay, leaver) == (accounts == "any")


def test_one_patience_is_enough_for_all_directories(looked: Looked, relay: Relay, clock: Clock) -> None:
    looked.directory.accounts["ada"] = account("ada", groups=["eng"])
    relay.record(gain("ada", "eng", HOUR - 2000, email=ADA))
    relay.record(gain("e1", "club", HOUR - 2000, source="entra", email=ADA))
    looked.run()
    looked.directory.down = LookUpFailed("okta.example does not answer")
    relay.record(loss("ada", "eng", HOUR - 1, email=ADA))
    taken = looked.run()
    for _ in range(32):
        clock.advance(30)
        taken += looked.run()
    assert len(taken) == 1  # after 15 minutes and the half one that is left to ask the other


def test_a_change_after_the_other_holds_up_a_leaver_no_longer(looked: Looked, relay: Relay, leaver: str) -> None:
    for seconds in range(1, 62, 20):
        relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + seconds))
        looked.directory.clock.advance(20)
        looked.run()
    assert sent(relay, leaver)


def test_the_second_change_may_be_the_return_too(looked: Looked, relay: Relay, leaver: str) -> None:
    looked.directory.down = None
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + 1))
    looked.run()  # answered, and asked again later: the copy may be old
    looked.directory.clock.advance(5)
    relay.record(event(Kind.ACCOUNT_CHANGED, "ada", HOUR + 6))
    assert not sent(relay, leaver)

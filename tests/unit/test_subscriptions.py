"""Which Graph subscriptions are to be made, renewed, reauthorized and deleted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relay.directories.subscriptions import (
    CHANGES,
    LIFETIME,
    RENEW_BEFORE,
    Action,
    Subscription,
    Verb,
    wanted,
)
from relay.store.subscriptions import DAY

NOW = 1_790_000_000_000_000
URL = "https://relay.acme.example/hooks/entra"
USERS = Subscription("u1", "/users", NOW + LIFETIME, URL, URL, CHANGES)
GROUPS = Subscription("g1", "/groups", NOW + LIFETIME, URL, URL, CHANGES)
OTHER = replace(USERS, id="x1", url="https://staging.acme.example/hooks/entra")


def decide(*listed: Subscription, proven: set[str] | None = None, **more: Any) -> list[Action]:
    ids = {one.id for one in listed} if proven is None else proven
    return list(wanted(listed, URL, NOW, proven=ids, **more))


def create(resource: str) -> Action:
    return Action(Verb.CREATE, resource)


def test_nothing_is_to_be_done_where_all_is_well() -> None:
    assert decide(USERS, GROUPS) == []


def test_both_are_made_where_there_is_none() -> None:
    assert decide() == [create("/users"), create("/groups")]


def test_only_the_missing_one_is_made() -> None:
    assert decide(GROUPS) == [create("/users")]


@pytest.mark.parametrize(("left", "renewed"), [(RENEW_BEFORE, False), (RENEW_BEFORE - 1, True), (DAY, True), (1, True)])
def test_it_is_renewed_at_half_its_life(left: int, renewed: bool) -> None:
    found = decide(replace(USERS, expires_at=NOW + left), GROUPS)
    assert found == ([Action(Verb.RENEW, "/users", "u1")] if renewed else [])


@pytest.mark.parametrize("left", [0, -1])
def test_one_that_has_ended_is_made_anew(left: int) -> None:
    assert decide(replace(USERS, expires_at=NOW + left), GROUPS)[0] == create("/users")


def test_what_microsoft_asks_for_is_done() -> None:
    assert decide(USERS, GROUPS, asked={"g1", "elsewhere"}) == [Action(Verb.REAUTHORIZE, "/groups", "g1")]


def test_a_renewal_reauthorizes_too() -> None:
    ending = replace(USERS, expires_at=NOW + DAY)
    assert decide(ending, GROUPS, asked={"u1"}) == [Action(Verb.RENEW, "/users", "u1")]


def test_of_two_the_longer_one_stays() -> None:
    shorter = replace(USERS, id="u0", expires_at=NOW + 20 * DAY)
    assert decide(shorter, USERS, GROUPS) == [Action(Verb.DELETE, "/users", "u0")]


def test_the_unknown_clientstate_is_replaced_the_new_one_first() -> None:
    assert decide(USERS, GROUPS, proven={"g1"}) == [create("/users"), Action(Verb.DELETE, "/users", "u1")]


@pytest.mark.parametrize(
    "change",
    [{"lifecycle_url": None}, {"lifecycle_url": "https://else.example"}, {"changes": frozenset({"updated"})}],
)
def test_what_was_made_differently_is_replaced(change: dict[str, Any]) -> None:
    assert decide(replace(USERS, **change), GROUPS) == [create("/users"), Action(Verb.DELETE, "/users", "u1")]


def test_ours_at_an_old_address_is_replaced() -> None:
    moved = replace(USERS, url="https://old.acme.example/hooks/entra")
    assert decide(moved, GROUPS, ours={"u1", "g1"}) == [create("/users"), Action(Verb.DELETE, "/users", "u1")]


def test_what_others_made_stays() -> None:
    mail = replace(USERS, id="m1", resource="/me/messages")
    assert decide(OTHER, mail, USERS, GROUPS) == []
    assert decide(OTHER, proven={"x1"}) == [create("/users"), create("/groups")]

"""The nouns: times, ids and what a resource looks like to Velt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from relay import model
from relay.model import ACCOUNT_LOSSES, GAINS, LOSSES, OPEN, AccessEvent, Kind, ObjectType, Resource, RevocationState


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01", 0),
        ("2038-01-19T03:14:08.999999Z", 2_147_483_648_999_999),
        ("1969-12-31T23:59:59.5Z", -500_000),
    ],
)
def test_a_time_is_whole_microseconds_in_utc(text: str, micros: int) -> None:
    assert model.from_iso(text) == micros


@pytest.mark.parametrize("micros", [0, 1, 999_999, 1_769_860_800_123_456, 2_147_483_648_999_999])
def test_a_time_survives_being_printed(micros: int) -> None:
    printed = model.to_iso(micros)
    assert printed is not None
    assert printed.endswith("Z")
    assert model.from_iso(printed) == micros


def test_no_time_prints_as_none() -> None:
    assert model.to_iso(None) is None


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "12:00"])
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are Python's
        model.from_iso(text)


def test_ids_are_unique_in_threads_too() -> None:
    made = [model.new_id("evt") for _ in range(500)]
    assert len(set(made)) == 500
    assert max(map(len, made)) <= 40
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: model.new_id("evt"), range(2000)))) == 2000


def test_a_resource_as_velt_takes_it() -> None:
    assert Resource("organization", "acme").as_velt() == {"type": "organization", "id": "acme"}
    assert Resource("document", "d", "acme").as_velt() == {"type": "document", "id": "d", "organizationId": "acme"}
    assert str(Resource("organization", "acme")) == "organization acme"
    assert str(Resource("folder", "f", "acme")) == "folder f in acme"


@pytest.mark.parametrize("resource", [Resource("organization", "acme"), Resource("folder", "f", "acme")])
def test_a_resource_is_read_as_it_is_written(resource: Resource) -> None:
    assert Resource.of_velt(resource.as_velt()) == resource
    assert resource.organization == Resource("organization", "acme")


def test_a_resource_in_an_organization_without_an_id_is_not_taken_for_one() -> None:
    assert Resource("document", "d", "").organization.id == ""


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        (Kind.ACCOUNT_SUSPENDED, (ObjectType.ACCOUNT, "")),
        (Kind.ACCOUNT_CHANGED, (ObjectType.ACCOUNT, "")),
        (Kind.GROUP_MEMBER_REMOVED, (ObjectType.GROUP, "g")),
        (Kind.GROUP_CHANGED, (ObjectType.GROUP, "g")),
        (Kind.APP_ACCESS_REMOVED, (ObjectType.APP, "a")),
    ],
)
def test_an_event_is_about_what_its_kind_says_whatever_else_it_names(kind: Kind, thing: tuple[ObjectType, str]) -> None:
    assert AccessEvent("okta", kind, "t", b"", group_id="g", app_id="a").thing == thing


def test_every_loss_and_gain_of_a_group_or_app_is_about_that() -> None:
    about = {kind: AccessEvent("okta", kind, "t", b"").thing[0].value for kind in LOSSES | GAINS}
    assert {kind: kind.value.split(".")[0] for kind in about} == about


def test_kinds_are_losses_gains_or_neither() -> None:
    assert not LOSSES & GAINS
    assert ACCOUNT_LOSSES < LOSSES
    assert set(Kind) - LOSSES - GAINS == {
        Kind.ACCOUNT_CHANGED,
        Kind.GROUP_CHANGED,
        Kind.OPERATOR_REMOVE,
        Kind.UNKNOWN,
    }


def test_open_revocations_are_the_unsettled_ones() -> None:
    assert {RevocationState.PENDING, RevocationState.SENDING} == OPEN

"""Velt's words about access."""

from __future__ import annotations

import pytest

from relay.access import Access, is_open_to_member
from relay.model import Resource

ACME, ROADMAP = Resource("organization", "acme"), Resource("document", "roadmap", "acme")
PRIVATE = Access(access_type="organizationPrivate")


@pytest.mark.parametrize(
    ("access", "words"),
    [
        (Access("editor", "public"), ["is_public"]),
        (Access("editor", "organizationPrivate"), ["is_for_members"]),
        (Access("editor", "restricted"), []),
        (Access(error_code="does_not_exist"), ["does_not_exist"]),
        (Access(error_code="permission_denied"), ["is_denied"]),
        (Access(error_code="something_went_wrong"), []),
        (Access(), []),
    ],
)
def test_what_velt_says_of_access(access: Access, words: list[str]) -> None:
    asked = ("is_public", "is_for_members", "does_not_exist", "is_denied")
    assert [word for word in asked if getattr(access, word)] == words


def test_an_error_of_velt_is_told_with_its_sentence_where_there_is_one() -> None:
    assert Access(error_code="odd", error="sorry").trouble == "odd: sorry"
    assert Access(error_code="odd").trouble == "odd: no message"


@pytest.mark.parametrize(
    ("entry", "membership", "is_open"),
    [
        (PRIVATE, Access("viewer"), True),
        (PRIVATE, Access(error_code="permission_denied"), False),
        (PRIVATE, None, False),
        (Access(access_type="restricted"), Access("viewer"), False),
    ],
)
def test_what_is_private_to_an_organization_is_open_to_its_members(
    entry: Access, membership: Access | None, is_open: bool
) -> None:
    shown = {ROADMAP: entry} | ({ACME: membership} if membership else {})
    assert is_open_to_member(ROADMAP, shown) is is_open

"""What an answer of permissions/get says about a removal, and when to ask again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay import backoff, confirmation
from relay.access import Access, Permissions
from relay.answers import access_of
from relay.confirmation import Verdict, judge, next_ask
from relay.model import SECOND, Answer, Confirmation, Outcome, Resource

ACME = Resource("organization", "acme")
ROADMAP = Resource("document", "roadmap", "acme")
FINANCE = Resource("folder", "finance", "acme")
SUCCESS = Outcome(Answer.REMOVED, "Found.", 200)
DENIED = Access(error_code="permission_denied", error="no access", access_type="restricted")
EDITOR = Access(role="editor", access_type="restricted")
MEMBER = Access(role="viewer")


def judged(resource: Resource, outcome: Outcome = SUCCESS, **shown: Access) -> Verdict:
    """The verdict on ada's resource; `shown` by the names acme, roadmap and finance."""
    named = {item.id: item for item in (ACME, ROADMAP, FINANCE)}
    return judge(resource, "ada", Permissions(outcome, {"ada": {named[name]: entry for name, entry in shown.items()}}))


@pytest.mark.parametrize("resource", [ACME, ROADMAP, FINANCE], ids=str)
def test_an_explicit_no_confirms(resource: Resource) -> None:
    verdict = judged(resource, **{resource.id: DENIED})
    assert (verdict.confirmation, verdict.failed) == (Confirmation.CONFIRMED, False)
    assert "permission_denied: no access" in verdict.reason
    gone = judged(resource, **{resource.id: Access(error_code="does_not_exist", error="gone")})
    assert gone.confirmation is Confirmation.CONFIRMED
    assert "does not exist" in gone.reason


@pytest.mark.parametrize(
    ("resource", "shown", "words"),
    [
        (ROADMAP, {"roadmap": Access(access_type="public", error_code="permission_denied")}, "the document is public"),
        (FINANCE, {"finance": Access(access_type="public")}, "the folder is public"),
        (ROADMAP, {"roadmap": Access("editor", "public")}, "restricted or organizationPrivate"),
        (
            ROADMAP,
            {"roadmap": Access(None, "organizationPrivate", "permission_denied"), "acme": MEMBER},
            "member of the organization acme",
        ),
        (ROADMAP, {"roadmap": EDITOR, "finance": MEMBER}, "may be inherited from folder finance in acme"),
        (ROADMAP, {"roadmap": EDITOR, "acme": MEMBER}, "may be inherited from organization acme"),
        (
            ROADMAP,
            {"roadmap": EDITOR, "acme": MEMBER, "finance": MEMBER},
            "from folder finance in acme or organization acme",
        ),
        (ROADMAP, {"roadmap": EDITOR, "acme": DENIED}, "the role editor, and none on what it"),
        (FINANCE, {"finance": EDITOR}, "another folder gives it, or the grant stayed"),
        (ACME, {"acme": MEMBER}, "Auto-create Organization User"),
        (ROADMAP, {"roadmap": Access("editor", error_code="does_not_exist")}, "the role editor"),
        (ROADMAP, {"roadmap": Access("editor", error_code="permission_denied")}, "the role editor"),
    ],
)
def test_who_still_has_access_and_why(resource: Resource, shown: dict[str, Access], words: str) -> None:
    verdict = judged(resource, **shown)
    assert verdict.confirmation is Confirmation.STILL
    assert words in verdict.reason


def test_members_only_is_no_access_for_who_is_no_member() -> None:
    private = Access(None, "organizationPrivate", "permission_denied")
    assert judged(ROADMAP, roadmap=private, acme=DENIED).confirmation is Confirmation.CONFIRMED
    assert judged(ROADMAP, roadmap=private).confirmation is Confirmation.CONFIRMED


def test_an_organization_has_no_access_type() -> None:
    assert judged(ACME, acme=Access(None, "public", "permission_denied")).confirmation is Confirmation.CONFIRMED


@pytest.mark.parametrize("code", ["something_went_wrong", "new_code"])
def test_trouble_with_one_resource_is_asked_again(code: str) -> None:
    verdict = judged(ROADMAP, roadmap=Access(error_code=code, error="sorry"))
    assert verdict == Verdict(None, f"Velt says {code}: sorry", failed=True)


@pytest.mark.parametrize(
    "shown", [{}, {"roadmap": Access()}, {"roadmap": Access(access_type="restricted")}, {"acme": DENIED}]
)
def test_silence_is_no_confirmation(shown: dict[str, Access]) -> None:
    verdict = judged(ROADMAP, **shown)
    assert verdict == Verdict(None, "Velt's answer says nothing about document roadmap in acme")


def test_what_is_said_of_somebody_else_is_silence() -> None:
    told = Permissions(SUCCESS, {"bob": {ROADMAP: DENIED}})
    assert judge(ROADMAP, "ada", told).confirmation is None


@pytest.mark.parametrize(
    ("answer", "failed"),
    [(Answer.RETRY, True), (Answer.UNAUTHORIZED, True), (Answer.REFUSED, False), (Answer.ABSENT, False)],
)
def test_a_question_that_failed(answer: Answer, failed: bool) -> None:
    verdict = judged(ROADMAP, Outcome(answer, "why it failed"))
    assert verdict == Verdict(None, "why it failed", failed=failed)


def test_not_found_may_tell_of_one_and_not_of_the_other() -> None:
    outcome = Outcome(Answer.ABSENT, "NOT_FOUND")
    gone = Access(error_code="does_not_exist")
    assert judged(FINANCE, outcome, finance=gone).confirmation is Confirmation.CONFIRMED
    assert judged(ROADMAP, outcome, finance=gone).confirmation is None


# when to ask again

STILL = Verdict(Confirmation.STILL, "public")
SILENT = Verdict(None, "nothing")
FAILED = Verdict(None, "down", failed=True)
GONE = Verdict(Confirmation.CONFIRMED, "gone")


def at(seconds: float) -> int:
    return int(seconds * SECOND)


@pytest.mark.parametrize("verdict", [STILL, SILENT])
def test_velt_may_lag(verdict: Verdict) -> None:
    assert confirmation.first_ask(0) == at(5)
    assert next_ask(verdict, 1, 0, at(5), None) == at(65)
    assert next_ask(verdict, 2, 0, at(65), None) == at(665)
    assert next_ask(verdict, 3, 0, at(665), None) is None
    assert next_ask(verdict, 1, 0, at(3600), None) is None  # asked for the first time when Velt was back


def test_trouble_is_retried_by_the_schedule_of_removals() -> None:
    assert at(5) <= (next_ask(FAILED, 1, 0, at(5), None) or 0) <= at(6)
    assert next_ask(FAILED, 1, 0, at(5), 60.0) == at(65)
    assert next_ask(FAILED, len(backoff.SCHEDULE), 0, at(3600), None) is not None
    assert next_ask(FAILED, len(backoff.SCHEDULE) + 1, 0, at(3600), None) is None


def test_a_confirmation_is_final() -> None:
    assert next_ask(GONE, 1, 0, at(5), None) is None


# reading the answer


def told(answer: Any) -> dict[str, dict[Resource, Access]]:
    return access_of(json.dumps(answer).encode(), "acme")


ENTRIES = {
    "organization": {"acme": {"accessRole": "viewer"}, "other": {"accessRole": "editor"}},
    "documents": {"roadmap": {"error": "no access", "errorCode": "permission_denied", "accessType": "restricted"}},
    "folders": {"finance": {"accessRole": "editor", "accessType": "restricted"}},
}


@pytest.mark.parametrize(
    "answer", [{"result": {"status": "success", "data": {"ada": ENTRIES}}}, {"error": {"details": {"ada": ENTRIES}}}]
)
def test_the_entries_of_an_answer_and_of_a_not_found(answer: Any) -> None:
    assert told(answer) == {"ada": {ACME: MEMBER, ROADMAP: DENIED, FINANCE: EDITOR}}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"result": None},
        {"result": {"data": []}},
        {"result": {"data": {"ada": None}}},
        {"result": {"data": {"ada": {"documents": [], "folders": 5, "organization": {"acme": "editor"}}}}},
        {"error": {"details": [{"code": "not-found"}]}},
    ],
)
def test_another_shape_tells_nothing(answer: Any) -> None:
    assert not any(told(answer).values())


def test_values_of_another_type_tell_nothing() -> None:
    strange = {"documents": {"roadmap": {"accessRole": 5, "accessType": [], "errorCode": None, "error": {}}}}
    assert told({"result": {"data": {"ada": strange}}}) == {"ada": {ROADMAP: Access()}}


def test_what_is_kept_of_a_text_is_printable_and_short() -> None:
    entry = {"error": "a\nb\ud800" + "c" * 1000, "errorCode": "x\x00"}
    found = told({"result": {"data": {"ada": {"documents": {"roadmap": entry}}}}})["ada"][ROADMAP]
    assert found.error_code == "x"
    assert found.error is not None
    assert found.error.startswith("a b ")
    assert len(found.error) == 300

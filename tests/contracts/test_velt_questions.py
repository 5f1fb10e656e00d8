"""Asking permissions/get through the Velt client, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.access import Access, Permissions
from relay.contracts import load
from relay.model import MAX_RESOURCES, Answer, Resource
from relay.velt import NO_DOCUMENT, Velt, question
from tests import fake_velt
from tests.fake_velt import FakeVelt

ACME = Resource("organization", "acme")
ROADMAP = Resource("document", "roadmap", "acme")
FINANCE = Resource("folder", "finance", "acme")
DENIED = Access(None, "restricted", "permission_denied", "User does not have access")
KEY, TOKEN = "test-key-5e1d", "test-token-77aa"


@pytest.fixture
def fake() -> Iterator[FakeVelt]:
    with FakeVelt() as server:
        yield server


@pytest.fixture
def velt(fake: FakeVelt) -> Iterator[Velt]:
    client = Velt(fake.url, lambda: (KEY, TOKEN), timeout=1)
    yield client
    client.close()


def ask(velt: Velt) -> Permissions:
    return velt.permissions(["ada"], [ROADMAP, FINANCE])


def test_the_question_is_in_velts_shape() -> None:
    both = {"organizationId": "acme", "userIds": ["ada"], "documentIds": ["roadmap"], "folderIds": ["finance"]}
    assert question(["ada"], [ACME, ROADMAP, FINANCE], must_exist=True) == {"data": both}
    assert question(["ada"], [FINANCE], must_exist=False) == {
        "data": {
            "organizationId": "acme",
            "userIds": ["ada"],
            "folderIds": ["finance"],
            "skipResourceExistenceValidation": True,
        }
    }


def test_an_organization_alone_is_asked_about_with_a_document_that_is_none() -> None:
    asked = {"organizationId": "acme", "userIds": ["ada"], "documentIds": [NO_DOCUMENT]}
    assert question(["ada"], [ACME], must_exist=True) == {"data": asked}


def test_the_limit_is_the_schemas() -> None:
    assert load("velt-get-permissions")["$defs"]["ids"]["maxItems"] == MAX_RESOURCES


def test_an_answer(fake: FakeVelt, velt: Velt) -> None:
    fake.shows = lambda call: fake_velt.access(call, {FINANCE: {"accessRole": "viewer", "accessType": "public"}})
    told = ask(velt)

    assert told.outcome.answer is Answer.REMOVED
    assert told.access == {"ada": {ACME: DENIED, ROADMAP: DENIED, FINANCE: Access("viewer", "public")}}
    (call,) = fake.asked
    assert (call.user_id, call.resources) == ("ada", {ROADMAP, FINANCE})
    assert (call.headers["x-velt-api-key"], call.headers["x-velt-auth-token"]) == (KEY, TOKEN)
    assert fake.calls == []


def test_a_large_answer_is_read_whole(fake: FakeVelt, velt: Velt) -> None:
    long = {"accessRole": "viewer", "padding": "x" * 100_000}
    fake.shows = lambda call: fake_velt.access(call, {ROADMAP: long})
    assert ask(velt).access["ada"][ROADMAP] == Access("viewer")


@pytest.mark.parametrize(
    ("users", "resources"),
    [
        ([], [ROADMAP]),
        ([" "], [ROADMAP]),
        (["ada"], [Resource("organization", "")]),
        (["ada"], [Resource("document", "roadmap", "")]),
        (["ada"], [Resource("document", "", "acme")]),
        (["ada"], [FINANCE] * 31),
    ],
)
def test_an_invalid_question_never_leaves(
    fake: FakeVelt, velt: Velt, users: list[str], resources: list[Resource]
) -> None:
    told = velt.permissions(users, resources)

    assert told.outcome.answer is Answer.REFUSED
    assert told.outcome.reason.startswith("The request would not be valid: data")
    assert fake.asked == []


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (fake_velt.error("UNAVAILABLE", 503), Answer.RETRY),
        (fake_velt.error("PERMISSION_DENIED", 403, "Invalid API key."), Answer.UNAUTHORIZED),
        (fake_velt.error("INVALID_ARGUMENT", 400), Answer.REFUSED),
        (fake_velt.error("NOT_FOUND", 404), Answer.ABSENT),
        (fake_velt.truncated(), Answer.RETRY),
        (fake_velt.silence(), Answer.RETRY),
        (fake_velt.endless_body(), Answer.RETRY),
        (fake_velt.reset(), Answer.RETRY),
        (fake_velt.redirect("http://127.0.0.1:9/"), Answer.RETRY),
        (fake_velt.answer(200, b"no JSON"), Answer.RETRY),
    ],
)
def test_trouble_is_a_value(fake: FakeVelt, velt: Velt, given: fake_velt.Answer, answer: Answer) -> None:
    fake.shows = lambda call: given
    told = ask(velt)

    assert (told.outcome.answer, told.access) == (answer, {})


def test_a_success_with_an_error_beside_it_is_none(fake: FakeVelt, velt: Velt) -> None:
    shown = {"ada": {"documents": {"roadmap": {"errorCode": "permission_denied"}}}}
    both = {"result": {"status": "success", "data": shown}, "error": {"status": "INTERNAL", "message": "half"}}
    fake.shows = lambda call: fake_velt.answer(200, both)

    assert ask(velt).access == {}


def test_a_not_found_tells_what_it_knows(fake: FakeVelt, velt: Velt) -> None:
    details = {"ada": {"documents": {"roadmap": {"error": "gone", "errorCode": "does_not_exist"}}}}
    wrong = {"error": {"status": "NOT_FOUND", "message": "Document does not exist", "details": details}}
    fake.shows = lambda call: fake_velt.answer(404, wrong)
    told = ask(velt)

    assert told.outcome.answer is Answer.ABSENT
    assert told.access == {"ada": {ROADMAP: Access(error_code="does_not_exist", error="gone")}}


def test_no_key_is_told(fake: FakeVelt, velt: Velt) -> None:
    fake.shows = lambda call: fake_velt.access(call, {ROADMAP: {"errorCode": "odd", "error": f"for {KEY} {TOKEN}"}})
    told = ask(velt)

    assert told.access["ada"][ROADMAP].error == "for [key] [key]"
    assert KEY.encode() not in told.outcome.response


def test_a_document_called_api_key_does_not_blame_the_key(fake: FakeVelt, velt: Velt) -> None:
    fake.shows = lambda call: fake_velt.error("NOT_FOUND", 404, "Document api-key does not exist")

    assert velt.permissions(["ada"], [Resource("document", "api-key", "acme")]).outcome.answer is Answer.ABSENT


def test_it_shares_the_line_with_removals(fake: FakeVelt, velt: Velt) -> None:
    velt.remove("ada", [ACME])
    ask(velt)
    assert fake.calls[0].connection == fake.asked[0].connection

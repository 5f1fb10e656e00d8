"""The Okta directory against a fake Okta that speaks real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay import directories
from relay.directories.base import Account, Group, Status
from relay.directories.okta import OktaDirectory
from relay.errors import LookUpFailed, Unreadable
from relay.model import Micros, now
from tests.fake_okta import EVERYONE, FakeOkta
from tests.fake_okta_api import Answer, error, throttled

LONG_AGO: Micros = 0


@pytest.fixture
def okta() -> Iterator[FakeOkta]:
    with FakeOkta() as fake:
        yield fake


@pytest.fixture
def directory(okta: FakeOkta) -> Iterator[OktaDirectory]:
    given = {"type": "okta", "api": {"url": okta.url, "token": {"env": "T"}}}
    found = directories.build("acme", given, lambda: okta.api_token)
    assert isinstance(found, OktaDirectory)
    yield found
    found.close()


@pytest.fixture
def ada(okta: FakeOkta) -> str:
    return okta.add_user("ada", email="ada@acme.example")


def test_a_source_without_api_has_no_directory() -> None:
    assert directories.build("acme", {"type": "okta"}, str) is None


def test_somebody_in_force_with_groups(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    engineering = okta.add_group("Engineering")
    okta.join(ada, engineering)
    before = now()

    found = directory.look_up(ada)

    assert before <= found.fetched_at <= now()
    everyone, eng = Group(EVERYONE, "Everyone"), Group(engineering, "Engineering")
    assert found == Account(
        ada, Status.ACTIVE, found.fetched_at, "ada", "ada@acme.example", None, tuple(sorted((everyone, eng), key=_id))
    )


def _id(group: Group) -> str:
    return group.id


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("STAGED", Status.ACTIVE),
        ("PROVISIONED", Status.ACTIVE),
        ("ACTIVE", Status.ACTIVE),
        ("RECOVERY", Status.ACTIVE),
        ("PASSWORD_EXPIRED", Status.ACTIVE),
        ("LOCKED_OUT", Status.ACTIVE),
        ("SUSPENDED", Status.SUSPENDED),
        ("DEPROVISIONED", Status.DEACTIVATED),
    ],
)
def test_what_a_status_is(okta: FakeOkta, directory: OktaDirectory, ada: str, told: str, status: Status) -> None:
    okta.set_user(ada, status=told)

    found = directory.look_up(ada)

    assert (found.status, [group.id for group in found.groups]) == (status, [EVERYONE])


def test_who_is_deleted_is_gone(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    okta.delete(ada)

    found = directory.look_up(ada, apps=["0oa1"], groups=[EVERYONE])

    assert found == Account(ada, Status.GONE, found.fetched_at, apps={"0oa1": False})


def test_who_is_deleted_between_two_questions_is_gone(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    okta.delete(ada)
    okta.lag(1)

    found = directory.look_up(ada, apps=["0oa1"])

    assert (found.status, found.apps) == (Status.GONE, {"0oa1": False})


def test_a_login_is_no_id(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    assert okta.state.users[ada].login == "ada"
    assert directory.look_up("ada").status is Status.GONE


def test_the_external_id_is_the_profiles(okta: FakeOkta, directory: OktaDirectory) -> None:
    with_one = okta.add_user("bob@acme.example", externalId="E-7", employeeNumber="9")
    without = okta.add_user("cleo@acme.example", employeeNumber="9")

    assert directory.look_up(with_one).external_id == "E-7"
    assert directory.look_up(without).external_id is None


def test_groups_come_on_several_pages(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    made = {okta.add_group(f"eng-{number}") for number in range(5)}
    for group in made:
        okta.join(ada, group)
    okta.page_size = 2

    assert {group.id for group in directory.look_up(ada).groups} == {*made, EVERYONE}
    assert len(okta.asked(f"/api/v1/users/{ada}/groups")) == 3


def test_names_of_groups_that_exist(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    mine, other, gone = (okta.add_group(name) for name in ("Mine", "Other", "Gone"))
    okta.join(ada, mine)
    okta.delete_group(gone)

    assert directory.look_up(ada, groups=[mine, other, gone]).names == {mine: "Mine", other: "Other"}
    assert okta.asked("/api/v1/groups") == [f"/api/v1/groups/{other}", f"/api/v1/groups/{gone}"]

    directory.look_up(ada, groups=[mine, other, gone])
    assert len(okta.asked("/api/v1/groups")) == 2, "a burst about one group is one question"


def test_apps_that_the_account_has(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    has, lost, off = (okta.add_app(name) for name in ("Velt", "Wiki", "Off"))
    for app in (has, lost, off):
        okta.assign(ada, app)
    okta.unassign(ada, lost)
    okta.deactivate_app(off)

    assert directory.look_up(ada, apps=[has, lost, off, "0oaNone"]).apps == {
        has: True,
        lost: False,
        off: False,
        "0oaNone": False,
    }


@pytest.mark.parametrize("status", ["DEPROVISIONED", "REVOKED", "UNASSIGNED"])
def test_an_assignment_may_be_none_any_more(okta: FakeOkta, directory: OktaDirectory, ada: str, status: str) -> None:
    app = okta.add_app("Velt")
    okta.assign(ada, app)
    user, groups = Answer(200, okta.state.users[ada].as_okta()), Answer(200, [])
    okta.script(user, groups, Answer(200, {"id": ada, "status": status}))

    assert directory.look_up(ada, apps=[app]).apps == {app: False}


def test_old_truth_is_told_as_it_comes(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    okta.deactivate(ada)
    okta.lag(2)

    assert [directory.look_up(ada).status for _ in range(2)] == [Status.ACTIVE, Status.DEACTIVATED]


def test_a_group(okta: FakeOkta, directory: OktaDirectory) -> None:
    made = okta.add_group("Engineering")

    assert directory.group(made) == Group(made, "Engineering")
    okta.delete_group(made)
    assert directory.group(made) is None


def test_members_and_app_users_a_page_at_a_time(okta: FakeOkta, directory: OktaDirectory) -> None:
    people = [okta.add_user(f"p{number}@acme.example") for number in range(5)]
    group, app = okta.add_group("Engineering"), okta.add_app("Velt")
    for person in people:
        okta.join(person, group)
        okta.assign(person, app)
    okta.deactivate_app(app)
    okta.page_size = 2

    wanted = [people[:2], people[2:4], people[4:]]
    assert list(directory.members(group)) == wanted
    assert list(directory.app_users(app)) == wanted
    okta.delete_group(group)
    assert list(directory.members(group)) == []
    assert list(directory.app_users("0oaNone")) == []


def test_every_account_the_deactivated_too(okta: FakeOkta, directory: OktaDirectory) -> None:
    people = [okta.add_user(f"p{number}@acme.example") for number in range(5)]
    okta.suspend(people[1])
    okta.deactivate(people[2])
    okta.page_size = 3

    found = {account.id: account.status for page in directory.accounts() for account in page}

    active = dict.fromkeys(people, Status.ACTIVE)
    assert found == active | {people[1]: Status.SUSPENDED, people[2]: Status.DEACTIVATED}


def test_every_group(okta: FakeOkta, directory: OktaDirectory) -> None:
    made = [okta.add_group(f"g{number}") for number in range(3)]
    okta.page_size = 2

    pages = list(directory.groups())

    assert [len(page) for page in pages] == [2, 2]
    assert {group.id for page in pages for group in page} == {*made, EVERYONE}


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a?x=1", "ä", "x" * 65, "a b", "00u1\n"])
def test_an_id_that_is_none_is_not_asked_about(okta: FakeOkta, directory: OktaDirectory, ada: str, bad: str) -> None:
    for ask in (
        lambda: directory.look_up(bad),
        lambda: directory.look_up(ada, groups=[bad]),
        lambda: directory.look_up(ada, apps=[bad]),
        lambda: directory.group(bad),
        lambda: list(directory.members(bad)),
        lambda: list(directory.app_users(bad)),
    ):
        with pytest.raises(Unreadable, match="cannot be asked about the id"):
            ask()
    assert all(request.path.startswith(f"/api/v1/users/{ada}") for request in okta.requests)


# answers that are none


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(404, b"<html>no such host</html>"), id="another server's page"),
        pytest.param(Answer(404, {"error": "no such tenant"}), id="another server's JSON"),
        pytest.param(error("E0000022", status=404), id="another code"),
        pytest.param(Answer(404, b""), id="nothing"),
        pytest.param(Answer(200, b""), id="nothing, and 200"),
        pytest.param(Answer(200, ["x"]), id="a list"),
        pytest.param(Answer(200, {"id": "00uX"}), id="no account"),
        pytest.param(Answer(200, {"status": "DEPROVISIONED", "profile": {}}), id="no id"),
        pytest.param(Answer(200, b"<html>sign in</html>"), id="a page"),
        pytest.param(Answer(302, b"", (("Location", "/login"),)), id="a redirect"),
        pytest.param(error("E0000009"), id="an error"),
    ],
)
def test_an_answer_that_is_none_says_nothing_of_anybody(
    okta: FakeOkta, directory: OktaDirectory, answer: Answer
) -> None:
    okta.script(answer)

    with pytest.raises(LookUpFailed, match="Okta"):
        directory.look_up("00uX")


@pytest.mark.parametrize("body", [{}, ["x"], [{"profile": {}}], [{"id": 7}], [{"id": "00g1", "profile": "x"}]])
def test_a_list_must_be_one(okta: FakeOkta, directory: OktaDirectory, body: object) -> None:
    okta.script(Answer(200, body))

    with pytest.raises(LookUpFailed, match="Okta gave"):
        list(directory.groups())


def test_throttling_says_how_long(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    okta.script(throttled(7))

    with pytest.raises(LookUpFailed, match="HTTP 429, E0000047: API call exceeded rate limit") as caught:
        directory.look_up(ada)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 8

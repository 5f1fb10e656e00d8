"""The audit with a directory and Velt over HTTP, on both databases."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import func, select

from relay import auditing, compose, settings
from relay.access import Access, Permissions
from relay.errors import LookUpFailed, Refused
from relay.model import AccessEvent, Answer, Kind, Outcome, Resource
from relay.sandbox import SandboxServer, make_server
from relay.store import roster, tables
from relay.store.database import Database
from relay.velt import Velt
from tests import fake_velt
from tests.config_files import write_config
from tests.fake_graph import FakeGraph
from tests.fake_okta import FakeOkta
from tests.fake_okta_api import error, throttled
from tests.fake_velt import FakeVelt
from tests.people import Relay, event, gain, left, loss

OKTA = """\
  okta:
    type: okta
    secret: {env: OKTA_HOOK_SECRET}
    api: {url: "URL", token: {env: OKTA_API_TOKEN}}
"""
SCIM = "  people: {type: scim, token: {env: SCIM_TOKEN}}\n"
HOOK = "  hook: {type: okta, secret: {env: OKTA_HOOK_SECRET}}\n"
RULES = """\
identity: {velt_user_id: ["{user.email}"], map: users.csv}
rules:
  - name: engineering
    when: {kind: [group.member_removed], group.name: [Engineering]}
    revoke: [{type: organization, id: acme}, {type: document, id: roadmap, organizationId: acme}]
  - name: documents
    when: {kind: [group.member_removed], group.name: [{regex: "^doc-(?P<doc>.+)$"}]}
    revoke: [{type: document, id: "{doc}", organizationId: acme}]
  - name: wiki
    when: {kind: [app.access_removed], app.id: [APP]}
    revoke: [{type: folder, id: wiki, organizationId: acme}]
  - name: leavers
    when: {kind: [account.deactivated, account.deleted]}
    revoke: everything
"""
ACME = {"type": "organization", "id": "acme"}
ROADMAP = {"type": "document", "id": "roadmap", "organizationId": "acme"}
PLAN = {"type": "document", "id": "plan", "organizationId": "acme"}
WIKI = {"type": "folder", "id": "wiki", "organizationId": "acme"}


class World:
    """A made-up Okta, a stand-in for Velt, and a relay between them."""

    def __init__(self, okta: FakeOkta, sandbox: SandboxServer, database: Database, folder: Path) -> None:
        self.okta = okta
        self.sandbox = sandbox
        self.database = database
        self.folder = folder
        self.velt_url = f"http://127.0.0.1:{sandbox.server_port}"
        self.app = okta.add_app("Wiki")
        self.engineering = okta.add_group("Engineering")
        self.told: list[str] = []
        self.waited: list[float] = []

    def grant(self, user: str, *resources: dict[str, str]) -> None:
        body = {"data": {"user": {"userId": user}, "permissions": {"resources": list(resources)}}}
        headers = {"x-velt-api-key": "k", "x-velt-auth-token": "t"}
        answer = requests.post(f"{self.velt_url}/v2/auth/permissions/add", json=body, headers=headers, timeout=5)
        assert answer.status_code == 200

    def declare(self, resource: dict[str, str], **more: str) -> None:
        assert requests.post(f"{self.velt_url}/resources", json={**resource, **more}, timeout=5).status_code == 200

    def employ(self, login: str, *groups: str) -> str:
        user = self.okta.add_user(login)
        for group in groups:
            self.okta.join(user, group)
        return user

    def audit(
        self, sources: str = OKTA, users: str = "", more: str = "", velt: Velt | None = None, **environ: str
    ) -> dict[str, Any]:
        text = "sources:\n" + sources.replace("URL", self.okta.url) + RULES.replace("APP", self.app) + more
        given = settings.load(
            {
                "RELAY_CONFIG": str(write_config(self.folder, text, "idp_id_or_login,velt_user_id\n" + users)),
                "OKTA_API_TOKEN": self.okta.api_token,
                "VELT_BASE_URL": self.velt_url,
                "VELT_API_KEY": "key",
                "VELT_AUTH_TOKEN": "token",
                **environ,
            }
        )
        config = given.config_file.current
        directories, velt = compose.Directories(given)(), velt or compose.velt_of(given)
        try:
            return auditing.run(
                self.database, compose.audit_terms(config), directories, velt, self.told.append, self.waited.append
            )
        finally:
            velt.close()
            for directory in directories.values():
                directory.close()  # type: ignore[attr-defined]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    with FakeOkta() as okta, make_server(0) as sandbox:
        thread = threading.Thread(target=sandbox.serve_forever, args=(0.02,))
        thread.start()
        yield World(okta, sandbox, database, tmp_path)
        sandbox.shutdown()
        thread.join()


def lines(found: dict[str, Any], what: str = "extra") -> dict[tuple[str, str], str]:
    return {(one["user"], one["resource"]["id"]): one.get("why") or one["because"] for one in found[what]}


def test_who_has_what(world: World) -> None:
    world.employ("ada@acme.example", world.engineering)
    world.employ("bob@acme.example", world.engineering)
    world.employ("eve@acme.example")
    world.grant("ada@acme.example", ACME, ROADMAP)
    world.grant("eve@acme.example", ROADMAP)
    found = world.audit()
    assert lines(found) == {("eve@acme.example", "roadmap"): "in no group or app that gives it"}
    assert lines(found, "missing") == {
        ("bob@acme.example", "acme"): "has group Engineering (okta), rule 'engineering'",
        ("bob@acme.example", "roadmap"): "has group Engineering (okta), rule 'engineering'",
    }
    assert (found["people"], found["sources"], found["nameless"], found["unanswered"]) == (3, ["okta"], [], [])
    assert found["extra"][0]["role"] == "editor"
    assert found["extra"][0]["remove"] == "python -m relay remove eve@acme.example document:acme/roadmap --reason audit"


def test_who_is_not_in_force(world: World) -> None:
    suspended = world.employ("ada@acme.example", world.engineering)
    deactivated = world.employ("bob@acme.example", world.engineering)
    world.okta.suspend(suspended)
    world.okta.deactivate(deactivated)
    for user in ("ada@acme.example", "bob@acme.example"):
        world.grant(user, ROADMAP)
    found = world.audit()
    assert lines(found) == {
        ("ada@acme.example", "roadmap"): "the account ada@acme.example of okta is suspended",
        ("bob@acme.example", "roadmap"): "the account bob@acme.example of okta is deactivated",
    }
    assert found["missing"] == []


def known(world: World, *events: Any, **identity: str) -> None:
    """What the relay was told of, with the Velt user that it took the first subject for."""
    Relay(world.database).record(*events)
    Relay(world.database).claim()
    with world.database.write() as connection:
        for subject, user in identity.items():
            connection.execute(
                tables.people.update()
                .where(
                    tables.people.c.id.in_(
                        select(tables.identities.c.person_id).where(tables.identities.c.subject == subject)
                    )
                )
                .values(velt_user_id=user)
            )


def test_who_is_gone_from_the_directory_is_known_by_the_relay(world: World) -> None:
    world.employ("ada@acme.example", world.engineering)
    known(world, gain("00uGone", world.engineering, group_name="Engineering"), **{"00uGone": "gone@acme.example"})
    world.grant("gone@acme.example", ROADMAP)
    assert lines(world.audit()) == {
        ("gone@acme.example", "roadmap"): "the account 00uGone of okta is gone; "
        "no longer has group Engineering (okta), which no message told"
    }


def test_what_was_lost_is_told_with_its_day(world: World) -> None:
    ada = world.employ("ada@acme.example")
    known(world, gain(ada, world.engineering, 0, group_name="Engineering"), **{ada: "ada@acme.example"})
    known(world, loss(ada, world.engineering, 10, group_name="Engineering"))
    world.grant("ada@acme.example", ROADMAP)
    assert lines(world.audit()) == {
        ("ada@acme.example", "roadmap"): "lost group Engineering (okta) on 2026-09-21",
    }


def test_a_former_velt_user_of_somebody_who_is_still_there(world: World) -> None:
    ada = world.employ("ada.new@acme.example", world.engineering)
    known(world, gain(ada, world.engineering), **{ada: "ada.old@acme.example"})
    world.grant("ada.old@acme.example", ROADMAP)
    why = f"was {ada} of okta, and is now ada.new@acme.example"
    assert lines(world.audit()) == {("ada.old@acme.example", "roadmap"): why}


def test_groups_fill_templates_and_so_do_groups_that_are_gone(world: World) -> None:
    plan = world.okta.add_group("doc-plan")
    ada = world.employ("ada@acme.example", plan)
    world.employ("bob@acme.example")
    known(world, gain(ada, "00gOld", group_name="doc-old"), **{ada: "ada@acme.example"})
    old = {"type": "document", "id": "old", "organizationId": "acme"}
    world.grant("ada@acme.example", PLAN, old)
    world.grant("bob@acme.example", PLAN)
    assert lines(world.audit()) == {
        ("ada@acme.example", "old"): "no longer has group doc-old (okta), which no message told",
        ("bob@acme.example", "plan"): "in no group or app that gives it",
    }


def test_apps_that_rules_name(world: World) -> None:
    ada, _ = world.employ("ada@acme.example"), world.employ("bob@acme.example")
    world.okta.assign(ada, world.app)
    world.grant("ada@acme.example", WIKI)
    world.grant("bob@acme.example", WIKI)
    assert lines(world.audit()) == {("bob@acme.example", "wiki"): "in no group or app that gives it"}
    world.okta.deactivate_app(world.app)  # Okta goes on listing its people
    assert {user for user, _ in lines(world.audit())} == {"ada@acme.example", "bob@acme.example"}


def test_apps_that_rules_do_not_name_by_id(world: World) -> None:
    world.employ("ada@acme.example")
    world.grant("ada@acme.example", WIKI)
    rule = "  - {name: any app, when: {kind: [app.access_removed], app.name: [Wiki]}, revoke: [WIKI]}\n"
    found = world.audit(more=rule.replace("WIKI", json.dumps(WIKI)))
    assert found["rules_not_listed"] == ["any app"]
    (one,) = found["extra"]
    assert one["doubt"] == "rule 'any app' may give it: who has its apps could not be listed"
    assert one["remove"] is None
    known(world, app(world, "ada@acme.example"))  # a message told that she has it
    assert world.audit(more=rule.replace("WIKI", json.dumps(WIKI)))["extra"] == []


def app(world: World, login: str) -> AccessEvent:
    """The message that this person has an app that no rule names by id."""
    subject = world.okta.state.person(login)
    assert subject is not None
    return event(Kind.APP_ACCESS_ADDED, subject.id, app_id="other", app_name="Wiki", login=login)


def test_exceptions_of_the_identity_map(world: World) -> None:
    ada = world.employ("ada@acme.example", world.engineering)
    world.employ("bob@acme.example", world.engineering)
    world.grant("velt-ada", ACME, ROADMAP)
    world.grant("velt-bob", ACME, ROADMAP)
    found = world.audit(users=f"{ada},velt-ada\nbob@acme.example,velt-bob\n")
    assert (found["extra"], found["missing"]) == ([], [])


def test_an_account_without_a_velt_user_id_is_told(world: World) -> None:
    ada = world.okta.add_user("ada")
    world.okta.set_user(ada, email="")
    found = world.audit()
    assert [(one["source"], one["id"]) for one in found["nameless"]] == [("okta", ada)]
    assert "no Velt user id can be made" in found["nameless"][0]["why"]


def test_an_account_without_a_velt_user_id_is_who_it_was_before(world: World) -> None:
    ada = world.okta.add_user("ada")
    world.okta.set_user(ada, email="")
    world.okta.join(ada, world.engineering)
    known(world, gain(ada, "other"), **{ada: "ada@acme.example"})
    world.grant("ada@acme.example", ACME, ROADMAP)
    found = world.audit()
    assert (found["nameless"], found["extra"], found["missing"]) == ([], [], [])


def test_somebody_whom_no_source_ever_named(world: World) -> None:
    with world.database.write() as connection:
        connection.execute(tables.people.insert().values(velt_user_id="guest@acme.example"))
    world.grant("guest@acme.example", ROADMAP)
    assert lines(world.audit()) == {("guest@acme.example", "roadmap"): "nobody has this Velt user id"}


def test_an_organization_alone(world: World) -> None:
    world.employ("ada@acme.example", world.engineering)
    world.employ("bob@acme.example")
    world.grant("ada@acme.example", ACME)
    world.grant("bob@acme.example", ACME)
    with pytest.MonkeyPatch.context() as patch:
        rule = {"name": "r", "when": {"group.name": "Engineering"}, "revoke": [ACME]}
        patch.setitem(
            globals(), "RULES", f'identity: {{velt_user_id: ["{{user.email}}"]}}\nrules: [{json.dumps(rule)}]\n'
        )
        assert lines(world.audit()) == {("bob@acme.example", "acme"): "in no group or app that gives it"}


def test_only_groups_that_rules_are_about_are_listed(world: World) -> None:
    world.employ("ada@acme.example", world.okta.add_group("Chess"))
    world.audit()
    assert world.okta.asked("/api/v1/groups/") == [f"/api/v1/groups/{world.engineering}/users"]


def provision(world: World, *people: tuple[str, bool], group: str = "Engineering", **attributes: str) -> None:
    """Users of the SCIM source `people`, (mail address, active), all in one group and with these attributes."""
    row = {"source": "people", "comparable": {}, "version": 1, "created_at": 1, "updated_at": 1}
    with world.database.write() as connection:
        for login, active in people:
            document = {"userName": login, "active": active, "emails": [{"value": login}], **attributes}
            connection.execute(
                tables.scim_users.insert().values(**row, id=login, user_name=login, document=json.dumps(document))
            )
            member = {"source": "people", "group_id": "g", "member_id": login, "type": "User"}
            connection.execute(tables.scim_members.insert().values(**member))
        document = {"displayName": group}
        connection.execute(
            tables.scim_groups.insert().values(**row, id="g", display_name=group, document=json.dumps(document))
        )


def test_people_that_were_provisioned(world: World) -> None:
    provision(world, ("ada@acme.example", True), ("bob@acme.example", False))
    for user in ("ada@acme.example", "bob@acme.example"):
        world.grant(user, ACME, ROADMAP)
    assert lines(world.audit(SCIM)) == {
        ("bob@acme.example", id_): "the account bob@acme.example of people is deactivated"
        for id_ in ("acme", "roadmap")
    }


def test_who_was_provisioned_is_named_by_the_attributes_of_the_source(world: World) -> None:
    provision(world, ("7", True), nickName="ada")
    known(world, event(Kind.GROUP_MEMBER_ADDED, "7", source="people", group_id="g", email="ada"), **{"7": "ada"})
    world.grant("ada", ACME, ROADMAP)
    found = world.audit(SCIM.replace("}}", "}, attributes: {email: nickName}}"))
    assert found["people"] == 1
    assert (lines(found), lines(found, "missing")) == ({}, {})


def test_scim_tables_are_read_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "PAGE", 2)
    provision(world, *((f"p{number}@acme.example", True) for number in range(4)))
    listed = roster.ScimRoster(world.database, "people")
    assert [len(page) for page in listed.accounts()] == [2, 2]
    assert [name for page in listed.members("g") for name in page] == [f"p{n}@acme.example" for n in range(4)]
    assert list(roster.ScimRoster(world.database, "other").accounts()) == []


@pytest.mark.parametrize("accounts", ["any", "same_source"])
def test_two_sources_that_disagree(world: World, accounts: str) -> None:
    world.okta.suspend(world.employ("ada@acme.example"))
    provision(world, ("ada@acme.example", True))
    world.grant("ada@acme.example", ACME, ROADMAP)
    found = world.audit(OKTA + SCIM, more=f"accounts: {accounts}\n")
    expected = {"acme", "roadmap"} if accounts == "any" else set()
    assert {resource for _, resource in lines(found)} == expected
    assert found["people"] == 1


def test_a_source_that_cannot_be_listed_is_doubted(world: World) -> None:
    known(world, gain("00uBob", world.engineering, group_name="Engineering", source="hook", login="bob@acme.example"))
    known(world, gain("00uEve", "other", source="hook", login="eve@acme.example"))
    world.grant("bob@acme.example", ACME, ROADMAP)
    world.grant("eve@acme.example", ROADMAP)
    found = world.audit(OKTA + HOOK)
    assert found["by_messages_only"] == ["hook"]
    (one,) = found["extra"]
    assert (one["user"], one["doubt"], one["remove"]) == (
        "eve@acme.example",
        "what hook gives is known by messages only",
        None,
    )
    known(world, left("00uEve", 100, source="hook"))
    (one,) = world.audit(OKTA + HOOK)["extra"]
    assert one["why"] == "the account eve@acme.example of hook was lost, as a message told"


def test_a_removal_that_is_planned_is_told(world: World) -> None:
    ada = world.employ("ada@acme.example")
    relay = Relay(world.database)
    (event_id,) = relay.record(loss(ada, "sales", login="ada@acme.example"))
    relay.claim()
    with world.database.write() as connection:
        connection.execute(tables.revocations.update().values(resource_id="roadmap"))
    world.grant("ada@acme.example", ROADMAP)
    (one,) = world.audit()["extra"]
    assert (one["planned"], one["remove"]) == (event_id, None)
    with world.database.write() as connection:
        connection.execute(tables.revocations.update().values(state="removed"))
    (one,) = world.audit()["extra"]
    assert one["planned"] is None
    assert one["remove"]


def test_250_people_in_pages(world: World) -> None:
    world.okta.page_size = 60
    logins = [f"p{number:03}@acme.example" for number in range(250)]
    for login in logins:
        world.employ(login, world.engineering)
    for login in logins[:-1]:
        world.grant(login, ACME, ROADMAP)
    world.grant("p007@acme.example", WIKI)
    found = world.audit()
    assert (found["people"], lines(found).keys()) == (250, {("p007@acme.example", "wiki")})
    assert lines(found, "missing").keys() == {(logins[-1], "acme"), (logins[-1], "roadmap")}
    assert len(world.okta.asked("/api/v1/users")) < 20, "nobody was looked up one by one"
    assert "okta: accounts: 250" in world.told
    assert "okta: group 1 of 1, members: 250" in world.told
    assert world.told[-1] == "Velt was asked about 250 of 250 people"
    (tally,) = [one for one in found["resources"] if one["resource"] == ROADMAP]
    assert (tally["asked"], tally["holders"], tally["missing"]) == (250, 249, 1)


def test_nothing_is_told_when_the_directory_fails_in_the_middle(world: World) -> None:
    world.okta.page_size = 2
    for number in range(6):
        world.employ(f"p{number}@acme.example", world.engineering)
    answer = world.okta._respond
    asked = []

    def fails(request: Any, content: bytes) -> Any:
        asked.append(request.path)
        return error("E0000009") if len(asked) > 8 else answer(request, content)

    world.okta._server.respond = fails
    with pytest.raises(
        LookUpFailed, match=r"^the directory of okta could not be read to its end, so nothing is told: "
    ):
        world.audit()
    assert world.waited == [1, 5, 30]


def test_a_directory_that_asks_to_wait_is_read_again_from_the_beginning(world: World) -> None:
    world.okta.page_size = 2
    for number in range(5):
        world.grant(f"p{number}@acme.example", ACME, ROADMAP)
        world.employ(f"p{number}@acme.example", world.engineering)
    answer, asked = world.okta._respond, []

    def throttles(request: Any, content: bytes) -> Any:
        asked.append(request.path)
        return throttled(7) if len(asked) in (3, 9) else answer(request, content)

    world.okta._server.respond = throttles
    found = world.audit()
    assert (found["extra"], found["missing"], found["people"]) == ([], [], 5)
    assert [6 <= waited <= 8 for waited in world.waited] == [True, True]
    assert any("asked again in" in told and "too many requests" in told for told in world.told)


def test_an_entra_tenant(world: World) -> None:
    with FakeGraph() as graph:
        graph.page_size, graph.repeat = 2, True
        tenant = graph.tenant
        staff = [tenant.add_user(f"p{number}@acme.example")[0] for number in range(5)]
        engineering, inner = tenant.add_group("Engineering")[0], tenant.add_group("Inner")[0]
        tenant.join(inner, engineering)
        for user, group in ((staff[0], engineering), (staff[1], inner), (staff[2], engineering)):
            tenant.join(user, group)
        tenant.disable(staff[2])
        for number in (0, 1, 2, 3):
            world.grant(f"p{number}@acme.example", ACME, ROADMAP)
        source = json.dumps(graph.source())
        found = world.audit(f"  entra: {source}\n", ENTRA_CLIENT_SECRET=graph.login.secret)
    assert lines(found) == {
        (f"p{number}@acme.example", resource): why
        for number, why in (
            (2, "the account p2@acme.example of entra is deactivated"),
            (3, "in no group or app that gives it"),
        )
        for resource in ("acme", "roadmap")
    }
    assert (found["missing"], found["people"]) == ([], 5)


def test_nothing_is_changed(world: World) -> None:
    ada = world.employ("ada@acme.example")
    known(world, gain(ada, world.engineering), **{ada: "ada@acme.example"})
    world.grant("ada@acme.example", ROADMAP)
    before = contents(world.database)
    assert world.audit(more="mode: observe\n")["extra"] != []
    assert contents(world.database) == before
    assert world.sandbox.sandbox.calls() == {"calls": []}


def contents(database: Database) -> dict[str, Any]:
    found = {}
    with database.read() as connection:
        for table in tables.metadata.sorted_tables:
            found[table.name] = connection.execute(select(func.count()).select_from(table)).scalar_one()
        found["facts"] = sorted(map(repr, connection.execute(select(tables.facts)).all()))
    return found


def test_without_anything_to_list(world: World) -> None:
    with pytest.raises(Refused, match="can be listed, so there is nobody to compare with"):
        world.audit(HOOK)


def test_public_resources_and_those_that_do_not_exist(world: World) -> None:
    world.employ("ada@acme.example")
    world.declare(ROADMAP, accessType="public")
    world.grant("ada@acme.example", ROADMAP)
    found = world.audit()
    assert found["extra"] == []
    told = {one["resource"]["id"]: one["access_type"] for one in found["resources"]}
    assert told["roadmap"] == "public"


@pytest.mark.parametrize(
    ("answer", "told", "waits"),
    [
        (fake_velt.error("UNAVAILABLE", 503), "Velt could not be asked, so nothing is told: ", [1, 5, 30]),
        (fake_velt.error("UNAUTHENTICATED", 401), "VELT_API_KEY or VELT_AUTH_TOKEN is refused: ", []),
        (fake_velt.error("NOT_FOUND", 404), "Velt knows none of these people, look at VELT_API_KEY: ", []),
    ],
    ids=["away", "keys", "unknown"],
)
def test_velt_in_trouble(world: World, answer: fake_velt.Answer, told: str, waits: list[float]) -> None:
    world.employ("ada@acme.example")
    with FakeVelt() as fake:
        fake.shows = lambda call: answer
        world.velt_url = fake.url
        with pytest.raises(Refused, match=told):
            world.audit()
    assert world.waited == waits


class Picky(Velt):
    """A Velt that refuses some users, does not know some, and shows an editor's role of everything to the rest."""

    def __init__(self, refused: set[str], unknown: set[str], most: int = 30) -> None:
        self.refused, self.unknown, self.most = refused, unknown, most
        self.asked: list[list[str]] = []

    def close(self) -> None:
        """Nothing is open."""

    def permissions(self, user_ids: Any, resources: Any, **_: Any) -> Any:
        by_type = Counter(one.type for one in resources)
        assert len({one.organization for one in resources}) == 1
        assert max(len(user_ids), by_type["document"], by_type["folder"]) <= self.most
        self.asked.append(list(user_ids))
        if self.refused & set(user_ids):
            return Permissions(Outcome(Answer.REFUSED, "not this user"))
        if self.unknown & set(user_ids):
            return Permissions(Outcome(Answer.ABSENT, "User does not exist"))
        shown = dict.fromkeys(resources, Access("editor"))
        return Permissions(Outcome(Answer.REMOVED, "ok"), dict.fromkeys(user_ids, shown))


def test_one_user_whom_velt_does_not_take_spoils_nothing_for_the_others() -> None:
    velt = Picky({"u3"}, {"u7"})
    users, roadmap = [f"u{number}" for number in range(30)], Resource("document", "roadmap", "acme")
    asker = auditing._Asker(velt, 0, lambda seconds: None)
    access, failed = asker.ask(users, [roadmap])
    asker.check_keys()
    assert {user for user, told in access.items() if told} == {*users} - {"u3", "u7"}
    assert failed == {"u3": {roadmap: "not this user"}}
    assert len(velt.asked) < 25


@pytest.mark.parametrize(("retry_after", "waits"), [(None, [1]), (20.0, [20]), (9000.0, [120])])
def test_velt_says_how_long_to_wait(retry_after: float | None, waits: list[float]) -> None:
    class Busy(Picky):
        def permissions(self, *args: Any, **more: Any) -> Any:
            first = not self.asked
            told = super().permissions(*args, **more)
            return Permissions(Outcome(Answer.RETRY, "busy", retry_after=retry_after)) if first else told

    waited: list[float] = []
    asker = auditing._Asker(Busy(set(), set()), 0, waited.append)
    access, _ = asker.ask(["ada"], [Resource("organization", "acme")])
    assert (waited, access["ada"] != {}) == (waits, True)


def test_a_user_whom_velt_refuses_is_told(world: World) -> None:
    for login in ("ada@acme.example", "bob@acme.example"):
        world.employ(login, world.engineering)
    found = world.audit(velt=Picky({"ada@acme.example"}, set()))
    assert {(one["user"], one["why"]) for one in found["unanswered"]} == {("ada@acme.example", "not this user")}
    assert {user for user, _ in lines(found)} == {"bob@acme.example"}  # who has the wiki, too


def test_documents_of_one_person_each(world: World) -> None:
    rule = "  - {name: desks, when: {kind: [group.member_removed], group.name: [Desks]}, revoke: [DESK]}\n"
    desk = {"type": "document", "id": "{user.login}-desk", "organizationId": "acme"}
    desks = world.okta.add_group("Desks")
    world.employ("ada", desks), world.employ("bob"), world.employ("eve", desks)
    for login in ("ada", "bob"):
        world.grant(login, {**desk, "id": f"{login}-desk"})
    more = rule.replace("DESK", json.dumps(desk))
    found = world.audit(more=more)
    assert lines(found) == {("bob", "bob-desk"): "in no group or app that gives it"}
    assert lines(found, "missing") == {("eve", "eve-desk"): "has group Desks (okta), rule 'desks'"}
    assert {one["asked"] for one in found["resources"] if one["resource"]["id"].endswith("-desk")} == {1}


def test_many_resources_are_asked_about_in_parts() -> None:
    velt = Picky(set(), set())
    wanted = {
        Resource(kind, f"{number}", org) for kind in ("document", "folder") for number in range(70) for org in "ab"
    }
    access, _ = auditing._Asker(velt, 0, lambda seconds: None).ask(["ada"], wanted)
    assert access["ada"].keys() == wanted
    assert len(velt.asked) == 6


def test_no_faster_than_allowed() -> None:
    waited: list[float] = []
    asker = auditing._Asker(Picky(set(), set()), 0.001, waited.append)
    allowance = asker._allowance
    asker._wait = lambda seconds: (waited.append(seconds), allowance.give_back(1))  # type: ignore[assignment,return-value]
    for _ in range(2):
        asker.ask(["ada"], [Resource("document", "roadmap", "acme")])
    assert waited == [1000, 1000]


def test_who_is_held_by_the_guard_is_told_and_no_command_goes_past_it(world: World) -> None:
    ada = world.employ("ada@acme.example")
    (event_id,) = Relay(world.database).record(loss(ada, "sales", login="ada@acme.example"))
    Relay(world.database).claim()
    with world.database.write() as connection:
        connection.execute(tables.revocations.delete())
        connection.execute(tables.events.update().values(state="held"))
    world.grant("ada@acme.example", ROADMAP)
    (one,) = world.audit()["extra"]
    assert (one["held"], one["planned"], one["remove"]) == (event_id, None, None)

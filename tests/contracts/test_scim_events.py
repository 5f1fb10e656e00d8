"""What SCIM changes become: the events with their fields, in one transaction with the change, and what they lead to."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from relay import model, operate
from relay.config_checks import FIELDS_BY_SOURCE
from relay.model import SECOND, Guard
from relay.rules import compile_rules
from relay.store import claim
from relay.store.claim import Terms
from relay.store.database import Database
from relay.store.scim_events import email_of
from relay.store.tables import identities, people, revocations
from tests.people import ACME, ALL, Relay, gain, loss, rules
from tests.scim_app import GROUP, USER, Scim, make_app

ADA = {
    "externalId": "00u-ada",
    "emails": [{"value": "home@example.com"}, {"value": "ada@acme.example.com", "primary": True, "type": "work"}],
}


@pytest.fixture
def scim(database: Database, tmp_path: Path) -> Scim:
    return Scim(make_app(database, tmp_path).test_client(), database)


def off(path: str = "active") -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": False}


def test_an_event_names_the_person_the_group_and_the_time(scim: Scim) -> None:
    before = model.now()
    ada = scim.user(**ADA)
    group = scim.group(members=[ada])
    activated, added = scim.rows()
    for row in (activated, added):
        assert (row.source, row.subject, row.login) == ("directory", ada, "ada@example.com")
        assert (row.email, row.external_id) == ("ada@acme.example.com", "00u-ada")
        assert row.state == "received"
        assert (row.dedup_key, row.twin) == (None, False)
        assert before - SECOND <= row.occurred_at == row.as_of == row.received_at <= model.now() + SECOND
        assert json.loads(row.payload)["user"]["id"] == ada
    assert (activated.kind, activated.group_id) == ("account.activated", None)
    assert (added.kind, added.group_id, added.group_name) == ("group.member_added", group, "Engineering")


def test_a_deleted_user_loses_the_account_and_then_every_group(scim: Scim) -> None:
    ada = scim.user(**ADA)
    groups = sorted(scim.group(name, [ada]) for name in ("Engineering", "Sales"))
    scim.rows()
    assert scim.send("DELETE", f"/Users/{ada}").status_code == 204
    rows = scim.rows()
    assert [(row.kind, row.group_id) for row in rows] == [
        ("account.deleted", None),
        ("group.member_removed", groups[0]),
        ("group.member_removed", groups[1]),
    ]
    assert [row.occurred_at - rows[0].occurred_at for row in rows] == [0, 1, 2]
    assert {row.login for row in rows} == {"ada@example.com"}
    assert [scim.members(group) for group in groups] == [[], []]
    assert scim.send("DELETE", f"/Users/{ada}").status_code == 404
    assert scim.told() == []


def test_a_soft_deleted_user_stays_readable_and_may_be_deleted_later(scim: Scim) -> None:
    ada = scim.user()
    scim.patch(f"/Users/{ada}", off())
    assert scim.get(f"/Users/{ada}")["active"] is False
    assert scim.get('/Users?filter=userName eq "ada@example.com"')["Resources"][0]["active"] is False
    assert scim.told()[-1] == ("account.deactivated", ada)
    assert scim.send("DELETE", f"/Users/{ada}").status_code == 204
    assert scim.told() == [("account.deleted", ada)]


def test_a_deleted_group_is_one_event_that_becomes_a_loss_for_each_member(scim: Scim) -> None:
    ada, bob = sorted([scim.user(), scim.user("bob@example.com")])
    group = scim.group(members=[ada, bob])
    scim.rows()
    assert scim.send("DELETE", f"/Groups/{group}").status_code == 204
    [deleted] = scim.rows()
    assert (deleted.kind, deleted.subject, deleted.group_name) == ("group.deleted", None, "Engineering")
    assert json.loads(deleted.payload) == {
        "what": "group deleted",
        "group": {"id": group, "displayName": "Engineering"},
    }
    assert scim.send("GET", f"/Groups/{group}").status_code == 404
    plan(scim.database)
    children = [row for row in scim.rows() if row.parent_id == deleted.id]
    assert sorted((row.kind, row.subject, row.group_name) for row in children) == [
        ("group.deleted", ada, "Engineering"),
        ("group.deleted", bob, "Engineering"),
    ]
    assert revoked(scim.database) == [("ada@example.com", "acme"), ("bob@example.com", "acme")]


def test_a_deleted_group_larger_than_the_guard_allows_is_held_whole(scim: Scim) -> None:
    group = scim.group(members=[scim.user(f"user{n}@example.com") for n in range(3)])
    scim.rows()
    scim.send("DELETE", f"/Groups/{group}")
    rules = compile_rules(RULES, fills={"directory": FIELDS_BY_SOURCE["scim"]}, guard=Guard(2, 3600.0))
    claim.route_all(scim.database, rules)
    [held] = [row for row in scim.rows() if row.kind == "group.deleted"]
    assert (held.state, held.subject) == ("held", None)
    assert "up to 3 people would lose something at once, more than 2" in held.reason


def test_a_deleted_group_without_members_concerns_nobody(scim: Scim) -> None:
    assert scim.send("DELETE", f"/Groups/{scim.group()}").status_code == 204
    assert scim.told() == []


def test_other_names_are_told_once_and_before_what_else_changed(scim: Scim) -> None:
    ada = scim.user(**ADA)
    scim.rows()
    rename = {"op": "replace", "value": {"userName": "ada.king@example.com", "active": False, "title": "Countess"}}
    scim.patch(f"/Users/{ada}", rename)
    scim.patch(f"/Users/{ada}", rename)
    changed, deactivated = scim.rows()
    assert (changed.kind, deactivated.kind) == ("account.changed", "account.deactivated")
    assert {changed.login, deactivated.login} == {"ada.king@example.com"}
    assert changed.occurred_at < deactivated.occurred_at
    assert json.loads(changed.payload)["before"]["userName"] == "ada@example.com"
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": "displayName", "value": "Ada"})
    assert scim.told() == []


@pytest.mark.parametrize(
    ("emails", "chosen"),
    [
        ([], None),
        (None, None),
        ([{"value": "a@example.com"}], "a@example.com"),
        ([{"value": "a@example.com"}, {"value": "b@example.com", "type": "work"}], "b@example.com"),
        ([{"value": "a@example.com", "type": "work"}, {"value": "b@example.com", "primary": True}], "b@example.com"),
        ([{"type": "work"}, {"value": "c@example.com"}], "c@example.com"),
    ],
)
def test_the_address_of_a_user(emails: Any, chosen: str | None) -> None:
    assert email_of({"emails": emails}) == chosen


def test_members_that_nobody_knows_are_kept_and_told_of(scim: Scim) -> None:
    group = scim.group(members=["usr_unknown"])
    assert scim.members(group) == ["usr_unknown"]
    (row,) = scim.rows()
    assert (row.kind, row.subject, row.login) == ("group.member_added", "usr_unknown", None)
    scim.patch(f"/Groups/{group}", {"op": "remove", "path": "members", "value": [{"value": "usr_unknown"}]})
    assert scim.told() == [("group.member_removed", "usr_unknown")]


def test_groups_inside_of_groups_are_members_but_nobody(scim: Scim) -> None:
    inner = scim.group("Inner")
    outer = scim.group("Outer", [inner])
    scim.patch(f"/Groups/{outer}", {"op": "add", "path": "members", "value": [{"value": "grp_far", "type": "Group"}]})
    members = scim.get(f"/Groups/{outer}")["members"]
    assert sorted((member["value"], member["type"]) for member in members) == sorted(
        [("grp_far", "Group"), (inner, "Group")]
    )
    assert members[0]["$ref"].endswith(f"/scim/directory/v2/Groups/{members[0]['value']}")
    assert scim.send("DELETE", f"/Groups/{inner}").status_code == 204
    assert scim.members(outer) == ["grp_far"]
    assert scim.send("DELETE", f"/Groups/{outer}").status_code == 204
    assert scim.told() == []


def test_a_name_that_is_free_again_is_a_new_person_to_scim(scim: Scim) -> None:
    old = scim.user()
    scim.send("DELETE", f"/Users/{old}")
    new = scim.user()
    assert new != old
    assert scim.told() == [("account.activated", old), ("account.deleted", old), ("account.activated", new)]


def test_the_change_and_its_event_are_stored_together_or_not_at_all(
    scim: Scim, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = scim.user()
    group = scim.group(members=[ada])
    scim.rows()

    def fail(*_: Any) -> None:
        raise RuntimeError("the events could not be written")

    monkeypatch.setattr("relay.store.scim_events.insert_events", fail)
    assert scim.patch(f"/Users/{ada}", off()).status_code == 500
    assert scim.patch(f"/Groups/{group}", {"op": "remove", "path": "members"}).status_code == 500
    assert scim.send("DELETE", f"/Users/{ada}").status_code == 500
    monkeypatch.undo()
    assert scim.get(f"/Users/{ada}")["active"] is True
    assert scim.members(group) == [ada]
    assert scim.told() == []


def test_workers_are_woken_after_the_commit_and_only_when_there_is_an_event(
    scim: Scim, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(scim.database.waker, "wake", lambda: seen.append(len(scim.rows())))
    ada = scim.user()
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": "title", "value": "Countess"})
    scim.get(f"/Users/{ada}")
    assert seen == [1]


def test_times_go_on_when_the_clock_goes_back(scim: Scim, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = scim.user()
    group = scim.group(members=[ada])
    last = scim.rows()[-1].occurred_at
    monkeypatch.setattr(Database, "now", lambda *_: last - 3600 * SECOND)
    scim.patch(f"/Users/{ada}", off())
    scim.patch(f"/Groups/{group}", {"op": "remove", "path": "members"})
    assert all(row.occurred_at > last - SECOND for row in scim.rows())
    assert scim.get(f"/Groups/{group}")["meta"]["version"] == 'W/"2"'


def test_two_sources_do_not_see_each_other(scim: Scim, tmp_path: Path) -> None:
    other = Scim(scim.client, scim.database, source="other", token="another")
    ada = scim.user()
    group = scim.group(members=[ada])
    theirs = other.user()
    assert theirs != ada
    assert other.get("/Users")["totalResults"] == 1
    for method in ("GET", "DELETE"):
        assert other.send(method, f"/Users/{ada}").status_code == 404
    assert other.patch(f"/Groups/{group}", {"op": "remove", "path": "members"}).status_code == 404
    assert scim.members(group) == [ada]


def at_once(*calls: Any) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_changes_at_the_same_time_wait_for_each_other(scim: Scim) -> None:
    ada = scim.user()
    group = scim.group(members=[f"usr_{number}" for number in range(20)])
    scim.rows()
    statuses: list[int] = []

    def attributes(mine: int) -> None:
        for turn in range(5):
            name = {"op": "replace", "path": "title", "value": f"{mine}-{turn}"}
            statuses.append(scim.patch(f"/Users/{ada}", name).status_code)

    def members(mine: int) -> None:
        for number in range(mine * 5, mine * 5 + 5):
            removal = {"op": "Remove", "path": "members", "value": [{"value": f"usr_{number}"}]}
            statuses.append(scim.patch(f"/Groups/{group}", removal).status_code)

    at_once(*(lambda mine=mine: attributes(mine) for mine in range(4)))
    at_once(*(lambda mine=mine: members(mine) for mine in range(4)))
    assert set(statuses) == {204}
    assert scim.get(f"/Users/{ada}")["meta"]["version"] == 'W/"21"'
    assert scim.members(group) == []
    assert sorted(scim.told()) == sorted(("group.member_removed", f"usr_{number}") for number in range(20))


def test_one_name_is_given_once_when_two_ask_at_the_same_time(scim: Scim) -> None:
    statuses: list[int] = []
    body = {"schemas": [USER], "userName": "ada@example.com"}
    at_once(*(lambda: statuses.append(scim.send("POST", "/Users", body).status_code) for _ in range(4)))
    assert sorted(statuses) == [201, 409, 409, 409]


def test_an_unmet_if_match_is_refused(scim: Scim) -> None:
    ada, group = scim.user(), scim.group(members=["usr_1"])
    removal = json.dumps({"Operations": [{"op": "remove", "path": "members"}]}).encode()
    assert scim.send("PATCH", f"/Groups/{group}", removal, **{"If-Match": 'W/"7"'}).status_code == 412
    assert scim.members(group) == ["usr_1"]
    accepted = scim.send("PATCH", f"/Groups/{group}", removal, **{"If-Match": 'W/"1"'})
    assert (accepted.status_code, accepted.headers["ETag"]) == (204, 'W/"2"')
    patch = json.dumps({"Operations": [off()]}).encode()
    assert scim.send("PATCH", f"/Users/{ada}", patch, **{"If-Match": 'W/"7"'}).status_code == 412
    assert scim.send("GET", f"/Users/{ada}", **{"If-None-Match": 'W/"1"'}).status_code == 304


# what the worker makes of it

RULES: dict[str, Any] = {
    "identity": {"velt_user_id": ["{user.email}", "{user.login}"]},
    "lists": {},
    "rules": [
        {
            "name": "engineering",
            "when": {"kind": ["group.member_removed", "group.deleted"], "group.name": ["Engineering"]},
            "revoke": [{"type": "organization", "id": "acme"}],
        },
        {
            "name": "sales",
            "when": {"kind": ["group.member_removed"], "group.name": ["Sales"]},
            "revoke": [{"type": "folder", "id": "sales", "organizationId": "acme"}],
        },
        {"name": "leavers", "when": {"kind": ["account.deactivated", "account.deleted"]}, "revoke": "everything"},
    ],
}


def plan(database: Database) -> None:
    """What a worker does in observe mode."""
    rules = compile_rules(RULES, version="v1", fills={"directory": FIELDS_BY_SOURCE["scim"]}, complete=["directory"])
    terms = Terms(rules, worker="w1", key_digest="k", lease=30 * SECOND, sends=False)
    while claim.claim(database, terms, 50).due_in is not None:
        continue


def revoked(database: Database) -> list[tuple[str, str]]:
    with database.read() as connection:
        statement = select(people.c.velt_user_id, revocations.c.resource_id).join(
            people, people.c.id == revocations.c.person_id
        )
        found = connection.execute(statement.where(revocations.c.state == "pending")).all()
    return sorted((row.velt_user_id, row.resource_id) for row in found)


def test_a_leaver_loses_exactly_what_their_groups_gave(scim: Scim) -> None:
    ada = scim.user(**ADA)
    scim.group("Engineering", [ada])
    scim.group("Sales")
    scim.patch(f"/Users/{ada}", off())
    plan(scim.database)
    assert revoked(scim.database) == [("ada@acme.example.com", "acme")]


def test_a_changed_name_teaches_who_the_person_is_now_and_takes_nothing(scim: Scim) -> None:
    ada = scim.user(**ADA)
    scim.group("Engineering", [ada])
    plan(scim.database)
    scim.rows()
    emails = [{"value": "countess@acme.example.com", "primary": True}]
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": "emails", "value": emails})
    plan(scim.database)
    (row,) = scim.rows()
    assert (row.kind, row.state, bool(row.reason)) == ("account.changed", "ignored", True)
    assert revoked(scim.database) == []
    with scim.database.read() as connection:
        statement = select(people.c.velt_user_id, identities.c.current, identities.c.email).join(
            people, people.c.id == identities.c.person_id
        )
        known = sorted(tuple(found) for found in connection.execute(statement))
    assert known == [
        ("ada@acme.example.com", False, "ada@acme.example.com"),
        ("countess@acme.example.com", True, "countess@acme.example.com"),
    ]
    scim.send("DELETE", f"/Users/{ada}")
    plan(scim.database)
    gone = {user for user, _ in revoked(scim.database)}
    assert gone == {"ada@acme.example.com", "countess@acme.example.com"}


def test_a_changed_name_of_somebody_without_a_velt_user_is_nobodys_work(
    scim: Scim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES["identity"], "velt_user_id", ["{user.external_id}"])
    ada = scim.user()
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": "userName", "value": "countess@example.com"})
    scim.patch(f"/Users/{ada}", off())
    plan(scim.database)
    rows = scim.rows()
    assert [(row.kind, row.state) for row in rows] == [
        ("account.activated", "done"),
        ("account.changed", "ignored"),
        ("account.deactivated", "failed"),
    ]
    assert all("no Velt user id can be made" in row.reason for row in rows[1:])


def test_a_reactivated_person_keeps_what_the_groups_give(scim: Scim) -> None:
    ada = scim.user(**ADA)
    scim.group("Engineering", [ada])
    scim.patch(f"/Users/{ada}", off())
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": "active", "value": True})
    plan(scim.database)
    assert revoked(scim.database) == []
    with scim.database.read() as connection:
        states = connection.execute(select(revocations.c.state)).scalars().all()
    assert states == ["superseded"]


def test_a_renamed_group_gives_what_its_new_name_gives(scim: Scim) -> None:
    ada = scim.user(**ADA)
    engineering, other = scim.group("Engineering", [ada]), scim.group("Other", [ada, "usr_unknown"])
    plan(scim.database)
    scim.rows()
    scim.send("PUT", f"/Groups/{other}", {"displayName": "Engineering", "members": [{"value": ada}]})
    assert sorted(scim.told()) == [("group.member_added", ada), ("group.member_removed", "usr_unknown")]
    scim.patch(f"/Groups/{engineering}", {"op": "remove", "path": "members", "value": [{"value": ada}]})
    plan(scim.database)
    assert revoked(scim.database) == []
    scim.patch(f"/Groups/{other}", {"op": "replace", "path": "displayName", "value": "ENGINEERING"})
    scim.patch(f"/Groups/{other}", {"op": "replace", "path": "displayName", "value": "ENGINEERING"})
    assert [row.kind for row in scim.rows()] == ["group.member_removed", "group.member_added"]


@pytest.mark.parametrize("left_between", [False, True])
def test_a_rename_is_no_gain_and_leaves_an_operators_removal_alone(scim: Scim, left_between: bool) -> None:
    ada = scim.user()
    group = scim.group("Engineering", [ada])
    rules = compile_rules(RULES, fills={"directory": FIELDS_BY_SOURCE["scim"]})
    relay = Relay(scim.database, replace(rules, complete=frozenset({"directory"})), sends=False)
    relay.run()
    body = {"user": "ada@example.com", "resources": [ACME.as_velt()], "reason": "they asked"}
    event_id = operate.remove(scim.database, relay.terms.rules, "ops", body)["id"]
    if left_between:
        scim.send("PUT", f"/Groups/{group}", {"displayName": "Engineering", "members": []})
        scim.send("PUT", f"/Groups/{group}", {"displayName": "Engineering", "members": [{"value": ada}]})
    for name in ("ENGINEERING", "Engineering"):
        scim.send("PUT", f"/Groups/{group}", {"displayName": name, "members": [{"value": ada}]})
    relay.terms = replace(relay.terms, sends=True)
    calls = relay.run()
    assert [(task.velt_user_id, task.resources) for task in calls] == (
        [] if left_between else [("ada@example.com", (ACME,))]
    )
    assert relay.states(event_id) == ["superseded" if left_between else "removed"]


def test_removing_one_group_keeps_what_another_gives(scim: Scim) -> None:
    ada = scim.user(**ADA)
    engineering, also = scim.group("Engineering", [ada]), scim.group("Engineering", [ada])
    assert engineering != also
    scim.patch(f"/Groups/{engineering}", {"op": "remove", "path": f'members[value eq "{ada}"]'})
    plan(scim.database)
    assert revoked(scim.database) == []
    scim.send("PUT", f"/Groups/{also}", {"schemas": [GROUP], "displayName": "Engineering", "members": []})
    plan(scim.database)
    assert revoked(scim.database) == [("ada@acme.example.com", "acme")]


@pytest.mark.parametrize("starts_active", [True, False])
def test_an_account_out_of_force_entitles_nobody_whether_it_was_ever_in_force_or_not(
    scim: Scim, starts_active: bool
) -> None:
    engineering = {
        "name": "engineering",
        "when": {"kind": ["group.member_removed"], "group.name": ["Engineering", "Crew"]},
        "revoke": [ACME.as_velt()],
    }
    relay = Relay(
        scim.database, rules(engineering, identity=["{user.login}"], fills=dict.fromkeys(("okta", "directory"), ALL))
    )
    ada = scim.user(active=starts_active)
    if starts_active:
        scim.patch(f"/Users/{ada}", off())
    scim.group(members=[ada])
    crew = {"login": "ada@example.com", "group_name": "Crew"}
    now = relay.now()
    relay.record(gain("00u-ada", "00g-crew", None, **crew), received=now)
    [lost] = relay.record(loss("00u-ada", "00g-crew", None, **crew), received=now + 1)
    relay.run()
    assert relay.states(lost) == ["removed"]
    scim.patch(f"/Users/{ada}", {"op": "replace", "path": "active", "value": True})
    relay.record(gain("00u-ada", "00g-crew", None, **crew), received=now + 2)
    [lost] = relay.record(loss("00u-ada", "00g-crew", None, **crew), received=now + 3)
    relay.run()
    assert relay.states(lost) == ["retained"]

"""Filters, orders and pages beyond scim2-server's own suite, and what they cost, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scim2_models import Group, Resource, ScimFilter
from scim2_server.utils import parametrize
from sqlalchemy import event

from relay.store.database import Database
from relay.store.tables import metadata, scim_users
from relay.web.scim_service import provider
from tests.scim_app import ENTERPRISE, USER, Scim, make_app


@pytest.fixture
def scim(database: Database, tmp_path: Path) -> Scim:
    return Scim(make_app(database, tmp_path).test_client(), database)


def ids(scim: Scim, endpoint: str, **query: str) -> list[str]:
    response = scim.send("POST", f"{endpoint}/.search", query)
    assert response.status_code == 200, response.text
    body = response.get_json(force=True)
    found = [resource["id"] for resource in body.get("Resources", [])]
    assert body["totalResults"] >= len(found)
    return found


USERS: list[dict[str, Any]] = [
    {"displayName": "Ärger", "externalId": "X1", "title": "Über", "roles": [{"value": "Admin", "primary": True}]},
    {
        "displayName": "ärger",
        "externalId": "x1",
        "roles": [{"value": "b"}, {"value": "a", "type": "T"}],
        "active": False,
    },
    {"displayName": "a_b%c", "title": "über", "name": {"formatted": "", "givenName": "Zoë"}},
    {"displayName": "", "nickName": "'; --", "emails": [{"value": 'q"uote@example.com', "display": "\\"}]},
    {"title": "zebra 😀", "timezone": "Z", ENTERPRISE: {"manager": {"value": "M1"}, "department": "R&D"}},
]

FILTERS = [
    'displayName eq "ÄRGER"',
    'displayName ne "ärger"',
    'displayName eq ""',
    "displayName pr",
    'displayName co "_b%"',
    'displayName sw "Ä"',
    'displayName gt "a"',
    'externalId eq "X1"',
    'externalId ne "x1"',
    'externalId sw "X"',
    "externalId eq null",
    'title ew "BER"',
    'title ew "😀"',
    'title ge "zebra"',
    'title co ""',
    'not (title co "ber")',
    'not (title co "ber" or active eq true)',
    'roles.value eq "ADMIN"',
    'roles[type eq "t"]',
    'roles[value eq "a" and not (type eq "x")]',
    'roles[not (value eq "a")]',
    'roles[primary eq true].value eq "admin"',
    'roles ne "a"',
    "roles eq null",
    "roles ne null",
    "not (roles pr)",
    "name pr",
    'name.givenName sw "zo"',
    'nickName eq "\'; --"',
    'emails eq "q\\"uote@example.com"',
    'emails.display eq "\\\\"',
    f"{ENTERPRISE}:manager pr",
    f'{ENTERPRISE}:manager.value eq "m1"',
    f'{ENTERPRISE}:department co "&"',
    f'{USER}:timezone eq "z"',
    f'schemas eq "{ENTERPRISE}"',
    'meta.resourceType eq "user"',
    'meta.resourceType eq "Group"',
    "meta.created pr",
    'meta.lastModified ge "2020-01-01T00:00:00+02:00"',
    'id pr and (userName sw "user0" or userName ew "4@example.com")',
    "nickName pr or locale pr",
]


def test_sql_finds_what_the_librarys_evaluator_finds(scim: Scim) -> None:
    for number, attributes in enumerate(USERS):
        scim.user(f"user{number}@example.com", **attributes)
    model: Any = provider().model_for("User")
    stored: list[Resource[Any]] = [model.model_validate(each) for each in scim.get("/Users")["Resources"]]
    assert len(stored) == len(USERS)
    for wanted in FILTERS:
        bound = parametrize(ScimFilter, model)(wanted)
        matching = {resource.id for resource in stored if bound.match(resource)}
        assert set(ids(scim, "/Users", filter=wanted)) == matching, wanted


def test_groups_are_found_by_their_members(scim: Scim) -> None:
    ada = scim.user()
    with_ada, inner = scim.group("With", [ada]), scim.group("Empty")
    with_group = scim.group("Outer", [inner])
    assert ids(scim, "/Groups", filter=f'members eq "{ada}"') == [with_ada]
    assert ids(scim, "/Groups", filter=f'members.value eq "{ada}"') == [with_ada]
    assert ids(scim, "/Groups", filter=f'members[value eq "{ada}" and type eq "user"]') == [with_ada]
    assert ids(scim, "/Groups", filter='members.type eq "GROUP"') == [with_group]
    assert ids(scim, "/Groups", filter="not (members pr)") == [inner]
    assert ids(scim, "/Groups", filter=f'members ne "{ada}"') == [inner, with_group]
    refused = scim.send("POST", "/Groups/.search", {"filter": 'members.display eq "x"'})
    assert (refused.status_code, refused.get_json(force=True)["scimType"]) == (400, "invalidFilter")


def test_the_root_holds_users_and_groups_as_one_list(scim: Scim) -> None:
    users = [scim.user(f"user{n}@example.com", displayName=f"{n}") for n in range(3)]
    groups = [scim.group(f"{n}.5") for n in range(3)]
    mixed = [each for pair in zip(users, groups, strict=True) for each in pair]
    pages = [scim.get(f"/?sortBy=displayName&startIndex={start}&count=4") for start in (1, 5)]
    assert [page["totalResults"] for page in pages] == [6, 6]
    assert [resource["id"] for page in pages for resource in page["Resources"]] == mixed
    down = scim.get("/?sortBy=displayName&sortOrder=descending")["Resources"]
    assert [resource["id"] for resource in down] == mixed[::-1]
    assert ids(scim, "", filter='userName eq "USER1@example.com"') == [users[1]]
    assert ids(scim, "", filter='displayName eq "1.5"') == [groups[1]]


def test_pages_follow_each_other_without_gap_or_overlap(scim: Scim) -> None:
    users = [scim.user(f"user{n:02}@example.com") for n in range(25)]
    for order in ("", "&sortBy=userName", "&sortBy=title", "&sortBy=emails&sortOrder=descending"):
        pages = [scim.get(f"/Users?startIndex={start}&count=10{order}") for start in (1, 11, 21, 31)]
        assert [page["totalResults"] for page in pages] == [25] * 4
        found = [resource["id"] for page in pages for resource in page.get("Resources", [])]
        assert sorted(found) == sorted(users)
    assert [page["itemsPerPage"] for page in pages] == [10, 10, 5, 0]


def test_a_page_has_a_hundred_unless_asked_and_never_more_than_a_thousand(scim: Scim) -> None:
    config = scim.get("/ServiceProviderConfig")
    assert config["pagination"]["defaultPageSize"] == 100
    assert config["filter"]["maxResults"] == 1000
    assert (config["bulk"]["supported"], config["pagination"]["cursor"]) == (False, False)
    for number in range(101):
        scim.group(f"Group {number}")
    assert len(scim.get("/Groups")["Resources"]) == 100
    assert len(scim.get("/Groups?count=5000")["Resources"]) == 101
    assert scim.get("/Groups?count=0")["totalResults"] == 101


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is executed meanwhile."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def test_members_that_are_not_asked_for_are_not_read(scim: Scim) -> None:
    group = scim.group(members=["usr_1", "usr_2"])
    for path in (
        f"/Groups/{group}?excludedAttributes=members",
        f"/Groups/{group}?excludedAttributes={Group.__schema__}:members",
        f"/Groups/{group}?attributes=displayName",
        '/Groups?excludedAttributes=members&filter=displayName eq "Engineering"',
    ):
        with statements(scim.database) as seen:
            found = scim.get(path)
        assert "members" not in found.get("Resources", [found])[0]
        assert not [statement for statement, _ in seen if "scim_members" in statement]
    for path in (f"/Groups/{group}?attributes=members.value", f"/Groups/{group}?excludedAttributes=displayName"):
        assert [member["value"] for member in scim.get(path)["members"]] == ["usr_1", "usr_2"]


def test_a_change_of_one_member_reads_no_other(scim: Scim) -> None:
    group = scim.group(members=[f"usr_{number:03}" for number in range(300)])
    for op in ("remove", "add"):
        with statements(scim.database) as seen:
            scim.patch(f"/Groups/{group}", {"op": op, "path": "members", "value": [{"value": "usr_007"}]})
        reads = [(statement, given) for statement, given in seen if "SELECT scim_members" in statement]
        assert len(reads) == 1
        assert "member_id IN" in reads[0][0]
        assert len(seen) < 12


def test_what_directories_ask_for_has_an_index(scim: Scim) -> None:
    scim.user(externalId="x1", displayName="Ada")
    multiply(scim.database, 2000)
    for attribute in ("userName", "externalId", "displayName"):
        with statements(scim.database) as seen:
            ids(scim, "/Users", filter=f'{attribute} eq "x1"')
        column = {"userName": "user_name", "externalId": "external_id", "displayName": "display_name"}[attribute]
        asked = [each for each in seen if column in each[0].partition("WHERE")[2]]
        assert asked
        for statement, parameters in asked:
            plan = explained(scim.database, statement, parameters)
            assert f"scim_users_{column}" in plan or f"scim_users_source_{column}" in plan, plan


def multiply(database: Database, times: int) -> None:
    """Add users like the one that is there, enough for a database to prefer an index."""
    with database.write() as connection:
        one = connection.execute(scim_users.select()).mappings().one()
        names = ("id", "user_name", "external_id", "display_name")
        copies = [{**one, **{name: f"{one[name]}{number}" for name in names}} for number in range(times)]
        connection.execute(scim_users.insert(), copies)
        connection.exec_driver_sql("ANALYZE")


def explained(database: Database, statement: str, parameters: Any) -> str:
    prefix = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    with database.read() as connection:
        return str(connection.exec_driver_sql(prefix + statement, parameters).all())


def test_the_tables_are_what_the_migrations_make(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []

"""Who gets in, and that no request makes the SCIM server fail: strangers, odd bodies, filters, a lost database."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from relay.store.database import Database
from tests.scim_app import GROUP, PATCH_OP, TOKEN, USER, Scim, make_app

ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


@pytest.fixture
def scim(database: Database, tmp_path: Path) -> Scim:
    return Scim(make_app(database, tmp_path).test_client(), database)


def is_error(response: Any, status: int) -> bool:
    body = json.loads(response.data)
    assert response.status_code == status, response.text
    assert response.content_type.startswith("application/scim+json")
    assert body["schemas"] == [ERROR]
    assert body["status"] == str(status)
    return True


def test_without_the_token_nobody_gets_in(scim: Scim) -> None:
    wrong = ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN}, b"]
    for path in ("", "/", "/Users", "/ServiceProviderConfig", "/nowhere"):
        for headers in [{}, *({"Authorization": header} for header in wrong)]:
            response = scim.client.get(f"/scim/directory/v2{path}", headers=headers)
            assert is_error(response, 401), headers
            assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_stranger_changes_nothing(scim: Scim) -> None:
    ada = scim.user()
    stranger = Scim(scim.client, scim.database, token="wrong")
    assert stranger.send("DELETE", f"/Users/{ada}").status_code == 401
    assert stranger.send("POST", "/Users", {"userName": "eve@example.com"}).status_code == 401
    assert scim.get("/Users")["totalResults"] == 1


def test_two_tokens_are_valid_while_one_takes_over(database: Database, tmp_path: Path) -> None:
    client = make_app(database, tmp_path, SCIM_TOKEN="old-token,new-token").test_client()
    for token, status in (("old-token", 200), ("new-token", 200), ("old-token,new-token", 401), (TOKEN, 401)):
        assert Scim(client, database, token=token).send("GET", "/Users").status_code == status
    assert Scim(client, database, source="other", token="new-token").send("GET", "/Users").status_code == 401


def test_the_base_address_is_served_without_a_slash_too(scim: Scim) -> None:
    ada = scim.user()
    assert (
        [found["id"] for found in scim.get("")["Resources"]]
        == [ada]
        == [found["id"] for found in scim.get("/")["Resources"]]
    )
    assert is_error(scim.send("POST", "", b"{}"), 405)


@pytest.mark.parametrize("value", ["nope", 7, ["a", "b"], {"x": 1}])
def test_what_active_may_be_is_said(scim: Scim, value: Any) -> None:
    ada = scim.user()
    user = {"schemas": [USER], "userName": "ada@example.com", "active": value}
    for response in (
        scim.patch(f"/Users/{ada}", {"op": "replace", "path": "active", "value": value}),
        scim.patch(f"/Users/{ada}", {"op": "replace", "value": {"active": value}}),
        scim.send("PUT", f"/Users/{ada}", user),
        scim.send("POST", "/Users", user),
    ):
        assert is_error(response, 400)
        assert (response.get_json()["scimType"], response.get_json()["detail"]) == (
            "invalidValue",
            "active: wanted is true or false",
        )


def test_where_a_filter_lacks_quotes_is_said(scim: Scim) -> None:
    group = scim.group()
    search = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"], "filter": "userName eq zed"}
    for response in (
        scim.send("GET", "/Users?filter=userName eq zed"),
        scim.send("POST", "/Users/.search", search),
        scim.patch(f"/Groups/{group}", {"op": "remove", "path": "members[value eq zed]"}),
    ):
        assert is_error(response, 400)
        assert re.fullmatch(r"invalid syntax at column \d+; .* double quotes", response.get_json()["detail"])


def test_the_scheme_of_the_header_may_be_in_any_letters(scim: Scim) -> None:
    assert scim.send("GET", "/Users", Authorization=f"bearer {TOKEN}").status_code == 200


def patch_of(*operations: Any) -> bytes:
    return json.dumps({"schemas": [PATCH_OP], "Operations": list(operations)}).encode()


DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
NESTED = patch_of({"op": "replace", "path": "name", "value": json.loads('{"a":' * 50 + "1" + "}" * 50)})
OFF = {"op": "replace", "path": "active", "value": False}
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"active=false",
    "not UTF-8": b'{"Operations": "\xff"}',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "deep": DEEP,
    "deep lists": b'{"Operations":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested": NESTED,
    "a name twice": b'{"Operations":[{"op":"replace","path":"active","value":false,"value":true}]}',
    "a name twice in other letters": b'{"Operations":[{"op":"replace","value":{"active":false,"Active":true}}]}',
    "operations twice": b'{"Operations":[],"operations":[{"op":"replace","path":"active","value":false}]}',
    "no operations": b"{}",
    "operations that are none": b'{"Operations":{"op":"replace"}}',
    "an operation that is none": b'{"Operations":["replace"]}',
    "no op": b'{"Operations":[{"path":"active","value":false}]}',
    "an op that is none": b'{"Operations":[{"op":7,"path":"active","value":false}]}',
    "a path that is none": b'{"Operations":[{"op":"replace","path":["active"],"value":false}]}',
    "a broken path": patch_of({"op": "replace", "path": "emails[type eq", "value": "x"}),
    "a single-quoted path": patch_of({"op": "remove", "path": "emails[type eq 'work']"}),
    "an absurd path": patch_of({"op": "remove", "path": "emails[" + "(" * 900 + 'type eq "x"' + ")" * 900 + "]"}),
    "an escaped half in a path": patch_of({"op": "remove", "path": 'emails[value eq "\\ud800"]'}),
    "an escaped half in a member": patch_of({"op": "remove", "path": 'members[value eq "\\ud800"]'}),
    "a wrong escape in a member": patch_of({"op": "remove", "path": 'members[value eq "\\q"]'}),
    "an escaped half in a name": patch_of({"op": "replace", "value": {'emails[type eq "\\ud800"].value': "x"}}),
    "nothing to remove": patch_of({"op": "remove", "path": "emails", "value": []}),
    "a long path": patch_of({"op": "remove", "path": "a" * 5000}),
    "5,000 operations": patch_of(*[OFF] * 5000),
    "U+0000": patch_of({"op": "replace", "path": "title", "value": "a\0b"}),
    "U+0000 in a name": patch_of({"op": "replace", "value": {"a\0b": "c"}}),
    "half a character": b'{"Operations":[{"op":"replace","path":"title","value":"\\ud800"}]}',
    "infinity": b'{"Operations":[{"op":"replace","path":"title","value":1e999}]}',
    "not a number": b'{"Operations":[{"op":"replace","path":"title","value":NaN}]}',
    "a huge number": b'{"Operations":[{"op":"replace","path":"title","value":' + b"9" * 5000 + b"}]}",
    "a long name": patch_of({"op": "replace", "path": "userName", "value": "x" * 3000}),
    "a long address": patch_of({"op": "replace", "path": "emails", "value": [{"value": "x" * 3000}]}),
    "no name": patch_of({"op": "replace", "path": "userName", "value": None}),
    "an own id": patch_of({"op": "replace", "path": "id", "value": "mine"}),
    "a name that is an object": patch_of({"op": "replace", "path": "userName", "value": {"a": {"b": 1}}}),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_hostile_patch_is_refused_and_changes_nothing(scim: Scim, body: bytes) -> None:
    ada, group = scim.user(), scim.group()
    scim.rows()
    started = time.monotonic()
    assert is_error(scim.send("PATCH", f"/Users/{ada}", body), 400)
    assert scim.send("PATCH", f"/Groups/{group}", body).status_code < 500
    assert time.monotonic() - started < 5
    stored = scim.get(f"/Users/{ada}")
    assert (stored["active"], stored["meta"]["version"]) == (True, 'W/"1"')
    assert scim.told() == []


CREATIONS: dict[str, bytes] = {
    "a name twice": b'{"userName":"a@example.com","userName":"b@example.com"}',
    "no name": b'{"active":true}',
    "an empty object": b"{}",
    "deep": DEEP,
    "U+0000": b'{"userName":"a\\u0000b"}',
    "a long name": json.dumps({"userName": "x" * 3000}).encode(),
    "a wrong type": b'{"userName":"a@example.com","emails":7}',
    "a wrong active": b'{"userName":"a@example.com","active":"perhaps"}',
}


@pytest.mark.parametrize("body", CREATIONS.values(), ids=CREATIONS.keys())
def test_a_hostile_creation_is_refused(scim: Scim, body: bytes) -> None:
    assert is_error(scim.send("POST", "/Users", body), 400)
    assert scim.get("/Users")["totalResults"] == 0


def test_a_number_too_large_to_be_read_is_said_to_be_so(scim: Scim) -> None:
    response = scim.send("POST", "/Users", b'{"userName": ' + b"1" * 5000 + b"}")
    assert is_error(response, 400)
    assert response.get_json()["detail"] == "the body is not JSON: a number is too large"


def test_members_without_ids_or_with_long_ones_are_refused(scim: Scim) -> None:
    group = scim.group()
    for members in ([{"value": ""}], [{"display": "Ada"}], [{"value": "x" * 3000}], [7], "", [["a"]]):
        body = {"schemas": [GROUP], "displayName": "Sales", "members": members}
        assert is_error(scim.send("POST", "/Groups", body), 400)
        assert is_error(scim.send("PUT", f"/Groups/{group}", body), 400)
    long = {"op": "add", "path": "members", "value": [{"value": "x" * 3000}]}
    assert is_error(scim.patch(f"/Groups/{group}", long), 400)
    assert scim.told() == []


FILTERS = [
    "",
    "userName",
    "userName eq",
    "userName eq 'ada'",
    'userName eq "ada" or',
    'userName eq "x\'; DROP TABLE scim_users; --"',
    "userName eq \"' OR '1'='1\"",
    'nickName eq "\\" OR 1=1 --"',
    'title co "%_\\\\"',
    'userName eq "ada") or (userName pr',
    '"; SELECT 1 --',
    "userName; DROP TABLE scim_users eq 1",
    'urn:x";--:userName eq "a"',
    'emails[value eq "x" and type eq "\') --"]',
    "(" * 2000 + "userName pr" + ")" * 2000,
    "not (" * 40 + "userName pr" + ")" * 40,
    "emails[" * 50,
    " or ".join(['userName eq "a"'] * 200),
    " and ".join(["title pr"] * 5000),
    'title eq "' + "x" * 100_000 + '"',
    "active gt true",
    "active eq 7",
    "userName eq 1e999",
    "userName eq null",
    'password eq "x"',
    "groups pr",
    'meta.version eq "1"',
    'meta.created gt "soon"',
    'meta.lastModified gt "2026-01-01T00:00:00Z"',
    'name eq "x"',
    'schemas[value eq "x"]',
    f'schemas eq "{USER}"',
    "unknownAttribute pr",
    'userName eq "a\\u0000"',
    'userName eq "\\ud800"',
]


@pytest.mark.parametrize("filter_", FILTERS, ids=[text[:30] for text in FILTERS])
def test_a_hostile_filter_finds_nothing_or_is_refused(scim: Scim, filter_: str) -> None:
    scim.user()
    for response in (
        scim.client.get(
            "/scim/directory/v2/Users",
            query_string={"filter": filter_},
            headers={"Authorization": f"Bearer {TOKEN}"},
        ),
        scim.send("POST", "/Users/.search", {"filter": filter_}),
    ):
        assert response.status_code in (200, 400), response.text
        if response.status_code == 400:
            assert is_error(response, 400)
    assert scim.get("/Users")["totalResults"] == 1


QUERIES = [
    "startIndex=99999999999999999999&count=10",
    "startIndex=-5",
    "count=-1",
    "count=99999999999",
    "startIndex=x",
    "sortBy=userName;drop",
    "sortBy=members",
    "sortBy=emails&sortOrder=descending",
    "sortBy=meta.lastModified",
    "sortBy=meta.version",
    "sortBy=unknown",
    "sortOrder=sideways",
    "attributes=%00",
    "attributes=a,,b&excludedAttributes=c",
    "cursor=abc",
    "filter=%00",
]


def test_an_odd_query_is_answered(scim: Scim) -> None:
    scim.group(members=[scim.user()])
    for query in QUERIES:
        for endpoint in ("/Users", "/Groups", "/"):
            assert scim.send("GET", f"{endpoint}?{query}").status_code in (200, 400, 501), query


ADDRESSES = [
    ("GET", "/Users/%00", 400),
    ("GET", "/Users/" + "x" * 5000, 404),
    ("DELETE", "/Users/%F0%9F%98%80", 404),
    ("GET", "/Nothing", 404),
    ("GET", "/Users/a/b/c", 404),
    ("PUT", "/Users", 405),
    ("POST", "/Bulk", 501),
    ("GET", "/Me", 501),
    ("PATCH", "/Me", 501),
    ("POST", "/Nothing", 404),
    ("PATCH", "/Nothing/x", 404),
]


def test_an_odd_address_is_answered_in_scims_words(scim: Scim) -> None:
    for method, path, status in ADDRESSES:
        assert is_error(scim.send(method, path, {}), status), path


def test_a_body_that_is_no_json_by_its_header_is_refused(scim: Scim) -> None:
    assert is_error(scim.send("POST", "/Users", b"<user/>", **{"Content-Type": "text/xml"}), 415)


def test_a_body_may_be_as_large_as_a_large_group(scim: Scim) -> None:
    group = scim.group(members=[f"usr_{number:032}" for number in range(5000)])
    assert len(scim.members(group)) == 5000
    too_large = b'{"displayName":"' + b"x" * (8 << 20) + b'"}'
    assert is_error(scim.send("POST", "/Groups", too_large), 413)


def test_a_mistake_of_ours_is_told_as_scim_tells_errors(scim: Scim, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("secret detail")

    monkeypatch.setattr("relay.store.scim_rows.content", fail)
    response = scim.send("POST", "/Users", {"userName": "ada@example.com"})
    assert is_error(response, 500)
    assert b"secret detail" not in response.data


def test_without_the_database_the_answer_is_try_again(scim: Scim) -> None:
    ada = scim.user()
    group = scim.group()
    scim.database.close()
    scim.database.url = scim.database.url.set(database="/nowhere/relay.db")
    if scim.database.is_sqlite:
        away = Database("sqlite:////nowhere/relay.db")
    else:
        away = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    scim.database.__dict__.update(away.__dict__)
    for method, path, body in (
        ("GET", "/Users", None),
        ("GET", f"/Users/{ada}", None),
        ("PATCH", f"/Users/{ada}", {"Operations": [OFF]}),
        ("PATCH", f"/Groups/{group}", {"Operations": [{"op": "remove", "path": "members"}]}),
        ("POST", "/Users", {"userName": "b@example.com"}),
        ("DELETE", f"/Users/{ada}", None),
    ):
        started = time.monotonic()
        response = scim.send(method, path, body)
        assert time.monotonic() - started < 2
        assert is_error(response, 503)
        assert int(response.headers["Retry-After"]) > 0
    assert scim.send("GET", "/ServiceProviderConfig").status_code == 200


def test_somebody_who_keeps_the_database_locked_is_not_waited_for(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/relay.db")
    database.migrate()
    scim = Scim(make_app(database, tmp_path).test_client(), database)
    ada = scim.user()
    shell = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    assert is_error(scim.patch(f"/Users/{ada}", OFF), 503)
    assert time.monotonic() - started < 2
    shell.execute("ROLLBACK")
    shell.close()
    assert scim.patch(f"/Users/{ada}", OFF).status_code == 204
    database.close()

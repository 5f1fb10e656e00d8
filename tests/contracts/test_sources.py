"""One suite for every source: who gets in, what a bad payload does, and that nothing secret stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.config_checks import FIELDS_BY_SOURCE
from relay.errors import Refused, Unreadable
from relay.model import EventState, Kind
from relay.sources import TYPES, Parsed, Source, build
from tests import payloads
from tests.source_cases import CASES, ENTRA, OKTA, SECRET, Case, attempt, entra_item, is_clean, okta_item


@pytest.fixture(params=CASES, ids=lambda case: case.type)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


def wsgi(text: str) -> str:
    """A header's value as WSGI shows it: the bytes as Latin-1."""
    return text.encode().decode("latin-1")


def test_every_type_is_tried_here() -> None:
    assert {case.type for case in CASES} == set(TYPES)


def test_the_source_says_what_the_web_needs(case: Case) -> None:
    source = case.make()
    assert source.name == "acme"
    assert source.accepted in (202, 204)
    assert 1 << 20 < source.max_body <= 32 << 20


# who gets in


@pytest.mark.parametrize(
    "offered", [SECRET + "x", SECRET[:-1], SECRET.upper(), f" {SECRET}", "", None, "Bearer " + SECRET]
)
def test_a_wrong_empty_or_missing_secret_stays_out(case: Case, offered: str | None) -> None:
    assert not case.lets_in(case.make(), offered)


def test_the_right_secret_gets_in(case: Case) -> None:
    assert case.lets_in(case.make(), SECRET)


def test_a_secret_beyond_ascii_works_and_near_misses_raise_nothing(case: Case) -> None:
    source = case.make("schlüssel-鍵")
    assert case.lets_in(source, wsgi("schlüssel-鍵"))
    assert not case.lets_in(source, wsgi("schlüssel-鑰"))
    assert not case.lets_in(source, "schl\xfcssel")
    assert not case.lets_in(case.make(), "\xff\xfe")


def test_both_secrets_are_valid_while_rotating(case: Case) -> None:
    source = case.make("old-secret", "new-secret")
    assert case.lets_in(source, "old-secret")
    assert case.lets_in(source, "new-secret")
    assert not case.lets_in(source, "old-secret,new-secret")


def test_the_secret_is_asked_for_on_every_request(case: Case) -> None:
    secrets = ["first"]
    source = build("acme", {"type": case.type}, lambda: secrets)
    assert case.lets_in(source, "first")
    secrets[:] = ["second"]
    assert not case.lets_in(source, "first")
    assert case.lets_in(source, "second")


@pytest.mark.parametrize("secrets", [[], [""]])
@pytest.mark.parametrize("offered", ["", None, "anything"])
def test_without_a_secret_nobody_gets_in(case: Case, secrets: list[str], offered: str | None) -> None:
    assert not case.lets_in(build("acme", {"type": case.type}, lambda: secrets), offered)


def test_a_secret_that_is_no_utf_8_in_the_environment_raises_nothing(case: Case) -> None:
    odd = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert not case.lets_in(case.make(odd), SECRET)


# handshakes


def test_okta_gets_its_challenge_back() -> None:
    answer = OKTA.make().handshake("GET", {"Authorization": SECRET, "X-Okta-Verification-Challenge": 'a"b'}, {})
    assert answer is not None
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body) == {"verification": 'a"b'}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "wrong", "X-Okta-Verification-Challenge": "abc"}, 401),
        ({"X-Okta-Verification-Challenge": "abc"}, 401),
        ({"Authorization": SECRET}, 400),
        ({"Authorization": SECRET, "X-Okta-Verification-Challenge": ""}, 400),
    ],
)
def test_okta_handshakes_that_are_refused(headers: dict[str, str], status: int) -> None:
    with pytest.raises(Refused) as refused:
        OKTA.make().handshake("GET", headers, {})
    assert refused.value.status == status
    assert SECRET not in refused.value.detail


def test_okta_uses_the_configured_header() -> None:
    source = build("acme", {"type": "okta", "header": "X-Acme-Key"}, lambda: [SECRET])
    assert source.authenticate({"X-Acme-Key": SECRET})
    assert not source.authenticate({"Authorization": SECRET})


def test_entra_gets_its_token_back_as_it_is() -> None:
    token = "Validation: Testing <b>acme</b> a+b%3a"
    answer = ENTRA.make().handshake("POST", {}, {"validationToken": token})
    assert answer is not None
    assert (answer.status, answer.body) == (200, token)
    assert answer.content_type.startswith("text/plain")


def test_entra_refuses_an_empty_token() -> None:
    with pytest.raises(Refused) as refused:
        ENTRA.make().handshake("POST", {}, {"validationToken": ""})
    assert refused.value.status == 400


def test_other_requests_are_no_handshake(case: Case) -> None:
    assert case.make().handshake("POST", {"Authorization": SECRET}, {}) is None
    assert ENTRA.make().handshake("GET", {}, {"validationToken": "abc"}) is None


# what is read


def test_a_good_item_is_an_event(case: Case) -> None:
    event = case.one(case.item("user-1"))
    assert (event.source, event.kind, event.subject) == ("acme", Kind.GROUP_MEMBER_REMOVED, "user-1")
    assert (event.state, event.reason) == (EventState.RECEIVED, None)
    assert event.group_id
    assert event.key


def test_an_event_tells_what_the_table_of_fields_says(case: Case) -> None:
    event = case.one(case.item("user-1"))
    told = {
        "user.id": event.subject,
        "user.login": event.login,
        "user.email": event.email,
        "user.external_id": event.external_id,
        "group.id": event.group_id,
        "group.name": event.group_name,
    }
    fills = FIELDS_BY_SOURCE[case.type]
    assert {name for name, value in told.items() if value} == {name for name in fills if not name.startswith("app.")}


def test_missing_null_and_empty_are_the_same(case: Case) -> None:
    for value in ("missing", None, []):
        root = case.body([])
        holder, key = case.list_of(root)
        if value == "missing":
            del holder[key]
        else:
            holder[key] = value
        assert case.make().parse(payloads.to_bytes(root)) == Parsed([], 0)


def test_the_same_delivery_has_the_same_keys(case: Case) -> None:
    body = payloads.to_bytes(case.body([case.item("user-1"), case.item("user-2")]))
    first, second = case.make().parse(body), case.make().parse(body)
    assert [event.key for event in first.events] == [event.key for event in second.events]
    assert len({event.key for event in first.events}) == 2


def test_an_id_is_the_idps_or_a_twin(case: Case) -> None:
    event = case.one(case.item("user-1"))
    assert event.key is not None
    assert event.twin == event.key.startswith("sha256:") == (case is ENTRA)


@pytest.mark.parametrize("bad", ["a\0b", "\ud800", "x" * 801, "é" * 401, ""], ids=ascii)
def test_a_bad_id_spoils_one_of_fifty(case: Case, bad: str) -> None:
    items = [case.item(f"user-{number}") for number in range(50)]
    items[20] = case.item(bad)
    parsed = case.parse(*items)
    assert [event.subject for event in parsed.events if event.state is EventState.RECEIVED] == [
        f"user-{number}" for number in range(50) if number != 20
    ]
    (event,) = [event for event in parsed.events if event.state is EventState.UNREADABLE]
    assert event.kind is Kind.UNKNOWN
    assert event.subject is None
    assert event.key
    assert "id" in (event.reason or "")
    assert is_clean(event)


@pytest.mark.parametrize("longest", ["x" * 800, "é" * 400])
def test_an_id_of_800_bytes_is_fine(case: Case, longest: str) -> None:
    assert case.one(case.item(longest)).subject == longest


def test_an_unreadable_item_can_be_read_again(case: Case) -> None:
    event = case.one(case.item("x" * 801))
    (again,) = case.make().reparse(event.payload).events
    assert (again.state, again.reason, again.payload) == (EventState.UNREADABLE, event.reason, event.payload)


def test_a_stored_item_is_read_without_its_secret(case: Case) -> None:
    event = case.one(case.item("user-1"))
    (again,) = case.make().reparse(event.payload).events
    assert (again.kind, again.subject, again.occurred_at) == (event.kind, event.subject, event.occurred_at)


def test_a_whole_body_is_read_again(case: Case) -> None:
    body = payloads.to_bytes(case.body([case.item("user-1"), case.item("user-2")]))
    assert [event.subject for event in case.make().reparse(body).events] == ["user-1", "user-2"]


WHOLE_BODIES = {
    "empty": b"",
    "text": b"removed: ada",
    "cut": b'{"data": {"events": [',
    "array": b"[]",
    "array of items": b'[{"eventType": "x"}]',
    "null": b"null",
    "string": b'"x"',
    "number": b"7",
    "wrong list": b'{"data": {"events": {}}, "value": {}}',
    "wrong list text": b'{"data": {"events": "x"}, "value": "x"}',
    "NaN": b'{"data": {"events": [NaN]}, "value": [NaN]}',
    "Infinity": b'{"data": {"events": [-Infinity]}, "value": [-Infinity]}',
    "too large a number": b'{"data": {"events": [1e999]}, "value": [1e999]}',
    "too long a number": b'{"data": {"events": [' + b"1" * 5000 + b']}, "value": [' + b"1" * 5000 + b"]}",
    "deep array": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "deep but whole": b'{"data": {"events": [%s]}}' % (b"[" * 50_000 + b"]" * 50_000),
    "Latin-1": '{"é": 1}'.encode("latin-1"),
    "UTF-16": '{"value": []}'.encode("utf-16"),
    "raw surrogate": b'{"value": "\xed\xa0\x80"}',
}


@pytest.mark.parametrize("body", WHOLE_BODIES.values(), ids=WHOLE_BODIES.keys())
def test_a_body_that_is_none_says_what_would_be_right(case: Case, body: bytes) -> None:
    with pytest.raises(Unreadable, match="wanted is"):
        case.make().parse(body)


def test_a_byte_order_mark_does_no_harm(case: Case) -> None:
    body = b"\xef\xbb\xbf" + payloads.to_bytes(case.body([case.item("user-1")]))
    assert len(case.make().parse(body).events) == 1


def test_no_depth_of_nesting_raises_anything_else(case: Case) -> None:
    """Near the interpreter's limit the parser may succeed and a later walk fail."""
    item = json.dumps(case.item("user-1") | {"deep": "HERE"})
    frame = json.dumps(case.body(["ITEM"])).replace('"ITEM"', item)
    read = set()
    for depth in range(100, 1100):
        result = attempt(case.make().parse, frame.replace('"HERE"', "[" * depth + "]" * depth).encode())
        read.add(isinstance(result, Parsed) and result.events[0].state)
    assert read == {EventState.RECEIVED, False}


# nothing secret stays


def everything_told(parsed: Parsed, source: Source) -> str:
    told = [repr(parsed), repr(source), str(vars(source))]
    return " ".join(told + [event.payload.decode() for event in parsed.events])


def test_no_secret_is_in_what_is_kept_or_told(case: Case) -> None:
    good, bad, odd = case.item("user-1"), case.item("\0"), case.item("user-3")
    odd["resource"] = odd["eventType"] = 5
    for item in (good, bad, odd):
        item["password"] = "hunter-2"
        item["deep"] = [{"Password": ["hunter-2"]}, {"passw\u006frd": {"a": "hunter-2"}}]
    source = case.make()
    parsed = source.parse(payloads.to_bytes(case.body([good, bad, odd]) | {"validationTokens": ["eyJ-token"]}))
    assert [event.state for event in parsed.events].count(EventState.UNREADABLE) == 2
    told = everything_told(parsed, source)
    for secret in (SECRET, "hunter-2", "eyJ-token"):
        assert secret not in told
    assert "[removed]" in told


def test_a_password_of_the_wrong_type_is_not_told(case: Case) -> None:
    item = case.item("user-1") | {"resourceData": "x", "target": {"password": "hunter-2"}}
    event = case.one(item)
    assert event.state is EventState.UNREADABLE
    assert "hunter-2" not in repr(event)


@pytest.mark.parametrize("value", [{"clientState": SECRET}, SECRET, [[{"clientState": SECRET}]]])
def test_a_body_that_is_none_keeps_its_secret(value: object) -> None:
    for root in ({"value": value}, value):
        result = attempt(ENTRA.make().parse, payloads.to_bytes(root))
        assert SECRET not in repr(result)
        assert SECRET not in repr(result.__cause__ if isinstance(result, Unreadable) else None)


# whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def twisted(shape: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The shape with some members replaced by anything, at the first two levels."""
    members = {}
    for key, value in shape.items():
        inner = twisted(value) if isinstance(value, dict) else st.just(value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner = st.lists(twisted(value[0]) | JSON, max_size=3)
        members[key] = st.one_of(inner, inner, inner, JSON)
    return st.fixed_dictionaries({}, optional=members)


SURROGATES = st.sampled_from(["\ud800", "a\0", "x" * 900, "unknown", "", "User", "Group"])
SHAPES = {
    "okta": twisted(okta_item("user-1") | {"legacyEventType": payloads.LEGACY_DELETE}),
    "entra": twisted(entra_item("user-1") | {"lifecycleEvent": None}),
}


def only_unreadable(case: Case, body: bytes) -> None:
    for read in (case.make().parse, case.make().reparse):
        result = attempt(read, body)
        if isinstance(result, Unreadable):
            assert str(result)
            continue
        assert all(is_clean(event) for event in result.events)
        assert all(event.reason for event in result.events if event.state is not EventState.RECEIVED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=200) | JSON.map(payloads.to_bytes))
@example(body=b'{"data": 5, "value": 5}')
def test_parse_raises_nothing_but_unreadable(case: Case, body: bytes) -> None:
    only_unreadable(case, body)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_twisted_items_raise_nothing_and_end_somewhere(case: Case, data: st.DataObject) -> None:
    item = data.draw(SHAPES[case.type])
    for key in data.draw(st.lists(st.sampled_from(sorted(item) or ["uuid"]), max_size=2)):
        item[key] = data.draw(SURROGATES)
    body = payloads.to_bytes(case.body([item | ({"clientState": SECRET} if case is ENTRA else {})]))
    only_unreadable(case, body)
    parsed = case.make().parse(body)
    assert parsed.rejected == 0
    assert parsed.events

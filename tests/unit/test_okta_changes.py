"""Okta's System Log as what changed, against a fake Okta that speaks real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from relay.directories import okta as module
from relay.directories.okta import OktaDirectory
from relay.errors import LookUpFailed
from relay.model import AccessEvent, EventState, Kind, Micros, from_iso, now
from relay.sources.okta import KINDS, Okta
from tests.fake_okta import FakeOkta
from tests.fake_okta_api import Answer, error
from tests.payloads import okta_event, okta_user

HOOK = Okta("acme", {"type": "okta", "api": {}}, tuple)


@pytest.fixture
def clock() -> list[Micros]:
    return [from_iso("2026-03-02T09:30:00.250Z")]


@pytest.fixture
def okta(clock: list[Micros]) -> Iterator[FakeOkta]:
    with FakeOkta(lambda: clock[0]) as fake:
        yield fake


@pytest.fixture
def make(okta: FakeOkta) -> Iterator[Callable[..., OktaDirectory]]:
    made = []

    def build(**source: Any) -> OktaDirectory:
        given = {"type": "okta", "api": {"url": okta.url, "token": {"env": "T"}}, **source}
        made.append(OktaDirectory("acme", given, lambda: okta.api_token))
        return made[-1]

    yield build
    for directory in made:
        directory.close()


@pytest.fixture
def directory(make: Callable[..., OktaDirectory]) -> OktaDirectory:
    return make()


def read(directory: OktaDirectory, cursor: str | None = None, since: Micros = 0) -> tuple[list[AccessEvent], str]:
    """All events to the end, and the last cursor."""
    pages = list(directory.changes(cursor, since))
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    assert not any(page.snapshot for page in pages)
    return [event for page in pages for event in page.events], pages[-1].cursor


def test_the_log_tells_what_the_hooks_tell_with_their_keys(okta: FakeOkta, directory: OktaDirectory) -> None:
    ada, eng, app = okta.add_user("ada@acme.example"), okta.add_group("Engineering"), okta.add_app("Velt")
    sent = [*okta.join(ada, eng), *okta.assign(ada, app), *okta.leave(ada, eng), *okta.suspend(ada)]
    sent += [*okta.join(ada, eng, imported=True), *okta.leave(ada, eng, imported=True), *okta.unsuspend(ada)]
    sent += [*okta.deactivate(ada), *okta.activate(ada), *okta.deactivate_app(app), *okta.delete_group(eng)]
    sent += okta.delete(ada)

    found, _ = read(directory)

    hooked = [event for event in HOOK.parse(okta.hook_body(*sent)).events if event.state is EventState.RECEIVED]
    assert [replace(event, payload=b"") for event in found] == [replace(event, payload=b"") for event in hooked]
    assert len({event.key for event in found}) == len(found) == 14


def test_the_filter_names_what_the_source_knows_and_maps(make: Callable[..., OktaDirectory], okta: FakeOkta) -> None:
    directory = make(kinds={"user.account.lock": "account.suspended", 'odd" or "1': "account.suspended"})

    list(directory.changes(None, now()))

    asked = okta.requests[-1].query["filter"]
    assert set(asked.split(" or eventType eq ")[1:]) > {'"user.lifecycle.suspend"', '"user.account.lock"'}
    for known in (*KINDS, "app.user_management", "user.account.lock"):
        assert f'eventType eq "{known}"' in asked
    assert r'eventType eq "odd\" or \"1"' in asked


def test_reading_begins_at_since(okta: FakeOkta, directory: OktaDirectory, clock: list[Micros]) -> None:
    ada = okta.add_user("ada@acme.example")
    okta.suspend(ada)
    clock[0] += 1_000_900
    okta.unsuspend(ada)

    found, _ = read(directory, since=clock[0])

    assert [event.kind for event in found] == [Kind.ACCOUNT_ACTIVATED]
    assert okta.requests[-1].query["since"] == "2026-03-02T09:30:01.250Z", "cut, never later"


def test_pages_lead_to_the_end_and_a_cursor_goes_on(
    okta: FakeOkta, directory: OktaDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_PAGE", 2)
    ada = okta.add_user("ada@acme.example")
    for _ in range(2):
        okta.suspend(ada)
        okta.unsuspend(ada)

    pages = list(directory.changes(None, 0))
    assert [(len(page.events), page.last) for page in pages] == [(2, False), (2, False), (0, True)]

    okta.suspend(ada)
    found, cursor = read(directory, pages[0].cursor)
    assert len(found) == 3, "from the middle, as after a restart"
    assert read(directory, cursor) == ([], cursor), "idle: an empty page, the same cursor"
    okta.unsuspend(ada)
    assert [event.kind for event in read(directory, cursor)[0]] == [Kind.ACCOUNT_ACTIVATED]


@pytest.mark.parametrize("refusal", [None, error("E0000007"), error("E0000001", status=410)])
def test_a_refused_cursor_falls_back_to_since(
    okta: FakeOkta, directory: OktaDirectory, clock: list[Micros], refusal: Answer | None
) -> None:
    ada = okta.add_user("ada@acme.example")
    okta.suspend(ada)
    _, cursor = read(directory)
    clock[0] += 1_000_000
    okta.unsuspend(ada)
    if refusal:
        okta.script(refusal)
    else:
        okta.forget_cursors()

    assert [event.kind for event in read(directory, cursor, clock[0])[0]] == [Kind.ACCOUNT_ACTIVATED]


def test_a_cursor_made_for_other_types_counts_as_none(okta: FakeOkta, make: Callable[..., OktaDirectory]) -> None:
    ada = okta.add_user("ada@acme.example")
    okta.suspend(ada)
    _, cursor = read(make())

    assert [event.kind for event in read(make(kinds={"user.account.lock": "account.suspended"}), cursor)[0]] == [
        Kind.ACCOUNT_SUSPENDED
    ]


@pytest.mark.parametrize("cursor", ["", "nonsense", "https://evil.example/api/v1/logs"])
def test_a_cursor_of_nobody_counts_as_none(okta: FakeOkta, directory: OktaDirectory, cursor: str) -> None:
    okta.suspend(okta.add_user("ada@acme.example"))

    assert len(read(directory, cursor)[0]) == 1


def test_a_cursor_leads_to_no_other_host(okta: FakeOkta, directory: OktaDirectory) -> None:
    _, cursor = read(directory)
    mark = cursor.split()[0]

    with pytest.raises(LookUpFailed, match="a link to another address"):
        read(directory, f"{mark} https://evil.example/api/v1/logs")


def test_trouble_at_a_cursor_is_told_and_loses_no_place(okta: FakeOkta, directory: OktaDirectory) -> None:
    _, cursor = read(directory)
    okta.script(error("E0000009"))

    with pytest.raises(LookUpFailed, match="HTTP 500, E0000009"):
        read(directory, cursor)


def test_elements_that_cannot_be_read_are_kept(okta: FakeOkta, directory: OktaDirectory) -> None:
    link = ("Link", f'<{okta.url}/api/v1/logs?after=0_0>; rel="next"')
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    good = okta_event("user.lifecycle.suspend", okta_user(), event_id="e-1")
    odd = okta_event("user.lifecycle.suspend", event_id="e-2", target="x")
    okta.script(Answer(200, ["x", odd, {"uuid": "e-3", "eventType": deep}, good], (link,)))

    found, _ = read(directory)

    assert [(event.state, event.key) for event in found[1:]] == [
        (EventState.UNREADABLE, "e-2"),
        (EventState.UNREADABLE, "e-3"),
        (EventState.RECEIVED, "e-1"),
    ]
    assert found[0].state is EventState.UNREADABLE


def test_nesting_that_no_walk_can_follow_is_kept_too() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]

    (event,) = HOOK.log_entry({"uuid": "e-1", "eventType": deep})

    assert (event.state, event.reason) == (
        EventState.UNREADABLE,
        "the body is nested too deeply; wanted is a JSON object of ordinary depth",
    )


@pytest.mark.parametrize("answer", [Answer(200, {}), Answer(200, []), Answer(200, b"<html>")])
def test_a_page_that_is_none(okta: FakeOkta, directory: OktaDirectory, answer: Answer) -> None:
    okta.script(answer)

    with pytest.raises(LookUpFailed, match="Okta"):
        read(directory)

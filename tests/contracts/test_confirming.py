"""A worker's questions: over HTTP, on both databases, with what people are shown of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay import confirming, operate, terminal
from relay.allowance import Allowance
from relay.config import Config
from relay.confirming import THREADS, Confirming
from relay.errors import Refused
from relay.model import Answer, Outcome, Resource
from relay.store import tables
from relay.velt import NO_DOCUMENT, Velt
from relay.web import metrics
from tests import fake_velt
from tests.fake_velt import FakeVelt
from tests.people import ACME, CHAT, D1, DOWN, Clock, Relay, loss, rules

PUBLIC = {D1: {"errorCode": "permission_denied", "accessType": "public"}}


@pytest.fixture
def fake() -> Iterator[FakeVelt]:
    with FakeVelt() as made:
        yield made


@pytest.fixture
def asking(relay: Relay, fake: FakeVelt, monkeypatch: pytest.MonkeyPatch) -> Iterator[Confirming]:
    """The questions of one worker, which looks whenever it is told to."""
    monkeypatch.setattr(confirming, "POLL", 0.0)
    relay.terms = replace(relay.terms, confirms=True)
    velt = Velt(fake.url, lambda: ("key", "token"), timeout=5)
    made = Confirming(relay.database, velt)
    yield made
    made.seats.close(time.monotonic() + 10)
    velt.close()


def config(**velt: object) -> Config:
    return Config(Path("relay.yaml"), {"velt": {"confirm": True, **velt}}, "v1", {})


def look(asking: Confirming, relay: Relay, given: Config | None = None, allowance: Allowance | None = None) -> None:
    asking.look(relay.terms, given or config(), allowance or Allowance())


def until_asked(relay: Relay, number: int = 1) -> None:
    """Wait until so many answers are written down."""
    deadline = time.monotonic() + 10
    while sum(row.outcome not in ("removed", "retry") for row in relay.rows(tables.attempts)) < number:
        assert time.monotonic() < deadline, "no answer was written down"
        threading.Event().wait(0.01)


def removed(relay: Relay, clock: Clock, *subjects: str, group: str = "eng") -> list[str]:
    """Losses that were removed long enough ago to ask; their events."""
    ids = relay.record(*[loss(subject, group) for subject in subjects])
    relay.run()
    clock.advance(5)
    return ids


def test_a_question_and_its_answer(asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock) -> None:
    removed(relay, clock, "ada")
    look(asking, relay)
    until_asked(relay)
    (call,) = fake.asked
    assert (call.user_id, call.resources) == ("ada", {D1, CHAT})
    assert [row.confirmation for row in relay.revocations()] == ["confirmed", "confirmed"]


def test_an_organization_alone_is_asked_about_with_a_document_that_is_none(
    asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock
) -> None:
    rule = {"name": "acme", "when": {"group.id": "eng"}, "revoke": [ACME.as_velt()]}
    relay.terms = replace(relay.terms, rules=rules(rule))
    removed(relay, clock, "ada")
    look(asking, relay)
    until_asked(relay)
    assert fake.asked[0].resources == {Resource("document", NO_DOCUMENT, "acme")}
    assert [row.confirmation for row in relay.revocations()] == ["confirmed"]


def test_so_many_at_once_and_the_rest_afterwards(
    asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock
) -> None:
    people = [f"u{n}" for n in range(THREADS + 2)]
    go = threading.Event()
    fake.shows = lambda call: fake_velt.held(go, fake_velt.access(call))
    removed(relay, clock, *people, group="sales")
    look(asking, relay)
    fake.wait_for_questions(THREADS)
    look(asking, relay)
    assert sum(row.confirm_at > relay.now() for row in relay.revocations()) == THREADS, "nobody takes what has to wait"
    go.set()
    until_asked(relay, THREADS)
    deadline = time.monotonic() + 10
    while len(fake.asked) < len(people) and time.monotonic() < deadline:
        look(asking, relay)
    until_asked(relay, len(people))
    assert sorted(call.user_id for call in fake.asked) == sorted(people)


def test_the_rate_counts_questions(asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock) -> None:
    class Spent(Allowance):
        def take(self, rate: float, wanted: int) -> int:
            assert (rate, wanted) == (7, THREADS)
            return 1

    removed(relay, clock, "ada", "bob", group="sales")
    look(asking, relay, config(rate=7), Spent())
    until_asked(relay)
    assert len(fake.asked) == 1


def test_what_the_allowance_gave_and_nobody_needed_is_given_back(asking: Confirming, relay: Relay) -> None:
    returned: list[int] = []

    class Noted(Allowance):
        def give_back(self, calls: int) -> None:
            returned.append(calls)

    look(asking, relay, None, Noted())
    assert returned == [THREADS]


def test_turned_off_nobody_looks(asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock) -> None:
    removed(relay, clock, "ada")
    relay.terms = replace(relay.terms, confirms=False)
    look(asking, relay)
    relay.terms = replace(relay.terms, confirms=True)
    look(asking, relay)
    until_asked(relay)
    assert len(fake.asked) == 1


def test_a_velt_in_trouble_is_asked_again(asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock) -> None:
    removed(relay, clock, "ada", group="sales")
    fake.shows = lambda call: fake_velt.error("UNAVAILABLE", 503)
    look(asking, relay)
    until_asked(relay)
    [row] = relay.revocations()
    assert (row.confirmation, row.confirm_tries) == (None, 1)
    fake.shows = fake_velt.access
    clock.now = row.confirm_at
    look(asking, relay)
    until_asked(relay, 2)
    assert relay.revocations()[0].confirmation == "confirmed"


# what people see


def test_it_is_shown_why_somebody_still_has_access(
    asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock
) -> None:
    [event_id] = removed(relay, clock, "ada", group="sales")
    before = operate.show(relay.database, event_id)["revocations"][0]
    assert (before["confirmation"], before["confirmation_reason"]) == (None, None)
    assert before["confirmation_due_at"] is not None
    assert "Velt is asked at " in terminal.event(operate.show(relay.database, event_id))

    fake.shows = lambda call: fake_velt.access(call, PUBLIC)
    for number in (1, 2):
        look(asking, relay)
        until_asked(relay, number)
        clock.advance(660)
    shown = operate.show(relay.database, event_id)
    [revocation] = shown["revocations"]
    assert revocation["state"] == "removed"
    assert revocation["confirmation"] == "still has access"
    assert revocation["confirmation_reason"].startswith("the document is public")
    assert revocation["confirmation_due_at"] is None
    outcomes = [attempt["outcome"] for attempt in shown["attempts"]]
    assert sorted(outcomes) == ["removed", "still has access", "still has access"]
    assert "still has access: the document is public" in terminal.event(shown)


def test_it_is_counted_and_found(asking: Confirming, relay: Relay, fake: FakeVelt, clock: Clock) -> None:
    shows = {"ada": fake_velt.access} | dict.fromkeys(("bob", "di"), lambda call: fake_velt.access(call, PUBLIC))
    untold = {"result": {"status": "success", "data": {}}}
    fake.shows = lambda call: shows.get(call.user_id, lambda call: fake_velt.answer(200, untold))(call)
    ids = removed(relay, clock, "ada", "bob", "cy", group="sales")
    clock.advance(3600)
    look(asking, relay)
    until_asked(relay, 3)
    [late] = removed(relay, clock, "di", group="sales")
    look(asking, relay)
    until_asked(relay, 4)  # shown as open, and asked again
    [never] = relay.record(loss("ed", "sales"))
    [task] = relay.claim()
    relay.settle(task, DOWN)

    counts = {"confirmed": 1, "still_has_access": 1, "unconfirmed": 1, "waiting": 1}
    stats = operate.stats(relay.database, "enforce")
    assert stats["confirmations"] == counts
    [line] = [line for line in terminal.stats(stats).splitlines() if line.startswith("confirmation")]
    assert line.endswith("  1 confirmed, 1 still has access, 1 unconfirmed, 1 waiting")
    page = metrics.page(relay.database, False, ["okta"], []).decode()
    [family] = [found for found in text_string_to_metric_families(page) if found.name == "relay_confirmations"]
    assert {sample.labels["result"]: sample.value for sample in family.samples} == counts
    for name, event_id in zip(("confirmed", "still_has_access", "unconfirmed", "waiting"), [*ids, late], strict=True):
        assert [found["id"] for found in operate.events(relay.database, {"confirmation": name})["events"]] == [event_id]
    assert never in [found["id"] for found in operate.events(relay.database, {})["events"]]


def test_a_confirmation_that_there_is_not_is_refused(relay: Relay) -> None:
    with pytest.raises(Refused, match="still_has_access"):
        operate.events(relay.database, {"confirmation": "still"})


def test_without_questions_the_numbers_stay_out_of_the_text(relay: Relay) -> None:
    assert "confirmation" not in terminal.stats(operate.stats(relay.database, "enforce"))


def test_a_removal_that_failed_shows_no_confirmation(relay: Relay) -> None:
    [event_id] = relay.record(loss("ada", "sales"))
    relay.terms = replace(relay.terms, confirms=True)
    [task] = relay.claim()
    relay.settle(task, Outcome(Answer.REFUSED, "not understood", 400, "INVALID_ARGUMENT"))
    [revocation] = operate.show(relay.database, event_id)["revocations"]
    assert (revocation["state"], revocation["confirmation_due_at"]) == ("dead", None)

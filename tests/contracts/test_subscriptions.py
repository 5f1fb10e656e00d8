"""The keeper of Graph subscriptions, against a Graph that speaks real HTTP and calls back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from werkzeug.serving import make_server

from relay import compose
from relay.directories.subscriptions import LIFETIME, Subscriptions
from relay.model import from_iso
from relay.settings import Settings, load
from relay.sources.entra import Entra
from relay.store import leases, standing
from relay.store import subscriptions as kept
from relay.store.database import Database
from relay.store.subscriptions import ALARM, DAY
from relay.subscriptions import LOOK, LOOK_AGAIN, Keeper, Target
from tests.fake_graph import FakeGraph
from tests.fake_graph_login import CLIENT_SECRET
from tests.people import Clock, Relay
from tests.web_app import environment, serving, stored

STATE = "acme-client-state-1"


class Hook:
    """Where Graph sends to: repeats the validation token, unless told to be down."""

    def __init__(self) -> None:
        self.up = True
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = parse_qs(urlsplit(self.path).query)["validationToken"][0].encode()
                self.send_response(200 if hook.up else 502)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(token)))
                self.end_headers()
                self.wfile.write(token)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def running(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    with running(made.server):
        yield made


@pytest.fixture
def graph(clock: Clock) -> Iterator[FakeGraph]:
    with FakeGraph(clock) as made:
        yield made


class World:
    """A keeper with what it works on; `state` and `hook_url` may change."""

    def __init__(self, database: Database, clock: Clock, graph: FakeGraph, hook: Hook) -> None:
        self.database, self.clock, self.graph, self.hook = database, clock, graph, hook
        self.state, self.hook_url, self.gone = STATE, f"{hook.url}/hooks/entra", False
        self.keeper = self.another("w1")
        self._source = Entra("entra", graph.source(public_url=hook.url), lambda: [STATE])
        self._relay = Relay(database)

    def another(self, name: str) -> Keeper:
        return Keeper(self.database, name, self._targets)

    def _targets(self) -> dict[str, Target]:
        if self.gone:
            return {}
        calls = Subscriptions(self.graph.source(), lambda: CLIENT_SECRET)
        return {"entra": Target(self.hook_url, lambda: self.state, lambda: calls)}

    def later(self, micros: int) -> bool:
        """Time passes; the keeper's turn."""
        self.clock.now += micros
        return self.keeper.turn()

    def lifecycle(self, subscription_id: str, name: str) -> None:
        """Microsoft says something about a subscription."""
        body = self.graph.hook_body(self.graph.subscriptions.lifecycle(subscription_id, name))
        self._relay.record(*self._source.parse(body).events)

    def live(self) -> dict[str, str]:
        """Resource -> id, as Graph has them; each once."""
        found = {one["resource"]: one["id"] for one in self.graph.subscriptions.live()}
        assert len(found) == len(self.graph.subscriptions.live())
        return found

    def did(self) -> list[str]:
        """What was asked of Graph since this was last called."""
        verbs, self.graph.subscriptions.verbs = self.graph.subscriptions.verbs, []
        return verbs

    def shown(self) -> dict[str, dict[str, Any]]:
        return {one["resource"]: one for one in kept.shown(self.database)["subscriptions"]}

    def record(self) -> kept.Record:
        with self.database.read() as connection:
            (found,) = kept.records(connection)
        return found

    def gap(self) -> tuple[int, str]:
        """Until when notifications may have been lost, and why."""
        record = self.record()
        assert kept.lost(self.database) == {"entra": record.gap_at}
        return record.gap_at or 0, record.gap or ""

    def problems(self) -> dict[str, str]:
        with self.database.read() as connection:
            found = [problem for find in standing.FINDERS for problem in find(connection, self.clock.now)]
        return {key: text for key, text in found if key.startswith("subscription:")}


@pytest.fixture
def world(timed: Database, clock: Clock, graph: FakeGraph, hook: Hook) -> World:
    return World(timed, clock, graph, hook)


def test_both_are_made_and_shown(world: World, clock: Clock) -> None:
    assert world.shown() == {}
    assert world.keeper.turn()
    assert world.did() == ["create", "create"]
    live = world.live()
    assert live.keys() == {"/users", "/groups"}
    for one in world.graph.subscriptions.live():
        assert one["notificationUrl"] == one["lifecycleNotificationUrl"] == world.hook_url
        assert one["changeType"] == "updated,deleted"
        assert from_iso(one["expirationDateTime"]) == clock.now + LIFETIME
    assert {item["clientState"] for item in world.graph.tenant.add_user("ada@acme.example")[1]} == {STATE}
    users = world.shown()["/users"]
    assert (users["source"], users["id"], users["state"]) == ("entra", live["/users"], "live")
    assert (users["days_left"], users["error"]) == (28.0, None)
    assert world.problems() == {}


def test_nothing_is_asked_until_something_is_due(world: World) -> None:
    world.keeper.turn()
    asked = len(world.graph.asked)
    assert not world.keeper.turn()
    assert not world.later(LOOK - 1)
    assert len(world.graph.asked) == asked
    assert world.later(1)
    assert world.did() == ["create", "create"], "all is well, so that nothing was changed"


def test_they_are_renewed_in_good_time(world: World) -> None:
    world.keeper.turn()
    live, _ = world.live(), world.did()
    for _ in range(60):
        world.later(DAY)
        assert world.live() == live
        assert all(one["days_left"] > 13 for one in world.shown().values())
    assert world.did() == ["renew"] * 8


@pytest.mark.parametrize("resource", ["/users", "/groups"])
def test_one_that_is_lost_without_a_word_is_made_anew(world: World, resource: str) -> None:
    world.keeper.turn()
    before, gap = world.live(), world.gap()
    world.did()
    world.graph.subscriptions.lose(before[resource])
    assert world.later(LOOK)
    assert world.did() == ["create"]
    after = world.live()
    assert after[resource] != before[resource]
    assert len(after) == 2
    new = world.gap()
    assert new[0] > gap[0]
    assert f"for {resource} was lost" in new[1]


def test_a_look_that_finds_all_in_order_is_no_gap(world: World) -> None:
    world.keeper.turn()
    gap = world.gap()
    assert "there was no subscription for /users" in gap[1]
    world.later(LOOK)
    world.later(15 * DAY)
    assert world.gap() == gap


def test_they_end_while_nobody_works(world: World) -> None:
    world.keeper.turn()
    world.clock.now += 29 * DAY
    assert {one["state"] for one in world.shown().values()} == {"missing"}
    assert world.problems().keys() == {"subscription:entra:/users", "subscription:entra:/groups"}
    world.keeper.turn()
    assert world.live().keys() == {"/users", "/groups"}
    assert world.problems() == {}


def test_a_new_clientstate_replaces_them_without_a_gap(world: World) -> None:
    world.keeper.turn()
    before, gap, _ = world.live(), world.gap(), world.did()
    world.state = "acme-client-state-2"
    assert world.later(1), "it is noticed at once"
    assert world.did() == ["create", "delete", "create", "delete"]
    assert not set(before.values()) & set(world.live().values())
    assert world.graph.tenant.add_user("ada@acme.example")[1][0]["clientState"] == "acme-client-state-2"
    assert world.gap() == gap


def test_a_new_clientstate_of_which_half_fails(world: World) -> None:
    world.keeper.turn()
    before = world.live()
    world.state = "acme-client-state-2"
    world.graph.subscriptions.quota = 2
    world.later(1)
    assert world.live() == before, "what works stays until there is a better one"
    world.graph.subscriptions.quota = 3
    world.later(LOOK_AGAIN)
    assert not set(before.values()) & set(world.live().values())


def test_a_new_address_replaces_them(world: World) -> None:
    world.keeper.turn()
    before, _ = world.live(), world.did()
    world.hook_url = f"{world.hook.url}/behind/hooks/entra"
    world.later(1)
    assert world.did() == ["create", "delete", "create", "delete"]
    assert not set(before.values()) & set(world.live().values())


def test_those_that_somebody_made_by_hand_are_replaced_and_others_stay(world: World) -> None:
    for url in (world.hook_url, f"{world.hook.url}/staging"):
        world.graph.subscriptions.create(
            {
                "changeType": "updated,deleted",
                "resource": "users",
                "notificationUrl": url,
                "clientState": "unknown",
                "expirationDateTime": "2026-10-10T00:00:00-08:00",
            }
        )
    world.did()
    world.keeper.turn()
    assert world.did() == ["create", "delete", "create"]
    urls = [one["notificationUrl"] for one in world.graph.subscriptions.live()]
    assert sorted(urls) == sorted([world.hook_url] * 2 + [f"{world.hook.url}/staging"])


def test_while_the_web_process_is_away(world: World) -> None:
    world.hook.up = False
    world.keeper.turn()
    assert world.live() == {}
    users = world.shown()["/users"]
    assert (users["state"], users["id"], users["days_left"]) == ("missing", None, 0)
    assert "create for /users: " in users["error"]
    assert "Subscription validation request failed" in users["error"]
    assert "is missing: create for /users" in world.problems()["subscription:entra:/users"]
    world.hook.up = True
    assert not world.later(LOOK_AGAIN - 1)
    assert world.later(1)
    assert world.live().keys() == {"/users", "/groups"}
    assert world.problems() == {}
    assert world.shown()["/users"]["error"] is None


def test_one_that_fails_does_not_hold_up_the_other(world: World) -> None:
    world.graph.subscriptions.quota = 1
    world.keeper.turn()
    assert world.live().keys() == {"/users"}
    shown = world.shown()
    assert shown["/groups"]["error"].startswith("create for /groups: ")
    assert "Quota" in shown["/groups"]["error"]
    assert shown["/users"]["error"] is None
    world.later(LOOK_AGAIN)
    assert len(world.live()) == 1
    world.graph.subscriptions.quota = 2
    world.later(LOOK_AGAIN)
    assert world.live().keys() == {"/users", "/groups"}


def test_each_shows_its_own_error(world: World) -> None:
    world.hook.up = False
    world.keeper.turn()
    for resource, one in world.shown().items():
        assert one["error"].startswith(f"create for {resource}: ")
        assert one["error"].count("create for ") == 1
        assert world.problems()[f"subscription:entra:{resource}"].count("create for ") == 1


def test_while_graph_is_away_what_was_known_stays(world: World) -> None:
    world.keeper.turn()
    world.graph.fail(1)
    world.later(LOOK)
    users = world.shown()["/users"]
    assert users["state"] == "live"
    assert "HTTP 503" in users["error"]
    assert world.problems() == {}, "four weeks are left"
    world.later(LOOK_AGAIN)
    assert world.shown()["/users"]["error"] is None


def test_near_the_end_it_is_a_problem(world: World) -> None:
    world.keeper.turn()
    world.graph.fail(10**6)
    world.later(LIFETIME - ALARM)
    assert world.problems() == {}
    world.later(1)
    told = world.problems()["subscription:entra:/groups"]
    assert "ends in 3.0 days" in told
    assert "HTTP 503" in told
    assert world.shown()["/groups"]["state"] == "ending"


def test_no_clientstate_is_told(world: World) -> None:
    world.state = ""
    world.keeper.turn()
    assert "clientState is not set" in world.shown()["/users"]["error"]
    assert world.live() == {}


# what Microsoft says of them


def test_a_reauthorization_is_given_at_once(world: World) -> None:
    world.keeper.turn()
    world.did()
    world.clock.advance(30)
    world.lifecycle(world.live()["/groups"], "reauthorizationRequired")
    gap = world.gap()
    assert world.keeper.turn()
    assert world.did() == ["reauthorize"]
    assert world.gap() == gap
    assert not world.keeper.turn(), "once"
    assert not world.another("w2").turn(), "and by one worker"
    world.later(LOOK)
    assert world.did() == []


def test_a_reauthorization_that_failed_is_tried_again(world: World) -> None:
    world.keeper.turn()
    world.did()
    world.clock.advance(30)
    world.lifecycle(world.live()["/groups"], "reauthorizationRequired")
    world.graph.fail(1)
    world.keeper.turn()
    assert world.did() == []
    assert not world.later(LOOK_AGAIN - 1)
    assert world.later(1)
    assert world.did() == ["reauthorize"]


def test_one_that_arrived_while_no_worker_was_there(world: World) -> None:
    world.keeper.turn()
    world.did()
    world.clock.advance(60)
    world.lifecycle(world.live()["/users"], "reauthorizationRequired")
    world.clock.advance(600)
    assert world.another("w2").turn()
    assert world.did() == ["reauthorize"]


@pytest.mark.parametrize("name", ["missed", "subscriptionRemoved"])
def test_a_loss_that_microsoft_tells_is_a_gap(world: World, name: str) -> None:
    world.keeper.turn()
    before = world.live()
    world.clock.advance(30)
    world.lifecycle(before["/users"], name)
    if name == "subscriptionRemoved":
        world.graph.subscriptions.lose(before["/users"])
    gap = world.gap()
    assert world.keeper.turn()
    new = world.gap()
    assert new[0] > gap[0]
    assert f"Microsoft said {name}" in new[1]
    assert (world.live() == before) is (name == "missed")


def test_a_renewal_of_one_that_has_just_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.keeper.turn()
    before = world.live()
    listed = Subscriptions.listed

    def lose_it_after(self: Subscriptions) -> Any:
        found = listed(self)
        world.graph.subscriptions.lose(before["/users"])
        return found

    monkeypatch.setattr(Subscriptions, "listed", lose_it_after)
    world.did()
    world.later(15 * DAY)
    assert world.did() == ["renew", "create", "renew"]
    assert world.live()["/users"] != before["/users"]
    assert "there was no subscription for /users" in world.gap()[1]


# one owner among many


def test_one_worker_at_a_time(world: World) -> None:
    keepers = [world.another(f"w{number}") for number in range(4)]
    start = threading.Barrier(4)

    def work(keeper: Keeper) -> None:
        start.wait(20)
        keeper.turn()

    threads = [threading.Thread(target=work, args=(keeper,)) for keeper in keepers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert world.did() == ["create", "create"]
    assert len(world.live()) == 2


def test_who_comes_second_does_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    second = world.another("w2")
    take = leases.take

    def after_the_first(database: Database, key: str, owner: str, seconds: float) -> bool:
        if owner == "w2":
            world.keeper.turn()
        return take(database, key, owner, seconds)

    monkeypatch.setattr(leases, "take", after_the_first)
    assert not second.turn()
    assert [path for method, path in world.graph.asked if method == "GET"] == ["/v1.0/subscriptions"]


def test_a_source_that_left_relay_yaml_is_forgotten(world: World) -> None:
    world.keeper.turn()
    world.gone = True
    world.keeper.turn()
    assert world.shown() == {}
    assert world.problems() == {}


# with the real processes' parts


@pytest.fixture
def parts(database: Database, tmp_path: Path) -> Iterator[tuple[FakeGraph, Flask, Settings, Any]]:
    """A Graph, the web application, the settings that make them find each other, and the application's server."""
    url = database.url.render_as_string(hide_password=False)
    with FakeGraph() as graph:
        config = f"""\
sources:
  entra:
    type: entra
    client_state: {{env: ENTRA_CLIENT_STATE}}
    public_url: PUBLIC
    graph: {graph.source()["graph"]!r}
identity: {{velt_user_id: ["{{user.id}}"]}}
rules: []
"""
        with serving(tmp_path, url, config.replace("PUBLIC", "http://127.0.0.1")) as app:
            server = make_server("127.0.0.1", 0, app, threaded=True)
            environ = environment(tmp_path, url, config.replace("PUBLIC", f"http://127.0.0.1:{server.server_port}/"))
            yield graph, app, load({**environ, "ENTRA_CLIENT_SECRET": CLIENT_SECRET}), server


def test_with_the_real_hook(database: Database, parts: tuple[FakeGraph, Flask, Settings, Any]) -> None:
    graph, app, settings, server = parts
    with running(server):
        assert Keeper(database, "w1", lambda: compose.targets_of(settings)).turn()
    (target,) = compose.targets_of(settings).values()
    assert target.url == f"http://127.0.0.1:{server.server_port}/hooks/entra"
    assert {one["notificationUrl"] for one in graph.subscriptions.live()} == {target.url}
    ada, _ = graph.tenant.add_user("ada@acme.example")
    items = graph.hook_body(*graph.tenant.purge(ada))
    answer = app.test_client().post("/hooks/entra", data=items, content_type="application/json")
    assert answer.status_code == 202
    assert stored(database) == [("entra", "received", "User.deleted")]


def test_a_worker_keeps_them_beside_its_work(
    database: Database, parts: tuple[FakeGraph, Flask, Settings, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, _, settings, server = parts
    monkeypatch.setattr(compose, "database_of", lambda settings: database)
    worker = compose.worker(settings)
    thread = threading.Thread(target=worker.run)
    with running(server):
        thread.start()
        try:
            graph.subscriptions.wait_for(2)
        finally:
            worker.stop()
            thread.join(30)
    assert not thread.is_alive()

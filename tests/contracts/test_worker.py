"""One worker in this process, with a Velt over HTTP and a directory in memory, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from relay import compose, look_up, model, worker
from relay.config import ConfigFile
from relay.errors import Unavailable
from relay.model import SECOND, Account
from relay.store import heartbeat, tables
from relay.store.database import Database
from relay.velt import Velt
from relay.worker import Worker
from tests.config_files import write_config
from tests.directory_people import Directory, account
from tests.fake_velt import FakeVelt, success
from tests.load import until
from tests.people import Clock, Relay, loss

#: Okta is asked before anything is taken, SCIM tells by itself.
CONFIG = """\
sources:
  okta: {type: okta, secret: {env: A}, api: {url: "https://acme.example.com", token: {env: B}}}
  scim: {type: scim, token: {env: C}}
identity: {velt_user_id: ["{user.id}"]}
rules:
  - {name: all, when: {kind: [group.member_removed], group.id: [eng]}, revoke: [{type: organization, id: acme}]}
velt: {concurrency: 1}
"""

Start = Callable[[], Worker]


@pytest.fixture
def velt() -> Iterator[FakeVelt]:
    with FakeVelt() as fake:
        yield fake


@pytest.fixture
def start(tmp_path: Path, timed: Database, clock: Clock, directory: Directory, velt: FakeVelt) -> Iterator[Start]:
    """Starts the worker, once."""
    write_config(tmp_path, CONFIG)
    database = Database(timed.url.render_as_string(hide_password=False), clock)
    client = Velt(velt.url, lambda: ("key", "token"), timeout=5)
    config = ConfigFile(tmp_path / "relay.yaml")
    made = Worker(config, database, client, compose.compiled, lambda: {"okta": directory}, ())  # type: ignore[dict-item]
    running = threading.Thread(target=made.run)

    def begin() -> Worker:
        running.start()
        return made

    yield begin
    made.stop()
    running.join(30)
    assert not running.is_alive()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join(10)
    database.close()
    client.close()


def test_a_changed_concurrency_waits_for_the_restart(
    tmp_path: Path, relay: Relay, velt: FakeVelt, start: Start
) -> None:
    taken: list[int] = []

    def noted(connection: socket, stopped: threading.Event) -> bool:
        taken.append(sum(row.lease_token is not None for row in relay.rows(tables.people)))
        return success()(connection, stopped)

    velt.always(noted)
    start()
    changed = ConfigFile(write_config(tmp_path, CONFIG.replace("concurrency: 1", "concurrency: 8"))).current
    until(lambda: rules_of_workers(relay) == [changed.version], "loaded")
    relay.record(*[loss(f"u{number}", "eng", source="scim") for number in range(3)])
    relay.database.waker.wake()
    until(lambda: len(taken) == 3, "called")
    assert taken == [1, 1, 1], "nobody is taken for whom there is no thread"


def rules_of_workers(relay: Relay) -> list[Any]:
    with relay.database.read() as connection:
        return [one["rules"] for one in heartbeat.workers(connection, relay.now())]


def test_a_refused_relay_yaml_is_told_until_it_is_mended(tmp_path: Path, relay: Relay, start: Start) -> None:
    def refusals() -> list[int]:
        with relay.database.read() as connection:
            return heartbeat.refusals(connection, relay.now())

    start()
    before = ConfigFile(tmp_path / "relay.yaml").current
    until(lambda: rules_of_workers(relay) == [before.version], "started")
    assert refusals() == []
    write_config(tmp_path, CONFIG.replace("group.id", "group.ids").replace("concurrency", "concurency"))
    until(lambda: refusals() == [2], "refused")
    assert rules_of_workers(relay) == [before.version]
    write_config(tmp_path, CONFIG)
    until(lambda: refusals() == [], "mended")


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_databases_clock_says_when_to_look_up(
    relay: Relay, clock: Clock, directory: Directory, velt: FakeVelt, start: Start, hours: int
) -> None:
    clock.now = model.now() + hours * 3600 * SECOND
    directory.accounts["ada"] = account("ada")
    relay.record(loss("ada", "eng"))
    start()
    assert [call.user_id for call in velt.wait_for(1)] == ["ada"]


def test_a_look_up_that_the_database_refuses_costs_neither_a_call_nor_a_seat(
    relay: Relay, directory: Directory, velt: FakeVelt, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes = look_up.look_ups.take
    away = [Unavailable("away")]

    def take(*args: Any) -> Any:
        if away:
            raise away.pop()
        return takes(*args)

    monkeypatch.setattr(look_up.look_ups, "take", take)
    directory.accounts["bob"] = account("bob")
    relay.record(loss("ada", "eng", source="scim"), loss("bob", "eng"))
    start()
    assert [call.user_id for call in velt.wait_for(2)] == ["ada", "bob"]


def test_stopping_does_not_wait_for_ever_for_a_directory(
    relay: Relay, directory: Directory, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go = threading.Event(), threading.Event()

    def hang(subject: str, groups: Collection[str] = (), apps: Collection[str] = ()) -> Account:
        asked.set()
        go.wait(30)
        return account(subject)

    monkeypatch.setattr(directory, "look_up", hang)
    monkeypatch.setattr(worker, "GRACE", 0.2)
    relay.record(loss("ada", "eng"))
    running = start()
    assert asked.wait(20)
    running.stop()
    until(lambda: rules_of_workers(relay) == [], "stopped", within=10)
    assert not go.is_set()
    go.set()

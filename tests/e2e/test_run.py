"""The whole relay as real processes: from a hook to Velt, and what stopping, killing and bad settings do."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from relay.model import Resource
from relay.store.database import Database
from relay.store.tables import events
from tests.config_files import write_config
from tests.fake_velt import FakeVelt
from tests.processes import ROOT, Program, Stack, free_port, running
from tests.web_app import ENGINEERING, OKTA_SECRET, OPERATOR, okta_headers, okta_removal

pytestmark = pytest.mark.e2e

ACME = frozenset({Resource("organization", "acme")})


@pytest.fixture
def velt() -> Iterator[FakeVelt]:
    with FakeVelt() as fake:
        yield fake


@pytest.fixture
def stack(tmp_path: Path, database_url: str, velt: FakeVelt) -> Iterator[Stack]:
    with running(tmp_path, database_url, velt.url) as made:
        yield made


def test_from_okta_to_velt_within_two_seconds(stack: Stack, velt: FakeVelt) -> None:
    stack.web()
    worker = stack.worker()
    started = time.monotonic()
    assert stack.post("/hooks/okta", okta_removal(), okta_headers()) == (204, b"")
    [call] = velt.wait_for(1, timeout=2.0)
    assert time.monotonic() - started < 2
    assert (call.user_id, call.resources) == ("ada@acme.example", ACME)
    assert call.headers["x-velt-api-key"] == "acme-velt-api-key"
    [seen] = stack.ready()["workers"]
    assert seen["alive"]
    assert worker.stop() == 0


def test_the_yardstick_of_the_bench_runs_under_the_same_settings(stack: Stack) -> None:
    empty = stack.start_web("bench.empty_app:app")
    empty.until(lambda: stack.post("/hooks/okta", b"{}")[0] == 204, "answering")


def test_metrics_count_what_all_web_processes_answered(stack: Stack) -> None:
    stack.web(WEB_CONCURRENCY="3")
    for _ in range(40):
        assert stack.post("/hooks/okta", okta_removal(), okta_headers())[0] == 204
    assert b'relay_hook_requests_total{source="okta",status="204"} 40.0' in stack.get("/metrics")[1]
    assert b'relay_events{state="received"} 40.0' in stack.get("/metrics")[1]


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (Stack.start_web, "OKTA_HOOK_SECRET"),
        (Stack.start_web, "RELAY_OPS_TOKEN"),
        (Stack.start_worker, "VELT_API_KEY"),
        (Stack.start_worker, "VELT_AUTH_TOKEN"),
    ],
)
def test_a_process_says_what_it_lacks(tmp_path: Path, start: Callable[..., Program], name: str) -> None:
    with running(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}", "http://127.0.0.1:1") as stack:
        program = start(stack, **{name: ""})
        assert program.wait() == 1
        assert f"{name}: is not set or empty; the w" in program.text()
        assert "Traceback" not in program.text()


def test_a_process_says_every_mistake_of_relay_yaml_and_the_environment(tmp_path: Path) -> None:
    broken = ENGINEERING.replace("Engineering", "Engineering, {prefux: a}").replace("identity", "identities")
    with running(tmp_path, "mysql://x", "http://127.0.0.1:1", broken) as stack:
        for start in (stack.start_web, stack.start_worker):
            program = start(PORT="many")
            assert program.wait() == 1
            assert "Traceback" not in program.text()
            for word in ("prefux", "identities", "DATABASE_URL", "PORT"):
                assert word in program.text()


def test_the_worker_says_that_the_database_is_not_migrated(tmp_path: Path) -> None:
    (tmp_path / "relay.db").touch()
    with running(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}", "http://127.0.0.1:1") as stack:
        worker = stack.start_worker()
        assert worker.wait() == 1
        assert "python -m relay migrate" in worker.text()
        assert "Traceback" not in worker.text()
        assert stack.command("migrate").returncode == 0
        stack.worker()


def test_the_worker_waits_for_a_database_that_is_away(tmp_path: Path, velt: FakeVelt) -> None:
    with running(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}", velt.url) as stack:
        worker = stack.start_worker()
        worker.until(lambda: "waiting for the database" in worker.text(), "waiting")
        (tmp_path / "relay.db").touch()  # as a migration does before it makes the tables
        worker.until(lambda: "the database is empty" in worker.text(), "waiting for the tables")
        assert stack.command("migrate").returncode == 0
        worker.until(lambda: "worker started" in worker.text(), "started")


def test_check_tells_mistakes_and_what_is_well(tmp_path: Path) -> None:
    with running(tmp_path, "sqlite:///relay.db", "http://127.0.0.1:1") as stack:
        good = stack.command("check")
        assert (good.returncode, good.stderr) == (0, "")
        assert good.stdout.splitlines()[-1] == "all is well: 2 sources, 1 rule, mode enforce"
        assert "warning: velt" in good.stdout
        assert "warning: RELAY_OPS_TOKEN" not in good.stdout
        assert "warning: RELAY_OPS_TOKEN" in stack.command("check", RELAY_OPS_TOKEN="ada=short").stdout
        bad = stack.command("check", OKTA_HOOK_SECRET="", VELT_API_KEY="")
        assert bad.returncode == 1
        assert "all is well" not in bad.stdout
        assert [line.split(":")[0] for line in bad.stderr.splitlines()] == ["OKTA_HOOK_SECRET", "VELT_API_KEY"]
        write_config(tmp_path, ENGINEERING.replace("kind: [group", "kind: [groop"))
        worse = stack.command("check")
        assert worse.returncode == 1
        assert worse.stderr.startswith("rules[0].when.kind[0]: ")


def test_a_broken_relay_yaml_and_a_reload_leave_the_old_one_in_force(stack: Stack, velt: FakeVelt) -> None:
    web = stack.web()
    worker = stack.worker()
    write_config(stack.folder, "sources: [")
    for program in (web, worker):
        program.signal(signal.SIGHUP)
    web.until(lambda: web.text().count("Booting worker") == 4, "reloaded")
    worker.until(lambda: "relay.yaml refused" in worker.text(), "refusing relay.yaml")
    web.until(lambda: stack.post("/hooks/okta", okta_removal(), okta_headers())[0] == 204, "answering")
    # it looks at most once a second, and only when it is asked for something
    web.until(lambda: stack.get("/readyz")[0] == 200 and "relay.yaml refused" in web.text(), "refusing relay.yaml")
    velt.wait_for(1)


def test_the_demo_on_the_example_as_it_stands(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}", f"http://127.0.0.1:{port}") as stack:
        stack.environ["RELAY_CONFIG"] = str(ROOT / "relay.example.yaml")
        early = stack.command("demo")
        assert early.returncode == 1
        assert "make run" in early.stderr
        assert stack.command("migrate").returncode == 0
        stack.sandbox(port)
        stack.web()
        stack.worker()
        for _ in range(2):
            played = stack.command("demo")
            assert played.returncode == 0, played.stdout + played.stderr
            rows = played.stdout.splitlines()[5:]
            assert [row.split("  ")[-1].split(":")[0].strip() for row in rows] == ["Okta"] * 4 + ["Entra"] + [
                "SCIM"
            ] * 3
            assert "organization acme, document roadmap, folder finance" in rows[0]
        hook = (ROOT / "docs" / "try" / "okta-group-removal.json").read_bytes()
        assert stack.post("/hooks/okta", hook, okta_headers()) == (204, b"")


def test_hello_tells_commands_that_work(tmp_path: Path, velt: FakeVelt) -> None:
    with running(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}", velt.url) as stack:
        assert stack.command("migrate").returncode == 0
        secrets = {"OKTA_HOOK_SECRET": "dev-okta", "RELAY_OPS_TOKEN": "dev=dev-token"}
        stack.environ |= secrets
        hello = stack.hello()
        stack.web()
        hello.until(lambda: "stops everything" in hello.text(), "told")
        assert f'curl -i http://127.0.0.1:{stack.port}/hooks/okta -H "Authorization: dev-okta"' in hello.text()
        assert '-H "Authorization: Bearer dev-token"' in hello.text()
        assert 'make relay ARGS="events"' in hello.text()
        assert f"make demo PORT={stack.port}" in hello.text()
        status, _ = stack.get("/api/v1/events", {"Authorization": "Bearer dev-token"})
        assert status == 200


def test_hello_shows_no_secret_that_may_be_real(tmp_path: Path, velt: FakeVelt) -> None:
    with running(tmp_path, f"sqlite:///{tmp_path / 'relay.db'}", velt.url) as stack:
        assert stack.command("migrate").returncode == 0
        hello = stack.hello()
        stack.web()
        hello.until(lambda: "stops everything" in hello.text(), "told")
        assert OKTA_SECRET not in hello.text()
        assert OPERATOR not in hello.text()
        assert '"Authorization: $OKTA_HOOK_SECRET"' in hello.text()
        assert '"Authorization: Bearer $RELAY_OPS_TOKEN"' in hello.text()


class Load:
    """Threads that send events until told to stop, each event once; `acknowledged` holds those answered 204."""

    def __init__(self, stack: Stack) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[int] = []
        self._stack = stack
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(8)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            event_id = str(uuid.uuid4())
            status, _ = self._stack.post("/hooks/okta", okta_removal(event_id), okta_headers())
            if status == 204:
                self.acknowledged.append(event_id)
            elif status:
                self.refused.append(status)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_web_loses_nothing_that_was_acknowledged(
    stack: Stack, database: Database, number: signal.Signals
) -> None:
    web = stack.web()
    load = Load(stack)
    try:
        web.until(lambda: len(load.acknowledged) > 200, "under load")
        if number is signal.SIGTERM:
            assert web.stop() == 0
        else:
            web.kill()
        before = len(load.acknowledged)
        again = stack.web()
        again.until(lambda: len(load.acknowledged) > before + 50, "under load again")
    finally:
        load.stop()
    with database.read() as connection:
        stored = set(connection.execute(select(events.c.dedup_key)).scalars())
    assert set(load.acknowledged) <= stored
    assert load.refused == []

"""What breaks while the relay works: processes are killed, Velt and the databases go away, and nothing is lost."""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import resource
import signal
import sqlite3
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.model import Resource
from relay.store import routing
from relay.store.database import Database
from relay.store.record import insert_events, row_of
from relay.store.tables import attempts, events, revocations
from relay.store.wake import PipeWaker
from tests import people, postgres
from tests.fake_velt import Answer, FakeVelt, answer, closed, endless_body, error, reset, silence, success, truncated
from tests.load import IN_TIME, Ledger, Load, ledger_of, until
from tests.payloads import okta_event, okta_group, okta_hook, okta_user, to_bytes
from tests.processes import Program, Stack, running
from tests.web_app import OPERATOR, okta_headers, okta_removal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(100)]

#: A timeout of 2 s makes leases of 9 s.
CONFIG = """\
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
identity: {velt_user_id: ["{user.login}"]}
rules:
  - name: engineering
    when: {kind: [group.member_removed], group.name: [Engineering]}
    revoke: [{type: organization, id: acme}, {type: document, id: roadmap, organizationId: acme}]
  - name: staff
    when: {kind: [group.member_removed], group.name: [Staff]}
    revoke: [{type: organization, id: acme}]
velt: {timeout: 2s, concurrency: 8}
"""
LOST = ["document roadmap", "organization acme"]
RESOURCES = frozenset({Resource("organization", "acme"), Resource("document", "roadmap", "acme")})


@pytest.fixture
def velt() -> Iterator[FakeVelt]:
    with FakeVelt() as fake:
        yield fake


@pytest.fixture
def stack(tmp_path: Path, database_url: str, velt: FakeVelt) -> Iterator[Stack]:
    with running(tmp_path, database_url, velt.url, CONFIG) as made:
        yield made


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with ledger_of(database_url) as made:
        yield made


@pytest.fixture
def chance() -> random.Random:
    """For moments that nobody chose."""
    return random.Random()


def everybody_lost_exactly_theirs(velt: FakeVelt, ledger: Ledger, load: Load) -> Counter[str]:
    """Check the ledger and Velt against what was acknowledged; return how many calls each person took."""
    ledger.wait_until_removed(load.accepted, LOST)
    assert {call.resources for call in velt.calls} == {RESOURCES}
    called = Counter(call.user_id for call in velt.calls)
    assert called.keys() == ledger.recorded().keys()
    assert load.unhelpful == []
    return called


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def show(stack: Stack, event_id: str) -> Any:
    """What `python -m relay show` tells of an event."""
    shown = stack.command("show", event_id, "--json")
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def recorded_events(stack: Stack) -> list[Any]:
    status, body = stack.get("/api/v1/events", {"Authorization": f"Bearer {OPERATOR}"})
    assert status == 200
    return json.loads(body)["events"]  # type: ignore[no-any-return]


def membership(change: str, login: str, group: str, at: str = "09:30") -> dict[str, Any]:
    """An element of a hook: `change` is add or remove, `at` the time of day that Okta says."""
    return okta_event(
        f"group.user_membership.{change}",
        okta_user(f"00u{login}", login),
        okta_group(f"00g{group}", group),
        published=f"2026-03-02T{at}:00.000Z",
    )


def send(stack: Stack, *elements: dict[str, Any]) -> None:
    assert stack.post("/hooks/okta", to_bytes(okta_hook(elements)), okta_headers()) == (204, b"")


# Killed


def test_killed_web_loses_nothing(stack: Stack, velt: FakeVelt, ledger: Ledger, chance: random.Random) -> None:
    web = stack.web()
    stack.worker()
    with Load(stack) as load:
        for round_ in range(5):
            load.more(20)
            time.sleep(chance.uniform(0, 0.3))
            if round_ % 2:
                os.kill(chance.choice(children(web.pid)), signal.SIGKILL)
            else:
                web.kill()
                web = stack.web()
        load.more(20)
    called = everybody_lost_exactly_theirs(velt, ledger, load)
    assert set(called.values()) == {1}


@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_killed_workers_lose_nothing(
    stack: Stack, velt: FakeVelt, ledger: Ledger, chance: random.Random, both: bool
) -> None:
    stack.web()
    workers = [stack.worker(), stack.worker()]
    with Load(stack) as load:
        for _ in range(3):
            load.more(20)
            time.sleep(chance.uniform(0, 0.3))
            for killed in workers if both else [chance.choice(workers)]:
                killed.kill()
                workers[workers.index(killed)] = stack.start_worker()
        load.more(20)
    called = everybody_lost_exactly_theirs(velt, ledger, load)
    written = ledger.count(attempts, attempts.c.outcome == "removed")
    # A call whose worker died before it could write is made again, and Velt sees it twice: eight a kill at the most.
    assert sum(called.values()) - written <= 3 * 8 * (2 if both else 1)


@pytest.mark.timeout(20)
def test_calls_go_out_while_events_keep_coming(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = people.Relay(database)
    numbers = itertools.count()
    route = routing.route

    def route_and_one_more(*given: Any) -> int:
        row = row_of(people.loss(f"p{next(numbers)}", "eng"), relay.now())
        routed = route(*given)
        insert_events(given[0], [row])
        return routed

    relay.record(people.loss("ada", "eng"))
    monkeypatch.setattr(routing, "route", route_and_one_more)
    assert "ada" in {task.velt_user_id for task in relay.claim(limit=1000)}
    assert next(numbers) > 1


def test_workers_start_while_others_wake_them(tmp_path: Path) -> None:
    wakers, done = [PipeWaker(tmp_path / "relay.db")], threading.Event()

    def wake() -> None:
        while not done.is_set():
            wakers[-1].wake()

    threads = [threading.Thread(target=wake) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(500):
            wakers.append(PipeWaker(tmp_path / f"relay-{number}.db"))
            listener = wakers[-1].listen()
            assert listener.wait(5), "a wake-up did not come"
            listener.close()
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("who", ["web", "worker"])
def test_sigterm_under_load_ends_well(stack: Stack, velt: FakeVelt, ledger: Ledger, who: str) -> None:
    web, worker = stack.web(), stack.worker()
    velt.always(later(0.05))
    with Load(stack) as load:
        load.more(60)
        assert (web if who == "web" else worker).stop() == 0
        if who == "worker":
            assert ledger.count(revocations, revocations.c.state == "sending") == 0
            assert ledger.calls() == len(velt.calls)
            stack.worker()
        else:
            stack.web()
        load.more(20)
    assert set(everybody_lost_exactly_theirs(velt, ledger, load).values()) == {1}


def later(seconds: float) -> Answer:
    """A success that takes its time."""

    def wait(connection: Any, stopped: threading.Event) -> bool:
        stopped.wait(seconds)
        return success()(connection, stopped)

    return wait


# Velt


def test_velt_down_costs_nobody_anything(stack: Stack, velt: FakeVelt, ledger: Ledger) -> None:
    stack.web()
    stack.worker()
    velt.down()
    for number in range(30):
        assert stack.post("/hooks/okta", okta_removal(None, f"p{number}@acme.example"), okta_headers())[0] == 204
    until(lambda: ledger.delivery().state == "open", "open")
    told = stack.ready()["delivery"]
    assert told["state"] == "open"
    assert "Velt could not be reached at 127.0.0.1" in told["why"]
    until(lambda: ledger.count(events, events.c.state == "received") == 0, "all planned")
    spent, calls = ledger.attempts_spent(), ledger.calls()
    until(lambda: ledger.delivery().probes > 0, "probed", 8)
    assert ledger.calls() == calls + 1, "one probe is one call"
    assert ledger.attempts_spent() == spent
    velt.up()
    ledger.wait_until_idle(20)
    assert stack.ready()["delivery"]["state"] == "closed"
    assert ledger.removed() == {f"p{number}@acme.example": LOST for number in range(30)}
    assert Counter(call.user_id for call in velt.calls) == Counter(ledger.removed().keys())


def test_a_wrong_key_waits_for_the_right_one(stack: Stack, velt: FakeVelt, ledger: Ledger, tmp_path: Path) -> None:
    key = tmp_path / "velt-auth-token"
    key.write_text("wrong\n")
    refused = error("UNAUTHENTICATED", 401, "Invalid auth token.")

    def by_key(connection: Any, stopped: threading.Event) -> bool:
        right = velt.calls[-1].headers["x-velt-auth-token"] == "right"
        return (success() if right else refused)(connection, stopped)

    velt.always(by_key)
    stack.web()
    stack.worker(VELT_AUTH_TOKEN_FILE=str(key))
    for number in range(10):
        assert stack.post("/hooks/okta", okta_removal(None, f"p{number}@acme.example"), okta_headers())[0] == 204
    until(lambda: ledger.delivery().state == "open", "open")
    assert "the key is refused" in stack.ready()["delivery"]["why"]
    assert "Invalid auth token." in stack.ready()["delivery"]["why"]
    assert ledger.attempts_spent() == 0
    replace_text(key, "right\n")
    ledger.wait_until_idle(4)  # before the next probe of its own
    assert stack.ready()["delivery"]["state"] == "closed"
    assert ledger.removed() == {f"p{number}@acme.example": LOST for number in range(10)}


def replace_text(path: Path, text: str) -> None:
    """Change a file as whoever deploys secrets does: another file in its place."""
    other = path.with_name(path.name + ".new")
    other.write_text(text)
    other.replace(path)


NOT_FOUND = error("NOT_FOUND", 404, "Nothing there.")
#: What Velt answers first; then what the event, its revocations and its attempts come to.
ANSWERS: dict[str, tuple[Answer, str, str, list[str]]] = {
    "error-in-200": (answer(200, {"error": {"status": "INTERNAL"}}), "done", "removed", ["retry", "removed"]),
    "refused-in-200": (
        answer(200, {"error": {"status": "PERMISSION_DENIED", "message": "Not yours."}}),
        "failed",
        "dead",
        ["refused"],
    ),
    "invalid": (error("INVALID_ARGUMENT", 400), "failed", "dead", ["refused"]),
    "not-found": (NOT_FOUND, "done", "absent", ["absent"]),
    "html": (
        answer(200, b"<html>welcome</html>", {"Content-Type": "text/html"}),
        "done",
        "removed",
        ["retry", "removed"],
    ),
    "array": (answer(200, [1]), "done", "removed", ["retry", "removed"]),
    "truncated": (truncated(), "done", "removed", ["retry", "removed"]),
    "endless": (endless_body(), "done", "removed", ["retry", "removed"]),
    "reset": (reset(), "done", "removed", ["retry", "removed"]),
    "closed": (closed(), "done", "removed", ["retry", "removed"]),
    "silence": (silence(), "done", "removed", ["retry", "removed"]),
}


def test_every_answer_of_velt_ends_as_it_should(stack: Stack, velt: FakeVelt, ledger: Ledger) -> None:
    stack.web()
    stack.worker()
    send(stack, membership("remove", "first@acme.example", "Staff"))
    ledger.wait_until_idle()  # a key that never had a success is no proof that something is absent
    for name, (given, _, _, _) in ANSWERS.items():
        velt.script(given, user=f"{name}@acme.example")
        if name in ("refused-in-200", "invalid"):
            velt.always(given, user=f"{name}@acme.example")
        send(stack, membership("remove", f"{name}@acme.example", "Staff"))
    ledger.wait_until_idle()
    ids = {event["user"]["login"]: event["id"] for event in recorded_events(stack)}
    for name, (_, event_state, state, outcomes) in ANSWERS.items():
        shown = show(stack, ids[f"{name}@acme.example"])
        assert (name, shown["state"]) == (name, event_state)
        assert [revocation["state"] for revocation in shown["revocations"]] == [state]
        assert [(name, attempt["outcome"]) for attempt in shown["attempts"]] == [(name, seen) for seen in outcomes]


# PostgreSQL


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with postgres.running_server() as made:
        yield made


@pytest.fixture
def on_postgres(tmp_path: Path, server: postgres.Server, velt: FakeVelt) -> Iterator[tuple[Stack, Ledger]]:
    url = server.new_database()
    with running(tmp_path, url, velt.url, CONFIG) as stack, ledger_of(url) as ledger:
        yield stack, ledger


def test_postgres_restarts_lose_nothing(
    on_postgres: tuple[Stack, Ledger], server: postgres.Server, velt: FakeVelt
) -> None:
    stack, ledger = on_postgres
    stack.web()
    stack.worker()
    with Load(stack) as load:
        for mode in ("fast", "immediate"):
            load.more(60)
            server.stop(mode)
            load.refuses(8)
            server.start()
            load.more(60)
    assert load.slowest < IN_TIME
    everybody_lost_exactly_theirs(velt, ledger, load)


def test_a_frozen_postgres_is_told_in_time(
    on_postgres: tuple[Stack, Ledger], server: postgres.Server, velt: FakeVelt
) -> None:
    stack, ledger = on_postgres
    stack.web()
    stack.worker()
    with Load(stack) as load:
        load.more(60)
        with frozen(server):
            before = len(load.accepted)
            load.refuses(20)
            assert len(load.accepted) <= before + 8, "somebody was told 2xx by a database that stands still"
        load.more(60)
    assert load.slowest < IN_TIME
    everybody_lost_exactly_theirs(velt, ledger, load)


@contextmanager
def frozen(server: postgres.Server) -> Iterator[None]:
    """The server and all its processes stand still inside the block."""
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres") as connection:
        [folder] = connection.execute("SHOW data_directory").fetchone() or ()
    main = int(Path(folder, "postmaster.pid").read_text().split()[0])
    stopped = [main]
    os.kill(main, signal.SIGSTOP)
    try:
        for child in children(main):
            os.kill(child, signal.SIGSTOP)
            stopped.append(child)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):  # a zombie, which the main process buries when it goes on
                os.kill(pid, signal.SIGCONT)


# SQLite


@pytest.fixture
def file(tmp_path: Path, _sqlite_template: Path) -> Path:
    with (
        closing(sqlite3.connect(_sqlite_template)) as template,
        closing(sqlite3.connect(tmp_path / "relay.db")) as mine,
    ):
        template.backup(mine)
    return tmp_path / "relay.db"


@contextmanager
def moved_away(file: Path, web: Program) -> Iterator[None]:
    """The database with its log is elsewhere, as when a disk comes off."""
    names = [file.name, f"{file.name}-wal", f"{file.name}-shm"]
    away = file.parent / "away"
    away.mkdir()
    there = [name for name in names if (file.parent / name).exists()]
    for name in there:
        (file.parent / name).rename(away / name)
    yield
    for name in reversed(there):
        (away / name).rename(file.parent / name)


@contextmanager
def locked(file: Path, web: Program) -> Iterator[None]:
    """A stranger writes and does not come to an end."""
    with closing(sqlite3.connect(file, isolation_level=None)) as stranger:
        stranger.execute("BEGIN EXCLUSIVE")
        yield
        stranger.execute("ROLLBACK")


@contextmanager
def full(file: Path, web: Program) -> Iterator[None]:
    """No file of the web processes can grow: neither the database nor their own log."""
    processes = [web.pid, *children(web.pid)]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in processes]
    for pid, (_, hard) in zip(processes, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    yield
    for pid, limits in zip(processes, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("trouble", [moved_away, locked, full])
def test_trouble_with_the_sqlite_file_is_told_in_time(
    file: Path, velt: FakeVelt, trouble: Callable[[Path, Program], Any]
) -> None:
    url = f"sqlite:///{file}"
    with running(file.parent, url, velt.url, CONFIG) as stack, ledger_of(url) as ledger:
        web = stack.web()
        stack.worker()
        with Load(stack) as load:
            load.more(60)
            with trouble(file, web):
                load.refuses(8)
                before = len(load.accepted)
                status, body = stack.post(
                    "/hooks/okta", okta_removal(str(uuid.uuid4()), "x@acme.example"), okta_headers()
                )
                assert (status, json.loads(body)["status"]) == (503, 503)
                load.refuses(20)
                assert len(load.accepted) == before
            load.more(60)
        assert load.slowest < IN_TIME
        everybody_lost_exactly_theirs(velt, ledger, load)


# Order and sameness


def test_the_same_hook_at_once_is_one_event(stack: Stack, velt: FakeVelt, ledger: Ledger) -> None:
    stack.web()
    stack.worker()
    answers: list[int] = []
    for number in range(5):
        body = okta_removal(str(uuid.uuid4()), f"p{number}@acme.example")
        start = threading.Barrier(8)

        def post(body: bytes = body, start: threading.Barrier = start) -> None:
            start.wait()
            answers.append(stack.post("/hooks/okta", body, okta_headers())[0])

        threads = [threading.Thread(target=post) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [204] * 40
    ledger.wait_until_removed([f"p{number}@acme.example" for number in range(5)], LOST)
    assert Counter(call.user_id for call in velt.calls) == {f"p{number}@acme.example": 1 for number in range(5)}


def test_a_later_gain_that_comes_first_prevents_the_call(stack: Stack, velt: FakeVelt, ledger: Ledger) -> None:
    stack.web()
    stack.worker()
    send(stack, membership("add", "ada@acme.example", "Engineering", at="10:00"))
    ledger.wait_until_idle()
    send(stack, membership("remove", "ada@acme.example", "Engineering", at="09:00"))
    send(stack, membership("remove", "bob@acme.example", "Engineering", at="09:00"))
    ledger.wait_until_idle()
    assert [call.user_id for call in velt.calls] == ["bob@acme.example"]
    [loss] = [
        event
        for event in recorded_events(stack)
        if event["user"]["login"] == "ada@acme.example" and event["kind"] == "group.member_removed"
    ]
    assert {revocation["state"] for revocation in show(stack, loss["id"])["revocations"]} == {"superseded"}


def test_two_secrets_while_one_takes_over(stack: Stack, tmp_path: Path) -> None:
    secrets = tmp_path / "hook-secret"
    secrets.write_text("first-secret")
    stack.web(OKTA_HOOK_SECRET_FILE=str(secrets), OKTA_HOOK_SECRET="")

    def statuses() -> list[int]:
        """What each of the secrets gets, of several processes."""
        wanted = ["first-secret", "second-secret"]
        seen = [{stack.post("/hooks/okta", okta_removal(), okta_headers(name))[0] for _ in range(8)} for name in wanted]
        assert [len(found) for found in seen] == [1, 1], "the processes differ"
        return [found.pop() for found in seen]

    assert statuses() == [204, 401]
    replace_text(secrets, "first-secret, second-secret")
    assert statuses() == [204, 204]
    replace_text(secrets, "second-secret")
    assert statuses() == [401, 204]


class InFlight:
    """Answers that take a moment each and note when a person has two calls under way.

    `begun` tells each person whose call has come.
    """

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.together: list[str] = []
        self.most = 0
        self._guard = threading.Lock()
        self._now: dict[str, int] = defaultdict(int)

    def answer(self, person: str, seconds: float) -> Answer:
        def wait(connection: Any, stopped: threading.Event) -> bool:
            with self._guard:
                self._now[person] += 1
                self.most = max(self.most, sum(self._now.values()))
                if self._now[person] > 1:
                    self.together.append(person)
            self.begun.put(person)
            stopped.wait(seconds)
            with self._guard:
                self._now[person] -= 1
            return success()(connection, stopped)

        return wait


def test_two_workers_cut_nobody_off_and_never_call_twice_at_once(stack: Stack, velt: FakeVelt, ledger: Ledger) -> None:
    stack.web()
    logins = [f"p{number}@acme.example" for number in range(200)]
    staying, leaving = logins[1::2], logins[::2]
    at_once, during = leaving[::2], set(leaving[1::2])
    in_flight = InFlight()
    for login in logins:
        velt.always(in_flight.answer(login, 1.0 if login in during else 0.05), user=login)
    for start in range(0, 200, 50):
        send(stack, *(membership("add", login, "Staff", at="08:00") for login in logins[start : start + 50]))
    stack.worker()
    stack.worker()
    ledger.wait_until_idle()

    def send_each(group: str, those: list[str]) -> None:
        for login in those:
            send(stack, membership("remove", login, group, at="09:00"))

    def send_while_called() -> None:
        while during:
            person = in_flight.begun.get(timeout=30)
            if person in during:
                during.remove(person)
                send(stack, membership("remove", person, "Staff", at="09:00"))

    # Everybody leaves Engineering. Some leave Staff in the same moment, some while the call for the first is under way.
    threads = [
        threading.Thread(target=send_each, args=["Engineering", logins]),
        threading.Thread(target=send_each, args=["Staff", at_once]),
        threading.Thread(target=send_while_called),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.wait_until_idle()
    removed = ledger.removed()
    assert {login: removed[login] for login in staying} == {login: ["document roadmap"] for login in staying}
    assert {login: sorted(set(removed[login])) for login in leaving} == dict.fromkeys(leaving, LOST)
    organization = Resource("organization", "acme")
    assert {call.user_id for call in velt.calls if organization in call.resources} == set(leaving)
    assert in_flight.together == []
    assert in_flight.most > 1, "nothing went on at the same time, so nothing was tested"

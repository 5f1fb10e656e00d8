"""What the relay costs, side by side in one run: `make bench`, about four minutes; with RUNS=1 a quick look.

Every figure is the median of several runs that take turns, so that a noisy machine is noisy for all of them alike. The
load generator shares the machine with the servers: read the ratios, not the absolutes.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, scim_load
from relay.model import SECOND, from_iso
from tests import postgres

ROOT = Path(__file__).resolve().parent.parent
RUNS = int(os.environ.get("RUNS", "3"))
SECONDS = 4.0
CONNECTIONS = 16
RATE = 50  # events a second for the latency rows

CONFIG = """
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
  scim: {type: scim, token: {env: SCIM_TOKEN}}
identity: {velt_user_id: ["{user.login}"]}
rules:
  - name: engineering
    when: {kind: [group.member_removed], group.name: [Engineering]}
    revoke: [{type: document, id: roadmap, organizationId: acme}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read())


@contextmanager
def process(arguments: list[str], environment: dict[str, str], ready: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is running, ready when its URL answers; ended by SIGTERM afterwards."""
    with tempfile.TemporaryFile() as output:
        started = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
        )
        try:
            ends = time.monotonic() + 20
            while ready is not None:
                try:
                    get(ready)
                    break
                except OSError:
                    if started.poll() is not None or time.monotonic() > ends:
                        output.seek(0)
                        raise SystemExit(f"{arguments} did not start:\n{output.read().decode()}") from None
                    time.sleep(0.05)
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(30)


class Relay:
    """A relay on a database of its own: web, worker and a sandbox for Velt."""

    def __init__(self, stack: ExitStack, folder: Path, database_url: str) -> None:
        self.port, self.velt_port = free_port(), free_port()
        folder.mkdir()
        (folder / "relay.yaml").write_text(CONFIG)
        self.environment = {
            "RELAY_CONFIG": str(folder / "relay.yaml"),
            "DATABASE_URL": database_url,
            "OKTA_HOOK_SECRET": load.SECRET,
            "SCIM_TOKEN": scim_load.TOKEN,
            "RELAY_OPS_TOKEN": "bench-token",
            "VELT_API_KEY": "bench",
            "VELT_AUTH_TOKEN": "bench",
            "VELT_BASE_URL": f"http://127.0.0.1:{self.velt_port}",
            "PORT": str(self.port),
            "LOG_LEVEL": "WARNING",
        }
        subprocess.run(
            [sys.executable, "-m", "relay", "migrate"],
            cwd=ROOT,
            env=os.environ | self.environment,
            check=True,
            capture_output=True,
        )
        sandbox = ["relay", "sandbox", "--port", str(self.velt_port)]
        stack.enter_context(process(sandbox, self.environment, f"http://127.0.0.1:{self.velt_port}/calls"))
        ready = f"http://127.0.0.1:{self.port}/readyz"
        self.web = stack.enter_context(process(["gunicorn", "app:app"], self.environment, ready))

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        with process(["relay", "worker"], self.environment, None) as running:
            yield running

    def calls(self) -> dict[str, float]:
        """When Velt was called for each person, in seconds since 1970."""
        calls = json.loads(get(f"http://127.0.0.1:{self.velt_port}/calls"))["calls"]
        return {call["userId"]: from_iso(call["at"]) / SECOND for call in calls}


def offered(port: int, count: int) -> dict[str, float]:
    """Send as many POSTs of `count` events as the server takes, from a process of its own."""
    command = [sys.executable, str(ROOT / "bench" / "load.py"), str(port), str(SECONDS), str(CONNECTIONS), str(count)]
    done = subprocess.run(command, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def throughput(servers: dict[str, int], count: int) -> dict[str, float]:
    """Posts a second of each server: the median of runs that take turns."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(RUNS):
        for name, port in servers.items():
            told = offered(port, count)
            rates[name].append(told["posts"] / told["seconds"])
            print(
                f"  run {number + 1}/{RUNS}  {name}: {rates[name][-1]:.0f} POSTs/s, p99 {told['p99_ms']:.0f} ms",
                flush=True,
            )
    return {name: statistics.median(found) for name, found in rates.items()}


def latency(relay: Relay, seconds: float) -> tuple[float, float]:
    """p50 and p99 in ms from sending a POST of one event to Velt's being called, at RATE events a second."""
    sent: dict[str, float] = {}
    stamp = f"{time.time_ns():x}"
    with socket.create_connection(("127.0.0.1", relay.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.monotonic()
        for number in range(int(RATE * seconds)):
            time.sleep(max(0.0, begin + number / RATE - time.monotonic()))
            user = f"u{stamp}{number}"
            body = load.hook([load.event(user, "Engineering")])
            sent[f"{user}@acme.example"] = time.time()
            load.post(connection, body)
    ends = time.monotonic() + 20
    while not sent.keys() <= (calls := relay.calls()).keys():
        if time.monotonic() > ends:
            raise SystemExit("Velt was not called for everybody")
        time.sleep(0.2)
    took = sorted(1000 * (calls[user] - at) for user, at in sent.items())
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in family(int(child)))]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def idle(pids: list[int], seconds: float) -> dict[int, float]:
    """Percent of one core that each process uses while nothing happens."""
    before = {pid: cpu_seconds(pid) for pid in pids}
    time.sleep(seconds)
    return {pid: 100 * (cpu_seconds(pid) - before[pid]) / seconds for pid in pids}


def report(title: str, rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def ingest(empty_port: int, relays: dict[str, Relay], say: Callable[[str], None]) -> None:
    say("single-event POSTs, answered after the commit")
    servers = {"empty view": empty_port, **{name: relay.port for name, relay in relays.items()}}
    single = throughput(servers, 1)
    say("POSTs of 50 events")
    fifty = throughput({name: relay.port for name, relay in relays.items()}, 50)
    rows = [("", "POSTs/s", "share of the empty view", "events/s in POSTs of 50")]
    for name, rate in single.items():
        events = f"{50 * fifty[name]:.0f}" if name in fifty else ""
        rows.append((name, f"{rate:.0f}", f"{rate / single['empty view']:.2f}", events))
    report(f"Durable ingest, {CONNECTIONS} connections, median of {RUNS}", rows)


def scim(relays: dict[str, Relay], say: Callable[[str], None]) -> None:
    kinds = {
        "users": "PATCH a user's active",
        "members:10": "PATCH a member, group of 10",
        "members:5000": "PATCH a member, group of 5,000",
        "filter": "GET by userName",
    }
    rows = [("SCIM requests/s", *relays)]
    for what, title in kinds.items():
        say(f"SCIM: {title}")
        found: dict[str, list[float]] = {name: [] for name in relays}
        for _ in range(RUNS):
            for name, relay in relays.items():
                command = [sys.executable, "-m", "bench.scim_load", str(relay.port), str(SECONDS), "4", what]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
                found[name].append(float(done.stdout))
        rows.append((title, *(f"{statistics.median(rates):.0f}" for rates in found.values())))
    report(f"SCIM, answered after the commit, 4 connections, median of {RUNS}", rows)


def delivery(relays: dict[str, Relay], say: Callable[[str], None]) -> None:
    rows = [("", "p50 ms", "p99 ms")]
    for name, relay in relays.items():
        say(f"from POST to Velt's call, {RATE} events/s, {name}")
        with relay.worker():
            latency(relay, 2)
            found = [latency(relay, 8) for _ in range(RUNS)]
        p50, p99 = (statistics.median(column) for column in zip(*found, strict=True))
        rows.append((name, f"{p50:.1f}", f"{p99:.1f}"))
    report(f"From sending the POST to Velt's call, {RATE} events/s, median of {RUNS}", rows)


def upkeep(relays: dict[str, Relay], say: Callable[[str], None]) -> None:
    rows = [("", "idle CPU, % of a core", "resident MB")]
    for name, relay in relays.items():
        say(f"idle, 15 s, {name}")
        with relay.worker() as worker:
            latency(relay, 2)
            names = dict.fromkeys(family(relay.web.pid), "web process") | {worker.pid: "worker"}
            names[relay.web.pid] = "web master"
            used = idle(list(names), 15)
            rows += [(f"{name}: {what}", f"{used[pid]:.2f}", f"{resident_mb(pid):.0f}") for pid, what in names.items()]
    report("Processes, after the load above", rows)


def main() -> None:
    def say(text: str) -> None:
        print(f"- {text}", flush=True)

    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores; {RUNS} runs", flush=True)
    # PostgreSQL flushes for real here, as SQLite does: the tests' server does not.
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-bench-")))
        server = stack.enter_context(postgres.running_server(durable=True))
        port = free_port()
        environment = {"PORT": str(port)}
        stack.enter_context(
            process(
                ["gunicorn", "-c", "gunicorn.conf.py", "bench.empty_app:app"],
                environment,
                f"http://127.0.0.1:{port}/readyz",
            )
        )
        relays = {
            "relay, SQLite": Relay(stack, folder / "sqlite", f"sqlite:///{folder}/relay.db"),
            "relay, PostgreSQL": Relay(stack, folder / "postgresql", server.new_database(migrated=False)),
        }
        ingest(port, relays, say)
        scim(relays, say)
        fresh = {
            "relay, SQLite": Relay(stack, folder / "sqlite2", f"sqlite:///{folder}/relay2.db"),
            "relay, PostgreSQL": Relay(stack, folder / "postgresql2", server.new_database(migrated=False)),
        }
        delivery(fresh, say)
        upkeep(fresh, say)
    print("\nNot measured: TLS, a network between the parts, disks other than this one, Velt's own time.")


if __name__ == "__main__":
    main()

"""Real processes for end-to-end tests: gunicorn and workers on free ports of loopback, all gone afterwards.

    with running(tmp_path, database_url, fake.url) as stack:
        stack.web()                        # returns when it is ready; again after a kill: on the same port
        worker = stack.worker()            # returns when it works
        stack.post("/hooks/okta", body, okta_headers())            # (status, body)
        worker.kill()                      # -9, with its children; stop() is SIGTERM and waits for the end

Each program writes to a file of the folder, which `text()` shows.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.web_app import ENGINEERING, environment

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0


class Program:
    """One started program with everything it starts, in a session of its own."""

    def __init__(self, command: list[str], environ: Mapping[str, str], output: Path) -> None:
        self.command = command
        self._output = output
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=dict(environ), stdout=file, stderr=file, start_new_session=True
            )
        self.pid = self._process.pid

    def text(self) -> str:
        """All that it wrote."""
        return self._output.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Signal the program itself, not its children."""
        self._process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        return self._process.wait(PATIENCE + 10)

    def kill(self) -> None:
        """SIGKILL to it and to everything it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; fails with what the program wrote when it ends before or takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            alive = self._process.poll() is None
            assert alive, f"{self.command} ended before {what}:\n{self.text()}"
            assert time.monotonic() < deadline, f"{self.command}: not {what} within {PATIENCE} s:\n{self.text()}"
            time.sleep(0.02)


class Stack:
    """The programs of one installation: a database, a relay.yaml, a port."""

    def __init__(self, folder: Path, database_url: str, velt_url: str, config: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.config_file = folder / "relay.yaml"
        self.programs: list[Program] = []
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(folder),  # a gunicorn that is killed leaves its folder of counters
            "PORT": str(self.port),
            "VELT_BASE_URL": velt_url,
            "VELT_API_KEY": "acme-velt-api-key",
            "VELT_AUTH_TOKEN": "acme-velt-auth-token",
            **environment(folder, database_url, config),
        }

    def web(self, **more: str) -> Program:
        """A gunicorn that answers /readyz with 200."""
        web = self.start_web(**more)
        web.until(lambda: self.get("/readyz")[0] == 200, "ready")
        return web

    def start_web(self, app: str = "app:app", **more: str) -> Program:
        return self._start(["gunicorn", app, "--bind", f"127.0.0.1:{self.port}"], "web", more)

    def worker(self, **more: str) -> Program:
        """A worker that has started to work."""
        worker = self.start_worker(**more)
        worker.until(lambda: "worker started" in worker.text(), "started")
        return worker

    def start_worker(self, **more: str) -> Program:
        return self._start(["relay", "worker"], "worker", more)

    def sandbox(self, port: int) -> Program:
        """The stand-in for Velt, listening."""
        sandbox = self._start(["relay", "sandbox", "--port", str(port)], "sandbox", {})
        sandbox.until(lambda: "Velt sandbox on" in sandbox.text(), "listening")
        return sandbox

    def hello(self) -> Program:
        """What tells a newcomer what to try."""
        return self._start(["relay", "hello"], "hello", {})

    def command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`python -m relay ARGUMENTS`, to its end."""
        command = [sys.executable, "-m", "relay", *arguments]
        environ = {**self.environ, **more}
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """(status, body); (0, b"") when nobody answers."""
        return self._request("GET", path, None, headers)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """(status, body); (0, b"") when nobody answers."""
        return self._request("POST", path, body, headers)

    def ready(self) -> Any:
        """What /readyz tells."""
        return json.loads(self.get("/readyz")[1])

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def _start(self, command: list[str], name: str, more: Mapping[str, str]) -> Program:
        output = self.folder / f"{name}-{len(self.programs)}.log"
        program = Program([sys.executable, "-m", *command], {**self.environ, **more}, output)
        self.programs.append(program)
        return program


@contextmanager
def running(folder: Path, database_url: str, velt_url: str, config: str = ENGINEERING) -> Iterator[Stack]:
    """A stack without programs yet; whatever it starts is killed at the end."""
    stack = Stack(folder, database_url, velt_url, config)
    try:
        yield stack
    finally:
        for program in stack.programs:
            program.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

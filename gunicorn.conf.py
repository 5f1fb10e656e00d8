"""How gunicorn runs the relay; each setting: https://docs.gunicorn.org/en/stable/settings.html."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

_OWN_METRICS = "relay-metrics-"


def _number(name: str, default: int) -> int:
    """A number of the environment; the application itself refuses what is not one, in a sentence."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


_host = os.environ.get("HOST") or "0.0.0.0"  # noqa: S104 (a platform's router comes from outside)
bind = f"[{_host}]:{_number('PORT', 8080)}" if ":" in _host else f"{_host}:{_number('PORT', 8080)}"
workers = _number("WEB_CONCURRENCY", 2)
worker_class = "gthread"
threads = 16
preload_app = True
keepalive = 75
graceful_timeout = 25
# the socket would be shared by all servers of one account on a machine
control_socket_disable = True
# a heartbeat on a disk that stalls would get a healthy process killed
worker_tmp_dir = _memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108

# must be there before prometheus_client is imported anywhere; a reload keeps the folder
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix=_OWN_METRICS, dir=_memory)


def post_worker_init(worker: Any) -> None:
    """Say that messages may have been lost until now; here and not before, since threads do not survive the fork."""
    relay = worker.wsgi.extensions.get("relay")  # None: the yardstick of `make bench`, served by the same settings
    if relay is not None:
        relay.recorder.begin()


def child_exit(server: Any, worker: Any) -> None:
    """Forget the live gauges of a process that is gone; its counts stay."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if folder.name.startswith(_OWN_METRICS):
        shutil.rmtree(folder, ignore_errors=True)

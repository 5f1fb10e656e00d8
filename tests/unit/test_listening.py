"""Where the web process listens."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("host", "port", "bind"),
    [
        ("", "", "0.0.0.0:8080"),
        ("127.0.0.1", "9000", "127.0.0.1:9000"),
        ("::1", "9000", "[::1]:9000"),
    ],
)
def test_gunicorn_listens_on_host_and_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str, port: str, bind: str
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", port)
    assert runpy.run_path(str(ROOT / "gunicorn.conf.py"))["bind"] == bind


def test_make_run_listens_on_this_machine_only() -> None:
    (web,) = [line for line in (ROOT / "Procfile.dev").read_text().splitlines() if line.startswith("web:")]
    assert web.endswith("--bind 127.0.0.1:$PORT")

"""Logging: one structured line a step, readable in a terminal, JSON otherwise. Never a secret, never a payload."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
from typing import Any, TextIO, cast

import structlog


def configure(level: str) -> None:
    """Send the relay's log lines of this level and above to standard error."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *(_for_people() if terminal else _for_machines()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )


class _Unfailing:
    """A stream whose lines are lost when the disk behind it is full: that must stop neither a hook nor a worker."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def _for_people() -> list[Any]:
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _for_machines() -> list[Any]:
    # Without local variables: they hold bodies and secrets.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]


def get(**context: Any) -> Any:
    """A logger whose lines carry this context."""
    return structlog.get_logger().bind(**context)


def user(velt_user_id: str, how: str) -> str:
    """A Velt user id as the log may show it: itself (`shown`), or 12 hex digits of its SHA-256 (`hashed`)."""
    if how == "shown":
        return velt_user_id
    return "user:" + hashlib.sha256(velt_user_id.encode()).hexdigest()[:12]

"""How far something long is, for whoever waits for it."""

from __future__ import annotations

import shutil
import sys
import time

from relay.contracts import printable


class Progress:
    """Tells on standard error how far something long is: a line that changes on a terminal, else one now and then."""

    EVERY = 5.0

    def __init__(self) -> None:
        self._changes = sys.stderr.isatty()
        self._told_at = time.monotonic()

    def __call__(self, text: str) -> None:
        if self._changes:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[K" + printable(text)[:width])
        elif time.monotonic() - self._told_at >= self.EVERY:
            self._told_at = time.monotonic()
            self._write(printable(text) + "\n")

    def end(self) -> None:
        """Take the line away: what is printed next is the result."""
        if self._changes:
            self._write("\r\x1b[K")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

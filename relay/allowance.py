"""How many calls a second are allowed: `velt.rate` of relay.yaml, for one worker."""

from __future__ import annotations

import time


class Allowance:
    """A bucket that holds one second's worth of calls. Not for several threads."""

    def __init__(self) -> None:
        self._calls = 0.0
        self._at = time.monotonic()

    def take(self, rate: float, wanted: int) -> int:
        """How many of the wanted calls may be made now; all of them without a rate (0)."""
        if not rate:
            return wanted
        now = time.monotonic()
        self._calls = min(max(rate, 1.0), self._calls + (now - self._at) * rate)
        self._at = now
        taken = min(wanted, int(self._calls))
        self._calls -= taken
        return taken

    def give_back(self, calls: int) -> None:
        self._calls += calls

"""Work beside a worker's own, in a thread of its own, so that delivery never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from relay import log
from relay.errors import Unavailable

#: Seconds that a stopping worker waits for a round that is under way.
GRACE = 5.0


class Aside:
    """Calls `work` again and again: one round at a time, `pause` seconds from one beginning to the next.

    Whatever a round raises is logged, and the next one comes.
    """

    def __init__(self, name: str, work: Callable[[], object], pause: float) -> None:
        self.name = name
        self._work = work
        self._pause = pause
        self._thread: threading.Thread | None = None
        self._next = 0.0

    def turn(self) -> None:
        """Begin a round, if it is time for one and none is under way; returns at once."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = time.monotonic() + self._pause
        # a daemon: a call that hangs must not keep the process from ending
        self._thread = threading.Thread(target=self._round, name=self.name, daemon=True)
        self._thread.start()

    def close(self, deadline: float) -> None:
        """Wait for the round under way, until `deadline` (of time.monotonic()) and for GRACE at the most."""
        if self._thread is not None:
            self._thread.join(min(GRACE, deadline - time.monotonic()))

    def _round(self) -> None:
        try:
            self._work()
        except Unavailable as error:
            log.get(work=self.name).error("database unavailable", reason=str(error))
        except Exception:
            log.get(work=self.name).exception("a round failed")

"""Seats: threads for one kind of work, so many and no more, whose mistakes never go unnoticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from relay import log
from relay.errors import Unavailable


class Seats:
    """`number` threads. Whatever work raises is logged; whenever some has ended, `wake` is called.

    One thread alone asks how many are `free` and starts work: nobody takes a seat between the two.
    """

    def __init__(self, name: str, number: int, wake: Callable[[], object]) -> None:
        self.name = name
        self.busy = 0
        self._number = number
        self._wake = wake
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads = 0
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        return self._number - self.busy

    def start(self, work: Callable[..., object], *args: object) -> None:
        """Have `work(*args)` done in a seat; returns at once."""
        with self._changed:
            self.busy += 1
            # Threads stay, as each has its own connections, and the next one is made only when all are busy.
            if self._threads < min(self.busy, self._number):
                self._threads += 1
                # a daemon: a call that hangs must not keep the process from ending
                threading.Thread(target=self._sit, name=self.name, daemon=True).start()
        self._queue.put(partial(work, *args))

    def close(self, deadline: float) -> None:
        """Wait for what was started, until `deadline` (of time.monotonic()) at the most; start nothing afterwards."""
        with self._changed:
            self._changed.wait_for(lambda: not self.busy, deadline - time.monotonic())
        for _ in range(self._threads):
            self._queue.put(None)

    def _sit(self) -> None:
        while work := self._queue.get():
            self._do(work)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Unavailable as error:
            log.get(work=self.name).error("database unavailable", reason=str(error))
        except Exception:  # a mistake in this program: its lease runs out, and whoever reads the log must know
            log.get(work=self.name).exception("could not be brought to its end")
        finally:
            with self._changed:
                self.busy -= 1
                self._changed.notify_all()
            self._wake()

"""Answers that are kept for some seconds, so that a burst of questions about one thing is one question."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Answers by their key, each for `seconds`, at most `most` of them. For many threads: who asks what another
    thread is just asking waits for that answer. A question that failed is asked again the next time.
    """

    def __init__(self, seconds: float = 5.0, most: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Future[T]]] = {}

    def get(self, key: str, ask: Callable[[], T]) -> T:
        """What `ask` says now or said within the last seconds; raises what it raises."""
        with self._lock:
            until, answer = self._kept.get(key, (0.0, None))
            if mine := answer is None or self._clock() >= until:
                answer = Future()
                self._kept.pop(key, None)
                self._kept[key] = self._clock() + self._seconds, answer
            if len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]  # the oldest
        if mine:
            self._fill(key, answer, ask)
        return answer.result()

    def _fill(self, key: str, answer: Future[T], ask: Callable[[], T]) -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            with self._lock:
                self._kept.pop(key, None)
            answer.set_exception(error)

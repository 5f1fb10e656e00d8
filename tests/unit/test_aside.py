"""Work beside the worker's own: one round at a time, and nothing that it raises matters to anybody else."""

from __future__ import annotations

import threading
import time

import pytest

from relay.aside import Aside
from relay.errors import Unavailable


def soon() -> float:
    return time.monotonic() + 20


def test_a_round_does_not_hold_up_the_caller_and_there_is_one_at_a_time() -> None:
    begun, end = threading.Semaphore(0), threading.Event()

    def work() -> None:
        begun.release()
        end.wait(20)

    aside = Aside("test", work, pause=0)
    aside.turn()
    assert begun.acquire(timeout=20)
    aside.turn()
    aside.turn()
    assert not begun.acquire(timeout=0)
    end.set()
    aside.close(soon())
    aside.turn()
    assert begun.acquire(timeout=20)
    aside.close(soon())


def test_it_pauses_between_two_rounds() -> None:
    rounds: list[int] = []
    aside = Aside("test", lambda: rounds.append(1), pause=3600)
    for _ in range(3):
        aside.turn()
        aside.close(soon())
    assert rounds == [1]


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("a mistake")])
def test_after_a_failure_the_next_round_comes(error: Exception) -> None:
    rounds: list[int] = []

    def work() -> None:
        rounds.append(1)
        raise error

    aside = Aside("test", work, pause=0)
    for _ in range(2):
        aside.turn()
        aside.close(soon())
    assert rounds == [1, 1]


def test_closing_before_the_first_round() -> None:
    Aside("test", lambda: None, pause=0).close(soon())


def test_closing_does_not_wait_for_ever() -> None:
    end, ended = threading.Event(), threading.Event()

    def work() -> None:
        end.wait(20)
        ended.set()

    aside = Aside("test", work, pause=0)
    aside.turn()
    aside.close(0)
    assert not ended.is_set()
    end.set()
    aside.close(soon())
    assert ended.is_set()

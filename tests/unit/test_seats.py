"""Threads for one kind of work: how many at a time, what becomes of mistakes, and how they close."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import structlog.testing

from relay.errors import Unavailable
from relay.seats import Seats


class Held:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.end = threading.Event()
        self.threads: set[str | int] = set()

    def __call__(self) -> None:
        self.threads.add(threading.get_ident())
        self.begun.release()
        self.end.wait(20)


@pytest.fixture
def woken() -> threading.Semaphore:
    return threading.Semaphore(0)


@pytest.fixture
def seats(woken: threading.Semaphore) -> Iterator[Seats]:
    made = Seats("test", 2, woken.release)
    yield made
    made.close(soon())


def soon() -> float:
    return time.monotonic() + 20


def test_so_many_at_a_time_and_a_seat_that_is_free_wakes(seats: Seats, woken: threading.Semaphore) -> None:
    held = Held()
    assert seats.free == 2
    for _ in range(3):
        seats.start(held)
    for _ in range(2):
        assert held.begun.acquire(timeout=20)
    assert not woken.acquire(blocking=False)
    held.end.set()
    for _ in range(3):
        assert woken.acquire(timeout=20)
    assert seats.free == 2
    assert len(held.threads) == 2


def test_a_thread_that_is_free_is_used_again(seats: Seats, woken: threading.Semaphore) -> None:
    threads: set[int] = set()
    for _ in range(10):
        seats.start(lambda: threads.add(threading.get_ident()))
        assert woken.acquire(timeout=20)
    assert len(threads) == 1, "each has a connection of its own, which is kept alive"


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("a mistake")])
def test_what_goes_wrong_is_told_and_leaves_the_seat_free(
    seats: Seats, woken: threading.Semaphore, error: Exception
) -> None:
    def fail(given: Exception) -> None:
        raise given

    with structlog.testing.capture_logs() as lines:
        seats.start(fail, error)
        assert woken.acquire(timeout=20)
    [line] = lines
    assert (line["work"], line["log_level"]) == ("test", "error")
    assert (line.get("reason"), line.get("exc_info")) in [("away", None), (None, True)]
    assert (line.get("reason") is None) is isinstance(error, ValueError)
    assert seats.free == 2


def test_closing_waits_for_what_was_started(seats: Seats) -> None:
    held = Held()
    seats.start(held)
    threading.Timer(0.1, held.end.set).start()
    seats.close(soon())
    assert held.end.is_set()
    assert seats.busy == 0


def test_closing_does_not_wait_beyond_the_deadline(seats: Seats, woken: threading.Semaphore) -> None:
    held = Held()
    seats.start(held)
    for deadline in (time.monotonic() + 0.05, time.monotonic() - 1):
        seats.close(deadline)
        assert seats.busy == 1
    held.end.set()
    assert woken.acquire(timeout=20)


def test_work_that_hangs_does_not_keep_the_process_from_ending() -> None:
    hang = "import threading; from relay.seats import Seats; Seats('x', 1, int).start(threading.Event().wait)"
    assert subprocess.run([sys.executable, "-c", hang], timeout=20, check=False).returncode == 0

from __future__ import annotations

import pytest

from relay.backoff import HOUR, LONGEST, SCHEDULE, asked_for, next_delay, probe_delay, watched_delay


def latest() -> float:
    return 1.0


def soonest() -> float:
    return 0.0


def test_the_waits_are_the_documented_ones() -> None:
    waits = [next_delay(attempt, random=latest) for attempt in range(1, 12)]

    assert waits == [1, 5, 30, 120, 600, 1800, 3600, 10800, 21600, 21600, 21600]


def test_the_waits_end_within_72_hours_and_use_them() -> None:
    assert 72 * HOUR - LONGEST < sum(SCHEDULE) <= 72 * HOUR


def test_gives_up_after_the_last_wait() -> None:
    assert next_delay(len(SCHEDULE), random=latest) == LONGEST
    assert next_delay(len(SCHEDULE) + 1, random=latest) is None
    assert next_delay(1000, random=latest) is None


def test_velt_cannot_prolong_the_whole() -> None:
    assert next_delay(len(SCHEDULE) + 1, retry_after=10.0) is None


def test_jitter_is_full() -> None:
    assert next_delay(5, random=soonest) == 0
    assert next_delay(5, random=lambda: 0.25) == 150


def test_jitter_differs_from_call_to_call() -> None:
    assert len({next_delay(9) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        pytest.param(None, 30, id="nothing asked"),
        pytest.param(0.0, 30, id="zero"),
        pytest.param(7.0, 30, id="shorter than ours"),
        pytest.param(45.0, 45, id="longer than ours"),
        pytest.param(10 * HOUR, LONGEST, id="longer than six hours"),
    ],
)
def test_retry_after_only_lengthens(asked: float | None, waits: float) -> None:
    assert next_delay(3, asked, random=latest) == waits


def test_retry_after_holds_against_jitter() -> None:
    assert next_delay(3, 20.0, random=soonest) == 20


def test_probes_double_up_to_a_minute() -> None:
    assert [probe_delay(probes) for probes in range(7)] == [5, 10, 20, 40, 60, 60, 60]


@pytest.mark.parametrize(("retry_after", "delay"), [(None, 5), (2.0, 5), (20.0, 20), (9000.0, 120)])
def test_whoever_watches_waits_as_long_as_is_asked_for_within_reason(retry_after: float | None, delay: float) -> None:
    assert watched_delay(5.0, retry_after) == delay


def test_a_directory_that_asks_to_wait_is_left_alone_for_so_long_and_a_little_longer() -> None:
    assert asked_for(60.0, lambda: 0.0) == 60.0
    assert asked_for(60.0, lambda: 1.0) == pytest.approx(66.0)
    assert asked_for(1e9, lambda: 0.0) == HOUR
    assert asked_for(0.0) == 0.0

"""When to call Velt again. Pure arithmetic; seconds throughout."""

from __future__ import annotations

import random
from collections.abc import Callable

MINUTE = 60.0
HOUR = 60 * MINUTE

LONGEST = 6 * HOUR

#: The longest wait after the first attempt, after the second, and so on: 71 hours in all, then a person is needed.
SCHEDULE = (
    1.0,
    5.0,
    30.0,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    1 * HOUR,
    3 * HOUR,
    *(11 * [LONGEST]),
)

#: The wait before each probe while Velt is down; the last one repeats.
PROBES = (5.0, 10.0, 20.0, 40.0, 60.0)

#: The waits of a command that somebody watches, and of a list that would have to begin anew, before a question that
#: failed is put again; then it is given up.
WATCHED = (1.0, 5.0, 30.0)
LONGEST_WATCHED = 2 * MINUTE

#: The wait before a directory that did not answer is asked again; the last one repeats.
LOOK_UPS = (1.0, 5.0, 30.0, 60.0, 2 * MINUTE, 5 * MINUTE)


def look_up_delay(
    failures: int, retry_after: float | None = None, random: Callable[[], float] = random.random
) -> float:
    """Seconds until a directory is asked again after so many failures in a row (from 1); half of them jitter.

    `retry_after`, the seconds that the directory asked for, only lengthens the wait, to an hour at most.
    """
    longest = LOOK_UPS[min(failures, len(LOOK_UPS)) - 1]
    return max(longest * (0.5 + random() / 2), min(retry_after or 0.0, HOUR))


def asked_for(retry_after: float, random: Callable[[], float] = random.random) -> float:
    """Seconds for which a directory that asked everybody to wait is left alone: an hour at most, a tenth is jitter."""
    return min(retry_after, HOUR) * (1 + random() / 10)


def watched_delay(wait: float, retry_after: float | None) -> float:
    """Seconds until it is put again: `wait`, or what the other side asked for, to `LONGEST_WATCHED` at most."""
    return min(max(wait, retry_after or 0.0), LONGEST_WATCHED)


def next_delay(
    attempt: int, retry_after: float | None = None, random: Callable[[], float] = random.random
) -> float | None:
    """Seconds until the next attempt, or None when `attempt` (how many were made, from 1) was the last one.

    Full jitter: anything from 0 to the scheduled wait, so that what failed together does not come back together.
    `retry_after`, the seconds that Velt asked for, only lengthens the wait, to `LONGEST` at most.
    """
    if attempt > len(SCHEDULE):
        return None
    delay = random() * SCHEDULE[attempt - 1]
    return max(delay, min(retry_after or 0.0, LONGEST))


def probe_delay(probes: int) -> float:
    """Seconds to wait before the next probe when `probes` have failed so far (from 0)."""
    return PROBES[min(probes, len(PROBES) - 1)]

"""Asking again: a list of thousands of pages must not begin anew because one of them failed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TypeAlias, TypeVar

from relay import backoff, log
from relay.directories.http import Client, Response
from relay.errors import LookUpFailed

Answer = TypeVar("Answer")
#: Told what went wrong, and after how many seconds the question is put again.
Tell: TypeAlias = Callable[[LookUpFailed, float], None]
Wait: TypeAlias = Callable[[float], None]

#: Seconds that the waits for one page may take together. With four answers of 20 s they are less than the lease of
#: whoever reads (relay/reconcile.py), which is taken anew for each page.
LONGEST_FOR_A_PAGE = 150.0


def again(ask: Callable[[], Answer], tell: Tell, wait: Wait, longest: float = math.inf) -> Answer:
    """The answer to a question, which is put again a few times where it failed.

    Raises LookUpFailed: what went wrong the last time, or would last, or asks for more than `longest` seconds in all.
    """
    left = longest
    for shortest in backoff.WATCHED:
        try:
            return ask()
        except LookUpFailed as error:
            pause = backoff.watched_delay(shortest, error.retry_after)
            if error.lasting or pause > left:
                raise
            tell(error, pause)
        left -= pause
        wait(pause)
    return ask()


class Patient:
    """The client of one source, for lists: each of its pages is asked for `again`."""

    def __init__(self, client: Client, source: str, wait: Wait = time.sleep) -> None:
        self._client = client
        self._source = source
        self._wait = wait

    def get(
        self,
        where: str,
        params: Mapping[str, str | int] | None = None,
        *,
        answers: Collection[int] = (404,),
        needs: str = "",
    ) -> Response:
        """What is at `where`; see Client."""
        ask = partial(self._client.get, where, params, answers=answers, needs=needs)
        return again(ask, self._tell, self._wait, LONGEST_FOR_A_PAGE)

    def _tell(self, error: LookUpFailed, pause: float) -> None:
        log.get(source=self._source).warning("a page is asked for again", reason=str(error), seconds=round(pause, 1))

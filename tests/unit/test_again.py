"""Asking again: what is put again, when, and when it is given up."""

from __future__ import annotations

import pytest

from relay import backoff, reconcile
from relay.directories import again as again_module
from relay.directories.again import again
from relay.errors import LookUpFailed

#: Seconds that one answer of a directory may take (relay/directories/http.py).
ANSWER = 20.0


class Question:
    """Fails with these errors, one after the other, then answers."""

    def __init__(self, *errors: LookUpFailed) -> None:
        self.errors = list(errors)
        self.told: list[float] = []
        self.waited: list[float] = []

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "the answer"

    def put(self, **more: float) -> str:
        return again(self, lambda error, pause: self.told.append(pause), self.waited.append, **more)


def test_an_answer_is_an_answer() -> None:
    question = Question()
    assert question.put() == "the answer"
    assert question.waited == []


def test_what_may_pass_is_waited_for_longer_and_longer_and_as_long_as_is_asked_for() -> None:
    question = Question(LookUpFailed("a"), LookUpFailed("b", 60), LookUpFailed("c", 9000))
    assert question.put() == "the answer"
    assert question.waited == question.told == [1, 60, backoff.LONGEST_WATCHED]


def test_the_fourth_failure_is_the_last() -> None:
    question = Question(*(LookUpFailed(name) for name in "abcd"))
    with pytest.raises(LookUpFailed, match="d"):
        question.put()
    assert question.waited == [1, 5, 30]


def test_what_lasts_is_not_waited_for() -> None:
    question = Question(LookUpFailed("refused", lasting=True))
    with pytest.raises(LookUpFailed, match="refused"):
        question.put()
    assert question.waited == []


def test_all_waits_together_have_an_end() -> None:
    question = Question(LookUpFailed("a", 60), LookUpFailed("b", 60), LookUpFailed("c", 60))
    with pytest.raises(LookUpFailed, match="c"):
        question.put(longest=150)
    assert question.waited == question.told == [60, 60]


def test_no_page_takes_longer_than_the_lease_of_its_reader() -> None:
    answers = (len(backoff.WATCHED) + 1) * ANSWER
    assert again_module.LONGEST_FOR_A_PAGE + answers < reconcile.LEASE

"""The steps of a simulated history: what happens in the world, to messages, directories, Velt, workers, operators.

A history is a list of steps, and hypothesis makes and shrinks it. A step that cannot be is passed over, so that every
part of a history is a history too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from hypothesis import strategies as st

from tests.simulated_world import APP, GROUPS, OKTA, PEOPLE, SCIM, SOURCES, Verb

#: Seconds after which each copy of a message arrives; none: it is lost.
Fate: TypeAlias = tuple[int, ...]

T = TypeVar("T")


@dataclass(frozen=True)
class Act:
    """Something happens in the world, and is told."""

    gap: int
    source: str
    person: str
    verb: Verb
    number: int
    fate: Fate


@dataclass(frozen=True)
class Weather:
    """From now on a directory answers with what was so `lag` seconds before, and for `down` seconds not at all."""

    gap: int
    source: str
    lag: int
    down: int


@dataclass(frozen=True)
class Answers:
    """What the next call to Velt comes to, and how many seconds it takes."""

    gap: int
    outcome: str
    seconds: int


@dataclass(frozen=True)
class Away:
    """No worker runs for some seconds."""

    gap: int
    seconds: int


@dataclass(frozen=True)
class Operator:
    """An operator retries, replays, approves, rejects or cancels an event, pauses or resumes."""

    gap: int
    verb: str
    number: int


@dataclass(frozen=True)
class Reconcile:
    """A source is read; `expired`: its cursor is worth nothing any more."""

    gap: int
    source: str
    expired: bool


Step: TypeAlias = Act | Weather | Answers | Away | Operator | Reconcile


@dataclass(frozen=True)
class History:
    """`before`: who (source, person, group or app) was in what before the relay was there. `lags`: by how many seconds
    Okta's and Entra's directories lag at first. `nested`: whether an Entra group lies in another one at first. `anew`:
    at the end every cursor is worth nothing any more. `guard`: how many people may lose something within an hour before
    a person is asked, None: any number.
    """

    accounts: str
    before: tuple[tuple[str, str, str], ...]
    lags: tuple[int, int]
    nested: bool
    anew: bool
    guard: int | None
    steps: tuple[Step, ...]


#: At most so many steps; fewer are taken, as each may be nothing, which is what makes a shrunk story short.
LENGTH = 26

GAPS = st.sampled_from((0, 1, 10, 60, 300, 1200, 4000))
FATES: tuple[Fate, ...] = ((0,), (2,), (0, 1), (600,), (), (0, 900), (1200, 5), (3600,))
OUTCOMES = ("lost", "lost, done", "killed", "killed, done", "busy", "down", "refused", "removed")
LIKELY = (*5 * (Verb.JOIN,), Verb.MOVE, *2 * (Verb.SUSPEND,), *2 * (Verb.DEACTIVATE,))
#: What an operator does, to an event or to delivery.
VERBS = ("retry", "replay", "replay", "approve", "reject", "cancel", "pause", "resume")
#: What may be in the focus of a history: a few sources, people and verbs that meet again and again find more than
#: everything at once.
SOME_SOURCES = (SOURCES, *((source,) for source in SOURCES), SOURCES[:2], SOURCES[1:], (OKTA, SCIM))
SOME_PEOPLE = (PEOPLE[:1], (*4 * PEOPLE[:1], *PEOPLE), PEOPLE)


@dataclass(frozen=True)
class Focus:
    """What the steps of a history are drawn from."""

    sources: tuple[str, ...]
    people: tuple[str, ...]
    verbs: tuple[Verb, ...]
    fates: tuple[Fate, ...]
    outcomes: tuple[str, ...]


def _some(options: Sequence[T], at_most: int) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(st.sampled_from(options), min_size=1, max_size=at_most, unique=True).map(tuple)


FOCI = st.builds(
    Focus,
    sources=st.sampled_from(SOME_SOURCES),
    people=st.sampled_from(SOME_PEOPLE),
    verbs=st.one_of(st.just((*LIKELY, *Verb)), _some(list(Verb), 3).map(lambda verbs: (*2 * verbs, *LIKELY[:4]))),
    fates=st.one_of(st.just(((0,), *FATES)), _some(FATES, 2).map(lambda fates: ((0,), *fates))),
    outcomes=_some(OUTCOMES, 3),
)


def _act(focus: Focus) -> st.SearchStrategy[Step]:
    return st.builds(
        Act,
        gap=GAPS,
        source=st.sampled_from(focus.sources),
        person=st.sampled_from(focus.people),
        verb=st.sampled_from(focus.verbs),
        number=st.sampled_from((0, 0, 1, 2, 2, 3, 3)),
        fate=st.sampled_from(focus.fates),
    )


def _other(focus: Focus) -> st.SearchStrategy[Step]:
    asked = st.sampled_from([source for source in focus.sources if source in SOURCES[:2]] or SOURCES[:2])
    return st.one_of(
        st.builds(
            Weather,
            gap=GAPS,
            source=asked,
            lag=st.sampled_from((20, 120, 600, 0)),
            down=st.sampled_from((0, 0, 60, 1500, 8000)),
        ),
        st.builds(Answers, gap=GAPS, outcome=st.sampled_from(focus.outcomes), seconds=st.sampled_from((0, 1, 20, 50))),
        st.builds(Away, gap=GAPS, seconds=st.sampled_from((30, 1000))),
        st.builds(
            Operator,
            gap=GAPS,
            verb=st.sampled_from(VERBS),
            number=st.integers(0, 30),
        ),
        st.builds(Reconcile, gap=GAPS, source=asked, expired=st.booleans()),
    )


_MEMBERS = [(source, person, group) for source in SOURCES[:2] for person in PEOPLE for group, _, _ in GROUPS[source]]
_MEMBERS += [(OKTA, person, APP) for person in PEOPLE]


@st.composite
def _steps(draw: st.DrawFn) -> tuple[Step, ...]:
    """Something in the world three times out of four; now and then nothing."""
    focus = draw(FOCI)
    act, other, die = _act(focus), _other(focus), st.integers(0, 9)
    drawn = []
    for _ in range(LENGTH):
        rolled = draw(die)
        if rolled:
            drawn.append(draw(other if rolled > 7 else act))
    return tuple(drawn)


HISTORIES = st.builds(
    History,
    accounts=st.sampled_from(("any", "same_source")),
    before=st.lists(st.sampled_from(_MEMBERS), max_size=3, unique=True).map(tuple),
    lags=st.tuples(*2 * [st.sampled_from((0, 0, 20, 120, 600))]),
    nested=st.booleans(),
    anew=st.booleans(),
    guard=st.sampled_from((None, None, 1, 2)),
    steps=_steps(),
)

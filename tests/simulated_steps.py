"""The steps of a simulated history: what happens in the world, to messages, directories, Velt, workers, operators.

A history is a list of steps, and hypothesis makes and shrinks it. A step that cannot be is passed over, so that every
part of a history is a history too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from hypothesis import strategies as st

from tests.simulated_world import APP, GROUPS, OKTA, PEOPLE, SOURCES, Verb

#: Seconds after which each copy of a message arrives; none: it is lost.
Fate: TypeAlias = tuple[int, ...]


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
    """An operator retries or replays an event, pauses or resumes."""

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
    Okta's and Entra's directories lag at first.
    """

    accounts: str
    before: tuple[tuple[str, str, str], ...]
    lags: tuple[int, int]
    steps: tuple[Step, ...]


GAPS = st.sampled_from((0, 1, 10, 60, 300, 1200, 4000))
FATES = st.sampled_from(((0,), (0,), (2,), (0, 1), (600,), (), (0, 900), (1200, 5), (3600,)))
OUTCOMES = ("lost", "lost, done", "killed", "killed, done", "busy", "busy", "down", "refused", "removed")
LIKELY = (*5 * (Verb.JOIN,), Verb.MOVE, *2 * (Verb.SUSPEND,), *2 * (Verb.DEACTIVATE,))

_ACTS = st.builds(
    Act,
    gap=GAPS,
    source=st.sampled_from(SOURCES),
    person=st.sampled_from((*4 * PEOPLE[:1], *PEOPLE)),
    verb=st.sampled_from((*LIKELY, *Verb)),
    number=st.sampled_from((0, 0, 1, 2, 3)),
    fate=FATES,
)
_OTHERS = st.one_of(
    st.builds(
        Weather,
        gap=GAPS,
        source=st.sampled_from(SOURCES[:2]),
        lag=st.sampled_from((20, 120, 600, 0)),
        down=st.sampled_from((0, 0, 60, 1500)),
    ),
    st.builds(Answers, gap=GAPS, outcome=st.sampled_from(OUTCOMES), seconds=st.sampled_from((0, 1, 20, 50))),
    st.builds(Away, gap=GAPS, seconds=st.sampled_from((30, 1000))),
    st.builds(
        Operator,
        gap=GAPS,
        verb=st.sampled_from(("retry", "replay", "replay", "pause", "resume")),
        number=st.integers(0, 30),
    ),
    st.builds(Reconcile, gap=GAPS, source=st.sampled_from(SOURCES[:2]), expired=st.booleans()),
)
_MEMBERS = [(source, person, group) for source in SOURCES[:2] for person in PEOPLE for group, _, _ in GROUPS[source]]
_MEMBERS += [(OKTA, person, APP) for person in PEOPLE]


@st.composite
def _steps(draw: st.DrawFn) -> Step:
    """Something in the world, three times out of four."""
    return draw(_ACTS if draw(st.integers(0, 7)) < 6 else _OTHERS)


HISTORIES = st.builds(
    History,
    accounts=st.sampled_from(("any", "same_source")),
    before=st.lists(st.sampled_from(_MEMBERS), max_size=3, unique=True).map(tuple),
    lags=st.tuples(*2 * [st.sampled_from((0, 0, 20, 120, 600))]),
    steps=st.lists(_steps(), min_size=14, max_size=40).map(tuple),
)

"""Random histories of a company, on both databases; `make simulate` lives through thousands (tests/simulate.py)."""

from __future__ import annotations

import pytest

from relay.store.database import Database
from tests import postgres
from tests.people import Clock
from tests.simulate import live_many, quick_database

PER_RUN = 60


@pytest.mark.parametrize("start", range(4))
def test_nobody_keeps_what_they_lost_and_nobody_loses_what_they_have(
    start: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clock = Clock()
    with quick_database(tmp_path_factory.mktemp("simulated"), clock) as database:
        counts = live_many(database, clock, PER_RUN, start)
    assert counts.calls > counts.histories


def test_the_same_on_postgresql(postgres_server: postgres.Server) -> None:
    clock = Clock()
    database = Database(postgres_server.new_database(), clock)
    try:
        assert live_many(database, clock, 25, 100).events > 0
    finally:
        database.close()

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relay.store.database import Database
from tests.directory_people import Directory, Looked, rules_with_directory
from tests.people import Clock, Relay


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(database: Database, clock: Clock) -> Iterator[Database]:
    made = Database(database.url.render_as_string(hide_password=False), clock)
    yield made
    made.close()


@pytest.fixture
def relay(timed: Database) -> Relay:
    return Relay(timed)


@pytest.fixture
def directory(clock: Clock) -> Directory:
    return Directory(clock)


@pytest.fixture
def looked(timed: Database, directory: Directory) -> Looked:
    return Looked(Relay(timed, rules_with_directory()), directory)

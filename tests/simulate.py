"""Live through many random histories of a company: `python -m tests.simulate [histories] [processes]`, `make simulate`.

Progress is shown; the first history in which something is wrong is made as short as it gets, told as a story, and ends
it all with 1. What is random is seeded with the day, or with SEED: the same seed is the same histories.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pool
from pathlib import Path

import structlog
from hypothesis import HealthCheck, Phase, given, seed, settings
from sqlalchemy import event

from relay.store.database import Database
from tests.people import Clock
from tests.simulated_life import Counts, Life, Wrong
from tests.simulated_steps import HISTORIES, History

#: Histories of one run of hypothesis: it remembers what it has made, and each process takes the next run.
RUN = 100


def live_many(database: Database, clock: Clock, number: int, start: int) -> Counts:
    """Live through so many histories of the seed `start`. Raises Wrong with the shortest story there is."""
    counts = Counts()

    @seed(start)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(HISTORIES)
    def live(history: History) -> None:
        Life(database, clock, history, counts).live()

    live()
    return counts


@contextmanager
def quick_database(folder: Path, clock: Clock) -> Iterator[Database]:
    """A migrated SQLite database that never waits for the disk: no power cut is simulated."""
    url = f"sqlite:///{folder / 'relay.db'}"
    template = Database(url)
    template.migrate()
    template.close()
    database = Database(url, clock)
    event.listen(database.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    try:
        yield database
    finally:
        database.close()


def _run(start: int) -> tuple[Counts, str]:
    """One run in a process of its own: what it came to, and the story where something is wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder = Path(tempfile.mkdtemp(prefix="relay-simulate-"))
    clock = Clock()
    try:
        with quick_database(folder, clock) as database:
            return live_many(database, clock, RUN, start), ""
    except Wrong as wrong:
        return Counts(), str(wrong)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str]) -> int:
    histories = int(arguments[0]) if arguments else 10_000
    processes = int(arguments[1]) if len(arguments) > 1 else os.cpu_count() or 1
    first = int(os.environ.get("SEED", time.strftime("%Y%m%d"))) * 100_000
    total, began = Counts(), time.monotonic()
    print(f"seed {first // 100_000}, {histories} histories in {processes} processes")
    with Pool(processes) as pool:
        starts = range(first, first + -(-histories // RUN))
        for counts, story in pool.imap_unordered(_run, starts):
            if story:
                print(f"\n{story}\n", file=sys.stderr)
                return 1
            total.add(counts)
            print(f"\r{total.histories}/{histories}, {time.monotonic() - began:.0f} s ", end="", flush=True)
    print(f"\nnothing is wrong: {total}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

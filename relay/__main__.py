"""The command line: `python -m relay COMMAND`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from relay import commands, compose, contracts, demo, hello, log, online, sandbox, settings
from relay.arguments import AnyOrder
from relay.errors import ConfigError, Problem, RelayError, Unavailable
from relay.model import MAX_RESOURCES
from relay.settings import Settings
from relay.store.database import Database

#: Seconds between two looks whether the database is there.
_AGAIN = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. What goes wrong is a sentence on standard error."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given) or 0)
    except RelayError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m relay", description="Removes Velt permissions when an identity provider says so."
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=AnyOrder)
    for run, name, text in (
        (_migrate, "migrate", "bring the database to the newest schema"),
        (_worker, "worker", "plan and deliver; any number of them"),
        (_demo, "demo", "send sample events to a running relay and show what Velt was asked to remove"),
    ):
        subparsers.add_parser(name, help=text, description=text).set_defaults(run=run)
    text = "wait for a relay to answer, say what to try, and stay"
    greeting = subparsers.add_parser("hello", help=text, description=text)
    greeting.add_argument("--check", action="store_true", help="only refuse variables that lead away from this machine")
    greeting.set_defaults(run=_hello)
    text = "tell every mistake of relay.yaml and of the environment"
    check = subparsers.add_parser("check", help=text, description=text)
    check.add_argument("--online", action="store_true", help="ask Velt, too, about the resources that the rules name")
    check.set_defaults(run=_check)
    text = "run the local stand-in for Velt"
    stand_in = subparsers.add_parser("sandbox", help=text, description=text)
    stand_in.add_argument("--port", type=int, default=8090, help="where it listens on this machine (8090)")
    stand_in.set_defaults(run=_sandbox)
    commands.register(subparsers)
    return parser


def _migrate(arguments: argparse.Namespace) -> int:
    database = Database(settings.load_environment().database_url)
    with commands.naming(database):
        print(f"the database's schema is {database.migrate()}, the newest")
    return 0


def _worker(arguments: argparse.Namespace) -> int:
    given = settings.load()
    lacking = settings.missing(given, "worker")
    if lacking:
        raise ConfigError(lacking)
    log.configure(given.log_level)
    database = compose.database_of(given)
    problem = _wait_for(database)
    database.close()
    if problem is not None:
        print(problem, file=sys.stderr)
        return 1
    worker = compose.worker(given)
    worker.handle_signals()
    worker.run()
    return 0


def _wait_for(database: Database) -> str | None:
    """Wait until the database can be read; return what is wrong with its schema.

    A database that appears while this waits is being made: it is waited for until its schema is there too.
    """
    waited = False
    while True:
        try:
            problem = database.schema_problem()
            if problem is None or not waited:
                return problem
        except Unavailable as error:
            problem = str(error)
        waited = True
        log.get().error("waiting for the database", reason=problem)
        time.sleep(_AGAIN)


def _sandbox(arguments: argparse.Namespace) -> int:
    try:
        sandbox.run(arguments.port, echo=lambda line: print(line, flush=True))
    except (OSError, OverflowError) as error:
        print(f"the sandbox cannot listen on port {arguments.port}: {error}", file=sys.stderr)
        return 1
    return 0


def _check(arguments: argparse.Namespace) -> int:
    given = settings.load()
    config = given.config_file.current
    mistakes = [*settings.missing(given, "web"), *settings.missing(given, "worker")]
    for warning in [*settings.warnings(config), *settings.weak_secrets(given)]:
        print(f"warning: {warning}")
    if mistakes:
        raise ConfigError(_once(mistakes))
    if arguments.online and not _online(given):
        return 1
    sources, rules = len(config.sources), len(config.document["rules"])
    print(f"all is well: {_count(sources, 'source')}, {_count(rules, 'rule')}, mode {config.mode}")
    return 0


def _online(given: Settings) -> bool:
    """Print what Velt says about the rules' resources; whether it could be asked."""
    velt = compose.velt_of(given)
    found = online.look(velt, compose.compiled(given.config_file.current), _progress)
    velt.close()
    for warning in [*found.warnings, online.REMINDER]:
        print(f"warning: Velt: {contracts.printable(warning)}")
    for mistake in found.mistakes:
        print(contracts.printable(mistake), file=sys.stderr)
    if not found.mistakes:
        print(f"Velt answers, and was asked about {_count(found.asked, 'resource')}")
    return not found.mistakes


def _progress(done: int, of: int) -> None:
    """Tell whoever waits that something goes on."""
    if of > MAX_RESOURCES:
        print(f"Velt was asked about {done} of {of}", file=sys.stderr, flush=True)


def _once(problems: Sequence[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _demo(arguments: argparse.Namespace) -> int:
    return demo.run(settings.load(), print)


def _hello(arguments: argparse.Namespace) -> int:
    if arguments.check:
        hello.check(settings.load_environment())
        return 0
    return hello.run(settings.load(), print)


if __name__ == "__main__":
    sys.exit(main())

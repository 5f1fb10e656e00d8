"""The operators' verbs on the command line. They work on the database directly, as `cli:<login name>`.

Only retry, remove, explain, audit and reconcile need relay.yaml; the others must work while it is broken.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from relay import audit_text, auditing, compose, explaining, log, operate, reconcile, settings, terminal
from relay.arguments import (
    MANY,
    RESOURCE,
    Answer,
    Arguments,
    add_choice,
    add_filter,
    add_reason,
    body_of,
    filter_of,
    reason_of,
    resource_of,
)
from relay.directories.base import Directory
from relay.errors import ConfigError, Refused, RelayError, Unavailable
from relay.model import now, to_iso
from relay.progress import Progress
from relay.settings import Environment, Settings
from relay.store import subscriptions
from relay.store.database import Database
from relay.store.places import Place

#: What argparse gives for `add_subparsers`; its own name is private.
Subparsers: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class _Desk:
    """What a verb works with."""

    database: Database
    actor: str


def register(subparsers: Subparsers) -> None:
    """Add the verbs to the command line; each sets `run`, which takes the arguments and raises RelayError."""
    events = _add(subparsers, "events", _events, "list events, the latest first")
    add_filter(events)
    events.add_argument("--limit", type=int, default=operate.DEFAULT_LIMIT, help=f"1 to {operate.MOST}")
    events.add_argument("--cursor", help="the next page, as the page before says")
    _add(subparsers, "show", _show, "everything about one event").add_argument("id", metavar="ID")
    retry = _add(subparsers, "retry", _retry, "try an event again, or all events of a filter")
    add_choice(retry)
    retry.add_argument("--replan", action="store_true", help="plan again by today's rules, events that are done too")
    for verb, text in (
        ("cancel", "give up what an event, or those of a filter, have not removed yet"),
        ("approve", "let what the guard held go on"),
        ("reject", "end what the guard held without removing"),
        ("regranted", "note that what was taken too much was granted again in Velt"),
    ):
        add_choice(_add(subparsers, verb, _decide, text))
    remove = _add(subparsers, "remove", _remove, "remove a person's access by hand")
    remove.add_argument("user", metavar="VELT_USER_ID")
    remove.add_argument("resource", nargs="*", metavar="RESOURCE", help=RESOURCE)
    remove.add_argument("--everything", action="store_true", help="all that any rule gives this person")
    add_reason(remove)
    add_reason(_add(subparsers, "pause", _switch, "stop delivery; planning goes on"))
    add_reason(_add(subparsers, "resume", _switch, "start delivery again"))
    text = (
        "compare who has access in Velt with who is entitled by the directories; changes nothing. The exit code is 0 "
        "whatever is found, 1 when it could not be found out"
    )
    audit = _add(subparsers, "audit", _audit, text)
    audit.add_argument("--only", choices=("extra", "missing"), help="list only this difference")
    _add(subparsers, "stats", _stats, "how the relay is doing")
    _add(subparsers, "subscriptions", _subscriptions, "the Graph subscriptions that the relay keeps")
    text = "read from the providers now what their messages missed; --status only tells how far each is read"
    missed = _add(subparsers, "reconcile", _reconcile, text)
    missed.add_argument(
        "--source", metavar="NAME", help="only this source of relay.yaml; without it all that can be read"
    )
    missed.add_argument(
        "--since", metavar="TIME", help="from then (a time, or an age such as 24h), not from where it was left"
    )
    missed.add_argument("--status", action="store_true", help="read nothing, only tell how far each source is read")
    _add(subparsers, "alerts", _alerts, "what somebody has to know now")
    explain = _add(subparsers, "explain", _explain, "what a payload would do, rule by rule; changes nothing")
    explain.add_argument("--source", required=True, metavar="NAME", help="the source's name in relay.yaml")
    explain.add_argument("--look-up", action="store_true", help="ask the source's directory about each person now")
    explain.add_argument("file", metavar="FILE", help="a delivery or one element of it as JSON; - reads standard input")


def _add(subparsers: Subparsers, name: str, run: Callable[[Arguments], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="JSON for scripts")
    parser.set_defaults(run=run, verb=name)
    return parser


@contextmanager
def _desk(given: Environment | None = None) -> Iterator[_Desk]:
    """A database that can be worked with. `given`: settings that are loaded already. Raises Unavailable."""
    given = given or settings.load_environment()
    log.configure(given.log_level)
    database = Database(given.database_url)
    try:
        with naming(database):
            problem = database.schema_problem()
        if problem is not None:
            raise Unavailable(f"{_name_of(database)}: {problem}")
        yield _Desk(database, f"cli:{_login_name()}")
    finally:
        database.close()


@contextmanager
def naming(database: Database) -> Iterator[None]:
    """Have what is Unavailable say which database it was."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(f"the database {_name_of(database)} (DATABASE_URL) cannot be used: {error}") from error


def _name_of(database: Database) -> str:
    """The file, or host and name; never the password."""
    url = database.url
    return str(url.database) if database.is_sqlite else f"{url.host or 'localhost'}/{url.database}"


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _events(arguments: Arguments) -> int:
    with _desk() as desk:
        answer = operate.events(desk.database, filter_of(arguments), arguments.limit, arguments.cursor, mode=_mode())
    return _tell(arguments, answer, terminal.events)


def _show(arguments: Arguments) -> int:
    with _desk() as desk:
        answer = operate.show(desk.database, arguments.id, mode=_mode())
    return _tell(arguments, answer, terminal.event)


def _retry(arguments: Arguments) -> int:
    body = body_of(arguments) | ({"replan": True} if arguments.replan else {})
    given = settings.load()
    with _desk(given) as desk:
        sources = compose.sources_of(given)
        if arguments.id:
            return _tell(
                arguments, operate.retry(desk.database, sources, desk.actor, arguments.id, body), terminal.plain
            )
        answer = _all(arguments, body, lambda body: operate.retry_all(desk.database, sources, desk.actor, body))
    return _tell(arguments, answer, terminal.bulk)


def _decide(arguments: Arguments) -> int:
    body = body_of(arguments)
    with _desk() as desk:
        if arguments.id:
            return _tell(
                arguments,
                operate.decide(desk.database, desk.actor, arguments.verb, arguments.id, body),
                terminal.plain,
            )
        answer = _all(arguments, body, lambda body: operate.decide_all(desk.database, desk.actor, arguments.verb, body))
    return _tell(arguments, answer, terminal.bulk)


def _all(arguments: Arguments, body: Answer, change: Callable[[Answer], Answer]) -> Answer:
    """Change all events of a filter that are there now, a call at a time; asks first where they are many."""
    dry = change(body | {"dry_run": True})
    if arguments.dry_run:
        return dry
    (past,) = dry.keys() & terminal.DECIDED
    if dry["possible"] > MANY and not arguments.yes:
        _ask(f"{dry['possible']} events would be {past}")
    # What comes while this goes on was not asked for.
    body = body | {"filter": {"until": to_iso(now()), **body["filter"]}}
    changed, cursor = 0, None
    while True:
        try:
            answer = change(body | ({"cursor": cursor} if cursor else {}))
        except RelayError as error:
            if not changed:
                raise
            raise Refused(503, f"{changed} of {dry['possible']} events were {past} before this: {error}") from error
        changed, cursor = changed + answer[past], answer["next"]
        if not answer["more"]:
            return dry | {past: changed, "more": False, "next": None}
        _say(f"{changed} of {dry['possible']} events {past}\n")


def _ask(told: str) -> None:
    _say(f"{told}: really? (yes) ")
    if sys.stdin.readline().strip() != "yes":
        raise Refused(409, "nothing was changed: answer yes, or say --yes")


def _say(text: str) -> None:
    """Tell whoever watches; what a script reads is on standard output."""
    sys.stderr.write(text)
    sys.stderr.flush()


def _remove(arguments: Arguments) -> int:
    if arguments.everything == bool(arguments.resource):
        raise Refused(400, f"name the resources ({RESOURCE}) or say --everything, one of the two")
    wanted = "everything" if arguments.everything else [resource_of(text) for text in arguments.resource]
    body = {"user": arguments.user, "resources": wanted, **reason_of(arguments)}
    given = settings.load()
    with _desk(given) as desk:
        rules = compose.compiled(given.config_file.current)
        answer = operate.remove(desk.database, rules, desk.actor, body)
    return _tell(arguments, answer, terminal.removal)


def _switch(arguments: Arguments) -> int:
    change = operate.pause if arguments.verb == "pause" else operate.resume
    with _desk() as desk:
        answer = change(desk.database, desk.actor, reason_of(arguments))
    return _tell(arguments, answer, terminal.plain)


def _audit(arguments: Arguments) -> int:
    given = settings.load()
    lacking = settings.missing(given, "audit")
    if lacking:
        raise ConfigError(lacking)
    config, progress = given.config_file.current, Progress()
    with _desk(given) as desk:
        velt = compose.velt_of(given)
        try:
            answer = auditing.run(
                desk.database, compose.audit_terms(config), compose.Directories(given)(), velt, progress
            )
        finally:
            progress.end()
            velt.close()
    left_out = {"extra", "missing"} - {arguments.only} if arguments.only else set()
    return _tell(
        arguments, {name: value for name, value in answer.items() if name not in left_out}, audit_text.table_of
    )


def _stats(arguments: Arguments) -> int:
    with _desk() as desk:
        answer = operate.stats(desk.database, _mode())
    return _tell(arguments, answer, terminal.stats)


def _subscriptions(arguments: Arguments) -> int:
    with _desk() as desk:
        answer = subscriptions.shown(desk.database)
    return _tell(arguments, answer, terminal.subscriptions)


def _reconcile(arguments: Arguments) -> int:
    if arguments.status:
        if arguments.since or arguments.source:
            raise Refused(400, "--status reads nothing and tells of every source: leave --since and --source out")
        with _desk() as desk:
            return _tell(arguments, reconcile.shown(desk.database), terminal.reconciled)
    given = settings.load()
    lacking = settings.missing(given, "reconcile")
    if lacking:
        raise ConfigError(lacking)
    since = operate.time_of("since", arguments.since) if arguments.since else None
    chosen = reconcile.chosen(compose.readable(given.config_file.current), arguments.source, since)
    directories = compose.Directories(given)
    progress = Progress()
    with _desk(given) as desk:
        reader = compose.reconciler(given, desk.database, directories)
        for source in chosen:
            place = reader.run(source, since, lambda place: progress(_read_so_far(place)))
            if place is None:
                reconcile.ask(desk.database, desk.actor, reason=None, sources=[source], since=since)
                _say(f"{source} is being read by a worker at this moment, and will be read again after that\n")
        progress.end()
        answer = reconcile.shown(desk.database)
    _tell(arguments, answer, terminal.reconciled)
    return int(any(one["error"] for one in answer["sources"] if one["source"] in chosen))


def _read_so_far(place: Place) -> str:
    return f"{place.source}: {place.read} changes read, {place.found} of them new"


def _alerts(arguments: Arguments) -> int:
    with _desk() as desk:
        answer = operate.alerts(desk.database)
    return _tell(arguments, answer, terminal.alerts)


def _explain(arguments: Arguments) -> int:
    given = settings.load()
    with _desk(given) as desk:
        rules = compose.compiled(given.config_file.current)
        source = operate.source_named(compose.sources_of(given), arguments.source)
        directory = _directory_of(given, arguments.source) if arguments.look_up else None
        answer = explaining.explain(desk.database, rules, source, _content(arguments.file), directory)
    return _tell(arguments, answer, terminal.explained)


def _directory_of(given: Settings, source: str) -> Directory:
    [name] = reconcile.chosen(compose.readable(given.config_file.current), source)
    return compose.Directories(given)()[name]


def _mode() -> str:
    try:
        return settings.load().config_file.current.mode
    except ConfigError:
        return "unknown (relay.yaml is broken)"


def _tell(arguments: Arguments, answer: Answer, as_text: Callable[[Answer], str]) -> int:
    text = json.dumps(answer, indent=2, ensure_ascii=False) if arguments.json else as_text(answer)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    return 0


def _content(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise Refused(400, f"{name} cannot be read: {error.strerror}") from None

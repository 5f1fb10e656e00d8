"""The composition root: settings in, the working parts out. The only place that knows how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from relay import auditing, sources
from relay.alerts import Alerts
from relay.aside import Aside
from relay.config import Config
from relay.config_checks import FIELDS_BY_SOURCE, LOOKED_UP_BY_SOURCE, has_directory
from relay.directories import build
from relay.directories.base import Directory
from relay.directories.subscriptions import Subscriptions
from relay.model import SECOND
from relay.reconcile import Reconciler
from relay.rules import RuleSet, compile_rules
from relay.settings import Settings
from relay.sources.base import Source
from relay.store import subscriptions
from relay.store.database import Database
from relay.subscriptions import Keeper, Target
from relay.velt import Velt
from relay.worker import Worker, process_name

#: Seconds between two looks whether a Graph subscription needs something or a source is to be read.
LOOK = 5.0

#: Seconds between two looks at what somebody has to know.
ALERTS = 10.0


def compiled(config: Config) -> RuleSet:
    """The rules of a relay.yaml, with its identity map and the fields that each of its sources fills."""
    return compile_rules(
        config.document,
        version=config.version,
        exceptions=config.user_map,
        fills={name: FIELDS_BY_SOURCE[given["type"]] for name, given in config.sources.items()},
        looked_up={
            name: LOOKED_UP_BY_SOURCE[given["type"]] for name, given in config.sources.items() if has_directory(given)
        },
        complete=(name for name, given in config.sources.items() if given["type"] == "scim"),
        terse=(name for name, given in config.sources.items() if given["type"] == "entra" and has_directory(given)),
        guard=config.guard,
        patience=int(config.look_up_patience * SECOND),
    )


def readable(config: Config) -> dict[str, str]:
    """The type of each source that has credentials for its provider's API, by the source's name."""
    return {name: given["type"] for name, given in config.sources.items() if has_directory(given)}


class Directories:
    """The directories of the sources that have credentials for one, by name; made anew when relay.yaml changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: tuple[Config, Mapping[str, Directory]] | None = None

    def __call__(self) -> Mapping[str, Directory]:
        config = self._settings.config_file.current
        made = self._made
        if made is None or made[0] is not config:
            made = self._made = config, self._make(config)
        return made[1]

    def _make(self, config: Config) -> dict[str, Directory]:
        built = {name: build(name, given, self._settings.api_secret(name)) for name, given in config.sources.items()}
        return {name: directory for name, directory in built.items() if directory is not None}


def sources_of(settings: Settings) -> dict[str, Source]:
    """The sources of relay.yaml that come by hook, by name; each asks for its secrets when it needs them."""
    config = settings.config_file.current
    return {
        name: sources.build(name, given, settings.source_secret(name))
        for name, given in config.sources.items()
        if given["type"] in sources.TYPES
    }


def database_of(settings: Settings) -> Database:
    """The database of DATABASE_URL; not opened yet."""
    return Database(settings.database_url)


def velt_of(settings: Settings) -> Velt:
    """A client of Velt; it reads the keys anew for each call."""
    return Velt(settings.velt_base_url, settings.velt_keys, timeout=settings.config_file.current.velt.timeout)


def audit_terms(config: Config) -> auditing.Terms:
    """What a relay.yaml says to an audit."""
    return auditing.Terms(
        compiled(config),
        [rule["when"] for rule in config.document["rules"]],
        {name: given.get("attributes", {}) for name, given in config.sources.items() if given["type"] == "scim"},
        config.velt.rate,
    )


def worker(settings: Settings) -> Worker:
    """A worker that is ready to run."""
    database = database_of(settings)
    directories = Directories(settings)
    alerts = Alerts(database, settings.alert_url)
    keeper = Keeper(database, process_name(), lambda: targets_of(settings))
    aside = [
        Aside("alerts", alerts.look, ALERTS),
        Aside("subscriptions", keeper.turn, LOOK),
        Aside("reconcile", reconciler(settings, database, directories).turn, LOOK),
    ]
    return Worker(settings.config_file, database, velt_of(settings), compiled, directories, aside)


def reconciler(
    settings: Settings, database: Database, directories: Callable[[], Mapping[str, Directory]]
) -> Reconciler:
    """What reads from the providers what their messages missed."""
    return Reconciler(
        database,
        process_name(),
        directories,
        lambda: compiled(settings.config_file.current),
        lambda: settings.config_file.current.reconcile_every,
        lambda: subscriptions.lost(database),
    )


def targets_of(settings: Settings) -> dict[str, Target]:
    """The sources whose Graph subscriptions the relay keeps, by name."""
    return {
        name: Target(
            url=f"{given['public_url'].rstrip('/')}/hooks/{name}",
            client_state=partial(_first, settings.source_secret(name)),
            calls=partial(Subscriptions, given, settings.api_secret(name)),
        )
        for name, given in settings.config_file.current.sources.items()
        if "public_url" in given
    }


def _first(secrets: Callable[[], tuple[str, ...]]) -> str:
    return next(iter(secrets()), "")

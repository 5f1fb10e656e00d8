"""What the routes work with, kept up with relay.yaml."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flask import current_app

from relay import compose, log
from relay.config import Config
from relay.errors import ConfigError
from relay.rules import RuleSet
from relay.settings import Settings, missing
from relay.sources.base import Source
from relay.store.database import Database
from relay.store.record import Recorder

#: Seconds between two looks at relay.yaml.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Hook:
    """A source that comes by hook, with the function that gives the secrets it may come with now."""

    source: Source
    secrets: Callable[[], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Built:
    """What is made of one relay.yaml."""

    config: Config
    sources: Mapping[str, Source]
    hooks: Mapping[str, Hook]
    rules: RuleSet


@dataclass
class Relay:
    """One web process's parts. `sources`, `hooks`, `rules` and `config` are those of relay.yaml as it is now."""

    settings: Settings
    database: Database
    recorder: Recorder
    _built: _Built = field(init=False, repr=False)
    _refused: int = field(default=0, init=False, repr=False)
    _names: set[str] = field(default_factory=set, init=False, repr=False)
    _looked: float = field(default=0.0, init=False, repr=False)
    _looking: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._built = self._build()

    @property
    def sources(self) -> Mapping[str, Source]:
        """The sources that come by hook, by name."""
        return self._now().sources

    @property
    def hooks(self) -> Mapping[str, Hook]:
        """The same sources, each with its secrets."""
        return self._now().hooks

    def had_hook(self, name: str) -> bool:
        """Whether this or an earlier relay.yaml of this process has a hook of this name."""
        return name in self._names

    def rules(self) -> RuleSet:
        return self._now().rules

    def config(self) -> Config:
        return self._now().config

    def refused(self) -> int:
        """How many mistakes relay.yaml has as it is now; 0 when it is in force."""
        self._now()
        return self._refused

    def _now(self) -> _Built:
        if time.monotonic() - self._looked >= LOOK and self._looking.acquire(blocking=False):
            try:
                self._looked = time.monotonic()
                self._look()
            finally:
                self._looking.release()
        return self._built

    def _look(self) -> None:
        """Take a changed relay.yaml; a broken one is refused loudly, once, and the old one stays."""
        try:
            if not self.settings.config_file.refresh():
                return
        except ConfigError as error:
            self._refused = len(error.problems)
            for problem in error.problems:
                log.get().error("relay.yaml refused, the old one stays", problem=str(problem))
            return
        self._refused = 0
        self._built = self._build()
        log.get().info("rules loaded", rules=self._built.config.version)
        for problem in missing(self.settings, "web"):
            log.get().error("something is missing", problem=str(problem))

    def _build(self) -> _Built:
        config = self.settings.config_file.current
        sources = compose.sources_of(self.settings)
        hooks = {name: Hook(source, self.settings.source_secret(name)) for name, source in sources.items()}
        self._names.update(hooks)
        return _Built(config, sources, hooks, compose.compiled(config))


def relay() -> Relay:
    """The parts of the application that serves this request."""
    found: Relay = current_app.extensions["relay"]
    return found
